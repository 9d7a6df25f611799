"""How TLS connections end: by either side, in time, and with what exception."""

import asyncio
import contextlib
import gc
import ssl
import time
import weakref

import pytest
from iosupport import TIMEOUT, Recorder, capture, digest, is_stock, pattern, settle
from tlssupport import Buffered, Certificates, tls_pair, tls_peer


@pytest.fixture(scope="module")
def tls():
    return Certificates()


# In time


def test_silent_peer_holds_nobody_up(loop, run, tls):
    """asyncio waits for the whole ssl_shutdown_timeout."""
    if is_stock(loop):
        pytest.skip("a promise of fastloop's")

    async def main():
        async with tls_peer(tls, ssl_shutdown_timeout=10_000) as (protocol, peer):
            await peer.send(peer.encrypt(b"x"))
            await protocol.received(1)
            protocol.transport.write(b"bye")
            protocol.transport.close()
            assert protocol.transport.is_closing()
            assert await protocol.lost is None
            assert protocol.events == ["made", "data", "lost"]
            assert await peer.receive(3) == b"bye"
            assert peer.tls.read(1) == b""  # the closing alert

    run(main())


def test_silent_peer_and_a_short_limit(loop, run, tls):
    async def main():
        async with tls_peer(tls, ssl_shutdown_timeout=0.02) as (protocol, peer):
            await peer.send(peer.encrypt(b"x"))
            await protocol.received(1)
            protocol.transport.close()
            exc = await protocol.lost
            assert isinstance(exc, TimeoutError)
            assert str(exc) == "SSL shutdown timed out"

    run(main())


def test_peer_that_does_not_read(loop, run, tls):
    """What was written cannot leave: the limit ends it."""

    async def main():
        async with tls_peer(tls, size=8192, ssl_shutdown_timeout=0.1) as (protocol, _):
            protocol.transport.write(bytes(5_000_000))
            protocol.transport.close()
            exc = await protocol.lost
            assert isinstance(exc, TimeoutError)
            assert str(exc) == "SSL shutdown timed out"

    run(main())


def test_peer_that_reads_late(loop, run, tls):
    """Longer than it would be waited for an answer, but within the limit."""
    data = pattern(5_000_000)

    async def main():
        async with tls_peer(tls, size=8192) as (protocol, peer):
            protocol.transport.write(data)
            protocol.transport.close()
            await asyncio.sleep(0.4)
            assert not protocol.lost.done()
            assert digest(await peer.receive(len(data) + 1)) == digest(data)
            await peer.send(peer.goodbye())
            assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("pending", [0, 5_000_000])
def test_peer_that_sends_for_ever(loop, run, tls, pending):
    """Nothing is downloaded any more, and the end comes in time."""

    async def main():
        limit = 1.0 if pending else 20.0
        async with tls_peer(tls, size=65536, ssl_shutdown_timeout=limit) as (
            protocol,
            peer,
        ):
            sent = 0

            async def flood():
                nonlocal sent
                with contextlib.suppress(ConnectionError):
                    while True:
                        await peer.send(peer.encrypt(bytes(10_000)))
                        sent += 10_000
                        await asyncio.sleep(0)

            task = asyncio.create_task(flood())
            await protocol.received(100_000)
            protocol.transport.write(bytes(pending))
            protocol.transport.close()
            before, received = sent, len(protocol.data)
            began = time.monotonic()
            await protocol.lost
            assert time.monotonic() - began < TIMEOUT
            if not is_stock(loop):
                # What cannot leave has the whole limit, which is long here.
                assert pending or time.monotonic() - began < limit / 2
                assert len(protocol.data) == received
                assert sent - before < 1_000_000
            await task

    run(main())


def test_close_with_data_unread(loop, run, tls):
    """What the program did not want to read is no error."""

    async def main():
        async with tls_peer(tls) as (protocol, peer):
            protocol.transport.pause_reading()
            await peer.send(peer.encrypt(bytes(50_000)))
            while not protocol.transport.get_read_buffer_size():
                await asyncio.sleep(0.001)
            protocol.transport.close()
            with contextlib.suppress(ConnectionError):
                await peer.receive(1)
                await peer.send(peer.goodbye())
            exc = await protocol.lost
            if not is_stock(loop):
                assert exc is None
                assert "data" not in protocol.events

    run(main())


