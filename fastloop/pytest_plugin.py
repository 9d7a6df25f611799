"""The pytest plugin: ``pytest --fastloop`` runs a test suite's loops on fastloop.

``fastloop = true`` in the ini file does the same. Tests of pytest-asyncio, of anyio on
its asyncio backend and of ``unittest.IsolatedAsyncioTestCase`` need no change, because
all of these let asyncio make the loop. Without option nothing is imported or changed.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --fastloop and the ini option of that name."""
    parser.getgroup("fastloop", "fastloop event loop").addoption(
        "--fastloop",
        action="store_true",
        help="run asyncio's event loops on fastloop",
    )
    parser.addini(
        "fastloop",
        "run asyncio's event loops on fastloop, as --fastloop does",
        type="bool",
        default=False,
    )


def _is_on(config: pytest.Config) -> bool:
    return bool(config.getoption("fastloop") or config.getini("fastloop"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make fastloop the loop of the session, until pytest_unconfigure."""
    if _is_on(config):
        from ._redirect import redirect

        config.add_cleanup(redirect())


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which fastloop the tests run on."""
    if not _is_on(config):
        return None
    from . import __version__, libuv_version

    return f"fastloop: {__version__}, libuv {libuv_version()}"
