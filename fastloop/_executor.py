"""The default executor: concurrent.futures' own, with workers that run a native loop.

It is a ThreadPoolExecutor in everything that a program can ask of it. Jobs that come
through ``loop.run_in_executor(None, ...)`` are handed to the workers in C; what comes
through ``submit()`` runs as it always did.
"""

from __future__ import annotations

import asyncio.futures
import concurrent.futures
import threading
import types
import weakref
from concurrent.futures import _base, thread
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:

    class _Base(concurrent.futures.ThreadPoolExecutor):
        """ThreadPoolExecutor as it is, private parts and all."""

        _create_worker_context: Any  # from 3.14 on
        _max_workers: int
        _shutdown: bool
        _shutdown_lock: threading.Lock
        _thread_name_prefix: str
        _threads: set[threading.Thread]
        _work_queue: Any

else:
    _Base = thread.ThreadPoolExecutor

_private: Any = thread
_futures: Any = asyncio.futures
_submit = _Base.submit


class ThreadPoolExecutor(_Base):
    """The default executor of a loop."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="asyncio")
        run_item = _run_item
        if hasattr(self, "_create_worker_context"):
            # Nobody gave an initializer, so there is no context to be told apart.
            context = self._create_worker_context()

            def run_item(item: Any) -> None:
                item.run(context)

        self._work_queue = _core.JobQueue(run_item, _hand_over, _submit)
        self._work_queue.room = self._max_workers

    def _adjust_thread_count(self) -> None:
        """Start a thread if the last item found no idle one."""
        queue = self._work_queue
        if not queue.needed or queue.room <= 0:
            return
        number = len(self._threads)

        def lost(_: object, queue: Any = queue) -> None:
            queue.put(None)

        worker = threading.Thread(
            name=f"{self._thread_name_prefix}_{number}",
            target=_worker,
            args=(weakref.ref(self, lost), queue),
        )
        worker.start()  # there may be no thread left: then the next item tries again
        queue.room -= 1
        self._threads.add(worker)
        _private._threads_queues[worker] = queue

    def _grow(self) -> None:
        """A job of the loop found no idle thread."""
        with self._shutdown_lock, _private._global_shutdown_lock:
            if _private._shutdown:  # pragma: no cover - coverage.py has ended by then
                raise RuntimeError(
                    "cannot schedule new futures after interpreter shutdown"
                )
            self._adjust_thread_count()


for _name in ("__name__", "__qualname__", "__module__", "__doc__"):
    setattr(ThreadPoolExecutor, _name, getattr(_Base, _name))


def _run_item(item: Any) -> None:
    item.run()


def _hand_over(future: asyncio.Future[Any], raised: bool, result: Any) -> None:
    """Give a result to a future as asyncio does, where that is more than to set it."""
    if future.done():
        return  # cancelled: asyncio, too, has nothing to tell it, and no loop to do so
    source: concurrent.futures.Future[Any] = concurrent.futures.Future()
    source.set_running_or_notify_cancel()
    _futures._chain_future(source, future)
    if raised:
        source.set_exception(result)
    else:
        source.set_result(result)


def _worker(reference: weakref.ref[ThreadPoolExecutor], queue: Any) -> None:
    try:
        queue.serve()
        # A None came: of shutdown(), of the interpreter's end, or of lost().
        executor = reference()
        if executor is not None:
            executor._shutdown = True
        queue.put(None)  # for the other workers
    except BaseException:
        _base.LOGGER.critical("Exception in worker", exc_info=True)


def _is_untouched() -> bool:
    """Whether nobody has put something of their own into concurrent.futures."""
    names = (
        (_Base, "submit"),
        (_Base, "_adjust_thread_count"),
        (_private._WorkItem, "run"),
    )
    return concurrent.futures.ThreadPoolExecutor is _Base and all(
        isinstance(function := getattr(owner, name), types.FunctionType)
        and function.__code__.co_filename == _private._worker.__code__.co_filename
        for owner, name in names
    )


# Whether this Python was built with a GIL, which is the queue's only guard.
_HAS_GIL = hasattr(_core, "JobQueue")


def make() -> concurrent.futures.ThreadPoolExecutor:
    """Return a new default executor."""
    if _HAS_GIL and _is_untouched():
        return ThreadPoolExecutor()
    return concurrent.futures.ThreadPoolExecutor(thread_name_prefix="asyncio")
