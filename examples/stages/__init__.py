"""The programs of the tour: plain asyncio, none of them knows which loop it runs on.

Each module has prepare(size), which makes what the program works on and is not timed,
and returns a coroutine function: run(progress) does the work, checks its own result and
returns the facts that must be equal on every loop.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from . import chat, database, pipeline, scrape, threads

Facts = dict[str, int]


class Progress(Protocol):
    """What a program tells about its progress: call it with the steps just done."""

    def __call__(self, steps: int = 1) -> None: ...


class Stage(NamedTuple):
    """One program of the tour."""

    name: str
    title: str  # what it does, with {n} for the size of its main number
    size: int
    prepare: Callable[[int], Callable[[Progress], Awaitable[Facts]]]


STAGES = [
    Stage("scrape", "HTTP service, {n:,} pages scraped", 1_000, scrape.prepare),
    Stage("chat", "chat server, {n:,} clients", 1_000, chat.prepare),
    Stage("pipeline", "data pipeline, {n:,} lines", 250_000, pipeline.prepare),
    Stage("database", "SQLAlchemy, {n:,} transactions", 600, database.prepare),
    Stage("threads", "asyncio.to_thread, {n:,} calls", 20_000, threads.prepare),
]
