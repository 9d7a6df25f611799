"""python -m fastloop: a program runs as under python, only its loops are fastloop's.

Each program runs under python, which is the reference, and under python -m fastloop.
"""

import os
import pathlib
import py_compile
import re
import signal
import subprocess
import sys
import zipfile

import pytest
from conftest import TIMEOUT, python_command

PYTHON = ()
FASTLOOP = ("-m", "fastloop")


class Done:
    """The end of a process: code, out and err can be compared as a whole."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture
def start(tmp_path):
    """start(prefix, *args, options=(), env=None): the process of a program, in tmp_path.

    prefix is PYTHON or FASTLOOP, options go to Python itself.
    """
    processes = []

    def start(prefix, *args, options=(), env=None, **extra):
        command, keywords = python_command(*options, *prefix, *args, env=env)
        keywords.update({"cwd": tmp_path, **extra})
        processes.append(subprocess.Popen(command, **keywords))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def execute(start):
    """As start(), but waits for the process and returns its Done."""

    def execute(prefix, *args, input=None, **keywords):
        if input is not None:
            keywords["stdin"] = subprocess.PIPE
        process = start(prefix, *args, **keywords)
        out, err = process.communicate(input, timeout=TIMEOUT)
        return Done(process.returncode, out, err)

    return execute


@pytest.fixture
def both(execute):
    """both(*args, …): what python does, and that python -m fastloop does the same."""

    def both(*args, **keywords):
        expected = execute(PYTHON, *args, **keywords)
        assert execute(FASTLOOP, *args, **keywords) == expected
        return expected

    return both


@pytest.fixture
def loops(execute):
    """loops(*args, …): the words of what a program that tells its loops prints.

    Under python it names asyncio where it names fastloop under python -m fastloop.
    """

    def loops(*args, **keywords):
        done = [
            execute(prefix, *args, options=["-W", "error"], **keywords)
            for prefix in (PYTHON, FASTLOOP)
        ]
        for end in done:
            assert (end.code, end.err) == (0, ""), end
        assert done[1].out.replace("fastloop", "asyncio") == done[0].out
        return done[1].out.split()

    return loops


PROBE = """\
import re, sys
main = sys.modules["__main__"]
names = {name: value for name, value in globals().items() if name not in ("re", "main")}
print(re.sub("0x[0-9a-f]+", "", repr(sorted(names.items(), key=lambda item: item[0]))))
print(main.__dict__ is globals(), __name__, getattr(main, "__file__", None))
print(sys.argv, sys.path, sys.excepthook is sys.__excepthook__, sys.flags)
"""


@pytest.fixture
def programs(tmp_path):
    """A folder with PROBE in every shape that python can run."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import sys; print(sys.argv)")
    (package / "__main__.py").write_text(PROBE)
    (package / "module.py").write_text('"""A docstring."""\n' + PROBE)
    (package / "wrong.py").write_text("import no_such_module")
    (tmp_path / "plain").mkdir()
    script = tmp_path / "plain" / "script.py"
    script.write_text(PROBE)
    py_compile.compile(str(script), str(tmp_path / "plain" / "compiled.pyc"))
    (tmp_path / "link.py").symlink_to("plain/script.py")
    (tmp_path / "folder").symlink_to("plain")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", PROBE)
    return tmp_path


# -- the program sees what python gives it -------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["plain/script.py", "a", "-b", "--help", "-m", ""],
        ["./plain/../plain/script.py"],
        ["link.py"],
        ["folder/script.py"],
        ["plain/compiled.pyc", "a"],
        ["package", "a"],
        ["./package"],
        ["archive.zip", "a"],
        ["--", "plain/script.py", "--", "a"],
        ["-m", "package", "a", "-c"],
        ["-m", "package.module"],
        ["-mpackage.module"],
        ["-c", PROBE, "a", "-m"],
        ["-c" + PROBE, "a"],
    ],
    ids=lambda args: " ".join(args).partition("\n")[0],
)
def test_program(both, programs, args):
    done = both(*args)
    assert (done.code, done.err) == (0, "")
    assert "True __main__" in done.out


