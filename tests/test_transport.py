"""What a transport tells about itself, while it is open and after its end, and how long it lives."""

import asyncio
import contextlib
import gc
import os
import socket
import traceback
import warnings
import weakref

import pytest
from iosupport import (
    Recorder,
    endpoint,
    in_thread,
    is_stock,
    raw_pair,
    read_exactly,
    read_pipe,
    turns,
    write_pipe,
)
from tlssupport import Certificates, tls_pair


def test_kind(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            transport = protocol.transport
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
            assert weakref.ref(transport)() is transport
            assert len({transport, transport}) == 1

    run(main())


def test_unclosed_transport_warns(loop_factory):
    loop = loop_factory()
    ours, peer = socket.socketpair()

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        return transport

    with peer:
        transport = loop.run_until_complete(main())
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed transport <"):
            del transport
            gc.collect()
        # The descriptor went with it.
        assert peer.recv(1) == b""
        assert ours.fileno() == -1


def test_a_replaced_close_of_sockets_is_called(loop, run, monkeypatch):
    """As by what counts the descriptors that a program has open."""
    numbers = []
    original = socket.socket.close

    def close(self):
        numbers.append(self.fileno())
        original(self)

    async def main():
        ours, peer = socket.socketpair()
        number = ours.fileno()
        lost = loop.create_future()

        class Ending(asyncio.Protocol):
            def connection_lost(self, exc):
                lost.set_result(None)

        with peer:
            transport, _ = await loop.create_connection(Ending, sock=ours)
            del ours
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "close", close)
                transport.close()
                await lost
                await turns(2)
        assert numbers[:1] == [number]

    run(main())


def test_open_transport_is_not_collected(loop, run):
    async def main():
        ours, peer = socket.socketpair()
        data = loop.create_future()
        lost = loop.create_future()

        class Forgotten(asyncio.Protocol):
            def data_received(self, received):
                data.set_result(received)

            def connection_lost(self, exc):
                lost.set_result(exc)

        with peer:
            await loop.create_connection(Forgotten, sock=ours)
            del ours
            gc.collect()
            peer.send(b"x")
            assert await data == b"x"
            gc.collect()
        assert await lost is None
        await turns()

    run(main())


