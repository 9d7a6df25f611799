"""What only asyncio's Unix loop has, borrowed from it function by function.

These run once per server, connection attempt or signal handler. They are the running
Python's own functions, so they cannot drift from it; each works on any loop that has
the few hooks it calls.
"""

from __future__ import annotations

from asyncio import selector_events, unix_events
from typing import Any

_Unix: Any = unix_events._UnixSelectorEventLoop
_Selector: Any = selector_events.BaseSelectorEventLoop


class UnixMixin:
    """Methods of asyncio's Unix loops that need nothing of a selector."""

    create_unix_connection = _Unix.create_unix_connection
    create_unix_server = _Unix.create_unix_server
    add_signal_handler = _Unix.add_signal_handler
    remove_signal_handler = _Unix.remove_signal_handler
    _handle_signal = _Unix._handle_signal
    _check_signal = _Unix._check_signal
    _process_self_data = _Unix._process_self_data
    _accept_connection = _Selector._accept_connection
    _accept_connection2 = _Selector._accept_connection2
    _sock_sendfile_native = _Unix._sock_sendfile_native
    _sock_sendfile_native_impl = _Unix._sock_sendfile_native_impl
    _sock_sendfile_update_filepos = _Unix._sock_sendfile_update_filepos
    _sock_add_cancellation_callback = _Unix._sock_add_cancellation_callback
