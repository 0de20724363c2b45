"""How long rows are kept: which have been there long enough, and what is written down when they go.

Rows of files count from the day the file was taken in, everything else from the day it was made. The ledger
(``decisions``, ``ingested_files``, ``training_sets``) is never touched. What is done with files is in
``poleng_assets/operations/retention.py``.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.policies import RetentionPolicy
from poleng_assets.warehouse.erasures import count_as_erased, record_erasures
from poleng_assets.warehouse.schema import ROW_TABLES

_TAKEN_IN = "(SELECT ingested_at FROM ingested_files f WHERE f.kind = '{kind}' AND f.name = rows.{key})"
# A metric has no time of its own: it is as old as its report, or as its batch when that is gone.
_REPORTED = f"""coalesce((SELECT max(reported_at) FROM drift_reports r WHERE r.batch = rows.batch
    AND r.model_version = rows.model_version), {_TAKEN_IN.format(kind="batches", key="batch")})"""  # noqa: S608


@dataclass(frozen=True)
class _Table:
    """From when on a row counts, the column by which rows belong together, and the batch, if it has one."""

    since: str
    key: str = "batch"
    batch: str = "rows.batch"


# Metrics come before the reports that they are dated by.
_TABLES: dict[str, _Table] = {
    "batch_rows": _Table(_TAKEN_IN.format(kind="batches", key="batch")),
    "field_study_rows": _Table(
        _TAKEN_IN.format(kind="field_studies", key="field_study"), "field_study", batch="''"
    ),
    "outcomes": _Table(_TAKEN_IN.format(kind="outcomes", key="source"), "source", batch="''"),
    "quarantine": _Table(
        "(SELECT ingested_at FROM ingested_files f WHERE f.kind || '/' || f.name = rows.source)",
        "source",
        batch="rows.source",
    ),
    "predictions": _Table("rows.scored_at"),
    "contact_lists": _Table("rows.created_at"),
    "drift_metrics": _Table(_REPORTED),
    "performance": _Table(_REPORTED),
    "drift_reports": _Table("rows.reported_at"),
    "field_study_requests": _Table("rows.requested_at"),
}


def erase_expired(
    con: Connection, policy: RetentionPolicy, moment: datetime, waiting: Collection[str]
) -> Counter[str]:
    """Delete the rows that have been kept long enough; to be called inside a transaction.

    ``ingested_files`` follows: a row that is erased is no longer kept or in quarantine. ``erasures`` says of
    each batch and file what went, when and by which rule, and nothing of a person.

    Args:
        waiting: batches whose list is still to be made: nothing of theirs goes.

    Returns:
        Rows erased, by table.
    """
    erased: Counter[str] = Counter()
    for name, table in _TABLES.items():
        days = getattr(policy, name)
        if days is None:
            continue
        condition = f"{table.since} < $before AND NOT list_contains($waiting, {table.batch})"
        values = {
            "before": moment - timedelta(days=days),
            "waiting": [f"batches/{batch}" if name == "quarantine" else batch for batch in waiting],
        }
        _count_in_files(con, name, table.key, condition, values)
        record_erasures(con, name, table.key, condition, values, days, moment)
        gone = con.execute(
            f"""DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} rows WHERE {condition})
            RETURNING 1""",  # noqa: S608
            values,
        ).fetchall()
        erased[name] = len(gone)
    return +erased


def _count_in_files(con: Connection, table: str, key: str, condition: str, values: dict[str, Any]) -> None:
    """Keep the account of the files whose rows are about to go; other tables hold no rows of files."""
    kinds: dict[str, str] = {name: kind for kind, (name, _) in ROW_TABLES.items()}
    counted = "count(DISTINCT row_number)" if table == "quarantine" else "count(*)"
    if table not in kinds and table != "quarantine":
        return
    for name, rows in con.execute(
        f"SELECT {key}, {counted} FROM {table} rows WHERE {condition} GROUP BY 1",  # noqa: S608
        values,
    ).fetchall():
        if table == "quarantine":
            kind, _, file = name.partition("/")
            count_as_erased(con, kind, file, quarantined=rows)
        else:
            count_as_erased(con, kinds[table], name, kept=rows)
