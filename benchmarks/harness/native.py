"""The programs in C that stand beside the loops, built when they are needed."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def program(name: str) -> Path:
    """Return where the program ``name`` is when it has been built."""
    return _ROOT / "build/benchmarks" / name


def build(name: str, package: str) -> str | None:
    """Build ``native/<name>.c`` with a library that pkg-config knows.

    Returns the library's version, or None without a compiler or the library.
    """
    config = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    compiler = shlex.split(os.environ.get("CC", "cc"))
    source = _ROOT / "benchmarks/native" / f"{name}.c"
    target = program(name)
    try:
        version, flags = (
            subprocess.check_output(
                [*config, *options, package], text=True, stderr=subprocess.DEVNULL
            ).strip()
            for options in (["--modversion"], ["--cflags", "--libs"])
        )
        if not _fresh(target, source):
            target.parent.mkdir(parents=True, exist_ok=True)
            command = [*compiler, "-O2", "-o", str(target), str(source)]
            subprocess.check_call([*command, *shlex.split(flags)])
    except (OSError, subprocess.CalledProcessError):
        return None
    return version


def _fresh(target: Path, source: Path) -> bool:
    """Tell whether the program is newer than its source."""
    return target.exists() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns
