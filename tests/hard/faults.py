"""System calls fail under a loop at work, and this says what came of it.

    LD_PRELOAD=faults.so python faults.py LOOP turn [STRIDE [SCENARIO]]
    LD_PRELOAD=faults.so python faults.py LOOP random SEED ROUNDS
    LD_PRELOAD=faults.so python faults.py LOOP refused

"turn" fails the first, the second, … call of each kind in each scenario with each of its
errors. "random" has all calls interrupted, refused and cut short, which must not show at
all. "refused" has a sandbox refuse a call for good that has a plainer kin. Bytes arrive whole and in order, or someone is told; and the loop goes on. Prints a
line of JSON: how many calls failed, and what was wrong.
"""

import asyncio
import contextlib
import ctypes
import errno
import faulthandler
import gc
import json
import logging
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import traceback

SHIM = ctypes.CDLL(None)
SHIM.fault_set.argtypes = [ctypes.c_char_p, ctypes.c_int] + [ctypes.c_long] * 3
SHIM.fault_random.argtypes = [ctypes.c_ulong, ctypes.c_int]
SHIM.fault_clear.restype = ctypes.c_long
SHORT = -1
PATIENCE = 1.0
"""Seconds until a scenario counts as stuck where an error excuses it."""

GUARD = 20.0
"""Seconds until it counts as stuck where nothing does, however busy the machine is."""

STREAM = "EINTR EAGAIN ECONNRESET ENOBUFS ENOMEM ETIMEDOUT"
ERRORS = {
    "accept4": "EINTR EAGAIN ECONNABORTED EMFILE ENFILE ENOBUFS ENOMEM ETIMEDOUT EPERM",
    "recv": STREAM + " SHORT",
    "readv": STREAM + " SHORT",
    "recvfrom": STREAM,
    "recvmsg": STREAM,
    "recvmmsg": STREAM,
    "send": STREAM + " EPIPE SHORT",
    "sendto": STREAM + " EPIPE",
    "sendmsg": STREAM + " EPIPE SHORT",
    "sendmmsg": STREAM + " EPIPE SHORT",
    "read": "EINTR EAGAIN EIO SHORT",
    "write": "EINTR EAGAIN EPIPE SHORT",
    "writev": "EINTR EAGAIN EPIPE SHORT",
    "sendfile": "EINTR EAGAIN ECONNRESET EPIPE ENOMEM SHORT",
    "epoll_create1": "EMFILE ENFILE ENOMEM",
    "epoll_ctl": "ENOMEM ENOSPC",
    "epoll_wait": "EINTR",
    "epoll_pwait": "EINTR",
    "eventfd": "EMFILE ENFILE ENOMEM",
    "timerfd_create": "EMFILE ENFILE ENOMEM",
    "timerfd_settime": "ECANCELED",
    "pidfd_open": "EMFILE ENFILE ENOMEM ENOSYS",
}
REFUSED = [
    *("readv", "recvmmsg", "sendmmsg", "writev", "waitid"),
    *("pidfd_open", "timerfd_create", "timerfd_settime"),
]
"""What has a plainer kin, or a way around it."""

MILD = {"EINTR", "EAGAIN", "SHORT"}
"""What a program never gets to see."""


class Run:
    """One scenario under one fault: what was reported, and what went wrong."""

    def __init__(self):
        self.reports = []

    def note(self, *args):
        self.reports.append(repr(args[-1])[:200])


class Receiver(asyncio.Protocol):
    def __init__(self, run):
        self.run = run
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        self.changed.set()

    def datagram_received(self, data, addr):
        self.data += data
        self.changed.set()

    def error_received(self, exc):
        self.run.note(exc)
        self.changed.set()

    def connection_lost(self, exc):
        if exc is not None:
            self.run.note(exc)
        if not self.lost.done():
            self.lost.set_result(None)
        self.changed.set()

    async def until(self, size):
        while len(self.data) < size and not self.lost.done() and not self.run.reports:
            self.changed.clear()
            await self.changed.wait()


class Echo(Receiver):
    def data_received(self, data):
        self.transport.write(data)


def pattern(size):
    return random.Random(size).randbytes(size)


def check(run, got, sent):
    """What arrived is the beginning of what was sent; all of it, unless told."""
    if not sent.startswith(bytes(got)):
        raise AssertionError("other bytes than were sent")
    if len(got) != len(sent) and not run.reports:
        raise AssertionError(f"{len(got)} of {len(sent)} bytes, and no error")


