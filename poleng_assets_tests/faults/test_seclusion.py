"""The watch that nothing leaves the machine, and no pickle is loaded, would notice if it were otherwise.

It watches in end_to_end/test_command_line.py, and the whole demo in ``make test-faults``.
"""

import os
import sys
from pathlib import Path

import pytest

from poleng_assets_tests.faults.seclusion import cannot_seclude, run_secluded

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _a_namespace() -> None:
    if why := cannot_seclude():
        pytest.skip(f"no network namespace can be made here: {why}")


ATTEMPTS = {
    "no_routes": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('10.1.2.3', 53))",
    "reached_for": "import urllib.request; urllib.request.urlopen('http://example.org')",
    "unpickled": "import collections, pickle; pickle.loads(pickle.dumps(collections.Counter()))",
    "exit_code": "raise SystemExit(3)",
}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_an_attempt_is_noticed(tmp_path: Path, what: str):
    code = f"try:\n    {ATTEMPTS[what]}\nexcept OSError:\n    pass"
    seen = run_secluded([sys.executable, "-c", code], tmp_path / "watched")
    assert getattr(seen, what)
    assert not seen.secluded
    assert os.environ.get("POLENG_WATCHED") is None
