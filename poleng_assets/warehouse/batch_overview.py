"""How each batch fared: one row for each batch and version, from reports, performance, scores and lists."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.warehouse.erasures import newest_erasures


@dataclass(frozen=True)
class BatchRow:
    """The state of one batch under one model version."""

    batch: str
    version: int
    rows: int
    verdict: str
    drifted_columns: int
    estimated_auc: float | None
    realised_auc: float | None
    flagged: int
    listed: int
    current: bool
    issued: int | None = None  # the version that the batch's newest list was made by
    erased: str = ""  # when and by which rule the list's rows were erased


def batch_overview(con: Connection, batches: Iterable[str] | None = None) -> list[BatchRow]:
    """Return the state of these batches, or of every batch, in the order of the reports."""
    wanted = None if batches is None else list(batches)
    rows = con.execute(
        """SELECT r.batch, r.model_version, r.rows, r.verdict, r.drifted_columns, r.estimated_auc,
            realised.value,
            (SELECT count(*) FILTER (p.contact) FROM predictions p
                WHERE p.batch = r.batch AND p.model_version = r.model_version),
            (SELECT count(*) FROM contact_lists l WHERE l.batch = r.batch
                AND l.list_number = (SELECT max(list_number) FROM issued_lists made
                    WHERE made.batch = r.batch AND made.model_version = r.model_version)),
            coalesce(r.model_version = (SELECT any_value(model_version) FROM current_predictions c
                WHERE c.batch = r.batch), -- where retention has erased the scores, the newest report tells
                r.reported_at = max(r.reported_at) OVER (PARTITION BY r.batch)),
            issued.model_version, issued.contacts, r.reported_at
        FROM drift_reports r LEFT JOIN performance realised
            ON realised.batch = r.batch AND realised.model_version = r.model_version
            AND realised.kind = 'realised' AND realised.metric = 'auc'
        LEFT JOIN (SELECT batch, arg_max(model_version, list_number) AS model_version,
                arg_max(contacts, list_number) AS contacts FROM issued_lists
            GROUP BY batch) issued ON issued.batch = r.batch
        WHERE $wanted IS NULL OR list_contains($wanted, r.batch) ORDER BY r.reported_at""",
        {"wanted": wanted},
    ).fetchall()
    lists, overview = newest_erasures(con, "contact_lists"), []
    for *facts, contacts, _ in rows:
        row = BatchRow(*facts)
        erased = lists.get(row.batch) if not row.listed else None
        if erased:
            row = replace(row, erased=erased.in_words(), listed=contacts or 0)
        overview.append(row)
    return overview
