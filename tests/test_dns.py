"""getaddrinfo and getnameinfo: results and errors are those of the socket module."""

import asyncio
import itertools
import logging
import socket
import threading

import pytest
from iosupport import Recorder, capture, settle, turns

# Nothing here may need a name server: what is no literal is in the hosts file.
HOSTS = [
    "127.0.0.1",
    b"127.0.0.1",
    "::1",
    "fe80::1%lo",
    "localhost",
    "",
    None,
    "127.1",
    "0x7f.1",
    "::ffff:1.2.3.4",
]
PORTS = [0, 80, "80", b"80", "http", b"http", None, "", 65536, -1, "no-such-service"]
FAMILIES = [0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
TYPES = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]
PROTOS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP]
FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_NUMERICHOST,
    socket.AI_CANONNAME,
    socket.AI_NUMERICSERV,
]


def outcome(call, *args):
    try:
        return call(*args)
    except Exception as exc:
        return type(exc), exc.args


async def outcome_of(awaitable):
    try:
        return await awaitable
    except Exception as exc:
        return type(exc), exc.args


def differences(loop, cases):
    async def main():
        different = []
        for host, port, family, type_, proto, flags in cases:
            expected = outcome(
                socket.getaddrinfo, host, port, family, type_, proto, flags
            )
            got = await outcome_of(
                loop.getaddrinfo(
                    host, port, family=family, type=type_, proto=proto, flags=flags
                )
            )
            if got != expected:
                different.append(
                    ((host, port, family, type_, proto, flags), got, expected)
                )
        return different

    return main()


def test_hosts_and_ports(loop, run):
    cases = [
        (host, port, 0, type_, 0, 0)
        for host, port, type_ in itertools.product(HOSTS, PORTS, TYPES[:2])
    ]
    assert run(differences(loop, cases)) == []


def test_families_types_protocols_and_flags(loop, run):
    hosts = ["127.0.0.1", "::1", "localhost", None]
    cases = [
        case
        for case in itertools.product(hosts, [80], FAMILIES, TYPES, PROTOS, FLAGS)
        if case[0] != "localhost" or case[2] != socket.AF_INET6
    ]
    assert run(differences(loop, cases)) == []


def test_flags_with_odd_ports(loop, run):
    hosts = ["127.0.0.1", "::1", "localhost", "", None]
    cases = itertools.product(
        hosts,
        ["http", "80", "", None, b"80"],
        [0, socket.AF_INET],
        [0, socket.SOCK_STREAM],
        [0],
        FLAGS,
    )
    assert run(differences(loop, cases)) == []


def test_scopes(loop, run):
    hosts = [
        "fe80::1%lo",
        "fe80::1%1",
        "fe80::1%99999",
        "fe80::1%nowhere",
        "::1%lo",
        "127.0.0.1%lo",
    ]
    cases = itertools.product(
        hosts,
        [80],
        [0, socket.AF_INET6],
        [0, socket.SOCK_STREAM],
        [0],
        [0, socket.AI_NUMERICHOST],
    )
    assert run(differences(loop, cases)) == []


# Literals

LITERALS = [
    "127.0.0.1",
    b"127.0.0.1",
    "127.1",
    "0x7f.1",
    "017700000001",
    "2130706433",
    "::1",
    b"::1",
    "::ffff:1.2.3.4",
    "fe80::1%lo",
    b"fe80::1%1",
    "fe80::1%nowhere",
    "ff02::1%99999",
    "::1%lo",
    "::%",
    None,
    "0" * 70 + "1.1",  # a label that IDNA finds too long
]
OTHERS = [
    "",
    "127.0.0.1 ",
    "127.0.0.1.",
    "1.2.3.4.5",
    "256.1.1.1",
    "1.2.3.0x",
    "x",
    "dead.beef",
    "::1::",
    ":",
    "[::1]",
    "127.0.0.1%lo",
    "::1\0",
    "127.0.0.1\0",
    b"::1\0",
    "\uff11\uff12\uff17.0.0.1",
    "::\u0661",
]
LITERAL_FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_CANONNAME,
    socket.AI_NUMERICSERV,
    socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    socket.AI_V4MAPPED | socket.AI_ALL,
    socket.AI_ADDRCONFIG,
    1 << 30,
    -1,
]


@pytest.fixture
def no_threads(loop, loop_name, monkeypatch):
    """fastloop uses no executor; asyncio always does."""
    if loop_name == "fastloop":

        def run_in_executor(*args):
            raise AssertionError(f"run_in_executor{args}")

        monkeypatch.setattr(loop, "run_in_executor", run_in_executor, raising=False)


