"""Which methods of a protocol hear of data: those of the one that is set."""

import asyncio
import gc
import weakref

from iosupport import is_stock, raw_pair, settle


class Hears(asyncio.Protocol):
    """Notes what comes, and how often its method was looked up.

    The end is told to the one that it takes the place of.
    """

    def __init__(self, before):
        self.connection_lost = before.connection_lost
        self.got = []
        self.asked = 0

    @property
    def data_received(self):
        self.asked += 1
        return self.got.append


async def send(peer, data):
    peer.sendall(data)
    await settle()


def test_the_method_is_looked_up_once(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            own = Hears(protocol)
            protocol.transport.set_protocol(own)
            for data in (b"one", b"two", b"three"):
                await send(peer, data)
            assert own.got == [b"one", b"two", b"three"]
            assert own.asked == (3 if is_stock(loop) else 1)

    run(main())


def test_another_protocol_hears_from_then_on(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            first, second = Hears(protocol), Hears(protocol)
            for own in (first, second, first):
                protocol.transport.set_protocol(own)
                await send(peer, b"data")
            assert (len(first.got), len(second.got)) == (2, 1)

    run(main())


def test_a_look_up_that_sets_another_protocol(run):
    """One of the two hears of the first piece, and only the other of the next."""

    class Leaves(asyncio.Protocol):
        def __init__(self, transport, follower):
            self.transport, self.follower = transport, follower
            self.got = []

        @property
        def data_received(self):
            self.transport.set_protocol(self.follower)
            return self.got.append

    async def main():
        async with raw_pair() as (protocol, peer):
            transport, follower = protocol.transport, Hears(protocol)
            own = Leaves(transport, follower)
            transport.set_protocol(own)
            await send(peer, b"one")
            await send(peer, b"two")
            assert own.got + follower.got == [b"one", b"two"]
            assert follower.got[-1] == b"two"

    run(main())


def test_a_protocol_that_was_replaced_is_let_go_of(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            own = Hears(protocol)
            protocol.transport.set_protocol(own)
            await send(peer, b"data")
            protocol.transport.set_protocol(protocol)
            gone = weakref.ref(own)
            del own
            gc.collect()
            assert gone() is None

    run(main())
