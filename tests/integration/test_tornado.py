"""tornado, whose IOLoop is the running asyncio loop: add_reader() for all its I/O."""

import asyncio
import datetime
import signal
import threading

import pytest
import tornado.gen
import tornado.httpclient
import tornado.httpserver
import tornado.ioloop
import tornado.iostream
import tornado.netutil
import tornado.tcpclient
import tornado.tcpserver
import tornado.web
import tornado.websocket


class Hello(tornado.web.RequestHandler):
    async def get(self, name):
        await tornado.gen.sleep(0)
        self.write("hello " + name)

    async def post(self, name):
        self.write(self.request.body[::-1])


class Stream(tornado.web.RequestHandler):
    async def get(self):
        for _ in range(50):
            self.write(b"s" * 50_000)
            await self.flush()


@tornado.web.stream_request_body
class Upload(tornado.web.RequestHandler):
    size = 0

    async def data_received(self, chunk):
        self.size += len(chunk)

    def post(self):
        self.write(str(self.size))


class Socket(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message, binary=isinstance(message, bytes))


def listen(**options):
    app = tornado.web.Application(
        [
            (r"/stream", Stream),
            (r"/upload", Upload),
            (r"/ws", Socket),
            (r"/(\w*)", Hello),
        ]
    )
    server = tornado.httpserver.HTTPServer(app, **options)
    (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets([sock])
    return server, sock.getsockname()[1]


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_http(run, tls, secure):
    async def main():
        server, port = listen(**({"ssl_options": tls.server} if secure else {}))
        client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
        url = f"http{'s' * secure}://localhost:{port}/"
        options = {
            "ssl_options": tls.client if secure else None,
            "headers": {"Content-Type": "application/octet-stream"},
        }
        answers = await asyncio.gather(
            *(client.fetch(url + str(n), **options) for n in range(50))
        )
        assert [a.body for a in answers] == [b"hello %d" % n for n in range(50)]
        body = bytes(range(256)) * 4000
        answer = await client.fetch(url + "x", method="POST", body=body, **options)
        assert answer.body == body[::-1]
        answer = await client.fetch(url + "upload", method="POST", body=body, **options)
        assert int(answer.body) == len(body)
        answer = await client.fetch(url + "stream", **options)
        assert answer.body == b"s" * 2_500_000
        client.close()
        server.stop()
        await server.close_all_connections()

    run(main())


def test_websocket(run):
    async def main():
        server, port = listen()
        socket = await tornado.websocket.websocket_connect(f"ws://127.0.0.1:{port}/ws")
        for message in ("text", b"bytes", "x" * 300_000):
            await socket.write_message(message, binary=isinstance(message, bytes))
            assert await socket.read_message() == message
        socket.close()
        assert await socket.read_message() is None
        server.stop()
        await server.close_all_connections()

    run(main())


def test_streams(run):
    class Echo(tornado.tcpserver.TCPServer):
        async def handle_stream(self, stream, address):
            try:
                while True:
                    line = await stream.read_until(b"\n")
                    await stream.write(line)
            except tornado.iostream.StreamClosedError:
                pass

    async def main():
        server = Echo()
        (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([sock])
        stream = await tornado.tcpclient.TCPClient().connect(*sock.getsockname())
        for size in (0, 10, 2_000_000):
            await stream.write(b"e" * size + b"\n")
            assert await stream.read_until(b"\n") == b"e" * size + b"\n"
        stream.close()
        server.stop()
        await asyncio.sleep(0.01)

    run(main())


def test_ioloop(run):
    async def main():
        loop = tornado.ioloop.IOLoop.current()
        assert loop.asyncio_loop is asyncio.get_running_loop()
        seen = []
        periodic = tornado.ioloop.PeriodicCallback(lambda: seen.append("tick"), 5)
        periodic.start()
        loop.add_timeout(datetime.timedelta(milliseconds=20), seen.append, "later")
        thread = threading.Thread(
            target=lambda: loop.add_callback(seen.append, "from a thread")
        )
        thread.start()
        assert await loop.run_in_executor(None, int, "7") == 7
        while not {"tick", "later", "from a thread"} <= set(seen):
            await asyncio.sleep(0.001)
        periodic.stop()
        thread.join()
        with pytest.raises(tornado.gen.TimeoutError):
            await tornado.gen.with_timeout(
                datetime.timedelta(milliseconds=5), asyncio.Event().wait()
            )

    run(main())


SERVER = """
import asyncio, signal, tornado.web

class Slow(tornado.web.RequestHandler):
    async def get(self):
        print("slow begins", flush=True)
        await asyncio.sleep(0.3)
        self.write("slow but sure")

async def main():
    app = tornado.web.Application([("/", Slow)])
    server = app.listen(0, "127.0.0.1")
    (sock,) = server._sockets.values()
    print("listens on", sock.getsockname()[1], flush=True)
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()
    server.stop()
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.01)
    await server.close_all_connections()
    print("ended", flush=True)

asyncio.run(main())
"""


def test_sigterm_with_requests_in_flight(run, program):
    server = program("-c", SERVER)
    port = server.port(r"listens on (\d+)")

    async def main():
        client = tornado.httpclient.AsyncHTTPClient(force_instance=True, max_clients=20)
        url = f"http://127.0.0.1:{port}/"
        tasks = [asyncio.ensure_future(client.fetch(url)) for _ in range(10)]
        await asyncio.to_thread(server.until, "slow begins", 10)
        server.signal(signal.SIGTERM)
        answers = await asyncio.gather(*tasks)
        assert {answer.body for answer in answers} == {b"slow but sure"}
        await asyncio.to_thread(server.wait)
        with pytest.raises(ConnectionRefusedError):
            await client.fetch(url)
        client.close()

    run(main())
    assert "ended" in server.output


def test_timeouts_and_clients_that_leave(run):
    entered, left, left_event = [], [], asyncio.Event()

    class Slow(tornado.web.RequestHandler):
        async def get(self):
            entered.append(self)
            self.write("x")
            await self.flush()
            await left_event.wait()

        def on_connection_close(self):
            left.append(self)
            left_event.set()

    async def main():
        server = tornado.httpserver.HTTPServer(tornado.web.Application([("/", Slow)]))
        (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([sock])
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
        with pytest.raises(tornado.httpclient.HTTPError, match="Timeout"):
            await client.fetch(url, request_timeout=0.5)
        await left_event.wait()
        assert entered == left
        client.close()
        server.stop()
        await server.close_all_connections()

    run(main())
