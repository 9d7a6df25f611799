"""A child's exit, and what comes of it where the telling is interrupted or refused."""

import asyncio
import logging
import os
import types

import pytest
from iosupport import capture, children, is_stock, open_fds, open_fds_at_first, settle

PIPE = asyncio.subprocess.PIPE


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = children()  # servers that other tests of this session have started
    yield
    assert children() <= before


@types.coroutine
def interrupted(coro, error):
    """Have error raised where coro waits for the first time, as by a signal's handler."""
    coro.send(None)
    coro.throw(error)
    yield


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_while_starting_leaves_the_child_alone(loop, run, error):
    """It is the program that ends, and the child may be meant to outlive it."""
    watcher = Watcher(loop)

    async def main():
        start = loop.subprocess_exec(
            lambda: watcher, "cat", stdin=PIPE, stdout=None, stderr=None
        )
        with pytest.raises(error, match="out"):
            await interrupted(start, error("out"))
        transport = await watcher.made
        assert transport.get_returncode() is None
        os.kill(transport.get_pid(), 0)
        transport.get_pipe_transport(0).close()
        assert await watcher.exited == 0
        transport.close()
        await settle()

    run(main())


class Watcher(asyncio.SubprocessProtocol):
    """Futures of the transport and of its exit status."""

    def __init__(self, loop):
        self.made = loop.create_future()
        self.exited = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.made.set_result(transport)

    def process_exited(self):
        self.exited.set_result(self.transport.get_returncode())


@pytest.fixture
def raise_at_exit(monkeypatch, caplog):
    """raise_at_exit(error): what debug mode logs of an exit raises it, once."""
    raised = []

    def install(error):
        def refuse(record):
            if "exited with return code" in record.msg and not raised:
                raised.append(error)
                raise error
            return True

        logger = logging.getLogger("asyncio")
        caplog.set_level(logging.INFO, "asyncio")
        monkeypatch.setattr(logger, "filters", [*logger.filters, refuse])
        return raised

    return install


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_an_exit_that_could_not_be_told_is_told_later(loop, raise_at_exit, error):
    if is_stock(loop):
        pytest.skip("its status is lost, and wait() never ends")
    contexts = capture(loop)
    loop.set_debug(True)
    watcher = Watcher(loop)

    async def main():
        await loop.subprocess_exec(
            lambda: watcher, "sh", "-c", "exit 3", stdin=None, stdout=None, stderr=None
        )
        status = await watcher.exited
        watcher.transport.close()
        return status

    raised = raise_at_exit(error("out"))
    task = loop.create_task(main())
    if error is not MemoryError:
        with pytest.raises(error, match="out"):
            loop.run_until_complete(task)
    assert loop.run_until_complete(task) == 3
    reported = [context["exception"] for context in contexts]
    assert reported == (raised if error is MemoryError else [])
    contexts.clear()
    raised.clear()


def test_an_exit_that_is_refused_is_reported_once(loop, run, raise_at_exit):
    if is_stock(loop):
        pytest.skip("its watcher's own code decides")
    contexts = capture(loop)
    loop.set_debug(True)

    async def main():
        before = open_fds_at_first()
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol,
            *("sh", "-c", "exit 3"),
            stdin=None,
            stdout=None,
            stderr=None,
        )
        while not contexts:
            await asyncio.sleep(0.001)
        await settle()
        assert open_fds() == before
        transport.close()
        await settle()

    raise_at_exit(ZeroDivisionError("out"))
    run(main())
    assert [str(context["exception"]) for context in contexts] == ["out"]
    contexts.clear()
