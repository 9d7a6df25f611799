"""Runs the tests of the rooms in which Pythons differ, on the Python that runs this.

The whole suite on every interpreter takes longer than CI may: it is for the oldest
Python, with the services (make test). The others run these rooms, each in one process,
two interpreters side by side; Python 3.12 and 3.13, whose neighbours they are, and the
debug build, which is slow, only those of the objects that all others are made of.
asyncio proves the tests on the oldest and the newest Python; on the others they see
fastloop alone. `make matrix` leaves nothing out.
"""

import os
import subprocess
import sys
import sysconfig

ROOMS = """
    accept callargs connect connect_literal context context_tasks debug errors
    executor feed flow fork free_threading freezing gate handle handleinfo
    handlerun loop loop_close loop_run method metrics names parity payload pipe
    policy probe process reader reader_arguments reads reads_ends reads_replaced
    run series server shared signals signals_wakeup_fd sock start_tls stock
    stream streamedge streamread streams_api streamwrite subinterpreters tasks
    tasks_asyncgens tasks_factory timer timer_when tlsengine transport
    transporterrors turn udp view wakeup watchdog
"""

FEW = """
    callargs context errors feed flow gate handle handleinfo handlerun loop method
    reader reader_arguments reads reads_ends reads_replaced series sock stock stream
    streamwrite tasks timer timer_when tlsengine transport turn udp wakeup
"""

NEWEST = (3, 15)

LEFT_OUT = "tests/test_subinterpreters.py::test_nothing_is_left_of_them"


def main() -> int:
    """Return pytest's status."""
    has_neighbours = sys.version_info[:2] in {(3, 12), (3, 13)}
    has_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
    rooms = FEW if has_neighbours and has_gil else ROOMS
    files = [f"tests/test_{room}.py" for room in rooms.split()]
    options = ["-q", "-n", "0", f"--deselect={LEFT_OUT}"]
    loops = "asyncio fastloop" if sys.version_info[:2] >= NEWEST else "fastloop"
    return subprocess.call(
        [sys.executable, "-m", "pytest", *options, *files],
        env={**os.environ, "FASTLOOP_LOOPS": loops},
    )


if __name__ == "__main__":
    sys.exit(main())
