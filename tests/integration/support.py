"""What the tests with real packages share: programs of their own, plain clients."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import threading
import time

from conftest import TIMEOUT, python_command


class Program:
    """A Python process that runs a module or script on one of the loops.

    loop is "asyncio", or "fastloop" for ``python -m fastloop``, unless redirect is
    False: then the arguments name the loop themselves. The port that a server tells of
    in its log is the attribute port. The process and its children are
    killed at the end of the test.
    """

    def __init__(self, loop, *args, redirect=True, env=None):
        if loop == "fastloop" and redirect:
            args = ("-m", "fastloop", *args)
        command, keywords = python_command(*args, env=env)
        keywords["stderr"] = subprocess.STDOUT
        keywords["start_new_session"] = True
        self.process = subprocess.Popen(command, **keywords)
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self):
        return "".join(self.lines)

    def until(self, pattern, count=1, timeout=TIMEOUT):
        """Wait until the output has count matches of a regular expression; return the last."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = list(re.finditer(pattern, self.output))
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                assert not self._ended and left > 0, (
                    f"no {pattern!r} in:\n{self.output}"
                )
                self._changed.wait(left)

    def port(self, pattern=r"https?://127\.0\.0\.1:(\d+)"):
        return int(self.until(pattern).group(1))

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, returncode=0, timeout=TIMEOUT):
        """Wait for the end; return what it wrote."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self._reader.join(10)
            raise AssertionError(f"no end after {timeout} s:\n{self.output}") from None
        self._reader.join(TIMEOUT)
        assert self.process.returncode == returncode, self.output
        return self.output

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        # With the processes that it made, which have its output open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()


async def request(port, head, body=b""):
    """Send one HTTP/1.1 request on a plain stream; return (status, headers, body).

    The answer has to close the connection.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        await writer.drain()
        return parse(await reader.read())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_chunks(body))
    return int(status.split()[1]), headers, body


def _chunks(body):
    while body:
        size, _, body = body.partition(b"\r\n")
        size = int(size, 16)
        yield body[:size]
        assert body[size : size + 2] == b"\r\n"
        body = body[size + 2 :]
