"""Servers that are told their loop on the command line."""

import importlib.util
import re
import signal
import socket
import subprocess

import pytest
from conftest import TIMEOUT, python_command

needs_uvicorn = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="uvicorn is not installed"
)

APP = """\
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                print("shut down", flush=True)
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    answer = f"{kind} {scope['method']} {scope['path']} {len(body)}".encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})
"""


def read_until(stream, pattern):
    """Return the match in the first line that has one, and all lines up to it."""
    lines = []
    for line in stream:
        lines.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError("".join(lines))


def request(port, method, path, body):
    """Return the body of the answer to one HTTP request."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        sock.sendall(
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return content.decode()


@needs_uvicorn
@pytest.mark.parametrize(
    ("prefix", "loop", "kind"),
    [
        ([], "asyncio", "asyncio"),
        ([], "fastloop:new_event_loop", "fastloop"),
        ([], "fastloop:Loop", "fastloop"),
        (["-m", "fastloop"], "asyncio", "fastloop"),
        (["-m", "fastloop"], "none", "fastloop"),
    ],
)
def test_uvicorn(tmp_path, prefix, loop, kind):
    (tmp_path / "app.py").write_text(APP)
    command, keywords = python_command(
        *("-W", "error::DeprecationWarning:fastloop"),
        *prefix,
        *("-m", "uvicorn", "app:app", "--loop", loop),
        *("--host", "127.0.0.1", "--port", "0", "--no-access-log"),
    )
    keywords["stderr"] = subprocess.STDOUT
    with subprocess.Popen(command, cwd=tmp_path, **keywords) as server:
        try:
            found = read_until(server.stdout, r"running on http://127\.0\.0\.1:(\d+)")
            port = int(found[1])
            assert request(port, "GET", "/a", b"") == f"{kind} GET /a 0"
            body = b"x" * 300_000
            assert request(port, "POST", "/b", body) == f"{kind} POST /b {len(body)}"
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate(timeout=TIMEOUT)
        finally:
            server.kill()
    assert "shut down" in rest
    assert "Finished server process" in rest
    assert "Traceback" not in rest
    assert server.returncode in (0, -signal.SIGINT)