@pytest.mark.parametrize("args", [[], ["--"], ["-", "a", "-m"]])
def test_program_from_standard_input(both, args):
    done = both(*args, input=PROBE)
    assert (done.code, done.err) == (0, "")
    assert "True __main__ <stdin>" in done.out


def test_empty_name_is_the_current_folder(both, tmp_path):
    (tmp_path / "__main__.py").write_text(PROBE)
    done = both("", "a")
    assert (done.code, done.err) == (0, "")
    assert "True __main__" in done.out


def test_absolute_path(both, programs):
    assert both(str(programs / "plain" / "script.py"), "a").code == 0


@pytest.mark.parametrize("option", ["-P", "-I", "-O", "-u", "-Wdefault", "-Xdev", "-s"])
@pytest.mark.parametrize("args", [["plain/script.py"], ["archive.zip"], ["-c", PROBE]])
def test_options_of_python(execute, programs, option, args):
    if option == "-I":
        found = execute(PYTHON, "-c", "import fastloop", options=["-I"])
        if found.code:
            pytest.skip("fastloop is used without being installed")
    expected = execute(PYTHON, *args, options=[option])
    assert execute(FASTLOOP, *args, options=[option]) == expected
    assert (expected.code, expected.err) == (0, "")


@pytest.mark.parametrize("end", ["1/0", "raise SystemExit(3)", "pass"])
def test_interactive_mode_goes_on_in_the_program(both, tmp_path, end):
    (tmp_path / "program.py").write_text(f"x = 'inside'\ndef f(): return x\n{end}\n")
    done = both("program.py", options=["-i"], input="print(f(), __name__)\n")
    assert done.out.startswith("inside __main__")
    assert ("program.py" in done.err) == (end != "pass")


def test_name_equals_main_in_the_program_only(both, tmp_path):
    (tmp_path / "other.py").write_text("print(__name__)")
    (tmp_path / "program.py").write_text(
        "import other, __main__\nif __name__ == '__main__': print(__main__.__file__)"
    )
    assert both("program.py").out.split() == ["other", str(tmp_path / "program.py")]


def test_source_encoding(both, tmp_path):
    text = "# coding: latin-1\nprint(ascii('\xe9'))\n"
    (tmp_path / "latin.py").write_bytes(text.encode("latin-1"))
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbf" + "print('\xe9')".encode())
    assert both("latin.py").out == "'\\xe9'\n"
    assert both("bom.py").code == 0


def test_indented_code(both):
    done = both("-c", "  import sys\n  print(sys.argv)\n", "a")
    assert ("SyntaxError" in done.err or "IndentationError" in done.err) == (
        sys.version_info < (3, 14)
    )


def test_threads_and_exit_functions_outlive_the_main_module(execute, tmp_path):
    (tmp_path / "program.py").write_text(
        """if 1:
        import atexit, threading, sys
        end = threading.Event()
        word = "alive"
        @atexit.register
        def exiting():
            print("exiting", word, sys.modules["__main__"].word)
        def run():
            threading.main_thread().join()
            print("thread", word, sys.modules["__main__"].word)
        threading.Thread(target=run).start()
        """
    )
    expected = ["thread", "alive", "alive", "exiting", "alive", "alive"]
    for prefix in (PYTHON, FASTLOOP):
        assert execute(prefix, "program.py").out.split() == expected


# -- how it ends ---------------------------------------------------------------------

