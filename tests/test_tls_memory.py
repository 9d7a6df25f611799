"""What idle TLS connections cost, and what many of them leave behind."""

import resource

import pytest
from conftest import run_script
from tlssupport import Certificates

IDLE = """
import gc, resource, ssl, subprocess
CLIENTS = '''
import resource, socket, ssl, sys
port, count = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
socks = []
for _ in range(count):
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    sock.sendall(bytes(1024))
    left = 1024
    while left:
        left -= len(sock.recv(left))
    socks.append(sock)
print("ready", flush=True)
sys.stdin.read()
'''
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

async def main():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context, backlog=1000)
    port = server.sockets[0].getsockname()[1]

    async def connect(count):
        process = await loop.run_in_executor(None, lambda: subprocess.Popen(
            [sys.executable, "-c", CLIENTS, str(port), str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        line = await loop.run_in_executor(None, process.stdout.readline)
        assert line == b"ready\\n", line
        return process

    first = await connect(50)
    before = resident()
    second = await connect(1000)
    print((resident() - before) // 1000)
    for process in first, second:
        process.communicate()
    server.close()
run(main())
"""


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "server.pem"
    chain = Certificates().certificate.private_key_and_cert_chain_pem
    path.write_bytes(chain.bytes())
    return path


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1200, reason="too few descriptors"
)
def test_idle_connections(certificate):
    """40 KiB each, ours and OpenSSL's together, after an echo of 1 KiB."""
    done = run_script(IDLE, "fastloop", args=[str(certificate)])
    assert 1024 < int(done.stdout) < 40 * 1024
