"""Every method and attribute of the native types, called with whatever there is.

    python fuzz.py SEED SECONDS

Objects whose special methods raise, close the loop, run the collector, drop references,
run a nested call or return the wrong thing meet every C entry point. Whatever is raised
is fine, SystemError apart; the process must live. Prints the number of calls.
"""

import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import socket
import sys
import time
import types
import warnings

import fastloop
from fastloop import _core

SKIPPED = {
    "run_forever",  # they would block
    "run_until_complete",
    "_run",
    "_run_once",
    "serve",
    "set_exception_handler",
    "__class__",
    "__init_subclass__",
    "__subclasshook__",
    "__reduce__",
    "__reduce_ex__",
    "add_signal_handler",
    "subprocess_exec",
    "subprocess_shell",
    "__del__",
}


class World:
    """What hostile objects reach for."""

    def __init__(self, draw):
        self.draw = draw
        self.loop = None
        self.things = []
        self.depth = 0

    def mischief(self):
        """Run inside whatever C was doing."""
        if self.depth > 2:
            return
        self.depth += 1
        try:
            what = self.draw.randrange(12)
            if what == 0:
                raise ZeroDivisionError
            if what == 1:
                gc.collect(0)
            elif what == 2 and self.things:
                self.things.pop(self.draw.randrange(len(self.things)))
            elif what == 3 and self.draw.random() < 0.2:
                if not self.loop.is_running():
                    self.loop.close()
            elif what == 4:
                self.loop.call_soon(print_nothing)
            elif what == 5:
                time.sleep(0)
            elif what == 6 and self.things:
                thing = self.draw.choice(self.things)
                for name in "close", "abort", "cancel", "pause_reading":
                    if hasattr(thing, name):
                        with contextlib.suppress(Exception):
                            getattr(thing, name)()
                        break
            elif what == 7:
                self.loop.stop()
        finally:
            self.depth -= 1


def print_nothing(*args, **kwargs):
    pass


world = World(random.Random())


NAMES = """
__eq__ __hash__ __index__ __int__ __float__ __bool__ __len__ __iter__ __next__
__getitem__ __call__ __str__ __repr__ __del__ __await__ __enter__ __exit__
__fspath__ __bytes__ __contains__ __add__ __radd__ __lt__ fileno cancelled
data_received connection_made connection_lost get_buffer buffer_updated
eof_received pause_writing resume_writing datagram_received error_received
close recv send accept
"""


def hostile_class(base):
    """A subclass of base, all of whose special methods make mischief."""

    def make(name, plain):
        def method(self, *args):
            world.mischief()
            return plain(self, *args) if plain else world.draw.choice(VALUES)

        method.__name__ = name
        return method

    body = {}
    for name in NAMES.split():
        plain = getattr(base, name, None)
        if name == "__del__":
            plain = print_nothing
        if name in ("__repr__", "__str__"):
            plain = object.__repr__
        if name == "__hash__":
            plain = plain or object.__hash__
        body[name] = make(name, plain)
    if base is object:

        def missing(self, name):
            world.mischief()
            if name.startswith("__"):
                raise AttributeError(name)
            return world.draw.choice(VALUES)

        body["__getattr__"] = missing
    return type(f"Hostile{base.__name__.title()}", (base,), body)


BASES = [object, str, bytes, bytearray, int, float, tuple, list, dict]
CLASSES = [hostile_class(base) for base in BASES] + [
    hostile_class(asyncio.Protocol),
    hostile_class(asyncio.BufferedProtocol),
    hostile_class(asyncio.DatagramProtocol),
    hostile_class(Exception),
]
VALUES = [
    None, True, 0, 1, -1, 3, 1 << 40, -(1 << 70), 1.5, float("nan"), float("inf"), "", "x",
    "127.0.0.1", b"", b"bytes", bytearray(b"array"), memoryview(b"view"),
    memoryview(bytearray(20))[::2], (), ("127.0.0.1", 9), ("::1", 9, 0, 0), [], [b"a", b"b"],
    {}, {"a": 1}, print_nothing, ZeroDivisionError(), OSError(9, "x"), object(), int, Ellipsis,
    asyncio.Protocol(), asyncio.DatagramProtocol(),
]  # fmt: skip


def value():
    draw = world.draw
    what = draw.randrange(10)
    if what < 4:
        return draw.choice(VALUES)
    if what < 7:
        with contextlib.suppress(Exception):
            return draw.choice(CLASSES)()
    if world.things:
        return draw.choice(world.things)
    return world.loop


