"""FastAPI and Starlette under uvicorn, asked by httpx: threads, streams, background."""

import asyncio
import contextlib
import threading

import fastapi
import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, UploadFile, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.testclient import TestClient


def make_app(notes, folder=None):
    """An application with one of each kind of endpoint."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        notes.append("started")
        yield
        notes.append("ended")

    app = FastAPI(lifespan=lifespan)

    async def with_cleanup():
        notes.append("dependency opened")
        yield "dependency"
        notes.append("dependency closed")

    @app.get("/async")
    async def of_loop():
        return {"thread": threading.current_thread() is threading.main_thread()}

    @app.get("/sync")
    def of_thread():
        return {"thread": threading.current_thread() is threading.main_thread()}

    @app.get("/depends")
    async def depends(value: str = Depends(with_cleanup)):
        return {"value": value}

    @app.get("/background")
    async def background(tasks: BackgroundTasks):
        tasks.add_task(notes.append, "background, sync")

        async def later():
            await asyncio.sleep(0.01)
            notes.append("background, async")

        tasks.add_task(later)
        return {}

    @app.get("/stream/{count}")
    async def stream(count: int):
        async def body():
            try:
                for number in range(count):
                    yield f"{number}\n" * 1000
            finally:
                notes.append("stream closed")

        return StreamingResponse(body())

    @app.get("/file")
    async def file():
        return FileResponse(folder / "file")

    @app.post("/upload")
    async def upload(file: UploadFile):
        return {"size": len(await file.read())}

    @app.get("/threadpool/{number}")
    async def threadpool(number: int):
        return {"square": await run_in_threadpool(lambda: number**2)}

    @app.get("/error")
    async def error():
        raise fastapi.HTTPException(418)

    @app.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())
        notes.append("websocket left")

    return app


@contextlib.asynccontextmanager
async def serve(app):
    """Run app on the running loop; yields a client."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done() or task.result()
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    await task


def test_endpoints(run):
    notes = []

    async def main():
        async with serve(make_app(notes)) as client:
            assert (await client.get("/async")).json() == {"thread": True}
            assert (await client.get("/sync")).json() == {"thread": False}
            assert (await client.get("/depends")).json() == {"value": "dependency"}
            assert (await client.get("/error")).status_code == 418
            squares = await asyncio.gather(
                *(client.get(f"/threadpool/{n}") for n in range(100))
            )
            assert [a.json()["square"] for a in squares] == [n**2 for n in range(100)]
            await asyncio.gather(*(client.get("/sync") for _ in range(100)))

    run(main())
    assert notes == ["started", "dependency opened", "dependency closed", "ended"]


def test_background_tasks_run_after_the_answer(run):
    notes = []

    async def main():
        async with serve(make_app(notes)) as client:
            assert (await client.get("/background")).json() == {}
            while "background, async" not in notes:
                await asyncio.sleep(0.001)

    run(main())
    assert notes[1:3] == ["background, sync", "background, async"]


def test_streams_and_files(run, tmp_path):
    content = bytes(range(256)) * 8000
    (tmp_path / "file").write_bytes(content)
    notes = []

    async def main():
        async with serve(make_app(notes, tmp_path)) as client:
            async with client.stream("GET", "/stream/300") as answer:
                lines = [line async for line in answer.aiter_lines()]
            assert len(lines) == 300_000
            assert (await client.get("/file")).content == content
            answer = await client.post("/upload", files={"file": content})
            assert answer.json() == {"size": len(content)}
            # A client that goes in the middle of a stream.
            async with client.stream("GET", "/stream/1000000") as answer:
                async for _ in answer.aiter_lines():
                    break
            while notes.count("stream closed") < 2:
                await asyncio.sleep(0.001)

    run(main())


def test_test_client(loop_name, loop_factory):
    """Starlette's own client runs the application on a loop in another thread."""
    notes = []
    options = {"loop_factory": loop_factory}
    with TestClient(make_app(notes), backend_options=options) as client:
        for _ in range(20):
            assert client.get("/sync").json() == {"thread": False}
            assert client.get("/threadpool/7").json() == {"square": 49}
        with client.websocket_connect("/ws") as ws:
            ws.send_text("loud")
            assert ws.receive_text() == "LOUD"
    assert notes == ["started", "websocket left", "ended"]


@pytest.mark.parametrize("count", [1, 50])
def test_cancelled_requests(run, count):
    """Clients that give up leave neither tasks nor connections behind."""

    async def main():
        entered = 0
        released = asyncio.Event()
        app = FastAPI()

        @app.get("/")
        async def wait():
            nonlocal entered
            entered += 1
            await released.wait()

        async with serve(app) as client:
            tasks = [asyncio.create_task(client.get("/")) for _ in range(count)]
            while entered < count:
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in done} == {asyncio.CancelledError}
            released.set()
            assert (await client.get("/")).status_code == 200

    run(main())
