"""Reading dropped files: from bytes to numbered rows of text or numbers, in bounded memory.

What belongs here is the form of a file: its name, compression, encoding, delimiter, quotes, header and
records. What its values mean is asked in ``core/ingestion/contract.py``. A *data row* is a record after the
header that is not blank; data rows are numbered from 1. Each is given out, as a row or as malformed, or the
whole
file is refused: nothing is skipped.

Text is read twice. The first look decides on the encoding, the delimiter and the quotes, and refuses what
must not be read at all; the second gives the rows. Quotes as RFC 4180 has them
(https://www.rfc-editor.org/rfc/rfc4180) are read by Arrow, odder ones by Python's ``csv`` in strict mode,
which is slower and says where a record is broken.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files.parquet_bounds import (
    TooMuchInside,
    refuse_long_value,
    rows_at_once,
)
from poleng_assets.core.ingestion.headers import blanks_follow, plain_name
from poleng_assets.storage.dropped_files import SUFFIXES, known_suffix

CHUNK = 100_000  # rows
MAX_RECORD = 16 * 2**20  # bytes; also how much text is parsed at once
MAX_LINE_KEPT = 2_000  # characters of a malformed row
_LONGEST_VALUE = 2**12  # what is looked at of the last line
_BLOCK = 2**22
_MAX_PENDING = 64 * 2**20  # characters of malformed rows, kept until the sound rows before them are known
_COMPRESSIONS = {".csv": None, ".csv.gz": "gzip", ".csv.bz2": "bz2", ".csv.zst": "zstd"}
_DELIMITERS = (",", ";", "\t", "|")
# UTF-32 stands first: its mark for little-endian text begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGICS = (
    (b"PAR1", "a parquet file"),
    (b"PARE", "an encrypted parquet file"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database"),
    (b"$FL2", "an SPSS file"),
    (b"$FL3", "an SPSS file"),
    (b"ARROW1", "an Arrow file"),
)


@dataclass(frozen=True)
class Malformed:
    """A record that is no row: with more or fewer fields than the header, or with broken quotes."""

    row_number: int
    reason: str
    line: str


@dataclass(frozen=True)
class Chunk:
    """Some data rows of a file, in its order.

    Attributes:
        rows: the needed columns under their plain names (``core/ingestion/headers.py``); text for CSV, as
            typed for parquet.
        row_numbers: int64, one for each row of ``rows``.
        malformed: the records among them that are no rows; their numbers are left out above.
    """

    rows: pa.Table
    row_numbers: np.ndarray
    malformed: tuple[Malformed, ...] = ()


class OpenFile(ABC):
    """A file whose form was found to be sound.

    Attributes:
        columns: the plain names of all its columns, in order; one that stands twice does so here.
        ascii_only: the encoding was guessed (Windows-1252), so only ASCII characters can be trusted.
        rows_at_most: no fewer than there are data rows.
        last_value: of a text whose last line has no end, what stands last; None when it surely is whole.
    """

    columns: list[str]
    ascii_only: bool = False
    last_value: str | None = None
    rows_at_most: int
    _needed: list[str]

    def chunks(self) -> Iterator[Chunk]:
        """Yield the data rows.

        Raises:
            FileRefused: a part of the file cannot be read, or a needed column does not stand there once.
        """
        for name in self._needed:
            if self.columns.count(name) != 1:
                raise FileRefused(f"the column {name} stands {self.columns.count(name)} times in the header")
        yield from self._chunks([(self.columns.index(name), name) for name in self._needed])

    def count(self) -> int:
        """Return the number of data rows, malformed ones too; the columns need not be those of the study.

        Raises:
            FileRefused: a part of the file cannot be read.
        """
        there = [name for name in self._needed if self.columns.count(name) == 1]
        place = self.columns.index(there[0]) if there else 0
        return sum(c.rows.num_rows + len(c.malformed) for c in self._chunks([(place, "any")]))

    @abstractmethod
    def _chunks(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        """Yield the data rows with the columns at some places, under other names."""


@contextmanager
def open_file(path: Path, needed: Sequence[str], *, max_bytes: int) -> Iterator[OpenFile]:
    """Open a dropped file for reading.

    Args:
        path: of the file; its suffix says what it must hold.
        needed: names of the columns that are wanted. The delimiter of a text is the one under which its
            header holds most of them.
        max_bytes: how much it may hold when it is decompressed.

    Raises:
        FileRefused: the file is not what its suffix says, is damaged, empty or too large, is no text in a
            known encoding, has no header, or has a quote that is never closed.
    """
    suffix = known_suffix(path.name)
    if not suffix:
        raise FileRefused(f"{path.name} is none of {', '.join(SUFFIXES)}")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused(f"{path.name} is not a regular file")
    if status.st_size == 0:
        raise FileRefused(f"{path.name} is empty: it has 0 bytes. Was it copied whole?")
    if suffix == ".parquet":
        with _open_parquet(path) as file:
            yield _ParquetFile(path, file, needed, max_bytes)
    else:
        yield _TextFile(path, needed, max_bytes)


def count_rows(path: Path, needed: Sequence[str], *, max_bytes: int) -> int:
    """Return how many data rows a file has, malformed ones too, by reading it once more.

    Raises:
        FileRefused: as :func:`open_file` and :meth:`OpenFile.chunks` do.
    """
    with open_file(path, needed, max_bytes=max_bytes) as file:
        return file.count()


# Parquet


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    with path.open("rb") as file:
        begin = file.read(8)
        file.seek(-min(4, path.stat().st_size), io.SEEK_END)
        end = file.read()
    if b"PARE" in (begin[:4], end):
        raise FileRefused(f"{path.name} is encrypted parquet. Write it again without encryption")
    if not begin.startswith(b"PAR1"):
        raise FileRefused(f"{path.name} cannot be read as parquet: {_not(begin)}")
    if end != b"PAR1":
        raise FileRefused(f"{path.name} cannot be read as parquet: its end is missing. Was it copied whole?")
    try:
        footer = pq.read_metadata(path)
        # Without buffers of whole row groups: a file may have one of any size.
        file = pq.ParquetFile(
            path,
            metadata=footer,
            read_dictionary=_texts_that_repeat(footer),
            pre_buffer=False,
            buffer_size=2**20,
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    with file:
        yield file


def _texts_that_repeat(footer: pq.FileMetaData) -> list[str]:
    """Return the columns of texts that the file keeps once for many rows: each is read once then, too.

    Kept for each row, a text takes four bytes for its length alone. Each row group has its own dictionaries,
    and Arrow begins a chunk with each: with small ones, more is lost than won.
    """
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    found: list[str] = []
    if len(groups) > 1 and footer.num_rows < len(groups) * CHUNK // 2:
        return found
    for place in range(footer.num_columns):
        column, chunks = footer.schema.column(place), [group.column(place) for group in groups]
        is_text = column.logical_type.type == "STRING" and column.max_repetition_level == 0
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        if is_text and "." not in column.path and size < 4 * footer.num_rows:
            found.append(column.path)
    return found


def _unpacked_bytes(rows: pa.Table) -> int:
    """Return how much rows hold when each has its own copy of a text."""
    size = 0
    for column in rows.columns:
        size += column.nbytes
        if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
            for chunk in column.chunks:
                lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0).cast(pa.int64())
                size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return size


def _not(begin: bytes) -> str:
    found = next((what for magic, what in _MAGICS if begin.startswith(magic)), None)
    return f"its content is {found}" if found else "its content is something else"


def _damaged(path: Path, error: Exception) -> FileRefused:
    kind = known_suffix(path.name).removeprefix(".")
    first_line = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return FileRefused(f"{path.name} cannot be read as {kind}, it is damaged or not whole: {first_line}")


class _ParquetFile(OpenFile):
    def __init__(self, path: Path, file: pq.ParquetFile, needed: Sequence[str], max_bytes: int) -> None:
        self._path, self._file, self._needed, self._max_bytes = path, file, list(needed), max_bytes
        try:
            self._raw = list(file.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        if not self._raw:
            raise FileRefused(f"{path.name} has no columns")
        self.columns = [plain_name(name) for name in self._raw]
        self.rows_at_most = file.metadata.num_rows
        # Every value takes a byte at least, however well a long run of them was packed; and the pages unpack
        # to as much as the file says, or it is damaged.
        if max(self.rows_at_most * len(self._needed), self._unpacked()) > max_bytes:
            raise _too_large(path, max_bytes)

    def _chunks(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        raw = [self._raw[place] for place, _ in wanted]
        self._refuse_nested(wanted)
        read = size = 0
        try:
            at_once = rows_at_once(self._path, self._file.metadata, raw, CHUNK)
            for batch in self._file.iter_batches(at_once, columns=raw):
                rows = pa.Table.from_batches([batch]).select(raw).rename_columns([name for _, name in wanted])
                size += _unpacked_bytes(rows)
                if size > self._max_bytes:
                    raise _too_large(self._path, self._max_bytes)
                _refuse_long_values(rows)
                rows.validate(full=True)  # Arrow takes the text of a parquet file as it is, UTF-8 or not
                numbers = np.arange(read + 1, read + 1 + rows.num_rows, dtype=np.int64)
                read += rows.num_rows
                yield Chunk(rows, numbers)
        except TooMuchInside as error:
            raise FileRefused(f"{self._path.name} is refused before it is unpacked: {error}") from error
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self._path, error) from error
        if read != self.rows_at_most:
            raise FileRefused(
                f"{self._path.name} cannot be read as parquet: it says that it has {self.rows_at_most} rows, "
                f"and has {read}"
            )

    def _unpacked(self) -> int:
        """Return what the pages of the needed columns take when they are unpacked, as the file says."""
        footer = self._file.metadata
        places = [
            place
            for place in range(footer.num_columns)
            if plain_name(footer.schema.column(place).path.partition(".")[0]) in self._needed
        ]
        groups = map(footer.row_group, range(footer.num_row_groups))
        return sum(group.column(place).total_uncompressed_size for group in groups for place in places)

    def _refuse_nested(self, wanted: list[tuple[int, str]]) -> None:
        """Refuse lists and the like before they are read: one row may hold any number of them."""
        for place, name in wanted:
            kind = self._file.schema_arrow.field(place).type
            if pa.types.is_nested(kind):
                raise FileRefused(
                    f"the column {name} holds {kind}, not answers: they are codes, as numbers or text"
                )


def _refuse_long_values(rows: pa.Table) -> None:
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        for chunk in column.chunks:
            values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
            if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
                refuse_long_value(name, pc.max(pc.binary_length(values)).as_py() or 0)


# Text: the first look


class _TextFile(OpenFile):
    def __init__(self, path: Path, needed: Sequence[str], max_bytes: int) -> None:
        self._path, self._needed, self._max_bytes = path, list(needed), max_bytes
        begin = next(self._decompressed(), b"")
        if not begin:
            raise FileRefused(f"{path.name} is empty: there is nothing in it")
        if any(begin.startswith(magic) for magic, _ in _MAGICS):
            raise FileRefused(f"{path.name} is no text: {_not(begin)}")
        mark, marked = next(((m, e) for m, e in _MARKS if begin.startswith(m)), (b"", ""))
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
                str(self._path), compression=_COMPRESSIONS[known_suffix(self._path.name)]
            ) as file:
                while block := file.read(_BLOCK):
                    size += len(block)
                    if size > self._max_bytes:
                        raise _too_large(self._path, self._max_bytes)
                    yield block
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self._path, error) from error

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
        found = [self._header_under(text, delimiter) for delimiter in _DELIMITERS]
        counts = [len(set(self._needed) & {_name(written) for written in names}) for names, _ in found]
        best = counts.index(max(counts))
        names, self._skip = found[best]
        self._delimiter = _DELIMITERS[best]
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
        quotes = _Quotes(self._delimiter)
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
        places, names = [str(place) for place, _ in wanted], [name for _, name in wanted]
        pending = _Pending(len(self.columns))
        try:
            reader = arrow_csv.open_csv(
                pa.PythonFile(self._text(), "r"),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,  # else malformed rows have no numbers
                    block_size=MAX_RECORD,
                    column_names=[str(place) for place in range(len(self.columns))],
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=pending.add
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=places,
                    column_types=dict.fromkeys(places, pa.string()),
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
            raise _damaged(self._path, error) from error
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
        places, names = [place for place, _ in wanted], [name for _, name in wanted]
        lines = _Lines(io.TextIOWrapper(self._text(), "utf-8", newline=""), MAX_RECORD, self._too_long)
        csv.field_size_limit(MAX_RECORD)  # ours is the limit: it stands for a whole row
        records = csv.reader(
            lines, delimiter=self._delimiter, strict=True, skipinitialspace=self._blanks_follow
        )
        kept: list[list[str]] = []
        numbers: list[int] = []
        malformed: list[Malformed] = []
        number = size = 0
        short = False
        while True:
            lines.begin_record()
            try:
                record = next(records, None)
                reason = ""
            except csv.Error as error:
                if lines.ended:
                    raise FileRefused(
                        f"{self._path.name} has a quote that is never closed, in row {number + 1}: the rows "
                        "behind it cannot be told apart"
                    ) from error
                if lines.in_record > 1:
                    raise FileRefused(
                        f"{self._path.name} has a quote in row {number + 1} that is closed within a word, "
                        f"{lines.in_record - 1} lines later: how many rows stand between cannot be told"
                    ) from error
                record, reason = [], "text stands behind a closing quote"
            if record is None:
                break
            if not reason and (not record or (len(record) == 1 and not lines.first_line.strip())):
                continue
            number += 1
            short = not reason and len(record) < len(self.columns)
            if not reason and len(record) != len(self.columns):
                reason = _wrong_number(len(record), len(self.columns))
            if reason:
                malformed.append(Malformed(number, reason, lines.text.rstrip("\r\n")[:MAX_LINE_KEPT]))
            else:
                kept.append([record[place] for place in places])
                numbers.append(number)
            size += lines.size
            if len(kept) + len(malformed) >= CHUNK or size > MAX_RECORD:
                yield _chunk_of(names, kept, numbers, malformed)
                kept, numbers, malformed, size = [], [], [], 0
        self._refuse_if_torn(short)
        if kept or malformed:
            yield _chunk_of(names, kept, numbers, malformed)


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
        encoding: of the header.
    """
    return plain_name(written.encode("latin-1").decode(encoding, "replace"))


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _too_large(path: Path, max_bytes: int) -> FileRefused:
    return FileRefused(
        f"{path.name} holds more than {max_bytes / 2**20:,.0f} MB when it is unpacked, which is as much as "
        "policies.ingestion.max_expanded_megabytes of the study allows. Split it, or raise that number"
    )


