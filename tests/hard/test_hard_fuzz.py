"""Hostile objects in every entry point of the C code, and hostile peers: see fuzz.py and
wire.py.
"""

import pathlib

import pytest
from authority import new_authority
from conftest import run_python

from .conftest import SCALE

SCRIPT = pathlib.Path(__file__).parent / "fuzz.py"
WIRE = SCRIPT.parent / "wire.py"


def test_no_argument_ends_the_process(seed):
    seconds = 600 * SCALE or 5
    result = run_python(
        "-X",
        "dev",
        str(SCRIPT),
        str(seed),
        str(seconds),
        env={"PYTHONMALLOC": "debug"},
        timeout=seconds + 100,
    )
    print(result.stdout)
    assert " 0 SystemError" in result.stdout


@pytest.mark.parametrize("loop_name", ["asyncio", "fastloop"])
def test_nothing_from_the_wire_ends_the_process(seed, loop_name):
    """And no byte is lost or made up: see wire.py. asyncio proves the script."""
    new_authority()  # skips where certificates cannot be had
    if SCALE and loop_name == "asyncio":
        pytest.skip("has had its short form")
    seconds = 600 * SCALE or 3
    result = run_python(
        *("-X", "dev", "-W", "ignore::ResourceWarning"),
        *(str(WIRE), loop_name, str(seed), str(seconds)),
        timeout=seconds + 100,
    )
    print(result.stdout)
    assert result.stdout.endswith("whole\n")
