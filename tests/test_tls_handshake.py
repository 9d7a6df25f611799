"""TLS handshakes that fail, time out or are given up."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import socket
import ssl
import weakref

import pytest
from iosupport import (
    TIMEOUT,
    Recorder,
    capture,
    in_thread,
    is_stock,
    reset,
    settle,
    turns,
)
from tlssupport import Certificates, Servants, tls_pair, tls_server


@pytest.fixture(scope="module")
def tls():
    return Certificates()


def test_wrong_name(loop, run, tls):
    loop.set_debug(False)  # which would report it
    contexts = capture(loop)

    async def main():
        async with tls_server(tls) as (address, _servants):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    Recorder, *address, ssl=tls.client, server_hostname="other.example"
                )
            # The host is the name unless another is given; this certificate has it.
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=tls.client
            )
            transport.close()
            await protocol.lost

    run(main())
    assert contexts == []


def test_a_failed_handshake_leaves_nothing_behind(loop, run, tls):
    """Not even for the collector."""
    loop.set_debug(False)  # which would report it
    kept = []

    class Protocol(asyncio.Protocol):  # a Recorder keeps the exception
        pass

    def factory():
        kept.append(weakref.ref(protocol := Protocol()))
        return protocol

    async def attempt(address):
        context = tls.client_context()
        kept.append(weakref.ref(context))
        transport, protocol = await loop.create_connection(factory, *address)
        try:  # pytest.raises() makes a cycle of its own
            await loop.start_tls(
                transport, protocol, context, server_hostname="other.example"
            )
        except ssl.SSLCertVerificationError:
            kept.append(lambda: None)

    async def main():
        async with tls_server(tls) as (address, _servants):
            gc.collect()
            gc.disable()
            try:
                await attempt(address)
                await settle()
                if not is_stock(loop):
                    assert [ref() for ref in kept] == [None] * 3
            finally:
                gc.enable()

    run(main())
    assert len(kept) == 3


def test_unknown_authority(loop, run, tls):
    loop.set_debug(False)  # which would report it
    contexts = capture(loop)

    async def main():
        async with tls_server(tls) as (address, _servants):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    Recorder, *address, ssl=True, server_hostname="localhost"
                )

    run(main())
    assert contexts == []


def test_plain_text_to_a_tls_server(loop, run, tls):
    loop.set_debug(False)  # which would report it
    contexts = capture(loop)

    async def main():
        async with tls_server(tls) as (address, servants):
            with socket.create_connection(address) as sock:
                sock.settimeout(TIMEOUT)
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                # Perhaps an alert, then the end.
                try:
                    while await in_thread(sock.recv, 1000):
                        pass
                except ConnectionResetError:
                    pass
            assert [servant.events for servant in servants] == [[]]

    run(main())
    assert contexts == []


def test_tls_to_a_plain_server(loop, run, tls):
    async def main():
        class Plain(Recorder):
            def data_received(self, data):
                self.transport.write(b"what?\r\n" * 10)

        servants = Servants()
        async with await loop.create_server(
            servants.factory(Plain), "127.0.0.1", 0
        ) as server:
            with pytest.raises(ssl.SSLError):
                await loop.create_connection(
                    Recorder,
                    *server.sockets[0].getsockname(),
                    ssl=tls.client,
                    server_hostname="localhost",
                )
            await servants[0].lost
        await settle()

    run(main())


@pytest.mark.parametrize("how", ["close", "reset"])
def test_peer_that_leaves_during_the_handshake(loop, run, tls, how):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def leave():
                sock, _ = listener.accept()
                sock.recv(10_000)
                reset(sock) if how == "reset" else sock.close()

            leaving = in_thread(leave)
            with pytest.raises(ConnectionError):
                await loop.create_connection(
                    Recorder,
                    *listener.getsockname(),
                    ssl=tls.client,
                    server_hostname="localhost",
                )
            await leaving
        await settle()

    run(main())


def test_handshake_timeout_of_a_client(loop, run, tls):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with pytest.raises(
                ConnectionAbortedError,
                match=r"SSL handshake is taking longer than 0\.05 seconds",
            ):
                await loop.create_connection(
                    Recorder,
                    *listener.getsockname(),
                    ssl=tls.client,
                    server_hostname="localhost",
                    ssl_handshake_timeout=0.05,
                )
            # The socket is closed, not forgotten.
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(TIMEOUT)
                while await in_thread(sock.recv, 10_000):
                    pass
        await settle()

    run(main())


def test_handshake_timeout_of_a_server(loop, run, tls):
    async def main():
        async with tls_server(tls, ssl_handshake_timeout=0.05) as (address, servants):
            with socket.create_connection(address) as sock:
                sock.settimeout(TIMEOUT)
                assert await in_thread(sock.recv, 1) == b""
            assert servants[0].events == []

    run(main())


def test_cancelled_handshake(loop, run, tls):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            task = asyncio.create_task(
                loop.create_connection(
                    Recorder,
                    *listener.getsockname(),
                    ssl=tls.client,
                    server_hostname="localhost",
                )
            )
            sock, _ = await in_thread(listener.accept)
            with sock:
                await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                sock.settimeout(TIMEOUT)
                while await in_thread(sock.recv, 10_000):
                    pass
        await settle()

    run(main())


def test_wrong_arguments(loop, run, tls):
    async def main():
        with pytest.raises(
            TypeError, match="ssl argument must be an SSLContext or None"
        ):
            await loop.create_server(Recorder, "127.0.0.1", 0, ssl=True)
        with socket.socket() as sock:
            with pytest.raises(
                ValueError,
                match="You must set server_hostname when using ssl without a host",
            ):
                await loop.create_connection(Recorder, sock=sock, ssl=tls.client)
            with pytest.raises(
                ValueError, match="server_hostname is only meaningful with ssl"
            ):
                await loop.create_connection(Recorder, sock=sock, server_hostname="x")

    run(main())


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_wrong_timeouts(loop, run, tls, name, value):
    async def main():
        a, b = socket.socketpair()
        with (
            a,
            b,
            pytest.raises(
                ValueError, match=f"{name} should be a positive number, got {value}"
            ),
        ):
            await loop.create_connection(
                Recorder,
                sock=a,
                ssl=tls.client,
                server_hostname="localhost",
                **{name: value},
            )

    run(main())


# In debug mode, and the same without


@pytest.mark.parametrize("debug", [False, True])
def test_failures_of_a_server(loop, run, tls, debug, caplog):
    """Reported in debug mode only; nothing is left behind."""
    caplog.set_level(logging.CRITICAL)
    loop.set_debug(debug)
    contexts = capture(loop)

    async def main():
        async with tls_server(tls, ssl_handshake_timeout=0.05) as (address, servants):
            for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""):
                with socket.create_connection(address) as sock:
                    sock.settimeout(TIMEOUT)
                    sock.sendall(data)
                    with contextlib.suppress(ConnectionError):
                        while await in_thread(sock.recv, 1000):
                            pass
            with socket.create_connection(address) as sock:
                reset(sock)
            while len(contexts) < 4 and debug:
                await asyncio.sleep(0.001)
            await settle()
            assert [servant.events for servant in servants] == [[]] * 4

    run(main())
    assert [type(context["exception"]) for context in contexts] == (
        [ssl.SSLError, *[ConnectionAbortedError] * 2, ConnectionResetError]
        if debug
        else []
    )
    for context in contexts:
        assert context["message"] == (
            "Error on transport creation for incoming connection"
        )
        assert isinstance(context["protocol"], Recorder)


@pytest.mark.parametrize("turn", range(1, 12))
def test_cancelled_at_any_turn(loop, run, tls, turn):
    contexts = capture(loop)

    async def main():
        async with tls_server(tls) as (address, servants):
            task = asyncio.create_task(
                loop.create_connection(
                    Recorder, *address, ssl=tls.client, server_hostname="localhost"
                )
            )
            await turns(turn)
            task.cancel()
            try:
                transport, _ = await task
                transport.abort()
            except asyncio.CancelledError:
                pass
            await settle()
            for servant in servants:
                if servant.transport is not None:
                    await servant.lost

    loop.set_debug(False)  # which would report it
    run(main())
    assert contexts == []


def test_debug_messages(loop, run, tls, caplog):
    caplog.set_level(logging.DEBUG)
    loop.set_debug(True)

    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.write(b"x")
            await server.received(1)

    run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert sum(message.endswith("starts SSL handshake") for message in messages) == 2
    assert sum(": SSL handshake took " in message for message in messages) == 2


def test_context_of_the_connection(loop, run, tls):
    """A server's connections see the variables of whoever started it, copied."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    class Seeing(Recorder):
        def note(self, event):
            seen.append((event, variable.get()))
            super().note(event)

    async def main():
        variable.set("server")
        async with tls_server(tls, Seeing) as (address, servants):
            variable.set("later")
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=tls.client, server_hostname="localhost"
            )
            transport.write(b"x")
            transport.close()
            await protocol.lost
            await servants[0].lost

    run(main())
    assert seen == [(event, "server") for event in ("made", "data", "eof", "lost")]
