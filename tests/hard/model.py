"""Random programs, and what can be observed of them on a loop.

A program is a list of instructions for a few tasks, drawn by hypothesis (programs()).
observe() runs it on a loop and returns its trace: what asyncio promises about the order
and the outcome of things, and nothing that time or chance decide.
"""

import asyncio
import contextlib
import contextvars
import socket
import threading

from hypothesis import strategies as st

variable = contextvars.ContextVar("variable", default=0)


class Boom(Exception):
    pass


# Instructions are tuples: (name, a small number[, a block, which is a list of them]).
PLAIN = "note yield soon soon_then soon_raises soon_cancelled later_cancelled set"
TOGETHER = "wake wait cancel join raise"
TIMED = "thread job echo write close reader sleep later"
_number = st.integers(0, 3)


def _instructions(leaves, blocks):
    return st.recursive(
        st.tuples(st.sampled_from(leaves.split()), _number),
        lambda inner: st.tuples(
            st.sampled_from(blocks.split()), _number, st.lists(inner, max_size=4)
        ),
        max_leaves=8,
    )


def _tasks(instruction):
    return st.lists(st.lists(instruction, max_size=6), min_size=1, max_size=4)


def ordered_programs():
    """Of tasks that deal with each other: the whole order of what happens is a promise."""
    return _tasks(
        _instructions(f"{PLAIN} {TOGETHER}", "timeout try group gather shield callback")
    )


def timed_programs():
    """With I/O, threads and timers, of tasks that leave each other alone."""
    return _tasks(_instructions(f"{PLAIN} {TIMED}", "try gather shield callback"))


