"""What README and docs/ say is so: code and commands are run, names and messages exist.

A block with a title is a file beside the page's programs; any other Python block is a
program, and the block titled "output" behind it what it writes.
"""

import asyncio
import contextlib
import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from conftest import TIMEOUT, python_command, run_python

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r'^```(\S*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


def blocks():
    """Yield (page, line, language, title, text) of each block."""
    for page in PAGES:
        source = page.read_text()
        for match in FENCE.finditer(source):
            line = source.count("\n", 0, match.start()) + 1
            yield page.stem, line, *match.groups()


BLOCKS = list(blocks())

# A program, and what it writes.
PROGRAMS = {
    f"{page}:{line}": (text, after[4] if after[3] == "output" else None)
    for (page, line, language, title, text), after in zip(
        BLOCKS, [*BLOCKS[1:], ("",) * 5], strict=True
    )
    if language == "python" and title is None
}

FILES = {title: text for *_, title, text in BLOCKS if title not in (None, "output")}

COMMANDS = {
    line
    for _, _, language, _, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
}

# Commands that show the loop in an answer: with what they are told to find a port.
SERVERS = {
    "uvicorn --loop fastloop:new_event_loop app:app": "--port 0",
    "uvicorn --loop fastloop:new_event_loop --workers 2 app:app": "--port 0",
    "uvicorn --loop fastloop:new_event_loop mysite.asgi:application": "--port 0",
    "gunicorn -k fastloop_worker.FastloopWorker app:app": (
        "--bind 127.0.0.1:0 --no-control-socket"
    ),
    "python -m fastloop -m hypercorn app:app": "--bind 127.0.0.1:0",
    "python -m fastloop -m hypercorn --workers 2 app:app": "--bind 127.0.0.1:0",
    "python serve.py": "",
    "python aiohttp_server.py": "",
}

# Others that are run here, each in a test of its own.
TRIED = {"pytest --fastloop", "python -m fastloop -V"}

NOT_RUN = {
    "pip install .": "tests/test_packaging.py",
    "make demo    # real programs, on asyncio and on fastloop in turn, and a table of times": "examples/tour.py",
    "make test    # all the tests": "this",
}

DJANGO = """
import asyncio
import django.conf
import django.core.asgi
import django.http
import django.urls

async def root(request):
    name = type(asyncio.get_running_loop()).__module__
    return django.http.JsonResponse({"loop": name})

urlpatterns = [django.urls.path("", root)]
django.conf.settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of the test"
)
application = django.core.asgi.get_asgi_application()
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of the pages; servers in them choose a port."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name, call in {
        "serve.py": 'loop="fastloop:new_event_loop"',
        "aiohttp_server.py": "loop=fastloop.new_event_loop()",
    }.items():
        text = FILES[name]
        assert text.count(call) == 1
        more = f'{call}, host="127.0.0.1", port=0'
        (tmp_path / name).write_text(text.replace(call, more))
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "asgi.py").write_text(DJANGO)
    return tmp_path


@contextlib.contextmanager
def started(command, folder):
    _, keywords = python_command()
    keywords |= {"cwd": folder, "stderr": subprocess.STDOUT, "start_new_session": True}
    with subprocess.Popen(command, **keywords) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise


async def answer_of(port):
    """Return what a server answers; uvicorn tells of its port before it listens."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
                continue
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer.decode()


def needs(line):
    """The packages that a command needs, beside its own name."""
    packages = {
        "app:app": "fastapi",
        "serve.py": "fastapi",
        "aiohttp_": "aiohttp",
        "gunicorn": "uvicorn_worker",
        "hypercorn": "hypercorn",
        "mysite": "django",
    }
    return [package for word, package in packages.items() if word in line]


@pytest.mark.parametrize("line", sorted(SERVERS))
def test_server(line, folder):
    for package in needs(line):
        pytest.importorskip(package)
    name, *words = line.split()
    if name == "python":
        command = [sys.executable, *words]
    else:
        command = [str(pathlib.Path(sys.executable).parent / name), *words]
    with started([*command, *SERVERS[line].split()], folder) as process:
        written = ""
        for text in process.stdout:
            written += text
            if found := re.search(r"https?://127\.0\.0\.1:([1-9]\d*)", text):
                break
        else:
            pytest.fail(written)
        assert "fastloop._loop" in asyncio.run(answer_of(int(found[1])))


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_program(name):
    source, output = PROGRAMS[name]
    # install() warns on Python 3.14, as its page says.
    options = ["-W", "error", "-W", "default::DeprecationWarning"]
    done = run_python(*options, "-c", source)
    if output is not None:
        assert done.stdout == output
    assert done.stderr == ""


