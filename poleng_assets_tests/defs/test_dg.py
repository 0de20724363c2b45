"""Dagster's ``dg``: the project is one that it knows, and its definitions load without a warning of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poleng_assets.definitions import build_defs
from poleng_assets.storage.home import CHECKOUT

pytestmark = pytest.mark.slow


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment in the checkout, with the checkout's settings of Dagster."""
    (folder / "dagster").mkdir(exist_ok=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run(
        [program, *command[1:]],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=CHECKOUT,
        env={
            **os.environ,
            "POLENG_HOME": str(folder / "home"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "VIRTUAL_ENV": sys.prefix,
        },
    )


def test_dg_checks_the_definitions_and_lists_all_of_them(tmp_path: Path):
    assert "All definitions loaded successfully" in run(tmp_path, "dg", "check", "defs").stdout
    listed = json.loads(run(tmp_path, "dg", "list", "defs", "--json").stdout)
    keys = {key.to_user_string() for key in build_defs().resolve_asset_graph().get_all_asset_keys()}
    assert {asset["asset_key"] for asset in listed["assets"]} == keys


def test_loading_the_definitions_warns_of_nothing(tmp_path: Path):
    """Plain ``dagster dev`` prints what Python warns of while the definitions load."""
    loaded = run(tmp_path, "python", "-c", "import poleng_assets.definitions as module; module.defs")
    assert loaded.stderr == ""
