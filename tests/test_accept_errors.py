"""A server whose accept() fails: each error that the kernel may give it."""

import errno

import pytest
from iosupport import preloaded

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

/* The first FAIL_COUNT calls fail with FAIL_ERRNO; the client stays in the queue. */
static int failed;

static int
fail(void)
{
    const char *count = getenv("FAIL_COUNT");
    if (count == NULL || failed >= atoi(count)) return 0;
    failed++;
    errno = atoi(getenv("FAIL_ERRNO"));
    return -1;
}

int
accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    return fail() < 0 ? -1 : real(fd, address, length, flags);
}
"""

SERVER = """
import os, socket, time
contexts = []

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data)

    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    started = time.monotonic()

    async def visit():
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()

    await asyncio.wait_for(asyncio.gather(*(visit() for _ in range(5))), 30)
    print("served", time.monotonic() - started > 0.9, len(contexts))
    for context in contexts:
        print(context["message"], context["exception"].errno, type(context.get("socket")).__name__)
    server.close()
    await asyncio.sleep(0.01)

run(main())
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """An environment in which accept4() fails as told by two more variables."""
    return preloaded(SHIM, tmp_path_factory.mktemp("shim"))


def serve(run_script, shim, code, count):
    env = shim | {"FAIL_ERRNO": str(code), "FAIL_COUNT": str(count)}
    result = run_script(SERVER, env=env)
    assert result.stderr == ""
    return result.stdout.splitlines()


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"])
def test_out_of_resources(run_script, shim, loop_name, name):
    """Reported; a second later the clients that wait are served."""
    code = getattr(errno, name)
    lines = serve(run_script, shim, code, 1)
    if loop_name == "fastloop":  # asyncio may try again at once
        assert lines[0] == "served True 1"
    for line in lines[1:]:
        assert line == f"socket.accept() out of system resource {code} TransportSocket"
    assert len(lines) >= 2


@pytest.mark.parametrize("name", ["ECONNABORTED", "EINTR", "EAGAIN"])
def test_client_that_is_no_longer_there(run_script, shim, name):
    lines = serve(run_script, shim, getattr(errno, name), 3)
    assert lines == ["served False 0"]
