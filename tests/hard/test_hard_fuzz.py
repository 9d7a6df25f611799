"""Hostile objects in every entry point of the C code: see fuzz.py."""

import pathlib

from conftest import run_python

from .conftest import SCALE

SCRIPT = pathlib.Path(__file__).parent / "fuzz.py"


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
