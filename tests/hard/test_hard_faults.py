"""System calls that fail, are interrupted and do less: see faults.c and faults.py."""

import functools
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import run_python

from .conftest import SCALE

HERE = pathlib.Path(__file__).parent

KNOWN = ["files sendfile"]
"""The fallback of asyncio's own sendfile() waits for ever behind an error: not ours."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The preloaded library, compiled here."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    path = tmp_path_factory.mktemp("shim") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", path, HERE / "faults.c"]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return path


@pytest.fixture
def under_faults(shim):
    """under_faults(*arguments of faults.py): what it told."""
    return functools.partial(_under_faults, shim)


def _under_faults(shim, *arguments):
    result = run_python(
        "-W",
        "ignore",
        str(HERE / "faults.py"),
        "fastloop",
        *arguments,
        env={"LD_PRELOAD": str(shim)},
        timeout=3000 if SCALE else 100,
    )
    told = json.loads(result.stdout.splitlines()[-1])
    print(told["made"], "calls failed")
    assert told["made"] > 0
    return {
        what: problem
        for what, problem in told["problems"].items()
        if not what.startswith(tuple(KNOWN))
    }


def test_calls_interrupted_and_cut_short_do_not_show(under_faults, seed):
    rounds = 3000 * SCALE or 80
    assert under_faults("random", str(seed), str(rounds)) == {}


def test_calls_that_a_sandbox_refuses_do_not_show(under_faults):
    assert under_faults("refused") == {}


@pytest.mark.parametrize(
    "scenario",
    (
        "streams sockets pipes datagrams files processes timers watchers threads"
        if SCALE
        else "streams datagrams timers"
    ).split(),
)
def test_each_call_fails_with_each_error(under_faults, scenario):
    assert under_faults("turn", "1" if SCALE else "60", scenario) == {}