def test_both_close(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.close()
            server.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert client.events.count("lost") == server.events.count("lost") == 1

    run(main())


def test_peer_answers_the_close(loop, run, tls):
    async def main():
        async with tls_peer(tls, ssl_shutdown_timeout=10_000) as (protocol, peer):
            protocol.transport.close()
            protocol.transport.close()
            assert await peer.receive(1) == b""
            await peer.send(peer.goodbye())
            assert await protocol.lost is None
            assert protocol.events == ["made", "eof", "lost"]
            await peer.until_closed()

    run(main())


def test_peer_leaves_instead_of_answering(loop, run, tls):
    async def main():
        async with tls_peer(tls, ssl_shutdown_timeout=10_000) as (protocol, peer):
            protocol.transport.close()
            assert await peer.receive(1) == b""
            peer.sock.close()
            assert await protocol.lost is None

    run(main())


def test_data_behind_our_closing_alert(loop, run, tls):
    """asyncio's exception."""

    async def main():
        async with tls_peer(tls, ssl_shutdown_timeout=10_000) as (protocol, peer):
            record = peer.encrypt(b"late")
            protocol.transport.close()
            await settle()
            await peer.send(record)
            exc = await protocol.lost
            assert isinstance(exc, ssl.SSLError)
            assert exc.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
            assert "data" not in protocol.events

    contexts = capture(loop)
    run(main())
    assert contexts == []


# Re-entrancy: what a protocol may do inside its calls


class Acting(Recorder):
    """Does something inside one of its calls."""

    def __init__(self, where, act):
        super().__init__()
        self.where, self.act = where, act

    def connection_made(self, transport):
        super().connection_made(transport)
        if self.where == "made":
            self.act(self)

    def data_received(self, data):
        super().data_received(data)
        if self.where == "data":
            self.act(self)

    def eof_received(self):
        super().eof_received()
        if self.where == "eof":
            self.act(self)

    def pause_writing(self):
        super().pause_writing()
        if self.where == "pause":
            self.act(self)


class ActingBuffered(Buffered):
    def __init__(self, where, act):
        super().__init__()
        self.where, self.act = where, act

    def get_buffer(self, sizehint):
        if self.where == "buffer":
            self.act(self)
        return super().get_buffer(sizehint)

    def buffer_updated(self, nbytes):
        super().buffer_updated(nbytes)
        if self.where == "data":
            self.act(self)


def write_and_close(self):
    self.transport.write(b"parting words")
    self.transport.close()


def write_large_and_close(self):
    self.transport.write(bytes(1_000_000))
    self.transport.close()


def close_and_abort(self):
    self.transport.close()
    self.transport.abort()


ACTS = {
    "close": lambda self: self.transport.close(),
    "abort": lambda self: self.transport.abort(),
    "write": write_and_close,
    "write large": write_large_and_close,
    "close and abort": close_and_abort,
}


@pytest.mark.parametrize("where", ["made", "data", "eof", "buffer", "buffer data"])
@pytest.mark.parametrize("act", ACTS)
def test_ending_within_a_call(loop, run, tls, where, act):
    async def main():
        if where.startswith("buffer"):
            made = ActingBuffered(where.split()[-1], ACTS[act])
        else:
            made = Acting(where, ACTS[act])
        async with tls_peer(tls, lambda: made) as (protocol, peer):
            reading = asyncio.create_task(peer.until_closed())
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await peer.send(peer.encrypt(b"12") + peer.encrypt(b"34"))
                await peer.send(peer.goodbye())
            await protocol.lost
            await settle()
            assert protocol.events.count("lost") == 1
            assert protocol.events.count("made") == 1
            assert protocol.events.count("eof") <= 1
            assert protocol.events[-1] == "lost"
            if not is_stock(loop):  # which may have an AttributeError
                protocol.transport.write(b"ignored")
            peer.sock.close()
            await asyncio.gather(reading, return_exceptions=True)

    contexts = capture(loop)
    run(main())
    if not (where == "buffer" and is_stock(loop)):
        assert contexts == []


@pytest.mark.parametrize("first", [Recorder, Buffered])
@pytest.mark.parametrize("second", [Recorder, Buffered])
def test_set_protocol_within_a_call(loop, run, tls, first, second):
    async def main():
        class Changing(first):
            def note(self, event):
                super().note(event)
                if event == "data" and self.transport.get_protocol() is self:
                    self.transport.set_protocol(heir)

        heir = second()
        async with tls_peer(tls, Changing) as (protocol, peer):
            heir.transport = protocol.transport
            await peer.send(peer.encrypt(b"mine"))
            await protocol.received(4)
            await peer.send(peer.encrypt(b"yours") + peer.goodbye())
            await heir.lost
            assert (protocol.data, heir.data) == (b"mine", b"yours")
            assert heir.events == ["data", "eof", "lost"]
            protocol.lost.set_result(None)

    run(main())


@pytest.mark.parametrize(
    "method", ["data_received", "eof_received", "connection_made", "get_buffer"]
)
def test_exceptions_out_of_the_protocol(loop, run, tls, method):
    error = ZeroDivisionError()

    class Broken(Buffered if method == "get_buffer" else Recorder):
        pass

    def broken(self, *args):
        raise error

    setattr(Broken, method, broken)
    contexts = capture(loop)
    if method == "get_buffer" and is_stock(loop):
        pytest.skip(
            "asyncio asks for a buffer in the handshake, the peer's end with it"
        )

    async def main():
        if method == "connection_made":
            with pytest.raises(ZeroDivisionError):
                async with tls_peer(tls, Broken):
                    pass
            await settle()
            return
        async with tls_peer(tls, Broken) as (protocol, peer):
            # A record of OpenSSL's own is enough for get_buffer().
            with contextlib.suppress(ConnectionError):
                await peer.send(peer.encrypt(b"x"))
                if method == "eof_received":
                    await peer.send(peer.goodbye())
            assert await protocol.lost is error

    run(main())
    assert [context["exception"] for context in contexts] == [error]
    assert (
        contexts[0]["message"]
        == {
            "data_received": "Fatal error on SSL protocol",
            "get_buffer": "Fatal error on SSL protocol",
            "eof_received": "Error calling eof_received()",
            "connection_made": "Fatal error: protocol.buffer_updated() call failed.",
        }[method]
    )


def test_eof_received_cannot_keep_open(loop, run, tls, caplog):
    class Keeping(Recorder):
        keep_open = True

    async def main():
        async with tls_peer(tls, Keeping) as (protocol, peer):
            await peer.send(peer.goodbye())
            assert await protocol.lost is None

    run(main())
    assert "returning true from eof_received() has no effect when using ssl" in [
        record.getMessage() for record in caplog.records
    ]


# The loss


def test_loss_marks_the_transport_closing(loop, run, tls):
    """A writer that only writes and drains learns of it within two rounds."""

    async def main():
        made = loop.create_future()

        async def handle(reader, writer):
            made.set_result(writer)

        async with await asyncio.start_server(
            handle, "127.0.0.1", 0, ssl=tls.server
        ) as server:
            _reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(),
                ssl=tls.client,
                server_hostname="localhost",
            )
            other = await made
            other.transport.abort()
            rounds = 0
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(bytes(1000))
                    rounds += writer.transport.is_closing()
                    await writer.drain()
            if not is_stock(loop):
                assert rounds <= 2
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    run(main())


