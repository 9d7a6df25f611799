"""Connections that are lost while there is no memory to schedule connection_lost()."""

import pytest
from tlssupport import Certificates

pytest.importorskip("_testcapi", reason="this Python was built without its test module")

PRELUDE = """
import _testcapi, gc, socket, sysconfig, weakref

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("without a GIL there is no set_nomemory()")
    raise SystemExit

class no_memory_from:
    def __init__(self, loop, number):
        self.loop = loop
        self.number = number

    def __enter__(self):
        for _ in range(5000):  # room in the queue for more than the spare handles
            self.loop.call_soon(nothing)
        _testcapi.set_nomemory(0)
        try:
            while True:  # until no spare handle is left
                self.loop.call_soon(nothing)
        except MemoryError:
            pass
        _testcapi.set_nomemory(self.number, self.number + 50)

    def __exit__(self, cls, exc, tb):
        _testcapi.remove_mem_hooks()
        if cls is MemoryError:
            raised.append(self.number)
            return True

def nothing():
    pass

raised = []
"""

pytestmark = pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
"""asyncio's transport stays for ever: its next close() believes that all is done."""


@pytest.mark.parametrize("ends", ["close", "abort"])
def test_connection_lost_is_called_when_memory_is_back(run_script, ends):
    result = run_script(
        PRELUDE
        + f"""
class Protocol(asyncio.Protocol):
    def connection_lost(self, exc):
        lost.append(type(exc))

async def main():
    loop = asyncio.get_running_loop()
    for number in range(20):
        ours, peer = socket.socketpair()
        with peer:
            transport, _ = await loop.create_connection(Protocol, sock=ours)
            with no_memory_from(loop, number):
                transport.{ends}()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert transport.is_closing() or number == 0
            transport.abort()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(lost) == number + 1, (number, lost)

lost = []
run(main())
assert MemoryError in lost, lost
assert lost.count(MemoryError) <= len(raised)
print("done")
"""
    )
    assert result.stdout in ("done\n", "without a GIL there is no set_nomemory()\n")


def test_over_tls(run_script, tmp_path):
    """Nothing but the program's protocol is told late."""
    certificates = Certificates()
    chain = certificates.certificate.private_key_and_cert_chain_pem
    chain.write_to_path(tmp_path / "chain")
    certificates.authority.cert_pem.write_to_path(tmp_path / "authority")
    result = run_script(
        PRELUDE
        + """
import ssl

class Protocol(asyncio.Protocol):
    def connection_lost(self, exc):
        lost.append(type(exc))

async def connect(loop, server, client):
    ours, theirs = socket.socketpair()
    (transport, _), (other, _) = await asyncio.gather(
        loop.create_connection(
            Protocol, sock=ours, ssl=client, server_hostname="localhost"
        ),
        loop.connect_accepted_socket(asyncio.Protocol, theirs, ssl=server),
    )
    return transport, other

async def main():
    loop = asyncio.get_running_loop()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(sys.argv[1] + "/chain")
    client = ssl.create_default_context(cafile=sys.argv[1] + "/authority")
    for number in range(20):
        transport, other = await connect(loop, server, client)
        below = transport._transport
        with no_memory_from(loop, number):
            transport.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(lost) == number + 1, (number, lost)
        assert transport.get_protocol() is None
        below.abort()
        other.abort()
        await asyncio.sleep(0)

lost = []
run(main())
assert MemoryError in lost, lost
assert lost.count(MemoryError) <= len(raised)
print("done")
""",
        args=[str(tmp_path)],
    )
    assert result.stdout in ("done\n", "without a GIL there is no set_nomemory()\n")


def test_closing_the_loop_lets_them_go(run_script):
    result = run_script(
        PRELUDE
        + """
loop = new_event_loop()
peers, references = [], []
for number in range(20):
    ours, peer = socket.socketpair()
    peers.append(peer)
    transport, _ = loop.run_until_complete(
        loop.create_connection(asyncio.Protocol, sock=ours)
    )
    references.append(weakref.ref(transport))
    with no_memory_from(loop, number):
        transport.abort()
loop.close()
assert raised
del transport, loop, ours
gc.collect()
assert [peer.recv(1) for peer in peers] == [b""] * 20
assert {reference() for reference in references} == {None}
print("done")
""",
        options=("-W", "ignore"),
    )
    assert result.stdout in ("done\n", "without a GIL there is no set_nomemory()\n")


def test_a_turn_within_the_next_try(run_script):
    result = run_script(
        """
        import socket, traceback

        class Protocol(asyncio.Protocol):
            def connection_lost(self, exc):
                print("lost")

        def walk_stack(frame, original=traceback.walk_stack):
            "In debug mode, whatever is scheduled asks who is calling."
            calls.append(asyncio.current_task())
            if len(calls) == 1:
                raise MemoryError
            if calls[-1] is None and calls.count(None) == 1:
                asyncio.get_running_loop().run_once(0)
            return original(frame)

        async def main():
            asyncio.get_running_loop().set_debug(True)
            ours, peer = socket.socketpair()
            transport, _ = await asyncio.get_running_loop().create_connection(
                Protocol, sock=ours
            )
            traceback.walk_stack = walk_stack
            try:
                transport.abort()
            except MemoryError:
                print("no memory")
            for _ in range(5):
                await asyncio.sleep(0)
            traceback.walk_stack = walk_stack.__defaults__[0]
            print(None in calls, transport.is_closing(), peer.recv(1))
            peer.close()

        calls = []
        run(main())
        """
    )
    assert result.stdout == "no memory\nlost\nTrue True b''\n"
    assert result.stderr == ""
