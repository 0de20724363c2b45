"""Rows in quarantine: what is wrong with them, a sheet to mend them in, and how mended rows are put back."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.contacts.contact_list import as_it_was, harmless
from poleng_assets.core.ingestion.contract import (
    FileRefused,
    as_payload,
    check_columns,
    check_rows,
    required_columns,
)
from poleng_assets.core.ingestion.files.open_file import open_file
from poleng_assets.core.ingestion.holdout import keep_duplicates_together
from poleng_assets.core.ingestion.ingest import ROW_TABLES, find_batches
from poleng_assets.storage.dropped_files import has_known_suffix
from poleng_assets.storage.home import KINDS, Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.writes import insert, transaction

ROW_NUMBER = "row_number"
WHAT_IS_WRONG = "what_is_wrong"
# A row with the wrong number of fields has no values: its payload is its text, under this name.
LINE = "line"
WHOLE_ROW = "*"

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_ROW_NUMBER = re.compile(r"0*([1-9][0-9]{0,17})(\.0+)?")
# While released rows of a field study get their part. No file may have this name.
_APART = "{}@released"


@dataclass(frozen=True)
class Quarantined:
    """One file's rows in quarantine: how many, and the commonest faults as (column, reason, rows)."""

    source: str
    rows: int
    commonest: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one row."""

    row_number: int
    column: str
    reason: str


@dataclass(frozen=True)
class Released:
    """What became of a sheet of mended rows, and how the file stands since.

    Attributes:
        kind: of the file.
        name: the id that it was taken in under.
        content_hash: of the file as it was dropped.
        data_hash: of its data as they are now: another one after each release.
        released: rows that left quarantine now.
        still_broken: rows of the sheet that stay there.
        already: rows of the sheet that were put back before; they are left as they are.
        rows_read: in the file.
        rows_kept: of those, in the warehouse now.
        rows_quarantined: of those, in quarantine now.
    """

    kind: Kind
    name: str
    content_hash: str
    data_hash: str
    released: int
    still_broken: int
    already: int
    rows_read: int
    rows_kept: int
    rows_quarantined: int

    def in_words(self) -> str:
        """Tell what became of the rows of the sheet, and how many are left."""
        words = [f"{_rows(self.released)} of {self.kind}/{self.name} put back"]
        if self.still_broken:
            words.append(f"{_rows(self.still_broken)} of the sheet still broken")
        if self.already:
            words.append(f"{_rows(self.already)} of the sheet put back before")
        return f"{', '.join(words)}; {_rows(self.rows_quarantined)} left in quarantine"


@dataclass(frozen=True)
class _Row:
    """A row in quarantine: its values as they were read, and its faults as (column, reason)."""

    payload: str
    faults: tuple[tuple[str, str], ...]

    @property
    def values(self) -> dict[str, Any]:
        return dict(json.loads(self.payload))


def parse_source(source: str) -> tuple[Kind, str]:
    """Return kind and id of a file from what quarantine calls it, such as ``batches/march``.

    Raises:
        LookupError: it has another form.
    """
    kind, _, name = source.partition("/")
    for known in KINDS:
        if kind == known and name:
            return known, name
    raise LookupError(
        f"{source!r} is no source: it must be {', '.join(KINDS)}, a slash and a name, such as batches/march"
    )


def list_sources(con: duckdb.DuckDBPyConnection) -> list[Quarantined]:
    """Return the files that have rows in quarantine, by name, with their three commonest faults."""
    counted = con.execute(
        "SELECT source, count(DISTINCT row_number) FROM quarantine GROUP BY source ORDER BY source"
    ).fetchall()
    faults = con.execute(
        """SELECT source, column_name, reason, count(*) AS n FROM quarantine
        GROUP BY source, column_name, reason
        QUALIFY row_number() OVER (PARTITION BY source ORDER BY n DESC, column_name, reason) <= 3
        ORDER BY source, n DESC, column_name, reason"""
    ).fetchall()
    commonest: dict[str, list[tuple[str, str, int]]] = {source: [] for source, _ in counted}
    for source, column, reason, count in faults:
        commonest[source].append((column, reason, count))
    return [Quarantined(source, rows, tuple(commonest[source])) for source, rows in counted]


def list_faults(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> list[Fault]:
    """Return all that is wrong with the rows of one file, in the order of the file.

    Raises:
        LookupError: no such file was taken in.
    """
    _file(con, kind, name)
    found = con.execute(
        "SELECT row_number, column_name, reason FROM quarantine WHERE source = ? ORDER BY ALL",
        [f"{kind}/{name}"],
    ).fetchall()
    return [Fault(*one) for one in found]


def mending_sheet(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> str:
    """Return the rows of one file in quarantine as CSV, for a person to mend in a spreadsheet.

    One line for each row: its number, the columns that such a file needs as they were read, and what is
    wrong in words. A row with the wrong number of fields has empty answers, and its text in a column of
    its own. No cell is run as a formula (``core/contacts/contact_list.py:harmless``).

    Raises:
        LookupError: no such file was taken in.
    """
    _file(con, kind, name)
    needed = required_columns(study, kind)
    rows = _quarantined_rows(con, kind, name)
    lines = {number: _line(row, needed) for number, row in rows.items()}
    extra = [LINE] if any(lines.values()) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([ROW_NUMBER, *needed, *extra, WHAT_IS_WRONG])
    for number, row in rows.items():
        told = "; ".join(
            reason if column == WHOLE_ROW else f"{column}: {reason}" for column, reason in row.faults
        )
        answers = [_cell(row.values.get(column)) for column in needed]
        writer.writerow([number, *answers, *(harmless(lines[number]) for _ in extra), harmless(told)])
    # Without the mark, Excel reads UTF-8 as Windows-1252, and an id would come back as another one.
    return "\ufeff" + text.getvalue()


def release(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    kind: Kind,
    name: str,
    sheet: Path,
    *,
    reason: str,
    dagster_run_id: str | None = None,
) -> Released:
    """Put mended rows back into the file that they came with, in one transaction.

    Each row goes through the same contract as at the door. Sound ones get the place in the warehouse
    that their number says; the others stay in quarantine, with what is wrong now. Rows that the sheet
    does not hold are left alone, and so are those that were put back before: the same sheet again
    changes nothing. Released rows of a field study are training rows, unless people with their id or
    their answers have another part (``core/ingestion/holdout.py``): who was settled before stays where they
    are.

    Args:
        con: of the warehouse.
        study: what the rows must be like.
        kind: of the file.
        name: the id that it was taken in under.
        sheet: CSV as :func:`mending_sheet` makes it; only the row number and the needed columns are read.
        reason: why, for the ledger.
        dagster_run_id: of the run that does it, for the ledger.

    Raises:
        LookupError: no such file was taken in.
        FileRefused: the sheet cannot be read, or speaks of rows that the file does not have, or changes
            an id that was not broken. Nothing was written.
    """
    with transaction(con):
        _file(con, kind, name)
        needed = required_columns(study, kind)
        mended = _read_sheet(sheet, study, kind)
        waiting = _quarantined_rows(con, kind, name)
        already = _kept_rows(con, kind, name, [number for number in mended if number not in waiting])
        _refuse_unknown_rows(mended, waiting, already, f"{kind}/{name}")
        known = {n: _values(mended[n], waiting[n], needed) for n in sorted(mended) if n in waiting}
        # A row without any answer is one that nobody has filled in yet.
        todo = {number: values for number, values in known.items() if any(values.values())}
        _refuse_changed_ids(todo, waiting, study.id, needed)
        sound, broken = _check(con, study, kind, name, todo, waiting)
        changed = _replace_faults(con, kind, name, broken, waiting) or len(sound) > 0
        if len(sound):
            _put_back(con, study, kind, name, sound)
        content, data, read, kept, quarantined = _file(con, kind, name)
        result = Released(
            kind=kind,
            name=name,
            content_hash=content,
            data_hash=data,
            released=len(sound),
            still_broken=len(known) - len(sound),
            already=len(already),
            rows_read=read,
            rows_kept=kept,
            rows_quarantined=quarantined,
        )
        if changed:
            record_decision(
                con,
                "release",
                f"{result.in_words()}: {reason}",
                evidence={
                    "source": f"{kind}/{name}",
                    "released": result.released,
                    "still_broken": result.still_broken,
                    "left_in_quarantine": quarantined,
                    "data_hash": data,
                },
                batch=name if kind == "batches" else None,
                dagster_run_id=dagster_run_id,
            )
    return result


def data_hash(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> str:
    """Return the hash of a file's data as they are now: of its content, until rows are released.

    Raises:
        LookupError: no such file was taken in.
    """
    return _file(con, kind, name)[1]


def _file(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> tuple[str, str, int, int, int]:
    """Return content hash, data hash, rows read, kept and in quarantine of a file that was taken in."""
    found = con.execute(
        """SELECT content_hash, coalesce(data_hash, content_hash), rows_read, rows_kept, rows_quarantined
        FROM ingested_files WHERE kind = ? AND name = ?""",
        [kind, name],
    ).fetchall()
    if not found:
        raise LookupError(f"no file {name} was taken in as {kind}: see poleng quarantine list")
    return found[0]


def _quarantined_rows(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> dict[int, _Row]:
    found = con.execute(
        """SELECT row_number, any_value(payload), list((column_name, reason) ORDER BY column_name, reason)
        FROM quarantine WHERE source = ? GROUP BY row_number ORDER BY row_number""",
        [f"{kind}/{name}"],
    ).fetchall()
    return {number: _Row(payload, tuple(faults)) for number, payload, faults in found}


def _kept_rows(con: duckdb.DuckDBPyConnection, kind: Kind, name: str, numbers: list[int]) -> set[int]:
    table, key = ROW_TABLES[kind]
    found = con.execute(
        f"SELECT row_number FROM {table} WHERE {key} = ? AND row_number IN (SELECT unnest(?::BIGINT[]))",  # noqa: S608
        [name, numbers],
    ).fetchall()
    return {number for (number,) in found}


def _line(row: _Row, needed: Sequence[str]) -> str:
    return "" if LINE in needed else str(row.values.get(LINE, ""))


def _text(value: Any) -> str:
    """Return a value of a payload as the door reads it: no answer is empty, 20.0 is 20, true is 1."""
    if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value)


def _cell(value: Any) -> str:
    text = _text(value)
    # A code such as -1 is a number for a spreadsheet, not a formula.
    return text if _PLAIN_NUMBER.fullmatch(text) else harmless(text)


def _values(cells: Mapping[str, str], row: _Row, needed: Sequence[str]) -> dict[str, str]:
    """Return what a person wrote; a cell that nobody touched is the value that was read."""
    before = row.values
    return {
        name: _text(before.get(name)) if cells[name] == _cell(before.get(name)) else as_it_was(cells[name])
        for name in needed
    }


def _read_sheet(sheet: Path, study: Study, kind: Kind) -> dict[int, dict[str, str]]:
    """Return the needed cells of each row, by its number; of any delimiter, as spreadsheets save them."""
    columns = [ROW_NUMBER, *required_columns(study, kind)]
    if not has_known_suffix(sheet.name) or sheet.suffix == ".parquet" or not sheet.is_file():
        raise FileRefused(f"{sheet} is no CSV file")
    rows: dict[int, dict[str, str]] = {}
    limit = study.policies.ingestion.max_expanded_megabytes * 2**20
    with open_file(sheet, columns, max_bytes=limit) as file:
        if ROW_NUMBER not in file.columns:
            raise FileRefused(
                f"{sheet.name} has no column {ROW_NUMBER}: mend the sheet that "
                f"poleng quarantine list --source {kind}/NAME --out FILE.csv writes"
            )
        check_columns(file.columns, study, kind)
        for chunk in file.chunks():
            for bad in chunk.malformed:
                raise FileRefused(f"{sheet.name}, row {bad.row_number} below the header: {bad.reason}")
            for place, cells in zip(chunk.row_numbers, chunk.rows.to_pylist(), strict=True):
                where = f"{sheet.name}, row {place} below the header"
                written = {name: cell or "" for name, cell in cells.items()}
                # Spreadsheets leave lines of nothing but delimiters at the end.
                if any(cell.strip() for cell in written.values()):
                    number = _row_number(written.pop(ROW_NUMBER), where)
                    if number in rows:
                        raise FileRefused(f"{where}: {ROW_NUMBER} {number} stands there a second time")
                    rows[number] = written
                if file.ascii_only and not all(cell.isascii() for cell in written.values()):
                    raise FileRefused(f"{where}: a character cannot be told: save the sheet as 'CSV UTF-8'")
    return rows


def _row_number(cell: str, where: str) -> int:
    number = _ROW_NUMBER.fullmatch(cell.strip())
    if number is None:
        # The cell is not shown: where columns slipped, it may be anybody's id.
        raise FileRefused(f"{where}: what stands under {ROW_NUMBER} is no row number")
    return int(number[1])


def _refuse_unknown_rows(
    mended: Iterable[int], waiting: Mapping[int, _Row], already: set[int], source: str
) -> None:
    unknown = sorted(number for number in mended if number not in waiting and number not in already)
    if unknown:
        raise FileRefused(f"{source} has no {_numbered(unknown)}: is this the sheet of another file?")


def _refuse_changed_ids(
    todo: Mapping[int, Mapping[str, str]], waiting: Mapping[int, _Row], id_: str, needed: Sequence[str]
) -> None:
    """Refuse a sheet in which an id was changed that was not broken: spreadsheets turn 007 into 7."""
    changed = [
        number
        for number, values in todo.items()
        if id_ not in {column for column, _ in waiting[number].faults}
        and not _line(waiting[number], needed)
        and values[id_].strip() != _text(waiting[number].values.get(id_)).strip()
    ]
    if changed:
        raise FileRefused(
            f"{id_} was not broken, and is another one now, in {_numbered(changed)}. Spreadsheets turn "
            "007 into 7: open the sheet with that column as text"
        )


def _check(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    kind: Kind,
    name: str,
    todo: Mapping[int, Mapping[str, str]],
    waiting: Mapping[int, _Row],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the sound rows as the warehouse stores them, and the faults of the others as quarantine does."""
    needed = required_columns(study, kind)
    table = pa.table({column: pa.array([r[column] for r in todo.values()], pa.string()) for column in needed})
    checked = check_rows(table, study, kind, row_numbers=np.array(list(todo), dtype=np.int64))
    sound = checked.frame()
    taken = _taken_ids(con, study, kind, name)
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


