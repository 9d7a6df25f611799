"""The set of descriptors that a loop waits on, when a program closes what is in it."""

import pytest

CLOSE = """
import os

def close_all(kind):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if kind in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)
        except OSError:
            pass
"""


def test_a_set_that_was_closed_is_an_error(run_script):
    result = run_script(
        CLOSE
        + """
loop = new_event_loop()
loop.call_later(0.001, close_all, "eventpoll")
loop.call_later(30, loop.stop)
try:
    loop.run_forever()
except OSError as exc:
    print(exc.errno)
""",
        options=("-W", "ignore"),
    )
    assert result.stdout == "9\n"


@pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
def test_a_loop_whose_set_was_closed_can_be_closed(run_script):
    """asyncio's close() raises KeyError there."""
    result = run_script(
        CLOSE
        + """
for reuse in range(2):
    loop = new_event_loop()
    close_all("eventpoll")
    for _ in range(20 * reuse):
        os.open(os.devnull, os.O_RDONLY)  # another file in its place
    loop.close()
print("closed")
"""
    )
    assert result.stdout == "closed\n"


def test_timers_go_off_when_the_timer_descriptor_was_closed(run_script):
    result = run_script(
        CLOSE
        + """
async def main():
    close_all("timerfd")
    for delay in 0.001, 0.0001, 0.01:
        await asyncio.sleep(delay)
    print("slept")

run(main())
"""
    )
    assert result.stdout == "slept\n"
