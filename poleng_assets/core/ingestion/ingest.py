"""How a dropped file becomes rows of the warehouse: read, checked, committed in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.data.parallel import prefetch
from poleng_assets.core.data.versions import place
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
from poleng_assets.core.ingestion.holdout import (
    balance_holdout,
    draw_holdout,
    keep_duplicates_together,
)
from poleng_assets.core.ingestion.outcome_matches import (
    EARLIER_ROW,
    LATER_ROW,
    refuse_if_nobody_is_met,
)
from poleng_assets.storage.dropped_files import content_hash, file_id
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets.warehouse.writes import (
    insert,
    limited_memory,
    monotonic_timestamp,
    replace_partition,
    transaction,
)


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
    con: duckdb.DuckDBPyConnection,
    study: Study,
    kind: Kind,
    path: Path,
    name: str | None = None,
    confirm: Callable[[], None] | None = None,
) -> Ingested:
    """Take one file into the warehouse, whole or not at all.

    The same name with other content is a new version of the file, taken in beside the earlier one. A
    file whose content was taken in before under the same name is left as it is and said to be there
    already, so that a run that died after its commit can simply run again. The rows of a field study
    get their part (``core/ingestion/holdout.py``) in the same transaction, and keep it.

    Args:
        con: of the warehouse.
        study: what the file must be like.
        kind: of the file.
        path: of the file.
        name: the id of a file from the archive; of one in landing it follows from its name and content.
        confirm: called before what was read is committed. When it raises, nothing is.

    Raises:
        FileRefused: the file cannot be read, breaks the contract, has no rows, repeats the content of a
            file of another name or the rows of any earlier one (``core/ingestion/duplicates.py``), or has
            outcomes of nobody who stands in a batch (``core/ingestion/outcome_matches.py``). Nothing was
            written.
    """
    digest = content_hash(path)
    name = name or id_of(con, kind, path, digest)
    known = _known(con, kind, name, digest)
    if known is not None:
        return known
    table, key = ROW_TABLES[kind]
    constants = {key: name}
    if kind == "field_studies":
        constants["part"] = "train"  # until the draw
    if kind == "outcomes":
        constants["batch"] = name
    read = quarantined = 0
    limit = study.policies.ingestion.max_expanded_megabytes * 2**20
    with transaction(con), open_file(path, required_columns(study, kind), max_bytes=limit) as file:
        ignored = check_columns(file.columns, study, kind)

        def check(chunk: Chunk) -> tuple[Chunk, CheckedRows]:
            return chunk, check_rows(chunk.rows, study, kind, chunk.row_numbers, ascii_only=file.ascii_only)

        with limited_memory(con, len(study.features)):
            # The next rows are read and checked while the warehouse takes in these.
            for chunk, checked in prefetch(map(check, file.chunks())):
                insert(con, table, _with_constants(checked.rows, constants))
                for broken in (checked.broken, _as_broken(chunk.malformed)):
                    if len(broken):
                        insert(con, "quarantine", broken.assign(source=_source(kind, name)))
                read += chunk.rows.num_rows + len(chunk.malformed)
                quarantined += checked.broken_rows + len(chunk.malformed)
                _refuse_if_hopeless(con, study, kind, name, file, read, quarantined)
            refuse_if_cut_off(con, study, table, key, name, file)
            repeated = _has_repeated_ids(con, study, kind, name)
        later = _set_repeated_ids_apart(con, study, kind, name) if repeated else 0
        # A correction further down is no fault of a file of outcomes.
        _refuse_if_too_broken(
            con, study, kind, name, read, quarantined + (later if kind != "outcomes" else 0)
        )
        quarantined += later
        fingerprint = refuse_if_known(con, study, kind, name)
        if kind == "outcomes":
            find_batches(con, study, name)
            refuse_if_nobody_is_met(con, study, name)
        if kind == "field_studies":
            # Of the rows that are kept, after the last chunk: a stratum, and people with the same answers,
            # may stand anywhere in the file.
            set_aside_repeats(con, study, name)
            draw_holdout(con, study, name)
            keep_duplicates_together(con, study, name)
            balance_holdout(con, study, name)
        result = Ingested(name, digest, read, read - quarantined, quarantined, tuple(ignored))
        taken_in = _file_row(kind, result, monotonic_timestamp(con, "ingested_files", "ingested_at"))
        insert(con, "ingested_files", taken_in.assign(rows_fingerprint=fingerprint))
        if confirm is not None:
            confirm()
    return result


def record_refusal(
    con: duckdb.DuckDBPyConnection, kind: Kind, path: Path, rows: int | None, reason: str
) -> None:
    """Write down that a file was refused, once for each content.

    Args:
        con: of the warehouse.
        kind: of the file.
        path: of the file, still in landing.
        rows: in the file, None when it cannot be read.
        reason: for the person who dropped it.
    """
    digest = content_hash(path)
    file = {"kind": kind, "file": path.name, "content_hash": digest}
    refused_at = monotonic_timestamp(con, "refused_files", "refused_at")
    refusal = pd.DataFrame([{"rows": rows, "reason": reason, "refused_at": refused_at}])
    with transaction(con):
        replace_partition(con, "refused_files", file, refusal)


def id_of(con: duckdb.DuckDBPyConnection, kind: Kind, path: Path, digest: str | None = None) -> str:
    """Return the id under which a file belongs: its name, or a version of it.

    Args:
        con: of the warehouse.
        kind: of the file.
        path: of the file; its name is the one that it was dropped under.
        digest: hash of its content, when it is known already.
    """
    files = con.execute("SELECT name, content_hash FROM ingested_files WHERE kind = ?", [kind]).fetchall()
    return place(file_id(path.name), digest or content_hash(path), dict(files))


def _known(con: duckdb.DuckDBPyConnection, kind: Kind, name: str, digest: str) -> Ingested | None:
    """Return what is known of this very file; refuse the content of a file of another name."""
    found = con.execute(
        """SELECT name, content_hash, rows_read, rows_kept, rows_quarantined, ignored_columns, ingested_at
        FROM ingested_files WHERE kind = $kind AND (name = $name OR content_hash = $digest)
        ORDER BY name <> $name""",
        {"kind": kind, "name": name, "digest": digest},
    ).fetchall()
    for other, taken_in, read, kept, quarantined, ignored, when in found:
        if other == name:
            columns = tuple(ignored.split(", ")) if ignored else ()
            return Ingested(name, taken_in, read, kept, quarantined, columns, already=True)
        raise FileRefused(
            f"the same content was taken in as {other!r} on {when:%Y-%m-%d %H:%M} UTC; "
            "it is not taken in twice"
        )
    return None


def _with_constants(rows: pa.Table, constants: Mapping[str, str]) -> pa.Table:
    """Add columns that hold the same text in every row."""
    for column, text in constants.items():
        same = pa.DictionaryArray.from_arrays(np.zeros(rows.num_rows, dtype=np.int8), pa.array([text]))
        rows = rows.append_column(column, same)
    return rows


def _as_broken(malformed: tuple[Malformed, ...]) -> pd.DataFrame:
    """Return records that are no rows as quarantine has them: no column can be told, the text is kept."""
    rows = [(row.row_number, "*", row.reason, as_payload({"line": row.line})) for row in malformed]
    return pd.DataFrame(rows, columns=QUARANTINE_COLUMNS)


def _has_repeated_ids(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> bool:
    """Whether an id may stand in several rows of a file.

    Ids with different hashes are different, and ten million hashes take a quarter of their ids' memory.
    Where two hashes are the same, the ids themselves must be looked at.
    """
    table, key = ROW_TABLES[kind]
    rows, hashes = con.execute(
        f'SELECT count(*), count(DISTINCT hash("{study.id}")) FROM {table} WHERE {key} = ?',  # noqa: S608
        [name],
    ).fetchall()[0]
    return bool(rows != hashes)


def _set_repeated_ids_apart(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> int:
    """Keep one row of each id of a file; the others go to quarantine. Return how many.

    The first one stays, but of outcomes the last: there, a row further down is a correction.
    """
    table, key = ROW_TABLES[kind]
    features = [f'"{column}"' for column in study.feature_names] if kind != "outcomes" else []
    target = [f'"{study.target.name}"'] if kind != "batches" else []
    payload = ", ".join(f"{column} := {column}" for column in [f'"{study.id}"', *features, *target])
    order, reason = ("DESC", LATER_ROW) if kind == "outcomes" else ("ASC", EARLIER_ROW)
    repeated = f"""SELECT row_number FROM {table} WHERE {key} = ?
        QUALIFY row_number() OVER (PARTITION BY "{study.id}" ORDER BY row_number {order}) > 1"""  # noqa: S608
    con.execute(
        f"""INSERT INTO quarantine BY NAME
        SELECT ? AS source, row_number, ? AS column_name, ? AS reason,
            to_json(struct_pack({payload}))::VARCHAR AS payload
        FROM {table} WHERE {key} = ? AND row_number IN ({repeated})""",  # noqa: S608
        [_source(kind, name), study.id, reason, name, name],
    )
    removed = con.execute(
        f"DELETE FROM {table} WHERE {key} = ? AND row_number IN ({repeated}) RETURNING row_number",  # noqa: S608
        [name, name],
    ).fetchall()
    return len(removed)


def find_batches(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> None:
    """Say for each outcome in which batch its respondent stands, whatever the file is called.

    That is the batch which the file is named after when it has the respondent, else the newest one that
    has. An outcome that comes before every batch of its respondent keeps the name of its file. Nothing
    is measured by this column: outcomes meet scores by id alone
    (``core/monitoring/realised_performance.py``).
    """
    con.execute(
        f"""UPDATE outcomes SET batch = found.batch FROM (
            SELECT b."{study.id}" AS _person, b.batch FROM batch_rows b
            LEFT JOIN ingested_files f ON f.kind = 'batches' AND f.name = b.batch
            WHERE b."{study.id}" IN (SELECT "{study.id}" FROM outcomes WHERE source = $name)
            QUALIFY row_number() OVER (
                PARTITION BY b."{study.id}"
                ORDER BY b.batch = $name DESC, f.ingested_at DESC NULLS LAST, b.batch DESC) = 1
        ) found
        WHERE outcomes.source = $name AND outcomes."{study.id}" = found._person""",  # noqa: S608
        {"name": name},
    )


def _refuse_if_hopeless(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    kind: Kind,
    name: str,
    file: OpenFile,
    read: int,
    quarantined: int,
) -> None:
    """Stop as soon as more rows are broken than could be tolerated if all that may follow were sound."""
    limit = study.policies.ingestion.max_quarantined_share
    if read < file.rows_at_most and quarantined > limit * file.rows_at_most:
        raise _too_broken(con, study, kind, name, f"{quarantined} of the first {read} rows")


def _refuse_if_too_broken(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, read: int, quarantined: int
) -> None:
    if read == 0:
        raise FileRefused("the file has no rows")
    if quarantined / read > study.policies.ingestion.max_quarantined_share:
        raise _too_broken(con, study, kind, name, f"{quarantined} of {read} rows")


def _too_broken(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, how_many: str
) -> FileRefused:
    worst = con.execute(
        """SELECT column_name, reason, count(*) AS n, min(row_number) FROM quarantine
        WHERE source = ? GROUP BY ALL ORDER BY n DESC, 4, 1 LIMIT 3""",
        [_source(kind, name)],
    ).fetchall()
    examples = "; ".join(f"{column}: {why} ({n} rows, first {row})" for column, why, n, row in worst)
    limit = study.policies.ingestion.max_quarantined_share
    return FileRefused(f"{how_many} break the contract, {limit:.0%} are tolerated: {examples}")


def _source(kind: Kind, name: str) -> str:
    return f"{kind}/{name}"


def _file_row(kind: Kind, result: Ingested, ingested_at: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "name": result.name,
                "content_hash": result.content_hash,
                "rows_read": result.rows_read,
                "rows_kept": result.rows_kept,
                "rows_quarantined": result.rows_quarantined,
                "ignored_columns": ", ".join(result.ignored_columns),
                "ingested_at": ingested_at,
            }
        ]
    )
