"""hypercorn and gunicorn as programs: workers, signals with requests in flight."""

import asyncio
import os
import signal

import httpx
import pytest
import websockets
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

from .support import request

GET = "GET {} HTTP/1.1\nHost: x\nConnection: close\n"


def hypercorn(program, *options):
    return program(
        "-m", "hypercorn", "--bind", "127.0.0.1:0", "--access-logfile", "-",
        "--graceful-timeout", "30", *options, "integration.asgiapp:app",
    )  # fmt: skip


def gunicorn(program, *options, app="integration.asgiapp:app"):
    return program(
        "-m", "gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket",
        "--graceful-timeout", "30", "--worker-tmp-dir", "/dev/shm",
        "--asgi-loop", "asyncio",  # else uvloop, where it is installed
        *options, app,
    )  # fmt: skip


async def in_flight(server, port, count=10, path="/slow/0.5"):
    """Requests that a server is working on, each of them."""
    before = server.output.count("slow begins")
    tasks = [asyncio.create_task(request(port, GET.format(path))) for _ in range(count)]
    await asyncio.to_thread(server.until, "slow begins", before + count)
    return tasks


async def check_answers(tasks):
    answers = await asyncio.gather(*tasks)
    assert {(status, body) for status, _, body in answers} == {(200, b"slow but sure")}


async def check_requests(port, loop_name):
    answers = await asyncio.gather(
        *(request(port, GET.format("/chunks/10/5000")) for _ in range(30))
    )
    assert {(status, len(body)) for status, _, body in answers} == {(200, 50_000)}
    answer = await request(port, GET.format("/loop"))
    assert answer[2].startswith(loop_name.encode())
    body = b"b" * 1_000_000
    head = f"POST /echo HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(body)}\n"
    assert (await request(port, head, body))[2] == body


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_hypercorn(run, loop_name, program, workers, sig):
    server = hypercorn(program, "--workers", str(workers))
    port = server.port()

    async def main():
        await check_requests(port, loop_name)
        # With workers of its own it drops requests, on whichever loop.
        tasks = [] if workers else await in_flight(server, port)
        server.signal(sig)
        if tasks:
            await check_answers(tasks)

    run(main())
    server.wait(returncode=0)
    assert "lifespan ends" in server.output


@pytest.mark.parametrize("count", [1, 2])
def test_gunicorn(run, loop_name, program, count):
    worker = "integration.asgiworker.Worker"
    server = gunicorn(program, "--workers", str(count), "--worker-class", worker)
    port = server.port()
    server.until("Application startup complete", count)

    async def main():
        await check_requests(port, loop_name)
        tasks = await in_flight(server, port)
        server.signal(signal.SIGHUP)  # new workers; the old ones finish
        await check_answers(tasks)
        await asyncio.to_thread(server.until, "Application startup complete", 2 * count)
        # One that leaves drops connections of which it has read nothing yet.
        await asyncio.to_thread(server.until, "Finished server process", count)
        await check_requests(port, loop_name)
        tasks = await in_flight(server, port)
        server.signal(signal.SIGTERM)
        await check_answers(tasks)

    run(main())
    server.wait(returncode=0)


@pytest.fixture
def certificate(tls, tmp_path):
    """The options of hypercorn for TLS."""
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    tls.certificate.private_key_pem.write_to_path(key)
    tls.certificate.cert_chain_pems[0].write_to_path(chain)
    return ["--keyfile", str(key), "--certfile", str(chain)]


def test_hypercorn_with_http_2(run, program, certificate, tls):
    """Many streams of one connection, chosen in the handshake."""
    server = hypercorn(program, *certificate, "--graceful-timeout", "1")
    port = server.port()
    body = bytes(range(256)) * 400

    async def main():
        async with httpx.AsyncClient(
            base_url=f"https://localhost:{port}", verify=tls.client, http2=True
        ) as client:
            answers = await asyncio.gather(
                *(client.get("/chunks/5/1000") for _ in range(50)),
                *(client.post("/echo", content=body) for _ in range(5)),
            )
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            assert {answer.text for answer in answers[:50]} == {"x" * 5_000}
            assert {answer.content for answer in answers[50:]} == {body}
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/slow/10", timeout=0.05)
            assert (await client.get("/")).text == "hello"

    run(main())
    server.signal(signal.SIGTERM)
    server.wait()


