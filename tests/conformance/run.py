"""CPython's own asyncio tests, as the running interpreter has them installed, on fastloop.

    python tests/conformance/run.py [-j JOBS] [--stock] [MODULE...]

Each module runs in a process of its own. What fails there runs once more, alone; what
fails again runs on asyncio's own loop. A test that fails on fastloop only has to be in
ledger.toml, and a test that is in ledger.toml has to fail.
"""

import argparse
import concurrent.futures
import contextlib
import fnmatch
import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

TEST_LIMIT = float(os.environ.get("FASTLOOP_CONFORMANCE_LIMIT", "60"))
"""Seconds after which a test counts as hung."""

PACKAGE = "test.test_asyncio"

# Of that package, what no loop is given to: asyncio's other loops and its classes alone.
OTHERS = {
    "test_proactor_events",
    "test_protocols",
    "test_selector_events",
    "test_tools",
    "test_transports",
    "test_windows_events",
    "test_windows_utils",
}

# Elsewhere in CPython's suite: the first of each line that there is.
ELSEWHERE = [
    ["test.test_unittest.test_async_case", "unittest.test.test_async_case"],
    ["test.test_asyncgen"],
    ["test.test_contextlib_async"],
    ["test.test_coroutines"],
    ["test.test_pdb"],
]


def find(name):
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name)
    return None


def modules():
    """Return the names of the modules to run, those that take longest first."""
    package = find(PACKAGE)
    if package is None:
        sys.exit(f"error: {sys.executable} comes without {PACKAGE}")
    names = []
    for folder in package.submodule_search_locations:
        for path in sorted(pathlib.Path(folder).glob("test_*.py")):
            if path.stem not in OTHERS:
                names.append(f"{PACKAGE}.{path.stem}")
    for choice in ELSEWHERE:
        names += [name for name in choice if find(name) is not None][:1]
    slow = ("test_ssl", "test_tasks", "test_subprocess", "test_events", "test_sslproto")
    return sorted(names, key=lambda name: not name.endswith(slow))


class Outcome:
    """What became of one test: passed, failed, skipped, hung or crashed."""

    def __init__(self, what, text="", seconds=0.0):
        self.what = what
        self.text = text
        self.seconds = seconds

    @property
    def bad(self):
        return self.what not in ("passed", "skipped")


def run_module(loop, name, only=(), skip=()):
    """Run the tests of a module; return {id: Outcome}."""
    outcomes = {}
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        while run_process(loop, name, only, skip, outcomes, pathlib.Path(folder)):
            pass
    return outcomes


