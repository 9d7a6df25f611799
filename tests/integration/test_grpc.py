"""grpc.aio, whose C core polls in a thread of its own and wakes the loop by a socket."""

import asyncio

import grpc
import grpc.aio
import pytest


async def unary(request, context):
    if request == b"abort":
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
    if request == b"slow":
        await asyncio.sleep(3600)
    return request[::-1]


async def numbers(request, context):
    for number in range(int(request)):
        yield b"%d" % number


async def total(requests, context):
    return b"%d" % sum([int(request) async for request in requests])


async def chat(requests, context):
    async for request in requests:
        yield request.upper()


async def serve():
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
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


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


def test_every_kind_of_call(run_script):
    """In a process of its own: grpc.aio binds itself to the first loop for good."""
    done = run_script(SCRIPT, env={"GRPC_VERBOSITY": "NONE"})
    assert done.stdout == "done\n"
