"""Forget twenty people who stand in a home in every form there is, and search for what is left of them.

    PYTHONPATH=. python tools/bench_erasure.py

They stand in tables, lists and archives, in refused files of every kind (packed, cut off, one in the other,
without ids), in events, logs and artifacts. The search shares no code with the project: it looks for ids,
answers and exact scores. The exit code is 1 when anything is left.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from poleng_assets_tests.faults.quick_study import write_quick_study
from poleng_assets_tests.graph.erasure import crowded_home, erase_everybody


def main() -> int:
    """Run it in a folder of its own, and print what was found before and after."""
    with tempfile.TemporaryDirectory(prefix="poleng_erasure_") as name:
        folder = Path(name)
        os.environ["POLENG_STUDY"] = str(write_quick_study(folder / "quick.yaml"))
        with crowded_home(folder) as workshop:
            found = erase_everybody(workshop)
    print(f"{found.people} people, {found.traces_before} traces of them in {len(found.places)} files")
    print(f"forgotten in {found.seconds / found.people:.1f} s of processor each")
    print(f"left by id, answers and score: {len(found.left)}; named by the command: {len(found.told)}")
    for one in (*found.left, *found.told):
        print(f"  {one}")
    return 1 if found.left or found.told or found.others_lost else 0


if __name__ == "__main__":
    sys.exit(main())
