"""Copies of the DuckDB file without the bytes of deleted rows: in its own place, or in a backup.

DuckDB marks rows as deleted and uses their place again some day; until then they can be read from the file
(https://duckdb.org/docs/stable/operations_manual/footprint_of_duckdb/reclaiming_space).
"""

import shutil
import time
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.files import move, sync_file

_CATALOGUE = (
    "SELECT table_name, column_name, data_type, column_default, is_nullable FROM duckdb_columns() "
    "WHERE database_name = '{}' AND NOT internal ORDER BY ALL",
    "SELECT table_name, constraint_text FROM duckdb_constraints() WHERE database_name = '{}' ORDER BY ALL",
    "SELECT view_name, sql FROM duckdb_views() WHERE database_name = '{}' AND NOT internal ORDER BY ALL",
    "SELECT index_name, sql FROM duckdb_indexes() WHERE database_name = '{}' ORDER BY ALL",
)


class CopyDiffers(RuntimeError):
    """The fresh file does not hold what the old one does; the old one was left in its place."""


def compact(path: Path, patience_seconds: float = 60.0) -> int:
    """Copy a DuckDB file into a fresh one and put that in its place; return the bytes saved.

    A killed copy leaves the old file as it was, and a file beside it that the next call removes. Nobody
    can write to the old file from the moment it is copied until the fresh one stands in its place.

    Args:
        path: of the file; no connection of this process has it open.
        patience_seconds: how long to wait for another process that has it open.

    Raises:
        duckdb.IOException: another process had it open all the time; nothing was changed.
        CopyDiffers: the copy is not whole; nothing was changed.
    """
    fresh = path.with_name(f".{path.name}.anew")
    give_up = time.monotonic() + patience_seconds
    while True:
        try:
            return _replace_by_copy(path, fresh)
        except duckdb.IOException as error:
            if "could not set lock" not in str(error).lower() or time.monotonic() > give_up:
                raise
            time.sleep(0.2)
        finally:
            _remove(fresh)


def copy_database(con: Connection, copy: Path) -> dict[str, int]:
    """Copy what stands in an open database into a fresh file; return the rows of each table.

    Raises:
        CopyDiffers: the copy has other rows.
    """
    ((name,),) = con.execute("SELECT current_database()").fetchall()
    con.execute(f"ATTACH '{_quoted(copy)}' AS backup_copy")
    try:
        con.execute(f'COPY FROM DATABASE "{name}" TO backup_copy')
        rows, copied = _count_rows(con, name), _count_rows(con, "backup_copy")
    finally:
        con.execute("DETACH backup_copy")
    if rows != copied:
        raise CopyDiffers(f"the copy of the warehouse is not complete: it has {copied}, not {rows}")
    return rows


def rows_of_file(path: Path) -> dict[str, int]:
    """Return the number of rows of each table of a DuckDB file; raises ``duckdb.Error`` when it cannot."""
    with duckdb.connect(path, read_only=True) as con:
        return _count_rows(con, con.execute("SELECT current_database()").fetchall()[0][0])


def free_share(con: Connection) -> float:
    """Return the share of the file that stands empty, as far as DuckDB knows, in [0, 1]."""
    ((total, free),) = con.execute("SELECT total_blocks, free_blocks FROM pragma_database_size()").fetchall()
    return free / total if total else 0.0


def _replace_by_copy(path: Path, fresh: Path) -> int:
    _remove(fresh)
    log = path.with_name(f"{path.name}.wal")
    with duckdb.connect(path) as con:
        con.execute("FORCE CHECKPOINT")
    with duckdb.connect() as con:
        # Read-only keeps every writer out, and leaves the log of whoever opens the fresh file alone.
        con.execute(f"ATTACH '{_quoted(path)}' AS old (READ_ONLY)")
        if log.exists():
            # Somebody wrote between the two connections: its log must not meet the fresh file.
            raise duckdb.IOException(f"could not set lock: {log} has just been written")
        con.execute(f"ATTACH '{_quoted(fresh)}' AS new")
        con.execute("COPY FROM DATABASE old TO new")
        _compare(con)
        con.execute("CHECKPOINT new")
        con.execute("DETACH new")
        shutil.copymode(path, fresh)
        saved = path.stat().st_size - fresh.stat().st_size
        sync_file(fresh)
        move(fresh, path)
    return saved


def _count_rows(con: Connection, database: str) -> dict[str, int]:
    tables = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY 1", [database]
    ).fetchall()
    return {
        table: con.execute(f'SELECT count(*) FROM "{database}".main."{table}"').fetchall()[0][0]  # noqa: S608
        for (table,) in tables
    }


def _compare(con: Connection) -> None:
    """Raise when the fresh file lacks anything that the old one has."""
    for question in _CATALOGUE:
        if con.execute(question.format("old")).fetchall() != con.execute(question.format("new")).fetchall():
            raise CopyDiffers(f"the fresh file has another catalogue: {question.split(' FROM ')[0]}")
    rows, copied = _count_rows(con, "old"), _count_rows(con, "new")
    if rows != copied:
        raise CopyDiffers(f"the fresh file has other rows: {copied}, not {rows}")


def _remove(fresh: Path) -> None:
    for left in (fresh, fresh.with_name(f"{fresh.name}.wal")):
        left.unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