def run_process(loop, name, only, skip, outcomes, folder):
    """Run those that have no outcome yet; return whether some may be left."""
    results, output = folder / "results", folder / "output"
    results.write_text("")
    command = [sys.executable, str(HERE / "worker.py"), loop, name, str(results)]
    for option, ids in [("--only", only), ("--skip", [*skip, *outcomes])]:
        if ids:
            (folder / option).write_text("\n".join(ids))
            command += [option, str(folder / option)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("PYTHONASYNCIODEBUG", None)
    # Where a test leaves files, and where the modules of this folder are not in the way.
    work = folder / "work"
    work.mkdir(exist_ok=True)
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=work,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        hung = wait(process, results)

    running, ended = None, False
    for line in map(json.loads, results.read_text().splitlines()):
        if "start" in line:
            running = line["start"]
        elif "test" in line:
            running = None
            seconds = line.get("seconds", 0.0)
            outcomes[line["test"]] = Outcome(line["outcome"], line["text"], seconds)
        else:
            ended = True
    tail = output.read_text(errors="replace")[-4000:]
    if running is not None:
        outcomes[running] = Outcome("hung" if hung else "crashed", tail)
        return True
    if not ended or process.returncode != 0:
        what = "hung" if hung else "crashed"
        outcomes[f"{name} (outside of a test)"] = Outcome(what, tail)
    return False


def wait(process, results):
    """Wait for the end; return True if no test ended for too long."""
    size, since = -1, time.monotonic()
    while True:
        try:
            process.wait(0.5)
            return False
        except subprocess.TimeoutExpired:
            pass
        if results.stat().st_size != size:
            size, since = results.stat().st_size, time.monotonic()
        elif time.monotonic() - since > TEST_LIMIT:
            process.send_signal(6)  # faulthandler shows where it hangs
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
            return True


@functools.cache
def ledger():
    """Return {pattern: whether it hangs} of what has to fail on this Python."""
    with (HERE / "ledger.toml").open("rb") as file:
        entries = tomllib.load(file)["test"]
    version = ".".join(map(str, sys.version_info[:2]))
    assert all(entry["reason"] for entry in entries)
    return {
        f"{PACKAGE}.{entry['id']}": entry.get("hangs", False)
        for entry in entries
        if version in entry.get("python", [version])
    }


def judge(name, show):
    """Run one module on fastloop, and on asyncio what fails; return (outcomes, notes)."""
    started = time.monotonic()
    hanging = [test for test, hangs in ledger().items() if hangs]
    outcomes = run_module("fastloop", name, skip=hanging)

    def expected(test):
        return any(fnmatch.fnmatchcase(test, pattern) for pattern in ledger())

    problems = {}
    bad = [test for test, outcome in outcomes.items() if outcome.bad]
    bad = [test for test in bad if not expected(test)]
    tests = [test for test in bad if " (" not in test]
    again = run_module("fastloop", name, tests) if tests else {}
    flaky = [test for test in tests if test in again and not again[test].bad]
    tests = [test for test in tests if test not in flaky]
    stock = run_module("asyncio", name, tests) if tests else {}
    same = [test for test in tests if test in stock and stock[test].bad]
    for test in bad:
        if test not in flaky and test not in same:
            problems[test] = outcomes[test]
    for test, outcome in outcomes.items():
        if outcome.what == "passed" and expected(test):
            problems[test] = Outcome("passed, against ledger.toml")
    with show:
        line = f"{len(outcomes):5} tests {time.monotonic() - started:6.1f} s  {name}"
        print(line, flush=True)
        for test in flaky:
            print(f"      failed, then passed alone: {test}")
            print(outcomes[test].text)
        for test in same:
            print(f"      fails on asyncio, too: {test}")
        for test, outcome in problems.items():
            print(f"      {outcome.what}: {test}\n{outcome.text}", flush=True)
    return name, outcomes, problems, flaky, same


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    names = modules()
    if args.modules:
        names = [name for name in names if name.rpartition(".")[2] in args.modules]
    started = time.monotonic()
    show = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        reports = list(pool.map(lambda name: judge(name, show), names))

    total = {}
    problems, flaky, same = {}, [], []
    for _, outcomes, wrong, odd, equal in reports:
        total.update(outcomes)
        problems.update(wrong)
        flaky += odd
        same += equal
    entries = ledger()
    if not args.modules:
        for pattern, hangs in entries.items():
            if not hangs and not any(
                fnmatch.fnmatchcase(test, pattern) for test in total
            ):
                problems[pattern] = Outcome("in ledger.toml, but there is no such test")
    count = {}
    for outcome in total.values():
        count[outcome.what] = count.get(outcome.what, 0) + 1
    excused = sum(outcome.bad for outcome in total.values())
    excused -= len([test for test in problems if test in total and total[test].bad])
    print(
        f"Python {sys.version.split()[0]}:",
        f"{len(total)} tests, {count.get('passed', 0)} passed,",
        f"{count.get('skipped', 0)} skipped, {excused} excused",
        f"({len(entries)} lines in the ledger, {len(same)} fail on asyncio, too,",
        f"{len(flaky)} passed alone), {len(problems)} problems,",
        f"{time.monotonic() - started:.0f} s",
    )
    for test, outcome in problems.items():
        print(f"{outcome.what}: {test}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