ENDS = {
    "exception": "def f():\n    raise ValueError('x')\n\nf()\n",
    "chain": "try:\n    1/0\nexcept ArithmeticError as e:\n    raise KeyError(1) from e\n",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])\n",
    "syntax": "x = 1\ndef f(:\n    pass\n",
    "indentation": "if 1:\nx = 1\n",
    "exit 0": "import sys; sys.exit(0)",
    "exit 3": "import sys; sys.exit(3)",
    "exit text": "import sys; sys.exit('a text')",
    "exit none": "raise SystemExit",
    "exit nested": "def f():\n    raise SystemExit(4)\nf()",
    "interrupt": "raise KeyboardInterrupt",
    "generator exit": "raise GeneratorExit",
    "hook": (
        "import sys, traceback\n"
        "def hook(kind, error, tb):\n"
        "    print(kind, sys.excepthook is hook, sys.last_value is error)\n"
        "    print([frame.name for frame in traceback.extract_tb(tb)])\n"
        "    print([frame.name for frame in traceback.extract_tb(error.__traceback__)])\n"
        "sys.excepthook = hook\n"
        "def f(): 1/0\n"
        "f()\n"
    ),
    "in a coroutine": (
        "import asyncio\n"
        "async def main():\n    raise ValueError('x')\n"
        "asyncio.run(main())\n"
    ),
    "warning": "import warnings\nwarnings.warn('old', DeprecationWarning)\n",
    "signal": "import os\nos.kill(os.getpid(), 15)\n",
    "exit at once": "import os\nos._exit(5)\n",
}


def without_asyncio(done):
    """Without the frames of the standard library, which differ by loop."""
    lines = re.sub(
        r'  File "[^"]*/(?:asyncio|fastloop)/.*?(?=  File|^\S)',
        "",
        done.err,
        flags=re.S | re.M,
    )
    return Done(done.code, done.out, lines)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("way", ["script", "module", "code", "stdin"])
def test_end(execute, tmp_path, name, way):
    source = ENDS[name]
    (tmp_path / "program.py").write_text(source)
    args = {
        "script": ["program.py"],
        "module": ["-m", "program"],
        "code": ["-c", source],
        "stdin": ["-"],
    }[way]
    done = [
        execute(prefix, *args, input=source if way == "stdin" else None)
        for prefix in (PYTHON, FASTLOOP)
    ]
    if name == "in a coroutine":
        done = [without_asyncio(end) for end in done]
        assert "in main" in done[0].err
    assert done[1] == done[0]
    assert "fastloop" not in done[1].err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ([""], 1),
        (["missing.py"], 2),
        (["missing/missing.py"], 2),
        (["unreadable.py"], 2),
        (["empty"], 1),
        (["-m", "no_such_module"], 1),
        (["-m", "package.no_such_module"], 1),
        (["-m", "package.wrong"], 1),
        (["-m", "plain"], 1),
        (["-m", ""], 1),
        (["-c", "x ="], 1),
        (["-c", ""], 0),
    ],
)
def test_nothing_to_run(both, programs, args, code):
    (programs / "empty").mkdir()
    (programs / "unreadable.py").symlink_to("unreadable.py")
    done = both(*args)
    assert done.code == code
    assert bool(done.err) == bool(code)


def test_ctrl_c(start, tmp_path):
    (tmp_path / "program.py").write_text(
        """if 1:
        import asyncio
        async def main():
            print("running", flush=True)
            try:
                await asyncio.sleep(60)
            finally:
                print("cancelled")
        asyncio.run(main())
        """
    )
    for prefix in (PYTHON, FASTLOOP):
        process = start(prefix, "program.py")
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGINT
        assert out == "cancelled\n"
        assert err.count("Traceback") >= 1
        assert err.endswith("KeyboardInterrupt\n")
        assert "__main__.py" not in err


# -- its loops are fastloop's --------------------------------------------------------

KIND = """\
import asyncio, sys
def kind(loop):
    try:
        return type(loop).__module__.partition(".")[0]
    finally:
        if not loop.is_running():
            loop.close()
async def main():
    return kind(asyncio.get_running_loop())
"""


