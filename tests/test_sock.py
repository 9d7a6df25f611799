"""sock_recv and its kin: coroutines on sockets that the program owns."""

import array
import asyncio
import errno
import inspect
import os
import socket
import ssl
import sys

import pytest
from iosupport import (
    SIZES,
    digest,
    fill,
    in_thread,
    is_stock,
    pattern,
    read_exactly,
    reset,
    tcp_socketpair,
    turns,
)

CALLS = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(
        sock, bytearray(10)
    ),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"data"),
    "sock_sendto": lambda loop, sock: loop.sock_sendto(sock, b"data", ("127.0.0.1", 9)),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 9)),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock),
}


@pytest.mark.parametrize("name", CALLS)
def test_blocking_socket_in_debug_mode(loop, run, name):
    loop.set_debug(True)

    async def main():
        with (
            socket.socket() as sock,
            pytest.raises(ValueError, match="the socket must be non-blocking"),
        ):
            await CALLS[name](loop, sock)

    run(main())


@pytest.mark.parametrize("name", CALLS)
def test_ssl_socket_is_refused(loop, run, name):
    async def main():
        with socket.socket() as raw:
            raw.setblocking(False)
            context = ssl.create_default_context()
            with context.wrap_socket(
                raw, server_hostname="localhost", do_handshake_on_connect=False
            ) as sock:
                with pytest.raises(
                    TypeError, match="Socket cannot be of type SSLSocket"
                ):
                    await CALLS[name](loop, sock)

    run(main())


@pytest.mark.parametrize("name", CALLS)
def test_closed_socket(loop, run, name):
    async def main():
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        with pytest.raises(OSError) as info:
            await CALLS[name](loop, sock)
        assert info.value.errno == errno.EBADF

    run(main())


@pytest.mark.parametrize("name", CALLS)
def test_it_is_a_coroutine(loop, run, name):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            coro = CALLS[name](loop, sock)
            assert asyncio.iscoroutine(coro)
            assert inspect.isawaitable(coro)
            coro.close()

    run(main())


# Receiving


def test_recv_at_once_and_waiting(loop, run, pair):
    a, b = pair

    async def main():
        b.send(b"already here")
        assert await loop.sock_recv(a, 100) == b"already here"
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        assert not task.done()
        b.send(b"later")
        assert await task == b"later"
        b.send(b"split in two")
        assert await loop.sock_recv(a, 5) == b"split"
        assert await loop.sock_recv(a, 100) == b" in two"
        # Nothing stays registered.
        assert loop.remove_reader(a) is False

    run(main())


def test_recv_eof(loop, run, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await turns()
        b.shutdown(socket.SHUT_WR)
        assert await task == b""
        assert await loop.sock_recv(a, 10) == b""
        assert await loop.sock_recv_into(a, bytearray(10)) == 0

    run(main())


def test_recv_reset(loop, run):
    a, b = tcp_socketpair()

    async def main():
        a.setblocking(False)
        task = asyncio.create_task(loop.sock_recv(a, 10))
        await turns()
        reset(b)
        with pytest.raises(ConnectionResetError):
            await task
        assert loop.remove_reader(a) is False

    with a, b:
        run(main())


def test_recv_wrong_arguments(loop, run, pair):
    a, _ = pair

    async def main():
        with pytest.raises(ValueError):
            await loop.sock_recv(a, -1)
        with pytest.raises(TypeError):
            await loop.sock_recv(a, "ten")
        with pytest.raises(TypeError):
            await loop.sock_recv_into(a, b"read only")
        with pytest.raises(TypeError):
            await loop.sock_recv_into(a, 10)
        with pytest.raises(AttributeError):
            await loop.sock_recv(17, 10)
        with pytest.raises(TypeError):
            await loop.sock_sendall(a, "text")
        with pytest.raises(TypeError):
            await loop.sock_recv(a)

    run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(8),
        lambda: memoryview(bytearray(8)),
        lambda: array.array("i", [0, 0]),
    ],
    ids=["bytearray", "memoryview", "array"],
)
def test_recv_into(loop, run, pair, make):
    a, b = pair

    async def main():
        buffer = make()
        b.send(b"12345678")
        assert await loop.sock_recv_into(a, buffer) == 8
        assert bytes(memoryview(buffer).cast("B")) == b"12345678"
        task = asyncio.create_task(loop.sock_recv_into(a, buffer))
        await turns()
        b.send(b"abc")
        assert await task == 3
        assert bytes(memoryview(buffer).cast("B")) == b"abc45678"

    run(main())


