"""What may be connected as a pipe, who closes it, and what its transport tells."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import socket
import tempfile
import termios
import tty
import weakref

import pytest
from iosupport import (
    TIMEOUT,
    Broken,
    Recorder,
    capture,
    finish_pipe,
    in_thread,
    is_stock,
    read_pipe,
    settle,
    turns,
    write_pipe,
)


@pytest.mark.parametrize("as_file", [False, True])
def test_sockets(loop, run, as_file):
    async def main():
        a, b = socket.socketpair()
        if as_file:
            ends = os.fdopen(a.detach(), "rb", 0), os.fdopen(b.detach(), "wb", 0)
        else:
            ends = a, b
        _, reader = await loop.connect_read_pipe(Recorder, ends[0])
        _, writer = await loop.connect_write_pipe(Recorder, ends[1])
        writer.transport.write(b"through a socket")
        assert await reader.received(16) == b"through a socket"
        writer.transport.close()
        assert await reader.lost is None
        await writer.lost
        await turns(2)

    run(main())


USUAL, LARGE = 64 * 1024, 256 * 1024


@pytest.mark.parametrize("size", [USUAL, 2 * USUAL])
@pytest.mark.parametrize("way", ["read", "write"])
def test_a_pipe_that_is_full_again_and_again_is_made_larger(loop, run, way, size):
    """Unless it is of a size that the program chose."""
    times = 20
    total = times * 2 * size

    def drain(fd):
        count = 0
        while count < total:
            count += len(os.read(fd, USUAL))

    async def main():
        async with read_pipe() if way == "read" else write_pipe() as (ours, other):
            fd = other.fileno()
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
            if way == "read":
                for number in range(1, 2 * times + 1):
                    os.write(fd, bytes(size))
                    await ours.received(number * size)
            else:
                for _ in range(times):
                    ours.transport.write(bytes(2 * size))
                await in_thread(drain, fd)
            grown = size == USUAL and not is_stock(loop)
            assert fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) == (LARGE if grown else size)

    run(main())


def test_not_every_pipe_is_made_larger(loop, run):
    """What those of a user may hold is limited."""
    most = 64

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            sizes = []
            for _ in range(most + 2):
                ours, other = await stack.enter_async_context(read_pipe())
                for number in range(1, 21):
                    os.write(other.fileno(), bytes(USUAL))
                    await ours.received(number * USUAL)
                sizes.append(fcntl.fcntl(other.fileno(), fcntl.F_GETPIPE_SZ))
            large = 0 if is_stock(loop) else most
            assert sizes == [LARGE] * large + [USUAL] * (len(sizes) - large)
        async with read_pipe() as (ours, other):
            for number in range(1, 21):
                os.write(other.fileno(), bytes(USUAL))
                await ours.received(number * USUAL)
            size = fcntl.fcntl(other.fileno(), fcntl.F_GETPIPE_SZ)
            assert size == (USUAL if is_stock(loop) else LARGE)

    run(main())


def test_terminal(loop, run):
    async def main():
        master, slave = os.openpty()
        tty.setraw(slave)
        with os.fdopen(slave, "wb", 0) as terminal:
            _, reader = await loop.connect_read_pipe(
                Recorder, os.fdopen(os.dup(master), "rb", 0)
            )
            _, writer = await loop.connect_write_pipe(
                Recorder, os.fdopen(master, "wb", 0)
            )
            terminal.write(b"from the terminal")
            assert await reader.received(17) == b"from the terminal"
            writer.transport.write(b"to it")
            assert await in_thread(os.read, terminal.fileno(), 100) == b"to it"
        # The slave is gone: EIO, which nobody wants to read about.
        exc = await reader.lost
        assert exc is None or exc.errno == errno.EIO
        await finish_pipe(writer)

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_one_terminal_for_input_and_output(loop, run):
    async def main():
        master, slave = os.openpty()
        tty.setraw(slave)
        with os.fdopen(master, "r+b", 0) as outside:
            _, reader = await loop.connect_read_pipe(
                Recorder, os.fdopen(os.dup(slave), "rb", 0)
            )
            _, writer = await loop.connect_write_pipe(
                Recorder, os.fdopen(slave, "wb", 0)
            )
            outside.write(b"typed")
            assert await reader.received(5) == b"typed"
            writer.transport.write(b"shown")
            assert await in_thread(os.read, outside.fileno(), 100) == b"shown"
            await finish_pipe(reader)
            # The output works on without the input.
            writer.transport.write(b"still")
            assert await in_thread(os.read, outside.fileno(), 100) == b"still"
            await finish_pipe(writer)

    run(main())


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_one_descriptor_for_input_and_output(loop, run, first):
    if is_stock(loop) and first == "writer":
        pytest.skip("stops to read when the writer ends")

    async def main():
        master, slave = os.openpty()
        tty.setraw(slave)
        with os.fdopen(master, "r+b", 0) as outside:
            _, reader = await loop.connect_read_pipe(
                Recorder, os.fdopen(slave, "rb", 0, closefd=False)
            )
            _, writer = await loop.connect_write_pipe(
                Recorder, os.fdopen(slave, "wb", 0, closefd=False)
            )
            try:
                outside.write(b"typed")
                assert await reader.received(5) == b"typed"
                writer.transport.write(b"shown")
                assert await in_thread(os.read, outside.fileno(), 100) == b"shown"
                ended, other = reader, writer
                if first == "writer":
                    ended, other = writer, reader
                await finish_pipe(ended)
                # The other one works on.
                if other is writer:
                    other.transport.write(b"still")
                    assert await in_thread(os.read, outside.fileno(), 100) == b"still"
                else:
                    outside.write(b"still")
                    assert await reader.received(10) == b"typedstill"
                await finish_pipe(other)
            finally:
                os.close(slave)

    run(main())


def test_terminal_settings_are_left_alone(loop, run):
    async def main():
        master, slave = os.openpty()
        with os.fdopen(master, "wb", 0):
            before = termios.tcgetattr(slave)
            keep = os.dup(slave)
            _, reader = await loop.connect_read_pipe(
                Recorder, os.fdopen(slave, "rb", 0)
            )
            assert termios.tcgetattr(keep) == before
            await finish_pipe(reader)
            assert termios.tcgetattr(keep) == before
            os.close(keep)

    run(main())


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_blocking_mode_comes_back(loop, run, kind):
    if is_stock(loop):
        pytest.skip("leaves the file description non-blocking")

    async def main():
        r, w = os.openpty() if kind == "terminal" else os.pipe()
        keep = os.dup(r), os.dup(w)
        assert all(map(os.get_blocking, keep))
        _, reader = await loop.connect_read_pipe(Recorder, os.fdopen(r, "rb", 0))
        _, writer = await loop.connect_write_pipe(Recorder, os.fdopen(w, "wb", 0))
        await finish_pipe(writer)
        await finish_pipe(reader)
        assert all(map(os.get_blocking, keep))
        for fd in keep:
            os.close(fd)

    run(main())


def null_device(mode):
    return os.fdopen(os.open(os.devnull, os.O_RDWR), mode, 0)


def test_null_device(loop, run):
    async def main():
        _, writer = await loop.connect_write_pipe(Recorder, null_device("wb"))
        writer.transport.write(b"into nothing")
        writer.transport.write(bytes(1_000_000))
        writer.transport.close()
        assert await writer.lost is None
        await turns(2)

    run(main())


def test_null_device_as_input(loop, run):
    # epoll refuses it; asyncio reports that, once the transport is there.
    capture(loop)

    async def main():
        _, reader = await loop.connect_read_pipe(Recorder, null_device("rb"))
        await settle()
        await finish_pipe(reader)
        assert reader.data == b""

    run(main())


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("connect_read_pipe", "rb", "Pipe transport is for pipes/sockets only."),
        (
            "connect_write_pipe",
            "wb",
            "Pipe transport is only for pipes, sockets and character devices",
        ),
    ],
)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_regular_files_are_refused(loop, run, tmp_path, name, mode, message, what):
    async def main():
        if what == "file":
            fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
            file = os.fdopen(fd, mode, 0)
        else:
            fd = os.open(tmp_path, os.O_RDONLY)

            class Folder:
                def fileno(self):
                    return fd

                def close(self):
                    os.close(fd)

            file = Folder()
        with contextlib.closing(file):
            with pytest.raises(ValueError, match=message):
                await getattr(loop, name)(Recorder, file)
            # It is still the program's.
            os.fstat(file.fileno())

    run(main())


@pytest.mark.parametrize("name", ["connect_read_pipe", "connect_write_pipe"])
def test_wrong_objects(loop, run, name, unraisable):
    async def main():
        with pytest.raises((AttributeError, TypeError, ValueError)):
            await getattr(loop, name)(Recorder, "not a file")
        with tempfile.TemporaryFile() as file:
            pass
        with pytest.raises(ValueError):
            await getattr(loop, name)(Recorder, file)

    run(main())
    gc.collect()
    if not is_stock(loop):  # asyncio's half-made transports fail in their finalizers
        assert unraisable == []


@pytest.mark.parametrize("name", ["connect_read_pipe", "connect_write_pipe"])
def test_descriptor_that_is_not_open(loop, run, name):
    if is_stock(loop):
        pytest.skip("its half-made transports fail in their finalizers")

    class Closed:
        def fileno(self):
            return 999_999

        def close(self):
            raise AssertionError("not the transport's to close")

    async def main():
        with pytest.raises(OSError) as info:
            await getattr(loop, name)(Recorder, Closed())
        assert info.value.errno == errno.EBADF

    run(main())


def test_factory_that_raises(loop, run):
    async def main():
        r, w = os.pipe()
        with os.fdopen(r, "rb", 0) as reading, os.fdopen(w, "wb", 0) as writing:
            with pytest.raises(ZeroDivisionError):
                await loop.connect_read_pipe(lambda: 1 / 0, reading)
            with pytest.raises(ZeroDivisionError):
                await loop.connect_write_pipe(lambda: 1 / 0, writing)
            writing.write(b"x")
            assert reading.read(1) == b"x"

    run(main())


def test_cancelled_while_connecting(loop, run):
    async def main():
        r, w = os.pipe()
        with os.fdopen(w, "wb", 0) as writing:
            reading = os.fdopen(r, "rb", 0)
            task = asyncio.create_task(loop.connect_read_pipe(Recorder, reading))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle()
            assert reading.closed
            with pytest.raises(BrokenPipeError):
                writing.write(b"x")

    run(main())


# Who closes what


def test_the_file_closes_its_own_descriptor(loop, run):
    async def main():
        r, w = os.pipe()
        try:
            reading = os.fdopen(r, "rb", 0, closefd=False)
            writing = os.fdopen(w, "wb", 0, closefd=False)
            _, reader = await loop.connect_read_pipe(Recorder, reading)
            _, writer = await loop.connect_write_pipe(Recorder, writing)
            await finish_pipe(reader)
            await finish_pipe(writer)
            assert reading.closed
            assert writing.closed
            os.fstat(r)
            os.fstat(w)
        finally:
            os.close(r)
            os.close(w)

    run(main())


def test_close_is_called_once(loop, run):
    async def main():
        r, w = os.pipe()
        closed = []

        class File:
            def fileno(self):
                return r

            def close(self):
                closed.append(r)
                os.close(r)

        with os.fdopen(w, "wb", 0) as other:
            _, reader = await loop.connect_read_pipe(Recorder, File())
            other.write(b"x")
            await reader.received(1)
        await reader.lost
        await turns(5)
        assert closed == [r]

    run(main())


def test_let_go_of_by_whoever_closed_the_file(loop, run):
    """As asyncio's subprocess module and others do: transport._pipe = None."""

    async def main():
        for connect, end in ((loop.connect_read_pipe, 0), (loop.connect_write_pipe, 1)):
            fds = os.pipe()
            file = os.fdopen(fds[end], "wb" if end else "rb", 0)
            transport, _ = await connect(Recorder, file)
            await turns()
            assert transport._pipe is file
            assert transport._fileno == fds[end]
            loop._remove_reader(fds[end])
            file.close()
            transport._pipe = None
            assert transport._pipe is None
            transport._pipe = None
            os.close(fds[1 - end])

    run(main())


