"""HTTP servers under wrk, and a client; processor time for each request.

What only one row needs is imported there.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from typing import Any

from harness.bench import Bench, MissingError
from harness.peer import echo_peer
from harness.registry import row

from .tcp import KIB, Ready

CONNECTIONS = 32
SECONDS = 1  # of load in one pass
TOGETHER = 10  # requests that a client has under way


def wrk(bench: Bench, *, size: int) -> None:
    """Load a server with GET requests, and count those that were answered."""
    program = shutil.which("wrk")
    if program is None:
        raise MissingError("wrk is not installed")
    assert not isinstance(bench.address, str)
    host, port = bench.address
    url = f"http://{host}:{port}/"
    command = [program, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url]
    done = 0
    for number in bench:
        told = subprocess.check_output(command, text=True)
        if "Non-2xx" in told or "Socket errors" in told:
            raise AssertionError(told)
        found = re.search(r"(\d+) requests in .*, ([\d.]+)([KMG]?)B read", told)
        assert found is not None
        count = int(found[1])
        told_bytes = float(found[2]) * 1024 ** " KMG".index(found[3] or " ")
        if told_bytes * 1.01 < count * size:  # it is rounded
            raise AssertionError("answers were short")
        if number:
            done += count
    bench.check(done)


def listening() -> socket.socket:
    """Return a listening socket whose protocol says TCP.

    asyncio switches Nagle's algorithm off for those alone, and uvicorn answers with two
    writes, of which the second would wait for the client's delayed acknowledgement.
    """
    sock = socket.socket(proto=socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    return sock


async def serve_asgi(app: Any, ready: Ready) -> None:
    """Serve an ASGI application with uvicorn."""
    import uvicorn

    config = uvicorn.Config(
        app, http="httptools", lifespan="off", log_level="warning", access_log=False
    )
    server = uvicorn.Server(config)
    with listening() as sock:
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        ready(sock.getsockname())
        await serving


def asgi(body: bytes) -> Any:
    """Return an application that answers with the body."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % len(body)),
        ],
    }
    rest = {"type": "http.response.body", "body": body}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start)
        await send(rest)

    return app


async def plaintext_server(ready: Ready) -> None:
    """Serve 13 bytes."""
    await serve_asgi(asgi(b"Hello, world!"), ready)


async def body_server(ready: Ready) -> None:
    """Serve 10 KiB."""
    await serve_asgi(asgi(b"x" * 10 * KIB), ready)


async def fastapi_server(ready: Ready) -> None:
    """Serve JSON with FastAPI."""
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/")
    async def index() -> dict[str, str]:
        return {"message": "Hello, world!"}

    await serve_asgi(app, ready)


async def aiohttp_server(ready: Ready) -> None:
    """Serve JSON with aiohttp."""
    from aiohttp import web

    async def index(_request: web.Request) -> web.Response:
        return web.json_response({"message": "Hello, world!"})

    app = web.Application()
    app.router.add_get("/", index)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with listening() as sock:
        await web.SockSite(runner, sock).start()
        ready(sock.getsockname())
        await asyncio.get_running_loop().create_future()


@row(serve=plaintext_server, ops=0, unit="request", passes=1)
def uvicorn(bench: Bench) -> None:
    """uvicorn, plain text."""
    wrk(bench, size=13)


@row(serve=body_server, ops=0, unit="request", passes=1)
def uvicorn_10k(bench: Bench) -> None:
    """uvicorn, a body of 10 KiB."""
    wrk(bench, size=10 * KIB)


@row(serve=fastapi_server, ops=0, unit="request", passes=1)
def fastapi(bench: Bench) -> None:
    """FastAPI on uvicorn, JSON."""
    wrk(bench, size=27)


@row(serve=aiohttp_server, ops=0, unit="request", passes=1)
def aiohttp(bench: Bench) -> None:
    """aiohttp server, JSON."""
    wrk(bench, size=27)


@row(ops=200, unit="request")
async def aiohttp_client(bench: Bench) -> None:
    """aiohttp client, 10 requests at a time."""
    import aiohttp

    body = b"Hello, world!"
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    done = 0

    async def fetch(session: aiohttp.ClientSession, url: str, times: int) -> int:
        good = 0
        for _ in range(times):
            async with session.get(url) as response:
                good += await response.read() == body
        return good

    with echo_peer(reply) as (host, port):
        async with aiohttp.ClientSession() as session:
            url = f"http://{host}:{port}/"
            for _ in bench:
                times = bench.ops // TOGETHER
                fetching = [fetch(session, url, times) for _ in range(TOGETHER)]
                done += sum(await asyncio.gather(*fetching))
    bench.check(done)
