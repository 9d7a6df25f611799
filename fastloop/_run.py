"""How a program gets a loop: run(), new_event_loop() and install()."""

from __future__ import annotations

import asyncio
import sys
import warnings
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ._loop import Loop

_T = TypeVar("_T")


def new_event_loop() -> Loop:
    """Return a new event loop.

    It is the loop factory that ``asyncio.Runner(loop_factory=...)``, ``asyncio.run()``
    (since Python 3.12) and servers such as uvicorn ask for.
    """
    return Loop()


def run(
    main: Coroutine[Any, Any, _T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = new_event_loop,
    debug: bool | None = None,
) -> _T:
    """Run a coroutine in a new event loop of fastloop, and return its result.

    This is ``asyncio.run()`` of the running Python: it takes Ctrl-C as that does,
    cancels what is left of the tasks at the end, shuts down asynchronous generators and
    the default executor, and closes the loop.

    loop_factory makes the loop; None leaves the choice to asyncio. debug is the loop's
    debug mode; None leaves it to PYTHONASYNCIODEBUG and ``-X dev``.

    RuntimeError if a loop is running in this thread; ValueError (TypeError since Python
    3.14) if main is not a coroutine.
    """
    if sys.version_info >= (3, 12):
        return asyncio.run(main, debug=debug, loop_factory=loop_factory)
    # asyncio.run() of Python 3.11 has no loop_factory, its Runner does.
    if events._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)


def install() -> None:
    """Make every loop of this process that asyncio chooses one of fastloop.

    It sets asyncio's event loop policy to an EventLoopPolicy. asyncio deprecated
    policies in Python 3.14, so there it warns as ``asyncio.set_event_loop_policy()``
    does; run() and new_event_loop() are the ways that last.
    """
    from ._policy import EventLoopPolicy

    set_policy = getattr(events, "_set_event_loop_policy", None)
    if set_policy is None:
        asyncio.set_event_loop_policy(EventLoopPolicy())
        return
    # asyncio's own warning would name this line, not that of the caller.
    warnings.warn(  # pragma: no cover - since Python 3.14
        "'asyncio.set_event_loop_policy' is deprecated and slated for removal in "
        "Python 3.16",
        DeprecationWarning,
        stacklevel=2,
    )
    set_policy(EventLoopPolicy())  # pragma: no cover - since Python 3.14
