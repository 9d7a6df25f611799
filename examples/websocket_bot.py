"""A chatbot on websockets: an answer comes word by word, and can be broken off.

pip install websockets
python examples/websocket_bot.py
"""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

import fastloop


async def think(question):
    """What a model would do: the words of an answer, one after the other."""
    for word in f"You said {question!r} and that is interesting".split():
        await asyncio.sleep(0.002)
        yield word


async def answer(connection, question):
    async for word in think(question):
        await connection.send(word)
    await connection.send("")  # the end of an answer


async def bot(connection):
    answering = None
    try:
        async for message in connection:
            if answering is not None:
                answering.cancel()  # a new question is the end of the last answer
            answering = None
            if message != "/stop":
                answering = asyncio.create_task(answer(connection, message))
    finally:
        if answering is not None:
            answering.cancel()


async def chat(url, question):
    async with connect(url) as connection:
        await connection.send(question)
        words = []
        while word := await connection.recv():
            words.append(word)
        return " ".join(words)


async def main():
    async with serve(bot, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/"
        answers = await asyncio.gather(*(chat(url, f"hello {n}") for n in range(50)))
        print(answers[7])
        async with connect(url) as connection:
            await connection.send("a long story")
            await connection.recv()
            await connection.send("/stop")
            await connection.send("short")
            print(len(answers), "chats, and one that was broken off")


if __name__ == "__main__":
    fastloop.run(main())
