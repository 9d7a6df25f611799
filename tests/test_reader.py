"""add_reader and add_writer: callbacks on descriptors that the program owns."""

import asyncio
import contextvars
import gc
import multiprocessing
import os
import socket
import weakref

import pytest
from iosupport import (
    TIMEOUT,
    capture,
    fill,
    is_stock,
    settle,
    shrink,
    turns,
)


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


def test_reader_is_called_with_its_arguments(loop, run, pipe):
    r, w = pipe
    seen = loop.create_future()

    def on_readable(*args):
        loop.remove_reader(r)
        seen.set_result((args, os.read(r, 100)))

    assert loop.add_reader(r, on_readable, 1, "two", None) is None
    os.write(w, b"abc")

    async def main():
        return await seen

    assert run(main()) == ((1, "two", None), b"abc")


def test_nothing_is_called_before_data(loop, run, pipe):
    r, _ = pipe
    calls = []

    async def main():
        loop.add_reader(r, calls.append, 1)
        await settle()
        await asyncio.sleep(0.01)
        assert loop.remove_reader(r) is True

    run(main())
    assert calls == []


def test_remove_tells_whether_there_was_one(loop, pair):
    a, _ = pair
    assert loop.remove_reader(a) is False
    assert loop.remove_writer(a) is False
    loop.add_reader(a, lambda: None)
    assert loop.remove_writer(a) is False
    assert loop.remove_reader(a) is True
    assert loop.remove_reader(a) is False
    assert loop.add_writer(a, lambda: None) is None
    assert loop.remove_reader(a) is False
    assert loop.remove_writer(a) is True
    assert loop.remove_writer(a) is False


def test_reader_is_called_until_data_is_drained(loop, run, pipe):
    r, w = pipe
    chunks = []
    done = loop.create_future()

    def on_readable():
        chunks.append(os.read(r, 1))
        if len(chunks) == 5:
            loop.remove_reader(r)
            done.set_result(None)

    async def main():
        loop.add_reader(r, on_readable)
        os.write(w, b"abcde")
        await done

    run(main())
    assert b"".join(chunks) == b"abcde"


def test_second_callback_replaces_the_first(loop, run, pipe):
    r, w = pipe
    calls = []
    done = loop.create_future()

    def second():
        calls.append("second")
        loop.remove_reader(r)
        done.set_result(None)

    async def main():
        loop.add_reader(r, calls.append, "first")
        loop.add_reader(r, second)
        os.write(w, b"x")
        await done
        await turns()

    run(main())
    assert calls == ["second"]
    assert loop.remove_reader(r) is False


def test_callback_may_replace_itself(loop, run, pipe):
    r, w = pipe
    calls = []
    done = loop.create_future()

    def first():
        calls.append("first")
        loop.add_reader(r, second)

    def second():
        calls.append("second")
        loop.remove_reader(r)
        done.set_result(None)

    async def main():
        loop.add_reader(r, first)
        os.write(w, b"x")
        await done

    run(main())
    assert calls == ["first", "second"]


def test_reader_and_writer_on_one_descriptor(loop, run, pair):
    a, b = pair
    calls = []
    read = loop.create_future()
    written = loop.create_future()

    def on_readable():
        calls.append("read")
        loop.remove_reader(a)
        read.set_result(a.recv(10))

    def on_writable():
        calls.append("write")
        loop.remove_writer(a)
        written.set_result(None)

    async def main():
        loop.add_reader(a, on_readable)
        loop.add_writer(a, on_writable)
        await written
        # The reader is still there after its writer went.
        b.send(b"data")
        return await read

    assert run(main()) == b"data"
    assert calls == ["write", "read"]


def test_removing_the_reader_keeps_the_writer(loop, run, pair):
    a, _ = pair
    written = loop.create_future()

    def on_writable():
        loop.remove_writer(a)
        written.set_result(True)

    async def main():
        loop.add_writer(a, on_writable)
        loop.add_reader(a, lambda: None)
        assert loop.remove_reader(a) is True
        return await written

    assert run(main()) is True


def test_writer_waits_while_the_socket_is_full(loop, run, pair):
    a, b = pair
    shrink(a, b)
    sent = fill(a)
    calls = []
    writable = loop.create_future()

    def on_writable():
        calls.append("writable")
        loop.remove_writer(a)
        writable.set_result(None)

    async def main():
        loop.add_writer(a, on_writable)
        await settle()
        assert calls == []
        drained = 0
        while drained < sent:
            drained += len(b.recv(65536))
        await writable

    run(main())
    assert calls == ["writable"]


def test_writer_is_called_each_turn_while_writable(loop, run, pair):
    a, _ = pair
    calls = []
    done = loop.create_future()

    def on_writable():
        calls.append(1)
        if len(calls) == 4:
            loop.remove_writer(a)
            done.set_result(None)

    async def main():
        loop.add_writer(a, on_writable)
        await done
        await turns()

    run(main())
    assert len(calls) == 4


