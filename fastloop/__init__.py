"""A fast and faithful asyncio event loop.

The shortest way in is ``fastloop.run(main())`` where a program says
``asyncio.run(main())``. ``python -m fastloop script.py`` runs a program as it is.

Importing this package imports neither asyncio nor the native core: the names below
come when they are first used, so that a test run which does not ask for fastloop does
not pay for having it installed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import metrics as metrics
    from ._core import libuv_version
    from ._loop import Loop
    from ._policy import EventLoopPolicy as EventLoopPolicy
    from ._run import install, new_event_loop, run
    from ._watchdog import Block as Block
    from ._watchdog import Watchdog as Watchdog
    from ._watchdog import watchdog

__all__ = [
    "Loop",
    "__version__",
    "install",
    "libuv_version",
    "metrics",
    "new_event_loop",
    "run",
    "watchdog",
]
if sys.version_info < (3, 14):  # as in asyncio, whose policies are deprecated there
    __all__ += ["EventLoopPolicy"]

if not TYPE_CHECKING:  # to a type checker, a name that is not above is an error

    def __getattr__(name: str) -> object:
        # By statements, which are all that tools see which make a program one file.
        if name in ("install", "new_event_loop", "run"):
            from . import _run as home
        elif name == "Loop":
            from . import _loop as home
        elif name in ("Block", "Watchdog", "watchdog"):
            from . import _watchdog as home
        elif name == "EventLoopPolicy":
            from . import _policy as home
        elif name == "libuv_version":
            from . import _core as home
        elif name == "metrics":
            import fastloop.metrics

            return fastloop.metrics
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(home, name)
        if name == "EventLoopPolicy" and sys.version_info >= (3, 14):
            import warnings

            warnings.warn(
                f"'{__name__}.{name}' is deprecated and slated for removal "
                "in Python 3.16",
                DeprecationWarning,
                stacklevel=2,
            )
        else:
            globals()[name] = value
        return value


def __dir__() -> list[str]:
    # From Python 3.14 on without EventLoopPolicy, of which getting it warns: who looks
    # at all names, as help() does, is not warned by asyncio either.
    return sorted({*globals(), *__all__, "Block", "Watchdog"})
