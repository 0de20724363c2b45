"""Tables ``drift_reports`` and ``drift_metrics``: what was measured of each batch under each version.

What belongs here reads and writes reports. What they mean is in ``core/monitoring/verdict.py``, their
shape in ``core/monitoring/measurements.py``: figures and judgement are kept as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.warehouse.writes import monotonic_timestamp, replace_partition

if TYPE_CHECKING:
    import pandas as pd

# Reports of earlier releases do not say whether the batch was held.
_HELD = "coalesce(held, verdict IN ('drifted', 'untrusted'))"


def replace_report(
    con: Connection, batch: str, version: int, report: Mapping[str, Any], metrics: pd.DataFrame
) -> None:
    """Put a report in the place of an earlier one of the same batch and version; call it in a transaction.

    A report that is made again keeps its place among the others: ``first_reported_at`` stays.

    Args:
        report: the other columns of ``drift_reports``, without the two moments.
        metrics: the other columns of ``drift_metrics``.
    """
    import pandas as pd

    key = {"batch": batch, "model_version": version}
    first = con.execute(
        "SELECT first_reported_at FROM drift_reports WHERE batch = ? AND model_version = ?", [batch, version]
    ).fetchall()
    moments = {
        "reported_at": monotonic_timestamp(con, "drift_reports", "reported_at"),
        "first_reported_at": (first[0][0] if first else None)
        or monotonic_timestamp(con, "drift_reports", "first_reported_at"),
    }
    replace_partition(con, "drift_reports", key, pd.DataFrame([{**report, **moments}]))
    replace_partition(con, "drift_metrics", key, metrics)


def read_report(con: Connection, batch: str, version: int) -> tuple[str, str] | None:
    """Return figures and judgement of a batch under a version, as JSON; None when there is no report."""
    rows = con.execute(
        "SELECT figures, judgement FROM drift_reports WHERE batch = ? AND model_version = ?", [batch, version]
    ).fetchall()
    return rows[0] if rows and rows[0][0] is not None else None


class EarlierReport(NamedTuple):
    """What was found in an earlier batch under the same model version.

    Attributes:
        causes: for which it was held.
        weak: whether it had a weak sign of loss.
    """

    batch: str
    causes: frozenset[str] = frozenset()
    weak: bool = False


def earlier_reports(con: Connection, batch: str, version: int) -> list[EarlierReport]:
    """Return the reports on the batches before, under the same version, newest first."""
    rows = con.execute(
        """SELECT batch, causes, coalesce(weak, false) FROM drift_reports
        WHERE model_version = $version AND batch <> $batch AND verdict <> 'insufficient'
        AND first_reported_at < coalesce((SELECT first_reported_at FROM drift_reports
            WHERE batch = $batch AND model_version = $version), 'infinity'::TIMESTAMPTZ)
        ORDER BY first_reported_at DESC""",
        {"batch": batch, "version": version},
    ).fetchall()
    return [EarlierReport(name, frozenset(json.loads(causes or "[]")), weak) for name, causes, weak in rows]


class NewestReport(NamedTuple):
    """The verdict that counts for a batch.

    Attributes:
        held: whether the list waits for a better model.
        model_version: that the report is about.
    """

    verdict: str
    held: bool
    model_version: int


def newest_report(con: Connection, batch: str) -> NewestReport | None:
    """Return the newest report of a batch, by whatever version; None when there is none."""
    rows = con.execute(
        f"""SELECT verdict, {_HELD}, model_version
        FROM drift_reports WHERE batch = ? ORDER BY reported_at DESC LIMIT 1""",  # noqa: S608
        [batch],
    ).fetchall()
    return NewestReport(*rows[0]) if rows else None


def batches_in_doubt(con: Connection, version: int, tolerated: float, newest: int) -> list[str]:
    """Return the newest batches that a version may not fit, newest first.

    Their verdict says so, or their realised AUC is significantly lower than the reference's by more than
    ``tolerated``.
    """
    rows = con.execute(
        """SELECT r.batch FROM drift_reports r LEFT JOIN performance p ON p.batch = r.batch
            AND p.model_version = r.model_version AND p.kind = 'realised' AND p.metric = 'auc'
        WHERE r.model_version = $version AND (r.verdict IN ('drifted', 'untrusted')
            OR p.upper < r.reference_auc - $tolerated)
        ORDER BY r.reported_at DESC, r.batch LIMIT $newest""",
        {"version": version, "tolerated": tolerated, "newest": newest},
    ).fetchall()
    return [batch for (batch,) in rows]


def drifted_columns(
    con: Connection, version: int, batches: Sequence[str], columns: Sequence[str], methods: Sequence[str]
) -> list[str]:
    """Return which of these columns alert in any of the batches by any of the methods.

    Those that alert by the first method come first, then the farthest beyond their limit.
    """
    rows = con.execute(
        """SELECT column_name FROM drift_metrics WHERE model_version = $version AND alert
            AND list_contains($batches::VARCHAR[], batch) AND list_contains($methods, method)
            AND list_contains($columns, column_name)
        GROUP BY column_name
        ORDER BY bool_or(method = $first) DESC,
            max(coalesce(value / nullif(upper_threshold, 0), 'inf'::DOUBLE)) DESC, column_name""",
        {
            "version": version,
            "batches": list(batches),
            "methods": list(methods),
            "columns": list(columns),
            "first": methods[0],
        },
    ).fetchall()
    return [name for (name,) in rows]


def all_reports(con: Connection) -> pd.DataFrame:
    """Return every report, oldest first.

    Returns:
        ``batch``, ``model_version``, ``verdict``, ``rows``, ``reported_at``, ``estimated_auc``,
        ``reference_auc``, ``outside_support``, ``flagged_share``, ``reasons``, ``held``, ``alarm``,
        ``trusted``, ``current`` (the scores of this version are the ones that count) and ``released`` (the
        list of a held batch was made after all, with this version).
    """
    return con.execute(
        f"""SELECT r.batch, r.model_version, r.verdict, r.rows, r.reported_at, r.estimated_auc,
            r.reference_auc, r.outside_support, r.flagged_share, coalesce(r.reasons, '') AS reasons,
            {_HELD} AS held, coalesce(r.alarm, false) AS alarm,
            coalesce(r.trusted, false) AS trusted, c.batch IS NOT NULL AS current,
            coalesce(d.released, false) AS released
        FROM drift_reports r
        LEFT JOIN (
            SELECT DISTINCT batch, model_version FROM current_predictions
            UNION ALL -- where retention has erased the scores, the newest report tells
            SELECT batch, arg_max(model_version, reported_at) FROM drift_reports
            WHERE batch NOT IN (SELECT batch FROM predictions) GROUP BY batch
        ) c USING (batch, model_version)
        LEFT JOIN (
            SELECT batch, champion_version AS model_version, arg_max(kind, decided_at) = 'skip' AS released
            FROM decisions WHERE kind IN ('hold', 'skip') GROUP BY ALL
        ) d USING (batch, model_version)
        ORDER BY r.reported_at, r.batch"""  # noqa: S608
    ).df()


def all_alerts(con: Connection) -> pd.DataFrame:
    """Return ``batch``, ``model_version``, ``column_name`` and ``method`` of every metric that alerts."""
    return con.execute(
        "SELECT batch, model_version, column_name, method FROM drift_metrics WHERE alert ORDER BY ALL"
    ).df()