class Http3(QuicConnectionProtocol):
    """A client that can get."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.bodies, self.done = {}, {}

    def quic_event_received(self, event):
        for part in self.http.handle_event(event):
            stream = part.stream_id
            if isinstance(part, DataReceived):
                self.bodies[stream] += part.data
            elif isinstance(part, HeadersReceived):
                assert dict(part.headers)[b":status"] == b"200"
            if part.stream_ended:
                self.done[stream].set_result(self.bodies[stream])

    async def get(self, path):
        stream = self._quic.get_next_available_stream_id()
        self.bodies[stream] = b""
        self.done[stream] = asyncio.get_running_loop().create_future()
        headers = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path),
        ]
        self.http.send_headers(stream, headers, end_stream=True)
        self.transmit()
        return await self.done[stream]


def test_hypercorn_with_http_3(run, program, certificate, tls, tmp_path):
    server = program(
        "-m", "hypercorn", "--bind", "127.0.0.1:0", "--quic-bind", "127.0.0.1:0",
        "--graceful-timeout", "1",
        *certificate, "integration.asgiapp:app",
    )  # fmt: skip
    port = int(server.until(r"https://127\.0\.0\.1:(\d+) \(QUIC").group(1))
    authority = tmp_path / "authority.pem"
    tls.authority.cert_pem.write_to_path(authority)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"])
    configuration.load_verify_locations(str(authority))

    async def main():
        async with connect(
            "127.0.0.1", port, configuration=configuration, create_protocol=Http3
        ) as client:
            answers = await asyncio.gather(
                *(client.get(b"/chunks/10/5000") for _ in range(20))
            )
            assert set(answers) == {b"x" * 50_000}

    run(main())
    server.signal(signal.SIGTERM)
    server.wait()


def test_hypercorn_with_websockets(run, program):
    server = hypercorn(program)
    port = server.port()

    async def one(number):
        async with websockets.connect(f"ws://127.0.0.1:{port}/") as client:
            for text in ("hello", b"\x00" * 300_000, f"number {number}"):
                await client.send(text)
                assert await client.recv() == text

    async def main():
        await asyncio.gather(*(one(number) for number in range(20)))

    run(main())
    server.signal(signal.SIGTERM)
    server.wait()
    assert server.output.count("websocket left with") == 20


WORKERS = {
    "integration.asgiworker.Worker": ("integration.asgiapp:app", "/slow/0.5"),
    "aiohttp.GunicornWebWorker": ("integration.aiohttpapp:app", "/slow"),
    "asgi": ("integration.asgiapp:app", "/slow/0.5"),
}


@pytest.mark.parametrize("worker", WORKERS)
def test_gunicorn_replaces_workers(run, loop_name, program, worker):
    app, slow = WORKERS[worker]
    server = gunicorn(program, "--workers", "2", "--worker-class", worker, app=app)
    port = server.port()
    server.until("Booting worker", 2)

    async def main():
        name, pid = (await request(port, GET.format("/loop")))[2].decode().split()
        assert name == loop_name
        os.kill(int(pid), signal.SIGKILL)
        await asyncio.to_thread(server.until, "Booting worker", 3)
        answers = await asyncio.gather(
            *(request(port, GET.format("/chunks/10/5000")) for _ in range(30))
        )
        assert {(status, len(body)) for status, _, body in answers} == {(200, 50_000)}
        body = b"b" * 1_000_000
        head = f"POST /echo HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(body)}\n"
        assert (await request(port, head, body))[2] == body
        tasks = await in_flight(server, port, path=slow)
        server.signal(signal.SIGTERM)
        await check_answers(tasks)

    run(main())
    server.wait()
