"""Certificates for the tests of TLS: trustme's, or where that cannot be had, as on a
Python without a GIL, some of the same made by the openssl command.
"""

import ipaddress
import pathlib
import shutil
import ssl
import subprocess
import tempfile

import pytest

CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
O = fastloop
CN = {common}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def new_authority():
    """Return a trustme.CA, or what stands for it; skip the test where neither is."""
    try:
        import trustme
    except ImportError:
        if shutil.which("openssl") is None:
            pytest.skip("neither trustme nor the openssl command is installed")
        return Authority()
    return trustme.CA()


class Blob:
    def __init__(self, content):
        self.content = content

    def bytes(self):
        return self.content

    def write_to_path(self, path):
        pathlib.Path(path).write_bytes(self.content)


class Leaf:
    def __init__(self, content):
        self.private_key_and_cert_chain_pem = Blob(content)

    def configure_cert(self, context):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "leaf.pem")
            self.private_key_and_cert_chain_pem.write_to_path(path)
            context.load_cert_chain(path)


class Authority:
    """What the tests use of trustme.CA."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            make(folder, "authority", "authority", "DNS:none")
            self.key = pathlib.Path(folder, "authority.key").read_bytes()
            self.cert_pem = Blob(pathlib.Path(folder, "authority.pem").read_bytes())

    def configure_trust(self, context: ssl.SSLContext):
        context.load_verify_locations(cadata=self.cert_pem.bytes().decode())

    def issue_cert(self, *names):
        with tempfile.TemporaryDirectory() as folder:
            self.cert_pem.write_to_path(pathlib.Path(folder, "ca.pem"))
            pathlib.Path(folder, "ca.key").write_bytes(self.key)
            signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
            make(folder, "leaf", names[0], ", ".join(map(alternative, names)), signed)
            parts = [pathlib.Path(folder, f"leaf.{what}") for what in ("key", "pem")]
            return Leaf(b"".join(part.read_bytes() for part in parts))


def alternative(name):
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def make(folder, kind, common, names, signed=None):
    """Make kind.key and kind.pem in a folder; signed by itself without more words."""
    config = pathlib.Path(folder, "openssl.cnf")
    config.write_text(CONFIG.format(common=common, names=names))
    key, request, pem = f"{kind}.key", f"{kind}.csr", f"{kind}.pem"
    signed = signed or ["-signkey", key]
    curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    new = ["-config", config, "-newkey", "ec", *curve, "-nodes"]
    extensions = ["-extfile", config, "-extensions", kind]
    ends = ["-days", "2", "-sha256"]
    for words in (
        ["req", *new, "-keyout", key, "-out", request],
        ["x509", "-req", "-in", request, *signed, *extensions, *ends, "-out", pem],
    ):
        subprocess.run(
            ["openssl", *words],
            cwd=folder,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
