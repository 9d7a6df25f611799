"""TLS connections and servers."""

import asyncio
import os
import socket
import ssl

import pytest
from iosupport import (
    SIZES,
    TIMEOUT,
    Echo,
    Recorder,
    capture,
    digest,
    in_thread,
    pattern,
    settle,
)
from tlssupport import Buffered, Certificates, Servants, tls_pair, tls_server


@pytest.fixture(scope="module")
def tls():
    return Certificates()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip(loop, run, tls, size, kind):
    data = pattern(size)

    async def main():
        async with tls_pair(tls, server_factory=Echo) as (client, _):
            client.transport.write(kind(data))
            client.transport.write(b"!")
            assert digest(await client.received(size + 1)) == digest(data + b"!")

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(loop, run, tls, version):
    context = tls.client_context()
    context.minimum_version = context.maximum_version = version

    async def main():
        async with tls_pair(tls, server_factory=Echo, client=context) as (client, _):
            client.transport.write(b"x" * 100_000)
            await client.received(100_000)
            assert client.transport.get_extra_info(
                "ssl_object"
            ).version() == version.name.replace("_", ".")

    run(main())


def test_buffered_protocol(loop, run, tls):
    data = pattern(1_000_000)

    async def main():
        async with tls_pair(tls, Buffered, Echo) as (client, _):
            client.transport.write(data)
            assert digest(await client.received(len(data))) == digest(data)

    run(main())


def test_streams(loop, run, tls):
    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(address, number):
        reader, writer = await asyncio.open_connection(
            *address, ssl=tls.client, server_hostname="localhost"
        )
        for turn in range(10):
            writer.write(b"client %d line %d\n" % (number, turn))
            await writer.drain()
            assert await reader.readline() == b"CLIENT %d LINE %d\n" % (number, turn)
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await asyncio.start_server(
            handle, "127.0.0.1", 0, ssl=tls.server
        ) as server:
            address = server.sockets[0].getsockname()
            await asyncio.gather(*(client(address, number) for number in range(20)))
            await asyncio.sleep(0.01)
        await settle()

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_unix_tls(loop, run, tls, tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        servants = Servants()
        async with await loop.create_unix_server(
            servants.factory(Echo), path, ssl=tls.server
        ):
            transport, client = await loop.create_unix_connection(
                Recorder, path, ssl=tls.client, server_hostname="localhost"
            )
            transport.write(b"x" * 100_000)
            await client.received(100_000)
            transport.close()
            assert await client.lost is None
            await servants[0].lost
        await settle()

    run(main())


def test_socket_of_the_program(loop, run, tls):
    async def main():
        a, b = socket.socketpair()
        (_, server), (_, client) = await asyncio.gather(
            loop.connect_accepted_socket(Echo, a, ssl=tls.server),
            loop.create_connection(
                Recorder, sock=b, ssl=tls.client, server_hostname="localhost"
            ),
        )
        client.transport.write(b"x")
        await client.received(1)
        client.transport.close()
        await client.lost
        await server.lost
        await settle()
        assert a.fileno() == b.fileno() == -1

    run(main())


def test_bytes_through_a_plain_ssl_socket(loop, run, tls):
    """The other end is the ssl module's own socket, which also wants the closing alert."""
    data = pattern(3_000_000)

    def peer(address):
        with socket.create_connection(address, timeout=TIMEOUT) as raw:
            with tls.client.wrap_socket(
                raw, server_hostname="localhost", suppress_ragged_eofs=False
            ) as sock:
                sock.sendall(data)
                received = bytearray()
                while chunk := sock.recv(100_000):
                    received += chunk
                return digest(received)

    class Closing(Recorder):
        def data_received(self, received):
            super().data_received(received)
            if len(self.data) == len(data):
                self.transport.write(bytes(self.data))
                self.transport.close()

    async def main():
        servants = Servants()
        async with await loop.create_server(
            servants.factory(Closing), "127.0.0.1", 0, ssl=tls.server
        ) as server:
            assert await in_thread(peer, server.sockets[0].getsockname()) == digest(
                data
            )
            await servants[0].lost
        await settle()

    run(main())


def test_alpn(loop, run, tls):
    server, client = tls.server_context(), tls.client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])

    async def main():
        async with tls_pair(tls, client=client, server=server) as (protocol, _):
            assert (
                protocol.transport.get_extra_info("ssl_object").selected_alpn_protocol()
                == "http/1.1"
            )

    run(main())


def test_client_certificates(loop, run, tls):
    server, client = tls.server_context(), tls.client_context()
    server.verify_mode = ssl.CERT_REQUIRED
    tls.authority.configure_trust(server)
    tls.authority.issue_cert("visitor.example").configure_cert(client)

    async def main():
        async with tls_pair(tls, client=client, server=server, server_factory=Echo) as (
            protocol,
            servant,
        ):
            protocol.transport.write(b"x")
            await protocol.received(1)
            names = servant.transport.get_extra_info("peercert")["subjectAltName"]
            assert names == (("DNS", "visitor.example"),)

    run(main())


# The end


def test_abort(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.write(bytes(20_000_000))
            client.transport.abort()
            assert await client.lost is None
            await server.lost
            assert len(server.data) < 20_000_000

    run(main())


def test_reset(loop, run, tls):
    contexts = capture(loop)

    async def main():
        async with tls_pair(tls) as (client, server):
            sock = client.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.transport.abort()
            assert isinstance(await server.lost, ConnectionResetError)

    run(main())
    assert contexts == []


def test_peer_that_does_not_answer_the_close(loop, run, tls):
    """A silent peer delays the end no longer than ssl_shutdown_timeout."""

    async def main():
        release = asyncio.Event()

        def peer(address):
            with socket.create_connection(address, timeout=TIMEOUT) as raw:
                with tls.client.wrap_socket(raw, server_hostname="localhost") as sock:
                    sock.sendall(b"x")
                    asyncio.run_coroutine_threadsafe(release.wait(), loop).result(
                        TIMEOUT
                    )

        async with tls_server(tls, ssl_shutdown_timeout=0.05) as (address, servants):
            silent = in_thread(peer, address)
            while not servants:
                await asyncio.sleep(0.001)
            await servants[0].received(1)
            servants[0].transport.close()
            await servants[0].lost
            release.set()
            await silent

    capture(loop)
    run(main())


def test_descriptors_come_back(loop, run, tls):
    async def main():
        async def visit():
            async with tls_pair(tls, server_factory=Echo) as (client, _):
                client.transport.write(b"x")
                await client.received(1)
                client.transport.close()
                await client.lost

        await visit()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await visit()
        assert len(os.listdir("/proc/self/fd")) <= before

    run(main())
