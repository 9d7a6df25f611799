"""The pytest plugin, and pytest-asyncio's and anyio's own ways to choose a loop.

Each run is a pytest of its own, on a suite that checks what its tests run on.
"""

import asyncio
import importlib.metadata
import importlib.util
import multiprocessing.spawn
import pathlib
import sys

import pytest
from conftest import TIMEOUT, run_python

import fastloop

pytest_plugins = ["pytester"]

REGISTERED = any(
    entry.value == "fastloop.pytest_plugin"
    for entry in importlib.metadata.entry_points(group="pytest11", name="fastloop")
)

INI = """\
[pytest]
addopts = -p no:cacheprovider -p no:randomly -p no:aiohttp
filterwarnings = error
{}
"""

CHECK = """\
import asyncio, os
def check(loop=None):
    loop = loop or asyncio.get_running_loop()
    assert type(loop).__module__.partition(".")[0] == os.environ["EXPECTED"]
    return loop
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """suite(expected, *args, ini="", **files): run files; expected is their loops' name.

    It returns pytest's result.
    """
    home = str(pathlib.Path(fastloop.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", home)
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)

    def suite(expected, *args, ini="", **files):
        monkeypatch.setenv("EXPECTED", expected)
        if "no:asyncio" not in args and importlib.util.find_spec("pytest_asyncio"):
            ini += "\nasyncio_default_fixture_loop_scope = function"
        pytester.makeini(INI.format(ini))
        pytester.makepyfile(check=CHECK, **files)
        if not REGISTERED:
            args = ("-p", "fastloop.pytest_plugin", *args)
        return pytester.runpytest_subprocess(*args, timeout=TIMEOUT)

    return suite


SWITCHES = {
    "off": ("asyncio", [], ""),
    "flag": ("fastloop", ["--fastloop"], ""),
    "ini": ("fastloop", [], "fastloop = true"),
    "ini no": ("asyncio", [], "fastloop = no"),
    "ini overridden": ("asyncio", ["-o", "fastloop=false"], "fastloop = true"),
}


@pytest.fixture(params=SWITCHES)
def switched(request, suite):
    """As suite, for each state of the switch; it gives what is expected itself."""
    expected, args, ini = SWITCHES[request.param]

    def run(*more, lines="", **files):
        return suite(expected, *args, *more, ini=f"{ini}\n{lines}", **files)

    return run


UNITTEST = """
import sys, unittest
from check import *
class Test(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.loop = check()
    async def test(self):
        assert check() is self.loop
    async def asyncTearDown(self):
        assert check() is self.loop
class TestFactory(Test):
    if sys.version_info >= (3, 13):
        loop_factory = asyncio.EventLoop
"""

PLAIN = """
import threading
from check import *
async def main():
    return check()
def test_run():
    assert asyncio.run(main()).is_closed()
def test_new_event_loop():
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(main()) is loop
    loop.close()
def test_runner_in_a_thread():
    seen = []
    def run():
        with asyncio.Runner() as runner:
            seen.append(runner.run(main()))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen
"""

MARKED = """
import pytest, pytest_asyncio
from check import *

def scoped(scope):
    @pytest_asyncio.fixture(scope=scope, loop_scope=scope)
    async def fixture():
        loop = check()
        yield loop
        assert check() is loop
    return fixture

for scope in ("function", "class", "module", "package", "session"):
    globals()[f"{scope}_loop"] = scoped(scope)

@pytest.mark.asyncio
async def test_function(function_loop):
    assert check() is function_loop

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_first(self, class_loop):
        assert check() is class_loop
    async def test_second(self, class_loop):
        assert check() is class_loop

@pytest.mark.asyncio(loop_scope="module")
async def test_module(module_loop):
    assert check() is module_loop

@pytest.mark.asyncio(loop_scope="package")
async def test_package(package_loop):
    assert check() is package_loop

@pytest.mark.asyncio(loop_scope="session")
async def test_session(session_loop):
    assert check() is session_loop
"""

AUTO = """
import pytest, pytest_asyncio
from check import *

@pytest.fixture
async def loop():
    loop = check()
    yield loop
    assert check() is loop

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_loop():
    return check()

async def test(loop):
    assert check() is loop

@pytest.mark.asyncio(loop_scope="module")
async def test_module(module_loop):
    check()

class Test:
    async def test(self, loop):
        assert check() is loop
"""

ANYIO = """
import pytest
from check import *
pytestmark = pytest.mark.anyio

@pytest.fixture(params=["asyncio", ("asyncio", {"debug": True, "use_uvloop": False})])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def loop():
    loop = check()
    yield loop
    assert check() is loop

async def test(loop, anyio_backend_name):
    assert anyio_backend_name == "asyncio"
    assert check() is loop

async def test_tasks():
    import anyio
    async def task(*, task_status):
        task_status.started(check())
    async with anyio.create_task_group() as group:
        assert await group.start(task) is check()
"""

ANYIO_DEFAULT = """
import pytest
from check import *

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test(anyio_backend):
    check()

def test_run():
    import anyio
    async def main():
        check()
    anyio.run(main)
"""


def test_unittest(switched):
    switched(test_it=UNITTEST).assert_outcomes(passed=2)


def test_without_a_framework(switched):
    switched(test_it=PLAIN).assert_outcomes(passed=3)


def test_pytest_asyncio_strict(switched):
    pytest.importorskip("pytest_asyncio")
    switched(test_it=MARKED).assert_outcomes(passed=6)


def test_pytest_asyncio_auto(switched):
    pytest.importorskip("pytest_asyncio")
    result = switched("--asyncio-mode=auto", test_it=AUTO, test_marked=MARKED)
    result.assert_outcomes(passed=9)


def test_pytest_asyncio_session_wide(switched):
    pytest.importorskip("pytest_asyncio")
    result = switched(
        "--asyncio-mode=auto",
        lines="asyncio_default_test_loop_scope = session",
        test_it="""
from check import *
loops = []
async def test_first():
    loops.append(check())
async def test_second():
    assert loops == [check()]
""",
    )
    result.assert_outcomes(passed=2)


def test_anyio(switched):
    pytest.importorskip("anyio")
    result = switched("-p", "no:asyncio", test_it=ANYIO, test_default=ANYIO_DEFAULT)
    result.assert_outcomes(passed=6)


def test_frameworks_side_by_side(switched):
    pytest.importorskip("anyio")
    pytest.importorskip("pytest_asyncio")
    result = switched(
        test_a=UNITTEST, test_b=PLAIN, test_c=MARKED, test_d=ANYIO, test_e=PLAIN
    )
    result.assert_outcomes(passed=18)


# -- what the plugin is --------------------------------------------------------------


def test_plugin_is_registered():
    try:
        importlib.metadata.version("fastloop-uv")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fastloop is used without being installed")
    assert REGISTERED


def test_header(suite):
    line = f"fastloop: {fastloop.__version__}, libuv {fastloop.libuv_version()}"
    suite("fastloop", "--fastloop", test_it=PLAIN).stdout.fnmatch_lines([line])
    suite("asyncio", test_it=PLAIN).stdout.no_fnmatch_line("fastloop:*")


def test_help(suite):
    suite("asyncio", "--help").stdout.fnmatch_lines(
        ["*--fastloop*", "*fastloop (bool)*"]
    )


@pytest.mark.parametrize("args", [[], ["-o", "fastloop=false"]])
def test_off_it_imports_nothing(pytester, suite, monkeypatch, args):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test():
            names = {name for name in sys.modules if name.startswith("fastloop")}
            assert names == {"fastloop", "fastloop._version", "fastloop.pytest_plugin"}
            assert "multiprocessing" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess(
        "-W", "error", "-p", "fastloop.pytest_plugin", *args, timeout=TIMEOUT
    )
    result.assert_outcomes(passed=1)
    run_python(
        "-c",
        "import pytest, sys\n"
        "before = 'asyncio' in sys.modules\n"
        "import fastloop.pytest_plugin\n"
        "assert ('asyncio' in sys.modules) == before\n",
    )


def defaults():
    """What asyncio and multiprocessing use where nothing else is said."""
    loop = asyncio.new_event_loop()
    loop.close()
    return (
        type(loop),
        asyncio.SelectorEventLoop,
        getattr(asyncio, "EventLoop", None),
        multiprocessing.spawn.get_preparation_data,
    )


@pytest.mark.parametrize("args", [["--fastloop"], ["--fastloop", "no/such/folder"]])
def test_at_the_end_all_is_as_before(pytester, args):
    pytester.makepyfile(
        """
        import asyncio, fastloop

        def test():
            loop = asyncio.new_event_loop()
            loop.close()
            assert type(loop) is fastloop.Loop
        """
    )
    before = defaults()
    plugins = [
        "-p",
        "no:asyncio",
        "-p",
        "no:aiohttp",
        "-p",
        "no:anyio",
        "-p",
        "no:cacheprovider",
    ]
    if not REGISTERED:
        plugins += ["-p", "fastloop.pytest_plugin"]
    result = pytester.runpytest_inprocess(*plugins, *args)
    assert result.ret == len(args[1:]) * pytest.ExitCode.USAGE_ERROR
    assert defaults() == before


# -- what a suite chooses itself -----------------------------------------------------


def test_a_loop_that_the_suite_chooses_stays(suite):
    pytest.importorskip("anyio")
    result = suite(
        "asyncio",
        "--fastloop",
        test_it="""
import selectors, unittest
import pytest
from check import *

def factory():
    return asyncio.SelectorEventLoop(selectors.SelectSelector())

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": factory})])
async def test(anyio_backend):
    check()

def test_runner():
    async def main():
        check()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
""",
    )
    result.assert_outcomes(passed=2)


def test_policy_fixture_of_pytest_asyncio(suite):
    pytest.importorskip("pytest_asyncio")
    result = suite(
        "fastloop",
        "-W",
        "ignore::DeprecationWarning",
        "-W",
        "ignore::pytest.PytestDeprecationWarning",
        conftest="""
import fastloop, pytest

@pytest.fixture(scope="session")
def event_loop_policy():
    return fastloop.EventLoopPolicy()
""",
        test_marked=MARKED,
    )
    result.assert_outcomes(passed=6)


def test_loop_factory_of_pytest_asyncio(suite):
    plugin = pytest.importorskip("pytest_asyncio.plugin")
    if not hasattr(plugin, "PytestAsyncioSpecs"):
        pytest.skip("this pytest-asyncio has no loop factories")
    result = suite(
        "fastloop",
        conftest="""
import fastloop

def pytest_asyncio_loop_factories(config, item):
    return {"fastloop": fastloop.new_event_loop}
""",
        test_marked=MARKED,
    )
    result.assert_outcomes(passed=6)


def test_loop_factory_of_anyio(suite):
    pytest.importorskip("anyio")
    result = suite(
        "fastloop",
        "-p",
        "no:asyncio",
        test_it="""
import anyio, fastloop, pytest
from check import *

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": fastloop.new_event_loop}

@pytest.mark.anyio
async def test():
    check()

def test_run():
    async def main():
        check()
    options = {"loop_factory": fastloop.new_event_loop}
    anyio.run(main, backend_options=options)
""",
    )
    result.assert_outcomes(passed=2)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="since Python 3.13")
def test_loop_factory_of_unittest(suite):
    result = suite(
        "fastloop",
        test_it="""
import fastloop, unittest
from check import *

class Test(unittest.IsolatedAsyncioTestCase):
    loop_factory = fastloop.Loop  # a class, because a function would become a method

    async def test(self):
        check()
""",
    )
    result.assert_outcomes(passed=1)
