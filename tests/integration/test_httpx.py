"""httpx over anyio: pools, streams, time-outs, HTTP/2's absence, TLS, proxies of tests."""

import asyncio
import contextlib

import httpx
import pytest
import uvicorn

from .asgiapp import app


@contextlib.asynccontextmanager
async def serve(tls=None, tmp_path=None):
    options = {}
    if tls is not None:
        key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
        tls.certificate.private_key_pem.write_to_path(key)
        tls.certificate.cert_chain_pems[0].write_to_path(chain)
        options = {"ssl_keyfile": str(key), "ssl_certfile": str(chain)}
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", **options
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http{'s' if tls else ''}://localhost:{port}"
    server.should_exit = True
    await task


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_many_at_once(run, tls, tmp_path, secure):
    async def main():
        async with serve(tls if secure else None, tmp_path) as url:
            limits = httpx.Limits(max_connections=10)
            async with httpx.AsyncClient(
                base_url=url, limits=limits, verify=tls.client
            ) as client:
                answers = await asyncio.gather(*(client.get("/") for _ in range(100)))
                assert {answer.text for answer in answers} == {"hello"}
                body = bytes(range(256)) * 8000
                answer = await client.post("/echo", content=body)
                assert answer.content == body

    run(main())


def test_streams(run):
    async def upload():
        for _ in range(50):
            yield b"z" * 40_000
            await asyncio.sleep(0)

    async def main():
        async with serve() as url, httpx.AsyncClient(base_url=url) as client:
            size = 0
            async with client.stream("POST", "/echo", content=upload()) as answer:
                async for part in answer.aiter_bytes():
                    size += len(part)
            assert size == 50 * 40_000
            # One that is left in the middle does not harm the pool.
            async with client.stream("GET", "/chunks/1000/65536") as answer:
                async for _ in answer.aiter_bytes():
                    break
            assert (await client.get("/")).text == "hello"

    run(main())


def test_timeouts_and_cancellation(run):
    async def main():
        async with serve() as url, httpx.AsyncClient(base_url=url) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/slow/1", timeout=0.05)
            task = asyncio.create_task(client.get("/slow/1"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            limits = httpx.Limits(max_connections=1)
            async with httpx.AsyncClient(base_url=url, limits=limits) as one:
                task = asyncio.create_task(one.get("/slow/1"))
                await asyncio.sleep(0.02)
                with pytest.raises(httpx.PoolTimeout):
                    await one.get("/", timeout=httpx.Timeout(5, pool=0.02))
                assert (await task).text == "slow but sure"

    run(main())


def test_errors(run, tls, tmp_path):
    async def main():
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")
            async with serve(tls, tmp_path) as url:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY"):
                    await client.get(url)

    run(main())
