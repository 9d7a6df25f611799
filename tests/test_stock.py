"""Asyncio's own methods, and what a program has put in the place of one of them."""

import asyncio

import pytest
from iosupport import Echo, Recorder, fed


def test_a_method_of_another_object(run):
    """It is one of the class's own, but another reader gets the data."""

    async def main():
        async with fed() as (reader, _, _, peer):
            other = asyncio.StreamReader(loop=asyncio.get_running_loop())
            reader.feed_data = other.feed_data
            peer.send(b"data")
            assert await other.read(10) == b"data"
            assert not reader._buffer
            del reader.feed_data
            peer.send(b"more")
            assert await reader.read(10) == b"more"

    run(main())


@pytest.mark.parametrize("name", ["_ensure_resolved", "_connect_sock"])
def test_a_class_further_up(loop, run, monkeypatch, name):
    """It is changed between two calls, and changed back."""
    original = getattr(asyncio.BaseEventLoop, name)
    calls = []

    def own(self, *args, **kwargs):
        calls.append(name)
        return original(self, *args, **kwargs)

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            for changed in (False, True, False):
                with monkeypatch.context() as patch:
                    if changed:
                        patch.setattr(asyncio.BaseEventLoop, name, own)
                    transport, protocol = await loop.create_connection(
                        Recorder, *server.sockets[0].getsockname()
                    )
                assert bool(calls) == changed
                calls.clear()
                transport.close()
                await protocol.lost

    run(main())


def test_a_class_that_is_asked_for_each_attribute(loop_factory):
    asked = []
    loop = loop_factory()
    loop.close()

    class Own(type(loop)):
        def __getattribute__(self, name):
            asked.append(name)
            return super().__getattribute__(name)

    async def main():
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            asked.clear()
            transport, protocol = await loop.create_connection(
                Recorder, *server.sockets[0].getsockname()
            )
            assert "_connect_sock" in asked
            transport.close()
            await protocol.lost

    with asyncio.Runner(loop_factory=Own) as runner:
        runner.run(main())
