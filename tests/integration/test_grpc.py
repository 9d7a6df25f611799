"""grpc.aio, whose C core polls in a thread of its own and wakes the loop by a socket."""

import asyncio
import pathlib

import grpc
import grpc.aio
import pytest

from .ownservers import free_port

entered = asyncio.Semaphore(0)
released = asyncio.Event()


async def unary(request, context):
    if request == b"abort":
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
    if request == b"slow":
        entered.release()
        await asyncio.sleep(3600)
    if request == b"a while":
        entered.release()
        await released.wait()
    return request[::-1]


async def numbers(request, context):
    for number in range(int(request)):
        yield b"%d" % number


async def total(requests, context):
    return b"%d" % sum([int(request) async for request in requests])


async def chat(requests, context):
    async for request in requests:
        yield request.upper()


async def serve(address="127.0.0.1:0", credentials=None):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Numbers": grpc.unary_stream_rpc_method_handler(numbers),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", handlers)]
    )
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    await server.start()
    return server, f"localhost:{port}"


SCRIPT = """
import contextlib, os
from integration.test_grpc import exercise
run(exercise())
print("done", flush=True)
"""


async def exercise():
    server, address = await serve()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/test.Service/Unary")
        answers = await asyncio.gather(*(call(b"%d" % n) for n in range(100, 300)))
        assert answers == [str(n)[::-1].encode() for n in range(100, 300)]
        assert await call(b"x" * 1_000_000) == b"x" * 1_000_000

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"abort")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"slow", timeout=0.05)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        task = asyncio.ensure_future(call(b"slow"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        stream = channel.unary_stream("/test.Service/Numbers")(b"500")
        assert [int(answer) async for answer in stream] == list(range(500))

        async def requests():
            for number in range(500):
                yield b"%d" % number

        method = channel.stream_unary("/test.Service/Total")
        assert await method(requests()) == b"%d" % sum(range(500))

        talk = channel.stream_stream("/test.Service/Chat")()
        for word in (b"one", b"two", b"three"):
            await talk.write(word)
            assert await talk.read() == word.upper()
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
    await server.stop(None)


RESTART = """
import sys
from integration.test_grpc import exercise_restart
run(exercise_restart(sys.argv[1]))
print("done", flush=True)
"""


async def exercise_restart(port):
    server, address = await serve(f"127.0.0.1:{port}")
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.max_reconnect_backoff_ms", 100)]
    ) as channel:
        call = channel.unary_unary("/test.Service/Unary")
        await call(b"x")
        # With time to end, calls in flight are finished, and no others taken.
        tasks = [asyncio.ensure_future(call(b"a while")) for _ in range(20)]
        for _ in tasks:
            await entered.acquire()
        stopped = asyncio.create_task(server.stop(60))
        await asyncio.sleep(0)
        released.set()
        assert await asyncio.gather(*tasks) == [b"elihw a"] * 20
        await stopped
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"x", timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        server, _ = await serve(address.replace("localhost", "127.0.0.1"))
        assert await call(b"again", wait_for_ready=True) == b"niaga"
        # Without, they are cut off.
        slow = asyncio.ensure_future(call(b"slow"))
        await entered.acquire()
        await server.stop(None)
        with pytest.raises(grpc.aio.AioRpcError):
            await slow


SECURE = """
import sys
from integration.test_grpc import exercise_tls
run(exercise_tls(*sys.argv[1:]))
print("done", flush=True)
"""


async def exercise_tls(*paths):
    key, chain, authority = (pathlib.Path(path).read_bytes() for path in paths)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    server, address = await serve(credentials=credentials)
    trust = grpc.ssl_channel_credentials(authority)
    async with grpc.aio.secure_channel(address, trust) as channel:
        call = channel.unary_unary("/test.Service/Unary")
        answers = await asyncio.gather(*(call(b"%d" % n) for n in range(100, 200)))
        assert answers == [str(n)[::-1].encode() for n in range(100, 200)]
    await server.stop(None)


def test_restart(run_script):
    # Not a port that the system gives to connections, for it is to be had again.
    args = [str(free_port())]
    done = run_script(RESTART, args=args, env={"GRPC_VERBOSITY": "NONE"})
    assert done.stdout == "done\n"


def test_tls(run_script, tls, tmp_path):
    paths = [tmp_path / name for name in ("key.pem", "chain.pem", "authority.pem")]
    tls.certificate.private_key_pem.write_to_path(paths[0])
    tls.certificate.cert_chain_pems[0].write_to_path(paths[1])
    tls.authority.cert_pem.write_to_path(paths[2])
    done = run_script(SECURE, args=[*map(str, paths)], env={"GRPC_VERBOSITY": "NONE"})
    assert done.stdout == "done\n"


def test_every_kind_of_call(run_script):
    """In a process of its own: grpc.aio binds itself to the first loop for good."""
    done = run_script(SCRIPT, env={"GRPC_VERBOSITY": "NONE"})
    assert done.stdout == "done\n"
