"""What a wheel has to do where it is installed; needs nothing but Python.

    python tests/smoke.py [--bundled]

--bundled asks that the libuv in use is the one inside the wheel.
"""

import asyncio
import importlib.metadata
import importlib.resources
import os
import pathlib
import re
import signal
import sys
import sysconfig

import fastloop


async def tcp():
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = os.urandom(1_000_000)
    writer.write(sent)
    writer.write_eof()
    assert await reader.read() == sent
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def udp():
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.sendto(data.upper(), addr)

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            answer.set_result(data)

    server, _ = await loop.create_datagram_endpoint(Server, ("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, _ = await loop.create_datagram_endpoint(Client, remote_addr=address)
    client.sendto(b"datagram")
    assert await answer == b"DATAGRAM"
    client.close()
    server.close()


async def processes_and_threads():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "print(input().upper())",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await child.communicate(b"child\n") == (b"CHILD\n", None)
    assert await asyncio.to_thread(sum, [1, 2, 3]) == 6


async def timers_and_signals():
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(0.01)
    assert loop.time() - before >= 0.01
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, came.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await came.wait()
    loop.remove_signal_handler(signal.SIGUSR1)


async def main():
    assert isinstance(asyncio.get_running_loop(), fastloop.Loop)
    async with asyncio.timeout(60):
        for check in (tcp, udp, processes_and_threads, timers_and_signals):
            await check()


def check_metadata():
    assert importlib.metadata.version("fastloop-uv") == fastloop.__version__
    assert re.fullmatch(r"1\.\d+\.\d+(-dev)?", fastloop.libuv_version())
    files = importlib.resources.files(fastloop)
    assert (files / "py.typed").is_file() and (files / "_core.pyi").is_file()


def check_bundled():
    """Of all libuvs, only the one that came with the wheel is in this process."""
    files = importlib.metadata.files("fastloop-uv") or []
    ours = {str(file.locate().resolve()) for file in files if "libuv" in file.name}
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists():
        loaded = set(re.findall(r"/\S*libuv\S*\.so\S*", maps.read_text()))
        assert loaded and loaded <= ours, (loaded, ours)
    (bill,) = (file for file in files if file.name == "libuv.cdx.json")
    assert fastloop.libuv_version() in bill.read_text()


if __name__ == "__main__":
    fastloop.run(main())
    check_metadata()
    if "--bundled" in sys.argv:
        check_bundled()
    tag = sysconfig.get_config_var("SOABI")
    print(
        f"fastloop {fastloop.__version__} works on {tag}, libuv {fastloop.libuv_version()}"
    )
