"""Taking one person's rows out of a dropped file or a list, and leaving everything else as it is.

CSV stays the same byte for byte but for the rows that go; Parquet keeps its schema. Nothing is written
here: what belongs in this module is which rows go. A file in which the person cannot be told from others
(no column of ids, no table at all) is :class:`Unreadable`.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poleng_assets.core.data.subject_ids import as_stored
from poleng_assets.core.ingestion.files.parquet_bounds import TooMuchInside, rows_at_once
from poleng_assets.core.ingestion.headers import blanks_follow, plain_name
from poleng_assets.core.privacy.subject import Person

DELIMITERS = ",;\t|"
_UNREADABLE = (pa.ArrowException, TooMuchInside, OSError, EOFError, UnicodeError, csv.Error, zlib.error)
CHUNK = 50_000
# By which bytes a text begins that is not UTF-8.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Unreadable(ValueError):
    """A file whose rows cannot be distinguished by their ids."""


@dataclass
class ErasureCounts:
    """What was found in a file: rows of the person, and rows of others that named them."""

    rows: int = 0
    mentions: int = 0

    @property
    def any(self) -> bool:
        """Whether the person stood in the file."""
        return bool(self.rows or self.mentions)


def copy_without_person(
    path: Path, target: IO[bytes] | None, person: Person, answers: Collection[str]
) -> ErasureCounts:
    """Copy a file without a person.

    Args:
        path: of a Parquet or CSV file, compressed or not.
        target: where the copy goes, compressed like the file; None only to look.
        person: whose rows go. Rows of others that name the person keep all but that word.
        answers: columns that hold codes: a number there is no id.

    Raises:
        Unreadable: it is no such file, is damaged, or has no column of ids.
    """
    try:
        if path.name.endswith(".parquet"):
            return _parquet_without(path, target, person, answers)
        return _csv_without(path, target, person, answers)
    except _UNREADABLE as error:
        raise Unreadable(f"{path.name} cannot be read: {error}") from error


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading its bytes as they were before compression."""
    if path.name.endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path))
    if path.name.endswith(".bz2"):
        return cast("IO[bytes]", bz2.open(path))
    if path.name.endswith(".zst"):
        return cast("IO[bytes]", pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


@dataclass(frozen=True)
class _Header:
    """The columns of a CSV text: their names, the one of the ids, and those that may name anybody."""

    names: list[str]
    delimiter: str
    ids: int
    others: list[int]

    @classmethod
    def of(cls, line: str, person: Person, answers: Collection[str]) -> _Header:
        known = {person.column, *answers}
        delimiter = max(DELIMITERS, key=lambda sign: len(known & set(_names(line, sign))))
        names = _names(line, delimiter)
        if person.column not in names:
            raise Unreadable(f"its first line has no column {person.column}")
        ids = names.index(person.column)
        return cls(
            names, delimiter, ids, [i for i, name in enumerate(names) if i != ids and name not in answers]
        )

    def is_named(self, cells: list[str], person: Person) -> bool:
        """Whether a record names the person, but in the column of ids; in any, if it is of another width."""
        searched = [cells[i] for i in self.others] if len(cells) == len(self.names) else cells
        return person.recognisable and any(map(person.mentioned_in, searched))

    def is_persons(self, cells: list[str], person: Person, named: bool) -> bool:
        """Whether a record is the person's: by its id, by its answers, or because it cannot be split."""
        complete = len(cells) == len(self.names)
        if (len(cells) > self.ids and person.matches_id(cells[self.ids])) or (named and not complete):
            return True
        if not person.marks or not complete or cells[self.ids].strip():
            return False
        # Nobody's id stands there, and the answers are the person's alone.
        return person.marks.is_row(dict(zip(self.names, cells, strict=True)))


def records_without(
    lines: Iterable[str], person: Person, answers: Collection[str], counts: ErasureCounts
) -> Iterator[str]:
    """Yield the records of a CSV text as they are written, but for those of a person.

    A record with another number of cells than the header is the person's when any of them names them.

    Args:
        lines: with their line ends.
        answers: columns that hold codes.
        counts: of what went.

    Raises:
        Unreadable: the header has no column of ids.
    """
    taken: list[str] = []
    source = iter(lines)
    head: list[str] = []
    for line in source:
        head.append(line)
        if plain_name(line):
            break

    def remember() -> Iterator[str]:
        for line in chain(head, source):
            taken.append(line)
            yield line

    csv.field_size_limit(sys.maxsize)
    first = head[-1] if head else ""
    header = _Header.of(first, person, answers)
    blanks = blanks_follow(first, header.delimiter)
    reader = csv.reader(remember(), delimiter=header.delimiter, skipinitialspace=blanks)
    for number, cells in enumerate(reader):
        record = "".join(taken)
        taken.clear()
        named = header.is_named(cells, person)
        if number >= len(head) and header.is_persons(cells, person, named):
            counts.rows += 1
            continue
        if named:
            counts.mentions += 1
            record = person.redact(record)
        yield record


def table_without(
    table: pa.Table, person: Person, answers: Collection[str], counts: ErasureCounts
) -> pa.Table:
    """Return a table without a person's rows, and without their id in the rows of others.

    Raises:
        Unreadable: there is no column of ids, and the id stands in another one.
    """
    names = [plain_name(name) for name in table.column_names]
    if person.column in names:
        table = _rows_without(table, _is_persons(table.column(names.index(person.column)), person), counts)
    if person.marks:
        table = _rows_without(table, person.marks.rows_of_table(table), counts)
    for index, field in enumerate(table.schema if person.recognisable else ()):
        if names[index] in (person.column, *answers) or not _may_hold_text(field.type):
            continue
        cells = table.column(index).to_pylist()
        mentions = _count_mentions(cells, field, person)
        if mentions and person.column not in names:
            raise Unreadable(f"it has no column {person.column}, and {field.name} holds the id")
        if mentions:
            counts.mentions += mentions
            kept = [person.redact(text) if text else text for text in cells]
            table = table.set_column(index, field, pa.array(kept, type=field.type))
    return table


def _count_mentions(cells: list[Any], field: pa.Field, person: Person) -> int:
    """Return how many texts of a column name the person; raises when another kind of cell does."""
    mentions = sum(isinstance(cell, str) and person.mentioned_in(cell) for cell in cells)
    if not mentions and any(
        not isinstance(cell, str | None) and person.mentioned_in(str(cell)) for cell in cells
    ):
        raise Unreadable(f"the id stands inside of {field.name}, a column of {field.type}")
    return mentions


def _rows_without(table: pa.Table, meant: pa.Array, counts: ErasureCounts) -> pa.Table:
    rows = pc.sum(meant).as_py() or 0
    counts.rows += rows
    return table.filter(pc.invert(meant)) if rows else table


def _csv_without(
    path: Path, target: IO[bytes] | None, person: Person, answers: Collection[str]
) -> ErasureCounts:
    counts = ErasureCounts()
    with open_plain(path) as plain:
        source = plain if plain.seekable() else io.BytesIO(plain.read())
        start = source.read(4)
        source.seek(0)
        # UTF-8 or not, every byte comes back as it was.
        encoding = next((code for mark, code in MARKS.items() if start.startswith(mark)), "utf-8")
        errors = "surrogateescape" if encoding == "utf-8" else "strict"
        lines = io.TextIOWrapper(cast("Any", source), encoding, errors, newline="")
        with _compressed(path, target) as sink:
            for record in records_without(lines, person, answers, counts):
                if sink is not None:
                    sink.write(record.encode(encoding, errors))
    return counts


def _parquet_without(
    path: Path, target: IO[bytes] | None, person: Person, answers: Collection[str]
) -> ErasureCounts:
    counts = ErasureCounts()
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if target is None:
            telling = [name for name in schema.names if plain_name(name) not in answers]
            if person.marks and _lacks_ids(file, person.column):
                telling = schema.names
            at_once = rows_at_once(path, file.metadata, telling, CHUNK, longest=None)
            for chunk in file.iter_batches(at_once, columns=telling):
                table_without(pa.Table.from_batches([chunk]), person, answers, counts)
            return counts
        codec = "snappy"
        if file.metadata.num_row_groups and file.metadata.num_columns:
            codec = file.metadata.row_group(0).column(0).compression
        codec = "none" if codec == "UNCOMPRESSED" else codec
        with pq.ParquetWriter(target, schema, compression=codec) as writer:
            at_once = rows_at_once(path, file.metadata, schema.names, CHUNK, longest=None)
            for chunk in file.iter_batches(at_once):
                table = pa.Table.from_batches([chunk], schema)
                writer.write_table(table_without(table, person, answers, counts))
    return counts


def _lacks_ids(file: pq.ParquetFile, column: str) -> bool:
    """Whether any row has no id: it is told by its answers then."""
    names = [name for name in file.schema_arrow.names if plain_name(name) == column]
    if not names:
        return True
    for chunk in file.iter_batches(CHUNK, columns=names):
        if any(pc.any(pc.equal(pc.fill_null(as_stored(ids), ""), "")).as_py() for ids in chunk.columns):
            return True
    return False


def _compressed(path: Path, target: IO[bytes] | None) -> Any:
    if target is None:
        return nullcontext()
    if path.name.endswith(".gz"):
        return gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0)
    if path.name.endswith(".bz2"):
        return bz2.BZ2File(target, "wb")
    if path.name.endswith(".zst"):
        return pa.CompressedOutputStream(cast("Any", _LeftOpen(target)), "zstd")
    return nullcontext(target)


class _LeftOpen(io.RawIOBase):
    """Hands bytes on to a stream that its owner closes."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._target.write(data)


def _names(line: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return [plain_name(cell) for cell in cells]


def _is_persons(ids: pa.ChunkedArray, person: Person) -> pa.Array:
    return pc.fill_null(pc.is_in(as_stored(ids), pa.array(sorted(person.ids))), False)


def _may_hold_text(kind: pa.DataType) -> bool:
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return not plain and not pa.types.is_temporal(kind) and not pa.types.is_decimal(kind)
