"""Realised performance: scores of the warehouse against the outcomes that arrived for them."""

from __future__ import annotations

import duckdb
import pandas as pd

from poleng_assets.core.evaluation import bootstrap_intervals, evaluate
from poleng_assets.core.tables import replace, transaction
from poleng_assets.study import Study

REALISED_METRICS = ("auc", "log_loss", "precision", "recall", "accuracy")


def record_realised_performance(
    con: duckdb.DuckDBPyConnection, study: Study, source: str
) -> dict[tuple[str, int], dict[str, float]]:
    """Measure every batch and version that the outcomes of ``source`` speak about, and keep the figures.

    Returns:
        For each (batch, model version): the figures of merit and ``respondents``, the number of
        scored people whose outcome is known, from this file and from earlier ones.
    """
    touched = con.execute(
        "SELECT DISTINCT batch, model_version FROM predictions WHERE batch IN "
        "(SELECT DISTINCT batch FROM outcomes WHERE source = ?) ORDER BY ALL",
        [source],
    ).fetchall()
    measured = {}
    with transaction(con):
        for batch, version in touched:
            known = _known_outcomes(con, study, batch, version)
            if known.empty:
                continue
            figures = _measure(known)
            rows = figures.assign(model_version=version)
            replace(con, "performance", {"batch": batch, "model_version": version, "kind": "realised"}, rows)
            values = dict(zip(figures["metric"], figures["value"], strict=True))
            measured[(batch, version)] = {**values, "respondents": float(len(known))}
    return measured


def _known_outcomes(con: duckdb.DuckDBPyConnection, study: Study, batch: str, version: int) -> pd.DataFrame:
    """Return target, score and contact of each respondent with an outcome; the newest outcome counts."""
    return con.execute(
        f"""SELECT o."{study.target.name}" AS target, p.score, p.contact
        FROM predictions p JOIN (
            SELECT * FROM outcomes o JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = o.source
            WHERE o.batch = $batch
            QUALIFY row_number() OVER (PARTITION BY o."{study.id}" ORDER BY f.ingested_at DESC) = 1
        ) o USING ("{study.id}")
        WHERE p.batch = $batch AND p.model_version = $version ORDER BY "{study.id}" """,  # noqa: S608
        {"batch": batch, "version": version},
    ).df()


def _measure(known: pd.DataFrame) -> pd.DataFrame:
    """Hold scores, and contacts as the rule of their day decided them, against outcomes."""
    target, score, contact = (known[name].to_numpy() for name in ("target", "score", "contact"))
    values = evaluate(target, score, contact)
    intervals = bootstrap_intervals(target, score, contact)
    return pd.DataFrame(
        [
            {
                "metric": metric,
                "value": values[metric],
                "lower": intervals[metric][0],
                "upper": intervals[metric][1],
            }
            for metric in REALISED_METRICS
            if metric in values
        ]
    )
