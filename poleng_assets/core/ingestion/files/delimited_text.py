"""Rows of a text, CSV by any of its names: a first look decides on its form, a second gives the rows."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files.arrow_rows import Pending, wrong_number
from poleng_assets.core.ingestion.files.base import (
    CHUNK,
    MAX_LINE_KEPT,
    MAX_RECORD,
    Chunk,
    Malformed,
    OpenFile,
    content_kind,
    damaged,
    is_other_content,
    too_large,
)
from poleng_assets.core.ingestion.files.quotes import Quotes
from poleng_assets.core.ingestion.headers import blanks_follow, plain_name
from poleng_assets.storage.dropped_files import known_suffix

COMPRESSIONS = {".csv": None, ".csv.gz": "gzip", ".csv.bz2": "bz2", ".csv.zst": "zstd"}
DELIMITERS = (",", ";", "\t", "|")
# UTF-32 stands first: its mark for little-endian text begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_VALUE = 2**12  # what is looked at of the last line
_BLOCK = 2**22


class TextFile(OpenFile):
    """A text of rows, looked through once when it is opened."""

    def __init__(self, path: Path, needed: Sequence[str], max_bytes: int) -> None:
        self._path, self._needed, self._max_bytes = path, list(needed), max_bytes
        begin = next(self._decompressed(), b"")
        if not begin:
            raise FileRefused(f"{path.name} is empty: there is nothing in it")
        if is_other_content(begin):
            raise FileRefused(f"{path.name} is no text: {content_kind(begin)}")
        mark, marked = next(((m, e) for m, e in MARKS if begin.startswith(m)), (b"", ""))
        self._encoding = marked or "utf-8"
        # A program that takes a mark for text and writes its own before it leaves two.
        self._mark = mark
        while mark and begin.startswith(self._mark + mark):
            self._mark += mark
        header = self._find_header()
        self._look_through()
        self.ascii_only = self._encoding == "cp1252"
        self.columns = [_name(written, self._encoding if self.ascii_only else "utf-8") for written in header]

    def _decompressed(self) -> Iterator[bytes]:
        """Yield the bytes of the text, in blocks; not more of them than are allowed."""
        size = 0
        try:
            with pa.input_stream(
                str(self._path), compression=COMPRESSIONS[known_suffix(self._path.name)]
            ) as file:
                while block := file.read(_BLOCK):
                    size += len(block)
                    if size > self._max_bytes:
                        raise too_large(self._path, self._max_bytes)
                    yield block
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._path, error) from error

    def _ascii_compatible(self) -> Iterator[bytes]:
        """Yield the text without its mark, in UTF-8 or as it stands, where each ASCII character is a byte."""
        blocks = self._decompressed()
        first = next(blocks, b"")[len(self._mark) :]
        wide = self._encoding.startswith(("utf-16", "utf-32"))
        decoder = codecs.getincrementaldecoder(self._encoding)() if wide else None
        for block in itertools.chain([first], blocks):
            yield self._narrow(decoder, block)
        if decoder is not None:
            yield self._narrow(decoder, b"", final=True)

    def _narrow(self, decoder: codecs.IncrementalDecoder | None, block: bytes, final: bool = False) -> bytes:
        if decoder is None:
            return block
        try:
            return decoder.decode(block, final).encode()
        except UnicodeError as error:
            raise FileRefused(
                f"{self._path.name} says that it is {self._encoding.upper()} and is not: {error}. "
                "Save it as UTF-8"
            ) from error

    def _find_header(self) -> list[str]:
        """Decide on the delimiter and on where the data begin; return the names, one character a byte."""
        begin = b""
        for block in self._ascii_compatible():
            begin += block
            if len(begin) >= _BLOCK:
                break
        text = begin.decode("latin-1")
        if text.lstrip().startswith("<"):
            raise FileRefused(f"{self._path.name} is no table: its content is HTML or XML")
        headers = [self._header_under(text, delimiter) for delimiter in DELIMITERS]
        counts = [len(set(self._needed) & {_name(written) for written in names}) for names, _ in headers]
        best = counts.index(max(counts))
        names, self._skip = headers[best]
        self._delimiter = DELIMITERS[best]
        self._blanks_follow = blanks_follow(text[: self._skip], self._delimiter)
        if self._skip >= _BLOCK:
            raise FileRefused(f"the header of {self._path.name} is longer than {_BLOCK:,} bytes")
        if not names:
            raise FileRefused(f"{self._path.name} has no header row that can be read: is it whole?")
        return names

    @staticmethod
    def _header_under(text: str, delimiter: str) -> tuple[list[str], int]:
        """Return the first record that is not blank, and how many characters stand before the next one."""
        # A quote behind a blank opens a field, unless no header can be read like that.
        for blanks_are_none in (True, False):
            lines = _Lines(io.StringIO(text, newline=""), len(text) + 1)
            records = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=blanks_are_none)
            try:
                for record in records:
                    if any(map(_name, record)):
                        return record, lines.read
            except csv.Error:  # a broken quote: there is no header under this delimiter
                continue
        return [], 0

    def _look_through(self) -> None:
        """Look at all of the text: NULs, the encoding, the quotes, how many rows there may be."""
        utf8 = codecs.getincrementaldecoder("utf-8")()
        quotes = Quotes(self._delimiter)
        to_skip, line_ends, self._has_rows = self._skip, 0, False
        self._ends_with_line, end = False, b""
        valid = True
        for block in self._ascii_compatible():
            if b"\0" in block:
                raise FileRefused(
                    f"{self._path.name} holds NUL characters: it is no text, or UTF-16 without a mark. "
                    "Save it as UTF-8"
                )
            if valid:
                valid = _decodes(utf8, block)
            data, to_skip = block[to_skip:], max(0, to_skip - len(block))
            quotes.look_at(data)
            line_ends += data.count(b"\n") + data.count(b"\r")
            self._has_rows = self._has_rows or bool(data.strip())
            if block:  # a decoder's last one may be empty
                self._ends_with_line = block.endswith((b"\n", b"\r"))
                end = (end + block[-_LONGEST_VALUE:])[-_LONGEST_VALUE:]
        valid = valid and _decodes(utf8, b"", final=True)
        if not valid and self._mark:
            raise FileRefused(f"{self._path.name} says that it is UTF-8 and is not. Save it as UTF-8")
        if not valid:
            self._encoding = "cp1252"
        quotes.end()
        # One that is never closed is left to Python, too, which says in which row it stands.
        self._quotes_are_plain = quotes.are_plain and not quotes.is_open
        self.rows_at_most = line_ends + 1
        # What was packed has a checksum, and a closing quote ends a value.
        if not self._ends_with_line and known_suffix(self._path.name) == ".csv" and not end.endswith(b'"'):
            last_line = re.split(rb"[\r\n]", end)[-1]
            self.last_value = last_line.rpartition(self._delimiter.encode())[2].decode("latin-1").strip()

    # Text: the rows

    def _text(self) -> io.BufferedReader:
        """Return the data rows as UTF-8."""
        return io.BufferedReader(_Stream(self._data()), _BLOCK)

    def _data(self) -> Iterator[bytes]:
        to_skip = self._skip
        for block in self._ascii_compatible():
            data, to_skip = block[to_skip:], max(0, to_skip - len(block))
            if data:
                yield data.decode("cp1252", "replace").encode() if self.ascii_only else data

    def _chunks(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        if not self._has_rows:
            return
        by = self._chunks_by_arrow if self._quotes_are_plain else self._chunks_by_python
        yield from by(wanted)

    def _chunks_by_arrow(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        # Arrow's names are the columns' places: a needed name may stand in the header in other blanks.
        indices, names = [str(index) for index, _ in wanted], [name for _, name in wanted]
        pending = Pending(len(self.columns))
        try:
            reader = arrow_csv.open_csv(
                pa.PythonFile(self._text(), "r"),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,  # else malformed rows have no numbers
                    block_size=MAX_RECORD,
                    column_names=[str(index) for index in range(len(self.columns))],
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=pending.add
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=indices,
                    column_types=dict.fromkeys(indices, pa.string()),
                    strings_can_be_null=False,
                ),
            )
            for batch in reader:
                table = pa.Table.from_batches([batch]).rename_columns(names)
                for start in range(0, table.num_rows, CHUNK):
                    yield pending.numbered(table.slice(start, CHUNK))
        except pa.ArrowException as error:
            if pending.overflown:
                raise pending.refusal(self._path) from error
            if "straddling" in str(error):
                raise self._too_long() from error
            raise damaged(self._path, error) from error
        if rest := pending.rest(names):
            self._refuse_if_torn(pending.ends_short)
            yield rest

    def _refuse_if_torn(self, short: bool) -> None:
        if short and not self._ends_with_line:
            raise FileRefused(
                f"{self._path.name} breaks off within its last row: more rows may be missing. Was it copied "
                "whole?"
            )

    def _too_long(self) -> FileRefused:
        return FileRefused(
            f"{self._path.name} has a row of more than {MAX_RECORD // 2**20} MB: does each row stand on a "
            "line of its own, and is every quote closed?"
        )

    def _chunks_by_python(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        indices, names = [index for index, _ in wanted], [name for _, name in wanted]
        lines = _Lines(io.TextIOWrapper(self._text(), "utf-8", newline=""), MAX_RECORD, self._too_long)
        kept: list[list[str]] = []
        numbers: list[int] = []
        malformed: list[Malformed] = []
        size, is_short = 0, False
        for number, (record, reason) in enumerate(self._records(lines), start=1):
            is_short = 0 < len(record) < len(self.columns)
            if reason:
                malformed.append(Malformed(number, reason, lines.text.rstrip("\r\n")[:MAX_LINE_KEPT]))
            else:
                kept.append([record[index] for index in indices])
                numbers.append(number)
            size += lines.size
            if len(kept) + len(malformed) >= CHUNK or size > MAX_RECORD:
                yield _chunk_of(names, kept, numbers, malformed)
                kept, numbers, malformed, size = [], [], [], 0
        self._refuse_if_torn(is_short)
        if kept or malformed:
            yield _chunk_of(names, kept, numbers, malformed)

    def _records(self, lines: _Lines) -> Iterator[tuple[list[str], str]]:
        """Yield each record that is not blank, with why it is no row; empty when it is one."""
        csv.field_size_limit(MAX_RECORD)  # ours is the limit: it stands for a whole row
        records = csv.reader(
            lines, delimiter=self._delimiter, strict=True, skipinitialspace=self._blanks_follow
        )
        number = 0
        while True:
            lines.begin_record()
            try:
                record = next(records, None)
            except csv.Error as error:
                number += 1
                if refusal := self._lost_count(lines, number):
                    raise refusal from error
                yield [], "text stands behind a closing quote"
                continue
            if record is None:
                return
            if not record or (len(record) == 1 and not lines.first_line.strip()):
                continue
            number += 1
            fits = len(record) == len(self.columns)
            yield record, "" if fits else wrong_number(len(record), len(self.columns))

    def _lost_count(self, lines: _Lines, number: int) -> FileRefused | None:
        """Return why the rows from a broken quote on cannot be told apart; None when they can."""
        if lines.ended:
            return FileRefused(
                f"{self._path.name} has a quote that is never closed, in row {number}: the rows "
                "behind it cannot be told apart"
            )
        if lines.in_record > 1:
            return FileRefused(
                f"{self._path.name} has a quote in row {number} that is closed within a word, "
                f"{lines.in_record - 1} lines later: how many rows stand between cannot be told"
            )
        return None


def _chunk_of(
    names: list[str], kept: list[list[str]], numbers: list[int], malformed: list[Malformed]
) -> Chunk:
    columns = list(zip(*kept, strict=True)) or [()] * len(names)
    rows = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names=names)
    return Chunk(rows, np.array(numbers, dtype=np.int64), tuple(malformed))


def _name(written: str, encoding: str = "utf-8") -> str:
    """Return the name of a column; a few bytes mean nothing in an encoding, and nobody needs such a name.

    Args:
        written: in the header, one character a byte.
    """
    return plain_name(written.encode("latin-1").decode(encoding, "replace"))


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


class _Stream(io.RawIOBase):
    """Blocks of bytes as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._left = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class _Lines:
    """Lines of a text with their ends, and which of them the record in hand is made of."""

    def __init__(
        self, text: io.TextIOBase, max_record: int, too_long: Callable[[], FileRefused] | None = None
    ) -> None:
        self._text, self._max_record, self._too_long = text, max_record, too_long
        self.read = 0
        self.ended = False
        self.begin_record()

    def begin_record(self) -> None:
        self._lines: list[str] = []
        self.size = 0

    @property
    def in_record(self) -> int:
        return len(self._lines)

    @property
    def first_line(self) -> str:
        return self._lines[0] if self._lines else ""

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._max_record)
        self.size += len(line)
        if self._too_long is not None and self.size >= self._max_record:
            raise self._too_long()
        if not line:
            self.ended = True
            raise StopIteration
        self.read += len(line)
        self._lines.append(line)
        return line
