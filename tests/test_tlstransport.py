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
