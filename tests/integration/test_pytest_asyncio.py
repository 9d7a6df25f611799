"""pytest-asyncio with --fastloop: every scope of loops; pytest-aiohttp's fixtures."""

import pytest

SUITE = """
import asyncio
import pytest
import pytest_asyncio

NAME = {name!r}
loops = {{}}

def note(scope):
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.partition(".")[0] == NAME
    loops.setdefault(scope, []).append(loop)

@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def session_value():
    note("session")
    yield asyncio.create_task(asyncio.sleep(0, "session"))
    note("session")

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_value():
    note("module")
    yield "module"
    note("module")

@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def package_value():
    note("package")
    yield "package"
    note("package")

@pytest_asyncio.fixture
async def function_value():
    note("function fixture")
    yield asyncio.get_running_loop()

@pytest.mark.asyncio
@pytest.mark.parametrize("n", range(2))
async def test_function(function_value, n):
    note("function")
    assert function_value is asyncio.get_running_loop()
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_one(self):
        note("class")

    async def test_two(self):
        note("class")

@pytest.mark.asyncio(loop_scope="module")
async def test_module(module_value):
    note("module")
    await asyncio.to_thread(int)

@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("n", range(2))
async def test_package(package_value, n):
    note("package")

@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("n", range(2))
async def test_session(session_value, n):
    note("session")
    assert await session_value == "session"

def test_loops():
    assert loops["function"][0] is not loops["function"][1]
    assert loops["class"][0] is loops["class"][1]
    assert loops["module"][0] is loops["module"][1]
    assert len(set(loops["session"])) == 1
    assert len(set(loops["package"])) == 1
    assert len(set(sum(loops.values(), []))) == 6
"""

AIOHTTP_SUITE = """
import asyncio
import pytest
from aiohttp import web

NAME = {name!r}

async def hello(request):
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == NAME
    return web.Response(text="hello")

@pytest.fixture
async def client(aiohttp_client):
    app = web.Application()
    app.router.add_get("/", hello)
    return await aiohttp_client(app)

async def test_get(client):
    answer = await client.get("/")
    assert await answer.text() == "hello"

async def test_raw_server(aiohttp_raw_server, aiohttp_client):
    server = await aiohttp_raw_server(hello)
    client = await aiohttp_client(server)
    answer = await client.get("/")
    assert answer.status == 200
"""

ANYIO_SUITE = """
import asyncio
import anyio
import pytest

NAME = {name!r}
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def group():
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()

async def test_group(group):
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == NAME
    group.start_soon(anyio.sleep, 3600)
    await anyio.to_thread.run_sync(int)
"""


@pytest.mark.parametrize(
    ("source", "mode", "count"),
    [(SUITE, "strict", 10), (AIOHTTP_SUITE, "auto", 2), (ANYIO_SUITE, "strict", 1)],
    ids=["pytest-asyncio", "pytest-aiohttp", "anyio"],
)
def test_suite(program, loop_name, tmp_path, source, mode, count):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    file = tmp_path / "package" / "test_suite.py"
    file.write_text(source.format(name=loop_name))
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nasyncio_mode = {mode}\nfilterwarnings = error\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    options = ["--fastloop"] if loop_name == "fastloop" else []
    ran = program(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(file),
        redirect=False,
    )  # fmt: skip
    assert f"{count} passed" in ran.wait()
