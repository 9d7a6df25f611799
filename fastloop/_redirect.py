"""Puts fastloop where asyncio makes a loop for a program that does not name fastloop.

This is what ``python -m fastloop`` and the pytest plugin do. It is not a policy: it
neither warns on Python 3.14 and newer, nor is it undone by a program that resets the
policy to asyncio's default. A program that chooses another loop gets that loop.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from asyncio import events, unix_events
from collections.abc import Callable, Iterator
from typing import Any

from ._loop import Loop
from ._run import new_event_loop

_IN_CHILD = """\
try:
    from fastloop._redirect import redirect
except ImportError:
    pass
else:
    redirect()
"""


def redirect() -> Callable[[], None]:
    """Make fastloop the loop of this process; return a function that takes it back.

    The loops of ``asyncio.run``, ``Runner``, ``new_event_loop``, ``get_event_loop`` and
    ``unittest.IsolatedAsyncioTestCase`` are then fastloop's, in every thread, and so is
    what ``asyncio.EventLoop()`` and ``asyncio.SelectorEventLoop()`` return. A subclass
    of these, or one with a selector of its own, stays what it is. Processes that
    multiprocessing starts afresh do the same, if they can import fastloop.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, value in _replacements():
            stack.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, value)
        return stack.pop_all().close


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    policy = getattr(unix_events, "_UnixDefaultEventLoopPolicy", None)
    if policy is not None and "_loop_factory" in vars(policy):
        yield policy, "_loop_factory", Loop
    else:  # a Python without policies
        yield events, "new_event_loop", new_event_loop
        yield asyncio, "new_event_loop", new_event_loop

    stand_in = _stand_in_for(asyncio.SelectorEventLoop)
    yield asyncio, "SelectorEventLoop", stand_in
    if hasattr(asyncio, "EventLoop"):  # since Python 3.13, the same class
        yield asyncio, "EventLoop", stand_in

    try:
        from multiprocessing import spawn
    except ImportError:  # an interpreter that was built without it
        return
    yield spawn, "get_preparation_data", _with_passenger(spawn.get_preparation_data)


def _stand_in_for(genuine: Any) -> Any:
    """A subclass of genuine that makes a Loop when called as a program does.

    What it makes counts as its instance. A program's own subclasses are as before.
    """

    class StandIn(genuine, metaclass=abc.ABCMeta):  # type: ignore[misc]
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is StandIn and all(
                value is None for value in (*args, *kwargs.values())
            ):
                return Loop()
            return super().__new__(cls)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(StandIn, name, getattr(genuine, name))
    StandIn.register(Loop)
    return StandIn


class _Passenger:
    """Travels to a new process with multiprocessing's own data and acts on arrival.

    It is unpickled as plain source, which does not fail where fastloop is missing.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_IN_CHILD, {})


def _with_passenger(prepare: Callable[[str], dict[str, Any]]) -> Any:
    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**prepare(name), "fastloop": _Passenger()}

    return get_preparation_data
