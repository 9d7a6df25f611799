"""Two engines against each other: whatever the splits, sizes, pauses and ends, the bytes are the same."""

import asyncio
import contextlib

import pytest

pytest.importorskip("hypothesis")

from conftest import factory_of
from conftest import run as run_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iosupport import Recorder, capture, digest, pattern, settle
from tlssupport import Buffered, Certificates, tls_pair


@pytest.fixture(scope="module")
def tls():
    return Certificates()


SOURCE = pattern(1_000_000)

size = st.one_of(
    st.integers(0, 50),
    st.integers(16_300, 16_500),
    st.integers(0, 300_000),
)
step = st.one_of(
    st.tuples(st.just("write"), size, st.sampled_from([bytes, bytearray, memoryview])),
    st.tuples(st.just("lines"), st.lists(st.integers(0, 5000), max_size=30)),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("limits"), st.integers(0, 100_000)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("switch"), st.sampled_from([Recorder, Buffered])),
)
plans = st.lists(st.tuples(st.booleans(), step), max_size=25)
ends = st.sampled_from(["client closes", "server closes", "client aborts"])
rooms = st.sampled_from([1000, 16_384, 100_000])


class Heir:
    """Makes a protocol keep its notes where the first one does."""

    @staticmethod
    def of(protocol, cls):
        heir = cls()
        heir.data, heir.lost, heir.events = (
            protocol.data,
            protocol.lost,
            protocol.events,
        )
        heir._watchers = protocol._watchers
        heir.transport = protocol.transport
        return heir


async def perform(protocol, sent, action, *arguments):
    transport = protocol.transport
    if action == "write":
        count, kind = arguments
        at = len(sent) % 1000
        data = kind(SOURCE[at : at + count])
        sent += data
        transport.write(data)
        if kind is bytearray:
            data[:] = bytes(len(data))  # its bytes are the caller's again
    elif action == "lines":
        lines = [SOURCE[count : 2 * count] for count in arguments[0]]
        sent += b"".join(lines)
        transport.writelines(lines)
    elif action == "pause":
        transport.pause_reading()
    elif action == "resume":
        transport.resume_reading()
    elif action == "limits":
        transport.set_write_buffer_limits(high=arguments[0])
        transport.set_read_buffer_limits(high=arguments[0] + 1)
    elif action == "switch":
        transport.set_protocol(Heir.of(protocol, arguments[0]))
    else:
        await asyncio.sleep(0)


@pytest.mark.parametrize("loop_name", ["fastloop"])
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # what is drawn anew each time has its place in tests/hard
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(plan=plans, end=ends, room=rooms)
def test_same_bytes(tls, loop_name, plan, end, room):
    async def main():
        class Roomy(Buffered):
            size = room

        async with tls_pair(tls, Roomy, Recorder) as (client, server):
            sent = {client: bytearray(), server: bytearray()}
            for of_client, action in plan:
                protocol = client if of_client else server
                await perform(protocol, sent[protocol], *action)
            for protocol in sent:
                protocol.transport.resume_reading()
            if end == "client aborts":
                client.transport.abort()
                await asyncio.gather(client.lost, server.lost)
                assert sent[client].startswith(server.data)
                assert sent[server].startswith(client.data)
                return
            # Everything arrives, also what was written just before the end.
            closer, other = (
                (client, server) if end == "client closes" else (server, client)
            )
            while len(closer.data) < len(sent[other]):
                await asyncio.sleep(0.001)
            closer.transport.close()
            assert await closer.lost is None
            assert await other.lost is None
            assert digest(other.data) == digest(sent[closer])
            assert digest(closer.data) == digest(sent[other])

    loop = factory_of(loop_name)()
    contexts = capture(loop)
    with contextlib.closing(loop):
        run_on(main(), loop=loop)
        run_on(settle(), loop=loop)
    assert contexts == []
