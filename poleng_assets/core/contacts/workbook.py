"""The contact list as a workbook for Excel or LibreOffice, with a sheet that explains it.

The content of the list comes from ``core/contacts/contact_list.py``; this module lays it out. Texts are
written as text cells, which a spreadsheet does not run, so they need no escaping apostrophe.
"""

import io
import shutil
import textwrap
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import pandas as pd
from duckdb import DuckDBPyConnection as Connection
from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_range
from xlsxwriter.worksheet import Worksheet

from poleng_assets.core.data.spreadsheet_safety import unescape_formula
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.contact_lists import list_in_file
from poleng_assets.warehouse.predictions import count_scored_without

# https://support.microsoft.com/office/excel-specifications-and-limits; the first row is the header.
MOST_CONTACTS = 1_048_576 - 1
LONGEST_TEXT = 32_767

LIST_SHEET = "Contacts"
ABOUT_SHEET = "About this list"
NOBODY = "No contacts in this batch."

# Widths in characters, heights in points.
_NARROWEST, _WIDEST = 11, 28
_SCORE, _DAY, _WORDS = 17, 14, 90
_WIDEST_OF = {"reasons": 60, "remark": 32}
_LINE_HEIGHT, _HIGHEST = 15, 409
_A4 = 9
_INK, _PALE, _LINE, _CAUTION = "#1F3A4D", "#E8EEF2", "#C9D3DA", "#FFF3CD"
_BESIDE_THE_EDGE = {"align": "left", "indent": 1, "text_wrap": True}
_CELL = {**_BESIDE_THE_EDGE, "valign": "top", "bottom": 1, "bottom_color": _LINE}
_HEADER = {**_BESIDE_THE_EDGE, "valign": "vcenter", "bold": True, "font_color": "white", "bg_color": _INK}


@dataclass(frozen=True)
class AboutList:
    """Facts about a list that its rows do not hold.

    Attributes:
        batch: whose list it is.
        made_at: the moment, with its zone.
        asked: how many people of the batch were scored.
    """

    batch: str
    made_at: datetime
    model_version: int
    asked: int

    @property
    def moment(self) -> datetime:
        """The moment in UTC without its zone, as spreadsheets have it."""
        return self.made_at.astimezone(UTC).replace(tzinfo=None)

    @property
    def day(self) -> str:
        """The day it was made, as text."""
        return _day(self.moment)


def about_list(con: Connection, study: Study, stem: str, without: Collection[str] = ()) -> AboutList | None:
    """Return the facts about a list; None when no list was issued under that file name.

    Args:
        stem: name of the list's files, without the suffix.
        without: ids of people who do not count any more.
    """
    issued = list_in_file(con, stem)
    if issued is None:
        return None
    asked = count_scored_without(con, study, issued.batch, issued.model_version, without)
    return AboutList(issued.batch, issued.issued_at, issued.model_version, asked)


def write_workbook(
    target: Path, listed: pd.DataFrame, study: Study, about: AboutList, most: int = MOST_CONTACTS
) -> None:
    """Write a contact list as a workbook: the contacts, and a sheet that explains them.

    The same list of the same moment gives the same bytes. Rows pass through a hidden folder beside the
    target, not through memory; the folder is removed at the end.

    Args:
        target: the file; an existing one is overwritten.
        listed: as ``core/contacts/contact_list.py`` gives it, in its order.
        most: contacts on one sheet; a longer list continues on further sheets.

    Raises:
        OSError: it cannot be written.
    """
    rows = target.with_name(f"{target.name}.rows.part")
    shutil.rmtree(rows, ignore_errors=True)
    rows.mkdir(mode=0o700)
    try:
        # The compressed file is small. XlsxWriter would leave a file open when the disk is full.
        packed = io.BytesIO()
        workbook = Workbook(packed, {"constant_memory": True, "tmpdir": str(rows)})
        workbook.use_zip64()
        # No user name in the file's properties.
        workbook.set_properties({"title": f"Contact list of {about.batch}", "created": about.moment})
        names = _sheet_names(len(listed), most)
        for number, name in enumerate(names):
            part = listed.iloc[number * most : (number + 1) * most]
            _write_contacts(workbook, workbook.add_worksheet(name), part, listed, study, about)
        _write_about(workbook, workbook.add_worksheet(ABOUT_SHEET), listed, study, about, names)
        try:
            workbook.close()
        except FileCreateError as error:
            raise error.args[0] from error  # the OSError
        target.write_bytes(packed.getbuffer())
    finally:
        shutil.rmtree(rows, ignore_errors=True)


