"""Each operation of nomemory.py again and again, with memory: nothing grows.

    python growth.py LOOP [OPERATION...]

As CPython's own "-R 3:3", but each of the three is ten rounds: what grew by one a round
in all of them leaks: descriptors, blocks of memory and, on an interpreter that was
configured with --with-pydebug, references. Python's own caches fill up for a while, on
asyncio as well: only what never stops to grow is told of, as a line of JSON.
"""

import array
import asyncio
import gc
import importlib
import itertools
import json
import logging
import sys
import warnings

import nomemory

PARTS, ROUNDS, ATTEMPTS = 3, 10, 12


class Step(nomemory.Step):
    """One run of an operation, and all is well."""

    def __enter__(self):
        pass

    def __exit__(self, cls, exc, tb):
        return False


NAMES = "descriptors", "blocks", "references"
marks = array.array("q", bytes(8 * len(NAMES) * (PARTS + 1)))
"""What was counted: numbers that are objects would be blocks themselves."""

references = getattr(sys, "gettotalrefcount", int)


def mark(number):
    for _ in range(3):
        gc.collect()
    marks[number * 3] = nomemory.open_fds()
    marks[number * 3 + 2] = references()
    marks[number * 3 + 1] = sys.getallocatedblocks()


def once(operation, loop_factory, contexts):
    step = Step(loop_factory, 0, 0, contexts)
    operation(step)
    loop = step.loop
    if not loop.is_closed():
        # An earlier stop() may wait in the queue still.
        loop.call_soon(loop.stop)
        loop.run_forever()
        step.free(nomemory.end(loop, asyncio.all_tasks(loop)))
        loop.close()
    for file in step.files:
        file.close()
    assert step.problems == [], step.problems


def growth(operation, loop_factory, contexts):
    """What grew in each of the rounds: {name: [by how much]}."""
    once(operation, loop_factory, contexts)
    mark(0)
    for part in range(PARTS):
        for _ in range(ROUNDS):
            once(operation, loop_factory, contexts)
        mark(part + 1)
    grew = {}
    for i, name in enumerate(NAMES):
        values = marks[i :: len(NAMES)]
        deltas = [after - before for before, after in itertools.pairwise(values)]
        if min(deltas) >= ROUNDS:
            grew[name] = deltas
    return grew


def main():
    loop_name, *names = sys.argv[1:]
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").propagate = False
    loop_factory = asyncio.SelectorEventLoop
    if loop_name != "asyncio":
        loop_factory = importlib.import_module(loop_name).new_event_loop
    from tlssupport import Certificates

    certificates = Certificates()
    contexts = certificates.client, certificates.server
    told = {}
    for name in names or nomemory.OPERATIONS:
        operation = nomemory.OPERATIONS[name]
        for _ in range(ATTEMPTS):
            grew = growth(operation, loop_factory, contexts)
            if not grew:
                break
        else:
            told[name] = grew
    print(json.dumps(told))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
