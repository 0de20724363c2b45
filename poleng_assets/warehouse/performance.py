"""Table ``performance``: how good a version is on a batch, estimated or realised with outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.warehouse.writes import replace_partition

if TYPE_CHECKING:
    import pandas as pd


def replace_performance(
    con: Connection,
    batch: str,
    version: int,
    kind: Literal["estimated", "realised"],
    figures: Sequence[tuple[str, float, float, float]],
) -> None:
    """Put figures in the place of earlier ones; to be called inside a transaction.

    Args:
        kind: without outcomes, or with them.
        figures: of each metric its name, value, and the ends of its interval.
    """
    import pandas as pd

    rows = pd.DataFrame(figures, columns=["metric", "value", "lower", "upper"])
    replace_partition(con, "performance", {"batch": batch, "model_version": version, "kind": kind}, rows)


def all_performance(con: Connection) -> pd.DataFrame:
    """Return all rows of the table."""
    return con.execute(
        "SELECT batch, model_version, kind, metric, value, lower, upper FROM performance ORDER BY ALL"
    ).df()


def estimated_auc(con: Connection) -> dict[tuple[str, int], float]:
    """Return the AUC that was expected without outcomes, by batch and version."""
    rows = con.execute(
        """SELECT batch, model_version, value FROM performance
        WHERE kind = 'estimated' AND metric = 'auc' AND value IS NOT NULL"""
    ).fetchall()
    return {(batch, version): value for batch, version, value in rows}


def lowest_auc(con: Connection, version: int, batches: Sequence[str]) -> float | None:
    """Return the lowest AUC known of these batches, realised rather than estimated; None when none is."""
    ((lowest,),) = con.execute(
        """SELECT min(value) FROM (
            SELECT coalesce(max(value) FILTER (kind = 'realised'), max(value)) AS value FROM performance
            WHERE model_version = $version AND metric = 'auc' AND list_contains($batches::VARCHAR[], batch)
            GROUP BY batch)""",
        {"version": version, "batches": list(batches)},
    ).fetchall()
    return lowest