def first_cells(path: Path) -> Iterator[object]:
    """Yield the first cell of each row of contacts, which holds the id.

    A person may have opened the workbook and kept it, so it need not be as it was written.

    Raises:
        ValueError: it is not a workbook, or damaged.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.escape import unescape
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        workbook = load_workbook(path, read_only=True)
        try:
            for sheet in workbook.worksheets:
                if sheet.title != ABOUT_SHEET:
                    for (cell,) in sheet.iter_rows(max_col=1, values_only=True):
                        yield unescape(cell) if isinstance(cell, str) else cell
        finally:
            workbook.close()
    except (
        zipfile.BadZipFile, zlib.error, EOFError, ParseError, InvalidFileException, KeyError
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is not a workbook: {error}") from error


def about_in_words(
    listed: pd.DataFrame, study: Study, about: AboutList, sheets: list[str]
) -> list[tuple[str, str]]:
    """Return the explanations of a list: pairs of heading and text.

    Args:
        listed: as ``core/contacts/contact_list.py`` gives it.
    """
    what = _sought(study)
    matters = [
        ("What this is", f"People to contact, from the survey “{study.title}”, highest score first."),
        ("Batch", about.batch),
        ("Made on", f"{about.day}, {about.moment:%H:%M} UTC"),
        ("Made by", f"Model version {about.model_version}, a machine-learning model trained on people with "
         "known answers. Its model card describes its performance."),
        ("People", _people(listed, about)),
    ]  # fmt: skip
    if len(sheets) > 1:
        matters.append(
            (
                "Sheets",
                f"A sheet holds at most {MOST_CONTACTS:,} contacts, so the list has several: "
                f"{', '.join(sheets)}. Filters work on one sheet at a time.",
            )
        )
    matters += [
        ("Score", f"The estimated probability that “{what}” is true for this person, based on their answers. "
         "Of 100 people with a score of 70%, about 70 are expected to be in this group. It is an estimate, "
         "not a fact about the person."),
        ("Why this person", "The answers that raised the score most, the strongest first. They explain the "
         "score, not the person. Empty: no single answer stands out, or those that do may not be shown."),
        ("Remark", _remark(listed)),
        ("Empty cells", "The person gave no answer. “unknown (42)” is an answer that the study has no label "
         "for."),
        ("Personal data", "Answers like these are special-category personal data (GDPR, Article 9). Show "
         "this list only to those who make the contacts, encrypt it when you send it, and make no "
         "unnecessary copies."),
        ("Delete it", _deletion(study, about)),
        ("Questions", "Ask whoever gave you this list. They can explain a score, and erase a person who asks "
         "for it from all lists and records: give them the person's id and the batch."),
    ]  # fmt: skip
    return matters


def _people(listed: pd.DataFrame, about: AboutList) -> str:
    if listed.empty:
        return f"{about.asked:,} people answered. {NOBODY}"
    share = f" ({len(listed) / about.asked:.0%})" if about.asked else ""
    return (
        f"{about.asked:,} people answered; {len(listed):,} of them{share} are on the list. "
        f"The lowest score on the list is {listed['prediction'].min():.0%}."
    )


def _remark(listed: pd.DataFrame) -> str:
    remarks = [
        unescape_formula(text) for text in listed.get("remark", pd.Series(dtype=object)).unique() if text
    ]
    if not remarks:
        return "Empty: the checks of this batch raised no concerns."
    return f"{'. '.join(remarks)}. It applies to the complete list and is the same in every row."


def _deletion(study: Study, about: AboutList) -> str:
    days = study.policies.retention.contact_list_files
    if days is None:
        return "As soon as the contacts are made, with all copies. The study sets no deadline."
    last = _day(about.moment + timedelta(days=days))
    return (
        f"As soon as the contacts are made, and by {last} at the latest, with all copies. The file in the "
        "project's own folder is then erased automatically; copies are not."
    )


def _sought(study: Study) -> str:
    return study.target.codes[study.target.positive]


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _sheet_names(contacts: int, most: int) -> list[str]:
    sheets = max(1, -(-contacts // most))
    return [LIST_SHEET] if sheets == 1 else [f"{LIST_SHEET} {number + 1}" for number in range(sheets)]


# The contacts


def _write_contacts(
    workbook: Workbook,
    sheet: Worksheet,
    part: pd.DataFrame,
    listed: pd.DataFrame,
    study: Study,
    about: AboutList,
) -> None:
    columns = list(listed.columns)
    titles = [*(_title(name, study) for name in columns), "Batch", "List made on"]
    last_row, last_column = max(len(part), 1), len(titles) - 1
    _lay_out(sheet, study, about)
    sheet.set_landscape()
    sheet.repeat_rows(0)
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, last_row, last_column)
    # Ids of digits are text: no green corner.
    sheet.ignore_errors({"number_stored_as_text": xl_range(0, 0, last_row, last_column)})
    widths = [*(_width(listed[name], study) for name in columns), _clamped(len(about.batch) + 3), _DAY]
    for column, width in enumerate(widths):
        sheet.set_column(column, column, width)
    header = workbook.add_format(_HEADER)
    # Bold letters are wider.
    sheet.set_row(
        0, _height(_lines(title, round(width * 0.8)) for title, width in zip(titles, widths, strict=True))
    )
    for column, title in enumerate(titles):
        _write_text(sheet, 0, column, title, header)
    text = workbook.add_format({**_CELL, "num_format": "@"})
    formats = {
        "prediction": workbook.add_format(
            {**_CELL, "num_format": "0%", "align": "center", "indent": 0, "bold": True}
        ),
        "remark": workbook.add_format({**_CELL, "num_format": "@", "bg_color": _CAUTION}),
    }
    day = workbook.add_format({**_CELL, "num_format": "d mmm yyyy"})
    made_on = about.moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if part.empty:
        _write_text(sheet, 1, 0, NOBODY)
    for row, values in enumerate(_rows(part), start=1):
        # Excel finds the height of a row by itself, LibreOffice does not.
        texts = (*(value if isinstance(value, str) else "" for value in values), about.batch)
        sheet.set_row(row, _height(map(_lines, texts, widths)))
        for column, (name, value) in enumerate(zip(columns, values, strict=True)):
            if name == "prediction":
                sheet.write_number(row, column, value, formats[name])
            else:
                _write_text(sheet, row, column, value, formats.get(name, text) if value else text)
        _write_text(sheet, row, last_column - 1, about.batch, text)
        sheet.write_datetime(row, last_column, made_on, day)


def _rows(part: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Yield the cells of each contact: the score as a number, all else as plain text."""
    columns = list(part.columns)
    for values in part.itertuples(index=False, name=None):
        yield tuple(
            value if name == "prediction" else _as_read(value, name)
            for name, value in zip(columns, values, strict=True)
        )


