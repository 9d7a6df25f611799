"""asyncio's StreamReader, with what its reads do nearly always in C.

A reader gets this class when data first reaches it through one of fastloop's
transports, or with the pipe or the child that it is for. What is unusual, and all that
is refused, is asyncio's own method's.

The wait stands in each method: as a coroutine of its own, which asyncio has for it, it
would cost each read that waits a frame.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ._core import read_exactly, read_some, read_until

_Reader = asyncio.StreamReader


class StreamReader(asyncio.StreamReader):
    """asyncio.StreamReader, its own methods in all but the time that they take."""

    __slots__ = ()
    _buffer: bytearray
    _eof: bool
    _exception: BaseException | None
    _limit: int
    _waiter: Any

    async def read(self, n: int = -1) -> bytes:
        """Read up to n bytes; see asyncio.StreamReader.read()."""
        data: Any = read_some(self, n, False)
        if data is None:
            return await super().read(n)
        while type(data) is not bytes:
            try:
                await data
            finally:
                self._waiter = None
            data = read_some(self, n, True)
            if data is None:
                return await super().read(n)
        return data

    async def readexactly(self, n: int) -> bytes:
        """Read exactly n bytes; see asyncio.StreamReader.readexactly()."""
        data: Any = read_exactly(self, n, False)
        if data is None:
            return await super().readexactly(n)
        while type(data) is not bytes:
            try:
                await data
            finally:
                self._waiter = None
            data = read_exactly(self, n, True)
            if data is None:
                return await _Reader.readexactly(self._begun(), n)
        return data

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Read until a separator; see asyncio.StreamReader.readuntil()."""
        data: Any = read_until(self, separator, -1)
        if data is None:
            return await super().readuntil(separator)
        while type(data) is not bytes:
            seen = len(self._buffer)
            try:
                await data
            finally:
                self._waiter = None
            data = read_until(self, separator, seen)
            if data is None:
                return await _Reader.readuntil(self._begun(), separator)
        return data

    async def readline(self) -> bytes:
        """Read a line; see asyncio.StreamReader.readline()."""
        data: Any = read_until(self, b"\n", -1)
        if data is None:
            return await super().readline()
        while type(data) is not bytes:
            seen = len(self._buffer)
            try:
                await data
            finally:
                self._waiter = None
            data = read_until(self, b"\n", seen)
            if data is None:
                return await _Reader.readline(self._begun())
        return data

    def _begun(self) -> asyncio.StreamReader:
        """Return the reader as a read of asyncio's sees it that has waited.

        It does not look for an exception that was set meanwhile, but for the end of the
        data and the limit: for these it gets a reader without an exception.
        """
        if self._exception is None or not (
            self._eof or len(self._buffer) > self._limit
        ):
            return self
        reader = _Reader.__new__(_Reader)
        vars(reader).update(vars(self), _exception=None)
        return reader
