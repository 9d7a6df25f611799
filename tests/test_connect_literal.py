"""create_connection and sock_connect to literal addresses, step by step as for names."""

import asyncio
import contextlib
import contextvars
import inspect
import re
import socket
import subprocess
import sys
import textwrap

import pytest
from iosupport import (
    Echo,
    Recorder,
    capture,
    left_to_the_collector,
    open_fds,
    settle,
)

HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture(params=HOSTS, ids=lambda family: family.name)
def family(request):
    return request.param


@contextlib.contextmanager
def full_listener():
    """A listener whose queue is full: whoever connects now waits for its answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.listen(0)
        visitor = stack.enter_context(socket.socket())
        visitor.connect(listener.getsockname())
        yield listener


def test_what_the_transport_tells(loop, run, family):
    async def main():
        async with await loop.create_server(Echo, HOSTS[family], 0) as server:
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(Recorder, *address[:2])
            assert transport.get_protocol() is protocol
            sock = transport.get_extra_info("socket")
            assert (sock.family, sock.type) == (family, socket.SOCK_STREAM)
            assert sock.proto == socket.IPPROTO_TCP
            assert sock.gettimeout() == 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not sock.get_inheritable()
            name = sock.getsockname()
            assert transport.get_extra_info("peername") == address
            transport.write(b"x")
            await protocol.received(1)
            transport.close()
            await protocol.lost
            await settle()
            assert transport.get_extra_info("sockname") == name
            assert transport.get_extra_info("peername") == address
            assert transport.get_extra_info("socket").fileno() == -1

    run(main())


def test_refused(loop, run, family):
    with socket.socket(family) as unused:
        unused.bind((HOSTS[family], 0))
        address = unused.getsockname()

        async def main():
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.create_connection(Recorder, *address[:2])
            assert f"Connect call failed {address}" in str(caught.value)
            with socket.socket(family) as sock:
                sock.setblocking(False)
                with pytest.raises(
                    ConnectionRefusedError,
                    match=re.escape(f"Connect call failed {address}"),
                ):
                    await loop.sock_connect(sock, address)

        run(main())


@pytest.mark.parametrize("port", [-1, 65536, 1 << 70])
def test_no_port(loop, run, port):
    async def main():
        with pytest.raises(OverflowError):
            await loop.create_connection(Recorder, "127.0.0.1", port)

    run(main())


@contextlib.asynccontextmanager
async def unanswered(loop):
    """Such a listener, and a task that waits for a connection to it."""
    with full_listener() as listener:
        task = asyncio.create_task(
            loop.create_connection(Recorder, *listener.getsockname())
        )
        await settle()
        assert not task.done()
        yield listener, task


def test_cancelled_before_the_answer(loop, run):
    async def main():
        async with unanswered(loop) as (_, task):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())  # no socket is left, or its ResourceWarning is an error


def test_answer_that_comes_late(loop, run):
    async def main():
        async with unanswered(loop) as (listener, task):
            listener.listen(10)
            listener.accept()[0].close()
            transport, protocol = await task  # when the kernel asks again
            assert transport.get_extra_info("peername") == listener.getsockname()
            transport.close()
            await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "name",
    [
        "_ensure_resolved",
        "_connect_sock",
        "sock_connect",
        "_create_connection_transport",
        "_make_socket_transport",
        "create_future",
    ],
)
@pytest.mark.parametrize("where", ["instance", "class"])
def test_replaced_steps_are_asked(loop, run, monkeypatch, name, where):
    original = getattr(loop, name)
    calls = []

    def replaced(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            with monkeypatch.context() as patch:
                if where == "instance":
                    patch.setattr(loop, name, replaced)
                else:
                    patch.setattr(
                        type(loop),
                        name,
                        lambda self, *args, **kwargs: replaced(*args, **kwargs),
                    )
                transport, protocol = await loop.create_connection(Recorder, *address)
            assert calls
            transport.close()
            await protocol.lost

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", None], ids=["literal", "socket"])
def test_a_subclass_that_asks_the_factory_itself(loop_factory, host):
    """It overrides the last step, and gets what can be called as the factory can."""
    loop = loop_factory()
    made = []
    loop.close()

    class Own(type(loop)):
        async def _create_connection_transport(self, sock, factory, *args, **kwargs):
            made.append(factory())
            return await super()._create_connection_transport(
                sock, lambda: made[0], *args, **kwargs
            )

    async def main():
        async with await asyncio.get_running_loop().create_server(
            Echo, "127.0.0.1", 0
        ) as server:
            address = server.sockets[0].getsockname()
            if host is not None:
                options = {"host": host, "port": address[1]}
            else:
                options = {"sock": socket.create_connection(address)}
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Recorder, **options
            )
            assert made == [protocol]
            transport.close()
            await protocol.lost

    with asyncio.Runner(loop_factory=Own) as runner:
        runner.run(main())


def test_guarded_sockets(loop, run, monkeypatch):
    """What keeps tests from the network replaces a method of the class, or the class."""

    def connect(self, address):
        raise PermissionError(f"no way to {address}")

    class Guarded(socket.socket):
        def __new__(cls, *args, **kwargs):
            raise PermissionError("no sockets")

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "connect", connect, raising=False)
                with pytest.raises(PermissionError, match="no way to"):
                    await loop.create_connection(Recorder, *address)
            with monkeypatch.context() as patch:
                patch.setattr(socket, "socket", Guarded)
                with pytest.raises(PermissionError, match="no sockets"):
                    await loop.create_connection(Recorder, *address)
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()

    run(main())


@pytest.mark.parametrize("name", ["local_addr", "ssl", "sock", "happy_eyeballs_delay"])
def test_options_that_say_nothing(loop, run, family, name):
    async def main():
        async with await loop.create_server(Echo, HOSTS[family], 0) as server:
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(
                Recorder, *address[:2], **{name: None}
            )
            assert transport.get_extra_info("peername") == address
            transport.close()
            await protocol.lost

    run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"server_hostname": "name"}, ValueError),
        ({"ssl_handshake_timeout": 0}, ValueError),
        ({"unknown": None}, TypeError),
    ],
)
def test_options_that_are_wrong(loop, run, options, error):
    async def main():
        with pytest.raises(error):
            await loop.create_connection(Recorder, "127.0.0.1", 1, **options)

    run(main())


def test_signature(loop):
    method = type(loop).create_connection
    assert inspect.iscoroutinefunction(method)
    assert inspect.signature(method) == inspect.signature(
        asyncio.BaseEventLoop.create_connection
    )


def run_script(loop, script, *args):
    """Hooks cannot be removed, so in a process of its own."""
    module = type(loop).__module__.partition(".")[0]
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), module]
    subprocess.run([*command, *args], check=True, timeout=60)


def test_audit_events(loop):
    script = """
        import asyncio, importlib, socket, sys
        events = []
        def hook(name, args):
            if name in ("socket.__new__", "socket.connect"):
                events.append((name, isinstance(args[0], socket.socket), *args[1:]))
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                address = listener.getsockname()
                loop = asyncio.get_running_loop()
                sys.addaudithook(hook)
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
                sock = transport.get_extra_info("socket")
                assert sock.getpeername() == address
                transport.close()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert sock.fileno() == -1
            assert len(events) == 2, events
            assert events[0][:2] == ("socket.__new__", True), events
            assert events[1] == ("socket.connect", True, address), events
        factory = importlib.import_module(sys.argv[1]).new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    """
    run_script(loop, script)


@pytest.mark.parametrize("name", ["socket.__new__", "socket.connect"])
@pytest.mark.parametrize("does", ["raises", "closes"])
def test_audit_hooks_that_interfere(loop, name, does):
    """The connection fails, and nothing is left open."""
    script = """
        import asyncio, importlib, os, socket, sys
        _, module, event, does = sys.argv
        armed = False
        def hook(name, args):
            if name != event or not armed:
                return
            if does == "raises":
                raise PermissionError("no")
            if name == "socket.connect":
                args[0].close()
        def open_fds():
            return set(os.listdir("/proc/self/fd"))
        async def main():
            global armed
            with socket.create_server(("127.0.0.1", 0)) as listener:
                address = listener.getsockname()
                loop = asyncio.get_running_loop()
                sys.addaudithook(hook)
                armed = True
                before = len(open_fds())
                try:
                    transport, _ = await loop.create_connection(
                        asyncio.Protocol, *address
                    )
                except OSError as exc:
                    expected = PermissionError if does == "raises" else OSError
                    assert type(exc) is expected, repr(exc)
                else:
                    assert (event, does) == ("socket.__new__", "closes")
                    transport.abort()
                for _ in range(4):
                    await asyncio.sleep(0)
                assert len(open_fds()) == before
                armed = False
        factory = importlib.import_module(module).new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    """
    run_script(loop, script, name, does)


@pytest.mark.parametrize(
    "options", [{}, {"local_addr": ("127.0.0.1", 0)}], ids=["plain", "bound"]
)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_cancelled_at_once_it_has_made_no_protocol(loop, run, steps, options):
    """Pools start a connection and think better of it: nobody is to hear of that."""
    made = []

    def factory():
        made.append(asyncio.Protocol())
        return made[-1]

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connecting = asyncio.create_task(
                loop.create_connection(factory, *listener.getsockname(), **options)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        assert made == []

    run(main())


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("how", ["cancel", "close"])
def test_given_up_at_any_step_it_leaves_nothing_open(loop, run, steps, how):
    """Cancelled, or closed as by a loop that goes away."""
    lost = []

    class Notes(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.append(exc)

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            before = open_fds()
            coro = loop.create_connection(Notes, *listener.getsockname())
            if how == "cancel":
                connecting = asyncio.create_task(coro)
                for _ in range(steps):
                    await asyncio.sleep(0)
                if not connecting.done():
                    connecting.cancel()
                await asyncio.wait([connecting])
                if not connecting.cancelled():
                    connecting.result()[0].abort()
            else:
                transport = None
                try:
                    for _ in range(steps):
                        waiter = coro.send(None)
                        if waiter is not None:
                            await settle()
                except StopIteration as stop:
                    transport = stop.value[0]
                    transport.abort()
                coro.close()
            await settle()
            assert open_fds() == before
        assert lost in ([], [None])

    run(main())


def test_a_factory_that_raises(loop, run, family):
    def factory():
        raise ZeroDivisionError

    async def main():
        with socket.create_server((HOSTS[family], 0), family=family) as listener:
            before = open_fds()
            with left_to_the_collector(loop), pytest.raises(ZeroDivisionError):
                await loop.create_connection(factory, *listener.getsockname()[:2])
            assert open_fds() == before

    run(main())


def test_connection_made_that_raises(loop, run):
    class Bad(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            contexts = capture(loop)
            transport, protocol = await loop.create_connection(
                Bad, *server.sockets[0].getsockname()
            )
            assert isinstance(contexts[0]["exception"], ZeroDivisionError)
            transport.close()
            await protocol.lost

    run(main())


def test_the_factory_is_in_the_task_and_its_context(loop, run):
    variable = contextvars.ContextVar("variable")
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(variable.get(None))

    def factory():
        seen.append((asyncio.current_task(), variable.get(None)))
        variable.set("factory")
        return Protocol()

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            variable.set("program")
            transport, _ = await loop.create_connection(
                factory, *server.sockets[0].getsockname()
            )
            transport.abort()
            assert seen[0] == (asyncio.current_task(), "program")
            assert seen[1] == ("program" if sys.version_info >= (3, 15) else "factory")
            assert variable.get() == "factory"

    run(main())


def test_no_descriptor_is_left(loop):
    script = """
        import asyncio, contextlib, errno, importlib, os, resource, socket, sys
        async def main():
            loop = asyncio.get_running_loop()
            with socket.create_server(("127.0.0.1", 0)) as listener:
                address = listener.getsockname()
                resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
                taken = []
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                try:
                    await loop.create_connection(asyncio.Protocol, *address)
                except OSError as exc:
                    assert exc.errno == errno.EMFILE, exc
                os.close(taken.pop())
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
                transport.abort()
        factory = importlib.import_module(sys.argv[1]).new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    """
    run_script(loop, script)


def test_a_protocol_that_looks_at_its_socket(loop, run, family):
    """As soon as it can, and when all is over."""

    class Looks(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.sock = transport.get_extra_info("socket")
            self.names = self.sock.getsockname(), self.sock.getpeername()

    async def main():
        async with await loop.create_server(Echo, HOSTS[family], 0) as server:
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(Looks, *address[:2])
            assert transport.get_extra_info("socket") is protocol.sock
            assert protocol.names == (transport.get_extra_info("sockname"), address)
            transport.write(b"x")
            await protocol.received(1)
            transport.close()
            await protocol.lost
            await settle()
            assert protocol.sock.fileno() == -1

    run(main())


def test_replaced_sleep_is_left_alone(loop, run, monkeypatch):
    """Tests of retries put their own function in the place of asyncio.sleep()."""

    async def sleep(*args):
        raise AssertionError("that was meant for the program")

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "sleep", sleep)
                patch.setattr(asyncio.tasks, "sleep", sleep)
                transport, protocol = await loop.create_connection(Recorder, *address)
            transport.close()
            await protocol.lost

    run(main())
