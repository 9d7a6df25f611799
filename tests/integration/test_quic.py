"""aioquic: QUIC on datagram endpoints, many streams of one connection."""

import asyncio

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration


def configurations(tls, tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    tls.certificate.private_key_pem.write_to_path(key)
    tls.certificate.cert_chain_pems[0].write_to_path(chain)
    authority = tmp_path / "authority.pem"
    tls.authority.cert_pem.write_to_path(authority)
    server = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    server.load_cert_chain(chain, key)
    client = QuicConfiguration(is_client=True, alpn_protocols=["echo"])
    client.load_verify_locations(str(authority))
    return server, client


def test_echo(run, tls, tmp_path):
    server_configuration, client_configuration = configurations(tls, tmp_path)

    def handle(reader, writer):
        async def echo():
            writer.write(await reader.read())
            writer.write_eof()

        tasks.append(asyncio.ensure_future(echo()))

    tasks = []

    async def main():
        server = await serve(
            "127.0.0.1",
            0,
            configuration=server_configuration,
            stream_handler=handle,
        )
        port = server._transport.get_extra_info("sockname")[1]
        async with connect(
            "127.0.0.1", port, configuration=client_configuration
        ) as client:

            async def one(size):
                reader, writer = await client.create_stream()
                writer.write(b"q" * size)
                writer.write_eof()
                assert await reader.read() == b"q" * size

            await client.ping()
            await asyncio.gather(*(one(size) for size in (1, 1000, 300_000, 7, 50_000)))
        server.close()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)

    run(main())
