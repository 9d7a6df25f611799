"""IPython, Jupyter, monitors, tracers, debuggers and profilers at a running loop."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import TIMEOUT

from .ownservers import free_port


def test_ipython_awaits(program, loop_name, tmp_path):
    code = textwrap.dedent(
        """
        import asyncio
        async def name():
            await asyncio.sleep(0.001)
            return type(asyncio.get_running_loop()).__module__.partition(".")[0]
        print("loop:", await name())
        print("results:", await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3))))
        print("thread:", await asyncio.to_thread(int))
        """
    )
    file = tmp_path / "code.ipy"
    file.write_text(code)
    env = {"IPYTHONDIR": str(tmp_path)}
    ran = program(
        "-m",
        "IPython",
        "--no-banner",
        "--colors=NoColor",
        "--quick",
        str(file),
        env=env,
    )
    output = ran.wait()
    assert f"loop: {loop_name}" in output
    assert "results: [0, 1, 2]" in output
    assert "thread: 0" in output


def test_jupyter_kernel(loop_name, tmp_path):
    """A kernel whose loop is fastloop executes, awaits, and keeps tasks alive."""
    jupyter_client = pytest.importorskip("jupyter_client")
    from conftest import python_command

    options = ["-m", "fastloop"] if loop_name == "fastloop" else []
    env = {"IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    command, keywords = python_command(
        *options, "-m", "ipykernel_launcher", "-f", "{connection_file}", env=env
    )
    manager = jupyter_client.BlockingKernelClient
    # Its ports would be chosen long before it listens on them.
    kernels = jupyter_client.KernelManager(transport="ipc", ip=str(tmp_path / "kernel"))
    kernels._kernel_spec = jupyter_client.kernelspec.KernelSpec(argv=command)
    kernels.start_kernel(env=keywords["env"], stderr=subprocess.DEVNULL)
    client = kernels.client()
    assert isinstance(client, manager)

    def execute(code):
        out = []

        def hook(message):
            if message["msg_type"] == "stream":
                out.append(message["content"]["text"])

        answer = client.execute_interactive(
            code, timeout=TIMEOUT, output_hook=hook, allow_stdin=False
        )
        assert answer["content"]["status"] == "ok", answer
        return "".join(out)

    try:
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT)
        code = "import asyncio\nprint(type(asyncio.get_running_loop()).__module__)"
        assert execute(code).partition(".")[0].strip() == loop_name
        assert execute("print(await asyncio.sleep(0.01, 'slept'))") == "slept\n"
        execute(
            "seen = []\nasync def tick():\n"
            "    while True:\n        seen.append(1)\n        await asyncio.sleep(0.001)\n"
            "task = asyncio.create_task(tick())"
        )
        execute("while len(seen) <= 5: await asyncio.sleep(0.001)")
        execute("task.cancel()")
        # Ctrl-C reaches what awaits, and what computes.
        for code in ("await asyncio.sleep(3600)", "while True: pass"):
            # Else what is sent soon after the interruption may be dropped with it.
            number = client.execute(
                f"print('begun', flush=True)\n{code}", stop_on_error=False
            )
            while True:
                message = client.get_iopub_msg(timeout=TIMEOUT)
                if message["msg_type"] == "stream":
                    break
            kernels.interrupt_kernel()
            client.kernel_info()  # asyncio's own loop sleeps on until something comes
            while True:
                answer = client.get_shell_msg(timeout=TIMEOUT)
                if answer["parent_header"]["msg_id"] == number:
                    break
            interrupted = ("KeyboardInterrupt", "CancelledError")
            assert answer["content"]["ename"] in interrupted
        assert execute("print('alive')") == "alive\n"
        client.shutdown()
        deadline = time.monotonic() + TIMEOUT
        while kernels.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not kernels.is_alive()
    finally:
        client.stop_channels()
        with contextlib.suppress(Exception):
            kernels.shutdown_kernel(now=True)
        kernels.context.destroy(0)


def test_aiomonitor(run_script):
    done = run_script(
        """
        import aiomonitor

        async def main():
            loop = asyncio.get_running_loop()
            async def waits():
                await asyncio.sleep(3600)
            task = asyncio.create_task(waits(), name="the one that waits")
            ports = [int(port) for port in sys.argv[1:]]
            with aiomonitor.start_monitor(
                loop,
                host="127.0.0.1",
                port=ports[0],
                webui_port=ports[1],
                console_port=ports[2],
                hook_task_factory=True,
            ) as monitor:
                await asyncio.create_task(asyncio.sleep(0.01))
                names = [info.name for info in monitor.format_running_task_list("", False)]
                print("the one that waits" in names)
            task.cancel()

        run(main())
        """,
        args=[str(free_port()) for _ in range(3)],
    )
    assert done.stdout.strip().endswith("True")


def test_aiomonitor_over_the_net(run_script):
    """Its page and its telnet prompt, asked while the loop works."""
    done = run_script(
        """
        import socket, urllib.request, json
        import aiomonitor

        def page(port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                return answer.status

        def prompt(port):
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
                seen = b""
                # The terminal's type and size, without which it does not begin.
                sock.sendall(b"\\xff\\xfa\\x18\\0xterm\\xff\\xf0")
                sock.sendall(b"\\xff\\xfa\\x1f\\0\\x50\\0\\x28\\xff\\xf0")
                while b"monitor" not in seen:
                    data = sock.recv(4096)
                    assert data, seen
                    seen += data
                sock.sendall(b"ps\\r\\n")
                while b"the one that waits" not in seen:
                    data = sock.recv(4096)
                    assert data, seen
                    seen += data

        async def main():
            loop = asyncio.get_running_loop()
            task = asyncio.create_task(asyncio.sleep(3600), name="the one that waits")
            ports = [int(port) for port in sys.argv[1:]]
            with aiomonitor.start_monitor(
                loop, host="127.0.0.1", port=ports[0], webui_port=ports[1],
                console_port=ports[2],
            ):
                while True:
                    try:
                        print("page", await asyncio.to_thread(page, ports[1]))
                        break
                    except OSError:
                        await asyncio.sleep(0.01)
                await asyncio.to_thread(prompt, ports[0])
                print("prompt")
            task.cancel()

        run(main())
        """,
        args=[str(free_port()) for _ in range(3)],
    )
    assert "page 200" in done.stdout
    assert "prompt" in done.stdout


def test_opentelemetry(run_script):
    done = run_script(
        """
        from opentelemetry import trace
        from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
            InMemorySpanExporter,
        )

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        AsyncioInstrumentor().instrument()
        tracer = trace.get_tracer("test")

        async def child(number):
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"child {number}"):
                await asyncio.to_thread(thread, number)

        def thread(number):
            with tracer.start_as_current_span(f"thread {number}"):
                pass

        async def main():
            with tracer.start_as_current_span("root"):
                await asyncio.gather(*(child(n) for n in range(10)))
                loop = asyncio.get_running_loop()
                done = loop.create_future()
                def later():
                    with tracer.start_as_current_span("callback"):
                        done.set_result(None)
                loop.call_later(0.001, later)
                await done

        run(main())
        spans = {span.name: span for span in exporter.get_finished_spans()}
        by_id = {span.context.span_id: span.name for span in spans.values()}
        parent = lambda name: by_id[spans[name].parent.span_id]
        assert all(parent(f"child {n}") == "root" for n in range(10))
        assert all(parent(f"thread {n}") == f"child {n}" for n in range(10))
        assert parent("callback") == "root"
        AsyncioInstrumentor().uninstrument()
        print("as it should be")
        """
    )
    assert done.stdout == "as it should be\n"


class Debugger:
    """A client of debugpy's, connected and attached."""

    def __init__(self, ran, port):
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), 1)
                break
            except OSError:
                assert time.monotonic() < deadline, ran.output
                time.sleep(0.05)
        connection.settimeout(TIMEOUT)
        with connection:  # it is closed with the stream
            self.stream = connection.makefile("rwb")
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stream.close()

    def send(self, command, **arguments):
        self.number += 1
        message = {"seq": self.number, "type": "request", "command": command}
        body = json.dumps({**message, "arguments": arguments}).encode()
        self.stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.stream.flush()
        return self.number

    def receive(self, **wanted):
        while True:
            length = None
            while line := self.stream.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            message = json.loads(self.stream.read(length))
            if all(message.get(key) == value for key, value in wanted.items()):
                return message

    def ask(self, command, **arguments):
        seq = self.send(command, **arguments)
        answer = self.receive(type="response", request_seq=seq)
        assert answer["success"], answer
        return answer.get("body")

    def attach(self, file, line):
        """Have the program stop at a line."""
        self.ask("initialize", adapterID="test", pathFormat="path")
        attach = self.send("attach", justMyCode=True)
        self.receive(type="event", event="initialized")
        source = {"path": str(file)}
        self.ask("setBreakpoints", source=source, breakpoints=[{"line": line}])
        self.ask("configurationDone")
        self.receive(type="response", request_seq=attach)

    def stopped(self):
        """Wait until the program stops; return (thread, frame)."""
        thread = self.receive(type="event", event="stopped")["body"]["threadId"]
        trace = self.ask("stackTrace", threadId=thread)["stackFrames"]
        assert trace[0]["name"] == "main"
        return thread, trace[0]["id"]

    def value(self, frame):
        return int(self.ask("evaluate", expression="value", frameId=frame)["result"])

    def end(self, file, frame):
        """Have the program end when it goes on."""
        self.ask("setBreakpoints", source={"path": str(file)}, breakpoints=[])
        code = "globals().update(stop=True)"
        self.ask("evaluate", expression=code, frameId=frame, context="repl")


