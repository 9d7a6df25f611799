"""Fixtures of the tests with real packages and real servers.

Each server's address comes from the environment variable in SERVICES. Where a server or
a package is absent the tests skip and say so; with FASTLOOP_REQUIRE_SERVICES=1 they fail.
"""

import asyncio
import contextlib
import os
import socket
import sys
import urllib.parse
import uuid

import pytest
from tlssupport import Certificates

from .support import Program

REQUIRED = os.environ.get("FASTLOOP_REQUIRE_SERVICES", "") not in ("", "0")

SERVICES = {
    "postgres": ("FASTLOOP_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test"),
    "mysql": ("FASTLOOP_MYSQL", "mysql://root@127.0.0.1:3306/test"),
    "redis": ("FASTLOOP_REDIS", "redis://127.0.0.1:6379/0"),
    "rabbitmq": ("FASTLOOP_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672/"),
    "mosquitto": ("FASTLOOP_MOSQUITTO", "mqtt://127.0.0.1:1883"),
    "nats_url": ("FASTLOOP_NATS", "nats://127.0.0.1:4222"),
}


def pytest_pycollect_makemodule(module_path, parent):
    """Without the package that a file is about, it skips, unless it must not."""
    return _Module.from_parent(parent, path=module_path)


class _Module(pytest.Module):
    def _getobj(self):
        try:
            return super()._getobj()
        except self.CollectError as exc:
            missing = exc.__cause__
            if isinstance(missing, ModuleNotFoundError) and not REQUIRED:
                pytest.skip(f"{missing.name} is not installed", allow_module_level=True)
            raise


def _service(name):
    variable, default = SERVICES[name]
    url = os.environ.get(variable) or default
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except OSError as exc:
        words = f"no {name} at {parts.hostname}:{parts.port} ({variable}): {exc}"
        if REQUIRED:
            pytest.fail(words)
        pytest.skip(words)
    return url


def _fixture(name):
    @pytest.fixture(name=name, scope="session")
    def service():
        return _service(name)

    service.__doc__ = f"The URL of the {name} server."
    return service


for _name in SERVICES:
    globals()[f"{_name}_fixture"] = _fixture(_name)


@pytest.fixture
def unique():
    """A name that nothing else on the servers has."""
    return f"fastloop_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def tls():
    """Certificates, and contexts of server and client."""
    return Certificates()


@pytest.fixture
def program(loop_name):
    """program(args…) starts a Python on the loop under test (see Program)."""
    with contextlib.ExitStack() as stack:

        def start(*args, **kwargs):
            return stack.enter_context(Program(loop_name, *args, **kwargs))

        yield start


@pytest.fixture
def child_watcher(loop):
    """On Python 3.11, a child process asks for asyncio's child watcher."""
    if sys.version_info < (3, 12):
        asyncio.set_event_loop(loop)
        yield
        asyncio.set_event_loop(None)
    else:
        yield


def _own_fixture(name):
    @pytest.fixture(name=f"own_{name.lower()}", scope="session")
    def own(tls):
        from . import ownservers

        try:
            server = getattr(ownservers, name)(tls)
        except ownservers.Absent as exc:
            if REQUIRED:
                pytest.fail(str(exc))
            pytest.skip(str(exc))
        with server:
            yield server

    own.__doc__ = f"A {name} of the tests' own, with TLS; who stops it starts it again."
    return own


for _name in ("Redis", "Nats", "SecureNats", "Mosquitto", "Postgres", "MariaDB"):
    globals()[f"own_{_name.lower()}_fixture"] = _own_fixture(_name)
