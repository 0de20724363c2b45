"""Which version serves, as the ledger tells it: the registry's alias may have been moved by hand."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from poleng_assets.core.promotion.rollback import promoted_versions


@dataclass(frozen=True)
class Appointed:
    """What the newest promotion or rollback says.

    Attributes:
        version: that is to serve.
        before: the version that served until then, None when it was the first.
        why: the ledger's reason.
        promoted: every version that was ever promoted, which may serve again.
    """

    version: int
    before: int | None
    why: str
    promoted: frozenset[int] = frozenset()


def appointed(con: duckdb.DuckDBPyConnection) -> Appointed | None:
    """Return which version is to serve, None when the ledger never appointed one."""
    found = con.execute(
        """SELECT champion_version, coalesce(
            (evidence ->> 'champion_before')::INTEGER, (evidence ->> 'taken_back')::INTEGER), reason
        FROM decisions WHERE kind IN ('promote', 'rollback') ORDER BY decided_at DESC LIMIT 1"""
    ).fetchall()
    if not found or found[0][0] is None:
        return None
    version, before, why = found[0]
    return Appointed(version, before, why, frozenset(promoted_versions(con)))


def disagreement(told: Appointed | None, alias: int | None) -> str:
    """Return how the registry contradicts the ledger and what to do, in words; empty when it does not.

    Args:
        told: by the ledger.
        alias: the version that the registry's alias ``champion`` points to, None when there is none.
    """
    if told is None and alias is not None:
        return (
            f"the registry's alias 'champion' points to version {alias}, but the ledger never appointed "
            "one. Was the warehouse removed? `poleng restore` puts a backup back"
        )
    if told is None or told.version == alias:
        return ""
    now = f"points to version {alias}" if alias else "is gone"
    return (
        f"the ledger says that version {told.version} serves ({told.why}), but the registry's alias "
        f"'champion' {now}, which nobody decided: `poleng rollback --to {told.version}` puts it back"
        + (f", `poleng rollback --to {alias}` lets version {alias} serve" if alias in told.promoted else "")
    )