async def streams(run):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(run), "127.0.0.1", 0)
    try:
        address = server.sockets[0].getsockname()
        for writes in (
            [b"x" * 10],
            [pattern(300_000)],
            [bytearray(pattern(200_000)), pattern(30_000), b"end"],
        ):
            transport, protocol = await loop.create_connection(
                lambda: Receiver(run), *address
            )
            try:
                if len(writes) == 3:
                    transport.writelines(writes)
                else:
                    transport.write(writes[0])
                sent = b"".join(writes)
                await protocol.until(len(sent))
                check(run, protocol.data, sent)
            finally:
                transport.abort()
            await protocol.lost
    finally:
        server.close()


async def take(loop, sock):
    return await loop.sock_recv(sock, 30_000)


async def sockets(run):
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.socket())
        for each in listener, client:
            each.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        peer, _ = await accepting
        stack.enter_context(peer)
        data = pattern(100_000)
        sending = loop.create_task(loop.sock_sendall(client, data))
        got = bytearray()
        try:
            while len(got) < len(data):
                receiving = loop.create_task(take(loop, peer))
                while not receiving.done():
                    waits = {receiving, sending} if not sending.done() else {receiving}
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if sending.done() and sending.exception() is not None:
                        receiving.cancel()
                        await asyncio.wait([receiving])
                        sending.result()
                got += receiving.result()
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        check(run, got, data)


async def pipes(run):
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    reader, receiver = await loop.connect_read_pipe(
        lambda: Receiver(run), os.fdopen(r, "rb", 0)
    )
    writer, _ = await loop.connect_write_pipe(
        lambda: Receiver(run), os.fdopen(w, "wb", 0)
    )
    try:
        data = pattern(200_000)
        writer.write(data[:10])
        writer.write(data[10:150_000])
        writer.write(data[150_000:])
        await receiver.until(len(data))
        check(run, receiver.data, data)
    finally:
        writer.abort()
        reader.close()
        await asyncio.sleep(0)


async def datagrams(run):
    loop = asyncio.get_running_loop()
    one, receiver = await loop.create_datagram_endpoint(
        lambda: Receiver(run), ("127.0.0.1", 0)
    )
    two, _ = await loop.create_datagram_endpoint(
        lambda: Receiver(run), remote_addr=one.get_extra_info("sockname")
    )
    three, _ = await loop.create_datagram_endpoint(
        lambda: Receiver(run), ("127.0.0.1", 0)
    )
    try:
        data = pattern(1000)
        for start in range(0, 500, 50):
            two.sendto(data[start : start + 50])
        await receiver.until(500)
        for start in range(500, 1000, 50):
            three.sendto(data[start : start + 50], one.get_extra_info("sockname"))
        await receiver.until(1000)
        if not run.reports:
            check(run, receiver.data, data)
    finally:
        for each in one, two, three:
            each.close()
        await asyncio.sleep(0)


async def files(run):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(run), "127.0.0.1", 0)
    try:
        transport, protocol = await loop.create_connection(
            lambda: Receiver(run), *server.sockets[0].getsockname()
        )
        try:
            with tempfile.TemporaryFile() as file:
                data = pattern(100_000)
                file.write(data)
                file.flush()
                await loop.sendfile(transport, file, 0, len(data))
            await protocol.until(len(data))
            check(run, protocol.data, data)
        finally:
            transport.abort()
    finally:
        server.close()


async def processes(run):
    child = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    data = pattern(100_000)
    out, _ = await child.communicate(data)
    if len(out) != len(data):
        run.note("communicate() takes a pipe that broke for the child's wish")
    check(run, out, data)


async def timers(run):
    for delay in 0.0005, 0.001, 0.002:
        await asyncio.sleep(delay)


async def watchers(run):
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        readable, writable = loop.create_future(), loop.create_future()
        loop.add_reader(ours, lambda: readable.done() or readable.set_result(None))
        try:
            loop.add_writer(ours, lambda: writable.done() or writable.set_result(None))
            peer.send(b"x")
            await readable
            await writable
        finally:
            loop.remove_reader(ours)
            loop.remove_writer(ours)


async def threads(run):
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, len, "four") == 4
    assert await asyncio.to_thread(len, "four") == 4


SCENARIOS = [
    streams,
    sockets,
    pipes,
    datagrams,
    files,
    processes,
    timers,
    watchers,
    threads,
]


async def bounded(scenario, run):
    """TimeoutError where scenario is stuck, for good or because someone was told."""
    work = asyncio.ensure_future(scenario(run))
    deadline = time.monotonic() + GUARD
    while not work.done():
        await asyncio.wait([work], timeout=PATIENCE)
        if not work.done() and (run.reports or time.monotonic() > deadline):
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise TimeoutError
    return work.result()


