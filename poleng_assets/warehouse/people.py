"""Tables of people's rows by file: ``batch_rows``, ``field_study_rows``, ``outcomes``.

What belongs here asks the same of any of them. Parts of field studies are in ``warehouse/holdout.py``, what
files share in ``warehouse/overlaps.py``, labels in ``warehouse/outcomes.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES

if TYPE_CHECKING:
    import pyarrow as pa


def count_rows(con: Connection, kind: Kind, name: str) -> int:
    """Return how many rows of a file are kept."""
    table, key = ROW_TABLES[kind]
    ((rows,),) = con.execute(f"SELECT count(*) FROM {table} WHERE {key} = ?", [name]).fetchall()  # noqa: S608
    return int(rows)


def count_answers(con: Connection, kind: Kind, name: str, column: str) -> list[tuple[str | None, int]]:
    """Return how many people of a file gave each answer (its code as text), the commonest first."""
    table, key = ROW_TABLES[kind]
    return con.execute(
        f"""SELECT "{column}"::VARCHAR, count(*) FROM {table} WHERE {key} = ?
        GROUP BY 1 ORDER BY count(*) DESC, 1""",  # noqa: S608
        [name],
    ).fetchall()


def shortest_other_id(con: Connection, study: Study, kind: Kind, name: str, but: str) -> int | None:
    """Return the length of the shortest id of a file but one; None when there is no other."""
    table, key = ROW_TABLES[kind]
    ((shortest,),) = con.execute(
        f'SELECT min(length("{study.id}")) FROM {table} WHERE {key} = $name AND "{study.id}" <> $but',  # noqa: S608
        {"name": name, "but": but},
    ).fetchall()
    return None if shortest is None else int(shortest)


def first_ids(con: Connection, study: Study, kind: Kind, name: str, limit: int | None = None) -> list[str]:
    """Return the ids of a file in the order of its rows; at most so many."""
    table, key = ROW_TABLES[kind]
    rows = con.execute(
        f'SELECT "{study.id}" FROM {table} WHERE {key} = $name ORDER BY row_number LIMIT $limit',  # noqa: S608
        {"name": name, "limit": limit},
    ).fetchall()
    return [text for (text,) in rows]


def row_numbers_by_id(con: Connection, study: Study, kind: Kind, name: str) -> dict[str, int]:
    """Return the number of each row of a file that is kept, by its id."""
    table, key = ROW_TABLES[kind]
    return dict(
        con.execute(
            f'SELECT "{study.id}", row_number FROM {table} WHERE {key} = ?',  # noqa: S608
            [name],
        ).fetchall()
    )


def rename_file(con: Connection, kind: Kind, name: str, new_name: str) -> None:
    """Give the rows of a file to another one."""
    table, key = ROW_TABLES[kind]
    con.execute(f"UPDATE {table} SET {key} = ? WHERE {key} = ?", [new_name, name])  # noqa: S608


def known_ids(
    con: Connection, study: Study, tables: Iterable[str] = ("batch_rows", "field_study_rows", "outcomes")
) -> Iterator[pa.Array]:
    """Yield the ids in tables of respondents, in portions; one that stands several times comes as often."""
    for table in tables:
        rows = con.sql(f'SELECT "{study.id}" FROM {table}')  # noqa: S608
        for portion in rows.to_arrow_reader(100_000):
            yield portion.column(0)