def _wrong_number(found: int, expected: int) -> str:
    return f"has {found} {'field' if found == 1 else 'fields'}, the header has {expected}"


class _Pending:
    """Malformed rows that Arrow told of, until the sound rows that it read meanwhile have their numbers."""

    def __init__(self, fields: int) -> None:
        self._fields = fields
        self._rows: list[Malformed] = []
        self._blank = self._size = self._last = 0
        self._short = False
        self.overflown = False

    def add(self, row: Any) -> str:
        """Take a record with a wrong number of fields; Arrow counts all that are not empty, from 1."""
        if row.actual_columns == 1 and not row.text.strip():
            self._blank += 1
            return "skip"
        self._short = row.actual_columns < self._fields
        line = row.text[:MAX_LINE_KEPT]
        reason = _wrong_number(row.actual_columns, self._fields)
        self._rows.append(Malformed(row.number - self._blank, reason, line))
        self._size += len(line)
        self.overflown = self._size > _MAX_PENDING
        return "error" if self.overflown else "skip"

    def numbered(self, rows: pa.Table) -> Chunk:
        """Return the next sound rows with their numbers, and the malformed ones before the last of them."""
        # How many sound rows stand before each malformed one, and so which malformed ones before each row.
        malformed = np.array([row.row_number for row in self._rows], dtype=np.int64)
        sound_before = malformed - self._last - 1 - np.arange(len(malformed))
        place = np.arange(rows.num_rows, dtype=np.int64)
        numbers = self._last + 1 + place + np.searchsorted(sound_before, place, side="right")
        self._last = int(numbers[-1])
        passed = int(np.searchsorted(malformed, self._last))
        chunk = Chunk(rows, numbers, tuple(self._rows[:passed]))
        self._rows = self._rows[passed:]
        self._size = sum(len(row.line) for row in self._rows)
        return chunk

    @property
    def ends_short(self) -> bool:
        """Whether the last row of all has too few fields."""
        return bool(self._rows) and self._short

    def rest(self, names: Sequence[str]) -> Chunk | None:
        """Return the malformed rows behind the last sound one, if there are any."""
        if not self._rows:
            return None
        none = pa.table({name: pa.array([], pa.string()) for name in names})
        return Chunk(none, np.array([], dtype=np.int64), tuple(self._rows))

    def refusal(self, path: Path) -> FileRefused:
        first = self._rows[0]
        return FileRefused(
            f"{path.name}: {len(self._rows):,} rows running are malformed; the first, row "
            f"{first.row_number}, {first.reason}"
        )


