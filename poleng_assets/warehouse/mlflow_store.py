"""What is read and changed in MLflow's own SQLite file where MLflow has no call for it."""

import sqlite3
from contextlib import closing
from pathlib import Path

# As long as MLflow waits for others once the store is open.
PATIENCE_SECONDS = 20.0


def registered_places(store: Path) -> list[tuple[str, str]]:
    """Return name with number, and the URI of the files, of every version that was not deleted."""
    with closing(sqlite3.connect(store)) as con:
        return con.execute(
            "SELECT name || ' version ' || version, coalesce(storage_location, source) FROM model_versions "
            "WHERE coalesce(current_stage, '') <> 'Deleted_Internal'"
        ).fetchall()


def move_places(store: Path, before: Path, after: Path) -> None:
    """Rewrite the places in the store, which are absolute: of experiments, runs, models, versions."""
    with closing(sqlite3.connect(store)) as con, con:
        for (table,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in con.execute(f'PRAGMA table_info("{table}")').fetchall():
                if not kind.upper().startswith(("VARCHAR", "TEXT")):
                    continue
                for old, new in ((before.as_uri(), after.as_uri()), (str(before), str(after))):
                    con.execute(
                        f"""UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?)
                        WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?""",  # noqa: S608
                        [new, len(old) + 1, old, len(old) + 1, f"{old}/"],
                    )


def undelete_version(store: Path, model: str, version: int, run_id: str, source: str) -> bool:
    """Take back that a version was deleted in MLflow, which keeps its row and its tags and hides them.

    MLflow has no call for it, and would give the same model another number.

    Returns:
        Whether the store has such a row.
    """
    with closing(sqlite3.connect(store, timeout=PATIENCE_SECONDS)) as con, con:
        changed = con.execute(
            """UPDATE model_versions SET current_stage = 'None', source = ?, run_id = ?, run_link = ''
            WHERE name = ? AND version = ? AND current_stage = 'Deleted_Internal'""",
            [source, run_id, model, version],
        ).rowcount
    return bool(changed)
