"""The first turn of a run, and what happens between two runs."""

import asyncio
import contextlib
import functools
import os
import socket
import time

import pytest
from conftest import TIMEOUT


@pytest.fixture
def pair(loop):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(TIMEOUT)
    with ours, theirs:
        yield ours, theirs


class Recorder(asyncio.Protocol):
    def __init__(self, calls):
        self.calls = calls

    def data_received(self, data):
        self.calls.append(data)


def test_the_first_step_is_ahead_of_what_the_run_reads(loop, pair):
    """It may put up what the read is for."""
    ours, theirs = pair
    calls = []
    transport, _ = loop.run_until_complete(
        loop.create_connection(lambda: Recorder(calls), sock=ours)
    )
    theirs.sendall(b"data")

    async def main():
        calls.append("step")
        while len(calls) < 2:
            await asyncio.sleep(0)
        transport.abort()

    loop.run_until_complete(main())
    assert calls == ["step", b"data"]


def test_one_turn_reads_what_is_there(loop, pair):
    ours, theirs = pair
    calls = []
    transport, _ = loop.run_until_complete(
        loop.create_connection(lambda: Recorder(calls), sock=ours)
    )
    theirs.sendall(b"data")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert calls == [b"data"]
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def connect(loop, sock, protocol):
    return loop.run_until_complete(loop.create_connection(lambda: protocol, sock=sock))[
        0
    ]


def end(loop, *transports):
    for transport in transports:
        transport.abort()
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("closes", [False, True], ids=["sends", "closes"])
def test_what_a_callback_queues_is_ahead_of_what_it_causes(loop, closes):
    """It queues up behind this batch, and the look for events comes behind both."""
    calls = []

    class Protocol(Recorder):
        def eof_received(self):
            calls.append("eof")

    async def main():
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(lambda: Protocol(calls), sock=ours)

        def cause(times):
            if times > 0:
                calls.append(times)
                loop.call_soon(cause, times - 1)
                return
            if closes:
                theirs.close()
            else:
                theirs.send(b"data")
            loop.call_soon(calls.append, "queued")

        for times in range(0, 200, 7):  # for the looks that a loop may leave out
            calls.clear()
            cause(times)
            while len(calls) < times + 2:
                await asyncio.sleep(0)
            assert calls[times:] == ["queued", "eof" if closes else b"data"]
            if closes:
                transport.abort()
                ours, theirs = socket.socketpair()
                transport, _ = await loop.create_connection(
                    lambda: Protocol(calls), sock=ours
                )
        transport.abort()
        theirs.close()

    loop.run_until_complete(main())


LARGE = 1 << 15  # leaves at once


class Sender:
    """What sends or ends something in a turn, by the names of its methods."""

    def __init__(self, loop, sock, loose, far, transport, datagrams, pipe):
        self.loop = loop
        self.sock = sock
        self.loose = loose
        self.far = far
        self.transport = transport
        self.datagrams = datagrams
        self.pipe = pipe

    async def write(self):
        self.transport.write(b"data")

    async def write_large(self):
        self.transport.write(bytes(LARGE))

    async def write_large_buffer(self):
        self.transport.write(bytearray(LARGE))

    async def write_eof(self):
        self.transport.write_eof()

    async def write_and_end(self):
        self.transport.write(b"data")
        self.transport.write_eof()

    async def close(self):
        self.transport.close()

    async def abort(self):
        self.transport.abort()

    async def pipe_write(self):
        self.pipe.write(b"data")

    async def pipe_write_large(self):
        self.pipe.write(bytes(LARGE))

    async def pipe_write_large_buffer(self):
        self.pipe.write(bytearray(LARGE))

    async def pipe_close(self):
        self.pipe.close()

    async def sendto(self):
        self.datagrams.sendto(b"data")

    async def sock_sendall(self):
        await self.loop.sock_sendall(self.sock, b"data")

    async def sock_sendto(self):
        address = self.far.get_extra_info("sockname")
        await self.loop.sock_sendto(self.loose, b"data", address)