class _Quotes:
    """Looks through a text, block by block, whether its quotes are as RFC 4180 has them.

    A quote opens at the beginning of a field and closes at its end; within, it is doubled. A doubled quote
    is read as a closing and an opening one.
    """

    def __init__(self, delimiter: str) -> None:
        self._edges = np.zeros(256, dtype=bool)
        self._edges[[ord(sign) for sign in (delimiter, "\r", "\n", '"')]] = True
        self._seen = 0
        self._tail = b"\n"  # the sign before those that were not looked at yet, and the last of these
        self.are_plain = True

    @property
    def is_open(self) -> bool:
        return self._seen % 2 == 1

    def look_at(self, block: bytes) -> None:
        """Look at all but the last sign, whose neighbour is not known yet."""
        if not block or not self.are_plain:
            return
        if b'"' not in block and b'"' not in self._tail:
            self._tail = (self._tail + block)[-2:]
            return
        signs = np.frombuffer(self._tail + block, dtype=np.uint8)
        places = np.flatnonzero(signs[1:-1] == ord('"')) + 1
        opens = (self._seen + np.arange(len(places))) % 2 == 0
        neighbours = np.where(opens, signs[places - 1], signs[places + 1])
        self.are_plain = bool(self._edges[neighbours].all())
        self._seen += len(places)
        self._tail = (self._tail + block)[-2:]

    def end(self) -> None:
        """Look at the last sign, too."""
        self.look_at(b"\n")


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