def new_world():
    """A loop with one of each native thing that a program can hold."""
    loop = fastloop.new_event_loop()
    loop.set_exception_handler(print_nothing)
    world.loop = loop
    world.things = things = [loop]
    things.append(loop.call_soon(print_nothing))
    things.append(loop.call_later(0.001, print_nothing))
    things.append(loop.call_soon_threadsafe(print_nothing, 1))
    one, two = socket.socketpair()
    protocol = world.draw.choice(CLASSES[9:11])()

    async def make():
        with contextlib.suppress(Exception):
            things.append((await loop.create_connection(lambda: protocol, sock=one))[0])
        with contextlib.suppress(Exception):
            things.append((await loop.create_connection(asyncio.Protocol, sock=two))[0])
        with contextlib.suppress(Exception):
            things.append(
                (await loop.create_datagram_endpoint(CLASSES[11], ("127.0.0.1", 0)))[0]
            )
        r, w = os.pipe()
        for fd, mode, connect in (
            (r, "rb", loop.connect_read_pipe),
            (w, "wb", loop.connect_write_pipe),
        ):
            with contextlib.suppress(Exception):
                things.append(
                    (await connect(asyncio.Protocol, os.fdopen(fd, mode, 0)))[0]
                )
        with contextlib.suppress(Exception):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            things.append(server)
            things.extend(server.sockets)
        things.append(loop.create_future())
        with contextlib.suppress(Exception):
            await loop.run_in_executor(None, print_nothing)
        things.append(loop.create_task(asyncio.sleep(0)))

    with contextlib.suppress(Exception):
        bounded_run(loop, make())
    for each in world.loop._ready:
        things.append(each)
    return loop


def bounded_run(loop, coro):
    timer = loop.call_later(1, loop.stop)
    try:
        return loop.run_until_complete(coro)
    finally:
        timer.cancel()


def one_turn(loop):
    """Run what is ready, even where the loop's own methods were replaced."""
    _core.Loop.stop(loop)
    fastloop.Loop.run_forever(loop)


def end_world(loop):
    things, world.things = world.things, []
    for thing in things:
        for name in "abort", "close":
            if isinstance(thing, asyncio.BaseTransport) and hasattr(thing, name):
                with contextlib.suppress(Exception):
                    getattr(thing, name)()
    del things
    world.depth = 99
    with contextlib.suppress(BaseException):
        for task in asyncio.all_tasks(loop):
            task.cancel()
    for _ in range(5):
        with contextlib.suppress(BaseException):
            one_turn(loop)
    with contextlib.suppress(BaseException):
        loop._default_executor.shutdown(wait=False)
    with contextlib.suppress(BaseException):
        fastloop.Loop.close(loop)
    with contextlib.suppress(BaseException):
        _core.Loop._release(loop)
    world.depth = 0
    asyncio._set_running_loop(None)


def native(thing):
    """The names of what is C of ours in the type of thing."""
    return [
        name
        for cls in type(thing).__mro__
        if cls.__module__.startswith(("fastloop", "_core"))
        and isinstance(cls.__dict__.get("__doc__"), (str, types.NoneType))
        for name, member in vars(cls).items()
        if name not in SKIPPED and not isinstance(member, types.FunctionType)
    ]


def attack():
    """One call of one entry point."""
    draw = world.draw
    if draw.random() < 0.05:
        target = draw.choice([each for each in vars(_core).values() if callable(each)])
    else:
        thing = draw.choice(world.things)
        names = native(thing)
        if not names:
            return
        name = draw.choice(names)
        if draw.random() < 0.1:
            if draw.random() < 0.5:
                setattr(thing, name, value())
            else:
                delattr(thing, name)
            return
        target = getattr(thing, name)
    arguments = [value() for _ in range(draw.choice([0, 1, 1, 2, 2, 3, 4, 6]))]
    keywords = {}
    if draw.random() < 0.2:
        for name in draw.sample(
            ["context", "data", "protocol", "name", "addr", "loop"], 2
        ):
            keywords[name] = value()
    if callable(target):
        result = target(*arguments, **keywords)
        if asyncio.iscoroutine(result):
            with contextlib.suppress(RuntimeError):
                result.close()
        elif draw.random() < 0.3 and len(world.things) < 60:
            world.things.append(result)


def main():
    faulthandler.enable()
    seed, seconds = int(sys.argv[1]), float(sys.argv[2])
    world.draw = random.Random(seed)
    warnings.simplefilter("ignore")
    sys.unraisablehook = print_nothing
    calls = bad = 0
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        faulthandler.dump_traceback_later(60, exit=True)
        world.depth = 99  # a peaceful beginning
        loop = new_world()
        world.depth = 0
        for _ in range(150):
            if not world.things:
                world.things.append(loop)
            calls += 1
            try:
                attack()
            except SystemError as exc:
                print("SystemError", exc)
                bad += 1
            except BaseException:
                pass
            if world.draw.random() < 0.05:
                with contextlib.suppress(BaseException):
                    one_turn(loop)
        end_world(loop)
        del loop
        gc.collect()
    faulthandler.cancel_dump_traceback_later()
    print(calls, "calls,", rounds, "worlds,", bad, "SystemError")
    sys.stdout.flush()
    os._exit(bad > 0)


if __name__ == "__main__":
    main()
