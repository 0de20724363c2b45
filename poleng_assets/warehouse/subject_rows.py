"""Rows of one subject: which tables hold them, what they answered and scored, and how they are deleted.

Which tables hold people is asked of the catalogue, so that a table made tomorrow is not forgotten. Ids are
given in all their spellings. Whether a text names somebody is for ``core/privacy`` to judge.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study

Answers = tuple[int | None, ...]
ANSWER_TABLES = ("batch_rows", "field_study_rows")


def columns_of_tables(con: Connection) -> dict[str, dict[str, str]]:
    """Return every table with the type of each of its columns."""
    tables: dict[str, dict[str, str]] = {}
    for table, column, type_ in con.execute(
        """SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables()
        USING (database_name, schema_name, table_name)
        WHERE database_name = current_database() ORDER BY ALL"""
    ).fetchall():
        tables.setdefault(table, {})[column] = type_
    return tables


def count_rows(con: Connection, table: str, column: str, ids: Collection[str]) -> int:
    """Return how many rows of a table have one of the ids."""
    ((rows,),) = con.execute(
        f'SELECT count(*) FROM "{table}" WHERE {_has_id(column)}',  # noqa: S608
        {"ids": sorted(ids)},
    ).fetchall()
    return int(rows)


def count_rows_by(
    con: Connection, table: str, key: str, column: str, ids: Collection[str]
) -> list[tuple[str, int]]:
    """Return how many rows have one of the ids, by the value of another column."""
    return con.execute(
        f"SELECT {key}, count(*) FROM {table} WHERE {_has_id(column)} GROUP BY 1",  # noqa: S608
        {"ids": sorted(ids)},
    ).fetchall()


def delete_rows(con: Connection, table: str, column: str, ids: Collection[str]) -> int:
    """Delete the rows that have one of the ids; return how many."""
    gone = con.execute(
        f'DELETE FROM "{table}" WHERE {_has_id(column)} RETURNING 1',  # noqa: S608
        {"ids": sorted(ids)},
    ).fetchall()
    return len(gone)


def cells_with(con: Connection, table: str, column: str, texts: Sequence[str]) -> list[tuple[int, str]]:
    """Return row id and text of the cells of a column that contain any of some texts."""
    named = " OR ".join(f'contains("{column}"::VARCHAR, $t{number})' for number in range(len(texts)))
    return con.execute(
        f'SELECT rowid, "{column}"::VARCHAR FROM "{table}" WHERE {named}',  # noqa: S608
        {f"t{number}": text for number, text in enumerate(texts)},
    ).fetchall()


def replace_cell(con: Connection, table: str, column: str, row: int, text: str) -> None:
    """Write another text into one cell."""
    con.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', [text, row])  # noqa: S608


def quarantined_payloads(con: Connection) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield source, number and cells of every quarantined row."""
    for source, number, payload in con.execute(
        "SELECT DISTINCT source, row_number, payload FROM quarantine ORDER BY ALL"
    ).fetchall():
        yield source, number, json.loads(payload)


def delete_quarantined(con: Connection, source: str, number: int) -> None:
    """Delete one row of a file from quarantine."""
    con.execute("DELETE FROM quarantine WHERE source = ? AND row_number = ?", [source, number])


def studies_learned_from(con: Connection, column: str, ids: Collection[str]) -> list[str]:
    """Return the field studies in which one of the ids is among those that models learn from."""
    rows = con.execute(
        f"""SELECT DISTINCT field_study FROM field_study_rows
        WHERE part = 'train' AND {_has_id(column)} ORDER BY 1""",  # noqa: S608
        {"ids": sorted(ids)},
    ).fetchall()
    return [study for (study,) in rows]


