"""python -m fastloop: run an asyncio program on fastloop, without changing it.

The program sees what it sees when python runs it: its own ``__main__``, sys.argv,
sys.path, exit status and tracebacks. Only the loops that asyncio makes are fastloop's;
``fastloop._redirect`` says which.
"""

from __future__ import annotations

import io
import os
import runpy
import sys
import types
from collections.abc import Callable
from importlib import machinery
from pkgutil import get_importer
from typing import Any, NoReturn

USAGE = """\
usage: python [options of python] -m fastloop [-m module | -c code | script | -] [args]
       python -m fastloop top [options] script [args]
"""
HELP = f"""{USAGE}
Runs an asyncio program on fastloop, as python runs it otherwise.

  script         a file, or a folder or zip file with a __main__.py
  -m module      a module or package
  -c code        code given as a string
  -              code from standard input (the default if it is no terminal)
  args           sys.argv[1:] of the program

  top            a live view of a program's loops: top --help says more

  -h, --help     show this text
  -V, --version  show the versions of fastloop, libuv and Python

fastloop's are then the loops of asyncio.run, Runner, new_event_loop, get_event_loop,
EventLoop() and SelectorEventLoop(), in every thread, and in processes that
multiprocessing starts. A loop or policy that the program brings along stays its own.
Other processes, such as those of subprocess, run as they always do.
"""


def main() -> None:
    """Run what the command line asks for; SystemExit if it is wrong."""
    first, *rest = sys.argv[1:] or [""]
    if first in ("-h", "--help"):
        print(HELP, end="")
        return
    if first in ("-V", "--version"):
        print(versions())
        return
    if first == "top":
        from ._top import main as top

        sys.exit(top(rest))
    target: Callable[[str, types.ModuleType], None]
    if first[:2] in ("-m", "-c"):
        target, value = (run_module, run_code)[first[1] == "c"], first[2:]
        if not value:
            if not rest:
                fail(f"argument expected for the {first} option")
            value, *rest = rest
        name = first[:2]
    else:
        given = sys.argv[1:]
        if first == "--":
            given = rest
            first, *rest = given or [""]
        elif first.startswith("-") and first != "-":
            fail(f"unknown option {first}; those of python go before -m fastloop")
        if not given and sys.stdin is not None and sys.stdin.isatty():
            fail("nothing to run")
        target, value = run_script, first
        if not given or first == "-":
            target = run_stdin
        name = first

    # Before the program, and before sys.path is its own: nothing of it may get between.
    from ._redirect import redirect

    redirect()
    sys.argv[:] = [name, *rest]
    module = types.ModuleType("__main__")
    vars(module)["__builtins__"] = sys.modules["builtins"]
    if sys.version_info < (3, 14):
        vars(module)["__annotations__"] = {}
    sys.modules["__main__"] = module
    try:
        target(value, module)
    except BaseException as error:
        # The interpreter shows a SystemExit only where it goes on interactively.
        if sys.flags.inspect or not isinstance(error, SystemExit):
            hide_frames()
        raise


def run_module(name: str, module: types.ModuleType) -> None:
    # This is what python -m itself calls, in module's namespace.
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def run_code(source: str, module: types.ModuleType) -> None:
    if sys.version_info >= (3, 14):
        from textwrap import dedent

        source = dedent(source)
    set_first_path("")
    vars(module)["__loader__"] = machinery.BuiltinImporter
    code = compile(source, "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):
        show_lines(code, source)
    exec(code, vars(module))


def show_lines(  # pragma: no cover - since Python 3.13
    code: types.CodeType, source: str
) -> None:
    """Have tracebacks show the lines of a -c program, as they do since Python 3.13."""
    import linecache

    if hasattr(linecache, "_interactive_cache"):
        linecache._register_code(code, source, "<string>")  # type: ignore[attr-defined]
    else:
        lines = source.splitlines(keepends=True)
        linecache.cache["<string>"] = (len(source), None, lines, "<string>")


def run_stdin(_: str, module: types.ModuleType) -> None:
    set_first_path("")
    came_from(module, "<stdin>", machinery.BuiltinImporter)
    source = b"" if sys.stdin is None else sys.stdin.buffer.read()
    exec(compile(source, "<stdin>", "exec", dont_inherit=True), vars(module))


def run_script(name: str, module: types.ModuleType) -> None:
    # An empty name is the current folder.
    path = os.path.join(os.getcwd(), name) if name else os.getcwd()
    if get_importer(path) is not None:  # a folder or zip file
        if sys.flags.safe_path:
            sys.path.insert(0, path)
        else:
            sys.path[0] = path
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return

    set_first_path(os.path.dirname(os.path.realpath(path)))
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(
            f"{sys.orig_argv[0]}: can't open file {path!r}: "
            f"[Errno {error.errno}] {error.strerror}",
            file=sys.stderr,
        )
        sys.exit(2)
    loader: Any = machinery.SourceFileLoader("__main__", path)
    if path.endswith(".pyc"):
        loader = machinery.SourcelessFileLoader("__main__", path)
        code = loader.get_code("__main__")
    else:
        code = compile(source, path, "exec", dont_inherit=True)
    came_from(module, path, loader)
    exec(code, vars(module))


def came_from(module: types.ModuleType, file: str, loader: object) -> None:
    names = vars(module)
    names["__file__"] = file
    names["__loader__"] = loader
    if sys.version_info < (3, 15):
        names["__cached__"] = None


def set_first_path(entry: str) -> None:
    """Replace what python -m put before the search path, unless told not to put any."""
    if not sys.flags.safe_path:
        sys.path[0] = entry


def hide_frames() -> None:
    """Have the traceback of the exception on its way out begin where the program does.

    The interpreter does the rest, as for any program: the traceback goes to the hook
    that is there now, and an unhandled KeyboardInterrupt ends the process by SIGINT.
    """
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        return

    def excepthook(
        kind: type[BaseException],
        error: BaseException,
        traceback: types.TracebackType | None,
    ) -> None:
        sys.excepthook = hook
        entry = first = traceback
        while entry is not None:
            if entry.tb_frame.f_globals is globals():
                first = entry.tb_next
            entry = entry.tb_next
        sys.last_traceback = first
        hook(kind, error.with_traceback(first), first)

    sys.excepthook = excepthook


def versions() -> str:
    """Say which fastloop this is, on which libuv and Python."""
    from . import __version__, libuv_version

    python = ".".join(map(str, sys.version_info[:3]))
    return f"fastloop {__version__} (libuv {libuv_version()}, Python {python})"


def fail(message: str) -> NoReturn:
    print(f"python -m fastloop: {message}\n{USAGE}", end="", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
