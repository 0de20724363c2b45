"""Rows of single people that earlier releases showed in Dagster's events, and how they are taken out.

Since lists are previewed no more, no event gets such rows; those of older homes are cleaned once, when the
home is first opened by this release, and looked for whenever somebody is forgotten.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

PREVIEWS = ("first_five_without_ids",)
_DONE = "previews_erased"
_PLACES = (("event_logs", "event"), ("asset_keys", "last_materialization"))


def erase_previews_once(dagster: Path) -> None:
    """Take the previews out of the history in Dagster's folder, unless that was done before.

    Raises:
        sqlite3.Error: a database is damaged, or was locked for half a minute.
    """
    done = dagster / _DONE
    if not done.exists():
        erase_previews(dagster)
        done.touch()


def erase_previews(dagster: Path) -> int:
    """Take the previews out of all events in Dagster's folder; return out of how many.

    Raises:
        sqlite3.Error: as :func:`erase_previews_once`.
    """
    return sum(_erase_from(path) for path in sorted((dagster / "history").rglob("*.db")))


def _erase_from(path: Path) -> int:
    erased = 0
    with closing(sqlite3.connect(path, timeout=30)) as con:
        for table, column in _PLACES:
            if not con.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchall():
                continue
            named = " OR ".join(f'instr("{column}", ?) > 0' for _ in PREVIEWS)
            with con:
                found = con.execute(
                    f'SELECT rowid, "{column}" FROM {table} WHERE {named}',  # noqa: S608
                    PREVIEWS,
                ).fetchall()
                con.executemany(
                    f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?',  # noqa: S608
                    [(json.dumps(_without(json.loads(event))), row) for row, event in found],
                )
            erased += len(found)
        if erased:
            # What was written over stays in free pages and in the log until then.
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            con.execute("VACUUM")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return erased


def _without(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without(value) for name, value in content.items() if name not in PREVIEWS}
    if isinstance(content, list):
        kept = [one for one in content if not (isinstance(one, dict) and one.get("label") in PREVIEWS)]
        return [_without(one) for one in kept]
    return content