def test_unclosed_pipes_warn(loop_factory):
    for name, end in (("connect_read_pipe", 0), ("connect_write_pipe", 1)):
        loop = loop_factory()
        fds = os.pipe()
        file = os.fdopen(fds[end], "wb" if end else "rb", 0)

        async def main(loop=loop, name=name, file=file):
            return (await getattr(loop, name)(asyncio.Protocol, file))[0]

        transport = loop.run_until_complete(main())
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed transport <.*open"):
            del transport, main
            gc.collect()
        assert file.closed
        os.close(fds[1 - end])


# What a transport tells


def test_read_transport(loop, run):
    async def main():
        async with read_pipe() as (protocol, _):
            transport = protocol.transport
            assert isinstance(transport, asyncio.ReadTransport)
            assert weakref.ref(transport)() is transport
            pipe = transport.get_extra_info("pipe")
            assert pipe.readable()
            assert os.get_blocking(pipe.fileno()) is False
            assert transport.get_extra_info("nothing", 2) == 2
            assert f"fd={pipe.fileno()}" in repr(transport)
            assert transport.get_protocol() is protocol
            transport.set_protocol(protocol)
            fd = pipe.fileno()
            transport.close()
            assert "closing" in repr(transport)
            await protocol.lost
            await turns(2)
            assert "closed" in repr(transport)
            assert f"fd={fd}" in repr(transport)
            assert transport.is_reading() is False

    run(main())


