"""Scoring a batch: rows stream from the warehouse through the model and back."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from poleng_assets.core.data.parallel import prefetch
from poleng_assets.core.modeling.model import Model
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.audit_sample import in_audit
from poleng_assets.warehouse.schema import in_little_memory, stamp, transaction

CHUNK = 100_000


def score_batch(
    con: duckdb.DuckDBPyConnection, model: Model, study: Study, batch: str, version: int
) -> tuple[int, int]:
    """Score every respondent of a batch and keep all scores; return (respondents, contacts).

    Who is in the audit sample (``warehouse/audit_sample.py``) is marked, contacts and others alike.
    One transaction: the batch is scored whole by this version, or not at all. Earlier versions'
    scores stay; the newest scoring is current. Rows come in no stated order: putting them in order would
    take all of a large batch into memory.
    """
    features = ", ".join(f'"{name}"' for name in study.feature_names)
    rows = con.cursor().sql(
        f'SELECT "{study.id}", {features} FROM batch_rows WHERE batch = ?',  # noqa: S608
        params=[batch],
    )
    chunks: Any = rows.to_arrow_reader(CHUNK)
    scored_at = stamp(con, "predictions", "scored_at")
    respondents = 0
    with transaction(con):
        con.execute("DELETE FROM predictions WHERE batch = ? AND model_version = ?", [batch, version])

        def scored(chunk: pa.RecordBatch) -> pa.Table:
            score = model.score(chunk)
            return pa.table({"id": chunk[study.id], "score": score, "contact": model.rule.decide(score)})

        with in_little_memory(con, len(study.features)):
            # The next rows are read and scored while the warehouse takes in these.
            for incoming in prefetch(map(scored, chunks)):
                # DuckDB finds the variable by its name, see poleng_assets.warehouse.schema.insert.
                con.execute(
                    f"""INSERT INTO predictions BY NAME SELECT ? AS batch, id AS "{study.id}",
                    ?::INTEGER AS model_version, score, contact, ?::TIMESTAMPTZ AS scored_at,
                    {in_audit(study, "id")} AS audit FROM incoming""",  # noqa: S608
                    [batch, version, scored_at],
                )
                respondents += incoming.num_rows
        if model.rule.capacity is not None:
            _contact_the_first(con, study, batch, version, model.rule.capacity)
        counted = con.execute(
            "SELECT count(*) FROM predictions WHERE batch = ? AND model_version = ? AND contact",
            [batch, version],
        ).fetchall()
    return respondents, counted[0][0]


def _contact_the_first(
    con: duckdb.DuckDBPyConnection, study: Study, batch: str, version: int, capacity: int
) -> None:
    """Contact the people with the highest scores of a batch, as many as there are places."""
    con.execute(
        f"""UPDATE predictions SET contact = "{study.id}" IN (
            SELECT "{study.id}" FROM predictions WHERE batch = $batch AND model_version = $version
            ORDER BY score DESC, "{study.id}" LIMIT $capacity)
        WHERE batch = $batch AND model_version = $version""",  # noqa: S608
        {"batch": batch, "version": version, "capacity": capacity},
    )
