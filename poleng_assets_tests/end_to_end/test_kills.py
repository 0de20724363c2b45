"""A retraining is killed at random moments: nothing is lost, and the next one finishes its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from poleng_assets.home import CHECKOUT

pytestmark = pytest.mark.slow
KILLS = 2
SEED = "25"  # one of the moments falls into tuning, one near the end


def test_a_killed_retraining_loses_nothing(small_survey: Path):
    process = subprocess.Popen(
        [
            sys.executable,
            str(CHECKOUT / "tools" / "kill_retraining.py"),
            *("--data", str(small_survey), "--kills", str(KILLS), "--rows", "2500", "--seed", SEED),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=CHECKOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=400)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    print(said)
    assert process.returncode == 0, said
    lines = said.splitlines()
    assert lines[0].endswith("faults: none")
    assert all(line.endswith("nothing lost, recovered") for line in lines[1 : KILLS + 1])
    assert lines[-1] == f"consistent {KILLS} of {KILLS}, recovered {KILLS} of {KILLS}"
