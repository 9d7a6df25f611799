"""Servers under load: nothing grows. See soak.py and load.py."""

import pathlib
import resource

import pytest
from authority import new_authority
from conftest import run_python

from .conftest import SCALE

HERE = pathlib.Path(__file__).parent


def test_nothing_grows_under_a_mixed_load(seed):
    new_authority()
    seconds = 600 * SCALE or 12
    result = run_python(
        str(HERE / "soak.py"),
        "fastloop",
        str(seed),
        str(seconds),
        timeout=seconds * 2 + 60,
    )
    print(result.stdout)
    assert result.stdout.endswith("flat\n")


@pytest.mark.parametrize(
    "mode, few, many",
    [
        ("short", 1_000, 1_000_000),
        ("held", 200, 10_000),
        ("processes", 80, 10_000),
        ("loops", 50, 1_000),
        ("callbacks", 50_000, 10_000_000),
    ],
)
def test_nothing_is_left_of_many(mode, few, many):
    number, seconds = (many, 600 * SCALE) if SCALE else (few, 2)
    if mode == "held":
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit < number + 100:
            pytest.skip(f"no more than {limit} descriptors")
    result = run_python(
        str(HERE / "load.py"),
        "fastloop",
        mode,
        str(number),
        str(seconds),
        timeout=3000 * SCALE or 100,
    )
    print(result.stdout)
    assert result.stdout.endswith("flat\n")
