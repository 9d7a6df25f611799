"""What happens as a server accepts: crowds, resets, factories that raise, no descriptors left."""

import asyncio
import contextvars
import logging
import os
import re
import socket
import time

import pytest
from iosupport import (
    TIMEOUT,
    Clients,
    Echo,
    Recorder,
    capture,
    in_thread,
    is_stock,
    left_to_the_collector,
    reset,
    settle,
    visit,
)


def test_many_clients_at_once(loop, run):
    count = 500

    async def client(address, number):
        transport, protocol = await loop.create_connection(Recorder, *address)
        message = b"%d" % number * 10
        transport.write(message)
        await gate.wait()
        assert await protocol.received(len(message)) == message
        transport.close()
        await protocol.lost
        return message

    async def main():
        nonlocal gate
        gate = asyncio.Event()
        clients = Clients(Echo)
        async with await loop.create_server(
            clients, "127.0.0.1", 0, backlog=1000
        ) as server:
            address = server.sockets[0].getsockname()
            tasks = [
                asyncio.create_task(client(address, number)) for number in range(count)
            ]
            await clients.number(count)
            gate.set()
            answers = await asyncio.gather(*tasks)
            assert answers == [b"%d" % number * 10 for number in range(count)]
            await clients.gone()

    gate = None
    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_client_that_reset_before_accept(loop, run):
    contexts = capture(loop)

    async def main():
        clients = Clients()
        async with await loop.create_server(clients, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            for _ in range(10):
                reset(socket.create_connection(address))
            sock = socket.create_connection(address)
            await clients.number(11)
            sock.close()
            await clients.gone()

    run(main())
    assert contexts == []


@pytest.mark.parametrize("debug", [False, True])
def test_factory_that_raises(loop, run, debug):
    contexts = []
    calls = []

    def note(loop, context):
        context["exception"].__traceback__ = None
        contexts.append(context)

    def factory():
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return Echo()

    async def main():
        async with await loop.create_server(factory, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            with socket.create_connection(address) as refused:
                refused.settimeout(TIMEOUT)
                # Closed without a byte.
                assert await in_thread(refused.recv, 1) == b""
            # The next client is served.
            await visit(loop, address)
        await settle()

    loop.set_debug(debug)
    loop.set_exception_handler(note)
    with left_to_the_collector(loop):
        run(main())
    if debug or not is_stock(loop):
        assert len(contexts) == 1
        assert (
            contexts[0]["message"]
            == "Error on transport creation for incoming connection"
        )
        assert isinstance(contexts[0]["exception"], ZeroDivisionError)


def test_the_report_of_a_factory_runs_in_the_context_of_the_connection(loop, run):
    var = contextvars.ContextVar("var", default="default")
    seen = []

    def note(loop, context):
        context["exception"].__traceback__ = None
        seen.append(var.get())

    def factory():
        seen.append(var.get())
        raise ZeroDivisionError

    async def main():
        var.set("server")
        async with await loop.create_server(factory, "127.0.0.1", 0) as server:
            var.set("later")
            with socket.create_connection(server.sockets[0].getsockname()) as refused:
                refused.settimeout(TIMEOUT)
                assert await in_thread(refused.recv, 1) == b""
        await settle()

    loop.set_debug(True)  # else asyncio says nothing
    loop.set_exception_handler(note)
    with left_to_the_collector(loop):
        run(main())
    assert seen == ["server", "server"]


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
def test_exit_out_of_the_factory(loop, run, exc):
    capture(loop)

    def factory():
        raise exc("out")

    async def serve():
        return await loop.create_server(factory, "127.0.0.1", 0)

    async def wait():
        await asyncio.sleep(TIMEOUT)

    async def close(server):
        server.close()
        await server.wait_closed()

    with left_to_the_collector(loop):
        server = run(serve())
        with socket.create_connection(server.sockets[0].getsockname()):
            task = loop.create_task(wait())
            with pytest.raises(exc, match="out"):
                loop.run_until_complete(task)
            task.cancel()
            run(close(server))


def test_out_of_descriptors(run_script):
    """Reported once a second; who waits in the backlog meanwhile is served later."""
    result = run_script(
        """
        import errno, os, resource, socket, time
        contexts = []

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: contexts.append(context))

            class Echo(asyncio.Protocol):
                def connection_made(self, transport):
                    self.transport = transport
                def data_received(self, data):
                    self.transport.write(data)
                    self.transport.close()

            server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=8)
            address = server.sockets[0].getsockname()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            clients = [socket.socket() for _ in range(5)]
            for client in clients:
                client.setblocking(False)
            spare = []
            while True:
                try:
                    spare.append(os.dup(0))
                except OSError:
                    break
            for client in clients:
                client.connect_ex(address)
            while not contexts:
                await asyncio.sleep(0.01)
            reported = time.monotonic()
            await asyncio.sleep(0.3)
            assert len(contexts) < 10, len(contexts)
            for fd in spare:
                os.close(fd)
            async def ask(client):
                await loop.sock_sendall(client, b"x")
                assert await loop.sock_recv(client, 10) == b"x"
            await asyncio.wait_for(asyncio.gather(*map(ask, clients)), 30)
            print("served", time.monotonic() - reported > 0.5)
            for context in contexts:
                assert context["message"] == "socket.accept() out of system resource", context
                assert context["exception"].errno == errno.EMFILE, context
                assert isinstance(context["socket"], asyncio.trsock.TransportSocket), context
            for client in clients:
                client.close()
            server.close()
            await asyncio.sleep(0.01)

        run(main())
        """
    )
    assert result.stdout.strip() == "served True"
    assert result.stderr == ""


def test_closed_while_out_of_descriptors(run_script):
    """The retry that was due must not bring a closed server back, nor harm who has its descriptor now."""
    result = run_script(
        """
        import os, resource, socket
        contexts = []

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: contexts.append(context["message"]))
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            client = socket.socket()
            client.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            spare = []
            while True:
                try:
                    spare.append(os.dup(0))
                except OSError:
                    break
            client.connect_ex(server.sockets[0].getsockname())
            while not contexts:
                await asyncio.sleep(0.01)
            server.close()
            for fd in spare:
                os.close(fd)
            await asyncio.sleep(1.3)
            client.close()
            assert not server.is_serving()
            print("fine")

        run(main())
        """
    )
    assert result.stdout.strip() == "fine"


def test_a_crowd_that_comes_while_the_loop_is_busy(loop, run):
    """It is not taken by ones and twos: the next turns may be long, too."""

    async def main():
        clients = Clients(Echo)
        async with await loop.create_server(clients, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            crowd = [socket.create_connection(address) for _ in range(60)]
            for _ in range(5):
                time.sleep(0.001)
                await asyncio.sleep(0)
            assert len(clients.protocols) == 60
            for client in crowd:
                client.close()
            await clients.gone()

    run(main())


def test_a_factory_closes_the_listening_socket(loop, run):
    """Its number may be another's at once, whose clients are not the server's."""
    if is_stock(loop):
        pytest.skip("asks the closed socket, and takes more at a time")
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    made, strangers = [], []

    def factory():
        made.append(Recorder())
        if len(made) == 4:
            with socket.create_server(("127.0.0.1", 0)) as stranger:
                number = listener.detach()
                os.dup2(stranger.fileno(), number, inheritable=False)
            strangers.append(socket.socket(fileno=number))
            strangers.append(socket.create_connection(strangers[0].getsockname()))
        return made[-1]

    async def main():
        await loop.create_server(factory, sock=listener)
        clients = []
        for count in (3, 4):  # the more at once, as there were so many
            for _ in range(count):
                clients.append(socket.create_connection(address))
            await settle()
        assert len(made) == 4
        strangers.append(strangers[0].accept()[0])
        async with await loop.create_server(Echo, sock=strangers[0]):
            await visit(loop, strangers[0].getsockname())
        for protocol in made:
            protocol.transport.abort()
            await protocol.lost
        for sock in clients + strangers:
            sock.close()

    run(main())


def test_peername_of_each_client(loop, run):
    async def main():
        clients = Clients()
        async with await loop.create_server(clients, "127.0.0.1", 0) as server:
            socks = []
            for _ in range(20):
                socks.append(socket.create_connection(server.sockets[0].getsockname()))
            await clients.number(20)
            seen = [
                protocol.transport.get_extra_info("peername")
                for protocol in clients.protocols
            ]
            assert sorted(seen) == sorted(sock.getsockname() for sock in socks)
            for sock in socks:
                sock.close()
            await clients.gone()

    run(main())


def test_server_in_debug_mode(loop, run, caplog):
    loop.set_debug(True)

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            await visit(loop, server.sockets[0].getsockname())
        await settle()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.endswith("is serving") for message in messages)
    assert any(
        "got a new connection from ('127.0.0.1'," in message for message in messages
    )
    assert any(" connected to 127.0.0.1:" in message for message in messages)
    assert any("received EOF" in message for message in messages)


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_the_new_connection_in_the_log(loop, run, caplog, tmp_path, family):
    """It tells the server, the peer and the socket, before anything else happens."""
    loop.set_debug(True)
    seen = []

    class Logged(Echo):
        def __init__(self):
            super().__init__()
            seen.extend(
                (r, r.getMessage()) for r in caplog.records if "got a new" in r.msg
            )

        def connection_made(self, transport):
            super().connection_made(transport)
            ((record, _),) = seen
            *_, sock = record.args
            shown = transport.get_extra_info("socket")
            assert sock.fileno() == shown.fileno() == transport._sock_fd
            assert sock.gettimeout() == 0

    async def main():
        if family == "unix":
            path = str(tmp_path / "socket")
            server = await loop.create_unix_server(Logged, path)
            connecting = asyncio.open_unix_connection(path)
        else:
            server = await loop.create_server(Logged, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            connecting = asyncio.open_connection(*address)
        async with server:
            _, writer = await connecting
            while not seen:
                await asyncio.sleep(0)
            writer.close()
        await settle()
        return server, writer.get_extra_info("sockname")

    with caplog.at_level(logging.DEBUG, "asyncio"):
        server, name = run(main())
    ((record, message),) = seen
    assert record.levelno == logging.DEBUG
    assert record.msg == "%r got a new connection from %r: %r"
    assert record.args[:2] == (server, name)
    assert type(record.args[2]) is socket.socket
    assert re.search(r": <socket\.socket fd=\d+, family=\d+, type=\d+", message)


def test_a_log_that_raises(loop, run, caplog, monkeypatch):
    """It loses the one connection that it should have told of."""
    if is_stock(loop):
        pytest.skip(
            "leaves the socket to the collector, and closes what has its number"
        )
    loop.set_debug(True)
    contexts = capture(loop)
    closing = []

    class Filter(logging.Filter):
        def filter(self, record):
            if "got a new" in record.msg:
                if closing:
                    record.args[2].close()
                raise ZeroDivisionError
            return True

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        async with server:
            for _ in range(2):
                reader, writer = await asyncio.open_connection(
                    *server.sockets[0].getsockname()
                )
                assert await reader.read() == b""
                writer.close()
                closing.append(True)
        await settle()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        monkeypatch.setattr(logging.getLogger("asyncio"), "filters", [Filter()])
        run(main())
    errors = [type(context["exception"]) for context in contexts]
    assert errors == [ZeroDivisionError, ZeroDivisionError]


TAKEN_OVER = """
import os, socket

class Closer(asyncio.Protocol):
    def __init__(self):
        # What has its number from now on is a stranger.
        number = victim.detach()
        os.dup2(stranger.fileno(), number)

def listen():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock

def knock(sock):
    client = socket.socket()
    client.setblocking(False)
    try:
        client.connect(sock.getsockname())
    except BlockingIOError:
        pass
    return client

first, victim, stranger = listen(), listen(), listen()

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    await loop.create_server(Closer, sock=first)
    await loop.create_server(asyncio.Protocol, sock=victim)
    clients = [knock(sock) for sock in (stranger, first, victim)]
    while victim.fileno() != -1:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    stranger.accept()[0].close()
    for client in clients:
        client.close()
    print("still there", flush=True)
    os._exit(0)

run(main())
"""


def test_number_given_out_again_within_a_batch(run_script):
    """Both listeners have a client when the first one's closes the other."""
    result = run_script(TAKEN_OVER)
    assert result.stdout == "still there\n", result.stderr


READER_IN_THE_PAUSE = """
import os, resource, socket

def limit(count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))

class Served(asyncio.Protocol):
    def connection_made(self, transport):
        transport.close()
        served.set_result(None)

def on_context(loop, context):
    if "out of system resource" not in context["message"]:
        print(context)
    elif not paused.done():
        loop.call_soon(limit, soft)  # asyncio accepts on, as often as the backlog says
        paused.set_result(None)

async def main():
    global served, paused
    loop = asyncio.get_running_loop()
    served, paused, called = (loop.create_future() for _ in range(3))
    loop.set_exception_handler(on_context)
    server = await loop.create_server(Served, "127.0.0.1", 0)
    number = server.sockets[0].fileno()
    client = socket.socket()
    client.setblocking(False)
    try:
        client.connect(server.sockets[0].getsockname())
    except BlockingIOError:
        pass
    limit(3)
    await paused
    loop.add_reader(number, lambda: called.done() or called.set_result(None))
    await called
    await asyncio.wait_for(served, 30)
    print("served", flush=True)
    os._exit(0)

soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
run(main())
"""


def test_reader_added_while_accepting_pauses(run_script):
    """The server takes its place back, as asyncio's does."""
    result = run_script(READER_IN_THE_PAUSE)
    assert result.stdout == "served\n", result.stderr
