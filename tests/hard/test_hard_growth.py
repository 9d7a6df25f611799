"""Nothing grows by an operation, whoever does it again and again: see growth.py."""

import json
import pathlib
import sysconfig

import pytest
from conftest import run_python

pytest.importorskip("_testcapi", reason="this Python was built without its test module")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip("counts are approximate without a GIL", allow_module_level=True)

SCRIPT = pathlib.Path(__file__).parent / "growth.py"


@pytest.mark.timeout(600)
def test_no_operation_leaves_anything():
    result = run_python(str(SCRIPT), "fastloop", timeout=500)
    assert json.loads(result.stdout.splitlines()[-1]) == {}
