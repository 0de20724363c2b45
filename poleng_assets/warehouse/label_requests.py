"""Table ``field_study_requests``: whose outcomes were asked for, to know how good the model is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.writes import insert, monotonic_timestamp

if TYPE_CHECKING:
    import pandas as pd


def insert_request(con: Connection, people: pd.DataFrame) -> None:
    """Add those who are asked for: id, ``batch``, ``stratum``, ``why``; to be called inside a transaction.

    Who was drawn at random tells of more people than oneself
    (``core/monitoring/realised_performance.py``).
    """
    requested_at = monotonic_timestamp(con, "field_study_requests", "requested_at")
    insert(con, "field_study_requests", people.assign(requested_at=requested_at))


def people_to_request(
    con: Connection, study: Study, version: int, batches: Sequence[str], questions: Sequence[str]
) -> pd.DataFrame:
    """Return everybody whom a version scored in these batches, those of the first batch first.

    Returns:
        The id, ``batch``, ``score``, ``audit``, ``known`` (whether an outcome is), and the answers to these
        questions as codes.
    """
    answers = "".join(f', b."{name}"' for name in questions)
    return con.execute(
        f"""SELECT p."{study.id}", p.batch, p.score, coalesce(p.audit, false) AS audit,
            p."{study.id}" IN (SELECT "{study.id}" FROM outcomes) AS known{answers}
        FROM predictions p JOIN batch_rows b USING (batch, "{study.id}")
        WHERE p.model_version = $version AND list_contains($batches::VARCHAR[], p.batch)
        ORDER BY list_position($batches::VARCHAR[], p.batch), p."{study.id}" """,  # noqa: S608
        {"version": version, "batches": list(batches)},
    ).df()
