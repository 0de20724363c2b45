"""Which version may serve instead of the champion, and which batches that concerns."""

from __future__ import annotations

from collections.abc import Collection

import duckdb


class RollbackRefused(ValueError):
    """The wanted version cannot serve; the message says which ones can."""


def rollback_target(serving: int | None, served: Collection[int], wanted: int | None = None) -> int:
    """Return the version to put back.

    Args:
        serving: the champion, None when there is none.
        served: every version that was ever promoted.
        wanted: a version asked for; by default the one promoted before the champion.

    Raises:
        RollbackRefused: there is no such version, or it never passed the gates.
    """
    if serving is None:
        raise RollbackRefused("no model serves yet, so there is nothing to roll back")
    others = sorted(version for version in served if version != serving)
    listed = ", ".join(map(str, others)) or "none"
    if wanted is None:
        earlier = [version for version in others if version < serving]
        if not earlier:
            raise RollbackRefused(f"no version was promoted before version {serving}; others: {listed}")
        return earlier[-1]
    if wanted == serving:
        raise RollbackRefused(f"version {serving} serves already")
    if wanted not in others:
        raise RollbackRefused(f"version {wanted} was never promoted; versions that were: {listed}")
    return wanted


def promoted_versions(con: duckdb.DuckDBPyConnection) -> set[int]:
    """Return every version that the ledger says was promoted."""
    found = con.execute("SELECT DISTINCT challenger_version FROM decisions WHERE kind = 'promote'").fetchall()
    return {int(version) for (version,) in found}


def batches_scored_by(con: duckdb.DuckDBPyConnection, version: int) -> list[str]:
    """Return the batches whose current scores come from a version, and whose rows are still kept."""
    found = con.execute(
        """SELECT DISTINCT batch FROM current_predictions SEMI JOIN batch_rows USING (batch)
        WHERE model_version = ? ORDER BY 1""",
        [version],
    ).fetchall()
    return [batch for (batch,) in found]
