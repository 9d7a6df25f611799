"""What a program may do inside the calls that reach it: the protocol's, OpenSSL's, the context's."""

import asyncio
import contextlib
import socket
import ssl
import sys
import warnings

import pytest
from iosupport import Echo, Recorder, capture, digest, is_stock, pattern, settle
from tlssupport import Buffered, Certificates, Peer, tls_pair, tls_peer, tls_server


@pytest.fixture(scope="module")
def tls():
    return Certificates()


def write_and_close(transport):
    transport.write(b"parting words")
    transport.close()


ACTS = {
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "write": lambda transport: transport.write(bytes(100_000)),
    "write and close": write_and_close,
    "limits": lambda transport: transport.set_write_buffer_limits(high=0),
    "set_protocol": lambda transport: transport.set_protocol(Recorder()),
}


class Failing(Recorder):
    error = ZeroDivisionError

    def data_received(self, data):
        raise self.error


class Cancelled(Failing):
    error = asyncio.CancelledError


class Exits(Failing):
    error = GeneratorExit


@pytest.mark.parametrize("factory", [Failing, Cancelled, Exits])
def test_data_received_that_raises(loop, run, tls, factory):
    """What is no Exception is reported, too, CancelledError included."""

    async def main():
        async with tls_pair(tls, server_factory=factory) as (client, server):
            client.transport.write(b"data")
            assert type(await server.lost) is factory.error
            await client.lost

    contexts = capture(loop)
    run(main())
    message = "Fatal error on SSL protocol"
    if factory is not Failing:
        message = "Fatal error: protocol.buffer_updated() call failed."
    assert [(c["message"], type(c["exception"])) for c in contexts] == [
        (message, factory.error)
    ]


# Calls of flow control


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("where", ["pause", "resume"])
def test_acting_in_flow_control(loop, run, tls, act, where):
    if is_stock(loop):
        pytest.skip("asyncio's buffer empties into the one below, and pauses nobody")

    class Acting(Recorder):
        acted = False

        def do(self):
            if not self.acted:
                self.acted = True
                ACTS[act](self.transport)

        def pause_writing(self):
            super().pause_writing()
            if where == "pause":
                self.do()

        def resume_writing(self):
            super().resume_writing()
            if where == "resume":
                self.do()

    async def main():
        async with tls_peer(tls, Acting, size=8192) as (protocol, peer):
            protocol.transport.set_write_buffer_limits(high=10_000)
            protocol.transport.write(bytes(300_000))
            reading = asyncio.create_task(peer.until_closed())
            while not protocol.acted:
                await asyncio.sleep(0.001)
            await settle()
            protocol.transport.abort()
            await reading  # to the end
            if act == "set_protocol" and not protocol.lost.done():
                protocol.lost.set_result(None)

    contexts = capture(loop)
    run(main())
    assert contexts == []


@pytest.mark.parametrize("act", ["close", "abort", "write", "limits"])
def test_acting_in_connection_lost(loop, run, tls, act):
    class Acting(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            ACTS[act](self.transport)

    async def main():
        async with tls_peer(tls, Acting) as (protocol, peer):
            await peer.send(peer.goodbye())
            await protocol.lost
            await settle()
            assert protocol.events.count("lost") == 1

    contexts = capture(loop)
    run(main())
    if not is_stock(loop):  # which has an AttributeError
        assert contexts == []


@pytest.mark.parametrize("act", ACTS)
def test_acting_in_buffer_updated(loop, run, tls, act):
    class Acting(Buffered):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if len(self.data) == nbytes:
                ACTS[act](self.transport)

    async def main():
        async with tls_peer(tls, Acting) as (protocol, peer):
            reading = asyncio.create_task(peer.until_closed())
            with contextlib.suppress(ConnectionError):
                await peer.send(b"".join(peer.encrypt(b"12") for _ in range(5)))
                await peer.send(peer.goodbye())
            await settle()
            protocol.transport.abort()
            await reading  # to the end
            if act == "set_protocol" and not protocol.lost.done():
                protocol.lost.set_result(None)

    contexts = capture(loop)
    run(main())
    if not is_stock(loop):
        assert contexts == []


# Calls out of OpenSSL


@pytest.mark.parametrize("act", ["close", "abort", "write", "limits"])
@pytest.mark.parametrize("kind", ["handshake", "data", "alert"])
def test_acting_while_openssl_is_at_work(loop, run, tls, act, kind):
    """The context's message callback comes in the middle of everything."""
    if is_stock(loop):
        pytest.skip("a promise of fastloop's")
    context = tls.client_context()
    transports = []
    wanted = {
        "handshake": lambda content, _: content.name == "HANDSHAKE",
        "data": lambda content, _: content.name == "HEADER",
        "alert": lambda content, _: content.name == "ALERT",
    }[kind]
    acted = []

    def watch(_connection, _direction, _version, content, message, _data):
        if transports and len(acted) < 3 and wanted(content, message):
            acted.append(kind)
            ACTS[act](transports[0])

    context._msg_callback = watch

    async def main():
        async with tls_server(tls, Echo) as (address, _servants):
            if kind == "handshake":
                protocol = Recorder()
                transports.append(
                    loop._make_ssl_transport(
                        await connected(loop, address),
                        protocol,
                        context,
                        server_hostname="localhost",
                    )
                )
                await asyncio.sleep(0.05)
                transports[0].abort()
                await settle()
                return
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=context, server_hostname="localhost"
            )
            transports.append(transport)
            for _ in range(5):
                transport.write(b"x" * 20_000)
                await asyncio.sleep(0.005)
            transport.close()
            await protocol.lost

    contexts = capture(loop)
    run(main())
    transports.clear()  # the collector does not see that what ssl makes has the context
    assert acted
    assert contexts == []


