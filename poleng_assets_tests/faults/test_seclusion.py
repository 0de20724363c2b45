"""Nothing leaves the machine, and no pickle is loaded; and the watch would notice if it were otherwise."""

import os
import sys
from pathlib import Path

import pytest

from poleng_assets_tests.end_to_end.conftest import POLENG
from poleng_assets_tests.faults.quick_study import write_quick_study
from poleng_assets_tests.faults.seclusion import cannot_seclude, run_secluded

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _a_namespace() -> None:
    if why := cannot_seclude():
        pytest.skip(f"no network namespace can be made here: {why}")


def test_a_whole_scenario_sends_nothing_and_loads_no_pickle(tmp_path: Path):
    """``make test-faults`` does the same with the whole demo."""
    seen = run_secluded(
        [POLENG, "simulate", "clean", "--home", tmp_path / "home"],
        tmp_path / "watched",
        POLENG_STUDY=str(write_quick_study(tmp_path / "quick.yaml")),
        POLENG_NOTIFY="",
    )
    assert seen.exit_code == 0, seen.output
    assert (seen.no_routes, seen.sent, seen.reached_for, seen.unpickled) == (0, 0, (), ())
    assert seen.secluded


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