def test_closed_transport_is_freed(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            transport = weakref.ref(protocol.transport)
            protocol.transport.close()
            await protocol.lost
            del protocol.transport
            protocol.made = protocol.loop.create_future()
            await turns()
            gc.collect()
            assert transport() is None

    run(main())


def test_no_method_raises_after_a_close_that_flushed(loop, run):
    if is_stock(loop):
        pytest.skip("abort() and write() fail then")

    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            transport = protocol.transport
            transport.write(bytes(300_000))
            transport.close()
            await in_thread(read_exactly, peer, 300_000)
            await protocol.lost
            await turns()
            transport.abort()
            transport.close()
            transport.write(b"x")
            transport.writelines([b"x"])
            transport.write_eof()
            assert transport.get_write_buffer_size() == 0
            assert transport.get_protocol() in (protocol, None)
            assert "closed" in repr(transport)

    run(main())


@pytest.mark.parametrize("kind", ["tcp", "tls", "udp", "read pipe", "write pipe"])
def test_takes_a_program_s_own_attributes(loop, run, kind):
    """Tests replace write(), libraries hang notes on a transport."""
    pairs = {
        "tcp": raw_pair,
        "tls": lambda: tls_pair(Certificates()),
        "udp": lambda: endpoint(local_addr=("127.0.0.1", 0)),
        "read pipe": read_pipe,
        "write pipe": write_pipe,
    }

    class Note:
        pass

    async def main():
        async with pairs[kind]() as made:
            protocol = made if kind == "udp" else made[0]
            transport = protocol.transport
            with pytest.raises(AttributeError, match="has no attribute 'note'"):
                _ = transport.note
            transport.note = Note()
            transport.note.transport = transport  # a cycle
            assert vars(transport)["note"] is transport.note
            calls = []
            for name in ("write", "sendto", "pause_reading"):
                if hasattr(transport, name):
                    setattr(transport, name, calls.append)
                    getattr(transport, name)(b"lost")
                    delattr(transport, name)
                    assert getattr(transport, name) != calls.append
            assert calls == [b"lost"] * len(calls) != []
            return weakref.ref(transport.note)

    note = run(main())
    gc.collect()
    assert note() is None


@pytest.mark.parametrize("extra", [5, (), "text"], ids=repr)
@pytest.mark.parametrize(
    "hook",
    [
        "_make_socket_transport",
        "_make_datagram_transport",
        "_make_read_pipe_transport",
        "_make_write_pipe_transport",
    ],
)
def test_extra_that_is_no_dict(loop, hook, extra):
    """The hooks are private, but BaseEventLoop and others that know asyncio call them."""
    if is_stock(loop) and "pipe" in hook:
        pytest.skip("raises the same, and again in __del__()")
    kind = socket.SOCK_DGRAM if "datagram" in hook else socket.SOCK_STREAM
    ours, peer = socket.socketpair(type=kind)
    with ours, peer:
        ours.setblocking(False)
        name = type(extra).__name__
        with pytest.raises(TypeError, match=f"'{name}' object does not support item"):
            getattr(loop, hook)(ours, asyncio.Protocol(), extra=extra)
        assert ours.fileno() != -1


class Owned(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes who owned it when the first bytes came."""

    def __init__(self):
        self.owner = None
        self.heard = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        if not self.heard.done():
            self.heard.set_result(self.owner)

    def datagram_received(self, data, address):
        self.data_received(data)


class Greets(asyncio.Protocol):
    """Says something as soon as it is connected."""

    def connection_made(self, transport):
        transport.write(b"hello")


async def greeted(loop, kind, stack, folder):
    """Connect to what has spoken already, or does so at once: (transport, protocol)."""
    if kind in ("literal", "name", "unix"):
        path = str(folder / "socket")
        if kind == "unix":
            server = await loop.create_unix_server(Greets, path)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            return await loop.create_unix_connection(Owned, path)
        server = await loop.create_server(Greets, "127.0.0.1", 0)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        host = "127.0.0.1" if kind == "literal" else "localhost"
        return await loop.create_connection(Owned, host, port)
    if kind == "pipe":
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        os.write(writing, b"hello")
        return await loop.connect_read_pipe(Owned, os.fdopen(reading, "rb", 0))
    kinds = {"udp": socket.SOCK_DGRAM}
    ours, peer = socket.socketpair(type=kinds.get(kind, socket.SOCK_STREAM))
    stack.callback(peer.close)
    ours.setblocking(False)
    peer.send(b"hello")
    if kind == "udp":
        return await loop.create_datagram_endpoint(Owned, sock=ours)
    if kind == "accepted":
        return await loop.connect_accepted_socket(Owned, ours)
    return await loop.create_connection(Owned, sock=ours)


@pytest.mark.parametrize("reader", [False, True], ids=["", "add_reader"])
@pytest.mark.parametrize(
    "kind", ["literal", "name", "unix", "sock", "accepted", "udp", "pipe"]
)
def test_who_connects_is_ahead_of_what_comes(loop, run, tmp_path, kind, reader):
    """What awaited the connection has set up its protocol before that hears bytes."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            if reader:
                number = stack.enter_context(socket.socket())
                loop.add_reader(number, print)
                stack.callback(loop.remove_reader, number)
            for _ in range(20):
                async with contextlib.AsyncExitStack() as inner:
                    transport, protocol = await greeted(loop, kind, inner, tmp_path)
                    protocol.owner = "who awaited it"
                    assert "polling" in repr(transport)
                    assert await protocol.heard == "who awaited it"
                    transport.close()
                    await turns(3)

    run(main())


@pytest.mark.parametrize("kind", ["connection", "accepted", "datagrams"])
def test_a_factory_that_closes_the_socket(loop, run, kind):
    if is_stock(loop):
        pytest.skip("makes a transport whose close() raises the ValueError")
    datagrams = kind == "datagrams"
    sock, peer = socket.socketpair(
        type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
    )
    sock.setblocking(False)

    def factory():
        sock.close()
        return asyncio.DatagramProtocol() if datagrams else asyncio.Protocol()

    create = {
        "connection": loop.create_connection,
        "accepted": loop.connect_accepted_socket,
        "datagrams": loop.create_datagram_endpoint,
    }[kind]
    with peer, pytest.raises(ValueError, match="descriptor"):
        run(create(factory, sock=sock))


def test_a_warning_that_is_an_error_has_nobody_to_go_to(loop_factory, unraisable):
    loop = loop_factory()
    ours, theirs = socket.socketpair()

    async def main():
        return (await loop.create_connection(asyncio.Protocol, sock=ours))[0]

    with theirs:
        transport = loop.run_until_complete(main())
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            del transport
            gc.collect()
        assert unraisable
        assert {seen.exc_type for seen in unraisable} == {ResourceWarning}
        assert any("unclosed transport" in str(seen.exc_value) for seen in unraisable)
    ours.close()


@pytest.mark.parametrize("made", [0, 1, 2])
def test_one_that_cannot_be_started_is_told_to_nobody(loop, run, monkeypatch, made):
    """Where memory is out behind a part of what is to be scheduled for it."""
    if is_stock(loop):
        pytest.skip("calls connection_made(), and never connection_lost()")
    calls = 0

    def walk_stack(frame, original=traceback.walk_stack):
        # In debug mode, whatever is scheduled asks who is calling.
        nonlocal calls
        calls += 1
        if calls > made:
            raise MemoryError
        return original(frame)

    async def main():
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        with ours, peer:
            waiter = loop.create_future()
            protocol = Recorder()
            with monkeypatch.context() as patch:
                patch.setattr(traceback, "walk_stack", walk_stack)
                with pytest.raises(MemoryError):
                    loop._make_socket_transport(ours, protocol, waiter)
            await turns()
            assert calls == made + 1
            assert not protocol.made.done()
            assert not waiter.done()
            transport = loop._make_socket_transport(ours, protocol, waiter)
            await waiter
            transport.close()
            await protocol.lost

    loop.set_debug(True)
    run(main())


@pytest.mark.parametrize("exc", ["KeyboardInterrupt", "SystemExit", "OSError"])
@pytest.mark.parametrize("where", ["close", "detach"])
def test_what_is_raised_behind_the_loss_goes_on(run_script, where, exc):
    """As by a signal there: Ctrl-C in the middle of a busy server's work."""
    result = run_script(
        f"""
        import socket
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, seen: print("seen", seen["exception"]))
        class Socket(socket.socket):
            def close(self):
                super().close()
                if {where!r} == "close":
                    raise {exc}("out")
        def detach(*args):
            raise {exc}("out")
        async def main():
            if {where!r} == "detach":
                class Protocol(asyncio.Protocol):
                    def connection_made(self, transport):
                        transport.close()
                server = await loop.create_server(Protocol, "127.0.0.1", 0)
                server._detach = detach
                peer = socket.create_connection(server.sockets[0].getsockname())
            else:
                ours, peer = socket.socketpair()
                sock = Socket(fileno=ours.detach())
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
                transport.close()
            await asyncio.sleep(0.1)
        try:
            loop.run_until_complete(main())
        except BaseException as raised:
            print("out of the loop", repr(raised))
        """
    )
    if exc == "OSError":
        assert result.stdout == "seen out\n"
    else:
        assert result.stdout == f"out of the loop {exc}('out')\n"
