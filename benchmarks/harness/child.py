"""Samples in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from .registry import Row

SAMPLE = Path(__file__).parents[1] / "sample.py"


class SampleError(Exception):
    """A sample could not be taken."""


def take_sample(
    python: str,
    row: Row,
    loop: str,
    variables: dict[str, str],
    *,
    timeout: float,
    options: tuple[str, ...] = (),
) -> dict[str, float]:
    """Take one sample; return what its metrics counted for an operation, by name.

    ``options`` go to sample.py. SampleError if there is no result within ``timeout``
    seconds.
    """
    with subprocess.Popen(
        [python, str(SAMPLE), row.key, loop, *options],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise SampleError(f"no result in {timeout:g} s") from None
        finally:
            # Whatever it started goes with it, be it finished, hung or interrupted.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise SampleError(summary(complaint) or f"status {process.returncode}")
    values: dict[str, float] = json.loads(output)["values"]
    return values


def summary(complaint: str) -> str:
    """Return the first exception that a failed sample reported."""
    lines = complaint.splitlines()
    for line in lines:
        if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line):
            return line
    return lines[-1] if lines else ""
