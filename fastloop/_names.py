"""asyncio's private names that the Python code leans on, in one place.

They are looked up when fastloop is imported, so that a Python which has lost one says
so at once. state.h has the same list for the C code.
"""

from __future__ import annotations

from importlib import import_module

NAMES = """
asyncio.base_events BaseEventLoop._asyncgen_finalizer_hook
asyncio.base_events BaseEventLoop._asyncgen_firstiter_hook
asyncio.base_events BaseEventLoop._check_closed
asyncio.base_events BaseEventLoop._check_running
asyncio.base_events BaseEventLoop._create_connection_transport
asyncio.base_events BaseEventLoop._getaddrinfo_debug
asyncio.base_events BaseEventLoop._set_coroutine_origin_tracking
asyncio.base_subprocess BaseSubprocessTransport._process_exited
asyncio.base_subprocess BaseSubprocessTransport._wait
asyncio.events _set_running_loop
asyncio.log logger
asyncio.selector_events BaseSelectorEventLoop._accept_connection
asyncio.selector_events BaseSelectorEventLoop._accept_connection2
asyncio.selector_events _SelectorSocketTransport
asyncio.sslproto _create_transport_context
asyncio.tasks _enter_task
asyncio.tasks _leave_task
asyncio.unix_events _UnixSelectorEventLoop._check_signal
asyncio.unix_events _UnixSelectorEventLoop._handle_signal
asyncio.unix_events _UnixSelectorEventLoop._process_self_data
asyncio.unix_events _UnixSelectorEventLoop._sock_add_cancellation_callback
asyncio.unix_events _UnixSelectorEventLoop._sock_sendfile_native
asyncio.unix_events _UnixSelectorEventLoop._sock_sendfile_native_impl
asyncio.unix_events _UnixSelectorEventLoop._sock_sendfile_update_filepos
asyncio.unix_events _UnixSelectorEventLoop.add_signal_handler
asyncio.unix_events _UnixSelectorEventLoop.create_unix_connection
asyncio.unix_events _UnixSelectorEventLoop.create_unix_server
asyncio.unix_events _UnixSelectorEventLoop.remove_signal_handler
asyncio.unix_events _UnixSubprocessTransport
"""


def check() -> None:
    """Raise ImportError, with the name, if asyncio has lost one of them."""
    for line in NAMES.split("\n")[1:-1]:
        module, _, path = line.partition(" ")
        found: object = import_module(module)
        try:
            for name in path.split("."):
                found = getattr(found, name)
        except AttributeError:
            raise ImportError(
                f"fastloop does not support this Python: {module} has no {path}"
            ) from None
