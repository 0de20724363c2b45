"""The history: one JSON line for each run, with the commit, the machine and the versions it was made by."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from poleng_assets.core.data.library_versions import library_version
from tools.bench.rows import Row

VERSIONS = ("dagster", "duckdb", "nannyml", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost")
QUIET_LOAD = 0.3


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, system, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: library_version(name) for name in VERSIONS},
    }


def append(path: Path, run: dict[str, Any], rows: Sequence[Row]) -> None:
    """Add a run to the history.

    Args:
        path: of the history; made when it is missing.
        run: when, of which commit, on what; see ``__main__.py``.
        rows: the table.
    """
    line = json.dumps({**run, "rows": [row.to_json() for row in rows]})
    before = path.read_bytes() if path.exists() else b""
    with path.open("a", encoding="utf-8") as file:
        # A line that was cut off stays one of its own.
        file.write(f"{line}\n" if before.endswith(b"\n") or not before else f"\n{line}\n")


def read(path: Path, mode: str, data: str) -> list[dict[str, Any]]:
    """Return the runs of one mode on the same data, oldest first; a line cut off by a kill is left out.

    Args:
        path: of the history; none is an empty history.
        mode: quick, usual or full: figures of different sizes are no series.
        data: name of the survey.
    """
    runs = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            run = json.loads(line)
        except json.JSONDecodeError:
            continue
        if (run["mode"], run["data"]) == (mode, data):
            runs.append(run)
    return runs


def series(runs: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return, for each line with a bar, the runs in which it has a figure: (commit, line), oldest first."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for run in runs:
        for row in run["rows"]:
            if row["bar"] is not None and row["figure"] is not None:
                found.setdefault(row["key"], []).append((run["commit"], row))
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
