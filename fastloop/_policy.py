"""The event loop policy. Imported only by those who ask for it."""

from __future__ import annotations

from asyncio import unix_events
from typing import ClassVar

from ._loop import Loop


# The name without underscore warns from Python 3.14 on.
class EventLoopPolicy(unix_events._UnixDefaultEventLoopPolicy):
    """asyncio's default event loop policy, with loops of fastloop.

    Everything else, child watchers and which thread has a loop included, is as in
    asyncio on the running Python.
    """

    _loop_factory: ClassVar[type[Loop]] = Loop
