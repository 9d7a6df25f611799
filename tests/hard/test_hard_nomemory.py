"""Each allocation of each operation fails in turn: see nomemory.py."""

import json
import pathlib
import sysconfig

import pytest
from conftest import run_python

from .conftest import SCALE

pytest.importorskip("_testcapi", reason="this Python was built without its test module")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip(
        "set_nomemory() is not for a Python without a GIL", allow_module_level=True
    )

SCRIPT = pathlib.Path(__file__).parent / "nomemory.py"
SHORT = {
    "accept": 5,
    "call_soon_threadsafe": 3,
    "child_exits": 1,
    "close_transport": 1,
    "connect_audited": 1,
    "peer_closes": 1,
    "pipe_read": 1,
    "raising_callback": 1,
    "read": 1,
    "run_forever": 1,
    "run_once": 1,
    "sock": 5,
    "sock_recv": 1,
    "row_bytearray": 3,
    "tls": 29,
    "tls_row_stalls": 9,
    "udp": 7,
    "write": 3,
}
"""The operations of the short form, and their strides."""

ALL = """
create_loop close_loop call_soon call_soon_run call_later call_at_debug
call_soon_threadsafe run_forever run_once run_until_complete raising_callback tasks signals
connect connect_audited connect_name serve accept accept_buffered read read_large peer_closes
close_transport abort_transport abort_full_transport write writelines
write_large_bytearray row row_stalls row_bytearray streams tls tls_row tls_row_stalls
tls_row_bytearray start_tls udp unix pipes pipe_read process child_exits
executor resolve sock sock_recv sock_recv_large sock_datagrams add_reader sendfile
extra_info asyncgens runner
"""


@pytest.mark.parametrize("operation", ALL.split() if SCALE else SHORT)
def test_allocations_fail_one_after_the_other(operation):
    """Never a crash, a hang, a descriptor left, or a loop that does not go on."""
    options = ["1"] if SCALE else [str(SHORT[operation]), "1"]
    result = run_python(
        "-W",
        "ignore",
        str(SCRIPT),
        "fastloop",
        operation,
        *options,
        timeout=3000 if SCALE else 110,
    )
    told = json.loads(result.stdout.splitlines()[-1])
    print(told["steps"], "steps,", told["failures"], "with an error")
    assert told["failures"] > 0
    assert told["problems"] == {}