def test_writes_after_the_end_are_counted(loop, run, tls, caplog):
    async def main():
        async with tls_peer(tls) as (protocol, _peer):
            protocol.transport.abort()
            for _ in range(10):
                protocol.transport.write(b"x")
                protocol.transport.writelines([b"x", b"y"])
            await protocol.lost

    run(main())
    assert "SSL connection is closed" in [r.getMessage() for r in caplog.records]


def test_getters_after_the_end(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, _):
            transport = client.transport
            transport.close()
            await client.lost
            await settle()
            assert transport.is_closing()
            assert transport.get_write_buffer_size() == 0
            assert transport.get_extra_info("sslcontext") is tls.client
            assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert transport.get_extra_info("cipher")
            if not is_stock(loop):
                assert transport.get_extra_info("peername")
                assert transport.get_protocol() is None
                assert "closed" in repr(transport)
                transport.pause_reading()
                transport.resume_reading()
                transport.set_write_buffer_limits(high=10)

    run(main())


def test_nothing_is_left_behind(loop, run, tls):
    """Not even for the collector."""
    kept = []

    async def main():
        client, server = tls.client_context(), tls.server_context()
        async with tls_pair(tls, client=client, server=server) as (a, b):
            a.transport.write(b"x")
            await b.received(1)
            a.transport.close()
            await a.lost
            await b.lost
            kept.extend([weakref.ref(client), weakref.ref(a), weakref.ref(b)])
            kept.append(weakref.ref(a.transport))

    gc.collect()
    gc.disable()
    try:
        run(main())
        run(settle())
        if not is_stock(loop):
            assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()
