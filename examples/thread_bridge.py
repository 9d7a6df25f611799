"""A blocking program that uses a loop in a thread: run_coroutine_threadsafe().

python examples/thread_bridge.py
"""

import asyncio
import threading

import fastloop


class Bridge:
    """A loop in a thread of its own, for code that cannot await."""

    def __init__(self):
        self._runner = asyncio.Runner(loop_factory=fastloop.new_event_loop)
        self._stop = None
        ready = threading.Event()

        async def serve():
            self._stop = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            ready.set()
            await self._stop.wait()

        def run():
            with self._runner as runner:
                runner.run(serve())

        self._thread = threading.Thread(target=run, name="bridge")
        self._thread.start()
        ready.wait()

    def call(self, coro, timeout=None):
        """Run coro on the loop; return its result, or raise what it raises."""
        future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


async def ask(number):
    await asyncio.sleep(0.001)
    return number**2


def main():
    bridge = Bridge()
    try:
        print([bridge.call(ask(number)) for number in range(5)])
        try:
            bridge.call(asyncio.sleep(3600), timeout=0.05)
        except TimeoutError:
            print("too slow, and cancelled")
    finally:
        bridge.close()


if __name__ == "__main__":
    main()
