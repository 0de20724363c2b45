"""Table ``outcomes``: what people turned out to be, by file and person."""

from __future__ import annotations

import duckdb

from poleng_assets.study.schema import Study


def affected_batches(con: duckdb.DuckDBPyConnection, study: Study, source: str) -> list[tuple[str, int]]:
    """Return each batch and model version whose scores a file of outcomes speaks about."""
    return con.execute(
        f"""SELECT DISTINCT p.batch, p.model_version FROM predictions p
        JOIN outcomes o ON o."{study.id}" = p."{study.id}" WHERE o.source = ? ORDER BY ALL""",  # noqa: S608
        [source],
    ).fetchall()


def count_unknown_respondents(con: duckdb.DuckDBPyConnection, study: Study, source: str) -> int:
    """Return how many people of a file of outcomes are in no batch, or in none so far."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM outcomes WHERE source = ?
        AND "{study.id}" NOT IN (SELECT "{study.id}" FROM batch_rows)""",  # noqa: S608
        [source],
    ).fetchall()
    return int(people)


def count_contradictory_respondents(con: duckdb.DuckDBPyConnection, study: Study, source: str) -> int:
    """Return about how many people of a file of outcomes another file says otherwise."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM outcomes own WHERE own.source = $source AND EXISTS (
            SELECT 1 FROM outcomes other WHERE other."{study.id}" = own."{study.id}"
            AND other."{study.target.name}" <> own."{study.target.name}")""",  # noqa: S608
        {"source": source},
    ).fetchall()
    return int(people)
