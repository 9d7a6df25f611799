"""User code: the ways to a loop."""

import asyncio
import sys
from typing import assert_type

import fastloop


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


assert_type(fastloop.run(answer()), int)
assert_type(fastloop.run(answer(), debug=True), int)
assert_type(fastloop.run(answer(), loop_factory=fastloop.Loop), int)
assert_type(fastloop.run(answer(), loop_factory=None), int)
assert_type(fastloop.new_event_loop(), fastloop.Loop)
assert_type(fastloop.install(), None)
assert_type(fastloop.__version__, str)
assert_type(fastloop.libuv_version(), str)

with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
    assert_type(runner.run(answer()), int)

if sys.version_info >= (3, 12):
    assert_type(asyncio.run(answer(), loop_factory=fastloop.new_event_loop), int)

if sys.version_info < (3, 14):
    policy: asyncio.AbstractEventLoopPolicy = fastloop.EventLoopPolicy()

# What is wrong is told: without an error here, the ignore itself is one.
fastloop.run(answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fastloop.run(answer(), factory=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fastloop.uvloop  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018