class Machine:
    """Runs a program and notes what it sees."""

    def __init__(self, loop, program):
        self.loop = loop
        self.program = program
        self.trace = []
        self.events = [asyncio.Event() for _ in range(4)]
        self.tasks = []
        self.streams = {}
        self.count = 0

    def note(self, *what):
        self.trace.append(what)

    async def run(self):
        for number, block in enumerate(self.program):
            self.tasks.append(self.loop.create_task(self.block(f"t{number}", block)))
        if is_ordered(self.program):
            for _ in range(300):
                await asyncio.sleep(0)
            pending = [task for task in self.tasks if not task.done()]
        else:
            _, pending = await asyncio.wait(self.tasks)
        # One that takes the cancellation and waits again is cancelled again.
        while waiting := [task for task in pending if not task.done()]:
            for task in waiting:
                task.cancel()
            for _ in range(20):
                await asyncio.sleep(0)
        outcomes = []
        for number, task in enumerate(self.tasks):
            if task.cancelled():
                outcomes.append((number, "cancelled"))
            elif task.exception() is not None:
                outcomes.append((number, type(task.exception()).__name__))
            else:
                outcomes.append((number, "done"))
        self.note("outcomes", len(pending), tuple(outcomes))
        for transport, _ in self.streams.values():
            transport.abort()
        await asyncio.sleep(0.002)

    async def block(self, name, block):
        for number, instruction in enumerate(block):
            what, *arguments = instruction
            await getattr(self, "do_" + what)(f"{name}.{number}", *arguments)

    async def do_note(self, name, n):
        self.note(name, n, variable.get())

    async def do_yield(self, name, n):
        for _ in range(n):
            await asyncio.sleep(0)
        self.note(name, "back")

    async def do_soon(self, name, n):
        for each in range(n):
            self.loop.call_soon(self.note, name, "soon", each)

    async def do_soon_then(self, name, n):
        def again(left):
            self.note(name, "again", left, variable.get())
            variable.set(left + 10)
            if left:
                self.loop.call_soon(again, left - 1)

        self.loop.call_soon(again, n)

    async def do_soon_raises(self, name, n):
        def fail():
            self.note(name, "fails")
            raise Boom(name)

        self.loop.call_soon(fail)

    async def do_soon_cancelled(self, name, n):
        handles = [self.loop.call_soon(self.note, name, each) for each in range(3)]
        handles[n % 3].cancel()
        if n == 3:
            self.loop.call_soon(handles[1].cancel)

    async def do_later(self, name, n):
        done = self.loop.create_future()
        # One clock reading, so that the order is a promise.
        now = self.loop.time()
        for each in (n, 0, 1):
            self.loop.call_at(now + each * 0.001, self.note, name, "at", each)
        self.loop.call_at(now + 0.004, done.set_result, None)
        await done

    async def do_later_cancelled(self, name, n):
        handle = self.loop.call_later(0, self.note, name, "must not run")
        handle.cancel()
        self.note(name, handle.cancelled())

    async def do_wake(self, name, n):
        self.events[n].set()

    async def do_wait(self, name, n):
        await self.events[n].wait()
        self.note(name, "woken")

    async def do_cancel(self, name, n):
        if n < len(self.tasks):
            self.note(name, self.tasks[n].cancel())

    async def do_join(self, name, n):
        if n < len(self.tasks) and self.tasks[n] is not asyncio.current_task():
            done, _ = await asyncio.wait([self.tasks[n]])
            self.note(name, "joined", len(done))

    async def do_set(self, name, n):
        variable.set(n)

    async def do_raise(self, name, n):
        if n == 3:
            raise Boom(name)

    async def do_sleep(self, name, n):
        await asyncio.sleep(0.0005 * n)

    async def do_thread(self, name, n):
        woken = self.loop.create_future()
        seen = []

        def call():
            for each in range(n + 1):
                self.loop.call_soon_threadsafe(seen.append, each)
            self.loop.call_soon_threadsafe(
                lambda: woken.done() or woken.set_result(None)
            )

        thread = threading.Thread(target=call)
        thread.start()
        try:
            await woken
            self.note(name, "thread", tuple(seen))
        finally:
            thread.join()

    async def do_job(self, name, n):
        variable.set(n)
        self.note(name, await asyncio.to_thread(lambda: (n, variable.get())))

    async def stream(self):
        """A pair of transports of this task: (ours, what the other end got)."""
        key = asyncio.current_task()
        if key not in self.streams:
            one, two = socket.socketpair()
            peer = Peer()
            await self.loop.create_connection(lambda: peer, sock=two)
            ours, protocol = await self.loop.create_connection(Peer, sock=one)
            self.streams[key] = ours, peer
            protocol.other = peer
        return self.streams[key]

    async def do_write(self, name, n):
        ours, peer = await self.stream()
        if not ours.is_closing():
            before = len(peer.data)
            ours.writelines([b"ab", bytes(n * 20_000), bytearray(b"c")])
            await peer.until(before + n * 20_000 + 3)
        self.note(name, "written", ours.is_closing(), len(peer.data), peer.events)

    async def do_echo(self, name, n):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            try:
                writer.write(b"line\n" * n + b"end\n")
                writer.write_eof()
                self.note(name, await reader.read())
            finally:
                writer.close()
        finally:
            server.close()

    async def serve(self, reader, writer):
        try:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
        finally:
            writer.close()

    async def do_close(self, name, n):
        ours, peer = await self.stream()
        if n % 2:
            ours.abort()
        else:
            ours.close()
        with contextlib.suppress(RuntimeError):
            ours.write(b"too late")
        await peer.lost.wait()
        self.note(name, "closed", tuple(peer.events))

    async def do_reader(self, name, n):
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            ready = asyncio.Event()
            self.loop.add_reader(one, ready.set)
            try:
                two.send(b"x")
                await ready.wait()
                self.note(name, "readable", one.recv(10))
            finally:
                self.note(name, self.loop.remove_reader(one))

    async def do_timeout(self, name, n, body):
        try:
            async with asyncio.timeout(None if n else -1):
                await self.block(name, body)
        except TimeoutError:
            self.note(name, "timed out")

    async def do_try(self, name, n, body):
        try:
            await self.block(name, body)
        except Boom as exc:
            self.note(name, "caught", str(exc))
        except asyncio.CancelledError:
            self.note(name, "cancelled")
            if n != 3:
                raise
        finally:
            self.note(name, "finally")

    async def do_group(self, name, n, body):
        try:
            async with asyncio.TaskGroup() as group:
                for each in range(min(n, 1)):  # it cancels them in the order of a set
                    group.create_task(self.block(f"{name}/{each}", body))
        except* Boom as exc:
            self.note(name, "group", len(exc.exceptions))

    async def do_gather(self, name, n, body):
        results = await asyncio.gather(
            *(self.block(f"{name}/{each}", body) for each in range(n)),
            return_exceptions=True,
        )
        self.note(name, tuple(type(result).__name__ for result in results))

    async def do_shield(self, name, n, body):
        inner = self.loop.create_task(self.block(name, body))
        try:
            await asyncio.shield(inner)
        finally:
            while not inner.done():
                inner.cancel()
                await asyncio.sleep(0)
            self.note(name, "shielded", inner.cancelled())

    async def do_callback(self, name, n, body):
        task = self.loop.create_task(self.block(name, body))
        task.add_done_callback(lambda task: self.note(name, "callback"))
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
        self.note(name, "done", task.cancelled())
        if not task.cancelled():
            task.exception()


class Peer(asyncio.Protocol):
    def __init__(self):
        self.data = bytearray()
        self.events = []
        self.changed = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.events.append("made")

    def data_received(self, data):
        self.data += data
        self.changed.set()

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append(("lost", exc))
        self.lost.set()
        self.changed.set()

    async def until(self, size):
        while len(self.data) < size and not self.lost.is_set():
            self.changed.clear()
            await self.changed.wait()


def is_ordered(program):
    """Whether program is one of ordered_programs()."""
    return not any(f"'{name}'" in repr(program) for name in TIMED.split())


def observe(loop_factory, program):
    """Return the trace: in order where that is promised, else in order for each name."""
    reports = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(
            lambda _, context: reports.append(
                (
                    context["message"].split()[:3],
                    type(context.get("exception")).__name__,
                )
            )
        )

        async def main():
            machine = Machine(loop, program)
            await machine.run()
            return machine.trace

        trace = runner.run(main())
    reports.sort(key=repr)
    if not is_ordered(program):
        trace = sorted(trace, key=lambda what: str(what[0]))
    return trace, reports