def test_languages():
    known = {"", "python", "sh", "text", "toml"}  # "" is a drawing
    assert {language for _, _, language, _, _ in BLOCKS} <= known


def test_commands_are_known():
    assert set(SERVERS) | TRIED | set(NOT_RUN) == COMMANDS


@pytest.mark.parametrize("option", [True, False])
def test_pytest(folder, option):
    """By option without the ini file, and by the ini file without option."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if option:
        (folder / "pyproject.toml").unlink()
        command.append("--fastloop")
    _, keywords = python_command()
    done = subprocess.run(
        [*command, "test_loop.py"], cwd=folder, timeout=TIMEOUT, check=False, **keywords
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_versions():
    assert re.match(
        r"fastloop .*libuv .*Python ", run_python("-m", "fastloop", "-V").stdout
    )


def test_jupyter(folder):
    pytest.importorskip("ipykernel")
    jupyter_client = pytest.importorskip("jupyter_client")
    profile = folder / "profile_default"
    profile.mkdir()
    shutil.copy(folder / "ipython_kernel_config.py", profile)
    _, keywords = python_command(env={"IPYTHONDIR": str(folder)})
    spec = jupyter_client.kernelspec.KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    )
    # Ports would be chosen long before the kernel listens on them.
    manager = jupyter_client.KernelManager(transport="ipc", ip=str(folder / "kernel"))
    manager._kernel_spec = spec
    manager.start_kernel(env=keywords["env"], stderr=subprocess.DEVNULL)
    client = manager.blocking_client()
    client.start_channels()
    written = []
    try:
        client.wait_for_ready(TIMEOUT)
        client.execute_interactive(
            "import asyncio; print(type(asyncio.get_running_loop()).__module__)",
            timeout=TIMEOUT,
            output_hook=lambda message: written.append(message["content"].get("text")),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    assert "fastloop._loop\n" in written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names(page):
    """fastloop.NAME is a name of the package."""
    source = page.read_text()
    names = set(re.findall(r"(?<![\w./-])fastloop[.:](\w+)", source))
    code = "import fastloop, sys\nfor name in sys.argv[1:]: getattr(fastloop, name)"
    run_python("-c", code, *sorted(names - {"_loop"}))


def test_methods():
    """The page of the API has each public method of the loop, and no other."""
    source = (ROOT / "docs" / "api.md").read_text()
    section = source.partition("## The loop")[2].partition("## Transports")[0]
    # The first column of each table.
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.M)
    listed = {
        name
        for cell in cells
        for name in re.findall(r"`(\w+)", cell)
        if name != "method"
    }
    loop = importlib.import_module("fastloop").Loop
    public = {name for name in dir(loop) if not name.startswith("_")}
    attributes = {"slow_callback_duration"}  # of a loop, not of the class
    assert listed - attributes == public


# Words of compilers, loaders and systems.
OF_OTHERS = ("fatal error:", "ImportError: libuv", "OSError: [Errno 24]")


def test_messages():
    """Each message that is explained is one that fastloop or asyncio has."""
    folders = [ROOT / "csrc", ROOT / "fastloop", pathlib.Path(asyncio.__file__).parent]
    files = [path for folder in folders for path in folder.rglob("*.[cp]*")]
    source = (ROOT / "setup.py").read_text()
    source += "".join(
        path.read_text() for path in files if path.suffix in (".c", ".py")
    )
    source = re.sub(r'"\s*\n\s*f?[rR]?["\']|\'\s*\n\s*f?[\'"]', "", source)
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    headings = re.findall(r"^### `(.*?)`", page, re.M)
    assert len(headings) > 15
    for heading in headings:
        if heading.startswith(OF_OTHERS):
            continue
        message = re.sub(r"^\w+(Error|Warning): ", "", heading)
        for part in re.split(r"…|\d+\.\d+|pkg-config|<Handle|'[\w.]+'", message):
            words = part.strip(" ,>")
            assert words in source, textwrap.shorten(heading, 200)