@pytest.mark.usefixtures("no_threads")
def test_literals_need_no_thread(loop, run):
    cases = itertools.product(
        LITERALS, [80, "80", b"80", None], FAMILIES, TYPES[:3], [0, 17], LITERAL_FLAGS
    )
    assert run(differences(loop, cases)) == []


@pytest.mark.usefixtures("no_threads")
def test_numeric_flags_need_no_thread(loop, run):
    hosts = [host for host in OTHERS if isinstance(host, bytes) or host.isascii()]
    flags = socket.AI_NUMERICHOST
    cases = itertools.product(
        hosts, [80, "80"], FAMILIES[:3], TYPES[:2], [0], [flags, flags | 1]
    )
    assert run(differences(loop, cases)) == []


def test_what_is_nearly_a_literal(loop, run):
    flags = socket.AI_NUMERICHOST
    cases = itertools.product(OTHERS, [80, " 80", "+80", "8x"], [0], [1], [0], [flags])
    assert run(differences(loop, cases)) == []


@pytest.mark.parametrize(
    ("host", "port"),
    [*((host, 80) for host in OTHERS), ("127.0.0.1", "http"), ("127.0.0.1", " 80")],
    ids=repr,
)
def test_what_may_have_to_be_looked_up_runs_in_a_thread(
    loop, run, monkeypatch, host, port
):
    asked = []

    def run_in_executor(executor, func, *args):
        asked.append(args)
        future = loop.create_future()
        future.set_result("found")
        return future

    monkeypatch.setattr(loop, "run_in_executor", run_in_executor, raising=False)

    async def main():
        assert await loop.getaddrinfo(host, port, type=1) == "found"

    run(main())
    assert asked == [(host, port, 0, 1, 0, 0)]


def test_replaced_function_of_the_socket_module_runs_in_a_thread(
    loop, run, monkeypatch
):
    threads = []

    def spy(*args):
        threads.append(threading.current_thread())

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    monkeypatch.setattr(socket, "getnameinfo", spy)

    async def main():
        await loop.getaddrinfo("127.0.0.1", 80)
        await loop.getnameinfo(("127.0.0.1", 80), NUMERIC)

    run(main())
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_literals_on_a_closed_loop(loop_factory):
    loop = loop_factory()
    loop.close()
    for look_up in (
        loop.getaddrinfo("127.0.0.1", 80),
        loop.getnameinfo(("127.0.0.1", 80), NUMERIC),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            look_up.send(None)


def test_debug_mode_tells_of_literals(loop, run, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 60

    async def main():
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main())
    messages = [record.getMessage() for record in caplog.records]
    start = f"127.0.0.1:80, type={socket.SOCK_STREAM!r}"
    assert f"Get address info {start}" in messages
    assert any(
        message.startswith(f"Getting address info {start} took ")
        for message in messages
    )


def test_kinds_of_results(loop, run):
    async def main():
        (family, type_, proto, name, address), *_ = await loop.getaddrinfo(
            "127.0.0.1", 80, type=socket.SOCK_STREAM
        )
        assert isinstance(family, socket.AddressFamily)
        assert isinstance(type_, socket.SocketKind)
        assert (proto, name, address) == (socket.IPPROTO_TCP, "", ("127.0.0.1", 80))

    run(main())


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("127.0.0.1",), {}),
        (("127.0.0.1", 80, 0), {}),
        (("127.0.0.1", 80), {"nonsense": 1}),
    ],
    ids=repr,
)
def test_wrong_signature(loop, run, args, kwargs):
    async def main():
        with pytest.raises(TypeError):
            await loop.getaddrinfo(*args, **kwargs)

    run(main())


def test_wrong_types(loop, run):
    cases = [
        (17, 80, 0, 0, 0, 0),
        ("127.0.0.1", [], 0, 0, 0, 0),
        ("127.0.0.1", 1.5, 0, 0, 0, 0),
        ("127.0.0.1", 80, "inet", 0, 0, 0),
        ("127.0.0.1", 80, 0, None, 0, 0),
        ("127.0.0.1", 1 << 70, 0, 0, 0, 0),
        ("127.0.0.1", 80, 1 << 70, 0, 0, 0),
    ]
    assert run(differences(loop, cases)) == []


def test_names_that_are_not_encodable(loop, run):
    flag = socket.AI_NUMERICHOST
    cases = [
        (host, 80, 0, 0, 0, flag)
        for host in [
            "256.1.1.1",
            "a\0b",
            "x" * 64 + ".invalid",
            "exa mple",
            "\udcff",
            "☃.invalid.",
            "a..b",
        ]
    ]
    assert run(differences(loop, cases)) == []


