"""What fastloop leans on in asyncio, and what asyncio's users find on its loop."""

import asyncio

import pytest

import fastloop
from fastloop import _names


def test_every_private_name_is_there():
    _names.check()


def test_a_lost_name_is_told(monkeypatch):
    monkeypatch.delattr(asyncio.unix_events, "_UnixSubprocessTransport")
    with pytest.raises(
        ImportError, match=r"asyncio\.unix_events has no _UnixSubprocessTransport"
    ):
        _names.check()


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def test_no_public_name_of_the_selector_loop_is_missing():
    assert public(asyncio.SelectorEventLoop) <= public(fastloop.Loop)


def test_no_hook_of_the_base_loop_is_left_open():
    """BaseEventLoop's hooks raise NotImplementedError until a subclass has them."""
    hooks = [
        name
        for name, value in vars(asyncio.BaseEventLoop).items()
        if hasattr(value, "__code__")
        and value.__code__.co_names == ("NotImplementedError",)
    ]
    assert "_make_socket_transport" in hooks
    hooks.remove("_process_events")  # called by asyncio's own turn, which is not ours
    for name in hooks:
        assert getattr(fastloop.Loop, name) is not getattr(asyncio.BaseEventLoop, name)


async def kinds_of_transports():
    """The classes of asyncio that a stream's and a datagram's transport is of."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    stream, _ = await loop.create_connection(
        asyncio.Protocol, *server.sockets[0].getsockname()
    )
    datagram, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    found = [
        {cls.__name__ for cls in KINDS if isinstance(transport, cls)}
        for transport in (stream, datagram)
    ]
    stream.close()
    datagram.close()
    server.close()
    await server.wait_closed()
    return found


KINDS = (
    asyncio.BaseTransport,
    asyncio.ReadTransport,
    asyncio.WriteTransport,
    asyncio.Transport,
    asyncio.DatagramTransport,
)


def test_transports_are_of_every_kind_that_asyncio_has_them_be():
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        asked = runner.run(kinds_of_transports())
    with asyncio.Runner(loop_factory=fastloop.Loop) as runner:
        found = runner.run(kinds_of_transports())
    assert asked[0] == {"BaseTransport", "ReadTransport", "WriteTransport", "Transport"}
    assert asked[0] == found[0]
    assert asked[1] | {"DatagramTransport"} == found[1]
