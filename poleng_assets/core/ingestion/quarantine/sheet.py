"""The sheet in which a person corrects rows: how a row is written there, and what its cells mean again."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.spreadsheet_safety import escape_formula, unescape_formula
from poleng_assets.core.ingestion.contract import required_columns
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.files import file_record
from poleng_assets.warehouse.quarantine import rows_of, source_of

ROW_NUMBER = "row_number"
WHAT_IS_WRONG = "what_is_wrong"
# A row with the wrong number of fields has no values: its payload is its text, under this name.
LINE = "line"
WHOLE_ROW = "*"

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class QuarantinedRow:
    """A row in quarantine: its values as they were read, and its faults as (column, reason)."""

    payload: str
    faults: tuple[tuple[str, str], ...]

    @property
    def values(self) -> dict[str, Any]:
        """The cells as they were read, by column."""
        return dict(json.loads(self.payload))

    def line(self, needed: Sequence[str]) -> str:
        """Return the text of a row that had the wrong number of fields, empty for any other."""
        return "" if LINE in needed else str(self.values.get(LINE, ""))


def quarantined_rows(con: Connection, kind: Kind, name: str) -> dict[int, QuarantinedRow]:
    """Return the rows of one file in quarantine, by their number."""
    return {
        number: QuarantinedRow(payload, tuple(faults))
        for number, payload, faults in rows_of(con, source_of(kind, name))
    }


def mending_sheet(con: Connection, study: Study, kind: Kind, name: str) -> str:
    """Return the rows of one file in quarantine as CSV, for a person to correct in a spreadsheet.

    One line for each row: its number, the columns that such a file needs as they were read, and what is
    wrong in words. A row with the wrong number of fields has empty answers, and its text in a column of
    its own. No cell is run as a formula (``core/contacts/contact_list.py:escape_formula``).

    Raises:
        LookupError: no such file was taken in.
    """
    file_record(con, kind, name)
    needed = required_columns(study, kind)
    rows = quarantined_rows(con, kind, name)
    lines = {number: row.line(needed) for number, row in rows.items()}
    extra = [LINE] if any(lines.values()) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([ROW_NUMBER, *needed, *extra, WHAT_IS_WRONG])
    for number, row in rows.items():
        faults = "; ".join(
            reason if column == WHOLE_ROW else f"{column}: {reason}" for column, reason in row.faults
        )
        answers = [_cell(row.values.get(column)) for column in needed]
        writer.writerow(
            [number, *answers, *(escape_formula(lines[number]) for _ in extra), escape_formula(faults)]
        )
    # Without the mark, Excel reads UTF-8 as Windows-1252, and an id would come back as another one.
    return "\ufeff" + text.getvalue()


def as_text(value: Any) -> str:
    """Return a value of a payload as ingestion reads it: no answer is empty, 20.0 is 20, true is 1."""
    if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value)


def _cell(value: Any) -> str:
    text = as_text(value)
    # A code such as -1 is a number for a spreadsheet, not a formula.
    return text if _PLAIN_NUMBER.fullmatch(text) else escape_formula(text)


def mended_values(cells: Mapping[str, str], row: QuarantinedRow, needed: Sequence[str]) -> dict[str, str]:
    """Return what a person wrote; a cell that nobody touched is the value that was read."""
    before = row.values
    return {
        name: as_text(before.get(name))
        if cells[name] == _cell(before.get(name))
        else unescape_formula(cells[name])
        for name in needed
    }
