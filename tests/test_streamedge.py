"""A TCP connection whose reads have long emptied its socket: whatever comes then is read, too."""

import asyncio
import contextlib
import os
import socket

import pytest
from iosupport import (
    BufferedRecorder,
    KeepOpen,
    Recorder,
    acting,
    digest,
    in_thread,
    is_stock,
    pattern,
    preloaded,
    raw_pair,
    reset,
    settle,
    tcp_pair,
)
from tlssupport import Certificates

MESSAGES = 40
BOTH = pytest.mark.parametrize("base", [Recorder, BufferedRecorder])


@pytest.fixture(scope="module")
def tls():
    return Certificates()


class KeepOpenBuffered(BufferedRecorder):
    keep_open = True


@contextlib.asynccontextmanager
async def calm_pair(factory=Recorder):
    """A transport and its peer's socket, behind many small messages, one at a time."""
    async with raw_pair(factory, tcp=True) as (protocol, peer):
        for number in range(MESSAGES):
            peer.sendall(b"%c" % number)
            await protocol.received(number + 1)
        assert protocol.data == bytes(range(MESSAGES))
        protocol.data.clear()
        protocol.events.clear()
        yield protocol, peer


@BOTH
def test_more_than_one_read_takes(loop, run, base):
    data = pattern(3_000_000)

    async def main():
        async with calm_pair(base) as (protocol, peer):
            for _ in range(3):
                await in_thread(peer.sendall, data)
                assert digest(await protocol.received(len(data))) == digest(data)
                protocol.data.clear()
                peer.sendall(b"small")
                assert await protocol.received(5) == b"small"
                protocol.data.clear()

    run(main())


def test_buffers_that_are_too_small(loop, run):
    class Small(BufferedRecorder):
        size = 3

    async def main():
        async with calm_pair(Small) as (protocol, peer):
            for number in range(3 * MESSAGES):
                data = pattern(number, seed=number)
                peer.sendall(data)
                assert await protocol.received(number) == data
                protocol.data.clear()

    run(main())


@BOTH
def test_the_end_right_behind_the_data(loop, run, base):
    async def main():
        async with calm_pair(base) as (protocol, peer):
            peer.sendall(b"last")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.data == b"last"
            assert protocol.events == ["data", "eof", "lost"]

    run(main())


@pytest.mark.parametrize("base", [KeepOpen, KeepOpenBuffered])
def test_half_closed_by_the_peer(loop, run, base):
    async def main():
        async with calm_pair(base) as (protocol, peer):
            peer.sendall(b"last")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            assert protocol.data == b"last"
            protocol.transport.write(b"answer")
            assert await in_thread(peer.recv, 6) == b"answer"
            protocol.transport.close()
            assert await protocol.lost is None

    run(main())


@BOTH
def test_reset(loop, run, base):
    async def main():
        async with calm_pair(base) as (protocol, peer):
            reset(peer)
            assert isinstance(await protocol.lost, ConnectionResetError)
            assert protocol.events == ["lost"]

    run(main())


@pytest.mark.parametrize("inline", [False, True])
def test_urgent_data_in_between(loop, run, inline):
    async def main():
        async with calm_pair() as (protocol, peer):
            sock = protocol.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
            for _ in range(MESSAGES):
                # All that stands before and behind the mark waits when the read begins.
                peer.sendall(b"before")
                peer.send(b"!", socket.MSG_OOB)
                peer.sendall(b"behind")
                wanted = b"before!behind" if inline else b"beforebehind"
                assert await protocol.received(len(wanted)) == wanted
                protocol.data.clear()

    run(main())


@BOTH
def test_urgent_data_alone_is_left_to_the_program(loop, run, base):
    async def main():
        async with calm_pair(base) as (protocol, peer):
            sock = protocol.transport.get_extra_info("socket")
            duplicate = socket.socket(fileno=os.dup(sock.fileno()))
            with duplicate:
                for number in range(3):
                    peer.send(b"%c" % number, socket.MSG_OOB)
                    await settle()
                    assert duplicate.recv(1, socket.MSG_OOB) == b"%c" % number
                    peer.sendall(b"behind")
                    assert await protocol.received(6) == b"behind"
                    protocol.data.clear()
                    for _ in range(20 * MESSAGES):
                        peer.sendall(b".")
                        await protocol.received(1)
                        protocol.data.clear()

    run(main())


@BOTH
def test_paused_and_resumed(loop, run, base):
    async def main():
        async with calm_pair(base) as (protocol, peer):
            for _ in range(MESSAGES):
                protocol.transport.pause_reading()
                peer.sendall(b"held")
                await settle()
                assert protocol.data == b""
                protocol.transport.resume_reading()
                assert await protocol.received(4) == b"held"
                protocol.data.clear()

    run(main())


@BOTH
def test_data_while_writing_waits(loop, run, base):
    data = pattern(8_000_000)

    async def main():
        async with calm_pair(base) as (protocol, peer):
            for _ in range(2):
                protocol.transport.write(data)
                await settle()
                assert protocol.transport.get_write_buffer_size() > 0
                for number in range(MESSAGES):
                    peer.sendall(b"%c" % number)
                    await protocol.received(number + 1)
                protocol.data.clear()
                got = bytearray()
                while len(got) < len(data):
                    got += await in_thread(peer.recv, 1 << 20)
                assert digest(got) == digest(data)
                peer.sendall(b"on")
                assert await protocol.received(2) == b"on"
                protocol.data.clear()

    run(main())