def test_every_way_to_a_loop(loops, tmp_path):
    (tmp_path / "program.py").write_text(
        KIND
        + """\
import threading, unittest
print(asyncio.run(main()))
with asyncio.Runner() as runner:
    print(runner.run(main()))
print(kind(asyncio.new_event_loop()))
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
print(asyncio.get_event_loop() is loop, kind(loop))
asyncio.set_event_loop(None)
loop = asyncio.SelectorEventLoop()
print(isinstance(loop, asyncio.SelectorEventLoop), kind(loop))
print(isinstance(loop, type("Mine", (asyncio.SelectorEventLoop,), {})) is False)
if sys.version_info >= (3, 12):
    print(asyncio.run(main(), loop_factory=None))
    print(asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop))
if sys.version_info >= (3, 13):
    print(kind(asyncio.EventLoop()))
if sys.version_info < (3, 14):
    asyncio.set_event_loop_policy(None)
    print(asyncio.run(main()))
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
    print(asyncio.run(main()))
def run():
    print(asyncio.run(main()))
thread = threading.Thread(target=run)
thread.start()
thread.join()
class Test(unittest.IsolatedAsyncioTestCase):
    async def test(self):
        print(await main())
Test("test").debug()
"""
    )
    seen = loops("program.py")
    assert len(seen) >= 8
    assert set(seen) == {"fastloop", "True"}
    assert set(loops("-m", "program")) == {"fastloop", "True"}
    assert set(loops("-c", (tmp_path / "program.py").read_text())) == {
        "fastloop",
        "True",
    }


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="it makes no loops here")
def test_get_event_loop(loops):
    source = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
print(kind(asyncio.get_event_loop()))
"""
    assert loops("-c", KIND + source) == ["fastloop"]


def test_loops_that_the_program_brings_along_stay(loops, tmp_path):
    (tmp_path / "program.py").write_text(
        KIND
        + """\
import abc, inspect, selectors, warnings
warnings.simplefilter("ignore", DeprecationWarning)
loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
print(type(loop), kind(loop))
print(kind(asyncio.SelectorEventLoop(selector=selectors.SelectSelector())))
class Mine(asyncio.SelectorEventLoop):
    def __init__(self, name, *, selector=None):
        super().__init__(selector)
        self.name = name
class Abstract(asyncio.SelectorEventLoop, metaclass=abc.ABCMeta):
    pass
loop = Mine("mine")
print(loop.name, isinstance(loop, asyncio.SelectorEventLoop))
print(loop.run_until_complete(main()))
loop.close()
print(kind(Abstract()), issubclass(Mine, asyncio.SelectorEventLoop))
print(inspect.isclass(asyncio.SelectorEventLoop), asyncio.SelectorEventLoop)
with asyncio.Runner(loop_factory=lambda: Mine("mine")) as runner:
    print(runner.run(main()))
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return Mine("mine")
asyncio.set_event_loop_policy(Policy())
print(asyncio.run(main()))
"""
    )
    assert "fastloop" not in loops("program.py")


def test_debug_mode(loops):
    source = """
async def main():
    print(asyncio.get_running_loop().get_debug())
asyncio.run(main())
asyncio.run(main(), debug=False)
"""
    env = {"PYTHONASYNCIODEBUG": "1"}
    assert loops("-c", KIND + source, env=env) == ["True", "False"]


def test_subprocesses_of_asyncio(loops):
    source = """
async def main():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('child'); raise SystemExit(7)",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    print(out.decode().strip(), process.returncode)
asyncio.run(main())
"""
    assert loops("-c", KIND + source) == ["child", "7"]


POOL = (
    KIND
    + """\
import concurrent.futures, multiprocessing, os

def work(number):
    return number, __name__, asyncio.run(main())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        print(*pool.submit(work, 5).result())
    process = context.Process(target=print, args=("printed",))
    process.start()
    process.join()
    print(process.exitcode)
