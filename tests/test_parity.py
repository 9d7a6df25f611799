"""Every public name, keyword, default and refusal of asyncio's loop on the running Python."""

import asyncio
import gc
import inspect
import io
import os
import re
import signal
import socket
import ssl
import warnings
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


def null(mode="rb"):
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), mode)


# What a call is refused with: (name, call); call gets a loop and a socket, and may
# return a coroutine. Exceptions and texts are to be asyncio's, but for addresses.
REFUSALS = {
    "run_until_complete raises the future's": lambda loop, sock: (
        loop.run_until_complete(failing())
    ),
    "run_until_complete of nothing": lambda loop, sock: loop.run_until_complete(1),
    "sendfile of what cannot": lambda loop, sock: loop.sendfile(
        asyncio.Transport(), null(), fallback=False
    ),
    "sendfile without a fallback": lambda loop, sock: loop.sock_sendfile(
        sock, io.BytesIO(b"data"), fallback=False
    ),
    "sendfile of text": lambda loop, sock: loop.sock_sendfile(sock, null("r")),
    "sendfile with a negative offset": lambda loop, sock: loop.sock_sendfile(
        sock, null(), -1
    ),
    "sendfile with no count": lambda loop, sock: loop.sock_sendfile(sock, null(), 0, 0),
    "set_exception_handler": lambda loop, sock: loop.set_exception_handler(1),
    "set_task_factory": lambda loop, sock: loop.set_task_factory(1),
    "set_default_executor": lambda loop, sock: loop.set_default_executor(1),
    "signal out of range": lambda loop, sock: loop.add_signal_handler(1000, print),
    "signal of no number": lambda loop, sock: loop.add_signal_handler("1", print),
    "signal uncatchable": lambda loop, sock: loop.add_signal_handler(
        signal.SIGKILL, print
    ),
    "signal coroutine": lambda loop, sock: loop.add_signal_handler(
        signal.SIGUSR1, failing
    ),
    "remove signal": lambda loop, sock: loop.remove_signal_handler(1000),
    "call_later of None": lambda loop, sock: loop.call_later(None, print),
    "call_at of None": lambda loop, sock: loop.call_at(None, print),
    "create_connection to nothing": lambda loop, sock: loop.create_connection(
        asyncio.Protocol
    ),
    "create_connection twice": lambda loop, sock: loop.create_connection(
        asyncio.Protocol, "127.0.0.1", 1, sock=sock
    ),
    "create_connection of no stream": lambda loop, sock: loop.create_connection(
        asyncio.Protocol, sock=socket.socket(type=socket.SOCK_DGRAM)
    ),
    "create_connection hostname": lambda loop, sock: loop.create_connection(
        asyncio.Protocol, "127.0.0.1", 1, server_hostname="name"
    ),
    "create_connection timeout": lambda loop, sock: loop.create_connection(
        asyncio.Protocol, "127.0.0.1", 1, ssl_handshake_timeout=1
    ),
    "create_server of nothing": lambda loop, sock: loop.create_server(asyncio.Protocol),
    "create_server with ssl=True": lambda loop, sock: loop.create_server(
        asyncio.Protocol, "127.0.0.1", 0, ssl=True
    ),
    "create_server twice": lambda loop, sock: loop.create_server(
        asyncio.Protocol, "127.0.0.1", 0, sock=sock
    ),
    "create_unix_connection of nothing": lambda loop, sock: loop.create_unix_connection(
        asyncio.Protocol
    ),
    "create_unix_server of nothing": lambda loop, sock: loop.create_unix_server(
        asyncio.Protocol
    ),
    "create_datagram_endpoint of nothing": lambda loop, sock: (
        loop.create_datagram_endpoint(asyncio.DatagramProtocol)
    ),
    "create_datagram_endpoint of a stream": lambda loop, sock: (
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
    ),
    "create_datagram_endpoint without a factory": lambda loop, sock: (
        loop.create_datagram_endpoint()
    ),
    "create_datagram_endpoint reuse_address": lambda loop, sock: (
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, reuse_address=True)
    ),
    "getaddrinfo of nothing": lambda loop, sock: loop.getaddrinfo(),
    "getaddrinfo by position": lambda loop, sock: loop.getaddrinfo("::1", 1, 0),
    "getnameinfo of nothing": lambda loop, sock: loop.getnameinfo(),
    "getnameinfo flag": lambda loop, sock: loop.getnameinfo(("::1", 1), flag=0),
    "connect_accepted_socket": lambda loop, sock: loop.connect_accepted_socket(
        asyncio.Protocol, socket.socket(type=socket.SOCK_DGRAM)
    ),
    "start_tls without a context": lambda loop, sock: loop.start_tls(
        asyncio.Transport(), asyncio.Protocol(), None
    ),
    "start_tls of what cannot": lambda loop, sock: loop.start_tls(
        asyncio.Transport(), asyncio.Protocol(), ssl.create_default_context()
    ),
    "subprocess_exec of a number": lambda loop, sock: loop.subprocess_exec(
        asyncio.SubprocessProtocol, 1
    ),
    "subprocess_exec text": lambda loop, sock: loop.subprocess_exec(
        asyncio.SubprocessProtocol, "true", text=True
    ),
    "subprocess_shell of a number": lambda loop, sock: loop.subprocess_shell(
        asyncio.SubprocessProtocol, 1
    ),
    "blocking socket": lambda loop, sock: blocking(loop, sock),
    "add_reader of no file": lambda loop, sock: loop.add_reader("file", print),
    "add_reader of a negative number": lambda loop, sock: loop.add_reader(-1, print),
    "closing while it runs": lambda loop, sock: closes(loop),
    "running while it runs": lambda loop, sock: runs(loop),
}


async def failing():
    raise LookupError("the future's own")


async def blocking(loop, sock):
    sock.setblocking(True)
    loop.set_debug(True)
    await loop.sock_recv(sock, 1)


async def closes(loop):
    loop.close()


async def runs(loop):
    loop.run_forever()


def refusal(factory, call):
    """The exception that call ends with, and its text without addresses."""
    loop = factory()
    with socket.socket() as sock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files and coroutines that nobody closes
        sock.setblocking(False)
        try:
            result = call(loop, sock)
            if asyncio.iscoroutine(result):
                result = loop.run_until_complete(asyncio.wait_for(result, 30))
        except Exception as exc:
            return type(exc), re.sub(r"0x[0-9a-f]+|fd=\d+", "", str(exc))
        else:
            return result
        finally:
            loop.close()
            gc.collect()


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    theirs = refusal(UNIX, REFUSALS[name])
    assert isinstance(theirs, tuple), "asyncio refuses it"
    assert refusal(fastloop.Loop, REFUSALS[name]) == theirs
