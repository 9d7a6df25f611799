"""The loops that are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from . import native

CEILING = "libuv"  # what no loop over libuv can beat: an echo server in plain C

# Every one is a module with new_event_loop(), but for the last, which is no loop of
# Python's and takes part in few rows.
KNOWN = ("asyncio", "uvloop", "rloop", "zuvloop", "fastloop", CEILING)
REFERENCES = ("uvloop", "asyncio")

# asyncio and others allocate 256 KiB for each read. Where glibc gives that back to the
# kernel every time, page faults cost more than all the rest, so that a benchmark would
# compare allocations. Kept, all loops are at their best.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}

_PROBE = """
import importlib, importlib.metadata, json, sys
versions = {}
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        module.new_event_loop
    except ImportError:
        continue
    if name == "asyncio":
        version = sys.version.split()[0]
    else:
        version = getattr(module, "__version__", None)
        version = version or importlib.metadata.version(name)
    if hasattr(module, "libuv_version"):
        libuv = module.libuv_version
        version = f"{version}, libuv {libuv() if callable(libuv) else libuv}"
    versions[name] = version
print(json.dumps(versions))
"""


def environment(*, keep_memory: bool = True) -> dict[str, str]:
    """Return the variables for the processes under test.

    Debug modes are off, and hash seeds the same in all.
    """
    drop = {"PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONWARNINGS"}
    drop |= set(KEEP_MEMORY)
    variables = {name: text for name, text in os.environ.items() if name not in drop}
    variables["PYTHONHASHSEED"] = "0"
    if keep_memory:
        variables |= KEEP_MEMORY
    return variables


def installed(names: list[str]) -> dict[str, str]:
    """Return the versions of those of the loops that can be imported."""
    command = [sys.executable, "-c", _PROBE, *names]
    output = subprocess.run(
        command, env=environment(), stdout=subprocess.PIPE, check=True
    ).stdout
    found: dict[str, str] = json.loads(output)
    if CEILING in names and (version := native.build("echo", "libuv")):
        found[CEILING] = version
    return found