def test_a_buffer_of_another_protocol(loop, run):
    """What waits when get_buffer() installs another protocol is for that one."""
    if is_stock(loop):
        pytest.skip("reads into the buffer of the one, and tells the other")

    async def main():
        second = Recorder()
        armed = []

        class Changing(BufferedRecorder):
            def get_buffer(self, sizehint):
                if armed:
                    self.transport.set_protocol(second)
                return super().get_buffer(sizehint)

        async with calm_pair(Changing) as (protocol, peer):
            armed.append(True)
            peer.sendall(b"for the second")
            assert await second.received(14) == b"for the second"
            protocol.transport.set_protocol(protocol)

    run(main())


@BOTH
def test_turns_within_a_callback(loop, run, base):
    """A callback may take turns in which more is read, and go on to its own end."""
    if is_stock(loop):
        pytest.skip("asyncio's loop takes no turns within a callback")
    peers = []
    order = []

    def take_turns(protocol):
        if not peers or order:
            return
        order.append("outer")
        for _ in range(MESSAGES):
            before = len(protocol.data)
            peers[0].sendall(b"inner")
            while len(protocol.data) < before + 5:
                loop.run_once(10)
        order.append("end")

    async def main():
        acts = acting(base, "data", take_turns, times=-1)
        async with calm_pair(acts) as (protocol, peer):
            peers.append(peer)
            peer.sendall(b"outer")
            await protocol.received(5 * (MESSAGES + 1))
            peer.sendall(b"behind")
            wanted = b"outer" + b"inner" * MESSAGES + b"behind"
            assert await protocol.received(len(wanted)) == wanted

    run(main())
    assert order == ["outer", "end"]


def test_a_callback_that_leaves_the_loop(loop, run):
    """Data of other connections that was told of in that turn is read in the next run."""

    class Leaves(Recorder):
        armed = False

        def data_received(self, data):
            super().data_received(data)
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt

    async def calm(pairs):
        for number in range(MESSAGES):
            for ours, theirs in pairs:
                ours.transport.write(b"%c" % number)
                await theirs.received(number + 1)
        for _, theirs in pairs:
            theirs.data.clear()

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            pairs = [
                await stack.enter_async_context(tcp_pair(Recorder, Leaves))
                for _ in range(10)
            ]
            await calm(pairs)
            waiting = asyncio.gather(*[theirs.received(4) for _, theirs in pairs])
            pairs[0][1].armed = True
            for ours, _ in pairs:
                ours.transport.write(b"data")
            assert await waiting == [b"data"] * 10

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


def test_interrupted_with_more_to_read(loop, run):
    """What a read left is read in the next run, though its callback has raised."""
    raised = []

    class Interrupted(BufferedRecorder):
        size = 3

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if nbytes == self.size and not raised:
                raised.append(True)
                raise KeyboardInterrupt

    async def main():
        async with calm_pair(Interrupted) as (protocol, peer):
            peer.sendall(b"more than three")
            assert await protocol.received(15) == b"more than three"

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    run(asyncio.wait_for(task, 30))


def test_start_tls_of_a_calm_connection(loop, run, tls):
    """The handshake and all behind it."""

    async def main():
        async with tcp_pair() as (client, server):
            for number in range(MESSAGES):
                client.transport.write(b"%c" % number)
                await server.received(number + 1)
                server.transport.write(b"%c" % number)
                await client.received(number + 1)
            ends = await asyncio.gather(
                loop.start_tls(server.transport, server, tls.server, server_side=True),
                loop.start_tls(
                    client.transport,
                    client,
                    tls.client,
                    server_hostname="localhost",
                ),
            )
            server.data.clear()
            data = pattern(2_000_000)
            for size in (1, 100_000, len(data), 7):
                ends[1].write(data[:size])
                got = await server.received(size)
                assert digest(got) == digest(data[:size])
                server.data.clear()

    run(main())


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

/* Takes three bytes at most, whatever waits. */
ssize_t
recv(int fd, void *data, size_t size, int flags)
{
    ssize_t (*real)(int, void *, size_t, int) = dlsym(RTLD_NEXT, "recv");
    return real(fd, data, size < 3 ? size : 3, flags);
}
"""

REQUESTS = """
async def main():
    async def answer(reader, writer):
        while length := await reader.read(1):
            await reader.readexactly(length[0])
            writer.write(b"!")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for size in [0, 1] * 20 + [200, 0, 250, 3] * 20:
            writer.write(bytes([size]) + bytes(size))
            assert await asyncio.wait_for(reader.readexactly(1), 20) == b"!"
        writer.close()
        await writer.wait_closed()
    print("answered")

run(main())
"""


def test_a_library_that_cuts_reads_short(run_script, tmp_path):
    """What a preloaded recv() leaves in the socket is read, too."""
    result = run_script(REQUESTS, env=preloaded(SHIM, tmp_path))
    assert result.stdout == "answered\n"