@pytest.mark.parametrize("by_object", [True, False], ids=["object", "number"])
def test_object_and_number_name_the_same_descriptor(loop, run, pair, by_object):
    a, b = pair
    added, removed = (a, a.fileno()) if by_object else (a.fileno(), a)
    seen = loop.create_future()

    def on_readable():
        assert loop.remove_reader(removed) is True
        seen.set_result(a.recv(10))

    async def main():
        loop.add_reader(added, on_readable)
        b.send(b"x")
        return await seen

    assert run(main()) == b"x"
    assert loop.remove_reader(added) is False


def test_descriptor_closed_before_its_removal(loop, run, pipe):
    r, _ = pipe
    calls = []

    async def main():
        loop.add_reader(r, calls.append, 1)
        await turns()
        os.close(r)
        await turns()
        assert loop.remove_reader(r) is True
        assert loop.remove_reader(r) is False
        # The loop goes on.
        await asyncio.sleep(0.001)

    run(main())
    assert calls == []


def test_number_of_an_early_closed_descriptor_is_used_again(loop, run, pipe):
    if is_stock(loop):
        pytest.skip("selectors never learn that the number names another file")
    r, _w = pipe
    stale = []

    async def main():
        seen = loop.create_future()
        loop.add_reader(r, stale.append, 1)
        await turns()
        os.close(r)
        again, other = os.pipe()
        assert again == r

        def on_readable():
            loop.remove_reader(again)
            seen.set_result(os.read(again, 10))

        try:
            loop.add_reader(again, on_readable)
            os.write(other, b"new")
            assert await seen == b"new"
        finally:
            os.close(other)

    run(main())
    assert stale == []


@pytest.mark.parametrize("factory", ["pipe", "socketpair", "pty"])
def test_blocking_mode_is_left_alone(loop, run, factory):
    if factory == "pipe":
        fds = os.pipe()
    elif factory == "pty":
        fds = os.openpty()
    else:
        fds = tuple(sock.detach() for sock in socket.socketpair())
    try:
        r, w = fds
        assert os.get_blocking(r)
        assert os.get_blocking(w)
        done = loop.create_future()

        def on_readable():
            loop.remove_reader(r)
            done.set_result(None)

        async def main():
            loop.add_reader(r, on_readable)
            loop.add_writer(w, lambda: None)
            os.write(w, b"line\n")
            await done
            loop.remove_writer(w)

        run(main())
        assert os.get_blocking(r)
        assert os.get_blocking(w)
    finally:
        for fd in fds:
            os.close(fd)


def test_eventfd_and_listening_socket(loop, run):
    seen = []
    done = loop.create_future()

    def note(fd, what):
        loop.remove_reader(fd)
        seen.append(what)
        if len(seen) == 2:
            done.set_result(None)

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fd = os.eventfd(0)
            try:
                loop.add_reader(fd, note, fd, "eventfd")
                loop.add_reader(listener, note, listener, "listener")
                os.eventfd_write(fd, 1)
                with socket.create_connection(listener.getsockname()):
                    await done
            finally:
                os.close(fd)

    run(main())
    assert sorted(seen) == ["eventfd", "listener"]


def test_multiprocessing_pipe(loop, run):
    ours, theirs = multiprocessing.Pipe()

    async def main():
        seen = loop.create_future()

        def on_readable():
            loop.remove_reader(ours)
            seen.set_result(ours.recv())

        loop.add_reader(ours, on_readable)
        theirs.send({"k": [1, 2, 3]})
        return await seen

    with ours, theirs:
        assert run(main()) == {"k": [1, 2, 3]}


def test_reader_sees_hang_up(loop, run, pipe):
    r, w = pipe

    async def main():
        seen = loop.create_future()

        def on_readable():
            loop.remove_reader(r)
            seen.set_result(os.read(r, 10))

        loop.add_reader(r, on_readable)
        await turns()
        os.close(w)
        return await seen

    assert run(main()) == b""


@pytest.mark.parametrize("name", ["reader", "writer"])
def test_write_end_sees_that_its_reader_went(loop, run, pipe, name):
    r, w = pipe
    os.set_blocking(w, False)
    try:
        while True:
            os.write(w, b"x" * 65536)
    except BlockingIOError:
        pass
    add = getattr(loop, f"add_{name}")
    remove = getattr(loop, f"remove_{name}")

    async def main():
        gone = loop.create_future()

        def on_event():
            remove(w)
            gone.set_result(True)

        add(w, on_event)
        await settle()
        assert not gone.done()
        os.close(r)
        return await gone

    assert run(main()) is True


def test_many_descriptors(loop, run):
    count = 200
    pipes = [os.pipe() for _ in range(count)]
    seen = set()

    async def main():
        done = loop.create_future()

        def on_readable(index):
            assert os.read(pipes[index][0], 10) == str(index).encode()
            loop.remove_reader(pipes[index][0])
            seen.add(index)
            if len(seen) == count:
                done.set_result(None)

        for index, (r, w) in enumerate(pipes):
            loop.add_reader(r, on_readable, index)
            os.write(w, str(index).encode())
        await done

    try:
        run(main())
    finally:
        for r, w in pipes:
            os.close(r)
            os.close(w)
    assert seen == set(range(count))


