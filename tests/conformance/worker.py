"""Runs the tests of one module of CPython's suite, on asyncio's loop or on fastloop.

    python worker.py asyncio|fastloop MODULE RESULTS [--only FILE | --skip FILE]

RESULTS gets a line of JSON when a test starts and one when it ends, so that whoever
reads it knows which test a crash or a hang belongs to. FILE holds the ids of tests.
"""

import argparse
import asyncio
import collections
import faulthandler
import importlib
import json
import signal
import time
import traceback
import unittest
from asyncio import unix_events

# Not loaded, on either loop: these are not about the loop that asyncio is given.
LEFT_OUT = {
    # The tests of EPollEventLoopTests, once more for each class of selectors.
    "PollEventLoopTests",
    "SelectEventLoopTests",
}

# Modules whose tests want a loop from TestCase.new_test_loop() and nothing else. In
# the others that loop is a fake, whose record of readers and writers is what they test.
TEST_LOOPS = {"test_base_events", "test_futures", "test_futures2", "test_tasks"}


# Modules of which only the doctests that name asyncio are about loops.
DOCTESTS = {"test.test_pdb"}


def is_meant(module, test):
    if type(test).__name__ in LEFT_OUT:
        return False
    if module.__name__ not in DOCTESTS:
        return True
    doctest = getattr(test, "_dt_test", None)
    return doctest is not None and "asyncio" in doctest.docstring


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "fastloop"])
    parser.add_argument("module")
    parser.add_argument("results")
    parser.add_argument("--only")
    parser.add_argument("--skip")
    args = parser.parse_args()

    faulthandler.enable()
    # A background job starts with SIGINT ignored; the tests of Runner then hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from test import support

    support.use_resources = dict.fromkeys(["cpu", "subprocess", "walltime"])
    if args.loop == "fastloop":
        redirect()
    module = importlib.import_module(args.module)
    if args.loop == "fastloop":
        redirect_classes(module)

    tests = {}
    for test in flatten(unittest.defaultTestLoader.loadTestsFromModule(module)):
        if is_meant(module, test):
            tests[test.id()] = test
    if args.only:
        wanted = read(args.only)
        tests = {name: test for name, test in tests.items() if name in wanted}
    if args.skip:
        unwanted = read(args.skip)
        tests = {name: test for name, test in tests.items() if name not in unwanted}

    with open(args.results, "a", buffering=1) as file:
        unittest.TestSuite(tests.values()).run(Result(file))
        print(json.dumps({"end": True}), file=file)


def read(name):
    with open(name) as file:
        return set(file.read().split("\n"))


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


class Result(unittest.TestResult):
    """Writes what becomes of each test."""

    def __init__(self, file):
        super().__init__()
        self.file = file
        self.problems = collections.defaultdict(list)
        self.skips = {}
        self.started = time.monotonic()

    def write(self, **line):
        print(json.dumps(line), file=self.file)

    def startTest(self, test):
        self.started = time.monotonic()
        self.write(start=test.id())

    def add(self, test, err):
        text = "".join(traceback.format_exception(*err))
        if isinstance(test, unittest.TestCase):
            self.problems[test.id()].append(text)
        else:  # setUpModule() or setUpClass()
            self.write(test=str(test), outcome="failed", text=text)

    addError = addFailure = add

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.problems[test.id()].append("".join(traceback.format_exception(*err)))

    def addUnexpectedSuccess(self, test):
        self.problems[test.id()].append("unexpected success")

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self.skips[test.id()] = reason
        else:
            self.write(test=str(test), outcome="skipped", text=reason)

    def stopTest(self, test):
        name = test.id()
        seconds = round(time.monotonic() - self.started, 2)
        outcome, text = "passed", ""
        if name in self.problems:
            outcome, text = "failed", "\n".join(self.problems[name])
        elif name in self.skips:
            outcome, text = "skipped", self.skips[name]
        self.write(test=name, outcome=outcome, text=text, seconds=seconds)


def redirect():
    """Make fastloop what asyncio's ways to a loop lead to. Before the tests' import."""
    from fastloop import new_event_loop

    unix_events._UnixDefaultEventLoopPolicy._loop_factory = staticmethod(new_event_loop)
    stand_in = stand_in_for(asyncio.SelectorEventLoop)
    asyncio.SelectorEventLoop = stand_in
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = stand_in


def stand_in_for(genuine):
    """A class that makes a fastloop, whatever selector is asked for."""
    from fastloop import Loop, new_event_loop

    class Meta(type):
        def __call__(cls, selector=None):
            return new_event_loop()

        def __instancecheck__(cls, instance):
            return isinstance(instance, (genuine, Loop))

    return Meta(genuine.__name__, (genuine,), {"__module__": genuine.__module__})


def redirect_classes(module):
    """Give fastloop to the test classes that make a loop in a way of their own."""
    from test.test_asyncio import utils

    from fastloop import new_event_loop

    name = module.__name__.rpartition(".")[2]
    if name in TEST_LOOPS:
        fake = utils.TestCase.new_test_loop

        def new_test_loop(self, gen=None):
            if gen is not None:  # a loop whose time is the test's
                return fake(self, gen)
            loop = new_event_loop()
            self.set_event_loop(loop)
            return loop

        utils.TestCase.new_test_loop = new_test_loop

    if name == "test_base_events":
        # Its setUp() makes a BaseEventLoop with a selector that is a mock.
        def set_up(self):
            utils.TestCase.setUp(self)
            self.loop = new_event_loop()
            self.set_event_loop(self.loop)

        module.BaseEventLoopTests.setUp = set_up
    if name == "test_runners":
        # The same, and the runner has to have called shutdown_asyncgens().
        def new_loop(self):
            loop = new_event_loop()
            loop.shutdown_ag_run = False

            async def shutdown_asyncgens():
                loop.shutdown_ag_run = True

            loop.shutdown_asyncgens = shutdown_asyncgens
            return loop

        module.BaseTest.new_loop = new_loop


if __name__ == "__main__":
    main()
