"""EventLoopPolicy and install(): asyncio's policy with loops of fastloop.

asyncio deprecated policies in Python 3.14: there they warn, as asyncio's do.
"""

import asyncio
import sys
import threading
import warnings

import pytest
from conftest import run_python

import fastloop

DEPRECATED = sys.version_info >= (3, 14)
WATCHERS = sys.version_info < (3, 14)


def policy_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if name == "asyncio":
            return asyncio.DefaultEventLoopPolicy()
        return fastloop.EventLoopPolicy()


@pytest.fixture
def policy(loop_name):
    return policy_of(loop_name)


def make_loop(policy):
    """A loop that the policy has as the current one of this thread."""
    policy.set_event_loop(policy.new_event_loop())
    return policy.get_event_loop()


def recorded(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [(w.category, str(w.message), w.filename, w.lineno) for w in caught]


def outcome(function):
    """What function returned or raised, and the warnings, without their places."""
    result = []

    def call():
        try:
            result.append(function())
        except Exception as error:
            result.extend([type(error), str(error)])

    caught = recorded(call)
    return result, [(category, text) for category, text, *_ in caught]


# -- the policy as an object ---------------------------------------------------------


def test_new_loops(policy, loop_factory):
    first, second = policy.new_event_loop(), policy.new_event_loop()
    try:
        assert first is not second
        sample = loop_factory()
        sample.close()
        assert type(first) is type(second) is type(sample)
    finally:
        first.close()
        second.close()


def test_is_asyncios_policy(policy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert isinstance(policy, asyncio.AbstractEventLoopPolicy)
        assert isinstance(policy, asyncio.DefaultEventLoopPolicy)


def test_main_thread_without_a_loop_is_as_in_asyncio():
    def loop_or_error(name):
        result, caught = outcome(policy_of(name).get_event_loop)
        for loop in result:
            if isinstance(loop, asyncio.AbstractEventLoop):
                loop.close()
                assert type(loop).__module__.startswith(name)
                result[0] = "a loop"
        return result, caught

    expected = loop_or_error("asyncio")
    assert loop_or_error("fastloop") == expected
    assert ("a loop" in expected[0]) == (not DEPRECATED)


def test_other_threads_have_none():
    def in_thread(name):
        seen = []
        policy = policy_of(name)
        thread = threading.Thread(
            target=lambda: seen.append(outcome(policy.get_event_loop)), name="other"
        )
        thread.start()
        thread.join()
        return seen

    expected = in_thread("asyncio")
    assert in_thread("fastloop") == expected
    assert expected[0][0] == [
        RuntimeError,
        "There is no current event loop in thread 'other'.",
    ]


def test_each_thread_has_its_own(policy):
    loop = make_loop(policy)
    try:
        others = []

        def other():
            others.append(make_loop(policy))
            others[0].close()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert others[0] is not loop
        assert policy.get_event_loop() is loop
    finally:
        policy.set_event_loop(None)
        loop.close()


def test_set_event_loop_takes_loops_only(policy):
    policy.set_event_loop(None)
    with pytest.raises((TypeError, AssertionError)):
        policy.set_event_loop(1)


@pytest.mark.skipif(not WATCHERS, reason="this Python has no child watchers")
def test_child_watcher_is_asyncios():
    def watcher(name):
        policy = policy_of(name)
        made = []
        caught = outcome(lambda: made.append(policy.get_child_watcher()))
        assert outcome(lambda: policy.get_child_watcher())[0] == made
        return type(made[0]), caught

    expected = watcher("asyncio")
    assert watcher("fastloop") == expected
    assert (expected[1][1] == []) == (sys.version_info < (3, 12))


# -- the policy in use ---------------------------------------------------------------

SET = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    if sys.argv[1] == "fastloop":
        import fastloop
        if sys.argv[2] == "install":
            assert fastloop.install() is None
        else:
            asyncio.set_event_loop_policy(fastloop.EventLoopPolicy())
def kind(loop):
    return type(loop).__module__.partition(".")[0]
"""


@pytest.fixture(params=["install", "set_event_loop_policy"])
def run_with_policy(request, run_script):
    """run_with_policy(source): source runs under the policy of the loop under test."""

    def run(source, **keywords):
        name = run_script.keywords["loop"]
        done = run_script(SET + source, args=[name, request.param], **keywords)
        return done.stdout.replace(name, "LOOP").split()

    return run


def test_every_loop_of_the_process(run_with_policy):
    seen = run_with_policy(
        """
import threading, unittest
warnings.simplefilter("error")
async def main():
    return kind(asyncio.get_running_loop())
print(asyncio.run(main()))
with asyncio.Runner() as runner:
    print(runner.run(main()))
loop = asyncio.new_event_loop()
print(kind(loop), loop.run_until_complete(main()))
loop.close()
thread = threading.Thread(target=lambda: print(asyncio.run(main())))
thread.start()
thread.join()
class Test(unittest.IsolatedAsyncioTestCase):
    async def test(self):
        print(await main())
Test("test").debug()
"""
    )
    assert seen == ["LOOP"] * 6


@pytest.mark.skipif(DEPRECATED, reason="get_event_loop() makes no loops here")
def test_get_event_loop_makes_a_loop(run_with_policy):
    seen = run_with_policy(
        """
warnings.simplefilter("ignore", DeprecationWarning)
loop = asyncio.get_event_loop()
print(kind(loop), loop is asyncio.get_event_loop())
loop.close()
"""
    )
    assert seen == ["LOOP", "True"]


def test_subprocesses(run_with_policy):
    seen = run_with_policy(
        """
async def main():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('child'); raise SystemExit(7)",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    print(out.decode().strip(), process.returncode)
asyncio.run(main())
"""
    )
    assert seen == ["child", "7"]


@pytest.mark.skipif(not WATCHERS, reason="this Python has no child watchers")
@pytest.mark.parametrize(
    "watcher",
    [
        "FastChildWatcher",
        "MultiLoopChildWatcher",
        "PidfdChildWatcher",
        "SafeChildWatcher",
        "ThreadedChildWatcher",
    ],
)
def test_subprocesses_with_a_watcher_of_the_programs_choice(run_script, watcher):
    done = run_script(
        SET
        + f"""
warnings.simplefilter("ignore", DeprecationWarning)
watcher = asyncio.{watcher}()
asyncio.set_child_watcher(watcher)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
if hasattr(watcher, "attach_loop"):
    watcher.attach_loop(loop)
async def main():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "raise SystemExit(7)")
    return await process.wait()
print(loop.run_until_complete(main()))
watcher.close()
loop.close()
""",
        args=[run_script.keywords["loop"], "install"],
    )
    assert done.stdout.split() == ["7"]


def test_setting_the_default_policy_again_ends_it():
    run_python(
        "-W",
        "ignore",
        "-c",
        """if 1:
        import asyncio, fastloop
        fastloop.install()
        asyncio.set_event_loop_policy(None)
        loop = asyncio.new_event_loop()
        assert not isinstance(loop, fastloop.Loop)
        loop.close()
        """,
    )


# -- warnings ------------------------------------------------------------------------


def touch_by_attribute():
    return fastloop.EventLoopPolicy


def touch_by_import():
    from fastloop import EventLoopPolicy

    return EventLoopPolicy


def touch_asyncios():
    return asyncio.DefaultEventLoopPolicy


@pytest.mark.parametrize("touch", [touch_by_attribute, touch_by_import])
def test_touching_the_policy_warns_as_asyncio_does(touch):
    expected = recorded(touch_asyncios)
    assert bool(expected) == DEPRECATED
    for _ in range(2):  # each time, and at the line of the caller
        caught = recorded(touch)
        assert bool(caught) == DEPRECATED
        for category, text, filename, lineno in caught:
            assert (category, text) == (
                expected[0][0],
                expected[0][1].replace(
                    "asyncio.DefaultEventLoopPolicy", "fastloop.EventLoopPolicy"
                ),
            )
            assert filename == __file__
            assert lineno - touch.__code__.co_firstlineno == 1


def test_installing_warns_as_asyncio_does():
    done = run_python(
        "-W",
        "always",
        "-c",
        """if 1:
        import asyncio, fastloop, warnings
        def both():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                asyncio.set_event_loop_policy(None)
                fastloop.install()
            return [(w.category, str(w.message), w.filename) for w in caught], [
                w.lineno for w in caught
            ]
        caught, lines = both()
        print(len(caught), len(set(caught)), *[line - lines[0] for line in lines])
        """,
    )
    assert done.stderr == ""
    assert done.stdout.split() == (["2", "1", "0", "1"] if DEPRECATED else ["0", "0"])


def test_the_policy_is_public_where_asyncios_is():
    public = "DefaultEventLoopPolicy" in asyncio.__all__
    assert ("EventLoopPolicy" in fastloop.__all__) == public
    assert public != DEPRECATED
