"""An application of aiohttp's, as a program and for gunicorn."""

import asyncio
import os
import socket

from aiohttp import web


async def slow(request):
    print("slow begins", flush=True)
    await asyncio.sleep(0.5)
    return web.Response(text="slow but sure")


async def loop(request):
    name = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    return web.Response(text=f"{name} {os.getpid()}")


async def chunks(request):
    answer = web.StreamResponse()
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for _ in range(int(request.match_info["count"])):
        await answer.write(b"x" * int(request.match_info["size"]))
    return answer


async def echo(request):
    return web.Response(body=await request.read())


async def cleaned_up(app):
    print("cleaned up", flush=True)


app = web.Application(client_max_size=1 << 30)
app.add_routes(
    [
        web.get("/slow/{seconds}", slow),
        web.get("/slow", slow),
        web.get("/loop", loop),
        web.get("/chunks/{count}/{size}", chunks),
        web.post("/echo", echo),
    ]
)
app.on_cleanup.append(cleaned_up)


if __name__ == "__main__":
    sock = socket.create_server(("127.0.0.1", 0))
    print("listens on", sock.getsockname()[1], flush=True)
    web.run_app(app, sock=sock, print=None, handle_signals=True)
