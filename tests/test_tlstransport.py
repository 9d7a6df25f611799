"""The Python face of TLS transports: getters, reading on and off, reports."""

import asyncio
import gc
import socket
import ssl
import warnings

import pytest
from iosupport import (
    Recorder,
    capture,
    is_stock,
)
from tlssupport import Certificates, tls_pair


@pytest.fixture(scope="module")
def tls():
    return Certificates()


def test_extra_info(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            transport = client.transport
            assert isinstance(transport, asyncio.Transport)
            assert transport.get_extra_info("sslcontext") is tls.client
            assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
            assert ("DNS", "localhost") in transport.get_extra_info("peercert")[
                "subjectAltName"
            ]
            assert len(transport.get_extra_info("cipher")) == 3
            assert transport.get_extra_info("compression") is None
            assert isinstance(
                transport.get_extra_info("socket"), asyncio.trsock.TransportSocket
            )
            assert transport.get_extra_info(
                "peername"
            ) == server.transport.get_extra_info("sockname")
            assert transport.get_extra_info("nothing", 1) == 1
            assert server.transport.get_extra_info(
                "peername"
            ) == transport.get_extra_info("sockname")
            assert server.transport.get_extra_info("peercert") in (None, {})
            assert transport.is_closing() is False
            assert transport.get_protocol() is client
            assert transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                transport.write_eof()
            transport.close()
            assert transport.is_closing() is True
            await client.lost
            transport.write(b"dropped")
            transport.close()
            transport.abort()

    run(main())


def test_pause_and_resume_reading(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.pause_reading()
            assert client.transport.is_reading() is False
            server.transport.write(b"held")
            await asyncio.sleep(0.02)
            assert client.data == b""
            client.transport.resume_reading()
            assert client.transport.is_reading() is True
            assert await client.received(4) == b"held"

    run(main())


def test_unclosed_transport_warns(loop_factory, tls):
    loop = loop_factory()

    async def main():
        a, b = socket.socketpair()
        server, client = await asyncio.gather(
            loop.connect_accepted_socket(asyncio.Protocol, a, ssl=tls.server),
            loop.create_connection(
                asyncio.Protocol, sock=b, ssl=tls.client, server_hostname="localhost"
            ),
        )
        return server[0], client[0]

    transports = loop.run_until_complete(main())
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transports
        gc.collect()
    # Beside it, the sockets may warn for themselves.
    assert any(
        str(warning.message).startswith("unclosed transport <") for warning in caught
    )


@pytest.mark.parametrize("exc", [ZeroDivisionError, OSError])
def test_exception_out_of_data_received(loop, run, tls, exc):
    contexts = capture(loop)
    error = exc("of the protocol")

    class Broken(Recorder):
        def data_received(self, data):
            raise error

    async def main():
        async with tls_pair(tls, server_factory=Broken) as (client, server):
            client.transport.write(b"x")
            assert await server.lost is error
            await client.lost

    run(main())
    assert [context["exception"] for context in contexts] == (
        [] if exc is OSError else [error]
    )


@pytest.mark.parametrize(
    ("high", "low", "limits"),
    [
        (None, None, (64 * 1024, 256 * 1024)),
        (None, 1000, (1000, 4000)),
        (4000, None, (1000, 4000)),
        (4000, 0, (0, 4000)),
    ],
)
def test_read_buffer_limits(loop, run, tls, high, low, limits):
    async def main():
        async with tls_pair(tls) as (client, _):
            client.transport.set_read_buffer_limits(1, 1)
            client.transport.set_read_buffer_limits(high=high, low=low)
            assert client.transport.get_read_buffer_size() == 0
            assert client.transport.get_read_buffer_limits() == limits

    run(main())


def test_another_transport_below(loop, run, tls):
    """Whoever calls connection_made() again: nothing remains of the transport before."""
    if is_stock(loop):
        pytest.skip("its transport is no protocol")

    class Below(asyncio.Transport):
        def is_closing(self):
            return False

        def write(self, data):
            pass

        def abort(self):
            pass

    async def main():
        async with tls_pair(tls) as (client, server):
            transport = client.transport
            before = transport._transport
            plain = Recorder()
            before.set_protocol(plain)
            transport.connection_made(Below())
            before.abort()
            await server.lost
            await plain.lost
            del before
            gc.collect()
            assert not transport.is_closing()
            transport.write(b"data")
            client.lost.set_result(None)
            transport.abort()

    run(main())


def test_wrong_limits(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, _):
            transport = client.transport
            for limit in (
                transport.set_read_buffer_limits,
                transport.set_write_buffer_limits,
            ):
                with pytest.raises(
                    ValueError, match=r"high \(1\) must be >= low \(2\)"
                ):
                    limit(1, 2)
                with pytest.raises(ValueError, match=r"must be >= 0"):
                    limit(1, -1)
                with pytest.raises(TypeError):
                    limit(1, 2, 3)
                with pytest.raises(TypeError):
                    limit(other=1)
            with pytest.raises(TypeError):
                transport.get_extra_info()

    run(main())


@pytest.mark.parametrize(
    ("high", "low", "limits"),
    [
        (1e6, None, (250_000, 1_000_000)),
        (10.5, 3.5, (3, 10)),
        (None, 2.5, (2, 10)),
        (True, None, (0, 1)),
    ],
)
def test_read_buffer_limits_that_are_fractions(loop, run, tls, high, low, limits):
    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.set_read_buffer_limits(high, low)
            kept = client.transport.get_read_buffer_limits()
            assert tuple(int(limit) for limit in kept) == limits
            if not is_stock(loop):
                assert kept == limits
            server.transport.write(b"data")
            assert await client.received(4) == b"data"
            with pytest.raises(
                ValueError, match=r"high \(1\.5\) must be >= low \(2\.5\)"
            ):
                client.transport.set_read_buffer_limits(1.5, 2.5)
            with pytest.raises(TypeError):
                client.transport.set_read_buffer_limits("1")

    run(main())
