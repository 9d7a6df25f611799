"""Names and addresses: what needs no look-up is answered at once, without a thread.

The answer is that of ``socket.getaddrinfo`` itself in either case, so results, errors
and audit events are the same. What may ask files or a name server runs in the executor.
"""

from __future__ import annotations

import functools
import re
import socket
from typing import TYPE_CHECKING, Any

from ._base import BaseLoop, MixinBase

_getaddrinfo = socket.getaddrinfo
_getnameinfo = socket.getnameinfo

_IPV4 = re.compile(r"[0-9A-Fa-fXx.]+", re.ASCII)
"""inet_aton() also takes what follows a space, which getaddrinfo() looks up."""

_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class DnsMixin(MixinBase):
    """getaddrinfo() and getnameinfo() of the loop."""

    _resolve_literal: Any  # native: the usual case, three times as fast

    if not TYPE_CHECKING:  # their types are asyncio's

        @functools.wraps(BaseLoop.getaddrinfo)
        async def getaddrinfo(
            self,
            host: Any,
            port: Any,
            *,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> Any:
            """Return what socket.getaddrinfo() does; literals need no thread."""
            # A program that replaced the socket module's function may block in it.
            own = socket.getaddrinfo is _getaddrinfo
            if own and not self._debug:
                infos = self._resolve_literal(host, port, family, type, proto, flags)
                if infos is not None:
                    return infos
            if own and _is_literal(host, port, flags):
                self._check_closed()
                look_up = self._getaddrinfo_debug if self._debug else _getaddrinfo
                return look_up(host, port, family, type, proto, flags)
            return await super().getaddrinfo(
                host, port, family=family, type=type, proto=proto, flags=flags
            )

        @functools.wraps(BaseLoop.getnameinfo)
        async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
            """Return what socket.getnameinfo() does; numbers need no thread."""
            if (
                socket.getnameinfo is _getnameinfo
                and isinstance(flags, int)
                and flags & _NUMERIC == _NUMERIC
            ):
                self._check_closed()
                return _getnameinfo(sockaddr, flags)
            return await super().getnameinfo(sockaddr, flags)


def _is_literal(host: object, port: object, flags: object) -> bool:
    """Whether getaddrinfo() finds the answer, or the error, in its arguments alone."""
    if not isinstance(flags, int):
        return False
    if isinstance(port, (str, bytes)):
        # Anything else is the name of a service, or looks like one.
        if not (port.isascii() and port.isdigit()):
            return False
    elif port is not None and not isinstance(port, int):
        return False
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if not isinstance(host, str):
        return host is None
    if not host.isascii():
        return False
    if flags & socket.AI_NUMERICHOST:
        return True
    try:
        if ":" in host:
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        elif _IPV4.fullmatch(host):
            socket.inet_aton(host)
        else:
            return False
    except (OSError, ValueError):
        return False
    return True