async def connected(loop, address):
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, address)
    return sock


@pytest.mark.parametrize("how", ["raises", "refuses"])
@pytest.mark.parametrize("debug", [False, True])
def test_a_name_callback_that_fails(loop, run, tls, how, debug, caplog):
    """The client is turned away, and the server lives on."""
    loop.set_debug(debug)
    context = tls.server_context()
    calls = []
    unraisable = []

    def choose(_connection, name, _context):
        calls.append(name)
        if len(calls) > 1:
            return None
        if how == "raises":
            raise ZeroDivisionError
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = choose
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append

    async def main():
        servants = []

        def factory():
            servants.append(Echo())
            return servants[-1]

        async with await loop.create_server(
            factory, "127.0.0.1", 0, ssl=context
        ) as server:
            address = server.sockets[0].getsockname()
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await loop.create_connection(
                    Recorder, *address, ssl=tls.client, server_hostname="localhost"
                )
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=tls.client, server_hostname="localhost"
            )
            transport.write(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.close()
            await protocol.lost
            await servants[-1].lost
        await settle()

    capture(loop)
    try:
        run(main())
    finally:
        sys.unraisablehook = hook
    # The ssl module's own report is the only one.
    assert [type(one.exc_value) for one in unraisable] == (
        [ZeroDivisionError] if how == "raises" else []
    )


def test_key_log(loop, run, tls, tmp_path):
    """The context's file has the secrets of the connection, as for any other user of it."""
    context = tls.client_context()
    context.keylog_filename = str(tmp_path / "keys")

    async def main():
        async with tls_pair(tls, server_factory=Echo, client=context) as (client, _):
            client.transport.write(b"x")
            await client.received(1)

    run(main())
    text = (tmp_path / "keys").read_text()
    assert "CLIENT_TRAFFIC_SECRET_0" in text
    assert "SERVER_TRAFFIC_SECRET_0" in text


def old_context(context):
    """TLS 1.0 with a block cipher, for which OpenSSL sends records of no bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers(
        "AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"
    )
    context.options &= ~0x800  # SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS
    return context


@pytest.mark.parametrize("factory", [Recorder, Buffered])
def test_records_of_no_bytes(loop, run, tls, factory):
    """Each write of the peer has one before it; they are no end and no call."""
    server = old_context(tls.server_context())
    client = old_context(tls.client_context())
    data = pattern(50_000)

    async def main():
        loop = asyncio.get_running_loop()
        peer = Peer(server, server_side=True)
        with peer.sock:
            (transport, protocol), _ = await asyncio.gather(
                loop.create_connection(
                    factory, sock=peer.theirs, ssl=client, server_hostname="localhost"
                ),
                peer.handshake(),
            )
            for at in range(0, 50, 10):
                record = peer.encrypt(data[at : at + 10])
                head = int.from_bytes(record[3:5], "big") + 5
                assert head < len(record)  # two records, of which one is empty
                await peer.send(record[:head])
                await asyncio.sleep(0.002)
                assert len(protocol.data) == at
                await peer.send(record[head:])
                await protocol.received(at + 10)
            assert protocol.events.count("data") == 5
            await peer.send(peer.encrypt(data[50:]))
            assert digest(await protocol.received(len(data))) == digest(data)
            transport.write(b"and back")
            assert await peer.receive(8) == b"and back"
            await peer.send(peer.goodbye())
            assert await protocol.lost is None
            assert protocol.events[-2:] == ["eof", "lost"]
        await settle()

    contexts = capture(loop)
    try:
        run(main())
    except ssl.SSLError as exc:
        if exc.reason not in {
            "NO_PROTOCOLS_AVAILABLE",
            "NO_CIPHERS_AVAILABLE",
            "UNSUPPORTED_PROTOCOL",
        }:
            raise
        pytest.skip("this OpenSSL has no TLS 1.0")
    assert contexts == []
