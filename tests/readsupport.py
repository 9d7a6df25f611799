"""What the tests of a StreamReader's reads share."""

import contextlib
import sys

from iosupport import fed, is_stock, turned_until

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
async def used(**options):
    """A reader that data has reached before, and the plain socket at the other end."""
    async with fed(**options) as (reader, _, _, peer):
        await there(reader, peer, b"x")
        assert await reader.read(1) == b"x"
        yield reader, peer


def call(reader, name):
    """Have it read five bytes, or a line, by the method of that name."""
    method = getattr(reader, name)
    return method(5) if name in ("read", "readexactly") else method()
