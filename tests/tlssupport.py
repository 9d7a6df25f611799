"""What the tests of TLS share: certificates, connected pairs, servers."""

import asyncio
import contextlib
import socket
import ssl

from authority import new_authority
from iosupport import (
    BufferedRecorder,
    Recorder,
    finish,
    settle,
    shrink,
)


class Certificates:
    def __init__(self):
        self.authority = new_authority()
        self.certificate = self.authority.issue_cert("localhost", "127.0.0.1")
        self.server = self.server_context()
        self.client = self.client_context()

    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        return context

    def client_context(self):
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


class Buffered(BufferedRecorder):
    def get_buffer(self, sizehint):
        # asyncio's TLS reads on into slices of what it gets, which only a view survives.
        return memoryview(super().get_buffer(sizehint))


class Servants(list):
    """The protocols that a server made."""

    def factory(self, cls):
        def make():
            self.append(cls())
            return self[-1]

        return make


@contextlib.asynccontextmanager
async def tls_pair(
    tls,
    client_factory=Recorder,
    server_factory=Recorder,
    *,
    client=None,
    server=None,
    **kwargs,
):
    """A TLS connection between two transports of the running loop: (client protocol, server protocol)."""
    loop = asyncio.get_running_loop()
    servants = Servants()
    async with await loop.create_server(
        servants.factory(server_factory), "127.0.0.1", 0, ssl=server or tls.server
    ) as listener:
        address = listener.sockets[0].getsockname()
        protocol = (
            await loop.create_connection(
                client_factory,
                *address,
                ssl=client or tls.client,
                server_hostname="localhost",
                **kwargs,
            )
        )[1]
        while not servants:
            await asyncio.sleep(0.001)
        await servants[0].made
        try:
            yield protocol, servants[0]
        finally:
            await finish(protocol)
            await finish(servants[0])
    await settle()


@contextlib.asynccontextmanager
async def tls_server(tls, cls=Recorder, **kwargs):
    loop = asyncio.get_running_loop()
    servants = Servants()
    async with await loop.create_server(
        servants.factory(cls), "127.0.0.1", 0, ssl=tls.server, **kwargs
    ) as server:
        yield server.sockets[0].getsockname(), servants
        await asyncio.sleep(0.02)
    await settle()


class Peer:
    """The other end of a connection in memory, whose ciphertext the test has in its hands."""

    def __init__(self, context, *, server_side=False, hostname=None, size=None):
        self.loop = asyncio.get_running_loop()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=hostname,
        )
        ours, self.sock = socket.socketpair()
        if size is not None:
            shrink(ours, self.sock, size=size)
        self.theirs = ours
        self.sock.setblocking(False)
        self.step = 1 << 20  # how much ciphertext goes at once

    async def send(self, data):
        for at in range(0, len(data), self.step):
            await self.loop.sock_sendall(self.sock, data[at : at + self.step])
            if self.step < 100:
                await asyncio.sleep(0)

    async def flush(self):
        with contextlib.suppress(ConnectionError):
            await self.send(self.outgoing.read())

    async def fetch(self):
        """Take in ciphertext; False at the end."""
        data = await self.loop.sock_recv(self.sock, 1 << 18)
        self.incoming.write(data)
        return bool(data)

    async def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                if not await self.fetch():
                    return None  # given up: that is the transport's to tell
            else:
                return await self.flush()

    def encrypt(self, data):
        """The records that carry data, not sent yet."""
        for at in range(0, len(data), 16384):
            self.tls.write(data[at : at + 16384])
        return self.outgoing.read()

    def goodbye(self):
        """The closing alert, not sent yet."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def receive(self, count):
        """Receive count plain bytes, fewer if the connection ends."""
        data = bytearray()
        while len(data) < count:
            try:
                chunk = self.tls.read(count - len(data))
            except ssl.SSLWantReadError:
                if not await self.fetch():
                    break
                continue
            if not chunk:
                break
            data += chunk
        return bytes(data)

    async def until_closed(self):
        """Read ciphertext to its end, whatever it is."""
        with contextlib.suppress(ConnectionError):
            while await self.fetch():
                pass


@contextlib.asynccontextmanager
async def tls_peer(
    tls,
    factory=Recorder,
    *,
    server_side=False,
    context=None,
    size=None,
    step=1 << 20,
    **kwargs,
):
    """A TLS transport of the running loop against a Peer: (protocol, peer).

    server_side is the transport's side.
    """
    loop = asyncio.get_running_loop()
    if server_side:
        peer = Peer(context or tls.client, hostname="localhost", size=size)
        connect = loop.connect_accepted_socket(
            factory, peer.theirs, ssl=tls.server, **kwargs
        )
    else:
        peer = Peer(context or tls.server, server_side=True, size=size)
        connect = loop.create_connection(
            factory,
            sock=peer.theirs,
            ssl=tls.client,
            server_hostname="localhost",
            **kwargs,
        )
    peer.step = step
    with peer.sock:
        (_, protocol), _ = await asyncio.gather(connect, peer.handshake())
        try:
            yield protocol, peer
        finally:
            await finish(protocol)
    await settle()
