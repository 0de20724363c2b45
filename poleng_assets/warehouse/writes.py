"""The few ways in which rows are written.

Every write is one transaction, and every insert goes by column name: DuckDB inserts by position
otherwise, and a frame with its columns in another order would swap answers silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection as Connection

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What DuckDB needs on two threads while rows stream through grows with their columns: 150 of them fail with
# 100 MB, 300 with 150 MB, and 33 pass with less. This is twice as much.
MEGABYTES_OF_A_STREAM = 40
MEGABYTES_OF_A_COLUMN = 2


@contextmanager
def transaction(con: Connection, *, dry_run: bool = False) -> Iterator[None]:
    """Commit what happens inside, or nothing of it; ``dry_run``: nothing of it, whatever happens."""
    con.begin()
    try:
        yield
    except BaseException:
        con.rollback()
        raise
    if dry_run:
        con.rollback()
    else:
        con.commit()


@contextmanager
def limited_memory(con: Connection, columns: int) -> Iterator[None]:
    """Let DuckDB keep little while rows stream through, and as much as before afterwards.

    What it would keep of them are copies of what it has written by then. Sorting, and commits, are better
    left outside: they need more. After an error the little remains: DuckDB may take no words any more, and
    the file is about to be closed.
    """
    usual, threads = con.execute(
        "SELECT current_setting('memory_limit'), current_setting('threads')"
    ).fetchall()[0]
    little = (MEGABYTES_OF_A_STREAM + MEGABYTES_OF_A_COLUMN * columns) * max(1.0, threads / 2)
    con.execute(f"SET memory_limit = '{min(usual, f'{little}MB', key=_bytes)}'")
    yield
    con.execute(f"SET memory_limit = '{usual}'")


def _bytes(size: str) -> float:
    """Return how many bytes DuckDB means by a size such as ``476.8 MiB`` or ``126MB``."""
    number, unit = re.fullmatch(r"([\d.]+) *(\w+)", size).groups()  # type: ignore[union-attr]
    return float(number) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "MB": 1e6}[unit]


def insert(con: Connection, table: str, incoming: pd.DataFrame | pa.Table) -> None:
    """Insert rows by column name; raises ``duckdb.Error`` when a column does not exist."""
    # DuckDB finds the variable by its name. Rows that are registered with it would stay in memory until the
    # transaction ends, all the chunks of a large file together.
    con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608


def replace_partition(con: Connection, table: str, where: Mapping[str, Any], rows: pd.DataFrame) -> None:
    """Replace the rows that ``where`` selects; to be called inside a transaction."""
    condition = " AND ".join(f'"{column}" = ?' for column in where)
    con.execute(f"DELETE FROM {table} WHERE {condition}", list(where.values()))  # noqa: S608
    if len(rows):
        insert(con, table, rows.assign(**where))


def monotonic_timestamp(con: Connection, table: str, column: str) -> datetime:
    """Return the time of day, or a moment after the newest row of a table when the clock went back.

    What is written later counts as later, whatever the clock says: the newest scores of a batch are the
    current ones, and the newest decision counts.
    """
    ((newest,),) = con.execute(f'SELECT max("{column}") FROM {table}').fetchall()  # noqa: S608
    return now() if newest is None else max(now(), newest + timedelta(microseconds=1))


def now() -> datetime:
    """Return the time of day, with its zone: the warehouse stores instants."""
    return datetime.now(UTC)
