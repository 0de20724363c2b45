"""The contract of ingestion: which columns a file must have and which codes they may hold.

Columns decide about the file, codes about the row: a file without a column is refused, a row with a
code that no answer can have goes to quarantine. A *nominal* code that the study does not list is
neither: a new country is news, kept and counted by the overseer.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from poleng_assets.core.data.subject_ids import as_written, is_id_type, is_number_or_text, is_uuid, trimmed
from poleng_assets.core.features.answers import NO_CODE, UNKNOWN, read_answers
from poleng_assets.core.ingestion.headers import listed, missing_in_words
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Feature, Study, Target

QUARANTINE_COLUMNS = ["row_number", "column_name", "reason", "payload"]
MAX_ID = 200  # characters
_CONTROL = r"[\p{Cc}\p{Zl}\p{Zp}]"  # newlines of every kind, tabs, NUL, ...
_MAX_SHOWN = 100  # characters of a value, in the reason why it is broken


class FileRefused(Exception):
    """A file that cannot be taken in; the message is for the person who dropped it."""


@dataclass(frozen=True)
class CheckedRows:
    """Rows in canonical types, and what was wrong with the others.

    Attributes:
        rows: the sound rows as the warehouse stores them, with their ``row_number`` in the file; text that
            repeats is an Arrow dictionary.
        broken: one row for each fault, with the columns ``QUARANTINE_COLUMNS``; the payload has the
            needed values of the row as JSON, as they were written, so that nothing is lost.
    """

    rows: pa.Table
    broken: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return the sound rows as a frame with nullable types; a large file is faster left as it is."""
        types = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype("pyarrow")}
        plain = pa.table(
            {
                name: rows.cast(rows.type.value_type) if pa.types.is_dictionary(rows.type) else rows
                for name, rows in zip(self.rows.column_names, self.rows.columns, strict=True)
            }
        )
        return plain.to_pandas(types_mapper=types.get).astype({"row_number": "int64"})

    @property
    def broken_rows(self) -> int:
        """Return how many rows have at least one fault."""
        return self.broken["row_number"].nunique()


def required_columns(study: Study, kind: Kind) -> list[str]:
    """Return the columns that a file of this kind must have."""
    features = [] if kind == "outcomes" else study.feature_names
    target = [] if kind == "batches" else [study.target.name]
    return [study.id, *features, *target]


def check_columns(columns: Sequence[str], study: Study, kind: Kind) -> list[str]:
    """Return the columns of a file that the study does not use; they are left out.

    A name may be empty, more than once, too: a delimiter at the end of each line makes such a column.

    Raises:
        FileRefused: a column is missing, or stands twice. The message says which are there, and which of
            them are nearest to the missing ones.
    """
    needed = required_columns(study, kind)
    missing = [name for name in needed if name not in columns]
    present = missing_in_words(missing, columns)
    if missing == needed:
        raise FileRefused(
            f"none of the needed columns is there ({listed(needed)}): does the file have a header row, and "
            f"is it whole? {present}".rstrip()
        )
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise FileRefused(f"the column {', '.join(twice)} stands twice")
    if missing:
        hint = ""
        if missing == [study.target.name]:
            hint = " (the target: a file without it is a batch, for landing/batches)"
        raise FileRefused(
            f"{_count(len(missing), 'column')} missing: {listed(missing)}{hint}. A file of {kind} needs: "
            f"{listed(needed)}. {present}".rstrip()
        )
    return [name for name in columns if name and name not in needed]


def check_rows(
    table: pa.Table,
    study: Study,
    kind: Kind,
    row_numbers: np.ndarray | None = None,
    *,
    ascii_only: bool = False,
) -> CheckedRows:
    """Convert rows into canonical types and separate the invalid ones.

    Args:
        table: rows as read from the file, with every required column, of any type.
        kind: of the file; batches have no target.
        row_numbers: int64, the number in the file of each row; by default they begin with 1.
        ascii_only: the encoding was guessed, so only ASCII text can be trusted.

    Raises:
        FileRefused: a column is of a kind that holds no answers, such as lists, dates or pictures.
    """
    numbers = np.arange(1, table.num_rows + 1) if row_numbers is None else row_numbers
    names = required_columns(study, kind)
    columns: dict[str, pa.Array] = {"row_number": pa.array(numbers, pa.int64())}
    faults: list[tuple[int, str, str]] = []
    for name in names:
        if name == study.id:
            columns[name], column_faults = read_ids(name, _one_array(table[name]), ascii_only)
        else:
            question = study.target if name == study.target.name else study.feature(name)
            columns[name], column_faults = _codes(_plain(name, table[name]), question, ascii_only)
        if name in (study.id, study.target.name):
            column_faults.append(_empty(columns[name], column_faults))
        faults += [(index, name, reason) for fault in column_faults for index, reason in fault.each()]
    rows = pa.table(columns)
    if faults:
        sound = np.ones(table.num_rows, dtype=bool)
        sound[[index for index, _, _ in faults]] = False
        rows = rows.filter(pa.array(sound))
    written = _plain_texts(table.select(names))
    if faults and is_uuid(table[study.id].type):
        # Quarantine keeps ids in the same form as all other tables.
        written = written.set_column(0, study.id, as_written(_one_array(table[study.id]))[0])
    return CheckedRows(rows, _broken(written, numbers, faults))