def test_callback_removed_by_another_of_the_same_turn_is_not_called(loop, run):
    pipes = [os.pipe() for _ in range(2)]
    calls = []

    async def main():
        def on_readable(own, other):
            calls.append(own)
            loop.remove_reader(other)
            loop.remove_reader(own)

        first, second = pipes[0][0], pipes[1][0]
        loop.add_reader(first, on_readable, first, second)
        loop.add_reader(second, on_readable, second, first)
        os.write(pipes[0][1], b"x")
        os.write(pipes[1][1], b"x")
        await settle()

    try:
        run(main())
    finally:
        for r, w in pipes:
            os.close(r)
            os.close(w)
    assert len(calls) == 1


def test_callback_may_close_its_descriptor(loop, run):
    async def main():
        done = loop.create_future()
        r, w = os.pipe()

        def on_readable():
            loop.remove_reader(r)
            os.close(r)
            done.set_result(None)

        loop.add_reader(r, on_readable)
        os.write(w, b"x")
        os.close(w)
        await done
        await turns()

    run(main())


def test_added_again_after_removal(loop, run, pipe):
    r, w = pipe
    os.write(w, b"x")

    async def main():
        for _ in range(3):
            seen = loop.create_future()
            loop.add_reader(r, lambda seen=seen: seen.done() or seen.set_result(None))
            await seen
            assert loop.remove_reader(r) is True

    run(main())


def test_callbacks_run_in_the_context_of_their_registration(loop, run, pair):
    a, b = pair
    var = contextvars.ContextVar("var", default="none")
    seen = {}

    async def main():
        done = loop.create_future()

        def note(what):
            seen[what] = var.get()
            var.set("changed by " + what)
            (loop.remove_reader if what == "reader" else loop.remove_writer)(a)
            if len(seen) == 2:
                done.set_result(None)

        var.set("at reader")
        loop.add_reader(a, note, "reader")
        var.set("at writer")
        loop.add_writer(a, note, "writer")
        var.set("later")
        b.send(b"x")
        await done
        assert var.get() == "later"

    run(main())
    assert seen == {"reader": "at reader", "writer": "at writer"}


@pytest.mark.parametrize("name", ["reader", "writer"])
def test_exception_is_reported_and_the_callback_stays(loop, run, pair, name):
    a, b = pair
    contexts = capture(loop)
    b.send(b"x")

    async def main():
        done = loop.create_future()
        calls = []

        def broken():
            calls.append(1)
            if len(calls) == 2:
                done.set_result(None)
            raise ZeroDivisionError(name)

        getattr(loop, f"add_{name}")(a, broken)
        await done
        assert getattr(loop, f"remove_{name}")(a) is True

    run(main())
    assert len(contexts) >= 2
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)
    assert contexts[0]["message"].startswith("Exception in callback ")
    assert isinstance(contexts[0]["handle"], asyncio.Handle)


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["reader", "writer"])
def test_exit_leaves_the_loop(loop, run, pair, name, exc):
    a, b = pair
    contexts = capture(loop)
    b.send(b"x")
    remove = getattr(loop, f"remove_{name}")

    def leave():
        remove(a)
        raise exc("out")

    getattr(loop, f"add_{name}")(a, leave)
    loop.call_later(TIMEOUT, loop.stop)
    with pytest.raises(exc, match="out"):
        loop.run_forever()
    assert contexts == []
    # The loop is usable afterwards.
    run(turns())


def test_loop_does_not_keep_removed_callbacks_alive(loop, pipe):
    class Callback:
        def __call__(self):
            pass

    callback = Callback()
    ref = weakref.ref(callback)
    loop.add_reader(pipe[0], callback)
    assert loop.remove_reader(pipe[0]) is True
    del callback
    gc.collect()
    assert ref() is None


def test_standard_input(run_script):
    """A pipe of the shell: read through a callback, left in blocking mode."""
    result = run_script(
        """
        import os
        r, w = os.pipe()
        os.dup2(r, 0)
        loop = new_event_loop()

        def readable():
            print(os.read(0, 100))
            assert loop.remove_reader(sys.stdin)
            loop.stop()

        loop.add_reader(sys.stdin, readable)
        os.write(w, b"typed")
        loop.run_forever()
        print(os.get_blocking(0), loop.remove_reader(sys.stdin))
        loop.close()
        """
    )
    assert result.stdout == "b'typed'\nTrue False\n"
    assert result.stderr == ""


def test_first_batch_puts_up_a_ready_reader(loop):
    """One event is one call, in the first turns of a run, too."""
    a, b = socket.socketpair()
    a.setblocking(False)
    order = []

    def readable():
        order.append("readable")
        loop.call_soon(taken)

    def taken():
        order.append("taken")
        loop.remove_reader(a)
        loop.call_soon(loop.stop)

    def first():
        b.send(b"x")
        loop.add_reader(a, readable)

    with a, b:
        for _ in range(3):
            order.clear()
            loop.call_soon(first)
            loop.run_forever()
            assert order == ["readable", "taken"]
            a.recv(1)