def test_recvfrom(loop, run, udp_pair):
    a, b = udp_pair

    async def main():
        b.sendto(b"one", a.getsockname())
        assert await loop.sock_recvfrom(a, 100) == (b"one", b.getsockname())
        task = asyncio.create_task(loop.sock_recvfrom(a, 2))
        await turns()
        assert not task.done()
        b.sendto(b"cut off", a.getsockname())
        assert await task == (b"cu", b.getsockname())
        b.sendto(b"", a.getsockname())
        assert await loop.sock_recvfrom(a, 10) == (b"", b.getsockname())

    run(main())


def test_recvfrom_into(loop, run, udp_pair):
    a, b = udp_pair

    async def main():
        buffer = bytearray(10)
        b.sendto(b"one", a.getsockname())
        assert await loop.sock_recvfrom_into(a, buffer) == (3, b.getsockname())
        assert buffer == b"one" + bytes(7)
        task = asyncio.create_task(loop.sock_recvfrom_into(a, buffer, 4))
        await turns()
        b.sendto(b"four and more", a.getsockname())
        assert await task == (4, b.getsockname())
        assert buffer == b"four" + bytes(6)
        task = asyncio.create_task(loop.sock_recvfrom_into(a, memoryview(buffer)[4:]))
        await turns()
        b.sendto(b"rest", a.getsockname())
        assert await task == (4, b.getsockname())
        assert buffer == b"fourrest" + bytes(2)
        with pytest.raises(ValueError):
            await loop.sock_recvfrom_into(a, buffer, 100)

    run(main())


def test_recvfrom_unix(loop, run, tmp_path):
    async def main():
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b,
        ):
            a.setblocking(False)
            b.setblocking(False)
            a.bind(str(tmp_path / "a"))
            await loop.sock_sendto(b, b"unnamed", str(tmp_path / "a"))
            assert await loop.sock_recvfrom(a, 100) == (b"unnamed", None)
            b.bind(str(tmp_path / "b"))
            assert await loop.sock_sendto(b, b"named", str(tmp_path / "a")) == 5
            assert await loop.sock_recvfrom(a, 100) == (b"named", str(tmp_path / "b"))

    run(main())


# Sending


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sendall(loop, run, pair, kind, size):
    a, b = pair
    data = pattern(size)

    async def main():
        async def receive():
            received = bytearray()
            while len(received) < size:
                received += await loop.sock_recv(b, 1 << 18)
            return received

        result, received = await asyncio.gather(
            loop.sock_sendall(a, kind(data)), receive()
        )
        assert result is None
        assert digest(received) == digest(data)
        assert loop.remove_writer(a) is False

    run(main())


def test_sendall_of_wide_items(loop, run, pair):
    if is_stock(loop):
        pytest.skip("compares the bytes sent with the number of items")
    a, b = pair
    data = array.array("q", range(200_000))

    async def main():
        sending = asyncio.create_task(loop.sock_sendall(a, data))
        b.setblocking(True)
        received = await in_thread(read_exactly, b, len(data) * 8)
        await sending
        assert digest(received) == digest(data.tobytes())

    run(main())


def test_sendall_to_a_peer_that_went(loop, run, pair):
    a, b = pair

    async def main():
        fill(a)
        task = asyncio.create_task(loop.sock_sendall(a, b"x" * 1000))
        await turns()
        assert not task.done()
        b.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await task
        assert loop.remove_writer(a) is False

    run(main())


def test_sendall_through_a_method_that_counts_wildly(loop, run):
    """Its sum is out of the range of any size: it is asked again, as long as it likes."""
    counts = [-sys.maxsize - 1, -1]

    class Counting(socket.socket):
        def send(self, data):
            if not counts:
                raise OSError("enough")
            return counts.pop(0)

    a, b = socket.socketpair()
    with b, Counting(fileno=a.detach()) as sock:
        sock.setblocking(False)
        with pytest.raises(OSError, match="enough"):
            run(loop.sock_sendall(sock, b"data"))
    assert counts == []


def test_sendto_at_once(loop, run, udp_pair):
    a, b = udp_pair

    async def main():
        assert await loop.sock_sendto(a, b"hello", b.getsockname()) == 5
        assert await loop.sock_recvfrom(b, 100) == (b"hello", a.getsockname())
        assert await loop.sock_sendto(a, bytearray(b""), b.getsockname()) == 0
        assert await loop.sock_recvfrom(b, 100) == (b"", a.getsockname())
        with pytest.raises(OSError) as info:
            await loop.sock_sendto(a, bytes(70_000), b.getsockname())
        assert info.value.errno == errno.EMSGSIZE
        with pytest.raises(TypeError):
            await loop.sock_sendto(a, b"x", "not an address")

    run(main())


