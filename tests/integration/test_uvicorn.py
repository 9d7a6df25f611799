"""uvicorn: both HTTP parsers, websockets, workers, and an end that drops nobody."""

import asyncio
import contextlib
import os
import signal
import ssl
import sys

import pytest
import uvicorn
import websockets

from .asgiapp import app
from .support import parse, request

HTTP = ["h11", "httptools"]

WEBSOCKETS = ["websockets-sansio", "wsproto"]


@contextlib.asynccontextmanager
async def serve(**options):
    """Run uvicorn on the running loop; yields (server, port)."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", **options
    )
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server.capture_signals())
        task = asyncio.create_task(server._serve())
        while not server.started:
            assert not task.done() or task.result()
            await asyncio.sleep(0.001)
        try:
            yield server, server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            await task


GET = "GET {} HTTP/1.1\nHost: x\nConnection: close\n"


@pytest.mark.parametrize("http", HTTP)
def test_requests(run, http):
    async def main():
        async with serve(http=http) as (_, port):
            answers = await asyncio.gather(
                *(request(port, GET.format("/hello")) for _ in range(50))
            )
            assert {(status, body) for status, _, body in answers} == {(200, b"hello")}
            assert (await request(port, GET.format("/thread")))[2] == b"from a thread"
            assert (await request(port, GET.format("/raise")))[0] == 500

    run(main())


@pytest.mark.parametrize("http", HTTP)
def test_keep_alive_and_pipelining(run, http):
    async def main():
        async with serve(http=http) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            seen = b""
            while seen.count(b"hello") < 20:
                seen += await reader.read(65536)
            writer.write(GET.format("/chunks/3/5").replace("\n", "\r\n").encode())
            writer.write(b"\r\n")
            _, headers, body = parse(await reader.read())
            assert headers["transfer-encoding"] == "chunked"
            assert body == b"x" * 15
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("http", HTTP)
def test_upload_and_download_with_flow_control(run, http):
    size = 8 << 20

    async def main():
        async with serve(http=http) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /echo HTTP/1.0\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"

            async def upload():
                writer.write(head.encode())
                for _ in range(size >> 16):
                    writer.write(b"y" * 65536)
                    await writer.drain()

            task = asyncio.create_task(upload())
            status, _, body = parse(await reader.read())
            await task
            assert (status, len(body), body.strip(b"y")) == (200, size, b"")
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("http", HTTP)
def test_client_that_leaves(run, http, capsys):
    async def main():
        async with serve(http=http) as (server, port):
            for path in ("/disconnect", "/chunks/4000/65536", "/slow/0.05"):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await writer.drain()
                while not server.server_state.tasks:  # it is on its way
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)
                writer.transport.abort()
                while server.server_state.tasks:
                    await asyncio.sleep(0.001)
            while server.server_state.tasks or server.server_state.connections:
                await asyncio.sleep(0.001)
            assert (await request(port, GET.format("/")))[2] == b"hello"

    run(main())
    assert "the client went" in capsys.readouterr().out


def test_keep_alive_timeout(run):
    async def main():
        async with serve(timeout_keep_alive=0) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read()).endswith(b"hello")  # the server closes
            writer.close()
            await writer.wait_closed()

    run(main())


def test_tls(run, tls, tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    tls.certificate.private_key_pem.write_to_path(key)
    tls.certificate.cert_chain_pems[0].write_to_path(chain)

    async def main():
        async with serve(ssl_keyfile=str(key), ssl_certfile=str(chain)) as (_, port):
            for _ in range(5):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=tls.client, server_hostname="localhost"
                )
                writer.write(b"GET /chunks/64/65536 HTTP/1.0\r\nHost: x\r\n\r\n")
                _, _, body = parse(await reader.read())
                assert len(body) == 64 * 65536
                writer.close()
                with contextlib.suppress(ssl.SSLError):
                    await writer.wait_closed()

    run(main())


def test_unix_socket(run, tmp_path):
    path = str(tmp_path / "sock")

    async def main():
        config = uvicorn.Config(app, uds=path, log_level="critical")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        await writer.wait_closed()
        server.should_exit = True
        await task

    run(main())


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_websocket(run, ws, capsys):
    async def one(port, number):
        async with websockets.connect(f"ws://127.0.0.1:{port}/") as client:
            for text in ("hello", b"\x00" * 300_000, f"number {number}"):
                await client.send(text)
                assert await client.recv() == text
            await client.ping()

    async def main():
        async with serve(ws=ws) as (_, port):
            await asyncio.gather(*(one(port, number) for number in range(10)))
            await request(port, GET.format("/"))

    run(main())
    assert capsys.readouterr().out.count("websocket left with 1000") == 10


def options_of(loop_name):
    loop = "asyncio" if loop_name == "asyncio" else "fastloop:new_event_loop"
    return ["--port", "0", "--loop", loop, "--no-access-log"]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("http", HTTP)
def test_graceful_end_with_requests_in_flight(run, loop_name, program, http, sig):
    server = program(
        "-m", "uvicorn", "integration.asgiapp:app", "--http", http, *options_of(loop_name),
        redirect=False,
    )  # fmt: skip
    port = server.port()

    async def main():
        before = await request(port, GET.format("/loop"))
        assert before[2].startswith(loop_name.encode())
        tasks = [
            asyncio.create_task(request(port, GET.format("/slow/0.5")))
            for _ in range(20)
        ]
        await asyncio.to_thread(server.until, "slow begins", 20)
        server.signal(sig)
        answers = await asyncio.gather(*tasks)
        assert {(status, body) for status, _, body in answers} == {
            (200, b"slow but sure")
        }
        with pytest.raises(OSError):
            await request(port, GET.format("/"))

    run(main())
    # uvicorn raises the signal again once it is done.
    output = server.wait(returncode=-sig if sig == signal.SIGTERM else 0)
    assert "lifespan ends" in output
    assert "Finished server process" in output


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_end_with_websockets_open(run, loop_name, program, ws):
    """They are told to come again: code 1012."""
    server = program(
        "-m", "uvicorn", "integration.asgiapp:app", "--ws", ws, *options_of(loop_name),
        redirect=False,
    )  # fmt: skip
    port = server.port()

    async def one(ready):
        async with websockets.connect(f"ws://127.0.0.1:{port}/") as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            ready.release()
            with pytest.raises(websockets.ConnectionClosed) as caught:
                await client.recv()
            return caught.value.rcvd.code

    async def main():
        ready = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(one(ready)) for _ in range(10)]
        for _ in tasks:
            await ready.acquire()
        server.signal(signal.SIGTERM)
        assert await asyncio.gather(*tasks) == [1012] * 10

    run(main())
    output = server.wait(returncode=-signal.SIGTERM)
    assert output.count("websocket left with 1012") == 10


def test_second_signal_ends_at_once(run, loop_name, program):
    server = program(
        "-m",
        "uvicorn",
        "integration.asgiapp:app",
        *options_of(loop_name),
        redirect=False,
    )
    port = server.port()

    async def main():
        task = asyncio.create_task(request(port, GET.format("/slow/3600")))
        await asyncio.to_thread(server.until, "slow begins")
        server.signal(signal.SIGINT)
        await asyncio.to_thread(server.until, "CTRL\\+C to force quit")
        server.signal(signal.SIGINT)
        if sys.version_info >= (3, 12):
            # uvicorn gives the connection up, wait_closed() of its server does not.
            task.cancel()
        with contextlib.suppress(OSError, IndexError, asyncio.CancelledError):
            await task

    run(main())
    server.wait(returncode=0)


def test_two_workers(run, loop_name, program):
    server = program(
        "-m", "uvicorn", "integration.asgiapp:app", "--workers", "2", *options_of(loop_name),
        redirect=False,
    )  # fmt: skip
    port = server.port()
    server.until("Application startup complete", 2)

    async def main():
        seen = set()
        for _ in range(50):
            answers = await asyncio.gather(
                *(request(port, GET.format("/loop")) for _ in range(20))
            )
            for _, _, body in answers:
                name, pid = body.decode().split()
                assert name == loop_name
                seen.add(int(pid))
            if len(seen) == 2:
                break
        assert len(seen) == 2
        assert os.getpid() not in seen

        # A worker that dies is replaced, and the others go on.
        os.kill(seen.pop(), signal.SIGKILL)
        await asyncio.to_thread(server.until, "Application startup complete", 3)
        tasks = [
            asyncio.create_task(request(port, GET.format("/slow/0.5")))
            for _ in range(6)
        ]
        await asyncio.to_thread(server.until, "slow begins", 6)
        server.signal(signal.SIGTERM)
        assert [body for _, _, body in await asyncio.gather(*tasks)] == [
            b"slow but sure"
        ] * 6

    run(main())
    output = server.wait()
    assert output.count("lifespan ends") == 2
