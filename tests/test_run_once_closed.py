"""Transports that are closed, and told so, within a call of theirs, by turns that run_once() takes."""

import asyncio
import sys
import textwrap

import pytest
import tlssupport
from iosupport import turns_until


@pytest.fixture
def loop_name():
    return "fastloop"


def test_a_datagram_endpoint_closed_while_another_is_sent(run_script):
    """By error_received(), when what stands before the datagram leaves first."""
    result = run_script(
        """
        class Protocol(asyncio.DatagramProtocol):
            def error_received(self, exc):
                print(exc.strerror)
                turns_until_lost(self)

            def connection_lost(self, exc):
                self.lost = True

        def turns_until_lost(protocol):
            transport.abort()
            while not hasattr(protocol, "lost"):
                loop.run_once(10)

        async def main():
            global loop, transport
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                Protocol, ("127.0.0.1", 0)
            )
            host, port = transport.get_extra_info("sockname")
            transport.sendto(b"at once", (host, port))
            transport.sendto(bytes(65508), (host, port))  # a byte too much
            transport.sendto(b"by the socket's method", ("localhost", port))
            print(transport)

        run(main())
        """
    )
    assert result.stdout.startswith("Message too long\n<DatagramTransport closed")
    assert result.stderr == ""


# Reads once, and tells what became of the transport.
ONE_READ = """
import socket

async def main():
    global ended, loop, protocol, transport
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    ours, theirs = socket.socketpair()
    transport, protocol = await loop.create_connection(Protocol, sock=ours)
    theirs.send(b"data")
    await ended.wait()
    await asyncio.sleep(0)
    print("closed" if "closed" in repr(transport) else transport)
    theirs.close()

run(main())
"""


def read_once(run_script, protocol):
    """Have a transport that its Protocol closes meanwhile read once, and end well."""
    result = run_script(textwrap.dedent(protocol) + ONE_READ)
    assert result.stdout == "closed\n"
    assert result.stderr == ""


def test_a_stream_closed_as_its_method_is_looked_up(run_script):
    read_once(
        run_script,
        """
        class Protocol(asyncio.Protocol):
            lost = False

            @property
            def data_received(self):
                transport.abort()
                while not self.lost:
                    loop.run_once(10)

            def connection_lost(self, exc):
                self.lost = True
                ended.set()
        """,
    )


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="__buffer__() is new in Python 3.12"
)
def test_a_stream_closed_as_its_buffer_is_released(run_script):
    read_once(
        run_script,
        """
        class Buffer(bytearray):
            def __buffer__(self, flags):
                return super().__buffer__(flags)

            def __release_buffer__(self, view):
                super().__release_buffer__(view)
                transport.abort()
                while not protocol.lost:
                    loop.run_once(10)

        class Protocol(asyncio.BufferedProtocol):
            lost = False

            def get_buffer(self, sizehint):
                return Buffer(100)

            def buffer_updated(self, count):
                print(count)

            def connection_lost(self, exc):
                self.lost = True
                ended.set()
        """,
    )


# A transport's descriptor, once it is closed, is soon another file's.
CLOSED_MEANWHILE = """
import socket

class Stream(asyncio.Protocol):
    def connection_lost(self, exc):
        self.lost = True

class Datagrams(Stream, asyncio.DatagramProtocol):
    pass

def close():
    "Close the transport, and have two new sockets, of which one has its number."
    number = transport._sock_fd
    transport.abort()
    while not hasattr(protocol, "lost"):
        loop.run_once(10)
    others.extend(socket.socketpair(type=socket.SOCK_DGRAM))
    for sock in others:
        sock.setblocking(False)
    assert number in [sock.fileno() for sock in others]

def look():
    "Print what came through the new sockets, which nobody writes to."
    for sock in others:
        try:
            print(sock.recv(100))
        except BlockingIOError:
            print("nothing")
        sock.close()

others = []
"""


