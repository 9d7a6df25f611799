"""What comes over the wire: records in pieces, records in heaps, and what is none."""

import asyncio
import logging
import ssl

import pytest
from iosupport import Recorder, capture, digest, is_stock, pattern, settle
from tlssupport import Buffered, Certificates, tls_pair, tls_peer


@pytest.fixture(scope="module")
def tls():
    return Certificates()


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server_side", [False, True])
@pytest.mark.parametrize("step", [1, 4, 5, 6, 1000, 16406])
def test_split_at(loop, run, tls, version, server_side, step):
    """Handshake, records and the closing alert arrive in pieces of step bytes."""
    context = tls.client_context() if server_side else tls.server_context()
    context.minimum_version = context.maximum_version = version
    data = pattern(300 if step < 100 else 200_000)

    async def main():
        async with tls_peer(
            tls, server_side=server_side, context=context, step=step
        ) as (protocol, peer):
            await peer.send(peer.encrypt(data[:100]) + peer.encrypt(data[100:]))
            assert digest(await protocol.received(len(data))) == digest(data)
            protocol.transport.write(data)
            assert digest(await peer.receive(len(data))) == digest(data)
            await peer.send(peer.goodbye())
            assert await protocol.lost is None
            assert protocol.events[-2:] == ["eof", "lost"]

    run(main())


@pytest.mark.parametrize("factory", [Recorder, Buffered])
@pytest.mark.parametrize("size", [1, 10, 1000, 16384])
def test_many_records_at_once(loop, run, tls, factory, size):
    data = pattern(size * 20)

    async def main():
        async with tls_peer(tls, factory) as (protocol, peer):
            records = b"".join(
                peer.encrypt(data[at : at + size]) for at in range(0, len(data), size)
            )
            # The last one in two pieces.
            await peer.send(records[:-3])
            await protocol.received(len(data) - size)
            await peer.send(records[-3:])
            assert digest(await protocol.received(len(data))) == digest(data)

    run(main())


def test_records_that_arrive_together_are_received_together(loop, run, tls):
    async def main():
        async with tls_peer(tls) as (protocol, peer):
            await peer.send(b"".join(peer.encrypt(b"%d" % n) for n in range(9)))
            assert await protocol.received(9) == b"012345678"
            assert protocol.events.count("data") == 1

    run(main())


def test_small_writes_share_a_record(loop, run, tls):
    async def main():
        async with tls_peer(tls) as (protocol, peer):
            await peer.send(peer.encrypt(b"?"))
            await protocol.received(1)
            for _ in range(4):
                protocol.transport.write(b"1234")
            await peer.fetch()
            assert peer.tls.read(100) == b"1234" * 4

    if is_stock(loop):
        pytest.skip("asyncio sends a record a write")
    run(main())


def test_data_and_the_end_in_one_piece(loop, run, tls):
    async def main():
        async with tls_peer(tls) as (protocol, peer):
            await peer.send(peer.encrypt(b"last words") + peer.goodbye())
            peer.sock.close()
            await protocol.lost
            assert protocol.events == ["made", "data", "eof", "lost"]
            assert protocol.data == b"last words"

    run(main())


@pytest.mark.parametrize("behind", [b"garbage", b"\x17\x03\x03\x00\x05abcde"])
def test_data_behind_the_closing_alert(loop, run, tls, behind):
    async def main():
        async with tls_peer(tls) as (protocol, peer):
            await peer.send(peer.encrypt(b"data") + peer.goodbye() + behind)
            assert await protocol.lost is None
            assert protocol.events == ["made", "data", "eof", "lost"]
            assert protocol.data == b"data"

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_truncation_is_told_apart(loop, run, tls):
    """Both end with eof_received(), as in asyncio; which it was can be asked for."""

    async def main():
        for polite in (True, False):
            async with tls_peer(tls) as (protocol, peer):
                await peer.send(peer.encrypt(b"data"))
                await protocol.received(4)
                if polite:
                    await peer.send(peer.goodbye())
                peer.sock.shutdown(1)
                assert await protocol.lost is None
                assert protocol.events == ["made", "data", "eof", "lost"]
                if not is_stock(loop):
                    told = protocol.transport.get_extra_info("tls_close_notify")
                    assert told is polite

    run(main())