@pytest.fixture
def debugged(tmp_path):
    """A program to stop in line 7."""
    file = tmp_path / "debugged.py"
    file.write_text(
        textwrap.dedent(
            """
            import asyncio
            async def main():
                value = 0
                while value < 1_000_000:
                    value += 1
                    await asyncio.sleep(0.001)  # line 7
                    if value > 5 and stop:
                        return
            stop = False
            print("runs", flush=True)
            asyncio.run(main())
            print("ended", flush=True)
            """
        )
    )
    return file


QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def test_debugpy(program, loop_name, debugged):
    """A debugger attaches to a running loop, stops in a coroutine, reads a variable."""
    port = free_port()
    options = ["-m", "fastloop"] if loop_name == "fastloop" else []
    ran = program(
        *options, "-m", "debugpy", "--listen", f"127.0.0.1:{port}",
        "--wait-for-client", str(debugged), redirect=False, env=QUIET,
    )  # fmt: skip
    with Debugger(ran, port) as debugger:
        debugger.attach(debugged, 7)
        for expected in (1, 2):
            thread, frame = debugger.stopped()
            assert debugger.value(frame) == expected
            if expected == 2:
                debugger.end(debugged, frame)
            debugger.ask("continue", threadId=thread)
    assert "ended" in ran.wait()