def test_sendto_waits_for_room(loop, run, tmp_path):
    path = str(tmp_path / "receiver")

    async def main():
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b,
        ):
            a.setblocking(False)
            b.setblocking(False)
            b.bind(path)
            a.connect(path)
            count = 0
            try:
                while True:
                    a.send(b"x")
                    count += 1
            except BlockingIOError:
                pass
            task = asyncio.create_task(loop.sock_sendto(a, b"last", path))
            await turns()
            assert not task.done()
            for _ in range(count):
                assert await loop.sock_recv(b, 10) == b"x"
            assert await task == 4
            assert await loop.sock_recv(b, 10) == b"last"

    run(main())


# Connecting and accepting


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET, "localhost"),
    ],
)
def test_connect_and_accept(loop, run, family, host):
    literal = "::1" if family == socket.AF_INET6 else "127.0.0.1"

    async def main():
        with socket.socket(family) as listener, socket.socket(family) as client:
            for sock in (listener, client):
                sock.setblocking(False)
            listener.bind((literal, 0))
            listener.listen()
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await turns()
            assert not accepting.done()
            port = listener.getsockname()[1]
            assert await loop.sock_connect(client, (host, port)) is None
            conn, address = await accepting
            with conn:
                assert address == client.getsockname()
                assert conn.getblocking() is False
                assert client.getpeername() == listener.getsockname()
                await loop.sock_sendall(client, b"hi")
                assert await loop.sock_recv(conn, 10) == b"hi"
            # A client that is already waiting is accepted at once.
            with socket.create_connection((literal, port)) as second:
                conn, address = await loop.sock_accept(listener)
                conn.close()
                assert address == second.getsockname()
            assert loop.remove_reader(listener) is False
            assert loop.remove_writer(client) is False

    run(main())


@pytest.mark.parametrize(
    "form", [str, os.fsencode, "abstract"], ids=["str", "bytes", "abstract"]
)
def test_connect_to_a_unix_path(loop, run, tmp_path, form):
    path = (
        "\0fastloop-" + os.urandom(8).hex()
        if form == "abstract"
        else form(tmp_path / "listener")
    )

    async def main():
        with (
            socket.socket(socket.AF_UNIX) as listener,
            socket.socket(socket.AF_UNIX) as client,
        ):
            listener.setblocking(False)
            client.setblocking(False)
            listener.bind(path)
            listener.listen()
            await loop.sock_connect(client, path)
            conn, _ = await loop.sock_accept(listener)
            conn.close()
            assert await loop.sock_recv(client, 1) == b""

    run(main())


