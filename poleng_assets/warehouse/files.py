"""Tables ``ingested_files`` and ``refused_files``: every file, and what became of its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import duckdb

from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets.warehouse.writes import insert, monotonic_timestamp, replace_partition, transaction


@dataclass(frozen=True)
class FileRecord:
    """A file that was taken in.

    Attributes:
        name: its id.
        content_hash: of the file as it was dropped.
        data_hash: of its rows as they are now: the content's, until rows are released.
        rows_read: in the file.
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


def file_records(con: duckdb.DuckDBPyConnection, kind: Kind) -> list[FileRecord]:
    """Return every file of a kind that was taken in, the newest first, by name within a moment."""
    rows = con.execute(
        """SELECT name, content_hash, coalesce(data_hash, content_hash), rows_read, rows_kept,
            rows_quarantined, coalesce(rows_erased, 0), ignored_columns, rows_fingerprint, archived_hash,
            ingested_at, withdrawn_at
        FROM ingested_files WHERE kind = ? ORDER BY ingested_at DESC, name""",
        [kind],
    ).fetchall()
    return [FileRecord(*row) for row in rows]


def file_record(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> FileRecord:
    """Return a file that was taken in.

    Raises:
        LookupError: no such file was taken in.
    """
    for record in file_records(con, kind):
        if record.name == name:
            return record
    raise LookupError(f"no file {name} was taken in as {kind}: see poleng quarantine list")


def earlier_files(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> list[FileRecord]:
    """Return the files of a kind that were taken in before one, or before now, the newest first."""
    records = file_records(con, kind)
    moments = [record.ingested_at for record in records if record.name == name]
    return [r for r in records if r.name != name and (not moments or r.ingested_at < moments[0])]


def rows_quarantined(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> int:
    """Return how many rows of a file broke the contract; 0 when it was not taken in."""
    rows = con.execute(
        "SELECT rows_quarantined FROM ingested_files WHERE kind = ? AND name = ?", [kind, name]
    ).fetchall()
    return int(rows[0][0]) if rows else 0


def content_hashes(con: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """Return kind and content hash of every file that was taken in."""
    return set(con.execute("SELECT kind, content_hash FROM ingested_files").fetchall())


def names_of_files(con: duckdb.DuckDBPyConnection, kind: Kind) -> list[str]:
    """Return the names of the files of a kind that were taken in."""
    rows = con.execute("SELECT name FROM ingested_files WHERE kind = ?", [kind]).fetchall()
    return [name for (name,) in rows]


def newest_files(con: duckdb.DuckDBPyConnection, kind: Kind, most: int) -> list[str]:
    """Return the names of the files of a kind that were taken in last, newest first."""
    rows = con.execute(
        "SELECT name FROM ingested_files WHERE kind = ? ORDER BY ingested_at DESC, name LIMIT ?", [kind, most]
    ).fetchall()
    return [name for (name,) in rows]


def add_file(con: duckdb.DuckDBPyConnection, kind: Kind, columns: Mapping[str, Any]) -> None:
    """Write down a file that is taken in now; to be called inside the transaction that inserted its rows."""
    import pandas as pd

    ingested_at = monotonic_timestamp(con, "ingested_files", "ingested_at")
    insert(con, "ingested_files", pd.DataFrame([{"kind": kind, **columns, "ingested_at": ingested_at}]))


def add_refusal(
    con: duckdb.DuckDBPyConnection, kind: Kind, file: str, content_hash: str, rows: int | None, reason: str
) -> None:
    """Write down that a file was refused, once for each content.

    Args:
        con: of the warehouse.
        kind: of the file.
        file: its name in landing.
        content_hash: of the file.
        rows: in the file, None when it cannot be read.
        reason: for the person who dropped it.
    """
    import pandas as pd

    refused_at = monotonic_timestamp(con, "refused_files", "refused_at")
    refusal = pd.DataFrame([{"rows": rows, "reason": reason, "refused_at": refused_at}])
    key = {"kind": kind, "file": file, "content_hash": content_hash}
    with transaction(con):
        replace_partition(con, "refused_files", key, refusal)


def set_fingerprint(con: duckdb.DuckDBPyConnection, kind: Kind, name: str, fingerprint: str) -> None:
    """Keep the fingerprint of a file's rows."""
    con.execute(
        "UPDATE ingested_files SET rows_fingerprint = ? WHERE kind = ? AND name = ?",
        [fingerprint, kind, name],
    )


def set_archived_hash(con: duckdb.DuckDBPyConnection, kind: Kind, name: str, archived_hash: str) -> None:
    """Keep the hash of an archived file from which people were erased."""
    con.execute(
        "UPDATE ingested_files SET archived_hash = ? WHERE kind = ? AND name = ?", [archived_hash, kind, name]
    )


def set_withdrawn_at(con: duckdb.DuckDBPyConnection, names: Collection[str], moment: datetime | None) -> None:
    """Mark field studies as withdrawn at a moment, or as counting again (None)."""
    con.execute(
        """UPDATE ingested_files SET withdrawn_at = ?
        WHERE kind = 'field_studies' AND list_contains(?::VARCHAR[], name)""",
        [moment, list(names)],
    )


def move_out_of_quarantine(
    con: duckdb.DuckDBPyConnection, kind: Kind, name: str, rows: int, data_hash: str
) -> None:
    """Count rows of a file as kept that were in quarantine, and give its data another hash."""
    con.execute(
        """UPDATE ingested_files SET rows_kept = rows_kept + $rows,
            rows_quarantined = rows_quarantined - $rows, data_hash = $data_hash
        WHERE kind = $kind AND name = $name""",
        {"rows": rows, "data_hash": data_hash, "kind": kind, "name": name},
    )


class FileRows(NamedTuple):
    """Where the rows of one file are, counted: read, kept, of those with a score, in quarantine, erased."""

    read: int
    kept: int
    scored: int
    quarantined: int
    erased: int


def count_file_rows(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> FileRows:
    """Count where the rows of a file are; of field studies and outcomes, all that are kept count as scored.

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
    return FileRows(*rows[0])


class BatchRows(NamedTuple):
    """The rows of all batches: read, kept, waiting for a score, in quarantine, in refused files, erased."""

    read: int
    kept: int
    waiting: int
    quarantined: int
    refused: int
    erased: int


def count_batch_rows(con: duckdb.DuckDBPyConnection) -> BatchRows:
    """Count where the rows of all batches are.

    Rows without a score are counted batch by batch, because this is done with every batch and a join of all
    people of all years would take longer with each of them.
    """
    (row,) = con.execute(
        """WITH kept AS (SELECT batch, count(*) AS rows FROM batch_rows GROUP BY batch),
        scorings AS (
            SELECT batch, scored_at, count(*) AS rows FROM predictions GROUP BY batch, scored_at),
        current AS (SELECT batch, arg_max(rows, scored_at) AS rows FROM scorings GROUP BY batch)
        SELECT
            (SELECT coalesce(sum(rows_read), 0) FROM ingested_files WHERE kind = 'batches'),
            (SELECT coalesce(sum(rows), 0) FROM kept),
            (SELECT coalesce(sum(greatest(kept.rows - coalesce(current.rows, 0), 0)), 0)
                FROM kept LEFT JOIN current USING (batch)),
            (SELECT count(DISTINCT (source, row_number)) FROM quarantine WHERE source LIKE 'batches/%'),
            (SELECT coalesce(sum(rows), 0) FROM refused_files WHERE kind = 'batches'),
            (SELECT coalesce(sum(rows_erased), 0) FROM ingested_files WHERE kind = 'batches')"""
    ).fetchall()
    return BatchRows(*map(int, row))
