"""Ingestion of a file: read, validated, and committed in one transaction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.parallel import prefetch
from poleng_assets.core.data.versions import assign_id
from poleng_assets.core.ingestion.contract import (
    QUARANTINE_COLUMNS,
    CheckedRows,
    FileRefused,
    as_payload,
    check_columns,
    check_rows,
    required_columns,
)
from poleng_assets.core.ingestion.duplicates import refuse_if_known, set_aside_repeats
from poleng_assets.core.ingestion.files.base import Chunk, Malformed, OpenFile
from poleng_assets.core.ingestion.files.cut_off import refuse_if_cut_off
from poleng_assets.core.ingestion.files.open_file import open_file
from poleng_assets.core.ingestion.holdout import balance_holdout
from poleng_assets.core.ingestion.outcome_matches import refuse_if_nobody_is_met
from poleng_assets.storage.dropped_files import content_hash, file_id
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.files import add_file, add_refusal, file_records
from poleng_assets.warehouse.holdout import draw_holdout, keep_duplicates_together
from poleng_assets.warehouse.outcomes import assign_batches
from poleng_assets.warehouse.quarantine import may_repeat_ids, move_repeated_ids, source_of, worst_faults
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets.warehouse.writes import insert, limited_memory, transaction


@dataclass(frozen=True)
class Ingested:
    """What became of one file: every row read is kept or in quarantine.

    ``name`` is the id that the file was taken in under (``core/data/versions.py``). ``already``: its content
    stood in the warehouse before, and nothing was written.
    """

    name: str
    content_hash: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    ignored_columns: tuple[str, ...]
    already: bool = False


def ingest(
    con: Connection,
    study: Study,
    kind: Kind,
    path: Path,
    name: str | None = None,
    confirm: Callable[[], None] | None = None,
    digest: str | None = None,
) -> Ingested:
    """Take one file into the warehouse, whole or not at all.

    The same name with other content is a new version of the file, taken in beside the earlier one. A
    file whose content was taken in before under the same name is left as it is and said to be there
    already, so that a run that died after its commit can simply run again. The rows of a field study
    get their part (``warehouse/holdout.py``) in the same transaction, and keep it.

    Args:
        name: the id of a file from the archive; of one in landing it follows from its name and content.
        confirm: called before what was read is committed, which it prevents by raising.
        digest: content hash of the file, when it is known.

    Raises:
        FileRefused: the file cannot be read, breaks the contract, has no rows, repeats the content of a
            file of another name or the rows of any earlier one (``core/ingestion/duplicates.py``), or has
            outcomes of nobody who stands in a batch (``core/ingestion/outcome_matches.py``). Nothing was
            written.
    """
    digest = digest or content_hash(path)
    name = name or id_of(con, kind, path, digest)
    if (known := _known(con, kind, name, digest)) is not None:
        return known
    limit = study.policies.ingestion.max_expanded_megabytes * 2**20
    with transaction(con), open_file(path, required_columns(study, kind), max_bytes=limit) as file:
        ignored = check_columns(file.columns, study, kind)
        read, quarantined, ids_may_repeat = _insert_rows(con, study, kind, name, file)
        later = move_repeated_ids(con, study, kind, name) if ids_may_repeat else 0
        # A correction further down is no fault of a file of outcomes.
        broken = quarantined + (later if kind != "outcomes" else 0)
        _refuse_if_too_broken(con, study, kind, name, read, broken)
        quarantined += later
        fingerprint = refuse_if_known(con, study, kind, name)
        if kind == "outcomes":
            assign_batches(con, study, name)
            refuse_if_nobody_is_met(con, study, name)
        if kind == "field_studies":
            # Of the rows that are kept, after the last chunk: a stratum, and people with the same answers,
            # may stand anywhere in the file.
            for settle in (set_aside_repeats, draw_holdout, keep_duplicates_together, balance_holdout):
                settle(con, study, name)
        result = Ingested(name, digest, read, read - quarantined, quarantined, tuple(ignored))
        columns = {**vars(result), "ignored_columns": ", ".join(ignored), "rows_fingerprint": fingerprint}
        del columns["already"]
        add_file(con, kind, columns)
        if confirm is not None:
            confirm()
    return result


def _insert_rows(
    con: Connection, study: Study, kind: Kind, name: str, file: OpenFile
) -> tuple[int, int, bool]:
    """Check the rows of a file and insert them, sound or broken, as they stream by.

    Returns:
        How many were read, how many of them went to quarantine, and whether an id may stand there twice.
    """
    table, key = ROW_TABLES[kind]
    constants = {key: name}
    if kind == "field_studies":
        constants["part"] = "train"  # until the draw
    if kind == "outcomes":
        constants["batch"] = name
    read = quarantined = 0

    def check(chunk: Chunk) -> tuple[Chunk, CheckedRows]:
        return chunk, check_rows(chunk.rows, study, kind, chunk.row_numbers, ascii_only=file.ascii_only)

    with limited_memory(con, len(study.features)):
        # The next rows are read and checked while the warehouse takes in these.
        for chunk, checked in prefetch(map(check, file.chunks())):
            insert(con, table, _with_constants(checked.rows, constants))
            for broken in (checked.broken, _as_broken(chunk.malformed)):
                if len(broken):
                    insert(con, "quarantine", broken.assign(source=source_of(kind, name)))
            read += chunk.rows.num_rows + len(chunk.malformed)
            quarantined += checked.broken_rows + len(chunk.malformed)
            _refuse_if_hopeless(con, study, kind, name, file, read, quarantined)
        refuse_if_cut_off(con, study, kind, name, file)
        return read, quarantined, may_repeat_ids(con, study, kind, name)


def record_refusal(con: Connection, kind: Kind, path: Path, rows: int | None, reason: str) -> None:
    """Write down that a file was refused, once for each content.

    Args:
        path: of the file, still in landing.
        rows: in the file, None when it cannot be read.
    """
    add_refusal(con, kind, path.name, content_hash(path), rows, reason)


def id_of(con: Connection, kind: Kind, path: Path, digest: str | None = None) -> str:
    """Return the id under which a file belongs: its name, or a version of it.

    Args:
        path: of the file; its name is the one that it was dropped under.
        digest: hash of its content, when it is known already.
    """
    hashes = {record.name: record.content_hash for record in file_records(con, kind)}
    return assign_id(file_id(path.name), digest or content_hash(path), hashes)


def _known(con: Connection, kind: Kind, name: str, digest: str) -> Ingested | None:
    """Return what is known of this very file; refuse the content of a file of another name."""
    copies = []
    for record in file_records(con, kind):
        if record.name == name:
            return Ingested(
                name,
                record.content_hash,
                record.rows_read,
                record.rows_kept,
                record.rows_quarantined,
                tuple(record.ignored_columns.split(", ")) if record.ignored_columns else (),
                already=True,
            )
        if record.content_hash == digest:
            copies.append(record)
    for record in copies:
        raise FileRefused(
            f"the same content was ingested as {record.name!r} on {record.ingested_at:%Y-%m-%d %H:%M} UTC; "
            "it is not ingested twice"
        )
    return None


def _with_constants(rows: pa.Table, constants: Mapping[str, str]) -> pa.Table:
    for column, text in constants.items():
        same = pa.DictionaryArray.from_arrays(np.zeros(rows.num_rows, dtype=np.int8), pa.array([text]))
        rows = rows.append_column(column, same)
    return rows


def _as_broken(malformed: tuple[Malformed, ...]) -> pd.DataFrame:
    """Return records that are no rows as quarantine has them: no column can be told, the text is kept."""
    rows = [(row.row_number, "*", row.reason, as_payload({"line": row.line})) for row in malformed]
    return pd.DataFrame(rows, columns=QUARANTINE_COLUMNS)


def _refuse_if_hopeless(
    con: Connection, study: Study, kind: Kind, name: str, file: OpenFile, read: int, quarantined: int
) -> None:
    """Stop as soon as more rows are broken than could be tolerated if all that may follow were sound."""
    limit = study.policies.ingestion.max_quarantined_share
    if read < file.rows_at_most and quarantined > limit * file.rows_at_most:
        raise _too_broken(con, study, kind, name, f"{quarantined} of the first {read} rows")


def _refuse_if_too_broken(
    con: Connection, study: Study, kind: Kind, name: str, read: int, quarantined: int
) -> None:
    if read == 0:
        raise FileRefused("the file has no rows")
    if quarantined / read > study.policies.ingestion.max_quarantined_share:
        raise _too_broken(con, study, kind, name, f"{quarantined} of {read} rows")


def _too_broken(con: Connection, study: Study, kind: Kind, name: str, how_many: str) -> FileRefused:
    worst = worst_faults(con, source_of(kind, name), limit=3)
    examples = "; ".join(f"{column}: {why} ({n} rows, first {row})" for column, why, n, row in worst)
    limit = study.policies.ingestion.max_quarantined_share
    return FileRefused(f"{how_many} break the contract, {limit:.0%} are tolerated: {examples}")