class Hearer(asyncio.DatagramProtocol, Recorder):
    """Notes the first that is heard."""

    def __init__(self, calls):
        self.calls = calls

    def data_received(self, data):
        self.hear()

    def datagram_received(self, data, address):
        self.hear()

    def eof_received(self):
        self.hear()

    def hear(self):
        if "heard" not in self.calls:
            self.calls.append("heard")


@pytest.mark.parametrize(
    "name", [name for name in vars(Sender) if not name.startswith("_")]
)
def test_what_a_turn_sends_is_heard_of_in_the_next(loop, name):
    """However many callbacks are ready. An end is one or two turns away itself."""
    calls = []
    length = 12

    def chain(count):
        calls.append(count)
        if count < length:
            loop.call_soon(chain, count + 1)

    async def once(turns):
        # What is sent to a socket of this kind is there when the call returns.
        ours, theirs = socket.socketpair()
        raw, far = socket.socketpair()
        one, other, loose, bound = [
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(4)
        ]
        for sock in (one, other, bound):
            sock.bind("")  # to a name of the kernel's choice
        one.connect(other.getsockname())
        other.connect(one.getsockname())
        for sock in (raw, one, other, loose, bound):
            sock.setblocking(False)
        reading, writing = os.pipe()
        hearer = functools.partial(Hearer, calls)
        ends = [
            await loop.create_connection(asyncio.Protocol, sock=ours),
            await loop.create_connection(hearer, sock=theirs),
            await loop.create_connection(hearer, sock=far),
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=one),
            await loop.create_datagram_endpoint(hearer, sock=other),
            await loop.create_datagram_endpoint(hearer, sock=bound),
            await loop.connect_write_pipe(
                asyncio.BaseProtocol, os.fdopen(writing, "wb", 0)
            ),
            await loop.connect_read_pipe(hearer, os.fdopen(reading, "rb", 0)),
        ]
        transports = [transport for transport, _ in ends]
        sender = Sender(
            *(loop, raw, loose, transports[5]),
            *(transports[0], transports[3], transports[6]),
        )
        for _ in range(turns):  # for the looks that a loop may leave out
            await asyncio.sleep(0)
        calls.clear()
        loop.call_soon(chain, 0)
        await getattr(sender, name)()
        while len(calls) < length + 2:
            await asyncio.sleep(0)
        for transport in transports:
            transport.close()
        raw.close()
        loose.close()
        await asyncio.sleep(0)
        return calls.index("heard")

    turn = {"close": 2, "abort": 2, "pipe_close": 3}.get(name, 1)
    heard = [loop.run_until_complete(once(turns)) for turns in range(0, 70, 3)]
    assert set(heard) == {turn}


async def watched(kind, protocol, stack):
    """A transport of the kind that is about to begin to read, and who fills it."""
    loop = asyncio.get_running_loop()
    if kind == "pipe":
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        fill = functools.partial(os.write, writing, b"data")
        return fill, loop.connect_read_pipe(protocol, os.fdopen(reading, "rb", 0))
    kinds = {"unix": socket.SOCK_STREAM, "datagrams": socket.SOCK_DGRAM}
    ours, theirs = socket.socketpair(type=kinds[kind])
    stack.callback(theirs.close)
    fill = functools.partial(theirs.send, b"data")
    if kind == "datagrams":
        return fill, loop.create_datagram_endpoint(protocol, sock=ours)
    return fill, loop.create_connection(protocol, sock=ours)


@pytest.mark.parametrize("kind", ["pipe", "unix", "datagrams"])
def test_what_is_there_when_reading_begins_is_ahead_of_what_the_next_step_queues(
    loop, kind
):
    """The step of who awaited the transport is ahead of both, however busy the loop."""

    async def once(turns):
        calls = []
        with contextlib.ExitStack() as stack:
            hearer = functools.partial(Hearer, calls)
            fill, connecting = await watched(kind, hearer, stack)
            fill()
            for _ in range(turns):  # for the looks that a loop may leave out
                await asyncio.sleep(0)
            transport, _ = await connecting
            calls.append("made")
            loop.call_soon(calls.append, "queued")
            while len(calls) < 3:
                await asyncio.sleep(0)
            transport.close()
            await asyncio.sleep(0)
        return calls

    for turns in range(0, 70, 3):
        assert loop.run_until_complete(once(turns)) == ["made", "heard", "queued"]