def test_a_datagram_endpoint_closed_by_an_audit_hook(run_script):
    result = run_script(
        CLOSED_MEANWHILE
        + textwrap.dedent(
            """
            def hook(event, args):
                if event == "socket.sendto" and not others:
                    close()

            async def main():
                global loop, transport, protocol
                loop = asyncio.get_running_loop()
                transport, protocol = await loop.create_datagram_endpoint(
                    Datagrams, ("127.0.0.1", 0)
                )
                errors = []
                loop.set_exception_handler(lambda *args: errors.append(args))
                transport.sendto(b"data", ("127.0.0.1", 9))
                look()
                print(errors)

            sys.addaudithook(hook)
            run(main())
            """
        )
    )
    assert result.stdout == "nothing\nnothing\n[]\n"
    assert result.stderr == ""


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="__buffer__() is new in Python 3.12"
)
@pytest.mark.parametrize("kind", ["stream", "datagrams"])
def test_a_transport_closed_by_the_data_that_is_written(run_script, kind):
    result = run_script(
        CLOSED_MEANWHILE
        + textwrap.dedent(
            f"""
            class Data(bytearray):
                def __buffer__(self, flags):
                    if not others:
                        close()
                    return super().__buffer__(flags)

            async def main():
                global loop, transport, protocol
                loop = asyncio.get_running_loop()
                if {kind!r} == "stream":
                    ours, theirs = socket.socketpair()
                    transport, protocol = await loop.create_connection(
                        Stream, sock=ours
                    )
                    del ours
                    transport.write(Data(bytes(20_000)))
                    theirs.close()
                else:
                    transport, protocol = await loop.create_datagram_endpoint(
                        Datagrams, remote_addr=("127.0.0.1", 9)
                    )
                    transport.sendto(Data(b"data"))
                look()

            run(main())
            """
        )
    )
    assert result.stdout == "nothing\nnothing\n"
    assert result.stderr == ""


@pytest.mark.parametrize("kind", ["stream", "pipe"])
def test_a_transport_closed_by_the_log_of_its_end(run_script, kind):
    """In debug mode the end of what is read is logged before the protocol hears of it."""
    result = run_script(
        f"""
        import logging, os, socket

        class Protocol(asyncio.Protocol):
            def eof_received(self):
                print("eof")

            def connection_lost(self, exc):
                self.lost = True

        class Handler(logging.Handler):
            def emit(self, record):
                if "EOF" in record.msg or "closed by peer" in record.msg:
                    logger.removeHandler(self)
                    print("logged")
                    transport.close()
                    while not hasattr(protocol, "lost"):
                        loop.run_once(10)

        async def main():
            global loop, transport, protocol
            loop = asyncio.get_running_loop()
            loop.set_debug(True)
            ours, theirs = socket.socketpair()
            if {kind!r} == "stream":
                made = loop.create_connection(Protocol, sock=ours)
            else:
                made = loop.connect_read_pipe(Protocol, ours)
            transport, protocol = await made
            theirs.close()
            while not hasattr(protocol, "lost"):
                await asyncio.sleep(0.001)

        logger = logging.getLogger("asyncio")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(Handler())
        run(main())
        """
    )
    assert result.stdout == "logged\n"
    assert result.stderr == ""


@pytest.mark.parametrize("method", ["data_received", "get_buffer", "buffer_updated"])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_a_property_that_ends_the_connection(loop, run, method, secure):
    """Looking up the method that is to receive data loses the transport."""
    certificates = tlssupport.Certificates() if secure else None
    seen = []

    class Receiver(asyncio.Protocol if method == "data_received" else Buffered):
        def connection_made(self, transport):
            self.transport = transport
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    def ending(self):
        if not self.lost.done():
            seen.append(method)
            self.transport.abort()
            turns_until(loop, self.lost.done)
            loop.run_once(0)  # the transport lets go of its protocol
        return lambda *args: bytearray(10)

    setattr(Receiver, method, property(ending))

    class Sender(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"data")

    async def main():
        server = await loop.create_server(
            Sender, "127.0.0.1", 0, ssl=certificates.server if secure else None
        )
        _, receiver = await loop.create_connection(
            Receiver,
            *server.sockets[0].getsockname(),
            ssl=certificates.client if secure else None,
            server_hostname="localhost" if secure else None,
        )
        assert await receiver.lost is None
        server.close()
        await server.wait_closed()

    run(main())
    assert seen == [method]


class Buffered(asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        return bytearray(1000)

    def buffer_updated(self, count):
        pass
