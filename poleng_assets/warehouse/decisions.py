"""Table ``decisions``: the ledger. Every decision about a model or a batch, with its reason and evidence.

It says which version serves: the registry's alias may have been moved by hand. It says what was decided
already: a run that goes on with the work of one that died adds nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.warehouse.writes import monotonic_timestamp

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ServingDecision:
    """What the newest promotion or rollback says.

    Attributes:
        before: the version that served until then, None when it was the first.
        why: the ledger's reason.
        promoted: every version that was ever promoted, which may serve again.
        score_again: of a rollback: the batches that are to be scored again; None when it is a promotion.
    """

    version: int
    before: int | None
    why: str
    promoted: frozenset[int] = frozenset()
    score_again: tuple[str, ...] | None = None


def serving_decision(con: Connection) -> ServingDecision | None:
    """Return the decision by which a version serves, None when the ledger never appointed one."""
    rows = con.execute(
        """SELECT kind, champion_version, reason, evidence
        FROM decisions WHERE kind IN ('promote', 'rollback') ORDER BY decided_at DESC LIMIT 1"""
    ).fetchall()
    if not rows or rows[0][1] is None:
        return None
    kind, version, why, text = rows[0]
    evidence = json.loads(text)
    before = evidence.get("champion_before")
    before = evidence.get("taken_back") if before is None else before
    again = tuple(evidence.get("score_again", ())) if kind == "rollback" else None
    return ServingDecision(version, before, why, frozenset(promoted_versions(con)), again)


def promoted_versions(con: Connection) -> set[int]:
    """Return every version that the ledger says was promoted."""
    rows = con.execute("SELECT DISTINCT challenger_version FROM decisions WHERE kind = 'promote'").fetchall()
    return {int(version) for (version,) in rows}


def champion_changes(con: Connection) -> pd.DataFrame:
    """Return each change of the champion, oldest first: ``decided_at``, ``kind``, ``reason``, ``version``."""
    # A promotion names the new champion as its challenger, a rollback the old one as the champion again.
    return con.execute(
        """SELECT decided_at, kind, reason,
            CASE kind WHEN 'promote' THEN challenger_version ELSE champion_version END AS version
        FROM decisions WHERE kind IN ('promote', 'rollback') ORDER BY decided_at"""
    ).df()


class ChallengerDecision(NamedTuple):
    """The newest decision about one version as a challenger.

    Attributes:
        kind: ``promote``, ``reject`` or ``rollback``.
        champion_version: that served then, or that serves since.
        changed_champion_last: whether no promotion and no rollback came after it.
    """

    kind: str
    reason: str
    champion_version: int | None
    changed_champion_last: bool


def decision_about(con: Connection, challenger: int) -> ChallengerDecision | None:
    """Return the newest decision about a version as a challenger, None when it was never judged."""
    rows = con.execute(
        """SELECT kind, reason, champion_version, decided_at = (
            SELECT max(decided_at) FROM decisions WHERE kind IN ('promote', 'rollback'))
        FROM decisions WHERE kind IN ('promote', 'reject', 'rollback') AND challenger_version = ?
        ORDER BY decided_at DESC LIMIT 1""",
        [challenger],
    ).fetchall()
    return ChallengerDecision(*rows[0]) if rows else None


def already_recorded(con: Connection, kind: str, batch: str, version: int, reason: str) -> bool:
    """Return whether a batch was held, or released, for this very reason in its newest decision.

    Args:
        kind: ``hold`` or ``skip``.
        version: of the model that it was judged under.
    """
    newest = con.execute(
        """SELECT kind, reason FROM decisions
        WHERE kind IN ('hold', 'skip') AND batch = ? AND champion_version = ?
        ORDER BY decided_at DESC LIMIT 1""",
        [batch, version],
    ).fetchall()
    return newest == [(kind, reason)]


def recorded_by_runs(con: Connection, kind: str, runs: Sequence[str]) -> bool:
    """Return whether one of these Dagster runs wrote a decision of this kind."""
    ((decisions,),) = con.execute(
        "SELECT count(*) FROM decisions WHERE kind = ? AND list_contains(?::VARCHAR[], dagster_run_id)",
        [kind, list(runs)],
    ).fetchall()
    return bool(decisions)


def count_decisions(con: Connection) -> dict[str, int]:
    """Return the number of decisions of each kind."""
    return dict(con.execute("SELECT kind, count(*) FROM decisions GROUP BY kind").fetchall())


def all_decisions(con: Connection) -> list[dict[str, Any]]:
    """Return the ledger, oldest first, with the evidence as a mapping."""
    columns = ["decided_at", "kind", "champion_version", "challenger_version", "batch", "reason", "evidence"]
    rows = con.execute(f"SELECT {', '.join(columns)} FROM decisions ORDER BY decided_at").fetchall()  # noqa: S608
    return [dict(zip(columns, row, strict=True)) | {"evidence": json.loads(row[-1])} for row in rows]


def record_decision(
    con: Connection,
    kind: str,
    reason: str,
    *,
    evidence: Mapping[str, Any],
    champion_version: int | None = None,
    challenger_version: int | None = None,
    training_data_hash: str | None = None,
    batch: str | None = None,
    dagster_run_id: str | None = None,
    mlflow_run_id: str | None = None,
) -> None:
    """Add a row to the ledger. The ledger is only ever added to."""
    con.execute(
        """INSERT INTO decisions (decided_at, kind, champion_version, challenger_version, reason,
            evidence, training_data_hash, batch, dagster_run_id, mlflow_run_id)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [
            monotonic_timestamp(con, "decisions", "decided_at"),
            kind,
            champion_version,
            challenger_version,
            reason,
            json.dumps(evidence),
            training_data_hash,
            batch,
            dagster_run_id,
            mlflow_run_id,
        ],
    )