@pytest.mark.parametrize("kind", ["pipe", "unix"])
def test_what_is_there_when_reading_goes_on_is_heard_of_in_the_next_turn(loop, kind):
    async def once(turns):
        calls = []
        with contextlib.ExitStack() as stack:
            hearer = functools.partial(Hearer, calls)
            fill, connecting = await watched(kind, hearer, stack)
            transport, _ = await connecting
            transport.pause_reading()
            fill()
            for _ in range(turns):
                await asyncio.sleep(0)
            transport.resume_reading()
            while not calls:
                loop.call_soon(lambda: None)
                turns += 1
                await asyncio.sleep(0)
            transport.close()
            await asyncio.sleep(0)
        return turns

    for turns in range(0, 70, 3):
        assert loop.run_until_complete(once(turns)) == turns + 2


class Ended(asyncio.Protocol):
    """Notes how many turns it had made when the data came, and when the end did."""

    def __init__(self, turn):
        self.turn = turn
        self.data_at = self.end_at = None

    def data_received(self, data):
        self.data_at = self.turn[0]

    def eof_received(self):
        self.end_at = self.turn[0]


@pytest.mark.parametrize("kind", ["pipe", "unix"])
def test_the_end_is_heard_of_in_the_turn_behind_the_data(loop, kind):
    """However busy the loop is, and however long it was since it looked."""

    async def once(turns):
        turn = [0]

        def count():
            turn[0] += 1
            if protocol.end_at is None:
                loop.call_soon(count)

        with contextlib.ExitStack() as stack:
            fill, connecting = await watched(kind, lambda: Ended(turn), stack)
            transport, protocol = await connecting
            for _ in range(turns):
                await asyncio.sleep(0)
            loop.call_soon(count)
            fill()
        while protocol.end_at is None:
            await asyncio.sleep(0)
        transport.close()
        await asyncio.sleep(0)
        return protocol.end_at - protocol.data_at

    for turns in range(0, 70, 3):
        # A pipe's transport has its protocol called soon.
        assert loop.run_until_complete(once(turns)) == {"pipe": 2, "unix": 1}[kind]


@pytest.mark.parametrize("name", ["pause_reading", "close", "abort"])
def test_what_is_ready_ends_the_reading_of_what_has_come(loop, pair, name):
    ours, theirs = pair
    calls = []
    transport = connect(loop, ours, Recorder(calls))
    theirs.sendall(b"data")
    loop.call_soon(getattr(transport, name))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert calls == []
    if name == "pause_reading":
        transport.resume_reading()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert calls == [b"data"]
    end(loop, transport)


def test_a_descriptor_that_a_ready_callback_gives_to_another(loop, pair):
    """The event is not the newcomer's, whatever its number."""
    ours, theirs = pair
    calls, others = [], []
    transport = connect(loop, ours, Recorder(calls))
    theirs.sendall(b"data")
    number = ours.fileno()

    async def replace():
        transport.abort()
        await asyncio.sleep(0)
        third, fourth = socket.socketpair()
        assert third.fileno() == number
        fourth.setblocking(True)
        newcomer, _ = await loop.create_connection(lambda: Recorder(others), sock=third)
        await asyncio.sleep(0)
        fourth.sendall(b"other")
        while not others:
            await asyncio.sleep(0)
        newcomer.abort()
        fourth.close()

    loop.run_until_complete(replace())
    assert (calls, others) == ([], [b"other"])


