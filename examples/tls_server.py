"""A TLS server whose clients show a certificate, too; made for the example by trustme.

pip install trustme
python examples/tls_server.py
"""

import asyncio
import ssl

import trustme

import fastloop


def contexts():
    """Return what server and client need; a real one loads files instead."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context()
    authority.issue_cert("alice@example.org").configure_cert(client)
    authority.configure_trust(client)
    return server, client


async def greet(reader, writer):
    try:
        certificate = writer.get_extra_info("peercert")
        ((_, name),) = certificate["subjectAltName"]
        line = await reader.readline()
        writer.write(f"{name} said {line.decode().strip()}\n".encode())
        await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


async def main():
    server_context, client_context = contexts()
    greeted = asyncio.Event()

    async def serve(reader, writer):
        await greet(reader, writer)
        greeted.set()

    server = await asyncio.start_server(
        serve, "127.0.0.1", 0, ssl=server_context, ssl_handshake_timeout=5
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
        )
        print(writer.get_extra_info("cipher")[1])
        writer.write(b"hello\n")
        print((await reader.readline()).decode().strip())
        writer.close()
        await writer.wait_closed()
        await greeted.wait()


if __name__ == "__main__":
    fastloop.run(main())
