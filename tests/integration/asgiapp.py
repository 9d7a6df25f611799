"""An ASGI application for the tests of the servers: what it does is in the path."""

import asyncio
import contextlib
import os

state = {"started": False, "cancelled": 0}


async def app(scope, receive, send):
    await _HANDLERS[scope["type"]](scope, receive, send)


async def _lifespan(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            state["started"] = True
            await send({"type": "lifespan.startup.complete"})
        else:
            print("lifespan ends", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _http(scope, receive, send):
    path = scope["path"].strip("/").split("/")
    if path[0] == "echo":
        size = 0
        await _start(send)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            data = message.get("body", b"")
            size += len(data)
            if data:
                await send(
                    {"type": "http.response.body", "body": data, "more_body": True}
                )
            if not message.get("more_body"):
                break
        await send({"type": "http.response.body", "body": b""})
    elif path[0] == "slow":
        print("slow begins", flush=True)
        await asyncio.sleep(float(path[1]))
        await _answer(send, b"slow but sure")
    elif path[0] == "chunks":
        await _start(send)
        for _ in range(int(path[1])):
            await send(
                {
                    "type": "http.response.body",
                    "body": b"x" * int(path[2]),
                    "more_body": True,
                }
            )
        await send({"type": "http.response.body", "body": b""})
    elif path[0] == "disconnect":
        print("waits for the client to go", flush=True)
        while (await receive())["type"] != "http.disconnect":
            pass
        print("the client went", flush=True)
    elif path[0] == "thread":
        name = await asyncio.to_thread(lambda: "from a thread")
        await _answer(send, name.encode())
    elif path[0] == "loop":
        loop = asyncio.get_running_loop()
        words = f"{type(loop).__module__.partition('.')[0]} {os.getpid()}"
        await _answer(send, words.encode())
    elif path[0] == "raise":
        raise ValueError("on purpose")
    else:
        await _answer(send, b"hello")


async def _start(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def _answer(send, body):
    await _start(send, (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.body", "body": body})


async def _websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                print("websocket left with", message.get("code"), flush=True)
                return
            if message.get("text") is not None:
                await send({"type": "websocket.send", "text": message["text"]})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})


_HANDLERS = {"lifespan": _lifespan, "http": _http, "websocket": _websocket}
