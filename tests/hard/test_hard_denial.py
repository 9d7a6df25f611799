"""Attacks on a server: what they cost, and that it serves others meanwhile. See denial.py."""

import json
import pathlib
import resource

import pytest
from authority import new_authority
from conftest import run_python

from .conftest import SCALE

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
    "mode, few, seconds, many, long",
    [
        ("slowloris", 120, 2, 6_000, 20),
        ("deaf", 24, 0, 1_000, 0),
        ("handshakes", 300, 0, 30_000, 0),
        ("udp", 20_000, 0, 500_000, 0),
        ("timers", 50_000, 0, 1_000_000, 0),
        ("small", 16_384, 0, 262_144, 0),
        ("flood", 1, 0.5, 20, 15),
        ("accept", 300, 0.5, 20_000, 15),
    ],
)
def test_a_server_bears_it(mode, few, seconds, many, long):
    number, seconds = (many, long * SCALE) if SCALE else (few, seconds)
    if mode in ("slowloris", "deaf", "handshakes", "small"):
        new_authority()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if mode in ("slowloris", "deaf") and limit < number + 100:
        pytest.skip(f"no more than {limit} descriptors")
    result = run_python(
        str(HERE / "denial.py"),
        "fastloop",
        mode,
        str(number),
        str(seconds),
        timeout=600 * SCALE or 100,
    )
    print(result.stdout)
    figures, end = result.stdout.splitlines()
    assert json.loads(figures)["mode"] == mode
    assert end == "bounded"