def _as_read(cell: str, name: str) -> str:
    """Return a text for display, with one line for each reason."""
    text = unescape_formula(cell)
    return text.replace("; ", "\n") if name == "reasons" else text


def _write_text(sheet: Worksheet, row: int, column: int, text: str, look: Format | None = None) -> None:
    """Write a text as it is.

    XlsxWriter drops texts that are too long, and interprets a text between these two tags as its own XML; a
    trailing blank prevents that.
    """
    if len(text) > LONGEST_TEXT:
        text = f"{text[: LONGEST_TEXT - 1]}…"
    marked = text.startswith("<r>") and text.endswith("</r>")
    sheet.write_string(row, column, f"{text} " if marked else text, look)


def _title(name: str, study: Study) -> str:
    own = {
        study.id: "Person (id)",
        "prediction": f"Score: probability of “{_sought(study)}”",
        "reasons": "Why this person",
        "remark": "Remark",
    }
    # An earlier list may have a column that the study no longer has.
    titles = {feature.name: feature.title for feature in study.features}
    return own.get(name) or titles.get(name, name)


def _width(cells: pd.Series, study: Study) -> int:
    """Return the width of a column: its longest line, within limits."""
    name = str(cells.name)
    if name == "prediction":
        return _SCORE
    longest = max((max(map(len, _as_read(text, name).split("\n"))) for text in cells.unique()), default=0)
    return _clamped(longest + 3, 41 if name == study.id else _WIDEST_OF.get(name, _WIDEST))


def _clamped(width: int, most: int = _WIDEST) -> int:
    return min(max(width, _NARROWEST), most)


def _height(lines: Iterable[int]) -> int:
    return min(_LINE_HEIGHT * max(lines) + 2, _HIGHEST)


def _lines(text: str, width: int) -> int:
    # The width is counted in digits, and letters are narrower; the edges take two.
    room = max(round((width - 2) * 1.1), 1)
    if "\n" not in text and len(text) <= room:
        return 1
    return sum(_wrapped(line, room) for line in text.split("\n"))


@lru_cache(maxsize=1_000)
def _wrapped(text: str, room: int) -> int:
    return len(textwrap.wrap(text, room)) or 1


# About it


def _write_about(
    workbook: Workbook,
    sheet: Worksheet,
    listed: pd.DataFrame,
    study: Study,
    about: AboutList,
    sheets: list[str],
) -> None:
    _lay_out(sheet, study, about)
    sheet.hide_gridlines(2)
    sheet.set_column(0, 0, 18)
    sheet.set_column(1, 1, _WORDS)
    heading = workbook.add_format({**_CELL, "bold": True, "font_color": _INK, "bg_color": _PALE})
    cell = workbook.add_format({**_CELL, "num_format": "@"})
    _write_text(sheet, 0, 0, ABOUT_SHEET, workbook.add_format({"bold": True, "font_size": 16}))
    for row, (matter, text) in enumerate(about_in_words(listed, study, about, sheets), start=2):
        sheet.set_row(row, _height([_lines(text, _WORDS)]) + 4)
        _write_text(sheet, row, 0, matter, heading)
        _write_text(sheet, row, 1, text, cell)


def _lay_out(sheet: Worksheet, study: Study, about: AboutList) -> None:
    """Set a sheet up for printing on A4, with title, page number and a warning."""
    sheet.set_paper(_A4)
    sheet.fit_to_pages(1, 0)
    sheet.set_margins(left=0.4, right=0.4, top=0.7, bottom=0.7)
    # A longer header than 255 characters is left out; an ampersand begins a code there.
    batch, title = (_shortened(text).replace("&", "&&") for text in (about.batch, study.title))
    sheet.set_header(f"&L{title}: contact list of batch {batch}&R{about.day}")
    sheet.set_footer("&LSpecial-category personal data: keep it safe, delete it in time&RPage &P of &N")


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
