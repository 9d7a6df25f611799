"""sock_* coroutines: cancelled, beside other users of the descriptor, with wrong arguments."""

import asyncio
import contextlib
import socket
import time

import pytest
from iosupport import capture, in_thread, is_stock, raw_pair, turns


def test_cancelled_before_its_first_step_takes_nothing(loop, run, pair):
    a, b = pair

    async def main():
        b.send(b"kept")
        task = asyncio.create_task(loop.sock_recv(a, 100))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await loop.sock_recv(a, 100) == b"kept"

    run(main())


def test_closed_without_a_step_takes_nothing(loop, run, pair):
    a, b = pair

    async def main():
        b.send(b"kept")
        coro = loop.sock_recv(a, 100)
        coro.close()
        assert await loop.sock_recv(a, 100) == b"kept"

    run(main())


def test_cancelled_while_waiting(loop, run, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_reader(a) is False
        b.send(b"kept")
        await turns()
        assert await loop.sock_recv(a, 100) == b"kept"

    run(main())


def test_cancelled_in_the_turn_in_which_data_came(loop, run, pair):
    a, b = pair

    async def main():
        for _ in range(20):
            task = asyncio.create_task(loop.sock_recv(a, 100))
            await turns()
            b.send(b"kept")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await loop.sock_recv(a, 100) == b"kept"

    run(main())


@pytest.mark.parametrize("order", ["cancel first", "data first"])
def test_cancelled_by_a_callback_of_the_same_poll(loop, run, pair, order):
    if is_stock(loop):
        pytest.skip("drops what it read when the cancellation comes after the read")
    a, b = pair

    async def main():
        c, d = socket.socketpair()
        with c, d:
            for _ in range(20):
                task = asyncio.create_task(loop.sock_recv(a, 100))
                if order == "data first":
                    await turns()

                def cancel(task=task):
                    loop.remove_reader(c)
                    c.recv(1)
                    task.cancel()

                loop.add_reader(c, cancel)
                await turns()
                for sock in (d, b) if order == "cancel first" else (b, d):
                    sock.send(b"k")
                try:
                    assert await task == b"k"
                except asyncio.CancelledError:
                    assert await loop.sock_recv(a, 100) == b"k"
                await turns()
                loop.remove_reader(c)

    run(main())


def test_timeouts_lose_nothing(loop, run, pair):
    if is_stock(loop):
        pytest.skip("drops what it read when the cancellation comes after the read")
    a, b = pair
    total = 2000

    def send():
        for number in range(total):
            b.send(b"%d," % number)
            if number % 3 == 0:
                time.sleep(0.0002)

    async def main():
        received = bytearray()
        b.setblocking(True)
        sending = in_thread(send)
        while received.count(b",") < total:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0003):
                    received += await loop.sock_recv(a, 7)
        await sending
        assert received == b"".join(b"%d," % number for number in range(total))

    run(main())


def test_timeout_then_data(loop, run, pair):
    a, b = pair

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(a, 10), 0.01)
        b.send(b"x")
        assert await asyncio.wait_for(loop.sock_recv(a, 10), 10) == b"x"

    run(main())


