"""Release of corrected rows from quarantine into their file."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.ingestion.contract import FileRefused, as_payload, check_rows, required_columns
from poleng_assets.core.ingestion.quarantine.reading import read_sheet
from poleng_assets.core.ingestion.quarantine.sheet import (
    LINE,
    ROW_NUMBER,
    QuarantinedRow,
    as_text,
    mended_values,
    quarantined_rows,
)
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.files import FileRecord, file_record, update_file
from poleng_assets.warehouse.holdout import keep_duplicates_together
from poleng_assets.warehouse.outcomes import assign_batches
from poleng_assets.warehouse.people import rename_file, row_numbers_by_id
from poleng_assets.warehouse.quarantine import remove_rows, source_of
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets.warehouse.writes import insert, transaction

# While released rows of a field study get their part. No file may have this name.
_APART = "{}@released"


@dataclass(frozen=True)
class Released:
    """What became of a sheet of corrected rows, and how the file stands since.

    Attributes:
        file: as it is now: its data have another hash after each release.
        released: rows that left quarantine now.
        still_broken: rows of the sheet that stay there.
        already: rows of the sheet that were released before; they are left as they are.
    """

    kind: Kind
    file: FileRecord
    released: int
    still_broken: int
    already: int

    def in_words(self) -> str:
        """Describe what became of the rows of the sheet, and how many are left."""
        parts = [f"{_rows(self.released)} of {self.kind}/{self.file.name} released"]
        if self.still_broken:
            parts.append(f"{_rows(self.still_broken)} of the sheet still broken")
        if self.already:
            parts.append(f"{_rows(self.already)} of the sheet released before")
        return f"{', '.join(parts)}; {_rows(self.file.rows_quarantined)} left in quarantine"


def release(
    con: Connection,
    study: Study,
    kind: Kind,
    name: str,
    sheet: Path,
    *,
    reason: str,
    dagster_run_id: str | None = None,
) -> Released:
    """Release corrected rows into the file that they came with, in one transaction.

    Each row goes through the same contract as in ingestion. Sound ones get the place in the warehouse
    that their number says; the others stay in quarantine, with what is wrong now. Rows that the sheet
    does not hold are left alone, and so are those that were released before: the same sheet again
    changes nothing. Released rows of a field study are training rows, unless people with their id or
    their answers have another part (``core/ingestion/holdout.py``): who was settled before stays where they
    are.

    Args:
        sheet: CSV as ``mending_sheet`` makes it; only the row number and the needed columns are read.

    Raises:
        LookupError: no such file was taken in.
        FileRefused: the sheet cannot be read, or speaks of rows that the file does not have, or changes
            an id that was not broken. Nothing was written.
    """
    source = source_of(kind, name)
    with transaction(con):
        file_record(con, kind, name)
        needed = required_columns(study, kind)
        mended = read_sheet(sheet, study, kind)
        waiting = quarantined_rows(con, kind, name)
        kept = row_numbers_by_id(con, study, kind, name)
        already = set(kept.values()).intersection(mended).difference(waiting)
        _refuse_unknown_rows(mended, waiting, already, source)
        known = {n: mended_values(mended[n], waiting[n], needed) for n in sorted(mended) if n in waiting}
        # A row without any answer is one that nobody has filled in yet.
        todo = {number: values for number, values in known.items() if any(values.values())}
        _refuse_changed_ids(todo, waiting, study.id, needed)
        sound, broken = _check(study, kind, todo, waiting, kept)
        changed = _replace_faults(con, source, broken, waiting) or len(sound) > 0
        if len(sound):
            _put_back(con, study, kind, name, sound)
        result = Released(
            kind=kind,
            file=file_record(con, kind, name),
            released=len(sound),
            still_broken=len(known) - len(sound),
            already=len(already),
        )
        if changed:
            _record(con, result, reason, dagster_run_id)
    return result


def _record(con: Connection, result: Released, reason: str, dagster_run_id: str | None) -> None:
    record_decision(
        con,
        "release",
        f"{result.in_words()}: {reason}",
        evidence={
            "source": source_of(result.kind, result.file.name),
            "released": result.released,
            "still_broken": result.still_broken,
            "left_in_quarantine": result.file.rows_quarantined,
            "data_hash": result.file.data_hash,
        },
        batch=result.file.name if result.kind == "batches" else None,
        dagster_run_id=dagster_run_id,
    )


def _refuse_unknown_rows(
    mended: Iterable[int], waiting: Mapping[int, QuarantinedRow], already: set[int], source: str
) -> None:
    unknown = sorted(number for number in mended if number not in waiting and number not in already)
    if unknown:
        raise FileRefused(f"{source} has no {_numbered(unknown)}: is this the sheet of another file?")


def _refuse_changed_ids(
    todo: Mapping[int, Mapping[str, str]],
    waiting: Mapping[int, QuarantinedRow],
    id_: str,
    needed: Sequence[str],
) -> None:
    """Refuse a sheet in which an id was changed that was not broken: spreadsheets turn 007 into 7."""
    changed = [
        number
        for number, values in todo.items()
        if id_ not in {column for column, _ in waiting[number].faults}
        and not waiting[number].line(needed)
        and values[id_].strip() != as_text(waiting[number].values.get(id_)).strip()
    ]
    if changed:
        raise FileRefused(
            f"{id_} was valid and has been changed in {_numbered(changed)}. Spreadsheets turn "
            "007 into 7: open the sheet with that column as text"
        )


def _check(
    study: Study,
    kind: Kind,
    todo: Mapping[int, Mapping[str, str]],
    waiting: Mapping[int, QuarantinedRow],
    kept: Mapping[str, int],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the sound rows as the warehouse stores them, and the faults of the others as quarantine does."""
    needed = required_columns(study, kind)
    table = pa.table({column: pa.array([r[column] for r in todo.values()], pa.string()) for column in needed})
    checked = check_rows(table, study, kind, row_numbers=np.array(list(todo), dtype=np.int64))
    sound = checked.frame()
    taken = dict(kept)
    repeated: dict[int, int] = {}
    for number, person in zip(sound[ROW_NUMBER], sound[study.id], strict=True):
        if person in taken:
            repeated[int(number)] = taken[person]
        else:
            taken[person] = int(number)
    again = [
        (number, study.id, f"the id stands in row {other} already", as_payload(dict(todo[number])))
        for number, other in repeated.items()
    ]
    broken = pd.concat(
        [checked.broken, pd.DataFrame(again, columns=checked.broken.columns)], ignore_index=True
    )
    broken["payload"] = [
        _with_line(payload, waiting[number], needed)
        for number, payload in zip(broken[ROW_NUMBER], broken["payload"], strict=True)
    ]
    return sound[~sound[ROW_NUMBER].isin(list(repeated))], broken


