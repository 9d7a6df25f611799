"""The programs in examples/ run, and do what they say."""

import importlib.util
import pathlib
import re

import pytest
from conftest import run_python

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"

# What each needs besides fastloop, and what it writes.
PROGRAMS = {
    "chat_server": (
        [],
        r"\* alice came\n\* bob came\n\* carol came\ncarol: hello, all",
    ),
    "custom_loop": ([], r"^10 children$"),
    "database": (["sqlalchemy", "aiosqlite"], r"^50 customers ordered for 12497500$"),
    "fastapi_app": (["fastapi", "uvicorn"], r'"loop":"fastloop\._loop".*\n1000 lines'),
    "fetch": (["aiohttp"], r"^fetched 200 pages$"),
    "find_slow_code": ([], r"took \d+\.\d+ seconds\nprofile: .*sleep"),
    "pipeline": ([], r"^written: 500$"),
    "scraper": (["aiohttp", "bs4"], r"^scraped 63 pages"),
    "supervisor": ([], r"(?s)shaky ended with 1, again.*steady ended with 0"),
    "thread_bridge": ([], r"\[0, 1, 4, 9, 16\]\ntoo slow, and cancelled"),
    "tls_server": (["trustme"], r"TLSv1\.3\nalice@example\.org said hello"),
    "udp_collector": ([], r"1000 datagrams, 100 rejected, {'requests': 900}"),
    "websocket_bot": (["websockets"], r"You said 'hello 7' and.*\n50 chats"),
}


def test_each_is_listed():
    files = {path.stem for path in EXAMPLES.glob("*.py")} - {"tour"}
    assert files == set(PROGRAMS)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_program(name):
    packages, expected = PROGRAMS[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = run_python("-W", "error", str(EXAMPLES / f"{name}.py"))
    assert re.search(expected, done.stdout, re.MULTILINE), done.stdout
    assert done.stderr == ""
