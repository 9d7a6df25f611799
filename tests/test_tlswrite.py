"""Writing on TLS transports."""

import array
import asyncio
import io

import pytest
from iosupport import (
    Echo,
    digest,
    is_stock,
    pattern,
    settle,
    shrink,
)
from tlssupport import Certificates, tls_pair


@pytest.fixture(scope="module")
def tls():
    return Certificates()


def test_many_small_writes(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            expected = b""
            for number in range(2000):
                chunk = b"%d," % number
                client.transport.write(chunk)
                expected += chunk
            client.transport.writelines([b"and", b" ", b"lines"])
            expected += b"and lines"
            assert await server.received(len(expected)) == expected

    run(main())


def test_drain_waits_for_the_peer(loop, run, tls):
    size = 30_000_000

    async def main():
        release = asyncio.Event()
        received = loop.create_future()

        async def handle(reader, writer):
            await release.wait()
            received.set_result(len(await reader.readexactly(size)))
            writer.close()

        async with await asyncio.start_server(
            handle, "127.0.0.1", 0, ssl=tls.server
        ) as server:
            _, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(),
                ssl=tls.client,
                server_hostname="localhost",
            )

            async def pump():
                for _ in range(300):
                    writer.write(bytes(size // 300))
                    await writer.drain()

            task = asyncio.create_task(pump())
            await asyncio.sleep(0.1)
            assert not task.done()
            release.set()
            await task
            assert await received == size
            writer.close()
            await writer.wait_closed()
        await settle()

    run(main())


def test_wrong_data(loop, run, tls):
    async def main():
        async with tls_pair(tls, server_factory=Echo) as (client, _):
            with pytest.raises(
                TypeError, match="expecting a bytes-like instance, got str"
            ):
                client.transport.write("text")
            if not is_stock(loop):  # which closes the connection, and says nothing
                with pytest.raises(TypeError, match=r"item 1: .* str found"):
                    client.transport.writelines([b"x", "text"])
            client.transport.write(b"fine")
            assert await client.received(4) == b"fine"

    run(main())


def test_buffers_of_other_kinds(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.writelines([bytearray(b"ab"), memoryview(b"cd"), b"ef"])
            assert await server.received(6) == b"abcdef"
            client.transport.write(memoryview(array.array("I", [0x61616161])))
            assert await server.received(10) == b"abcdefaaaa"

    run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [40_000, 100_000, 300_000])
def test_what_waits_encrypted_counts(loop, run, tls, kind, size):
    """However much of it is encrypted at a time."""
    data = kind(size)

    async def main():
        async with tls_pair(tls) as (client, server):
            server.transport.pause_reading()
            shrink(
                client.transport.get_extra_info("socket"),
                server.transport.get_extra_info("socket"),
                size=32 * 1024,
            )
            for transport in (client.transport, server.transport):
                transport.set_write_buffer_limits(high=64 * 1024)
            for _ in range(7):
                client.transport.write(data)
            await client.until(lambda: "pause" in client.events)
            assert client.transport.get_write_buffer_size() > 64 * 1024
            server.transport.resume_reading()
            assert len(await server.received(7 * size)) == 7 * size
            await client.until(lambda: "resume" in client.events)
            assert client.transport.get_write_buffer_size() == 0

    run(main())


def test_resumes_behind_close(loop, run, tls):
    """What waits for resume_writing() goes on when all has left."""

    async def main():
        async with tls_pair(tls) as (client, server):
            server.transport.pause_reading()
            client.transport.set_write_buffer_limits(high=64 * 1024)
            data = bytes(1_000_000)
            while "pause" not in client.events:
                client.transport.write(data)
                await asyncio.sleep(0)
            client.transport.close()
            server.transport.resume_reading()
            await client.until(lambda: "resume" in client.events)
            assert await client.lost is None
            assert client.events[-3:] == ["resume", "eof", "lost"]

    run(main())


def test_close_sends_what_was_written(loop, run, tls):
    data = pattern(3_000_000)

    async def main():
        async with tls_pair(tls) as (client, server):
            client.transport.write(data)
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert digest(server.data) == digest(data)
            assert server.events[-2:] == ["eof", "lost"]
            assert client.events.count("lost") == 1

    run(main())


def test_sendfile(loop, run, tls, tmp_path):
    data = pattern(2_000_000)
    (tmp_path / "file").write_bytes(data)

    async def main():
        async with tls_pair(tls) as (client, server):
            with open(tmp_path / "file", "rb") as file:
                assert await loop.sendfile(client.transport, file) == len(data)
                assert file.tell() == len(data)
            assert await loop.sendfile(client.transport, io.BytesIO(b"end")) == 3
            assert digest(await server.received(len(data) + 3)) == digest(data + b"end")
            with open(tmp_path / "file", "rb") as file:
                with pytest.raises(
                    RuntimeError,
                    match="fallback is disabled and native sendfile is not supported",
                ):
                    await loop.sendfile(client.transport, file, fallback=False)

    run(main())
