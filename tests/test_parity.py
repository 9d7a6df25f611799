"""Every public name, keyword and default of asyncio's loop on the running Python."""

import asyncio
import inspect
import os
import socket
from asyncio import base_events, selector_events, unix_events

import pytest

import fastloop

# Methods whose signature may differ, each with its reason. There is none.
LEDGER: set[str] = set()

UNIX = unix_events._UnixSelectorEventLoop


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def shape(function):
    """What a caller can tell: names, kinds and defaults of the parameters."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None  # native, and says nothing
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]


@pytest.mark.parametrize(
    "base", [asyncio.AbstractEventLoop, asyncio.BaseEventLoop, UNIX]
)
def test_the_loop_has_every_name(base):
    missing = public(base) - public(fastloop.Loop)
    assert not missing


@pytest.fixture(scope="module")
def loops():
    theirs, ours = UNIX(), fastloop.Loop()
    yield theirs, ours
    theirs.close()
    ours.close()


@pytest.mark.parametrize("name", sorted(public(UNIX)))
def test_signature_of_a_method_of_the_loop(loops, name):
    theirs, ours = (getattr(loop, name) for loop in loops)
    assert callable(theirs) is callable(ours)
    if not callable(theirs):
        assert theirs == ours
        return
    if name in LEDGER:
        return
    expected = shape(theirs)
    found = shape(ours)
    assert found is not None, f"{name} has no text signature"
    assert found == expected


def transport_of(loop, kind):
    """Return one of the loop's transports, made as a program makes it."""

    async def main():
        if kind == "socket":
            ours, theirs = socket.socketpair()
            made, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            return made, theirs.close
        if kind == "datagram":
            made, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", 0)
            )
            return made, None
        reader, writer = os.pipe()
        if kind == "read pipe":
            made, _ = await loop.connect_read_pipe(
                asyncio.Protocol, os.fdopen(reader, "rb", 0)
            )
            return made, lambda: os.close(writer)
        made, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(writer, "wb", 0)
        )
        return made, lambda: os.close(reader)

    made, close = loop.run_until_complete(main())
    made.close()
    if close is not None:
        close()
    loop.run_until_complete(asyncio.sleep(0.01))
    return made


TRANSPORTS = {
    "socket": selector_events._SelectorSocketTransport,
    "datagram": selector_events._SelectorDatagramTransport,
    "read pipe": unix_events._UnixReadPipeTransport,
    "write pipe": unix_events._UnixWritePipeTransport,
}


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_transports(loop, kind):
    theirs, ours = TRANSPORTS[kind], type(transport_of(loop, kind))
    assert not public(theirs) - public(ours)
    wrong = {
        name: (shape(getattr(ours, name)), shape(getattr(theirs, name)))
        for name in sorted(public(theirs))
        if callable(getattr(theirs, name))
        and shape(getattr(ours, name)) != shape(getattr(theirs, name))
    }
    assert not wrong
    for base in theirs.__mro__:
        if base.__module__ == "asyncio.transports":
            assert issubclass(ours, base)


@pytest.mark.parametrize("kind", ["Handle", "TimerHandle"])
def test_handles(loop, kind):
    theirs = getattr(asyncio, kind)
    handle = loop.call_soon(int) if kind == "Handle" else loop.call_later(60, int)
    assert isinstance(handle, theirs)
    ours = type(handle)
    assert not public(theirs) - public(ours)
    for name in public(theirs):
        assert shape(getattr(ours, name)) == shape(getattr(theirs, name)), name
    handle.cancel()


def test_servers_are_asyncio_s(loop):
    async def main():
        async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
            return type(server)

    assert loop.run_until_complete(main()) is base_events.Server
