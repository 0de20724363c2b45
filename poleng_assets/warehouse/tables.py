"""Any table or view as it is, for notebooks: names of tables and columns, and rows by their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection as Connection

if TYPE_CHECKING:
    import pyarrow as pa


def table_columns(con: Connection) -> dict[str, list[str]]:
    """Return the columns of each table and view, by its name."""
    rows = con.execute(
        """SELECT table_name, column_name FROM duckdb_columns()
        WHERE NOT internal AND schema_name = 'main' ORDER BY table_name, column_index"""
    ).fetchall()
    columns: dict[str, list[str]] = {}
    for table, column in rows:
        columns.setdefault(table, []).append(column)
    return columns


def read_rows(con: Connection, table: str, columns: Sequence[str], where: Mapping[str, object]) -> pa.Table:
    """Return some columns of the rows that have these values, None where the column is to be empty.

    Table and columns must be names that :func:`table_columns` gives.
    """
    listed = ", ".join(f'"{name}"' for name in columns)
    matching = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in where) or "true"
    return con.sql(
        f'SELECT {listed} FROM "{table}" WHERE {matching}',  # noqa: S608 - names that the warehouse has
        params=list(where.values()),
    ).to_arrow_table()