@pytest.mark.parametrize("busy", [False, True])
def test_timers_stand_behind_what_has_come(loop, pair, busy):
    """So that data which came in time cancels its time-out, however late the loop is."""
    ours, theirs = pair
    calls = []

    class Protocol(Recorder):
        def data_received(self, data):
            calls.append(data)
            timer.cancel()

    def block():
        nonlocal timer
        timer = loop.call_later(0.002, calls.append, "late")
        loop.call_later(0.005, last)
        theirs.sendall(b"data")
        time.sleep(0.01)
        if busy:
            loop.call_soon(calls.append, "ready")

    def last():
        calls.append("timer")
        loop.stop()

    timer = None
    transport = connect(loop, ours, Protocol(calls))
    loop.call_soon(block)
    loop.run_forever()
    assert calls == ["ready", b"data", "timer"][not busy :]
    end(loop, transport)


def test_readers_stand_behind_what_is_ready(loop, pair, pipe):
    ours, theirs = pair
    reading, writing = pipe
    calls = []
    transport = connect(loop, ours, Recorder(calls))

    def read():
        calls.append(os.read(reading, 10))

    loop.add_reader(reading, read)
    theirs.sendall(b"data")
    os.write(writing, b"pipe")
    loop.call_soon(calls.append, "ready")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert calls[0] == "ready"
    assert sorted(calls[1:]) == [b"data", b"pipe"]
    loop.remove_reader(reading)
    end(loop, transport)


def test_what_has_come_outlives_an_exit(loop, pair, pipe):
    ours, theirs = pair
    reading, writing = pipe
    calls = []
    transport = connect(loop, ours, Recorder(calls))

    def leave():
        raise SystemExit

    def read():
        loop.remove_reader(reading)
        calls.append(os.read(reading, 10))

    for _ in range(2):
        calls.clear()
        theirs.sendall(b"data")
        os.write(writing, b"pipe")
        loop.add_reader(reading, read)
        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert calls == []
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert sorted(calls) == [b"data", b"pipe"]
    end(loop, transport)


def test_a_write_between_two_runs_leaves_at_once(loop, pair):
    ours, theirs = pair
    transport, _ = loop.run_until_complete(
        loop.create_connection(asyncio.Protocol, sock=ours)
    )
    transport.write(b"one")
    assert theirs.recv(10) == b"one"
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))


def test_a_pipe_s_write_between_two_runs_leaves_at_once(loop):
    reader, writer = os.pipe()
    try:
        transport, _ = loop.run_until_complete(
            loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writer, "wb", 0))
        )
        transport.write(b"one")
        assert os.read(reader, 10) == b"one"
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        os.close(reader)


def compute():
    """Take a millisecond, in which a loop can do much."""
    until = time.perf_counter() + 0.001
    while time.perf_counter() < until:
        pass


def heard(sock):
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return sock.recv(100)


def udp_pair():
    theirs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    theirs.bind(("127.0.0.1", 0))
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.connect(theirs.getsockname())
    ours.setblocking(False)
    return ours, theirs


@pytest.mark.parametrize("kind", ["stream", "datagrams"])
@pytest.mark.parametrize("timer", [False, True])
def test_an_answer_does_not_wait_for_what_others_compute(loop, kind, timer):
    """What a callback sends has left while later callbacks of its turn run."""
    answers = []
    ours, theirs = socket.socketpair() if kind == "stream" else udp_pair()
    with theirs:
        if kind == "stream":
            transport = connect(loop, ours, asyncio.Protocol())
            send = transport.write
        else:
            transport, _ = loop.run_until_complete(
                loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=ours)
            )
            send = transport.sendto

        def step():
            send(b"one")
            send(b"two")
            loop.call_soon(compute)
            loop.call_soon(send, b"three")
            loop.call_soon(compute)
            loop.call_soon(lambda: answers.extend(heard(theirs) for _ in range(3)))
            loop.call_soon(loop.stop)

        for _ in range(100):
            answers.clear()
            if timer:
                loop.call_later(0, step)
            else:
                step()
            loop.run_forever()
            assert b"".join(filter(None, answers)) == b"onetwothree"
        end(loop, transport)


