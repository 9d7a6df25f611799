"""Addresses of datagrams: each form goes where the socket module sends it."""

import asyncio
import collections
import ipaddress
import socket

import pytest
from iosupport import DatagramRecorder, capture, endpoint

PORT = "PORT"

Pair = collections.namedtuple("Pair", "host port")


class Text(str):
    pass


class Number(int):
    pass


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


IPV4 = [
    ("127.0.0.1", PORT),
    Pair("127.0.0.1", PORT),
    ["127.0.0.1", PORT],
    (Text("127.0.0.1"), PORT),
    (b"127.0.0.1", PORT),
    (bytearray(b"127.0.0.1"), PORT),
    ("127.1", PORT),
    ("0x7f.0.0.1", PORT),
    ("2130706433", PORT),
    ("localhost", PORT),
    ("", PORT),
    ("<broadcast>", PORT),
    ("255.255.255.255", PORT),
    ("0.0.0.0", PORT),
    ("127.0.0.1\0", PORT),
    ("127.0.0.1 ", PORT),
    ("::1", PORT),
    ("x" * 70, PORT),
    ("\udcff", PORT),
    (ipaddress.ip_address("127.0.0.1"), PORT),
    (None, PORT),
    ("127.0.0.1", "80"),
    ("127.0.0.1", 80.0),
    ("127.0.0.1", -1),
    ("127.0.0.1", 65536),
    ("127.0.0.1", 1 << 70),
    ("127.0.0.1",),
    ("127.0.0.1", PORT, 0),
    (),
    "127.0.0.1",
    b"x",
    5,
]
IPV6 = [
    ("::1", PORT),
    ("::1", PORT, 0),
    ("::1", PORT, 0, 0),
    ["::1", PORT, 0, 0],
    (Text("::1"), PORT),
    (b"::1", PORT),
    ("::1", PORT, 0xFFFFF, 0),
    ("::1", PORT, 0x100000, 0),
    ("::1", PORT, -1, 0),
    ("::1", PORT, 0, 1),
    ("::1", PORT, 0, -1),
    ("::1", PORT, 0, 1 << 33),
    ("::1", PORT, 0, 0, 0),
    ("0:0:0:0:0:0:0:1", PORT),
    ("::1%lo", PORT),
    ("::1%1", PORT, 0, 0),
    ("fe80::1%lo", PORT),
    ("fe80::1%lo", PORT, 0, 1),
    ("fe80::1", PORT, 0, 1),
    ("fe80::1%nowhere", PORT),
    ("::ffff:127.0.0.1", PORT),
    ("127.0.0.1", PORT),
    ("", PORT),
    ("::1", "80"),
    ("::1", 70000),
]


def filled(address, port):
    """Put port where the address has PORT, in the kinds of integers that come along."""
    if isinstance(address, list):
        return [filled(part, port) for part in address]
    if isinstance(address, Pair):
        return Pair(*(filled(part, port) for part in address))
    if isinstance(address, tuple):
        return tuple(filled(part, port) for part in address)
    return port if address is PORT else address


def bound(family, host):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((host, 0))
    except OSError:
        sock.close()
        pytest.skip("no such address")
    return sock


@pytest.mark.parametrize("number", [int, Number, Index, str], ids=lambda n: n.__name__)
@pytest.mark.parametrize(
    ("family", "host", "address"),
    [
        *((socket.AF_INET, "127.0.0.1", address) for address in IPV4),
        *((socket.AF_INET6, "::1", address) for address in IPV6),
    ],
    ids=repr,
)
def test_as_the_socket_module(loop, run, family, host, address, number):
    """What sendto() raises or reports, and whether it arrives: twice, for the cache."""
    contexts = capture(loop)

    async def main():
        with bound(family, host) as receiver, bound(family, host) as plain:
            receiver.setblocking(False)
            target = filled(address, number(receiver.getsockname()[1]))

            def arrived():
                try:
                    return receiver.recv(100)
                except BlockingIOError:
                    return None

            try:
                plain.sendto(b"first", target)
                expected = None
            except OSError as exc:
                expected = exc  # told to error_received()
            except Exception as exc:
                expected = exc
            reference = arrived()

            async with endpoint(sock=bound(family, host)) as protocol:
                for _ in range(2):
                    protocol.transport.sendto(b"first", target)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    if isinstance(expected, OSError):
                        error = protocol.errors.pop()
                        assert type(error) is type(expected)
                        assert error.args == expected.args
                        assert protocol.errors == []
                    elif expected is not None:
                        error = contexts.pop(0)["exception"]
                        assert type(error) is type(expected)
                        assert str(error) == str(expected)
                        contexts.clear()
                        break  # it ends the endpoint
                    assert protocol.errors == []
                    assert contexts == []
                    assert arrived() == reference

    run(main())


def test_names_that_are_looked_up(loop, run):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            port = receiver.getsockname()[1]
            async with endpoint(
                DatagramRecorder, remote_addr=("localhost", port)
            ) as protocol:
                assert protocol.transport.get_extra_info("peername")[1] == port

    run(main())
