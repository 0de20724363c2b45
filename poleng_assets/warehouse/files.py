"""Tables ``ingested_files`` and ``refused_files``: every file, and what became of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets.warehouse.writes import insert, monotonic_timestamp, replace_partition, transaction


@dataclass(frozen=True)
class FileRecord:
    """A file that was taken in.

    Attributes:
        content_hash: of the file as it was dropped.
        data_hash: of its rows as they are now: the content's, until rows are released.
        rows_kept: of those, in the warehouse now.
        rows_quarantined: of those, in quarantine now.
        rows_erased: of those, removed since.
        ignored_columns: that the study does not use, with commas between them.
        rows_fingerprint: of the rows in any order (``core/ingestion/duplicates.py``), None when never made.
        archived_hash: of the archived file since people were erased from it.
        ingested_at: when it was taken in.
        withdrawn_at: when a field study was withdrawn, None when it counts.
    """

    name: str
    content_hash: str
    data_hash: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    rows_erased: int
    ignored_columns: str
    rows_fingerprint: str | None
    archived_hash: str | None
    ingested_at: datetime
    withdrawn_at: datetime | None


def file_records(con: Connection, kind: Kind) -> list[FileRecord]:
    """Return every file of a kind that was taken in, the newest first, by name within a moment."""
    rows = con.execute(
        """SELECT name, content_hash, coalesce(data_hash, content_hash), rows_read, rows_kept,
            rows_quarantined, coalesce(rows_erased, 0), ignored_columns, rows_fingerprint, archived_hash,
            ingested_at, withdrawn_at
        FROM ingested_files WHERE kind = ? ORDER BY ingested_at DESC, name""",
        [kind],
    ).fetchall()
    return [FileRecord(*row) for row in rows]


def file_record(con: Connection, kind: Kind, name: str) -> FileRecord:
    """Return a file that was taken in.

    Raises:
        LookupError: no such file was taken in.
    """
    for record in file_records(con, kind):
        if record.name == name:
            return record
    raise LookupError(f"no file {name} was taken in as {kind}: see poleng quarantine list")


def earlier_files(con: Connection, kind: Kind, name: str) -> list[FileRecord]:
    """Return the files of a kind that were taken in before one, or before now, the newest first."""
    records = file_records(con, kind)
    moments = [record.ingested_at for record in records if record.name == name]
    return [r for r in records if r.name != name and (not moments or r.ingested_at < moments[0])]


def rows_quarantined(con: Connection, kind: Kind, name: str) -> int:
    """Return how many rows of a file broke the contract; 0 when it was not taken in."""
    rows = con.execute(
        "SELECT rows_quarantined FROM ingested_files WHERE kind = ? AND name = ?", [kind, name]
    ).fetchall()
    return int(rows[0][0]) if rows else 0


def content_hashes(con: Connection) -> set[tuple[str, str]]:
    """Return kind and content hash of every file that was taken in."""
    return set(con.execute("SELECT kind, content_hash FROM ingested_files").fetchall())


def names_of_files(con: Connection, kind: Kind) -> list[str]:
    """Return the names of the files of a kind that were taken in, the newest first."""
    return [record.name for record in file_records(con, kind)]


def add_file(con: Connection, kind: Kind, columns: Mapping[str, Any]) -> None:
    """Write down a file that is taken in now; to be called inside the transaction that inserted its rows."""
    import pandas as pd

    ingested_at = monotonic_timestamp(con, "ingested_files", "ingested_at")
    insert(con, "ingested_files", pd.DataFrame([{"kind": kind, **columns, "ingested_at": ingested_at}]))


def add_refusal(
    con: Connection, kind: Kind, file: str, content_hash: str, rows: int | None, reason: str
) -> None:
    """Write down that a file was refused, once for each content.

    Args:
        file: its name in landing.
        rows: in the file, None when it cannot be read.
    """
    import pandas as pd

    refused_at = monotonic_timestamp(con, "refused_files", "refused_at")
    refusal = pd.DataFrame([{"rows": rows, "reason": reason, "refused_at": refused_at}])
    key = {"kind": kind, "file": file, "content_hash": content_hash}
    with transaction(con):
        replace_partition(con, "refused_files", key, refusal)


def update_file(con: Connection, kind: Kind, name: str, **columns: Any) -> None:
    """Write other values into some columns of a file that was taken in."""
    assignments = ", ".join(f"{column} = ${column}" for column in columns)
    con.execute(
        f"UPDATE ingested_files SET {assignments} WHERE kind = $_kind AND name = $_name",  # noqa: S608
        {**columns, "_kind": kind, "_name": name},
    )


def count_file_rows(con: Connection, study: Study, kind: Kind, name: str) -> tuple[int, int, int, int, int]:
    """Count a file's rows: read, kept, of those with a score, in quarantine, erased.

    Of field studies and outcomes, all that are kept count as scored.

    Raises:
        LookupError: no such file was taken in.
    """
    table, key = ROW_TABLES[kind]
    scored = "true"
    if kind == "batches":
        scored = f"""EXISTS (SELECT 1 FROM current_predictions p
            WHERE p.batch = kept.batch AND p."{study.id}" = kept."{study.id}")"""  # noqa: S608
    rows = con.execute(
        f"""SELECT rows_read,
            (SELECT count(*) FROM {table} kept WHERE {key} = $name),
            (SELECT count(*) FROM {table} kept WHERE {key} = $name AND {scored}),
            (SELECT count(DISTINCT row_number) FROM quarantine WHERE source = $source),
            coalesce(rows_erased, 0)
        FROM ingested_files WHERE kind = $kind AND name = $name""",  # noqa: S608
        {"name": name, "kind": kind, "source": f"{kind}/{name}"},
    ).fetchall()
    if not rows:
        raise LookupError(f"no file {name} was taken in as {kind}")
    return rows[0]


def count_batch_rows(con: Connection) -> tuple[int, ...]:
    """Count the rows of all batches: read, with a score, in quarantine, in refused files, erased, waiting.

    Rows that wait for a score are counted batch by batch, because this is done with every batch and a join of
    all people of all years would take longer with each of them.
    """
    (counts,) = con.execute(
        """WITH kept AS (SELECT batch, count(*) AS rows FROM batch_rows GROUP BY batch),
        scorings AS (
            SELECT batch, scored_at, count(*) AS rows FROM predictions GROUP BY batch, scored_at),
        current AS (SELECT batch, arg_max(rows, scored_at) AS rows FROM scorings GROUP BY batch),
        unscored AS (SELECT coalesce(sum(greatest(kept.rows - coalesce(current.rows, 0), 0)), 0) AS rows
            FROM kept LEFT JOIN current USING (batch))
        SELECT
            (SELECT coalesce(sum(rows_read), 0) FROM ingested_files WHERE kind = 'batches'),
            (SELECT coalesce(sum(rows), 0) FROM kept) - (SELECT rows FROM unscored),
            (SELECT count(DISTINCT (source, row_number)) FROM quarantine WHERE source LIKE 'batches/%'),
            (SELECT coalesce(sum(rows), 0) FROM refused_files WHERE kind = 'batches'),
            (SELECT coalesce(sum(rows_erased), 0) FROM ingested_files WHERE kind = 'batches'),
            (SELECT rows FROM unscored)"""
    ).fetchall()
    return tuple(map(int, counts))
