"""Many small jobs on threads: checksums of small records by asyncio.to_thread."""

import asyncio
import zlib

from .checks import check

BATCH = 500


def prepare(calls):
    records = [b"record %d of the batch" % number for number in range(calls)]
    expected = sum(map(zlib.crc32, records))

    async def run(progress):
        checksum = 0
        for start in range(0, calls, BATCH):
            batch = records[start : start + BATCH]
            checksum += sum(
                await asyncio.gather(
                    *(asyncio.to_thread(zlib.crc32, record) for record in batch)
                )
            )
            progress(len(batch))
        facts = {"calls": calls, "checksum": checksum}
        check(facts, checksum=expected)
        return facts

    return run
