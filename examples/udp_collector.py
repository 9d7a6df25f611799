"""Collect measurements that come as datagrams, and report them once in a while.

python examples/udp_collector.py
"""

import asyncio
import collections
import contextlib

import fastloop


class Collector(asyncio.DatagramProtocol):
    """Sums up datagrams of the form name:value."""

    def __init__(self):
        self.sums = collections.Counter()
        self.count = self.rejected = 0

    def datagram_received(self, data, address):
        self.count += 1
        name, _, value = data.partition(b":")
        try:
            self.sums[name.decode()] += int(value)
        except ValueError:
            self.rejected += 1

    async def report(self, interval):
        while True:
            await asyncio.sleep(interval)
            print(self.count, "datagrams,", self.rejected, "rejected,", dict(self.sums))


async def main():
    loop = asyncio.get_running_loop()
    transport, collector = await loop.create_datagram_endpoint(
        Collector, local_addr=("127.0.0.1", 0)
    )
    reporter = asyncio.create_task(collector.report(0.05))
    sender, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=transport.get_extra_info("sockname")
    )
    for number in range(1000):
        sender.sendto(b"requests:1" if number % 10 else b"nonsense")
        if number % 50 == 0:
            await asyncio.sleep(0)  # datagrams that nobody takes are lost
    while collector.count < 1000:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.06)
    reporter.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reporter
    sender.close()
    transport.close()


if __name__ == "__main__":
    fastloop.run(main())
