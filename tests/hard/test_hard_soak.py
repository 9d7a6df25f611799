"""A mixed server under load: nothing grows. See soak.py."""

import pathlib

import pytest
from conftest import run_python

from .conftest import SCALE

SCRIPT = pathlib.Path(__file__).parent / "soak.py"


def test_nothing_grows_under_a_mixed_load(seed):
    pytest.importorskip("trustme")
    seconds = 600 * SCALE or 12
    result = run_python(
        str(SCRIPT), "fastloop", str(seed), str(seconds), timeout=seconds * 2 + 60
    )
    print(result.stdout)
    assert result.stdout.endswith("flat\n")