def _plain(name: str, values: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; a dictionary of text or numbers may be one.

    Raises:
        FileRefused: it holds no answers.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (is_number_or_text(kind) or pa.types.is_boolean(kind)):
        raise FileRefused(f"the column {name} holds {kind}, but answers are codes, as numbers or text")
    try:
        if pa.types.is_dictionary(values.type):
            return values.combine_chunks()
        return values.cast(pa.string() if pa.types.is_string_view(kind) else kind).combine_chunks()
    except pa.ArrowException as error:
        raise FileRefused(f"the column {name} holds {values.type}, not answers: {error}") from error


def _plain_texts(table: pa.Table) -> pa.Table:
    """Return a table without views of texts, of which Arrow takes no rows."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
    return table


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    return _each(values.combine_chunks())


def _each(values: pa.Array) -> pa.Array:
    """Return a dictionary as the values of its rows."""
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


@dataclass(frozen=True)
class _Fault:
    """What may be wrong with the values of a column: why, in which rows, and which values to show."""

    reason: str
    rows: pa.BooleanArray
    values: pa.Array

    def each(self) -> Iterator[tuple[int, str]]:
        """Yield the place of each broken row, from 0, and the reason."""
        if self.rows.true_count:
            indices = np.flatnonzero(self.rows)
            for index, value in zip(indices, self.values.take(pa.array(indices)).to_pylist(), strict=True):
                yield int(index), self.reason.format(value=_shown(value))


def _codes(values: pa.Array, question: Feature | Target, ascii_only: bool) -> tuple[pa.Array, list[_Fault]]:
    """Return the codes, and which values are none or are not among those of the question."""
    answers = read_answers(values, question)
    no_code = pc.or_(answers.no_code, _not_ascii(_each(values))) if ascii_only else answers.no_code
    unknown = pc.and_(answers.unknown, pc.invert(no_code))
    return answers.codes, [
        _Fault(f"{{value}} {NO_CODE}", no_code, values),
        _Fault(f"{{value}} {UNKNOWN}", unknown, answers.codes),
    ]


def _empty(values: pa.Array, faults: Sequence[_Fault]) -> _Fault:
    """Return which values are missing without a fault that says why."""
    rows = values.is_null()
    for fault in faults:
        rows = pc.and_(rows, pc.invert(fault.rows))
    return _Fault("is empty", rows, values)


def read_ids(name: str, values: pa.Array, ascii_only: bool) -> tuple[pa.Array, list[_Fault]]:
    """Return the ids as text (``core/data/subject_ids.py`` has the rule), and what is wrong with them.

    The reasons do not name the id: they stand in logs and messages.

    Raises:
        FileRefused: the column is of a type that tells nobody apart, such as truth values.
    """
    if not is_id_type(values.type):
        raise FileRefused(
            f"the column {name} holds {values.type}, which cannot be ids: ids are text, whole numbers "
            "or UUIDs"
        )
    raw, inexact = as_written(values)
    text = trimmed(raw)
    control = pc.and_(text.is_valid(), pc.match_substring_regex(raw, _CONTROL))
    faults = [
        _Fault("is no whole number that can be told from its neighbours", inexact, values),
        _Fault("holds a control character", pc.fill_null(control, False), raw),
        _Fault(
            f"is longer than {MAX_ID} characters",
            pc.fill_null(pc.greater(pc.utf8_length(text), MAX_ID), False),
            raw,
        ),
    ]
    if ascii_only:
        why = "holds a character whose encoding is not known: save the file as UTF-8"
        faults.append(_Fault(why, _not_ascii(raw), raw))
    return text, faults


def _not_ascii(values: pa.Array) -> pa.BooleanArray:
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return pa.repeat(False, len(values))
    return pc.fill_null(pc.invert(pc.string_is_ascii(values)), False)


def _shown(value: object) -> str:
    # A number stands as it is, a text in quotes: blanks around it can be seen then.
    shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."


def _broken(table: pa.Table, numbers: np.ndarray, faults: list[tuple[int, str, str]]) -> pd.DataFrame:
    """Return what goes to quarantine, one row for each fault, in the order of the file."""
    indices = sorted({index for index, _, _ in faults})
    rows = table.take(pa.array(indices, pa.int64())).to_pylist()
    payloads = {index: as_payload(row) for index, row in zip(indices, rows, strict=True)}
    return pd.DataFrame(
        [(int(numbers[index]), name, reason, payloads[index]) for index, name, reason in sorted(faults)],
        columns=QUARANTINE_COLUMNS,
    )


def as_payload(row: dict[str, Any]) -> str:
    """Return what a row held as JSON; NaN and infinity, which JSON has not, as null and text."""
    for name, value in row.items():
        if isinstance(value, float) and not np.isfinite(value):
            row[name] = None if np.isnan(value) else str(value)
    return json.dumps(row, default=str, ensure_ascii=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"
