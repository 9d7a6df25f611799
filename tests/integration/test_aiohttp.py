"""aiohttp: client and server, websockets, streams both ways, TLS, cancellation."""

import asyncio
import contextlib
import io
import signal
import socket

import aiohttp
import pytest
from aiohttp import web


@pytest.fixture(autouse=True)
def resolver(monkeypatch):
    """Names are loop.getaddrinfo()'s; c-ares has a test of its own."""
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", aiohttp.ThreadedResolver)


@contextlib.asynccontextmanager
async def serve(routes, **kwargs):
    """Run an application on the running loop; yields its port."""
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(routes)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, **kwargs)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def echo(request):
    """Stream the body back as it comes."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    async for chunk in request.content.iter_any():
        await answer.write(chunk)
    await answer.write_eof()
    return answer


async def hello(request):
    return web.Response(text="hello " + request.match_info.get("name", "you"))


def test_many_requests_on_few_connections(run):
    async def main():
        async with serve([web.get("/{name}", hello)]) as port:
            connector = aiohttp.TCPConnector(limit=4)
            async with aiohttp.ClientSession(connector=connector) as session:

                async def one(number):
                    url = f"http://127.0.0.1:{port}/{number}"
                    async with session.get(url) as answer:
                        assert await answer.text() == f"hello {number}"

                await asyncio.gather(*(one(number) for number in range(200)))
                assert len(connector._conns) == 1  # one host
                assert sum(map(len, connector._conns.values())) <= 4

    run(main())


@pytest.mark.parametrize("size", [0, 1, 70_000, 8 << 20])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_streaming_upload_and_download(run, tls, size, secure):
    async def body():
        for start in range(0, size, 50_000):
            yield bytes([start % 251]) * min(50_000, size - start)

    async def main():
        kwargs = {"ssl_context": tls.server} if secure else {}
        async with serve([web.post("/", echo)], **kwargs) as port:
            url = f"http{'s' * secure}://localhost:{port}/"
            connector = aiohttp.TCPConnector(ssl=tls.client)
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.post(url, data=body()) as answer:
                    got = await answer.read()
        expected = b"".join([chunk async for chunk in body()])
        assert got == expected

    run(main())


def test_file_upload_and_static_file(run, tmp_path):
    """A static file goes through loop.sendfile()."""
    content = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(content)
    got = []

    async def upload(request):
        async for part in await request.multipart():
            got.append(await part.read())
        return web.Response()

    async def main():
        routes = [web.post("/", upload), web.static("/files", tmp_path)]
        async with serve(routes) as port, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/"
            form = aiohttp.FormData({"name": "value"})
            form.add_field("file", (tmp_path / "file").open("rb"), filename="x")
            async with session.post(url, data=form) as answer:
                assert answer.status == 200
            assert got == [b"value", content]
            async with session.get(url + "files/file") as answer:
                assert await answer.read() == content
            headers = {"Range": "bytes=1000-1999"}
            async with session.get(url + "files/file", headers=headers) as answer:
                assert (answer.status, await answer.read()) == (
                    206,
                    content[1000:2000],
                )

    run(main())


def test_websockets(run):
    left = []

    async def handler(request):
        ws = web.WebSocketResponse(heartbeat=5)
        await ws.prepare(request)
        try:
            async for message in ws:
                if message.type == aiohttp.WSMsgType.TEXT:
                    await ws.send_str(message.data)
                else:
                    await ws.send_bytes(message.data)
        finally:
            left.append(ws.close_code)
        return ws

    async def one(session, url):
        async with session.ws_connect(url, compress=15) as ws:
            for number in range(50):
                await ws.send_str(f"message {number}")
                assert await ws.receive_str() == f"message {number}"
            await ws.send_bytes(b"\0" * 500_000)
            assert await ws.receive_bytes() == b"\0" * 500_000

    async def main():
        async with serve([web.get("/", handler)]) as port:
            async with aiohttp.ClientSession() as session:
                url = f"ws://127.0.0.1:{port}/"
                await asyncio.gather(*(one(session, url) for _ in range(10)))
                # A client that is gone without a word.
                ws = await session.ws_connect(url)
                ws._response.connection.transport.abort()
                await ws.close()
            while len(left) < 11:
                await asyncio.sleep(0.001)
        assert left[:10] == [1000] * 10
        assert left[10] != 1000

    run(main())


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_websockets_that_the_server_closes(run, tls, secure):
    joined = set()

    async def handler(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        joined.add(ws)
        async for message in ws:
            await ws.send_str(message.data.upper())
        return ws

    async def main():
        kwargs = {"ssl_context": tls.server} if secure else {}
        async with serve([web.get("/", handler)], **kwargs) as port:
            connector = aiohttp.TCPConnector(ssl=tls.client)
            async with aiohttp.ClientSession(connector=connector) as session:
                url = f"ws{'s' * secure}://localhost:{port}/"
                clients = [await session.ws_connect(url) for _ in range(10)]
                for ws in clients:
                    await ws.send_str("loud")
                    assert await ws.receive_str() == "LOUD"
                with pytest.raises(asyncio.TimeoutError):
                    await clients[0].receive(timeout=0.02)
                await asyncio.gather(
                    *(ws.close(code=1012, message=b"gone") for ws in joined)
                )
                for ws in clients[1:]:
                    message = await ws.receive()
                    assert message.type == aiohttp.WSMsgType.CLOSE
                    assert (message.data, message.extra) == (1012, "gone")
                # It has not heard of the end: left alone, it would be an unclosed one,
                # on both loops, as soon as the collector comes.
                await clients[0].close()

    run(main())


@contextlib.asynccontextmanager
async def proxy(ssl=None):
    """A proxy that knows CONNECT; yields its port and the targets that were asked for."""
    targets = []

    async def forward(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        assert method == "CONNECT"
        targets.append(target)
        back, out = await asyncio.open_connection(*target.rsplit(":", 1))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(forward(reader, out), forward(back, writer))
        for end in (writer, out):
            with contextlib.suppress(OSError):
                await end.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=ssl)
    async with server:
        yield server.sockets[0].getsockname()[1], targets


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_tls_through_a_proxy(run, tls, secure):
    """start_tls() on a transport that was in use, or TLS within TLS."""
    body = bytes(range(256)) * 8000

    async def main():
        async with (
            serve([web.post("/", echo)], ssl_context=tls.server) as port,
            proxy(tls.server if secure else None) as (proxy_port, targets),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls.client)
            ) as session,
        ):

            async def one():
                async with session.post(
                    f"https://localhost:{port}/",
                    data=io.BytesIO(body),
                    proxy=f"http{'s' * secure}://localhost:{proxy_port}",
                ) as answer:
                    assert await answer.read() == body

            await asyncio.gather(*(one() for _ in range(8)))
            assert set(targets) == {f"localhost:{port}"}

    run(main())


def test_client_that_leaves_cancels_the_handler(run):
    async def main():
        entered, cancelled = asyncio.Event(), asyncio.Event()

        async def handler(request):
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with serve([web.get("/", handler)]) as port:
            async with aiohttp.ClientSession() as session:
                task = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/"))
                await entered.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await cancelled.wait()

    run(main())


def test_timeouts(run):
    async def slow(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"x")
        await asyncio.Event().wait()

    async def main():
        async with serve([web.get("/", slow)]) as port:
            url = f"http://127.0.0.1:{port}/"
            for timeout in (
                aiohttp.ClientTimeout(total=0.05),
                aiohttp.ClientTimeout(sock_read=0.05),
            ):
                async with aiohttp.ClientSession(timeout=timeout) as session:
                    with pytest.raises(asyncio.TimeoutError):
                        async with session.get(url) as answer:
                            await answer.read()

    run(main())


def test_connection_errors(run, monkeypatch, unused_port=1):
    def nobody_knows(host, *args, **kwargs):
        """Whoever asks a name server may wait for it."""
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *args, **kwargs)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)

    async def main():
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(f"http://127.0.0.1:{unused_port}/")
            assert isinstance(caught.value, ConnectionRefusedError | OSError)
            assert caught.value.errno == 111
            with pytest.raises(aiohttp.ClientConnectorDNSError):
                await session.get("http://no-such-host.invalid/")

        async def rude(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            await writer.drain()
            writer.transport.abort()

        server = await asyncio.start_server(rude, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/") as answer:
                        await answer.read()

    run(main())


def test_tls_of_a_stranger_is_refused(run, tls):
    async def main():
        async with serve([web.get("/", hello)], ssl_context=tls.server) as port:
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(f"https://localhost:{port}/")

    run(main())


def test_keep_alive_ends(run):
    async def main():
        app = web.Application()
        app.add_routes([web.get("/", hello)])
        runner = web.AppRunner(app, keepalive_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert (await reader.read()).count(b"hello you") == 3
        writer.close()
        await writer.wait_closed()
        await runner.cleanup()

    run(main())


def test_run_app_ends_on_sigterm(run_script):
    done = run_script(
        """
        import os, signal
        from aiohttp import web

        async def started(app):
            async def kill():
                os.kill(os.getpid(), signal.SIGTERM)
            app["task"] = asyncio.create_task(kill())

        async def ended(app):
            print("cleaned up", type(asyncio.get_running_loop()).__module__)

        app = web.Application()
        app.on_startup.append(started)
        app.on_cleanup.append(ended)
        loop = new_event_loop()
        web.run_app(app, host="127.0.0.1", port=0, loop=loop, print=None)
        print("closed", loop.is_closed())
        """,
        env={"PYTHONWARNINGS": "ignore"},
    )
    assert done.stdout.startswith("cleaned up")
    assert done.stdout.endswith("closed True\n")


def test_run_app_finishes_requests_in_flight(run, program):
    server = program("-m", "integration.aiohttpapp")
    port = server.port(r"listens on (\d+)")

    async def main():
        async def ask(session):
            async with session.get("/slow") as answer:
                return await answer.text()

        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(url) as session:
            tasks = [asyncio.create_task(ask(session)) for _ in range(10)]
            await asyncio.to_thread(server.until, "slow begins", 10)
            server.signal(signal.SIGTERM)
            assert await asyncio.gather(*tasks) == ["slow but sure"] * 10
        async with aiohttp.ClientSession(
            url
        ) as session:  # with no connection kept alive
            with pytest.raises(aiohttp.ClientConnectorError):
                await ask(session)

    run(main())
    server.wait()
    assert "cleaned up" in server.output


def test_unix_socket(run, tmp_path):
    async def main():
        app = web.Application()
        app.add_routes([web.get("/", hello)])
        runner = web.AppRunner(app)
        await runner.setup()
        path = str(tmp_path / "sock")
        await web.UnixSite(runner, path).start()
        connector = aiohttp.UnixConnector(path)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get("http://localhost/") as answer:
                assert await answer.text() == "hello you"
        await runner.cleanup()

    run(main())
