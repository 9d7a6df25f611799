"""A FastAPI application: a background task, an endpoint in a thread, a stream.

pip install fastapi uvicorn
uvicorn --app-dir examples --loop fastloop:new_event_loop fastapi_app:app
python examples/fastapi_app.py                # starts it, asks it, ends it
"""

import asyncio
import contextlib
import time
import urllib.request

import uvicorn
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

import fastloop

visits = 0


@contextlib.asynccontextmanager
async def lifespan(app):
    async def watch():
        while True:
            await asyncio.sleep(1)
            print("visits so far:", visits)

    task = asyncio.create_task(watch())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


def count():
    global visits
    visits += 1


@app.get("/")
async def index(tasks: BackgroundTasks):
    tasks.add_task(count)  # after the answer
    return {"loop": type(asyncio.get_running_loop()).__module__}


@app.get("/blocking")
def blocking():  # not async: runs in a thread
    time.sleep(0.01)
    return {"done": True}


@app.get("/numbers/{count}")
async def numbers(count: int):
    async def lines():
        for number in range(count):
            yield f"{number}\n"

    return StreamingResponse(lines())


def ask(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    print(await asyncio.to_thread(ask, url))
    slow = (asyncio.to_thread(ask, f"{url}/blocking") for _ in range(20))
    await asyncio.gather(*slow)
    lines = await asyncio.to_thread(ask, f"{url}/numbers/1000")
    print(len(lines.split()), "lines")
    server.should_exit = True
    await task


if __name__ == "__main__":
    fastloop.run(main())
