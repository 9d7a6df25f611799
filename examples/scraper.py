"""A scraper: a crowd of workers, each address once, parsing in processes.

pip install aiohttp beautifulsoup4
python examples/scraper.py
"""

import asyncio
import concurrent.futures
import urllib.parse

import aiohttp
import bs4
from aiohttp import web

import fastloop

WORKERS = 8


def parse(html):
    """Return (title, links); in a process of its own, since it only computes."""
    page = bs4.BeautifulSoup(html, "html.parser")
    return page.title.text, [link["href"] for link in page.find_all("a")]


async def scrape(start):
    """Return {address: title} of all pages that start leads to."""
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue()
    queue.put_nowait(start)
    titles = {start: None}

    async def work(session, pool):
        while True:
            url = await queue.get()
            try:
                async with session.get(url) as answer:
                    html = await answer.text()
                titles[url], links = await loop.run_in_executor(pool, parse, html)
                for link in links:
                    link = urllib.parse.urljoin(url, link)
                    if link not in titles:
                        titles[link] = None
                        queue.put_nowait(link)
            except aiohttp.ClientError as exc:
                titles[url] = f"failed: {exc}"
            finally:
                queue.task_done()

    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            workers = [group.create_task(work(session, pool)) for _ in range(WORKERS)]
            await queue.join()
            for worker in workers:
                worker.cancel()
    return titles


async def page(request):
    number = int(request.match_info["number"])
    links = "".join(
        f"<a href='/{n}'>{n}</a>" for n in (number * 2, number * 2 + 1) if n < 64
    )
    html = f"<html><title>Page {number}</title>{links}</html>"
    return web.Response(text=html, content_type="text/html")


async def main():
    app = web.Application()
    app.router.add_get("/{number}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    titles = await scrape(f"http://{host}:{port}/1")
    print("scraped", len(titles), "pages, the last:", max(titles.values(), key=len))
    await runner.cleanup()


if __name__ == "__main__":
    fastloop.run(main())
