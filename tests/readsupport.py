"""What the tests of a StreamReader's reads share."""

import asyncio
import contextlib
import sys

from iosupport import fed, is_stock, turned_until, turns

TIMEOUT = 30

METHODS = ["read", "readexactly", "readuntil", "readline"]


def has_own(loop):
    """Whether readers of this loop get a class of its own."""
    return getattr(sys, "_is_gil_enabled", lambda: True)() and not is_stock(loop)


async def there(reader, peer, data):
    """Send data, and wait until the reader has them."""
    length = len(reader._buffer) + len(data)
    peer.send(data)
    await turned_until(lambda: len(reader._buffer) == length)


@contextlib.asynccontextmanager
async def holding(data, **options):
    """A reader that has these data, and the plain socket at the other end."""
    async with fed(**options) as (reader, _, _, peer):
        await there(reader, peer, data)
        yield reader, peer


@contextlib.asynccontextmanager
async def used(**options):
    """The same, and the data have been read."""
    async with holding(b"x", **options) as (reader, peer):
        assert await reader.read(1) == b"x"
        yield reader, peer


async def begun(reading):
    """Have a read begin, and wait for data. Return its task."""
    task = asyncio.ensure_future(reading)
    await turns()
    return task


def call(reader, name):
    """Have it read five bytes, or a line, by the method of that name."""
    method = getattr(reader, name)
    return method(5) if name in ("read", "readexactly") else method()