def test_connect_refused(loop, run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()

        async def main():
            with socket.socket() as sock:
                sock.setblocking(False)
                with pytest.raises(ConnectionRefusedError) as info:
                    await loop.sock_connect(sock, address)
                assert (
                    str(info.value)
                    == f"[Errno {errno.ECONNREFUSED}] Connect call failed {address}"
                )
                assert loop.remove_writer(sock) is False

        run(main())


def test_connect_to_a_missing_unix_path(loop, run, tmp_path):
    async def main():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            with pytest.raises(FileNotFoundError):
                await loop.sock_connect(sock, str(tmp_path / "nobody"))

    run(main())


def test_connect_datagram_socket(loop, run, udp_pair):
    a, b = udp_pair

    async def main():
        await loop.sock_connect(a, b.getsockname())
        await loop.sock_sendall(a, b"x")
        assert await loop.sock_recv(b, 10) == b"x"

    run(main())


def test_connect_resolves_names_through_the_loop(loop, run):
    asked = []
    real = loop.getaddrinfo

    async def getaddrinfo(host, port, **kwargs):
        asked.append((host, kwargs["family"], kwargs["type"]))
        return await real("127.0.0.1", port, **kwargs)

    loop.getaddrinfo = getaddrinfo

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            for host in ("127.0.0.1", "some.name.invalid"):
                with socket.socket() as sock:
                    sock.setblocking(False)
                    await loop.sock_connect(sock, (host, port))

    run(main())
    assert asked == [("some.name.invalid", socket.AF_INET, socket.SOCK_STREAM)]


def test_connect_with_a_wrong_address(loop, run):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(TypeError):
                await loop.sock_connect(sock, None)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            with pytest.raises(TypeError):
                await loop.sock_connect(sock, 17)

    run(main())


def test_connect_of_a_socket_that_an_audit_hook_closes(run_script):
    """Its number is another socket's by then, which is not connected in its place."""
    result = run_script(
        """
        import socket

        def hook(event, args):
            if event == "socket.connect" and not others:
                sock.close()
                others.append(socket.socket())
                assert others[0].fileno() == number

        async def main():
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(sock, server.getsockname())
            except OSError as exc:
                print(exc.strerror)

        others = []
        sock = socket.socket()
        sock.setblocking(False)
        number = sock.fileno()
        sys.addaudithook(hook)
        with socket.create_server(("127.0.0.1", 0)) as server:
            run(main())
            try:
                print(others[0].getpeername())
            except OSError as exc:
                print(exc.strerror)
            others[0].close()
        """
    )
    assert result.stdout == (
        "Bad file descriptor\nTransport endpoint is not connected\n"
    )
    assert result.stderr == ""


def test_accept_on_a_socket_that_does_not_listen(loop, run):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(OSError) as info:
                await loop.sock_accept(sock)
            assert info.value.errno == errno.EINVAL

    run(main())


# Sockets with methods of their own


class Own(socket.socket):
    """A socket whose methods do less than they are asked for, or fail."""

    step = 1
    failures = ()

    def send(self, data, *args):
        if self.failures:
            raise self.failures.pop()
        return super().send(memoryview(data)[: self.step], *args)

    def accept(self):
        if self.failures:
            raise self.failures.pop()
        return super().accept()


class OwnSize(Own):
    def send(self, data, *args):
        super().send(data, *args)
        return self.size


def own_pair(cls=Own):
    a, b = socket.socketpair()
    own = cls(fileno=a.detach())
    own.setblocking(False)
    b.setblocking(False)
    return own, b


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sendall_by_a_send_of_its_own(loop, run, kind):
    own, peer = own_pair()
    own.failures = [BlockingIOError(), InterruptedError()]

    async def main():
        assert await loop.sock_sendall(own, kind(b"byte for byte")) is None
        assert await loop.sock_recv(peer, 100) == b"byte for byte"
        await loop.sock_sendall(own, kind(b""))
        assert loop.remove_writer(own) is False

    with own, peer:
        run(main())


def test_sendall_of_wide_items_by_a_send_of_its_own(loop, run):
    if is_stock(loop):
        pytest.skip("compares the bytes sent with the number of items")
    own, peer = own_pair()

    async def main():
        # A slice of the first view has items, that of the rest bytes.
        await loop.sock_sendall(own, array.array("I", [0x61616161, 0x62626262]))
        assert await loop.sock_recv(peer, 100) == b"aaaabbbb"

    with own, peer:
        run(main())


def test_sendall_by_a_send_that_fails(loop, run):
    own, peer = own_pair()

    async def main():
        own.failures = [ZeroDivisionError(), BlockingIOError()]
        with pytest.raises(ZeroDivisionError):
            await loop.sock_sendall(own, b"x")
        with pytest.raises(TypeError):
            await loop.sock_sendall(own, "text")
        assert loop.remove_writer(own) is False

    with own, peer:
        run(main())


def test_sendall_by_a_send_that_returns_no_number(loop, run):
    own, peer = own_pair(OwnSize)
    own.size = "one"

    async def main():
        with pytest.raises(TypeError):
            await loop.sock_sendall(own, b"xy")

    with own, peer:
        run(main())


def test_accept_by_an_accept_of_its_own(loop, run):
    async def main():
        with Own() as listener:
            listener.setblocking(False)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.failures = [BlockingIOError()]
            with socket.create_connection(listener.getsockname()) as client:
                conn, address = await loop.sock_accept(listener)
                with conn:
                    assert address == client.getsockname()
                    assert conn.getblocking() is False
            listener.failures = [ZeroDivisionError()]
            with pytest.raises(ZeroDivisionError):
                await loop.sock_accept(listener)
            assert loop.remove_reader(listener) is False

    run(main())


@pytest.mark.parametrize(
    ("accepted", "error"),
    [(17, TypeError), ((1, 2, 3), ValueError), ((17, None), AttributeError)],
    ids=repr,
)
def test_accept_that_returns_no_pair(loop, run, accepted, error):
    class Strange(socket.socket):
        def accept(self):
            return accepted

    async def main():
        with Strange() as listener:
            listener.setblocking(False)
            with pytest.raises(error):
                await loop.sock_accept(listener)

    run(main())


def test_receive_into_nothing(loop, run, pair):
    a, b = pair

    async def main():
        b.send(b"kept")
        assert await loop.sock_recv_into(a, bytearray()) == 0
        assert await loop.sock_recv(a, 10) == b"kept"

    run(main())
