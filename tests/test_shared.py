"""What threads share: locks that a forked child finds free, wherever the others were."""

import pytest


@pytest.fixture
def loop_name():
    return "fastloop"  # asyncio's loop is shared with the parent


def test_what_other_threads_had_locked(run_forking):
    """They end at the fork, wherever they were: queue and handles wait for nobody."""
    result = run_forking(
        """
        def child():
            signal.alarm(60)
            run(asyncio.sleep(0))
            for handle in handles:
                handle.cancel()
                handle.cancelled()
                repr(handle)
            loop.call_soon(print)  # only queued
            loop.call_later(1000, print).cancel()
            loop.metrics()
            asyncio.set_event_loop(new_event_loop())
            asyncio.get_event_loop().close()

        def send(number):
            while not over:
                handles[number] = handle = loop.call_soon_threadsafe(len, ())
                handle.cancel()
                handles[number - 1].cancel()

        over = []
        loop = new_event_loop()
        handles = [loop.call_soon(len, ()) for _ in range(3)]
        threads = [threading.Thread(target=loop.run_forever)]
        threads += [threading.Thread(target=send, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        statuses = [os.waitpid(fork(child), 0)[1] for _ in range(40)]
        over.append(True)
        loop.call_soon_threadsafe(loop.stop)
        for thread in threads:
            thread.join()
        loop.close()
        print(set(statuses))
        """
    )
    assert result.stdout == "{0}\n"
    assert result.stderr == ""