def _taken_ids(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> dict[str, int]:
    table, key = ROW_TABLES[kind]
    found = con.execute(
        f'SELECT "{study.id}", row_number FROM {table} WHERE {key} = ?',  # noqa: S608
        [name],
    ).fetchall()
    return dict(found)


def _with_line(payload: str, row: _Row, needed: Sequence[str]) -> str:
    """Keep the text of a row that had the wrong number of fields, as long as it is not put back."""
    line = _line(row, needed)
    return json.dumps({**json.loads(payload), LINE: line}, ensure_ascii=False) if line else payload


def _replace_faults(
    con: duckdb.DuckDBPyConnection, kind: Kind, name: str, broken: pd.DataFrame, waiting: Mapping[int, _Row]
) -> bool:
    """Write down what is wrong with rows now; return whether that is anything new."""
    now_wrong = {
        int(str(number)): _Row(
            faults["payload"].iloc[0],
            tuple(sorted(zip(faults["column_name"], faults["reason"], strict=True))),
        )
        for number, faults in broken.groupby(ROW_NUMBER)
    }
    new = [number for number, row in now_wrong.items() if row != waiting[number]]
    if not new:
        return False
    _leave_quarantine(con, kind, name, new)
    insert(con, "quarantine", broken[broken[ROW_NUMBER].isin(new)].assign(source=f"{kind}/{name}"))
    return True


def _leave_quarantine(con: duckdb.DuckDBPyConnection, kind: Kind, name: str, numbers: Sequence[int]) -> None:
    con.execute(
        "DELETE FROM quarantine WHERE source = ? AND row_number IN (SELECT unnest(?::BIGINT[]))",
        [f"{kind}/{name}", list(numbers)],
    )


def _put_back(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, sound: pd.DataFrame
) -> None:
    """Give sound rows their place in the warehouse, and the data of their file another hash."""
    table, key = ROW_TABLES[kind]
    if kind == "field_studies":
        apart = _APART.format(name)
        insert(con, table, sound.assign(**{key: apart, "part": "train"}))
        # As a study of their own: beside it, the rows that were kept at the door are settled.
        keep_duplicates_together(con, study, apart)
        con.execute(f"UPDATE {table} SET {key} = ? WHERE {key} = ?", [name, apart])  # noqa: S608
    elif kind == "outcomes":
        insert(con, table, sound.assign(**{key: name, "batch": name}))
        find_batches(con, study, name)
    else:
        insert(con, table, sound.assign(**{key: name}))
    numbers = [int(number) for number in sound[ROW_NUMBER]]
    _leave_quarantine(con, kind, name, numbers)
    con.execute(
        """UPDATE ingested_files SET rows_kept = rows_kept + $moved,
            rows_quarantined = rows_quarantined - $moved, data_hash = $data_hash
        WHERE kind = $kind AND name = $name""",
        {
            "moved": len(numbers),
            "data_hash": _hash_with(data_hash(con, kind, name), sound),
            "kind": kind,
            "name": name,
        },
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
