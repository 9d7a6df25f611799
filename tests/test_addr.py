"""Names of sockets and peers, in each family."""

import socket

from iosupport import (
    Recorder,
    reset,
    tcp_pair,
    turns,
)


def test_both_sides_name_each_other(loop, run):
    async def main():
        async with tcp_pair() as (client, server):
            for one, other in ((client, server), (server, client)):
                assert one.transport.get_extra_info(
                    "peername"
                ) == other.transport.get_extra_info("sockname")
                sock = one.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getpeername() == one.transport.get_extra_info("peername")

    run(main())


def test_extra_info_of_unix_sockets(loop, run, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        accepted = loop.create_future()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.set_result(self)

        async with await loop.create_unix_server(Server, path):
            transport, client = await loop.create_unix_connection(Recorder, path)
            server = await accepted
            assert transport.get_extra_info("peername") == path
            assert transport.get_extra_info("sockname") == ""
            assert server.transport.get_extra_info("sockname") == path
            assert server.transport.get_extra_info("peername") == ""
            assert transport.get_extra_info("socket").family == socket.AF_UNIX
            transport.close()
            await server.lost
            await client.lost
            await turns()

    run(main())


def test_peername_of_a_client_that_went(loop, run):
    async def main():
        made = loop.create_future()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.set_result((self, transport.get_extra_info("peername")))

        async with await loop.create_server(Server, "127.0.0.1", 0) as server:
            sock = socket.create_connection(server.sockets[0].getsockname())
            name = sock.getsockname()
            reset(sock)
            protocol, peername = await made
            assert peername == name
            await protocol.lost
            assert protocol.transport.get_extra_info("peername") == name
            await turns()

    run(main())