def test_write_transport(loop, run):
    async def main():
        async with write_pipe() as (protocol, _):
            transport = protocol.transport
            assert isinstance(transport, asyncio.WriteTransport)
            pipe = transport.get_extra_info("pipe")
            assert pipe.writable()
            assert f"fd={pipe.fileno()}" in repr(transport)
            assert "bufsize=0" in repr(transport)
            assert transport.is_closing() is False
            assert transport.get_protocol() is protocol
            other = Recorder()
            transport.set_protocol(other)
            assert transport.get_protocol() is other
            transport.close()
            assert "closing" in repr(transport)
            assert await other.lost is None
            protocol.lost.set_result(None)
            await turns(2)
            assert "closed" in repr(transport)

    run(main())


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["made", "data", "eof", "lost"])
def test_exit_leaves_the_loop(loop, run, exc, when):
    class Leaving(Broken):
        pass

    Leaving.error = exc("out")
    Leaving.when = when
    protocols = []

    def factory():
        protocols.append(Leaving())
        return protocols[0]

    r, w = os.pipe()
    with os.fdopen(w, "wb", 0) as other:
        other.write(b"x")

        async def main():
            await loop.connect_read_pipe(factory, os.fdopen(r, "rb", 0))
            await protocols[0].received(1)
            other.close()
            await asyncio.wait_for(protocols[0].lost, TIMEOUT)

        with pytest.raises(exc, match="out"):
            loop.run_until_complete(main())
        Leaving.when = None

        async def rest():
            await turns()
            if "lost" not in protocols[0].events:
                await finish_pipe(protocols[0])
            await turns()

        run(rest())
