"""asyncio's StreamReader, with what its reads do nearly always in C.

A reader whose data comes through one of fastloop's transports gets this class with its
first data. What is unusual, and everything that is refused, is asyncio's own method's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ._core import read_exactly, read_some, read_until


class StreamReader(asyncio.StreamReader):
    """asyncio.StreamReader, its own methods in all but the time that they take."""

    __slots__ = ()
    _buffer: bytearray
    _waiter: Any

    async def read(self, n: int = -1) -> bytes:
        """Read up to n bytes; see asyncio.StreamReader.read()."""
        data: Any = read_some(self, n, False)
        while type(data) is not bytes:
            if data is None:
                return await super().read(n)
            try:
                await data
            finally:
                self._waiter = None
            data = read_some(self, n, True)
        return data

    async def readexactly(self, n: int) -> bytes:
        """Read exactly n bytes; see asyncio.StreamReader.readexactly()."""
        data: Any = read_exactly(self, n, False)
        while type(data) is not bytes:
            if data is None:
                return await super().readexactly(n)
            try:
                await data
            finally:
                self._waiter = None
            data = read_exactly(self, n, True)
        return data

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Read until a separator; see asyncio.StreamReader.readuntil()."""
        data: Any = read_until(self, separator, -1)
        while type(data) is not bytes:
            if data is None:
                return await super().readuntil(separator)
            seen = len(self._buffer)
            try:
                await data
            finally:
                self._waiter = None
            data = read_until(self, separator, seen)
        return data

    async def readline(self) -> bytes:
        """Read a line; see asyncio.StreamReader.readline()."""
        data: Any = read_until(self, b"\n", -1)
        while type(data) is not bytes:
            if data is None:
                return await super().readline()
            seen = len(self._buffer)
            try:
                await data
            finally:
                self._waiter = None
            data = read_until(self, b"\n", seen)
        return data
