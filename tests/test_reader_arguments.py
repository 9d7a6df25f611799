"""add_reader() and its kin: what names a descriptor, and what is refused."""

import errno
import os
import socket
import tempfile

import pytest
from iosupport import digest, in_thread, is_stock, pattern, raw_pair, read_exactly


def test_any_object_with_fileno(loop, run, pipe):
    r, w = pipe

    class File:
        def fileno(self):
            return r

    seen = loop.create_future()

    def on_readable():
        loop.remove_reader(r)
        seen.set_result(os.read(r, 10))

    async def main():
        loop.add_reader(File(), on_readable)
        os.write(w, b"y")
        return await seen

    assert run(main()) == b"y"


@pytest.mark.parametrize(
    "name", ["add_reader", "add_writer", "remove_reader", "remove_writer"]
)
@pytest.mark.parametrize(
    ("fd", "message"),
    [
        (-1, "Invalid file descriptor: -1"),
        ("not a file", "Invalid file object: 'not a file'"),
        (None, "Invalid file object: None"),
        (1.5, "Invalid file object: 1.5"),
    ],
    ids=["negative", "str", "none", "float"],
)
def test_wrong_descriptors(loop, name, fd, message):
    args = (lambda: None,) if name.startswith("add") else ()
    with pytest.raises(ValueError, match=message):
        getattr(loop, name)(fd, *args)


def test_closed_socket_is_refused(loop):
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.add_reader(sock, lambda: None)
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.add_writer(sock, lambda: None)


def test_exception_out_of_fileno(loop):
    class Broken:
        def fileno(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.add_reader(Broken(), lambda: None)


@pytest.mark.parametrize("name", ["add_reader", "add_writer"])
def test_descriptor_that_is_not_open(loop, pipe, name):
    r, _ = pipe
    os.close(r)
    with pytest.raises(OSError) as info:
        getattr(loop, name)(r, lambda: None)
    assert info.value.errno == errno.EBADF
    assert loop.remove_reader(r) is False
    assert loop.remove_writer(r) is False


@pytest.mark.parametrize("name", ["add_reader", "add_writer"])
def test_regular_file_is_refused(loop, name):
    with tempfile.TemporaryFile() as file:
        with pytest.raises(PermissionError):
            getattr(loop, name)(file, lambda: None)
        assert loop.remove_reader(file) is False
        assert loop.remove_writer(file) is False


def test_missing_arguments(loop, pipe):
    for method in (loop.add_reader, loop.add_writer):
        with pytest.raises(TypeError):
            method()
        with pytest.raises(TypeError):
            method(pipe[0])
    for method in (loop.remove_reader, loop.remove_writer):
        with pytest.raises(TypeError):
            method()


def test_closed_loop(loop_factory, pipe):
    r, w = pipe
    loop = loop_factory()
    loop.add_reader(r, lambda: None)
    loop.add_writer(w, lambda: None)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(r, lambda: None)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_writer(w, lambda: None)
    assert loop.remove_reader(r) is False
    assert loop.remove_writer(w) is False


def test_descriptor_of_a_transport_is_refused(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            sock = protocol.transport.get_extra_info("socket")
            fd = sock.fileno()
            for target in (fd, sock):
                for name in ("reader", "writer"):
                    pattern = r"File descriptor .* is used by transport"
                    with pytest.raises(RuntimeError, match=pattern):
                        getattr(loop, f"add_{name}")(target, lambda: None)
                    with pytest.raises(RuntimeError, match=pattern):
                        getattr(loop, f"remove_{name}")(target)
            protocol.transport.close()
            assert loop.remove_reader(fd) is False
            assert loop.remove_writer(fd) is False

    run(main())


def test_descriptor_of_a_transport_that_still_writes(loop, run):
    if is_stock(loop):
        pytest.skip(
            "add_writer() takes the transport's place, whose rest is never sent"
        )
    data = pattern(3_000_000)

    async def main():
        async with raw_pair() as (protocol, peer):
            fd = protocol.transport.get_extra_info("socket").fileno()
            protocol.transport.write(data)
            protocol.transport.close()
            for name in ("reader", "writer"):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    getattr(loop, f"add_{name}")(fd, lambda: None)
                assert getattr(loop, f"remove_{name}")(fd) is False
            received = await in_thread(read_exactly, peer, len(data))
            assert digest(received) == digest(data)

    run(main())


def test_names_of_arguments(loop):
    a, b = socket.socketpair()
    with a, b:
        for add, remove in (
            (loop.add_reader, loop.remove_reader),
            (loop.add_writer, loop.remove_writer),
        ):
            with pytest.raises(TypeError, match=r"unexpected keyword argument"):
                add(a, print, context=None)
            with pytest.raises(TypeError, match=r"unexpected keyword argument"):
                add(a, print, other=1)
            add(fd=a, callback=print)
            assert remove(fd=a) is True
            with pytest.raises(TypeError):
                remove(file=a)
            with pytest.raises(TypeError):
                remove()


class Numbered:
    """A file object whose number may be anything."""

    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number


@pytest.mark.parametrize("named", [int, Numbered])
@pytest.mark.parametrize("number", [2**31, 2**40, 2**80])
def test_numbers_that_no_descriptor_has(loop, number, named):
    for add in (loop.add_reader, loop.add_writer):
        with pytest.raises(OverflowError):
            add(named(number), print)
        with pytest.raises(OSError):
            add(named(2**31 - 1), print)
    for remove in (loop.remove_reader, loop.remove_writer):
        assert remove(named(number)) is False


@pytest.mark.parametrize("named", [int, Numbered])
@pytest.mark.parametrize("number", [-(2**31), -(2**31) - 1, -(2**80)])
def test_negative_numbers_are_named(loop, number, named):
    for add in (loop.add_reader, loop.add_writer):
        with pytest.raises(ValueError, match=f"Invalid file descriptor: {number}$"):
            add(named(number), print)
    for remove in (loop.remove_reader, loop.remove_writer):
        with pytest.raises(ValueError, match=f"Invalid file descriptor: {number}$"):
            remove(named(number))
