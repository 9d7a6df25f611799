"""The package itself: run(), new_event_loop(), Loop, Runner, and what importing does."""

import asyncio
import contextvars
import importlib.metadata
import importlib.resources
import inspect
import re
import signal
import sys
import threading
import typing
import warnings

import pytest
from conftest import run_python

import fastloop


@pytest.fixture
def run_program(loop_name):
    """asyncio.run or fastloop.run."""
    return asyncio.run if loop_name == "asyncio" else fastloop.run


async def running_loop():
    return asyncio.get_running_loop()


# -- run -----------------------------------------------------------------------------


def test_run_returns_the_result_and_closes_its_loop(run_program, loop_name):
    loop = run_program(running_loop())
    assert type(loop).__module__.partition(".")[0] == loop_name
    assert loop.is_closed()
    assert run_program(running_loop()) is not loop


def test_run_raises_what_the_coroutine_raises(run_program):
    error = LookupError("mine")

    async def fail():
        raise error

    with pytest.raises(LookupError) as caught:
        run_program(fail())
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_run_lets_exits_through(run_program, error):
    async def leave():
        raise error

    with pytest.raises(error):
        run_program(leave())


@pytest.mark.parametrize("debug", [True, False])
def test_run_sets_debug_mode(run_program, debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert run_program(main(), debug=debug) is debug


@pytest.mark.parametrize("value", ["", "1"])
def test_run_leaves_debug_mode_to_the_environment(run_script, value):
    done = run_script(
        """
        import fastloop
        start = asyncio.run if LOOP == "asyncio" else fastloop.run
        async def main():
            return asyncio.get_running_loop().get_debug()
        print(start(main()), start(main(), debug=False))
        """.replace("LOOP", "sys.argv[1]"),
        args=[run_script.keywords["loop"]],
        env={"PYTHONASYNCIODEBUG": value},
    )
    assert done.stdout.split() == [str(bool(value)), "False"]


def test_run_ends_what_the_program_left_behind(run_program):
    ended = []

    async def task():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def generator():
        try:
            yield
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    async def main():
        main.task = asyncio.ensure_future(task())
        main.generator = generator()
        await anext(main.generator)
        main.thread = await asyncio.to_thread(threading.current_thread)

    run_program(main())
    assert main.task.cancelled()
    assert sorted(ended) == ["generator", "task"]
    assert not main.thread.is_alive()


def test_run_refuses_what_asyncio_refuses():
    def outcome(function, *args, **kwargs):
        with pytest.raises(Exception) as caught:
            function(*args, **kwargs)
        return caught.type, re.sub("0x[0-9a-f]+", "", str(caught.value))

    for main in (1, None, running_loop, [running_loop]):
        assert outcome(fastloop.run, main) == outcome(asyncio.run, main)
    kind, text = outcome(fastloop.run, 1)
    assert kind is (TypeError if sys.version_info >= (3, 14) else ValueError)
    assert text

    for wrong in ({"loop": None}, {"debug": True, "debugger": 1}):
        assert outcome(fastloop.run, 1, **wrong)[0] is TypeError
    assert outcome(fastloop.run)[0] is TypeError


def test_run_refuses_to_nest(run_program):
    async def main():
        inner = running_loop()
        try:
            with pytest.raises(RuntimeError) as caught:
                run_program(inner)
        finally:
            inner.close()
        return str(caught.value)

    text = "asyncio.run() cannot be called from a running event loop"
    assert run_program(main()) == text


def test_run_takes_a_loop_factory(loop_factory):
    made = []

    def factory():
        made.append(loop_factory())
        return made[-1]

    assert [fastloop.run(running_loop(), loop_factory=factory)] == made


def test_run_without_loop_factory_is_asyncios_choice():
    loop = fastloop.run(running_loop(), loop_factory=None)
    assert not isinstance(loop, fastloop.Loop)


def test_run_in_a_thread(run_program):
    loops = []
    thread = threading.Thread(target=lambda: loops.append(run_program(running_loop())))
    thread.start()
    thread.join()
    assert loops[0].is_closed()


def test_ctrl_c_cancels_the_program(run_script):
    done = run_script(
        """
        import signal, fastloop
        start = asyncio.run if sys.argv[1] == "asyncio" else fastloop.run
        async def main():
            try:
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                raise
        try:
            start(main())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            raise
        """,
        args=[run_script.keywords["loop"]],
        returncode=-signal.SIGINT,
    )
    assert done.stdout.split() == ["cancelled", "interrupted"]


# -- loops and runners ---------------------------------------------------------------


def test_new_event_loop_makes_a_new_loop():
    first, second = fastloop.new_event_loop(), fastloop.new_event_loop()
    try:
        assert first is not second
        for loop in (first, second):
            assert type(loop) is fastloop.Loop
            assert isinstance(loop, asyncio.AbstractEventLoop)
    finally:
        first.close()
        second.close()


def test_loop_is_a_base_class(loop_name):
    base = asyncio.SelectorEventLoop if loop_name == "asyncio" else fastloop.Loop

    class Mine(base):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def call_soon(self, callback, *args, context=None):
            called.append(callback)
            return super().call_soon(callback, *args, context=context)

    called = []
    loop = Mine("mine")
    try:
        assert loop.run_until_complete(running_loop()) is loop
        assert loop.name == "mine"
        assert called
    finally:
        loop.close()


def test_runner_takes_the_factory(loop_factory):
    variable = contextvars.ContextVar("variable", default=0)

    async def count():
        variable.set(variable.get() + 1)
        return asyncio.get_running_loop(), variable.get()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        assert runner.run(count()) == (loop, 1)
        assert runner.run(count()) == (loop, 2)
        assert type(loop) is type(runner.get_loop())
    assert loop.is_closed()


# -- the package ---------------------------------------------------------------------


def test_importing_is_silent_and_light():
    done = run_python(
        "-W",
        "error",
        "-c",
        """if 1:
        import sys
        before = set(sys.modules)
        import fastloop
        new = {name for name in set(sys.modules) - before if "fastloop" in name}
        assert new == {"fastloop", "fastloop._version"}, new
        assert "asyncio" not in sys.modules
        from fastloop import *
        assert Loop is fastloop.Loop and run is fastloop.run
        new_event_loop().close()
        """,
    )
    assert done.stderr == ""


def test_importing_everything_is_silent():
    done = run_python(
        "-W",
        "error",
        "-X",
        "dev",
        "-c",
        "import fastloop, fastloop._redirect, fastloop.__main__;"
        "fastloop.run, fastloop.Loop, fastloop.libuv_version()",
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", ["asyncio", "fastloop"])
def test_help_warns_of_nothing(name):
    code = f"import {name}, pydoc; print(bool(pydoc.render_doc({name})))"
    done = run_python("-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_names():
    names = {"Loop", "__version__", "install", "libuv_version", "new_event_loop", "run"}
    assert names <= set(fastloop.__all__)
    assert names <= set(dir(fastloop))
    assert ("EventLoopPolicy" in dir(fastloop)) == (sys.version_info < (3, 14))
    with pytest.raises(AttributeError, match="module 'fastloop' has no attribute 'x'"):
        _ = fastloop.x
    with pytest.raises(ImportError):
        from fastloop import nothing_of_that_name  # noqa: F401


def test_every_public_name_says_what_it_is():
    assert inspect.getdoc(fastloop)
    for name in ("Loop", "install", "libuv_version", "new_event_loop", "run"):
        assert inspect.getdoc(getattr(fastloop, name)), name


def test_signatures():
    run = inspect.signature(fastloop.run)
    if sys.version_info >= (3, 12):
        asyncios = inspect.signature(asyncio.run)
        assert set(run.parameters) == set(asyncios.parameters)
    assert str(run).startswith("(main")
    assert run.parameters["loop_factory"].default is fastloop.new_event_loop
    assert run.parameters["loop_factory"].kind is inspect.Parameter.KEYWORD_ONLY
    assert run.parameters["debug"].default is None
    assert typing.get_type_hints(fastloop.new_event_loop) == {"return": fastloop.Loop}
    assert "main" in typing.get_type_hints(fastloop.run)


def test_versions():
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", fastloop.__version__)
    assert re.fullmatch(r"1\.\d+\.\d+", fastloop.libuv_version())
    try:
        installed = importlib.metadata.version("fastloop-uv")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fastloop is used without being installed")
    assert installed == fastloop.__version__


def test_package_is_typed():
    assert importlib.resources.files("fastloop").joinpath("py.typed").is_file()


def test_using_the_package_never_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastloop.run(running_loop())
        fastloop.new_event_loop().close()
        fastloop.Loop().close()