def test_unknown_name(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo(
                "no-such-host.invalid", 80, flags=socket.AI_NUMERICHOST
            )

    run(main())


def test_many_at_once(loop, run):
    async def main():
        results = await asyncio.gather(
            *(loop.getaddrinfo("localhost", port) for port in range(1, 101))
        )
        assert [result[0][4][1] for result in results] == list(range(1, 101))

    run(main())


def test_loop_runs_while_a_look_up_waits(loop, run, monkeypatch):
    release = threading.Event()
    real = socket.getaddrinfo

    def slow(host, *args, **kwargs):
        assert release.wait(30)
        return real("127.0.0.1", *args[:1])

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main():
        task = asyncio.create_task(loop.getaddrinfo("slow.invalid", 80))
        await asyncio.sleep(0.01)
        assert not task.done()
        release.set()
        assert (await task)[0][4] == ("127.0.0.1", 80)

    run(main())


def test_cancelled_look_up(loop, run, monkeypatch):
    contexts = capture(loop)
    release = threading.Event()

    def slow(*args, **kwargs):
        assert release.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "nobody waits for this")

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main():
        task = asyncio.create_task(loop.getaddrinfo("slow.invalid", 80))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        await loop.shutdown_default_executor()
        await turns()

    run(main())
    assert contexts == []


def test_debug_mode_tells_of_look_ups(loop, run, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 60

    async def main():
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        message.startswith("Get address info localhost:80, type=")
        for message in messages
    )
    assert any(
        message.startswith("Getting address info localhost:80, type=")
        for message in messages
    )


@pytest.mark.parametrize(
    "name", ["create_connection", "open_connection", "create_server", "datagram"]
)
def test_names_go_through_the_overridable_method(loop, run, name):
    asked = []

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        asked.append(host)
        return [(socket.AF_INET, type, 0, "", ("127.0.0.1", port))]

    loop.getaddrinfo = getaddrinfo

    async def main():
        async with await loop.create_server(Recorder, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            if name == "create_connection":
                transport, protocol = await loop.create_connection(
                    Recorder, "some.name.invalid", port
                )
                transport.close()
                await protocol.lost
            elif name == "open_connection":
                _, writer = await asyncio.open_connection("some.name.invalid", port)
                writer.close()
                await writer.wait_closed()
            elif name == "create_server":
                async with await loop.create_server(Recorder, "some.name.invalid", 0):
                    pass
            else:
                transport, protocol = await loop.create_datagram_endpoint(
                    Recorder, remote_addr=("some.name.invalid", port)
                )
                transport.close()
                await protocol.lost
        await settle()

    run(main())
    assert asked == ["some.name.invalid"]


# getnameinfo

SOCKADDRS = [
    ("127.0.0.1", 80),
    ("127.0.0.1", 65535),
    ("::1", 80),
    ("::1", 80, 0, 0),
    ("192.0.2.1", 9),
    ("no-such-host.invalid", 80),
    ("localhost", 80),
    ("127.0.0.1", 70000),
    ("127.0.0.1",),
    ("127.0.0.1", "80"),
    "127.0.0.1",
    None,
    (),
]
NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


@pytest.mark.parametrize("sockaddr", SOCKADDRS, ids=repr)
@pytest.mark.parametrize(
    "flags", [NUMERIC, socket.NI_NUMERICHOST, NUMERIC | socket.NI_DGRAM]
)
def test_getnameinfo(loop, run, sockaddr, flags):
    async def main():
        expected = outcome(socket.getnameinfo, sockaddr, flags)
        assert await outcome_of(loop.getnameinfo(sockaddr, flags)) == expected

    run(main())


def test_getnameinfo_without_flags(loop, run):
    async def main():
        assert await loop.getnameinfo(("127.0.0.1", 80)) == socket.getnameinfo(
            ("127.0.0.1", 80), 0
        )

    run(main())


def test_look_ups_are_coroutines(loop, run):
    async def main():
        first = asyncio.create_task(loop.getaddrinfo("127.0.0.1", 80))
        second = asyncio.create_task(loop.getnameinfo(("127.0.0.1", 80), NUMERIC))
        assert (await first)[0][4] == ("127.0.0.1", 80)
        assert await second == ("127.0.0.1", "80")
        assert (await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 10))[0][
            4
        ] == ("127.0.0.1", 80)

    run(main())


def test_flags_that_are_no_number(loop, run):
    with pytest.raises(TypeError):
        run(loop.getaddrinfo("127.0.0.1", 80, flags="none"))
