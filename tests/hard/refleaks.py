"""A pytest plugin: each test again and again, and nothing may grow (make hard-refs).

    PYTHONPATH=tests/hard python -m pytest -n 0 -p refleaks [FILE...]

As CPython's own "-R 3:3", but for each test alone, which names the leak: it runs three
times to fill what caches there are, then three times more, and fails if in each of these
there were more references (on an interpreter that was configured with --with-pydebug) or
more blocks of memory than before. What only looks so is caught by trying again, and what
grows as much on asyncio's own loop is the test's or pytest's: each tmp_path leaves 28
references, an exception that is an attribute of a class its traceback.

It counts what fastloop does: tests that run on asyncio's own loop, in a process of their
own, or with what Hypothesis draws are left out.
"""

import array
import gc
import linecache
import re
import sys
import time

import pytest
from _pytest import runner

WARM_UPS, ROUNDS, ATTEMPTS = 3, 3, 4
SLOW = 5.0
"""Seconds of a test that is not worth the time of ten."""

NAMES = "references", "blocks"
OWN_PROCESS = "run_script", "run_python", "script_command"
counts = array.array("q", bytes(8 * len(NAMES) * (ROUNDS + 1)))
"""What was counted: numbers that are objects would be blocks themselves."""

references = getattr(sys, "gettotalrefcount", int)
counted = []
leaks = {}
left_out = {}


def count(number):
    linecache.clearcache()
    re.purge()
    sys._clear_type_cache()
    for _ in range(3):
        gc.collect()
    counts[number * 2] = references()
    counts[number * 2 + 1] = sys.getallocatedblocks()


def reason_to_leave_out(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if params.get("loop_name") == "asyncio":
        return "asyncio's own loop"
    if set(OWN_PROCESS) & {*item.fixturenames, *item.function.__code__.co_names}:
        return "a process of its own"
    if hasattr(item.function, "hypothesis"):
        return "drawn by Hypothesis"
    return None


def once(item, nextitem):
    """Run item as pytest does, without telling. The outcomes that were no success."""
    reports = runner.runtestprotocol(item, nextitem=nextitem, log=False)
    item._report_sections.clear()
    return [each.outcome for each in reports if each.outcome != "passed"]


def grew(item):
    """What grew in each of some rounds: {name: [by how much]}; None if the test failed."""
    count(0)
    for number in range(ROUNDS):
        if once(item, item.parent):
            return None
        count(number + 1)
    found = {}
    for i, name in enumerate(NAMES):
        values = counts[i :: len(NAMES)]
        deltas = [values[n + 1] - values[n] for n in range(ROUNDS)]
        if min(deltas) > 0:
            found[name] = deltas
    return found


def grows(item):
    """What always grew, as grew() has it, or why item is left out."""
    began = time.monotonic()
    for _ in range(WARM_UPS):
        if once(item, item.parent):
            return "failed or skipped"
        if time.monotonic() - began > SLOW:
            return "slow"
    for _ in range(ATTEMPTS):
        found = grew(item)
        if not found:
            break
    return "failed when it was repeated" if found is None else found


def twin(item):
    """The same test on asyncio's own loop, or None."""
    if not hasattr(item, "callspec"):
        return None
    params = {**item.callspec.params, "loop_name": "asyncio"}
    of_function = (
        other
        for other in item.session.items
        if other.parent is item.parent and other.function is item.function
    )
    return next((each for each in of_function if each.callspec.params == params), None)


def judge(item):
    """Why item was left out, or None with its leaks noted."""
    found = grows(item)
    if isinstance(found, str):
        return found
    counted.append(item.nodeid)
    other = twin(item) if found else None
    known = grows(other) if other is not None else {}
    if isinstance(known, dict):
        for name, deltas in known.items():
            if name in found and min(found[name]) <= min(deltas):
                del found[name]
    if found:
        leaks[item.nodeid] = found
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reason = reason_to_leave_out(item) or judge(item)
    if reason is not None:
        left_out.setdefault(reason, []).append(item.nodeid)
    item.session._setupstate.teardown_exact(nextitem)
    report = pytest.TestReport(
        item.nodeid,
        item.location,
        {},
        "failed" if item.nodeid in leaks else "skipped" if reason else "passed",
        (str(item.path), 0, reason) if reason else str(leaks.get(item.nodeid, "")),
        "call",
    )
    item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    write(f"{len(counted)} tests were counted, {len(leaks)} leak")
    for reason, items in sorted(left_out.items()):
        write(f"left out, {reason}: {len(items)}")
        if reason == "failed when it was repeated":
            write("  " + "\n  ".join(items))
    for name, found in leaks.items():
        write(f"LEAK {name}: {found}")