def attempt(loop_factory, scenario, before, mild):
    """Run scenario; before() sets the fault. Return (faults made, problem or None)."""
    run = Run()
    problem = None
    fds = len(os.listdir("/proc/self/fd"))
    before()
    try:
        try:
            loop = loop_factory()
        except OSError as exc:
            run.note(exc)
            made = SHIM.fault_clear()
            loop = loop_factory()
        else:
            made = None
        loop.set_exception_handler(run.note)
        handler = logging.Handler(logging.WARNING)
        handler.handle = run.note
        logging.getLogger("asyncio").handlers[:] = [handler]
        task = None
        try:
            task = loop.create_task(bounded(scenario, run))
            loop.run_until_complete(task)
        except TimeoutError as exc:
            if exc.errno is None and not run.reports:
                problem = "stuck, and nobody was told"
        except AssertionError as exc:
            problem = str(exc)
        except OSError as exc:
            run.note(exc)
        made = SHIM.fault_clear() if made is None else made
        if mild and run.reports:
            problem = problem or f"told of what it should not see: {run.reports[:3]}"
        try:
            loop.run_until_complete(asyncio.wait_for(watchers(run), GUARD))
            loop.run_until_complete(asyncio.wait_for(timers(run), GUARD))
            loop.run_until_complete(loop.shutdown_default_executor())
        except BaseException as exc:
            problem = f"the loop does not go on: {exc!r}"
        finally:
            del task
            loop.close()
    except BaseException:
        SHIM.fault_clear()
        made = 1
        problem = traceback.format_exc()[-800:]
    finally:
        SHIM.fault_clear()
    gc.collect()
    deadline = time.monotonic() + GUARD
    while (left := len(os.listdir("/proc/self/fd")) - fds) > 0:
        if time.monotonic() > deadline:
            problem = problem or f"{left} descriptors are left"
            break
        time.sleep(0.01)
        gc.collect()
    return made, problem


def in_turn(loop_factory, stride, scenarios):
    made = 0
    problems = {}
    for scenario in scenarios:
        attempt(loop_factory, scenario, SHIM.fault_clear, False)  # warm
        for call, names in ERRORS.items():
            for name in names.split():
                code = SHORT if name == "SHORT" else getattr(errno, name)
                number = 0
                while number < 400:

                    def fault(call=call, code=code, number=number):
                        SHIM.fault_set(call.encode(), code, number, 0, 1)

                    faults, problem = attempt(
                        loop_factory, scenario, fault, name in MILD
                    )
                    made += faults
                    if problem:
                        problems[f"{scenario.__name__} {call} {name} {number}"] = (
                            problem
                        )
                    if not faults:
                        break
                    number += stride if number > 1 else 1
                if not number:
                    break  # the scenario has no such call
    return made, problems


def refused(loop_factory):
    made = 0
    problems = {}
    for call in REFUSED:
        for code in (errno.ENOSYS, errno.EPERM):

            def fault(call=call, code=code):
                SHIM.fault_set(call.encode(), code, 0, 1, 1 << 30)

            before = made
            for scenario in SCENARIOS:
                faults, problem = attempt(loop_factory, scenario, fault, True)
                made += faults
                if problem:
                    problems[f"{scenario.__name__} {call} {code}"] = problem
            if made == before:
                problems[f"{call} {code}"] = "is called by no scenario"
    return made, problems


def at_random(loop_factory, seed, rounds):
    made = 0
    problems = {}
    for scenario in SCENARIOS:
        attempt(loop_factory, scenario, SHIM.fault_clear, False)  # warm
    for number in range(rounds):
        draw = random.Random(f"{seed} {number}")
        scenario = draw.choice(SCENARIOS)
        one_in = draw.choice([2, 3, 10])
        faults, problem = attempt(
            loop_factory,
            scenario,
            lambda: SHIM.fault_random(seed + number, one_in),  # noqa: B023
            True,
        )
        made += faults
        if problem:
            problems[f"round {number} {scenario.__name__} 1/{one_in}"] = problem
    return made, problems


def main():
    faulthandler.enable()
    loop_name, how, *rest = sys.argv[1:]
    if loop_name == "asyncio":
        loop_factory = asyncio.SelectorEventLoop
    else:
        import fastloop

        loop_factory = fastloop.new_event_loop
    loop_factory().close()
    logging.getLogger("asyncio").propagate = False
    if how == "turn":
        stride = int(rest[0]) if rest else 1
        chosen = [each for each in SCENARIOS if each.__name__ in rest[1:]]
        made, problems = in_turn(loop_factory, stride, chosen or SCENARIOS)
    elif how == "refused":
        made, problems = refused(loop_factory)
    else:
        made, problems = at_random(loop_factory, int(rest[0]), int(rest[1]))
    print(json.dumps({"made": made, "problems": problems}))


if __name__ == "__main__":
    main()
