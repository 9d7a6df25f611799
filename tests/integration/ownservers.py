"""Servers of the tests' own, in folders of their own, that may be stopped and started.

The shared servers stay up for all tests; what has to see one go, or asks for TLS, starts
one of these. As root they run as the users whom their packages made.
"""

import contextlib
import glob
import os
import pathlib
import pwd
import random
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from conftest import TIMEOUT


def free_port():
    """A port below those that connections get, so it is free again for a restart."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


def keep_port():
    """A socket that keeps a free port from everybody who does not name it.

    Servers may listen there, for they say SO_REUSEADDR, and this one does not listen.
    """
    while True:
        sock = socket.socket()
        with contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return sock
        sock.close()


class Absent(Exception):
    """The server's program is not on this machine."""


def find(name, *folders):
    """Return the path of a server's program; folders may have wildcards."""
    places = [place for folder in folders for place in sorted(glob.glob(folder))[::-1]]
    path = os.pathsep.join(
        [os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", *places]
    )
    found = shutil.which(name, path=path)
    if found is None:
        raise Absent(f"the program {name} is not installed")
    return found


class OwnServer:
    """Started when made; ``with`` ends it. port, and tls_port where it has another."""

    user: str | None = None
    """Who runs it where the tests run as root."""

    end = signal.SIGTERM
    """What ends it without waiting for its clients."""

    def __init__(self, certificates):
        self._files = contextlib.ExitStack()
        folder = tempfile.TemporaryDirectory(
            prefix=f"{type(self).__name__}-", ignore_cleanup_errors=True
        )
        self.folder = pathlib.Path(self._files.enter_context(folder))
        self.identity = {}
        if os.geteuid() == 0 and self.user is not None:
            entry = pwd.getpwnam(self.user)
            self.identity = {
                "user": entry.pw_uid,
                "group": entry.pw_gid,
                "extra_groups": [],
            }
        self.key = self.folder / "key.pem"
        self.chain = self.folder / "chain.pem"
        self.authority = self.folder / "authority.pem"
        certificates.certificate.private_key_pem.write_to_path(self.key)
        certificates.certificate.cert_chain_pems[0].write_to_path(self.chain)
        certificates.authority.cert_pem.write_to_path(self.authority)
        self.key.chmod(0o600)
        if self.identity:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        self.process = None
        self.port, self.tls_port = (
            self._files.enter_context(keep_port()).getsockname()[1] for _ in range(2)
        )
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        """What is done once, before the first start."""

    def command(self):
        raise NotImplementedError

    def call(self, *command):
        assert self.spawn(command).wait() == 0, self.told()

    def spawn(self, command):
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.identity,
            )

    def told(self):
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def start(self):
        self.process = self.spawn(self.command())
        deadline = time.monotonic() + TIMEOUT
        while not self.answers():
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.01)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self, sig=None):
        self.process.send_signal(self.end if sig is None else sig)
        self.process.wait(TIMEOUT)

    def kill(self):
        self.stop(signal.SIGKILL)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._files.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class Redis(OwnServer):
    def command(self):
        return [
            *(find("redis-server"), "--bind", "127.0.0.1", "--save", ""),
            *("--port", str(self.port), "--tls-port", str(self.tls_port)),
            *("--tls-cert-file", self.chain, "--tls-key-file", self.key),
            *("--tls-ca-cert-file", self.authority, "--tls-auth-clients", "no"),
            *("--unixsocket", self.folder / "sock"),
        ]


class Nats(OwnServer):
    secure = False

    def command(self):
        command = [find("nats-server"), "-a", "127.0.0.1", "-p", str(self.port)]
        command += ["-js", "-sd", self.folder / "jetstream"]
        if self.secure:
            command += ["--tls", "--tlscert", self.chain, "--tlskey", self.key]
        return command


class SecureNats(Nats):
    secure = True


class Mosquitto(OwnServer):
    def prepare(self):
        user = "user root\n" if os.geteuid() == 0 else ""
        (self.folder / "conf").write_text(
            f"{user}allow_anonymous true\n"
            f"listener {self.port} 127.0.0.1\n"
            f"listener {self.tls_port} 127.0.0.1\n"
            f"certfile {self.chain}\nkeyfile {self.key}\n"
        )

    def command(self):
        return [find("mosquitto"), "-c", self.folder / "conf"]


class Postgres(OwnServer):
    user = "postgres"
    end = signal.SIGINT
    programs = "/usr/lib/postgresql/*/bin"

    def prepare(self):
        self.call(
            *(find("initdb", self.programs), "-D", self.folder / "data", "-U"),
            *("postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
        )

    def command(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": self.chain,
            "ssl_key_file": self.key,
        }
        command = [find("postgres", self.programs), "-D", self.folder / "data"]
        command += ["-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def answers(self):
        # It listens before it lets anybody in.
        command = [find("pg_isready", self.programs), "-q", "-h", "127.0.0.1"]
        return subprocess.call([*command, "-p", str(self.port)]) == 0

    @property
    def url(self):
        return f"postgresql://postgres@localhost:{self.port}/postgres"


class MariaDB(OwnServer):
    user = "mysql"
    end = signal.SIGTERM

    def prepare(self):
        self.call(
            *(find("mariadb-install-db"), "--no-defaults", "--skip-test-db"),
            *(f"--datadir={self.folder / 'data'}",),
            "--auth-root-authentication-method=normal",
        )

    def command(self):
        return [
            *(find("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *(f"--socket={self.folder / 'sock'}", "--innodb-flush-method=nosync"),
            *(f"--ssl-cert={self.chain}", f"--ssl-key={self.key}"),
        ]


class Relay:
    """Stands before a server that cannot be stopped: stop() cuts all its clients off."""

    def __init__(self, address):
        self._address = address
        self._thread = None
        self._kept = keep_port()
        self.port = self._kept.getsockname()[1]
        self.start()

    def start(self):
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=50)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        self._wake.close()
        self._thread.join(TIMEOUT)
        self._thread = None

    def _run(self):
        others = {}

        def drop(sock):
            for end in (sock, others.pop(sock)):
                others.pop(end, None)
                selector.unregister(end)
                end.close()

        with selectors.DefaultSelector() as selector, self._listener, self._woken:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    if sock is self._woken:
                        for end in others:
                            end.close()
                        return
                    if sock is self._listener:
                        ends = (
                            sock.accept()[0],
                            socket.create_connection(self._address),
                        )
                        others[ends[0]], others[ends[1]] = ends[::-1]
                        for end in ends:
                            selector.register(end, selectors.EVENT_READ)
                    elif sock in others:
                        try:
                            data = sock.recv(65536)
                            others[sock].sendall(data)
                        except OSError:
                            data = b""
                        if not data:
                            drop(sock)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self._thread is not None:
            self.stop()
        self._kept.close()
