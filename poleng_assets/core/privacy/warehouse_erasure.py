"""Erasing a person from the warehouse, and finding what is left of them.

What belongs here is which rows and cells are a person's. What is done with files, models and bytes is in
``poleng_assets/operations/erase_person.py``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.privacy.subject import Person
from poleng_assets.study.schema import Study
from poleng_assets.warehouse import subject_rows
from poleng_assets.warehouse.erasures import count_as_erased
from poleng_assets.warehouse.schema import ROW_TABLES

# These name files, not people, and other rows refer to them.
_KEYS = {"kind", "name", "file", "batch", "source", "field_study", "content_hash", "training_data_hash"}
_NUMBERS = {"BIGINT", "INTEGER", "DOUBLE", "BOOLEAN"}
# Every table with the type of each of its columns.
_Tables = dict[str, dict[str, str]]


@dataclass
class ErasedRows:
    """What was erased from the warehouse: rows by table, and cells of other rows that named the person."""

    rows: Counter[str] = field(default_factory=Counter)
    mentions: Counter[str] = field(default_factory=Counter)

    @property
    def any(self) -> bool:
        """Whether the person was in the warehouse."""
        return bool(self.rows or self.mentions)


@dataclass(frozen=True)
class TraceReport:
    """How much of the warehouse was searched, and where the person still is."""

    tables: int
    columns: int
    traces: tuple[str, ...]


def erase_rows(con: Connection, person: Person) -> ErasedRows:
    """Delete a person's rows from every table; to be called inside a transaction.

    ``ingested_files`` follows: a row that is erased is no longer kept or in quarantine. An id that is in
    the text of another row is replaced there.
    """
    erased = ErasedRows()
    quarantined = _quarantined(con, person)
    for kind, (table, key) in ROW_TABLES.items():
        for name, rows in subject_rows.count_rows_by(con, table, key, person.column, person.ids):
            count_as_erased(con, kind, name, kept=rows)
    for source, numbers in _by_source(quarantined).items():
        kind_name, _, name = source.partition("/")
        count_as_erased(con, kind_name, name, quarantined=len(numbers))
        for number in sorted(numbers):
            subject_rows.delete_quarantined(con, source, number)
            erased.rows["quarantine"] += 1
    for table, columns in subject_rows.columns_of_tables(con).items():
        if person.column in columns:
            erased.rows[table] += subject_rows.delete_rows(con, table, person.column, person.ids)
        for column, row, text in _mentions(con, person, table, columns):
            if column not in _KEYS:
                subject_rows.replace_cell(con, table, column, row, person.redact(text))
                erased.mentions[table] += 1
    erased.rows = +erased.rows
    return erased


def find_traces(con: Connection, person: Person) -> TraceReport:
    """Look for a person in every column of every table.

    A short id is looked for in the columns of ids and in quarantined rows only: elsewhere it may be an
    answer (``core/privacy/subject.py``).
    """
    traces: Counter[str] = Counter()
    tables = subject_rows.columns_of_tables(con)
    for table, columns in tables.items():
        if person.column in columns:
            traces[f"table {table}, column {person.column}"] += subject_rows.count_rows(
                con, table, person.column, person.ids
            )
        for column, _, _ in _mentions(con, person, table, columns):
            traces[f"table {table}, column {column}"] += 1
    traces["table quarantine, column payload"] += len(_quarantined(con, person))
    for table, column, rows in _rows_with_marks(con, person, tables):
        traces[f"table {table}, {column}"] += rows
    lines = tuple(f"{name}: {count}" for name, count in sorted((+traces).items()))
    return TraceReport(len(tables), sum(map(len, tables.values())), lines)


def raw_lines_in_quarantine(con: Connection) -> int:
    """Return how many quarantined rows are a line that could not be split: a short id is not found there."""
    return sum(set(payload) == {"line"} for _, _, payload in subject_rows.quarantined_payloads(con))


def locate_rows(con: Connection, person: Person) -> dict[str, int]:
    """Return how many rows of each table are the person's; quarantine counts rows of files."""
    counts = {
        table: subject_rows.count_rows(con, table, person.column, person.ids)
        for table, columns in subject_rows.columns_of_tables(con).items()
        if person.column in columns
    }
    counts["quarantine"] = sum(map(len, _by_source(_quarantined(con, person)).values()))
    return {table: rows for table, rows in counts.items() if rows}


def reference_without(
    con: Connection, study: Study, person: Person, reference: Path, field_studies: Sequence[str] | None
) -> pa.Table | None:
    """Return a version's reference rows without those of a person, or None when there is nothing to do.

    Args:
        con: of the warehouse, in which the person still is: it tells which rows are meant
            (:func:`poleng_assets.warehouse.subject_rows.surplus_reference_rows`).
        reference: the Parquet file of the version's reference.
        field_studies: that the version was trained on; None when nobody knows: all.
    """
    surplus = subject_rows.surplus_reference_rows(con, study, person.ids, reference, field_studies)
    if not surplus:
        return None
    table = pq.read_table(reference)
    return table.filter(pa.array([row not in surplus for row in range(table.num_rows)]))


def _mentions(
    con: Connection, person: Person, table: str, columns: dict[str, str]
) -> Iterator[tuple[str, int, str]]:
    """Yield column, row and text of the cells that name the person, but for the column of ids."""
    if not person.recognisable:
        return
    for column, type_ in columns.items():
        if column == person.column or type_ in _NUMBERS or type_.startswith("TIMESTAMP"):
            continue
        for row, text in subject_rows.cells_with(con, table, column, person.spellings):
            if person.mentioned_in(text):
                yield column, row, text


def _rows_with_marks(con: Connection, person: Person, tables: _Tables) -> Iterator[tuple[str, str, int]]:
    """Yield table, kind of match and number of rows that have the person's answers, or their exact score."""
    marks = person.marks
    if marks is None:
        return
    for table, columns in tables.items():
        questions = [name for name in marks.study.feature_names if name in columns]
        if len(questions) == len(marks.study.features):
            for answers in marks.answers:
                rows = subject_rows.count_equal_answers(con, table, questions, answers)
                yield table, "the same answers", rows
        for column, type_ in columns.items():
            if type_ == "DOUBLE" and marks.scores:
                rows = subject_rows.count_equal_scores(con, table, column, marks.scores)
                yield table, f"the exact score in {column}", rows


def _quarantined(con: Connection, person: Person) -> list[tuple[str, int]]:
    """Return source and number of the quarantined rows that are the person's."""
    return [
        (source, number)
        for source, number, payload in subject_rows.quarantined_payloads(con)
        if _is_about(person, payload)
    ]


def _is_about(person: Person, payload: dict[str, Any]) -> bool:
    if set(payload) == {"line"}:
        line = str(payload["line"])
        return person.mentioned_in(line) or bool(person.marks and person.marks.in_bytes(line.encode()))
    return person.matches_id(payload.get(person.column)) or bool(
        person.marks and person.marks.is_row(payload)
    )


def _by_source(rows: Sequence[tuple[str, int]]) -> dict[str, set[int]]:
    sources: dict[str, set[int]] = {}
    for source, number in rows:
        sources.setdefault(source, set()).add(number)
    return sources
