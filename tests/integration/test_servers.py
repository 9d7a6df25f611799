"""hypercorn and gunicorn as programs: workers, signals with requests in flight."""

import asyncio
import signal

import pytest

from .support import request

GET = "GET {} HTTP/1.1\nHost: x\nConnection: close\n"


def hypercorn(program, *options):
    return program(
        "-m", "hypercorn", "--bind", "127.0.0.1:0", "--access-logfile", "-",
        "--graceful-timeout", "30", *options, "integration.asgiapp:app",
    )  # fmt: skip


def gunicorn(program, *options):
    return program(
        "-m", "gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket",
        "--graceful-timeout", "30", "--worker-tmp-dir", "/dev/shm",
        *options, "integration.asgiapp:app",
    )  # fmt: skip


async def in_flight(server, port, count=10):
    """Requests that a server is working on."""
    tasks = [
        asyncio.create_task(request(port, GET.format("/slow/0.5")))
        for _ in range(count)
    ]
    await asyncio.to_thread(server.until, "slow begins", count)
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
    worker = "uvicorn_worker.UvicornWorker"
    server = gunicorn(program, "--workers", str(count), "--worker-class", worker)
    port = server.port()
    server.until("Application startup complete", count)

    async def main():
        await check_requests(port, loop_name)
        tasks = await in_flight(server, port)
        server.signal(signal.SIGHUP)  # new workers; the old ones finish
        await check_answers(tasks)
        await asyncio.to_thread(server.until, "Application startup complete", 2 * count)
        await check_requests(port, loop_name)
        tasks = await in_flight(server, port, 20)
        server.signal(signal.SIGTERM)
        await check_answers(tasks[10:])

    run(main())
    server.wait(returncode=0)
