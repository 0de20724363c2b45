"""Field studies put into the warehouse as ingestion does, and the parts that their people have there."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.writes import insert

Connection = duckdb.DuckDBPyConnection
SHARE = 0.15


def put(con: Connection, name: str, rows: pd.DataFrame) -> None:
    """Insert the rows of a field study as ingestion does before the draw: all of them to be learned from."""
    numbers = np.arange(len(rows)) + 1
    insert(con, "field_study_rows", rows.assign(field_study=name, row_number=numbers, part="train"))


def parts_of(con: Connection, study: Study, name: str) -> dict[str, str]:
    """Return the part of each id of a field study."""
    found = con.execute(f'SELECT "{study.id}", part FROM field_study_rows WHERE field_study = ?', [name])
    return dict(found.fetchall())


def straddling(con: Connection, columns: list[str]) -> int:
    """Count the values of these columns that stand on both sides."""
    listed = ", ".join(f'"{column}"' for column in columns)
    return len(
        con.execute(
            f"""SELECT count(*) FROM field_study_rows WHERE part <> 'set_aside' GROUP BY {listed}
            HAVING count(DISTINCT part) > 1"""
        ).fetchall()
    )