def test_cancelled_accept_loses_no_client(loop, run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            for _ in range(10):
                task = asyncio.create_task(loop.sock_accept(listener))
                await turns()
                with socket.create_connection(listener.getsockname()) as client:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    conn, address = await loop.sock_accept(listener)
                    conn.close()
                    assert address == client.getsockname()

    run(main())


def test_cancelled_sendall_stops_sending(loop, run, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_sendall(a, bytes(20_000_000)))
        await turns()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(a) is False
        # What the kernel took arrives, and nothing after it.
        a.shutdown(socket.SHUT_WR)
        received = 0
        while chunk := await loop.sock_recv(b, 1 << 18):
            received += len(chunk)
        assert 0 < received < 20_000_000

    run(main())


def test_cancelled_connect(loop, run):
    async def main():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            # A full accept queue keeps further connections waiting.
            waiting = []
            try:
                while True:
                    sock = socket.socket()
                    sock.setblocking(False)
                    waiting.append(sock)
                    async with asyncio.timeout(0.2):
                        await loop.sock_connect(sock, listener.getsockname())
            except TimeoutError:
                assert loop.remove_writer(waiting[-1]) is False
            finally:
                for sock in waiting:
                    sock.close()
            assert len(waiting) < 20

    run(main())


# Beside other users of the descriptor


def test_reader_and_writer_at_once(loop, run, pair):
    a, b = pair

    async def main():
        receiving = asyncio.create_task(loop.sock_recv(a, 10))
        sending = asyncio.create_task(loop.sock_sendall(a, bytes(5_000_000)))
        await turns()
        assert not receiving.done()
        assert not sending.done()
        b.send(b"x")
        assert await receiving == b"x"
        assert not sending.done()
        left = 5_000_000
        while left:
            left -= len(await loop.sock_recv(b, 1 << 18))
        await sending

    run(main())


def test_waiting_replaces_a_reader_callback(loop, run, pair):
    a, b = pair
    stale = []

    async def main():
        loop.add_reader(a, stale.append, 1)
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await turns()
        b.send(b"x")
        assert await task == b"x"
        assert loop.remove_reader(a) is False

    run(main())
    assert stale == []


def test_callback_added_later_survives_the_cancelled_wait(loop, run, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await turns()
        seen = loop.create_future()

        def on_readable():
            loop.remove_reader(a)
            seen.set_result(a.recv(10))

        loop.add_reader(a, on_readable)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        b.send(b"x")
        assert await seen == b"x"

    run(main())


def test_descriptor_of_a_transport_is_refused(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            protocol.transport.pause_reading()
            sock = socket.socket(
                fileno=protocol.transport.get_extra_info("socket").fileno()
            )
            sock.setblocking(False)
            try:
                with pytest.raises(
                    RuntimeError, match=r"File descriptor .* is used by transport"
                ):
                    await loop.sock_recv(sock, 10)
                with pytest.raises(
                    RuntimeError, match=r"File descriptor .* is used by transport"
                ):
                    await loop.sock_sendall(sock, bytes(10_000_000))
            finally:
                sock.detach()

    run(main())


def test_works_with_wait_for_gather_and_shield(loop, run, pair):
    a, b = pair

    async def main():
        reads = asyncio.gather(loop.sock_recv(a, 1), loop.sock_recv(b, 1))
        await turns()
        a.send(b"1")
        b.send(b"2")
        assert await reads == [b"2", b"1"]
        inner = asyncio.create_task(loop.sock_recv(a, 1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.01)
        b.send(b"3")
        assert await inner == b"3"
        done, pending = await asyncio.wait(
            [asyncio.create_task(loop.sock_sendall(a, b"x"))]
        )
        assert len(done) == 1 and not pending

    run(main())


def test_awaited_from_a_generator_based_step(loop, run, pair):
    a, b = pair

    class Wrapped:
        def __await__(self):
            return loop.sock_recv(a, 10).__await__()

    async def main():
        b.send(b"x")
        assert await Wrapped() == b"x"
        task = asyncio.ensure_future(Wrapped())
        await turns()
        b.send(b"y")
        assert await task == b"y"

    run(main())


def test_many_pairs_at_once(loop, run):
    count = 100

    async def main():
        pairs = [socket.socketpair() for _ in range(count)]
        try:
            for a, b in pairs:
                a.setblocking(False)
                b.setblocking(False)

            async def echo(sock):
                while data := await loop.sock_recv(sock, 1000):
                    await loop.sock_sendall(sock, data)

            async def ask(sock, index):
                for turn in range(10):
                    message = b"%d/%d" % (index, turn)
                    await loop.sock_sendall(sock, message)
                    assert await loop.sock_recv(sock, 1000) == message
                sock.shutdown(socket.SHUT_WR)

            await asyncio.gather(
                *(echo(b) for _, b in pairs),
                *(ask(a, index) for index, (a, _) in enumerate(pairs)),
            )
        finally:
            for a, b in pairs:
                a.close()
                b.close()

    contexts = capture(loop)
    run(main())
    assert contexts == []


# While it awaits the resolution of a name


class Look:
    """What getaddrinfo() of the loop does."""

    def __init__(self, loop, answer):
        self.seen = []
        self.answer = answer
        loop.getaddrinfo = self.look_up

    async def look_up(self, *args, **kwargs):
        for _ in range(5):
            try:
                await asyncio.get_running_loop().create_future()
            except BaseException as exc:
                self.seen.append(type(exc).__name__)
                if (done := self.answer(exc)) is not None:
                    return done


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def connecting():
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


def infos(listener):
    kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
    return [(*kind, listener.getsockname())]


def test_a_resolver_that_answers_what_was_thrown(loop, run, connecting, listener):
    look = Look(loop, lambda exc: infos(listener))

    async def main():
        address = ("name.invalid", 1)
        task = asyncio.create_task(loop.sock_connect(connecting, address))
        await turns()
        task.cancel()
        assert await task is None
        assert connecting.getpeername() == listener.getsockname()

    run(main())
    assert look.seen == ["CancelledError"]


def test_a_resolver_that_waits_on_after_what_was_thrown(
    loop, run, connecting, listener
):
    look = Look(
        loop, lambda exc: infos(listener) if isinstance(exc, ValueError) else None
    )

    async def main():
        listener.setblocking(False)
        address = ("name.invalid", 1)
        coro = loop.sock_connect(connecting, address)
        coro.send(None)
        assert asyncio.isfuture(coro.throw(KeyError()))
        assert look.seen == ["KeyError"]
        with contextlib.suppress(StopIteration):  # asyncio waits for the connection
            coro.throw(ValueError())
        conn, address = await loop.sock_accept(listener)
        conn.close()
        assert address == connecting.getsockname()
        coro.close()
        assert loop.remove_writer(connecting) is is_stock(loop)

    run(main())


def test_a_resolver_that_raises_something_else(loop, run, connecting):
    def answer(exc):
        raise OSError("no name")

    Look(loop, answer)

    async def main():
        coro = loop.sock_connect(connecting, ("name.invalid", 1))
        coro.send(None)
        with pytest.raises(OSError, match="no name"):
            coro.throw(KeyError())

    run(main())


def test_a_resolver_that_does_not_let_go(loop, run, connecting):
    look = Look(loop, lambda exc: [] if len(look.seen) > 1 else None)

    async def main():
        coro = loop.sock_connect(connecting, ("name.invalid", 1))
        coro.send(None)
        with pytest.raises(RuntimeError, match="coroutine ignored GeneratorExit"):
            coro.close()
        assert look.seen[0] == "GeneratorExit"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            coro.send(None)

    run(main())


# Arguments

PARAMETERS = {
    "sock_recv": ["sock", "n"],
    "sock_recv_into": ["sock", "buf"],
    "sock_recvfrom": ["sock", "bufsize"],
    "sock_recvfrom_into": ["sock", "buf"],
    "sock_sendall": ["sock", "data"],
    "sock_sendto": ["sock", "data", "address"],
    "sock_connect": ["sock", "address"],
    "sock_accept": ["sock"],
}


def listed(names):
    quoted = [f"'{name}'" for name in names]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


@pytest.mark.parametrize("name", PARAMETERS)
def test_missing_arguments(loop, name):
    method = getattr(loop, name)
    names = PARAMETERS[name]
    for given in range(len(names)):
        missing = names[given:]
        plural = "" if len(missing) == 1 else "s"
        with pytest.raises(TypeError) as info:
            method(*range(given))
        assert str(info.value).endswith(
            f".{name}() missing {len(missing)} required positional argument{plural}: "
            + listed(missing)
        )
    if len(names) > 1:
        with pytest.raises(TypeError, match=f"missing .*: {listed(names[:-1])}"):
            method(**{names[-1]: 1})


@pytest.mark.parametrize("name", PARAMETERS)
def test_wrong_arguments(loop, name):
    method = getattr(loop, name)
    given = range(len(PARAMETERS[name]))
    with pytest.raises(TypeError, match=r"takes .* positional arguments but \d"):
        method(*given, 1, 2)
    with pytest.raises(
        TypeError, match=rf"\.{name}\(\) got an unexpected keyword argument 'other'"
    ):
        method(*given, other=1)
    with pytest.raises(
        TypeError, match=rf"\.{name}\(\) got multiple values for argument 'sock'"
    ):
        method(*given, sock=1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_too_many_arguments(loop, name):
    method = getattr(loop, name)
    least = len(PARAMETERS[name]) + 1
    most = least + (name == "sock_recvfrom_into")
    takes = f"{most}" if least == most else f"from {least} to {most}"
    with pytest.raises(
        TypeError,
        match=f" takes {takes} positional arguments but {most + 1} were given",
    ):
        method(*range(most))
    # Names are looked at first.
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        method(*range(most), other=1)
    with pytest.raises(TypeError, match="multiple values for argument 'sock'"):
        method(*range(most), sock=1)


def test_no_socket_at_all(loop, run):
    first = {"sock_accept": "fileno", "sock_connect": "family", "sock_sendall": "send"}
    for name, parameters in PARAMETERS.items():
        asked = first.get(name, name.removeprefix("sock_"))
        with pytest.raises(AttributeError, match=f"has no attribute '{asked}'"):
            run(getattr(loop, name)(*[None, b"data", None][: len(parameters)]))


def test_arguments_by_name(loop, run, udp_pair):
    a, b = udp_pair

    async def main():
        buffer = bytearray(10)
        address = a.getsockname()
        assert await loop.sock_sendto(address=address, data=b"one", sock=b) == 3
        assert await loop.sock_recvfrom(a, bufsize=10) == (b"one", b.getsockname())
        await loop.sock_sendto(b, data=b"two", address=address)
        received = await loop.sock_recvfrom_into(a, nbytes=2, buf=buffer)
        assert received == (2, b.getsockname())
        assert buffer[:3] == b"tw\0"

    run(main())
