"""get_extra_info() and the private attributes of transports."""

import asyncio
import socket

from iosupport import Recorder


async def connected():
    a, b = socket.socketpair()
    transport, protocol = await asyncio.get_running_loop().create_connection(
        Recorder, sock=a
    )
    return transport, protocol, b


def test_extra_info(run):
    async def main():
        transport, _, peer = await connected()
        with peer:
            sock = transport.get_extra_info("socket")
            assert sock.fileno() == transport._sock_fd
            assert transport.get_extra_info("socket") is sock
            assert transport.get_extra_info("nonsense") is None
            assert transport.get_extra_info("nonsense", 1) == 1
            assert transport.get_extra_info(name="nonsense", default=2) == 2
            assert transport._extra["socket"] is sock
            transport.abort()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert transport.get_extra_info("socket") is sock

    run(main())


def test_private_attributes(run):
    async def main():
        transport, protocol, peer = await connected()
        with peer:
            assert transport._loop is asyncio.get_running_loop()
            assert transport._protocol is protocol
            assert transport._conn_lost == 0
            assert not (transport._closing or transport._paused or transport._eof)
            transport.set_write_buffer_limits(high=1000, low=10)
            assert (transport._low_water, transport._high_water) == (10, 1000)
            transport._high_water = 2000
            assert transport.get_write_buffer_limits() == (10, 2000)
            transport.pause_reading()
            assert transport._paused
            transport.close()
            assert transport._closing
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert transport._conn_lost > 0

    run(main())
