"""Naming callbacks: what the C code has timed, as the records that hooks get.

Only those that were slow, or that somebody samples, come here.
"""

from __future__ import annotations

import asyncio
import functools
import types
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from .metrics import SlowCallback

if TYPE_CHECKING:
    from ._loop import Loop

_EVENT = 2  # FlProbeKind of probe.h
_TIMER = 1
_READABLE = ~4  # every EPOLL* bit but EPOLLOUT
_STEPS = 8  # of wrappers, or of coroutines that await each other: no more are looked at


def report(
    loop: Loop, what: Any, kind: int, events: int, wall: float, cpu: float
) -> None:
    """A callback was slow: log it and tell the hook."""
    slow = describe(what, kind, events, wall, cpu)
    if not loop.get_debug():  # which has its own words for it
        logger.warning("Slow %s", slow)
    hook = loop.slow_callback_hook
    if hook is not None:
        hook(slow)


def sample(
    loop: Any, what: Any, kind: int, events: int, wall: float, cpu: float
) -> None:
    """A callback was timed: tell whoever samples."""
    if loop._sampler is not None:  # pragma: no branch - its thread may end meanwhile
        loop._sampler(describe(what, kind, events, wall, cpu))


def describe(
    what: Any, kind: int, events: int, wall: float, cpu: float
) -> SlowCallback:
    """Return the record of a callback."""
    task = None
    if kind == _EVENT:
        name, of, called = _of_event(what, events)
        source = source_of(called)
    else:
        called = _unwrapped(what)
        owner = getattr(called, "__self__", None)
        if isinstance(owner, asyncio.Task):
            task, of = owner, "task"
            name, source = name_of_task(owner), source_of_task(owner)
        else:
            of = "timer" if kind == _TIMER else "callback"
            if isinstance(owner, asyncio.BaseProtocol):
                of = "protocol"
            if type(called).__name__ == "Job":
                of = "executor"
            name, source = name_of(called), source_of(called)
    return SlowCallback(of, name, source, wall, cpu, task, called)


def _of_event(owner: Any, events: int) -> tuple[str, str, Any]:
    """Return (name, kind, what was called) for an event that owner heard of."""
    readable = bool(events & _READABLE)
    protocol = _protocol(owner)
    if protocol is None:
        kind = type(owner).__name__.lower()
        of = {"listener": "server", "reader": "reader"}.get(kind, "callback")
        factory = getattr(owner, "_factory", None)
        if factory is not None:
            return f"accept, with {name_of(factory)}", of, factory
        return type(owner).__name__, of, None
    if not readable:
        method = "resume_writing"
    elif isinstance(protocol, asyncio.BufferedProtocol):
        method = "buffer_updated"
    elif isinstance(owner, asyncio.DatagramTransport):
        method = "datagram_received"
    else:
        method = "data_received"
    called = getattr(protocol, method, None)
    return f"{type(protocol).__qualname__}.{method}", "protocol", called


def _protocol(owner: Any) -> Any:
    """Return the program's protocol over a transport, above TLS; None without one."""
    above = None
    for _ in range(_STEPS):  # pragma: no branch - TLS in TLS is not that deep
        if not isinstance(owner, asyncio.BaseTransport):
            break
        owner = above = owner.get_protocol()
    return above


def _unwrapped(callback: Any) -> Any:
    """Return what functools.partial and decorators stand for."""
    for _ in range(_STEPS):
        if isinstance(callback, functools.partial):
            callback = callback.func
        elif not isinstance(getattr(callback, "__self__", None), asyncio.Task) and (
            hasattr(callback, "__wrapped__")
        ):
            callback = callback.__wrapped__
        else:
            break
    return callback


def name_of(callback: Any) -> str:
    """Return the name of what is called."""
    name = getattr(callback, "__qualname__", None)
    if not isinstance(name, str):
        return repr(callback)
    owner = getattr(callback, "__self__", None)
    if owner is not None and not isinstance(owner, (types.ModuleType, type)):
        # A method that a class inherited: say whose it is.
        return f"{type(owner).__qualname__}.{name.rpartition('.')[2]}"
    return name


def source_of(callback: Any) -> str:
    """Return "file:line" of a function, a method, a class or an object that is called.

    Empty for what is not written in Python.
    """
    callback = _unwrapped(callback)
    if isinstance(callback, type):
        callback = vars(callback).get("__init__")
    elif not hasattr(callback, "__code__") and not hasattr(callback, "__func__"):
        callback = type(callback).__call__ if callable(callback) else None
    code = getattr(getattr(callback, "__func__", callback), "__code__", None)
    if code is None:
        return ""
    return f"{code.co_filename}:{code.co_firstlineno}"


def name_of_task(task: asyncio.Task[Any]) -> str:
    """Return the task's name and its coroutine's."""
    coro = task.get_coro()
    name = getattr(coro, "__qualname__", None) or type(coro).__name__
    return f"{task.get_name()} ({name})" if coro is not None else task.get_name()


def source_of_task(task: asyncio.Task[Any]) -> str:
    """Return "file:line" of where the task is, or where its coroutine begins."""
    coro: Any = task.get_coro()
    best = ""
    for _ in range(_STEPS):
        code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        if code is None:
            break
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if best and _is_of_asyncio(code):
            break
        line = frame.f_lineno if frame is not None else None
        best = f"{code.co_filename}:{line or code.co_firstlineno}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return best


def _is_of_asyncio(code: types.CodeType) -> bool:
    return code.co_filename.startswith(_ASYNCIO)


_ASYNCIO = asyncio.__file__.rpartition("/")[0] + "/"
