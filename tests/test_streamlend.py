"""A stream transport while sendfile() writes to its socket: what was written before, and the waiter."""

import asyncio
import socket

import pytest
from iosupport import (
    capture,
    in_thread,
    is_stock,
    pattern,
    raw_pair,
    read_exactly,
    reset,
    settle,
    turns,
)

SIZE = 5_000_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(SIZE))
    with open(path, "rb") as file:
        yield file


def test_small_write_before(loop, run, file):
    async def main():
        async with raw_pair() as (protocol, peer):
            for chunk in (b"HTTP/1.1 200 OK\r\n", b"\r\n"):
                protocol.transport.write(chunk)
            reading = in_thread(read_exactly, peer, 19 + 1000)
            assert await loop.sendfile(protocol.transport, file, 0, 1000) == 1000
            assert await reading == b"HTTP/1.1 200 OK\r\n\r\n" + pattern(SIZE)[:1000]

    run(main())


def test_write_meanwhile_is_refused(loop, run, file):
    async def main():
        async with raw_pair() as (protocol, peer):
            task = asyncio.create_task(loop.sendfile(protocol.transport, file))
            await settle()
            assert not task.done()
            with pytest.raises(
                RuntimeError, match="unable to write; sendfile is in progress"
            ):
                protocol.transport.write(b"x")
            reading = in_thread(read_exactly, peer, SIZE + 1)
            assert await task == SIZE
            protocol.transport.write(b"x")
            assert len(await reading) == SIZE + 1

    run(main())


@pytest.mark.parametrize("ends", ["drains", "is lost"])
def test_waiter_that_takes_itself_away_when_it_is_asked(run_script, ends):
    """Who replaces asyncio's Future has his methods called by the transport."""
    result = run_script(
        f"""
        import socket

        class Waiter(asyncio.Future):
            def done(self):
                if resets:
                    resets.pop()._reset_empty_waiter()
                return super().done()

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *args: None)
            ours, peer = socket.socketpair()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            transport.write(bytes(2_000_000))
            future = asyncio.futures.Future
            asyncio.futures.Future = Waiter
            waiter = transport._make_empty_waiter()
            asyncio.futures.Future = future
            resets.append(transport)
            if {ends!r} == "is lost":
                transport.abort()
            else:
                left = 2_000_000
                while left:
                    left -= len(await loop.run_in_executor(None, peer.recv, left))
            while resets and not asyncio.Future.done(waiter):
                await asyncio.sleep(0.001)
            if asyncio.Future.done(waiter):
                waiter.exception()
            transport.abort()
            await asyncio.sleep(0)
            peer.close()

        resets = []
        run(main())
        """
    )
    assert result.stderr == ""


def test_aborted_meanwhile(loop, run, file):
    if is_stock(loop):
        pytest.skip("waits for ever, once the selector forgot the closed socket")

    async def main():
        async with raw_pair() as (protocol, _):
            task = asyncio.create_task(loop.sendfile(protocol.transport, file))
            await settle()
            protocol.transport.abort()
            with pytest.raises((ConnectionError, OSError)):
                await task

    run(main())


def test_aborted_where_another_gets_the_descriptor(loop, run, file):
    if is_stock(loop):
        pytest.skip("waits for ever, once the selector forgot the closed socket")
    strangers = []
    ready = []

    class Last(asyncio.Protocol):
        def __del__(self):
            strangers.extend(socket.socketpair())
            for sock in strangers:
                loop.add_reader(sock, ready.append, sock)

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            transport, _ = await loop.create_connection(Last, sock=ours)
            number = ours.fileno()
            del ours, _
            task = asyncio.create_task(loop.sendfile(transport, file))
            await settle()
            transport.abort()
            with pytest.raises(OSError):
                await task
            await turns()
            assert number in [sock.fileno() for sock in strangers]
            assert ready == []
            for sock in strangers:
                assert loop.remove_reader(sock)
                sock.close()

    run(main())


def test_lost_before_it_begins(loop, run, file):
    """What was written before is still waiting when the connection ends."""

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            protocol.transport.write(bytes(10_000_000))
            task = asyncio.create_task(loop.sendfile(protocol.transport, file))
            await turns()
            assert not task.done()
            reset(peer)
            with pytest.raises(ConnectionError):
                await task

    capture(loop)
    run(main())