@pytest.mark.parametrize("count", [3, 10])
def test_an_answer_does_not_wait_for_what_others_read(loop, count):
    """What is sent in data_received() has left while others of the turn are told."""
    early = []

    class Answering(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            answered = [peer for peer in peers if heard(peer) is not None]
            early.extend(answered)
            self.transport.write(data)
            compute()

    with contextlib.ExitStack() as stack:
        peers, transports = [], []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            peers.append(stack.enter_context(theirs))
            transports.append(connect(loop, ours, Answering()))
        for peer in peers:
            peer.send(b"data")
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert len(early) >= count - 2
        end(loop, *transports)


def test_a_turn_within_an_answer_that_leaves_late(loop, pair):
    """Who is told of an error while others compute, may take turns of the loop."""
    if not hasattr(loop, "run_once"):
        pytest.skip("asyncio's loop takes no turns within a callback")
    ours, theirs = pair
    turns = []

    class Told(asyncio.DatagramProtocol):
        def error_received(self, exc):
            turns.append(type(exc))
            loop.run_once(0)

    stream = connect(loop, ours, asyncio.Protocol())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    udp, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(Told, remote_addr=address)
    )
    udp.sendto(b"nobody is there")
    for _ in range(10):
        for datagram in [b"1", b"2", b"3"]:
            loop.call_soon(udp.sendto, datagram)
        loop.call_soon(stream.write, b"answer")
        loop.call_soon(compute)
        loop.call_soon(compute)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert theirs.recv(100) == b"answer"
    assert turns
    assert set(turns) == {ConnectionRefusedError}
    end(loop, stream, udp)


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
def test_what_was_written_before_an_exit_has_left(loop, pair, pipe, exc):
    ours, theirs = pair
    reading, writing = pipe
    stream = connect(loop, ours, asyncio.Protocol())
    file = os.fdopen(os.dup(writing), "wb", 0)
    writer, _ = loop.run_until_complete(
        loop.connect_write_pipe(asyncio.BaseProtocol, file)
    )

    def leave():
        stream.write(b"stream")
        writer.write(b"pipe")
        raise exc

    loop.call_soon(leave)
    with pytest.raises(exc):
        loop.run_forever()
    theirs.setblocking(False)
    os.set_blocking(reading, False)
    assert theirs.recv(10) == b"stream"
    assert os.read(reading, 10) == b"pipe"
    end(loop, stream, writer)


def test_what_is_sent_behind_an_exit_may_leave_with_another(loop, pair):
    """error_received() is called at once, or when the datagrams of the turn leave."""

    class Datagrams(asyncio.DatagramProtocol):
        def error_received(self, exc):
            raise KeyboardInterrupt

    stream = connect(loop, pair[0], asyncio.Protocol())
    datagrams, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
    )
    name = datagrams.get_extra_info("sockname")

    def leave():
        stream.write(b"data")
        datagrams.sendto(b"at once", name)
        try:
            datagrams.sendto(bytes(65508), name)  # a byte too much
        finally:
            raise SystemExit

    loop.call_soon(leave)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as left:
        loop.run_forever()
    seen = {left.type, type(left.value.__context__)}
    assert seen == {SystemExit, KeyboardInterrupt}
    assert pair[1].recv(10) == b"data"
    end(loop, stream, datagrams)


def test_add_callback(loop):
    """What asyncio's own code hands over is a handle of asyncio's."""
    calls = []
    kept = asyncio.Handle(calls.append, (1,), loop)
    dropped = asyncio.Handle(calls.append, (2,), loop)
    dropped.cancel()
    loop._add_callback(kept)
    loop._add_callback(dropped)
    assert list(loop._ready) == [kept]
    loop.run_until_complete(asyncio.sleep(0))
    assert calls == [1]


def test_a_transport_s_methods_can_be_replaced(loop, pair):
    ours, _theirs = pair
    transport, _ = loop.run_until_complete(
        loop.create_connection(asyncio.Protocol, sock=ours)
    )
    written = []
    transport.write = written.append
    transport.write(b"data")
    assert written == [b"data"]
    assert vars(transport)["write"] == written.append
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
