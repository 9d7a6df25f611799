"""A web shop served by aiohttp, and a scraper that walks all of it.

The scraper starts at the front page, follows every link that it has not seen, holds at
most 64 requests in flight by a semaphore, and adds up the prices in the tables.
"""

import asyncio
import random

import aiohttp
from aiohttp import web
from selectolax.lexbor import LexborHTMLParser

from .checks import check

LINKS = 12
ROWS = 24
PARAGRAPHS = 5
WORDS = ["quiet", "river", "stone", "lamp", "copper", "garden", "window", "silver"]
WORDS += ["paper", "engine", "cedar", "harbour", "winter", "signal", "ladder", "velvet"]


def make_page(number, pages, rng):
    """Return the HTML of a page and the sum of its prices in cents."""
    # The link to the next page makes every page reachable.
    targets = [(number + 1) % pages, *rng.sample(range(pages), min(LINKS, pages) - 1)]
    links = "".join(
        f'<li><a href="/page/{n}" title="Shelf {n}">{rng.choice(WORDS)} {n}</a></li>\n'
        for n in targets
    )
    rows = []
    total = 0
    for row in range(ROWS):
        cents = rng.randrange(100, 100_000)
        total += cents
        rows.append(
            f'<tr class="item"><td class="sku">P{number:04}-{row:02}</td>'
            f"<td>{' '.join(rng.choices(WORDS, k=3))}</td>"
            f'<td class="price">{cents // 100}.{cents % 100:02}</td></tr>\n'
        )
    prose = "".join(
        f"<p>{' '.join(rng.choices(WORDS, k=80)).capitalize()}.</p>\n"
        for _ in range(PARAGRAPHS)
    )
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Shelf {number}</title></head>\n<body><nav><ul>\n{links}</ul></nav>\n"
        f"<h1>Shelf {number}</h1>\n{prose}<table>\n"
        "<thead><tr><th>SKU</th><th>Name</th><th>Price</th></tr></thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody></table></body></html>\n"
    )
    return html, total


def parse(html):
    """Return the links of a page and the sum of its prices in cents."""
    tree = LexborHTMLParser(html)
    links = [node.attributes["href"] for node in tree.css("nav a[href]")]
    cents = 0
    for node in tree.css("tr.item td.price"):
        euros, _, rest = node.text().partition(".")
        cents += int(euros) * 100 + int(rest)
    return links, cents


def prepare(pages):
    rng = random.Random(1)
    site = [make_page(number, pages, rng) for number in range(pages)]
    expected = sum(total for _, total in site)

    async def serve_page(request):
        html, _ = site[int(request.match_info["number"])]
        return web.Response(text=html, content_type="text/html")

    async def scrape(origin, progress):
        gate = asyncio.Semaphore(64)
        seen = {"/page/0"}
        links = cents = 0

        async with (
            aiohttp.ClientSession(
                origin, connector=aiohttp.TCPConnector(limit=64)
            ) as session,
            asyncio.TaskGroup() as group,
        ):

            async def visit(path):
                nonlocal links, cents
                async with gate, session.get(path) as response:
                    response.raise_for_status()
                    found, price = parse(await response.text())
                links += len(found)
                cents += price
                progress()
                for target in found:
                    if target not in seen:
                        seen.add(target)
                        group.create_task(visit(target))

            group.create_task(visit("/page/0"))
        return {"pages": len(seen), "links": links, "cents": cents}

    async def run(progress):
        app = web.Application()
        app.router.add_get(r"/page/{number:\d+}", serve_page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0]
            facts = await scrape(f"http://{host}:{port}", progress)
        finally:
            await runner.cleanup()
        check(facts, pages=pages, links=pages * LINKS, cents=expected)
        return facts

    return run
