"""Asynchronous generators and the loop that closes them."""

import asyncio
import gc

import pytest

# Asynchronous generators


async def numbers(log, count=10):
    try:
        for number in range(count):
            yield number
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        log.append("closed")


def test_asyncgen(loop):
    log = []

    async def main():
        return [number async for number in numbers(log)]

    assert loop.run_until_complete(main()) == list(range(10))
    assert log == ["closed"]


def test_asyncgen_left_early_is_closed_by_the_loop(loop):
    """Its finalizer hook schedules aclose()."""
    log = []

    async def main():
        async for _ in numbers(log):
            break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert log == ["closed"]


def test_asyncgen_dropped_in_another_thread(loop, run):
    log = []

    async def main():
        generator = numbers(log)
        await anext(generator)
        box = [generator]
        del generator
        await loop.run_in_executor(None, box.clear)
        gc.collect()
        while not log:
            await asyncio.sleep(0.001)

    run(main())
    assert log == ["closed"]


def test_shutdown_asyncgens(loop):
    log = []
    generators = []

    async def main():
        for _ in range(3):
            generators.append(numbers(log))
            await anext(generators[-1])

    loop.run_until_complete(main())
    assert log == []
    assert loop.run_until_complete(loop.shutdown_asyncgens()) is None
    assert log == ["closed"] * 3
    loop.run_until_complete(loop.shutdown_asyncgens())

    async def more():
        with pytest.raises(StopAsyncIteration):
            await anext(generators[0])

    loop.run_until_complete(more())


def test_shutdown_asyncgens_reports_errors(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def broken():
        try:
            yield 1
        finally:
            raise ZeroDivisionError

    generator = broken()

    async def main():
        await anext(generator)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    [context] = contexts
    assert context["message"].startswith(
        "an error occurred during closing of asynchronous generator"
    )
    assert context["asyncgen"] is generator
    assert isinstance(context["exception"], ZeroDivisionError)


def test_an_asyncgen_after_the_shutdown_warns(loop):
    log = []

    async def main():
        await loop.shutdown_asyncgens()
        generator = numbers(log)
        with pytest.warns(
            ResourceWarning,
            match=r"asynchronous generator .* was scheduled after "
            r"loop\.shutdown_asyncgens\(\) call",
        ):
            await anext(generator)
        await generator.aclose()

    loop.run_until_complete(main())
    assert log == ["closed"]


def test_shutdown_asyncgens_can_be_patched(loop_factory):
    """Test helpers put a function of theirs on the instance; Runner calls that."""
    calls = []

    async def main():
        loop = asyncio.get_running_loop()
        original = loop.shutdown_asyncgens

        async def shutdown_asyncgens():
            calls.append(1)
            await original()

        loop.shutdown_asyncgens = shutdown_asyncgens

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert calls == [1]


def test_asyncgens_of_two_loops(loop, loop_factory):
    """Each loop closes its own."""
    other = loop_factory()
    logs = [], []
    generators = [numbers(log) for log in logs]

    async def start(generator):
        await anext(generator)

    for each, generator in zip((loop, other), generators, strict=True):
        each.run_until_complete(start(generator))
    other.run_until_complete(other.shutdown_asyncgens())
    assert logs == ([], ["closed"])
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert logs == (["closed"], ["closed"])
    other.close()


def test_an_asyncgen_of_a_closed_loop_is_dropped(loop_factory):
    """Nothing can be scheduled for it any more; nothing complains."""
    log = []
    loop = loop_factory()
    generators = [numbers(log)]

    async def main():
        await anext(generators[0])

    loop.run_until_complete(main())
    loop.close()
    generators.clear()
    gc.collect()
    assert log == []


def test_runner_cancels_what_is_left(loop_factory):
    log = []

    async def child():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            log.append("cancelled")
            raise

    async def main():
        asyncio.create_task(child())  # noqa: RUF006
        generator = numbers(log)
        await anext(generator)
        return generator

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        generator = runner.run(main())
    assert log == ["cancelled", "closed"]
    del generator