"""
)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("way", ["script", "module"])
def test_processes_of_multiprocessing(loops, tmp_path, method, way):
    (tmp_path / "program.py").write_text(POOL)
    args = ["program.py"] if way == "script" else ["-m", "program"]
    if method == "fork" and sys.version_info >= (3, 12):
        env = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    else:
        env = None
    seen = loops(*args, method, env=env)
    name = "__main__" if method == "fork" else "__mp_main__"
    assert seen == ["5", name, "fastloop", "printed", "0"]


def test_processes_that_cannot_import_fastloop_run_on_asyncio(execute, tmp_path):
    import fastloop

    # Found by the working directory alone, which the program leaves.
    home = pathlib.Path(fastloop.__file__).parent.parent
    (tmp_path / "program.py").write_text("import os; os.chdir('/')\n" + POOL)
    done = execute(
        FASTLOOP,
        str(tmp_path / "program.py"),
        "spawn",
        options=["-S"],
        env={"PYTHONPATH": None},
        cwd=home,
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == ["5", "__mp_main__", "asyncio", "printed", "0"]


def test_a_python_without_policies(execute):
    # As Python 3.16 will be: what is redirected then is asyncio.new_event_loop.
    source = (
        KIND
        + """\
from asyncio import unix_events
assert hasattr(unix_events, "_UnixDefaultEventLoopPolicy")
del unix_events._UnixDefaultEventLoopPolicy
from fastloop._redirect import redirect
before = asyncio.new_event_loop, asyncio.events.new_event_loop
undo = redirect()
print(asyncio.run(main()), kind(asyncio.new_event_loop()))
undo()
print(asyncio.run(main()), kind(asyncio.new_event_loop()))
assert (asyncio.new_event_loop, asyncio.events.new_event_loop) == before
"""
    )
    done = execute(PYTHON, "-c", source, options=["-W", "error"])
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == ["fastloop", "fastloop", "asyncio", "asyncio"]


# -- its own command line ------------------------------------------------------------


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(execute, option):
    done = execute(FASTLOOP, option)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("usage: python")
    assert max(map(len, done.out.splitlines())) <= 88


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(execute, option):
    import fastloop

    done = execute(FASTLOOP, option)
    python = ".".join(map(str, sys.version_info[:3]))
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"fastloop {fastloop.__version__} "
        f"(libuv {fastloop.libuv_version()}, Python {python})\n"
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-m"], "argument expected for the -m option"),
        (["-c"], "argument expected for the -c option"),
        (["-X", "dev", "x.py"], "unknown option -X; those of python go before"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_wrong_command_line(execute, args, words):
    done = execute(FASTLOOP, *args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "usage:" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("args", [[], ["--"]])
def test_nothing_to_run_at_a_terminal(start, args):
    ours, theirs = os.openpty()
    try:
        process = start(FASTLOOP, *args, stdin=theirs)
        _, err = process.communicate(timeout=TIMEOUT)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 2
    assert "nothing to run" in err
    assert "usage:" in err


def test_an_error_where_there_is_no_hook(start):
    process = start(FASTLOOP, "-c", "import sys; del sys.excepthook; 1 / 0")
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "sys.excepthook is missing" in err
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize(
    "missing",
    [
        "import asyncio, sys; del sys.excepthook",
        "import sys; sys.modules['multiprocessing'] = None",
    ],
)
def test_an_interpreter_in_which_something_is_missing(missing):
    source = """
import asyncio, fastloop
async def main():
    return type(asyncio.get_running_loop()) is fastloop.Loop
print(asyncio.run(main()))
"""
    wrapper = (
        f"{missing}\nimport runpy\n"
        f"sys.argv = ['fastloop', '-c', {source!r}]\n"
        "runpy.run_module('fastloop', run_name='__main__')\n"
    )
    command, keywords = python_command("-c", wrapper)
    with subprocess.Popen(command, **keywords) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (out, process.returncode) == ("True\n", 0), err
