"""asyncio's BaseEventLoop, with the private names that this package leans on.

The type stubs of the standard library leave private names out; here they are declared
for the type checker. _names.py checks that the running Python has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ._names import check

if TYPE_CHECKING:

    class BaseLoop(asyncio.BaseEventLoop):
        """BaseEventLoop as it is, private parts and all."""

        _asyncgen_firstiter_hook: Any
        _asyncgen_finalizer_hook: Any
        _old_agen_hooks: Any

        _debug: bool

        def __del__(self) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _run_forever_setup(self) -> None: ...  # from 3.12 on
        def _run_forever_cleanup(self) -> None: ...  # from 3.12 on

        _getaddrinfo_debug: Callable[..., Any]
        _create_connection_transport: Callable[..., Coroutine[Any, Any, Any]]

    MixinBase = BaseLoop
else:
    BaseLoop = asyncio.BaseEventLoop
    MixinBase = object

check()
