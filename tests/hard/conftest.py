"""What the hard tests share: how long they may take.

In the normal suite each has a short form, of seconds. FASTLOOP_HARD=1 (make hard) makes
them long: minutes each. FASTLOOP_HARD=N is N times that long where that means anything.
FASTLOOP_SEED is the seed of what is drawn at random; each test prints the one it took.
The short forms draw the same each time: they are to find what a change broke.
"""

import os
import random

import pytest

SCALE = int(os.environ.get("FASTLOOP_HARD") or 0)
"""0 for the short form."""


@pytest.fixture
def seed(capsys):
    """The seed of this test, which its output tells."""
    given = os.environ.get("FASTLOOP_SEED")
    fresh = random.randrange(1 << 32) if SCALE else 1
    seed = int(given) if given else fresh
    print(f"FASTLOOP_SEED={seed}")
    return seed


def pytest_collection_modifyitems(items):
    if SCALE:
        for item in items:
            if item.path.parent.name == "hard":
                item.add_marker(pytest.mark.timeout(3600 * SCALE))
