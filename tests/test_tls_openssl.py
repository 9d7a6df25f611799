"""TLS connections with the openssl program and with asyncio in another process."""

import asyncio
import contextlib
import re
import shutil
import ssl
import subprocess

import pytest
from conftest import script_command
from iosupport import Echo, Recorder, digest, in_thread, pattern, settle
from tlssupport import Certificates, Servants

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")


@pytest.fixture(scope="module")
def tls():
    return Certificates()


@pytest.fixture
def files(tls, tmp_path):
    """Paths of (the authority's certificate, the server's certificate and key)."""
    authority, server = tmp_path / "authority.pem", tmp_path / "server.pem"
    tls.authority.cert_pem.write_to_path(authority)
    server.write_bytes(tls.certificate.private_key_and_cert_chain_pem.bytes())
    return authority, server


@contextlib.contextmanager
def openssl(*arguments):
    with subprocess.Popen(
        ["openssl", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def served(tls, cls=Echo, context=None):
    """A server for one client: (address, protocols)."""
    servants = Servants()
    async with await asyncio.get_running_loop().create_server(
        servants.factory(cls), "127.0.0.1", 0, ssl=context or tls.server
    ) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", servants
    await settle()


def until(stream, wanted):
    """Read lines until wanted (a pattern) matches what came; returns it."""
    text = b""
    while not (found := re.search(wanted, text)):
        piece = stream.read1(10_000)
        assert piece, text
        text += piece
    return found


def start_s_server(files, *options):
    # It prints the address that it got.
    return openssl(
        "s_server",
        *("-accept", "127.0.0.1:0", "-cert", files[1], "-key", files[1]),
        *options,
    )


def type_in(process, command):
    """Give s_client or s_server a command, a line of its own."""
    process.stdin.write(command + b"\n")
    process.stdin.flush()


@contextlib.asynccontextmanager
async def connected(loop, tls, files, *options):
    """A connection to an s_server: (transport, process)."""
    with start_s_server(files, *options) as server:
        found = await in_thread(until, server.stdout, rb"ACCEPT 127\.0\.0\.1:(\d+)")
        transport, _ = await loop.create_connection(
            Recorder,
            "127.0.0.1",
            int(found[1]),
            ssl=tls.client,
            server_hostname="localhost",
        )
        yield transport, server


VERSIONS = {"-tls1_2": ssl.TLSVersion.TLSv1_2, "-tls1_3": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize("version", VERSIONS)
def test_s_client(loop, run, tls, files, version):
    async def main():
        async with served(tls) as (address, servants):
            with openssl(
                *("s_client", "-connect", address, "-CAfile", files[0], version),
                *("-verify_return_error", "-servername", "localhost", "-quiet"),
            ) as client:
                client.stdin.write(b"through s_client\n")
                client.stdin.flush()
                await in_thread(until, client.stdout, rb"through s_client\n")
                servants[0].transport.close()
                await in_thread(client.wait)
            await servants[0].lost

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_s_server(loop, run, tls, files, version):
    async def main():
        with start_s_server(files, version, "-rev") as server:
            port = int(
                (await in_thread(until, server.stdout, rb"ACCEPT 127\.0\.0\.1:(\d+)"))[
                    1
                ]
            )
            transport, protocol = await loop.create_connection(
                Recorder,
                "127.0.0.1",
                port,
                ssl=tls.client,
                server_hostname="localhost",
            )
            transport.write(b"drawer\n" * 3)
            assert await protocol.received(21) == b"reward\n" * 3
            assert transport.get_extra_info("ssl_object").version() == VERSIONS[
                version
            ].name.replace("_", ".")
            transport.close()
            assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("command", [b"k", b"K"])
def test_key_update(loop, run, tls, files, command):
    """With and without a request for ours."""

    async def main():
        async with served(tls) as (address, servants):
            with openssl(
                *("s_client", "-connect", address, "-CAfile", files[0], "-tls1_3"),
                *("-servername", "localhost"),
            ) as client:
                for number in range(5):
                    line = b"line %d\n" % number
                    client.stdin.write(line)
                    client.stdin.flush()
                    await in_thread(until, client.stdout, line)
                    client.stdin.write(command + b"\n")
                    client.stdin.flush()
                    await in_thread(until, client.stdout, b"KEYUPDATE")
                client.stdin.write(b"Q\n")
                client.stdin.flush()
                await servants[0].lost
            assert servants[0].events[-2:] == ["eof", "lost"]

    run(main())


def test_renegotiation_is_refused(loop, run, tls, files):
    async def main():
        async with served(tls) as (address, servants):
            with openssl(
                *("s_client", "-connect", address, "-CAfile", files[0], "-tls1_2"),
                *("-servername", "localhost"),
            ) as client:
                client.stdin.write(b"before\n")
                client.stdin.flush()
                await in_thread(until, client.stdout, b"before\n")
                client.stdin.write(b"R\n")
                client.stdin.flush()
                output = await in_thread(client.stdout.read)
                assert b"no renegotiation" in output
                await servants[0].lost

    run(main())


@pytest.mark.parametrize("command", [b"k", b"K"])
def test_key_update_of_a_server(loop, run, tls, files, command):
    async def main():
        async with connected(loop, tls, files, "-tls1_3") as (transport, server):
            for number in range(3):
                type_in(server, command)
                # The answer shows that the command was read, and alone.
                transport.write(b"line %d\n" % number)
                await in_thread(until, server.stdout, b"line %d\n" % number)
            server.stdin.write(b"good bye\n")
            server.stdin.flush()
            protocol = transport.get_protocol()
            assert await protocol.received(9) == b"good bye\n"
            transport.close()
            await protocol.lost

    run(main())


def test_renegotiation_with_a_server(loop, run, tls, files):
    """The server asks for it in the midst of data."""

    async def main():
        async with connected(loop, tls, files, "-tls1_2") as (transport, server):
            protocol = transport.get_protocol()
            transport.write(b"before\n")
            await in_thread(until, server.stdout, b"before\n")
            type_in(server, b"r")
            transport.write(b"after\n" * 2000)
            await in_thread(until, server.stdout, b"(after\n){2000}")
            server.stdin.write(b"good bye\n")
            server.stdin.flush()
            assert await protocol.received(9) == b"good bye\n"
            transport.close()
            await protocol.lost

    run(main())


def test_renegotiation_that_is_allowed(loop, run, tls, files):
    context = tls.server_context()
    context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    context.options &= ~ssl.OP_NO_RENEGOTIATION

    async def main():
        async with served(tls, context=context) as (address, servants):
            with openssl(
                *("s_client", "-connect", address, "-CAfile", files[0], "-tls1_2"),
                *("-servername", "localhost"),
            ) as client:
                client.stdin.write(b"before\n")
                client.stdin.flush()
                await in_thread(until, client.stdout, b"before\n")
                type_in(client, b"R")
                await in_thread(until, client.stdout, b"RENEGOTIATING")
                client.stdin.write(b"after\n")
                client.stdin.flush()
                await in_thread(until, client.stdout, b"after\n")
                type_in(client, b"Q")
                await servants[0].lost
            assert servants[0].events[-1] == "lost"

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_resumption(loop, run, tls, files, version, tmp_path):
    async def main():
        async with served(tls) as (address, servants):
            for option, wanted in (("-sess_out", b"New"), ("-sess_in", b"Reused")):
                with openssl(
                    *("s_client", "-connect", address, "-CAfile", files[0], version),
                    *("-servername", "localhost", option, tmp_path / "session"),
                ) as client:
                    client.stdin.write(b"hello\n")
                    client.stdin.flush()
                    text = await in_thread(until, client.stdout, rb"(?s).*\nhello\n")
                    assert b"\n%s, TLSv1" % wanted in text[0]
                    client.stdin.write(b"Q\n")
                    client.stdin.flush()
                    await in_thread(client.wait)
                await servants[-1].lost
            assert [
                servant.transport.get_extra_info("ssl_object").session_reused
                for servant in servants
            ] == [False, True]

    run(main())


def test_sni_chooses_the_context(loop, run, tls, loop_name):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.authority.issue_cert("other.example").configure_cert(other)
    context = tls.server_context()
    names = []

    def choose(connection, name, _context):
        names.append(name)
        if name == "other.example":
            connection.context = other
        elif name == "unknown.example":
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None

    context.sni_callback = choose

    async def main():
        async with served(tls, context=context) as (address, _servants):
            host, port = address.split(":")
            for name in ("localhost", "other.example"):
                transport, protocol = await loop.create_connection(
                    Recorder, host, int(port), ssl=tls.client, server_hostname=name
                )
                transport.write(b"x")
                await protocol.received(1)
                certificate = transport.get_extra_info("peercert")
                assert ("DNS", name) in certificate["subjectAltName"]
                transport.close()
                await protocol.lost
            with openssl(
                *("s_client", "-connect", address, "-servername", "unknown.example"),
            ) as client:
                output = await in_thread(client.stdout.read)
                assert (b"unrecognized name" in output) is (loop_name == "fastloop")

    run(main())
    assert names == ["localhost", "other.example", "unknown.example"]


def test_the_peer_hears_what_is_wrong(loop, run, tls, files, loop_name):
    """A handshake that fails sends its alert, which asyncio keeps to itself."""
    if loop_name == "asyncio":
        pytest.skip("asyncio sends none")
    context = tls.server_context()
    context.verify_mode = ssl.CERT_REQUIRED

    async def main():
        async with served(tls, context=context) as (address, _servants):
            with openssl(
                *("s_client", "-connect", address, "-CAfile", files[0], "-tls1_2"),
            ) as client:
                output = await in_thread(client.stdout.read)
                assert b"alert handshake failure" in output

    run(main())


SERVER = """
import ssl
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    async def handle(reader, writer):
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(1000)
run(main())
"""


@pytest.mark.parametrize("other", ["asyncio", "fastloop"])
def test_streams_in_another_process(loop, run, tls, files, other):
    data = pattern(3_000_000)

    async def client(port):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls.client, server_hostname="localhost"
        )
        writer.write(data)
        assert digest(await reader.readexactly(len(data))) == digest(data)
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"
        writer.close()
        await writer.wait_closed()

    async def main():
        command, keywords = script_command(SERVER, other, args=[str(files[1])])
        with subprocess.Popen(command, **keywords) as process:
            try:
                port = int(await in_thread(process.stdout.readline))
                await asyncio.gather(*(client(port) for _ in range(3)))
            finally:
                process.kill()

    run(main())
