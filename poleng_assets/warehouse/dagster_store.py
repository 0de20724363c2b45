"""Dagster's own SQLite files in a home: where they lie, and what is changed in them for want of a call."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

# A cursor that is ahead of the events would never see them; an older one reads them again.
COPY_ORDER = ("schedules/schedules.db", "history/runs.db", "history/runs/index.db")
_PLACES = (("event_logs", "event"), ("asset_keys", "last_materialization"))


def history_files(dagster: Path, run_id: str | None = None) -> list[Path]:
    """Return the databases of runs and events, and of the log of one run."""
    names = ["runs.db", "runs/index.db", *([f"runs/{run_id}.db"] if run_id else [])]
    return [dagster / "history" / name for name in names]


def move_paths(dagster: Path, before: Path, after: Path) -> None:
    """Rewrite the paths that events show: of reports, lists and archived files."""
    old, new = (f'"path": {json.dumps(str(root))[:-1]}/' for root in (before, after))
    for path in (dagster / "history").rglob("*.db"):
        with closing(sqlite3.connect(path)) as con, con:
            for table, column in _PLACES:
                if con.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchall():
                    con.execute(
                        f"""UPDATE {table} SET "{column}" = replace("{column}", ?, ?)
                        WHERE instr("{column}", ?) > 0""",  # noqa: S608
                        [old, new, old],
                    )
