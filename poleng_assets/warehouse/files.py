"""Table ``ingested_files``: every file that was taken in, with what became of its rows."""

from __future__ import annotations

import duckdb

from poleng_assets.storage.home import Kind


def rows_quarantined(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> int:
    """Return how many rows of a file broke the contract; 0 when it was not taken in."""
    rows = con.execute(
        "SELECT rows_quarantined FROM ingested_files WHERE kind = ? AND name = ?", [kind, name]
    ).fetchall()
    return int(rows[0][0]) if rows else 0


def content_hashes(con: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """Return kind and content hash of every file that was taken in."""
    return set(con.execute("SELECT kind, content_hash FROM ingested_files").fetchall())


def names_of_files(con: duckdb.DuckDBPyConnection, kind: Kind) -> list[str]:
    """Return the names of the files of a kind that were taken in."""
    rows = con.execute("SELECT name FROM ingested_files WHERE kind = ?", [kind]).fetchall()
    return [name for (name,) in rows]


def newest_files(con: duckdb.DuckDBPyConnection, kind: Kind, most: int) -> list[str]:
    """Return the names of the files of a kind that were taken in last, newest first."""
    rows = con.execute(
        "SELECT name FROM ingested_files WHERE kind = ? ORDER BY ingested_at DESC, name LIMIT ?", [kind, most]
    ).fetchall()
    return [name for (name,) in rows]