def surplus_reference_rows(
    con: Connection, study: Study, ids: Collection[str], reference: Path, field_studies: Sequence[str] | None
) -> set[int]:
    """Return which rows of a version's reference are a subject's, as numbers from 0.

    Reference rows have no ids. For each held-out row of the subject, one row is meant that is equal in all
    answers and the target, unless the reference has no more of them than there are other people who answered
    so: then the subject's row is gone already.

    Args:
        con: of the warehouse, in which the subject still is.
        ids: of the subject.
        reference: the Parquet file of the version's reference.
        field_studies: that the version was trained on; None when nobody knows: all.
    """
    columns = [*study.feature_names, study.target.name]
    # Codes of the reference come back from Parquet as text or as numbers: compared as the warehouse has them.
    types = dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'field_study_rows'"
        ).fetchall()
    )
    same = " AND ".join(
        f'TRY_CAST(reference."{name}" AS {types[name]}) IS NOT DISTINCT FROM mine."{name}"'
        for name in columns
    )
    alike = " AND ".join(f'other."{name}" IS NOT DISTINCT FROM mine."{name}"' for name in columns)
    listed = ", ".join(f'"{name}"' for name in columns)
    mine = ", ".join(f'mine."{name}"' for name in columns)
    rows = con.execute(
        f"""WITH known AS (
            SELECT *, {_has_id(study.id)} AS _theirs FROM field_study_rows
            WHERE part = 'holdout' AND ($studies IS NULL OR list_contains($studies, field_study))
        ), mine AS (SELECT {listed}, count(*) AS _rows FROM known WHERE _theirs GROUP BY ALL),
        counted AS (
            SELECT mine.*, (SELECT count(*) FROM known other WHERE NOT other._theirs AND {alike}) AS _others
            FROM mine
        )
        SELECT reference.file_row_number,
            row_number() OVER (PARTITION BY {mine} ORDER BY reference.file_row_number DESC) AS _place,
            count(*) OVER (PARTITION BY {mine}) AS _there, mine._rows, mine._others
        FROM counted mine JOIN read_parquet($file, file_row_number = true) reference ON {same}
        QUALIFY _place <= least(_rows, _there - _others)""",  # noqa: S608
        {"ids": sorted(ids), "studies": field_studies, "file": str(reference)},
    ).fetchall()
    return {row for row, *_ in rows}


def answers_of(con: Connection, study: Study, ids: Collection[str]) -> set[Answers]:
    """Return the sets of answers that a subject gave, in the order of the study."""
    listed = ", ".join(f'"{name}"' for name in study.feature_names)
    return {
        tuple(None if code is None else int(code) for code in row)
        for table in ANSWER_TABLES
        for row in con.execute(
            f"SELECT DISTINCT {listed} FROM {table} WHERE {_has_id(study.id)}",  # noqa: S608
            {"ids": sorted(ids)},
        ).fetchall()
    }


def others_answered(
    con: Connection, study: Study, ids: Collection[str], names: Sequence[str], answers: Answers
) -> bool:
    """Return whether somebody else gave these answers to these questions."""
    same = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in names)
    return any(
        con.execute(
            f"""SELECT 1 FROM {table} WHERE NOT list_contains(?, "{study.id}"::VARCHAR) AND {same}
            LIMIT 1""",  # noqa: S608
            [sorted(ids), *answers],
        ).fetchall()
        for table in ANSWER_TABLES
    )


def scores_of(con: Connection, study: Study, ids: Collection[str]) -> list[tuple[float, float | None]]:
    """Return the scores of a subject, each with its distance to the nearest one of somebody else.

    The distance is None when nobody else has a score.
    """
    return con.execute(
        f"""SELECT mine.score, (SELECT min(abs(other.score - mine.score)) FROM predictions other
            WHERE NOT list_contains($ids, other."{study.id}"::VARCHAR))
        FROM (SELECT DISTINCT score FROM predictions WHERE {_has_id(study.id)}) mine""",  # noqa: S608
        {"ids": sorted(ids)},
    ).fetchall()


def count_equal_answers(con: Connection, table: str, names: Sequence[str], answers: Answers) -> int:
    """Return how many rows of a table have these answers."""
    same = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in names)
    query = f'SELECT count(*) FROM "{table}" WHERE {same}'  # noqa: S608
    return int(con.execute(query, list(answers)).fetchall()[0][0])


def count_equal_scores(con: Connection, table: str, column: str, scores: Collection[float]) -> int:
    """Return how many rows of a table have exactly one of the scores in a column."""
    query = f'SELECT count(*) FROM "{table}" WHERE list_contains(?, "{column}")'  # noqa: S608
    return int(con.execute(query, [list(scores)]).fetchall()[0][0])


def _has_id(column: str) -> str:
    """Return the condition on the column of ids; its parameter ``ids`` lists the subject's."""
    return f'list_contains($ids, "{column}"::VARCHAR)'
