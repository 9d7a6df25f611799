"""What no loop over libuv can beat: an echo server in plain C, built when needed."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

NAME = "libuv"
SOURCE = Path(__file__).parents[1] / "ceiling/echo.c"
PROGRAM = Path(__file__).parents[2] / "build/ceiling/echo"


def build() -> str | None:
    """Build the server; return libuv's version, or None without a compiler or libuv."""
    config = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    compiler = shlex.split(os.environ.get("CC", "cc"))
    try:
        version, flags = (
            subprocess.check_output([*config, *options, "libuv"], text=True).strip()
            for options in (["--modversion"], ["--cflags", "--libs"])
        )
        if not fresh():
            PROGRAM.parent.mkdir(parents=True, exist_ok=True)
            command = [*compiler, "-O2", "-o", str(PROGRAM), str(SOURCE)]
            subprocess.check_call([*command, *shlex.split(flags)])
    except (OSError, subprocess.CalledProcessError):
        return None
    return version


def fresh() -> bool:
    """Tell whether the program is newer than its source."""
    return PROGRAM.exists() and PROGRAM.stat().st_mtime_ns >= SOURCE.stat().st_mtime_ns
