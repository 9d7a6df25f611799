"""Small packages that programs put beside asyncio: files, queues, names, progress."""

import asyncio
import http.server
import threading
import urllib.request

import aiofiles
import aiofiles.os
import aiofiles.tempfile
import aiosqlite
import bs4
import janus
import pytest
import tqdm.asyncio


def test_aiofiles(run, tmp_path):
    async def main():
        async def one(number):
            path = tmp_path / str(number)
            async with aiofiles.open(path, "w") as file:
                for line in range(100):
                    await file.write(f"{number} {line}\n")
            async with aiofiles.open(path) as file:
                return [line async for line in file]

        results = await asyncio.gather(*(one(number) for number in range(20)))
        assert results == [[f"{n} {k}\n" for k in range(100)] for n in range(20)]
        assert len(await aiofiles.os.listdir(tmp_path)) == 20
        async with aiofiles.tempfile.NamedTemporaryFile("wb+") as file:
            await file.write(b"x")
            await file.seek(0)
            assert await file.read() == b"x"
        with pytest.raises(FileNotFoundError):
            async with aiofiles.open(tmp_path / "none"):
                pass

    run(main())


def test_aiosqlite(run, tmp_path):
    async def main():
        async with aiosqlite.connect(tmp_path / "file.db") as db:
            await db.execute("create table t (n int)")
            await db.executemany("insert into t values (?)", [(n,) for n in range(999)])
            await db.commit()
            async with db.execute("select n from t order by n") as cursor:
                assert [row[0] async for row in cursor] == list(range(999))
            with pytest.raises(aiosqlite.OperationalError):
                await db.execute("select * from none")

    run(main())


def test_janus(run):
    """A queue with a thread at one end and the loop at the other."""

    async def main():
        queue = janus.Queue(maxsize=5)
        back = janus.Queue()

        def work():
            while (item := queue.sync_q.get()) is not None:
                back.sync_q.put(item * 2)

        thread = threading.Thread(target=work)
        thread.start()
        for number in range(2000):
            await queue.async_q.put(number)
        await queue.async_q.put(None)
        got = [await back.async_q.get() for _ in range(2000)]
        assert got == [number * 2 for number in range(2000)]
        await asyncio.to_thread(thread.join)
        await queue.aclose()
        await back.aclose()

    run(main())


def test_aiodns(loop_name, run_script):
    """c-ares asks a name server of the test's own, through the loop's descriptors."""
    done = run_script(
        """
        import aiodns, socket

        class Server(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport
            def datagram_received(self, data, address):
                end = data.index(0, 12) + 5
                answer = data[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + data[12:end]
                answer += b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x7f\\1\\2\\3"
                self.transport.sendto(answer, address)

        async def main():
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                Server, local_addr=("127.0.0.1", 0)
            )
            port = transport.get_extra_info("sockname")[1]
            resolver = aiodns.DNSResolver(
                nameservers=["127.0.0.1"], udp_port=port, timeout=10
            )
            answers = await asyncio.gather(
                *(resolver.query_dns(f"host{n}.example", "A") for n in range(50))
            )
            print({answer.answer[0].data.addr for answer in answers})
            await resolver.close()
            transport.close()

        run(main())
        """
    )
    assert done.stdout == "{'127.1.2.3'}\n"


def test_tqdm(run, capsys):
    async def main():
        async def one(number):
            await asyncio.sleep(0)
            return number

        results = await tqdm.asyncio.tqdm.gather(*(one(n) for n in range(50)))
        assert results == list(range(50))
        total = 0
        for future in tqdm.asyncio.tqdm.as_completed([one(n) for n in range(50)]):
            total += await future
        assert total == sum(range(50))

    run(main())
    assert "50/50" in capsys.readouterr().err


PAGE = (
    "<html><h1>Page {0}</h1><a href='/{1}'>next</a><p class='price'>{0} EUR</p></html>"
)


def test_scraping_with_a_blocking_client(run):
    """urllib in threads, BeautifulSoup on what it brings."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            number = int(self.path.strip("/"))
            body = PAGE.format(number, number + 1).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"

    def fetch(number):
        with urllib.request.urlopen(f"{url}{number}", timeout=30) as answer:
            return bs4.BeautifulSoup(answer.read(), "html.parser")

    async def main():
        pages = await asyncio.gather(*(asyncio.to_thread(fetch, n) for n in range(40)))
        assert [page.h1.text for page in pages] == [f"Page {n}" for n in range(40)]
        assert pages[7].find(class_="price").text == "7 EUR"
        assert pages[7].a["href"] == "/8"

    try:
        run(main())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
