"""What the ledger says already: a run that goes on with the work of one that died adds nothing twice."""

from __future__ import annotations

import duckdb


def is_decided(con: duckdb.DuckDBPyConnection, kind: str, batch: str, version: int, reason: str) -> bool:
    """Return whether a batch was held, or released, for this very reason in its newest decision.

    Args:
        con: of the warehouse.
        kind: ``hold`` or ``skip``.
        batch: its id.
        version: of the model that it was judged under.
        reason: as the ledger words it.
    """
    newest = con.execute(
        """SELECT kind, reason FROM decisions
        WHERE kind IN ('hold', 'skip') AND batch = ? AND champion_version = ?
        ORDER BY decided_at DESC LIMIT 1""",
        [batch, version],
    ).fetchall()
    return newest == [(kind, reason)]


def was_decided_by(con: duckdb.DuckDBPyConnection, kind: str, runs: list[str]) -> bool:
    """Return whether one of these Dagster runs wrote a decision of this kind."""
    found = con.execute(
        "SELECT count(*) FROM decisions WHERE kind = ? AND list_contains(?::VARCHAR[], dagster_run_id)",
        [kind, runs],
    ).fetchall()
    return bool(found[0][0])
