"""User code: a loop of one's own, and where a loop is asked for."""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, TypeVarTuple, Unpack

import fastloop

Ts = TypeVarTuple("Ts")


class CountingLoop(fastloop.Loop):
    """Counts the callbacks that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self.count += 1
        return super().call_soon(callback, *args, context=context)


def wants_any_loop(loop: asyncio.AbstractEventLoop) -> float:
    return loop.time()


def factory(
    loop: asyncio.AbstractEventLoop,
    coro: Generator[Any, None, int],
) -> asyncio.Task[int]:
    return asyncio.Task(coro, loop=loop)


async def main() -> str:
    return "done"


loop = CountingLoop()
seconds: float = wants_any_loop(loop)
result: str = loop.run_until_complete(main())
count: int = loop.count
loop.close()

made: Callable[[], asyncio.AbstractEventLoop] = CountingLoop
text: str = fastloop.run(main(), loop_factory=CountingLoop)
