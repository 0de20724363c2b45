"""What was erased from the warehouse: of which batch, study or file, how many rows, when, and by which rule.

Nobody is named here. Without it a list that was delivered and erased could not be told from one that was
never made. Erasures on request (``core/privacy/warehouse_erasure.py``) leave no trace by which a person could
be found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from duckdb import DuckDBPyConnection as Connection

NAMED = 10


@dataclass(frozen=True)
class Erasure:
    """Rows of one table that belonged together and were kept long enough.

    Attributes:
        table: that they stood in.
        name: of the batch, the field study, the file of outcomes, or the file that rows in quarantine are of.
        rule: of the study, with its days.
    """

    table: str
    name: str
    rows: int
    erased_at: datetime
    rule: str

    def in_words(self) -> str:
        """Describe when and why, without a full stop."""
        return f"erased on {self.erased_at:%Y-%m-%d}, by {self.rule}"


def record_erasures(
    con: Connection,
    table: str,
    key: str,
    condition: str,
    values: Mapping[str, Any],
    days: int,
    moment: datetime,
) -> None:
    """Write down what is about to be erased; to be called inside the same transaction.

    Args:
        table: that loses rows; its alias in ``condition`` is ``rows``.
        key: the column by whose values rows belong together.
        condition: of the rows, as SQL.
    """
    con.execute(
        f"""INSERT INTO erasures (table_name, name, rows, erased_at, rule)
        SELECT '{table}', rows."{key}", count(*), $moment, $rule FROM {table} rows
        WHERE {condition} GROUP BY ALL ORDER BY 2""",  # noqa: S608
        {**values, "moment": moment, "rule": f"policies.retention.{table}: {days} days"},
    )


def count_as_erased(con: Connection, kind: str, name: str, kept: int = 0, quarantined: int = 0) -> None:
    """Keep the account of a file: rows that are erased are no longer kept or in quarantine.

    A field study without some of its rows is other data to learn from: its data get another hash, so that
    a retraining does not take a model of the same file for the same model.
    """
    con.execute(
        """UPDATE ingested_files SET rows_kept = rows_kept - $kept,
            rows_quarantined = rows_quarantined - $quarantined,
            rows_erased = coalesce(rows_erased, 0) + $kept + $quarantined,
            data_hash = CASE WHEN kind = 'field_studies' AND $kept > 0
                THEN sha256(coalesce(data_hash, content_hash) || ' erased ' || $kept) ELSE data_hash END
        WHERE kind = $kind AND name = $name""",
        {"kind": kind, "name": name, "kept": kept, "quarantined": quarantined},
    )


@dataclass(frozen=True)
class StudyData:
    """A field study whose rows are others than those of its file."""

    name: str
    content_hash: str
    data_hash: str
    rows: int


def changed_studies(con: Connection) -> list[StudyData]:
    """Return the field studies whose data changed since their files were taken in."""
    rows = con.execute(
        """SELECT name, content_hash, data_hash, rows_kept FROM ingested_files
        WHERE kind = 'field_studies' AND data_hash IS NOT NULL AND withdrawn_at IS NULL ORDER BY name"""
    ).fetchall()
    return [StudyData(*row) for row in rows]


def erasures_of(con: Connection, *tables: str) -> list[Erasure]:
    """Return what was erased from some tables, oldest first."""
    rows = con.execute(
        """SELECT table_name, name, rows, erased_at, rule FROM erasures
        WHERE list_contains($tables, table_name) ORDER BY erased_at, table_name, name""",
        {"tables": list(tables)},
    ).fetchall()
    return [Erasure(*row) for row in rows]


def newest_erasures(con: Connection, table: str) -> dict[str, Erasure]:
    """Return the newest erasure from a table of each batch, study or file that lost rows, by its name."""
    return {erasure.name: erasure for erasure in erasures_of(con, table)}


def summary(erasures: Sequence[Erasure]) -> list[str]:
    """Return in words what was erased, one sentence for each day and rule, without a full stop."""
    days: dict[str, list[Erasure]] = {}
    for erasure in erasures:
        days.setdefault(erasure.in_words(), []).append(erasure)
    return [
        f"{sum(erasure.rows for erasure in erased):,} rows of {erased[0].table}{_names(erased)} were {how}"
        for how, erased in days.items()
    ]


def _names(erased: Sequence[Erasure]) -> str:
    names = sorted({erasure.name for erasure in erased})
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f" ({', '.join(names[:NAMED])}{more})" if names else ""
