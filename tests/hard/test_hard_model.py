"""Random programs do on fastloop what they do on asyncio: see model.py."""

import pytest

pytest.importorskip("hypothesis")

from conftest import factory_of
from hypothesis import HealthCheck, given, settings

from .conftest import SCALE
from .model import observe, ordered_programs, timed_programs

FOUND = [
    [[("timeout", 0, [("wait", 0)]), ("note", 1)]],
    [[("callback", 1, [("cancel", 0), ("yield", 2)])], [("join", 0), ("wake", 1)]],
    [[("write", 3), ("close", 1), ("write", 1)], [("thread", 3), ("job", 2)]],
]
"""Programs that stay: those that once told the loops apart, and a few to begin with."""


def compare(program):
    expected = observe(factory_of("asyncio"), program)
    found = observe(factory_of("fastloop"), program)
    assert found == expected, f"asyncio:  {expected}\nfastloop: {found}"


def many(number):
    return settings(
        max_examples=number * SCALE if SCALE else number // 50,
        deadline=None,
        derandomize=not SCALE,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("program", FOUND)
def test_programs_that_were_found(program):
    compare(program)


@many(8_000)
@given(ordered_programs())
def test_tasks_and_callbacks_run_in_the_same_order(program):
    compare(program)


@many(4_000)
@given(timed_programs())
def test_streams_timers_and_threads_tell_the_same(program):
    compare(program)
