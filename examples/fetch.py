"""Fetch many pages at once: a limit on how many, and back-off where a server stumbles.

    pip install aiohttp
    python examples/fetch.py [URL...]

Without addresses it starts a server of its own that fails now and then.
"""

import asyncio
import itertools
import random
import sys

import aiohttp
from aiohttp import web

import fastloop

AT_ONCE = 20
ATTEMPTS = 6


async def fetch(session, url, limit):
    """Return the body of url; each failed attempt is followed by a longer rest."""
    for attempt in itertools.count(1):
        try:
            async with limit, session.get(url) as answer:
                answer.raise_for_status()
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            if attempt == ATTEMPTS:
                raise
        # Outside the limit: who rests takes nobody's place.
        await asyncio.sleep(0.01 * 2**attempt * random.uniform(0.5, 1.5))


async def fetch_all(urls):
    limit = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fetch(session, url, limit)) for url in urls]
    return [task.result() for task in tasks]


asked = set()


async def moody(request):
    number = request.match_info["number"]
    if number.endswith("7") and number not in asked:  # better luck next time
        asked.add(number)
        raise web.HTTPServiceUnavailable
    return web.Response(text="page " + number)


async def main():
    if sys.argv[1:]:
        for url, body in zip(sys.argv[1:], await fetch_all(sys.argv[1:]), strict=True):
            print(url, len(body), "bytes")
        return
    app = web.Application()
    app.router.add_get("/{number}", moody)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    bodies = await fetch_all([f"http://{host}:{port}/{n}" for n in range(200)])
    assert bodies == [b"page %d" % n for n in range(200)]
    print("fetched", len(bodies), "pages")
    await runner.cleanup()


if __name__ == "__main__":
    fastloop.run(main())