def _with_line(payload: str, row: QuarantinedRow, needed: Sequence[str]) -> str:
    """Keep the text of a row that had the wrong number of fields, as long as it is not put back."""
    line = row.line(needed)
    return json.dumps({**json.loads(payload), LINE: line}, ensure_ascii=False) if line else payload


def _replace_faults(
    con: Connection, source: str, broken: pd.DataFrame, waiting: Mapping[int, QuarantinedRow]
) -> bool:
    """Write down what is wrong with rows now; return whether that is anything new."""
    now_wrong = {
        int(str(number)): QuarantinedRow(
            faults["payload"].iloc[0],
            tuple(sorted(zip(faults["column_name"], faults["reason"], strict=True))),
        )
        for number, faults in broken.groupby(ROW_NUMBER)
    }
    new = [number for number, row in now_wrong.items() if row != waiting[number]]
    if not new:
        return False
    remove_rows(con, source, new)
    insert(con, "quarantine", broken[broken[ROW_NUMBER].isin(new)].assign(source=source))
    return True


def _put_back(con: Connection, study: Study, kind: Kind, name: str, sound: pd.DataFrame) -> None:
    """Give sound rows their place in the warehouse, and the data of their file another hash."""
    table, key = ROW_TABLES[kind]
    if kind == "field_studies":
        apart = _APART.format(name)
        insert(con, table, sound.assign(**{key: apart, "part": "train"}))
        # As a study of their own: beside it, the rows that were kept at ingestion are settled.
        keep_duplicates_together(con, study, apart)
        rename_file(con, kind, apart, name)
    elif kind == "outcomes":
        insert(con, table, sound.assign(**{key: name, "batch": name}))
        assign_batches(con, study, name)
    else:
        insert(con, table, sound.assign(**{key: name}))
    numbers = [int(number) for number in sound[ROW_NUMBER]]
    remove_rows(con, source_of(kind, name), numbers)
    record = file_record(con, kind, name)
    update_file(
        con,
        kind,
        name,
        rows_kept=record.rows_kept + len(numbers),
        rows_quarantined=record.rows_quarantined - len(numbers),
        data_hash=_hash_with(record.data_hash, sound),
    )


def _hash_with(data_hash: str, sound: pd.DataFrame) -> str:
    """Return the SHA-256 of what the data were, and of the rows that they have since."""
    rows = sound.sort_values(ROW_NUMBER).to_json(orient="records")
    return hashlib.sha256(f"{data_hash}\n{rows}".encode()).hexdigest()


def _numbered(rows: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in rows[:10])
    return f"row{'' if len(rows) == 1 else 's'} {shown}{' and more' if len(rows) > 10 else ''}"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
