"""Table ``quarantine``: rows of files that broke the contract, with why."""

from __future__ import annotations

import duckdb


def count_quarantined(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many rows are in quarantine, of whatever file and for however many reasons."""
    ((rows,),) = con.execute("SELECT count(DISTINCT (source, row_number)) FROM quarantine").fetchall()
    return int(rows)