def test_truncation_within_a_record(loop, run, tls):
    async def main():
        async with tls_peer(tls) as (protocol, peer):
            await peer.send(peer.encrypt(b"data") + peer.encrypt(b"lost")[:-1])
            await protocol.received(4)
            peer.sock.close()
            await protocol.lost
            assert protocol.data == b"data"
            assert protocol.events[-2:] == ["eof", "lost"]

    run(main())


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (None, {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"}),
        (b"\x17\x03\x03\x00\x00", None),  # a record of no bytes
        (b"\x17\x03\x03\xff\xff" + bytes(0xFFFF), None),  # too long
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"\x80\x2e\x01\x00\x02", None),
        (bytes(100), None),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_what_is_no_record(loop, run, tls, wire, reason, debug, caplog):
    caplog.set_level(logging.CRITICAL)
    loop.set_debug(debug)

    async def main():
        async with tls_peer(tls) as (protocol, peer):
            if wire is None:
                record = bytearray(peer.encrypt(b"data"))
                record[-1] ^= 1
                await peer.send(bytes(record))
            else:
                await peer.send(wire)
            exc = await protocol.lost
            assert isinstance(exc, ssl.SSLError)
            assert reason is None or exc.reason in reason
            assert protocol.data == b""

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_incoming_data_while_paused(loop, run, tls):
    """Up to a limit it is taken in, and the transport below is paused then."""
    data = pattern(2_000_000)

    async def main():
        async with tls_peer(tls) as (protocol, peer):
            transport = protocol.transport
            transport.set_read_buffer_limits(high=100_000)
            assert transport.get_read_buffer_limits() == (25_000, 100_000)
            transport.pause_reading()
            sending = asyncio.create_task(peer.send(peer.encrypt(data)))
            while transport.get_read_buffer_size() < 100_000:
                await asyncio.sleep(0.001)
            await settle()
            assert transport.get_read_buffer_size() < 1_000_000
            assert not sending.done()
            assert protocol.data == b""
            transport.resume_reading()
            assert digest(await protocol.received(len(data))) == digest(data)
            await sending

    run(main())


def test_end_while_paused(loop, run, tls):
    async def main():
        async with tls_peer(tls) as (protocol, peer):
            protocol.transport.pause_reading()
            await peer.send(peer.encrypt(b"held") + peer.goodbye())
            peer.sock.shutdown(1)
            await settle()
            assert protocol.events == ["made"]
            protocol.transport.resume_reading()
            await protocol.lost
            assert protocol.events == ["made", "data", "eof", "lost"]
            assert protocol.data == b"held"

    run(main())


@pytest.mark.parametrize("room", [1, 7, 1000, 16384, 16385, 100_000])
def test_room_of_a_buffered_protocol(loop, run, tls, room):
    """A record may be larger than the buffer that it goes into."""
    data = pattern(60 * room if room < 100 else 200_000)

    class Small(Buffered):
        size = room

    async def main():
        async with tls_peer(tls, Small) as (protocol, peer):
            await peer.send(peer.encrypt(data))
            assert digest(await protocol.received(len(data))) == digest(data)
            await peer.send(peer.encrypt(data[: room * 2]) + peer.goodbye())
            await protocol.lost
            assert digest(protocol.data) == digest(data + data[: room * 2])

    run(main())


def test_a_buffered_protocol_without_room(loop, run, tls):
    if is_stock(loop):
        pytest.skip("tells the peer's end from it")
    contexts = capture(loop)

    class Full(Buffered):
        size = 0

    async def main():
        async with tls_peer(tls, Full) as (protocol, peer):
            await peer.send(peer.encrypt(b"x"))
            assert isinstance(await protocol.lost, RuntimeError)

    run(main())
    messages = [str(context["exception"]) for context in contexts]
    assert messages == ["get_buffer() returned an empty buffer"]
    contexts.clear()


# Contexts with an SSL object of their own


def counted(context, seen):
    """Have context make an SSL object with methods of its own."""

    class Counted(ssl.SSLObject):
        def read(self, *args):
            data = super().read(*args)
            seen.append(("read", data if isinstance(data, int) else len(data)))
            return data

        def write(self, data):
            size = super().write(data)
            seen.append(("write", size))
            return size

    context.sslobject_class = Counted
    return context


@pytest.mark.parametrize("pending", [-5, 0, 2**63 - 1, None])
def test_an_ssl_object_that_miscounts(loop, run, tls, pending):
    """Nobody has to ask it what is left of a record that was read in part."""

    class Miscounting(ssl.SSLObject):
        def read(self, size=1024, buffer=None):
            size = min(size, 10)
            return super().read(size, buffer) if buffer else super().read(size)

        def pending(self):
            return pending

    class Ten(Buffered):
        def get_buffer(self, sizehint):
            super().get_buffer(sizehint)
            self.buffer = bytearray(10)
            return memoryview(self.buffer)

    context = tls.client_context()
    context.sslobject_class = Miscounting

    async def main():
        for factory in (Recorder, Ten):
            async with tls_pair(tls, factory, client=context) as (ours, theirs):
                theirs.transport.write(pattern(1000))
                assert digest(await ours.received(1000)) == digest(pattern(1000))

    run(main())


@pytest.mark.parametrize("factory", [Recorder, Buffered])
def test_an_ssl_object_of_its_own(loop, run, tls, factory):
    seen = []
    client = counted(tls.client_context(), seen)
    data = pattern(100_000)

    async def main():
        async with tls_pair(tls, factory, Recorder, client=client) as (ours, theirs):
            ours.transport.write(b"hello")
            assert await theirs.received(5) == b"hello"
            ours.transport.write(data)
            assert digest((await theirs.received(100_005))[5:]) == digest(data)
            theirs.transport.write(data)
            assert digest(await ours.received(100_000)) == digest(data)
            ours.transport.close()
            assert await ours.lost is None
            await theirs.lost

    run(main())
    assert sum(size for what, size in seen if what == "write") == 100_005
    assert sum(size for what, size in seen if what == "read") == 100_000


@pytest.mark.parametrize("factory", [Recorder, Buffered])
@pytest.mark.parametrize("told", ["text", [], 1 << 40, -1])
def test_an_ssl_object_that_reads_nonsense(loop, run, tls, factory, told):
    """It ends its connection, and no other."""

    class Lying(ssl.SSLObject):
        def read(self, *args):
            super().read(*args)
            return told

    check_nonsense(loop, run, tls, factory, Lying, lambda ours, theirs: theirs)


@pytest.mark.parametrize("told", ["text", 1 << 40, -1])
def test_an_ssl_object_that_writes_nonsense(loop, run, tls, told):
    class Lying(ssl.SSLObject):
        def write(self, data):
            super().write(data)
            return told

    check_nonsense(loop, run, tls, Recorder, Lying, lambda ours, theirs: ours)


def check_nonsense(loop, run, tls, factory, cls, writer):
    if is_stock(loop):
        pytest.skip("believes it")
    contexts = capture(loop)
    context = tls.client_context()
    context.sslobject_class = cls

    async def main():
        async with tls_pair(tls, factory, Recorder, client=context) as (ours, theirs):
            writer(ours, theirs).transport.write(b"hello")
            assert isinstance(await ours.lost, (TypeError, ValueError, OverflowError))
            await theirs.lost
        async with tls_pair(tls) as (ours, theirs):
            theirs.transport.write(b"hello")
            assert await ours.received(5) == b"hello"

    run(main())
    assert len(contexts) == 1
    assert isinstance(contexts[0]["exception"], (TypeError, ValueError, OverflowError))
    contexts.clear()