def inject(pid, port):
    """Have debugpy enter a process that does not expect it; skip where that cannot be."""
    options = ["--listen", f"127.0.0.1:{port}", "--pid", str(pid)]
    command = [sys.executable, "-m", "debugpy", *options]
    done = subprocess.run(
        command, env={**os.environ, **QUIET}, capture_output=True, text=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    if "ermission" in done.stdout + done.stderr:
        pytest.skip("a process may not change another here")
    return done


def need_calling_gdb():
    """Before Python 3.14, debugpy has gdb call a function in the process."""
    if hasattr(sys, "remote_exec"):
        return
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("debugpy attaches by gdb, which is not installed")
    code = "print('runs', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        done = subprocess.run(
            [gdb, "--batch", "-nx", "--pid", str(process.pid),
             "--eval-command", "call (int)getpid()"],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        process.kill()
    if f"= {process.pid}" not in done.stdout:
        pytest.skip("gdb cannot call a function in a process here")


def test_debugpy_attaches_by_pid(program, debugged):
    """Its code is run in a loop that knows nothing of it, and the loop goes on."""
    need_calling_gdb()
    ran = program(str(debugged), env=QUIET)
    ran.until("runs")
    port = free_port()
    injected = inject(ran.process.pid, port)
    assert injected.returncode == 0, injected.stderr
    with Debugger(ran, port) as debugger:
        debugger.attach(debugged, 7)
        thread, frame = debugger.stopped()
        assert debugger.value(frame) > 0
        debugger.end(debugged, frame)
        debugger.ask("continue", threadId=thread)
    assert "ended" in ran.wait()


def test_py_spy(program, loop_name, tmp_path):
    spy = shutil.which("py-spy", path=os.path.dirname(sys.executable))
    assert spy is not None
    file = tmp_path / "spied.py"
    file.write_text(
        "import asyncio\n"
        "async def in_the_coroutine():\n"
        "    await asyncio.sleep(0)\n"
        "    print('runs', flush=True)\n"
        "    while True: await asyncio.sleep(0); sum(range(10000))\n"
        "asyncio.run(in_the_coroutine())\n"
    )
    ran = program(str(file))
    ran.until("runs")
    deadline = time.monotonic() + TIMEOUT
    while True:
        done = subprocess.run(
            [spy, "dump", "--pid", str(ran.process.pid)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        if "Permission" in done.stderr:
            pytest.skip("py-spy may not look into processes here")
        if "in_the_coroutine" in done.stdout or time.monotonic() > deadline:
            break
    assert "in_the_coroutine" in done.stdout, done.stderr
    assert "run_forever" in done.stdout


def test_py_spy_records(program, tmp_path):
    """A profile of a loop that mostly waits, with the waiting in it."""
    spy = shutil.which("py-spy", path=os.path.dirname(sys.executable))
    assert spy is not None
    file = tmp_path / "spied.py"
    file.write_text(
        "import asyncio, time\n"
        "def busy():\n"
        "    end = time.monotonic() + 0.05\n"
        "    while time.monotonic() < end: pass\n"
        "async def main():\n"
        "    print('runs', flush=True)\n"
        "    while True:\n"
        "        await asyncio.sleep(0.01)\n"
        "        busy()\n"
        "asyncio.run(main())\n"
    )
    ran = program(str(file))
    ran.until("runs")
    out = tmp_path / "profile.txt"
    command = [spy, "record", "--pid", str(ran.process.pid), "--duration", "1"]
    command += ["--idle", "--format", "raw", "--output", str(out)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if "Permission" in done.stderr:
        pytest.skip("py-spy may not look into processes here")
    assert done.returncode == 0, done.stderr
    assert "busy" in out.read_text()
