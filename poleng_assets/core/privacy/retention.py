"""How long things are kept: which rows have been there long enough.

Rows of files count from the day the file was taken in, everything else from the day it was made. The ledger
(``decisions``, ``ingested_files``, ``training_sets``) is never touched. What is done with files stands in
``poleng_assets/operations/retention.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta

import duckdb

from poleng_assets.core.ingestion.ingest import ROW_TABLES
from poleng_assets.core.privacy.warehouse_erasure import rows_erased
from poleng_assets.storage.home import Kind
from poleng_assets.study.policies import RetentionPolicy
from poleng_assets.warehouse.erasures import record_erasures

_TAKEN_IN = "(SELECT ingested_at FROM ingested_files f WHERE f.kind = '{kind}' AND f.name = rows.{key})"
# A figure has no time of its own: it is as old as its report, or as its batch when that is gone.
_REPORTED = f"""coalesce((SELECT max(reported_at) FROM drift_reports r WHERE r.batch = rows.batch
    AND r.model_version = rows.model_version), {_TAKEN_IN.format(kind="batches", key="batch")})"""  # noqa: S608
# From when on a row of each table counts. Figures come before the reports that they are dated by.
_SINCE: dict[str, str] = {
    "batch_rows": _TAKEN_IN.format(kind="batches", key="batch"),
    "field_study_rows": _TAKEN_IN.format(kind="field_studies", key="field_study"),
    "outcomes": _TAKEN_IN.format(kind="outcomes", key="source"),
    "quarantine": "(SELECT ingested_at FROM ingested_files f WHERE f.kind || '/' || f.name = rows.source)",
    "predictions": "rows.scored_at",
    "contact_lists": "rows.created_at",
    "drift_metrics": _REPORTED,
    "performance": _REPORTED,
    "drift_reports": "rows.reported_at",
    "field_study_requests": "rows.requested_at",
}


def erase_expired(
    con: duckdb.DuckDBPyConnection, policy: RetentionPolicy, moment: datetime, waiting: Collection[str]
) -> Counter[str]:
    """Delete the rows that have been kept long enough; to be called inside a transaction.

    ``ingested_files`` follows: a row that is erased is no longer kept or in quarantine. ``erasures`` tells of
    each batch and file what went, when and by which rule, and nothing of a person.

    Args:
        con: of the warehouse.
        policy: days for each table.
        moment: the present one.
        waiting: batches whose list is still to be made: nothing of theirs goes.

    Returns:
        Rows erased, by table.
    """
    erased: Counter[str] = Counter()
    keys = {"quarantine": "source", "field_study_rows": "field_study", "outcomes": "source"}
    kinds: dict[str, Kind] = {table: kind for kind, (table, _) in ROW_TABLES.items()}
    for table, since in _SINCE.items():
        days = getattr(policy, table)
        if days is None:
            continue
        batch = {"quarantine": "rows.source", "field_study_rows": "''", "outcomes": "''"}.get(
            table, "rows.batch"
        )
        condition = f"{since} < $before AND NOT list_contains($waiting, {batch})"
        values = {
            "before": moment - timedelta(days=days),
            "waiting": [f"batches/{name}" if table == "quarantine" else name for name in waiting],
        }
        if table in kinds:
            kind, key = kinds[table], ROW_TABLES[kinds[table]][1]
            for name, rows in con.execute(
                f"SELECT {key}, count(*) FROM {table} rows WHERE {condition} GROUP BY 1",  # noqa: S608
                values,
            ).fetchall():
                rows_erased(con, kind, name, kept=rows)
        elif table == "quarantine":
            for source, rows in con.execute(
                f"""SELECT source, count(DISTINCT row_number) FROM quarantine rows
                WHERE {condition} GROUP BY 1""",  # noqa: S608
                values,
            ).fetchall():
                kind_name, _, name = source.partition("/")
                rows_erased(con, kind_name, name, quarantined=rows)
        record_erasures(con, table, keys.get(table, "batch"), condition, values, days, moment)
        gone = con.execute(
            f"""DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} rows WHERE {condition})
            RETURNING 1""",  # noqa: S608
            values,
        ).fetchall()
        erased[table] = len(gone)
    return +erased
