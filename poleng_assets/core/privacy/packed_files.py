"""Looking into a file whatever it is packed in: is a person in it, or can nobody tell?

Kinds are told by their first bytes, not by names. What is unpacked stays in memory, within a limit that no
bomb passes. Nothing is written here.
"""

import base64
import binascii
import bz2
import csv
import io
import lzma
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poleng_assets.core.data.subject_ids import as_stored
from poleng_assets.core.privacy.file_erasure import ErasureCounts, Unreadable, records_without
from poleng_assets.core.privacy.subject import ERASED, Person
from poleng_assets.warehouse.sqlite_files import rows_of_image

LIMIT = 256 * 2**20
DEEPEST = 6
_BLOCK = 2**16
# Shorter runs are words and names of a program.
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_LAST_LINE = re.compile(rb"\s{1,2}[A-Za-z0-9+/_-]{1,23}={0,2}(?=\s|\"|\Z)(?![^\S\r\n])")
_LINE_BREAK = re.compile(rb"\s{1,8}")
# So long are the lines at least that base64 is broken into.
_BROKEN_AT = 40
_ZIP, _PARQUET, _ARROW, _SQLITE = b"PK\x03\x04", b"PAR1", b"ARROW1", b"SQLite format 3\0"
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
_STREAMS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x5d\0\0")


@dataclass
class Inside:
    """What was seen inside of a file.

    Attributes:
        holds: whether the person stands in it.
        closed: parts that could not be looked into, with the words for why.
    """

    holds: bool = False
    closed: list[str] = field(default_factory=list)


def look_inside(content: bytes, person: Person, name: str) -> Inside:
    """Search a file's content for a person's id, answers and scores.

    Args:
        person: with or without marks.
        name: of the file, for the words.
    """
    inside = Inside()
    _Looker(person, inside).look(content, name, 0)
    return inside


def without_hidden(text: str, person: Person) -> str:
    """Return a text without the parts that are base64 of something that holds the person."""
    content = text.encode("utf-8", "surrogateescape")
    kept, end = [], 0
    for begin, stop in _runs(content):
        inside = Inside()
        for decoded in _decoded(content[begin:stop]):
            _Looker(person, inside).look_if_known(decoded, "", 1)
        if inside.holds:
            kept += [content[end:begin], ERASED.encode()]
            end = stop
    return b"".join([*kept, content[end:]]).decode("utf-8", "surrogateescape")


class _Looker:
    def __init__(self, person: Person, inside: Inside) -> None:
        self.person, self.inside, self.left = person, inside, LIMIT

    def look(self, content: bytes, name: str, depth: int) -> None:
        """Search content of any kind; one that is not known is said to be closed."""
        if not self.look_if_known(content, name, depth) and not self.inside.holds:
            self.inside.closed.append(f"{name}: of a kind that cannot be looked into")

    def look_if_known(self, content: bytes, name: str, depth: int) -> bool:
        """Search content; return whether its kind is known."""
        if self.inside.holds or not content:
            pass
        elif self.person.in_bytes(content):
            self.inside.holds = True
        elif depth > DEEPEST:
            self.inside.closed.append(f"{name}: packed more than {DEEPEST} times")
        elif content.startswith(_PICTURES):
            pass
        elif content.startswith(_STREAMS):
            self._stream(content, name, depth)
        elif content.startswith(_ZIP) or (content[:2] == b"PK" and zipfile.is_zipfile(io.BytesIO(content))):
            self._zip(content, name, depth)
        elif content[257:262] == b"ustar":
            self._tar(content, name, depth)
        elif content.startswith((_PARQUET, _ARROW)):
            self._table(content, name)
        elif content.startswith(_SQLITE):
            self._sqlite(content, name)
        else:
            text = as_text(content)
            if text is None:
                return False
            self._text(text, depth)
        return True

    def _stream(self, content: bytes, name: str, depth: int) -> None:
        unpacked, fault = self._unpacked(content)
        if unpacked or not fault:
            self.look(unpacked, f"{name} (unpacked)", depth + 1)
        if fault and not self.inside.holds:
            self.inside.closed.append(f"{name}: {fault}")

    def _unpacked(self, content: bytes) -> tuple[bytes, str]:
        """Return what comes out of a compressed stream, and why it is not all, in words."""
        parts: list[bytes] = []
        fault = ""
        try:
            for part in _parts(content):
                self.left -= len(part)
                if self.left < 0:
                    fault = f"it holds more than {LIMIT // 2**20} MB"
                    break
                parts.append(part)
        except _CutOff as error:
            # Deflate and LZMA give every byte that is there; the others wait for the end of a block.
            fault = "" if error.nothing_is_lost else "it was cut off within a block"
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, pa.ArrowException):
            fault = "it is damaged"
        return b"".join(parts), fault

    def _zip(self, content: bytes, name: str, depth: int) -> None:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                for member in packed.infolist():
                    self._named(member.filename)
                    if member.flag_bits & 1:
                        self.inside.closed.append(f"{name}/{member.filename}: it is encrypted")
                        continue
                    with packed.open(member) as file:
                        self._member(file.read(self.left + 1), f"{name}/{member.filename}", depth)
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, lzma.LZMAError, OSError, EOFError):
            self._damaged_zip(content, name, depth)

    def _damaged_zip(self, content: bytes, name: str, depth: int) -> None:
        """Read the members of a zip file without its end, one after the other, as far as they go."""
        at = content.find(_ZIP)
        while at >= 0 and not self.inside.holds:
            method = int.from_bytes(content[at + 8 : at + 10], "little")
            lengths = content[at + 26 : at + 30]
            begin = at + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            if method == zipfile.ZIP_DEFLATED:
                try:
                    part = zlib.decompressobj(-15).decompress(content[begin:], max(1, self.left))
                except zlib.error:
                    part = b""
                self.left -= len(part)
                if part:
                    self.look_if_known(part, name, depth + 1)
            at = content.find(_ZIP, at + 4)
        if not self.inside.holds:
            self.inside.closed.append(f"{name}: it is damaged")

    def _tar(self, content: bytes, name: str, depth: int) -> None:
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as packed:
                for member in packed:
                    self._named(member.name)
                    file = packed.extractfile(member) if member.isreg() else None
                    if file is not None:
                        self._member(file.read(self.left + 1), f"{name}/{member.name}", depth)
        except (tarfile.TarError, OSError, EOFError, ValueError):
            if not self.inside.holds:
                self.inside.closed.append(f"{name}: it is damaged")

    def _member(self, content: bytes, name: str, depth: int) -> None:
        self.left -= len(content)
        if self.left < 0:
            self.inside.closed.append(f"{name}: it holds more than {LIMIT // 2**20} MB")
            return
        self.look(content, name, depth + 1)

    def _named(self, name: str) -> None:
        self.inside.holds = self.inside.holds or self.person.mentioned_in(name)

    def _table(self, content: bytes, name: str) -> None:
        try:
            if content.startswith(_PARQUET):
                size = pq.read_metadata(io.BytesIO(content))
                groups = (size.row_group(number).total_byte_size for number in range(size.num_row_groups))
                if sum(groups) > LIMIT or size.num_rows * max(1, size.num_columns) > LIMIT:
                    self.inside.closed.append(f"{name}: it holds more than {LIMIT // 2**20} MB")
                    return
                table = pq.read_table(io.BytesIO(content))
            else:
                table = pa.ipc.open_file(io.BytesIO(content)).read_all()
            self.inside.holds = table_holds(table, self.person)
        except (pa.ArrowException, OSError, ValueError):
            self.inside.closed.append(f"{name}: it is damaged, or holds what is no answer")

    def _sqlite(self, content: bytes, name: str) -> None:
        try:
            self.inside.holds = any(map(self._row_holds, rows_of_image(content)))
        except sqlite3.Error:
            self.inside.closed.append(f"{name}: it is damaged")

    def _row_holds(self, row: dict[str, object]) -> bool:
        if self.person.matches_id(row.get(self.person.column)):
            return True
        if any(self.person.mentioned_in(str(cell)) for cell in row.values() if isinstance(cell, str | int)):
            return True
        return bool(self.person.marks and self.person.marks.is_row(row))

    def _text(self, text: str, depth: int) -> None:
        marks = self.person.marks
        if self.person.mentioned_in(text) or (marks and marks.in_text(text)) or self._is_table_of(text):
            self.inside.holds = True
            return
        packed = text.encode("utf-8", "surrogatepass")
        for begin, stop in _runs(packed):
            for content in _decoded(packed[begin:stop]):
                self.look_if_known(content, "base64", depth + 1)

    def _is_table_of(self, text: str) -> bool:
        """Whether the person stands in the column of ids of a CSV text: a short id is found only there."""
        if self.person.column not in text[:_BLOCK]:
            return False
        counts = ErasureCounts()
        try:
            for _ in records_without(io.StringIO(text), self.person, (), counts):
                if counts.rows:
                    break
        except (Unreadable, csv.Error):
            return False
        return counts.rows > 0


def table_holds(table: pa.Table, person: Person) -> bool:
    """Whether a table has a row that is the person's, or a cell that names them."""
    names = [name.strip() for name in table.column_names]
    if person.column in names:
        cells = as_stored(table.column(names.index(person.column))).unique().to_pylist()
        if any(cell and person.matches_id(cell) for cell in cells):
            return True
    texts = [
        column
        for column in table.itercolumns()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ]
    for column in texts if person.recognisable else []:
        if any(cell and person.mentioned_in(cell) for cell in column.unique().to_pylist()):
            return True
    return bool(person.marks and person.marks.in_table(table))


def as_text(content: bytes) -> str | None:
    """Return content as text when it is one, in UTF-8, UTF-16, UTF-32 or Windows-1252; else None."""
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    sample = content[:4096]
    # Latin letters in UTF-16 without a mark: every other byte is zero.
    for encoding, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        if len(zeros) >= 8 and zeros.count(0) > 0.6 * len(zeros) and sample.count(0) <= len(zeros):
            return content.decode(encoding, "replace")
    odd = sum(byte < 9 or (13 < byte < 32 and byte != 27) for byte in sample)
    if odd > 0.01 * len(sample):
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start > len(content) - 4:
            return content.decode("utf-8", "replace")
    high = sum(byte >= 128 for byte in sample)
    return content.decode("cp1252", "replace") if high < 0.3 * len(sample) else None


class _CutOff(Exception):
    def __init__(self, nothing_is_lost: bool) -> None:
        super().__init__("cut off")
        self.nothing_is_lost = nothing_is_lost


def _parts(content: bytes) -> Iterator[bytes]:
    """Yield what a compressed stream holds, as far as it goes.

    Raises:
        _CutOff: its end is missing.
    """
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _parts_of_zstd(content)
        return
    while content:
        machine = _machine(content)
        if machine is None:
            return  # what stands behind the end is padding
        for at in range(0, len(content), _BLOCK):
            rest = content[at : at + _BLOCK]
            while True:
                part = machine.decompress(rest, 2**22)
                if part:
                    yield part
                rest = getattr(machine, "unconsumed_tail", b"")
                if machine.eof or (not rest and (not part or getattr(machine, "needs_input", True))):
                    break
            if machine.eof:
                break
        if not machine.eof:
            if hasattr(machine, "flush"):
                yield machine.flush()
            raise _CutOff(not isinstance(machine, bz2.BZ2Decompressor))
        content = machine.unused_data + content[at + _BLOCK :]


def _machine(content: bytes) -> Any:
    """Return what unpacks a stream that begins so; None when nothing is packed so."""
    if content.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    if content.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor() if content.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")) else None


def _parts_of_zstd(content: bytes) -> Iterator[bytes]:
    with pa.input_stream(io.BytesIO(content), compression="zstd") as stream:
        while True:
            try:
                part = stream.read(4096)
            except (OSError, pa.ArrowException) as error:
                raise _CutOff(nothing_is_lost=False) from error
            if not part:
                return
            yield part


def _runs(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of what may be base64, its broken lines put together."""
    # In JSON a line break is two signs, of which one is a letter.
    content = content.replace(b"\\n", b"\n\n").replace(b"\\r", b"\n\n")
    begin = stop = -1
    for match in _BASE64.finditer(content):
        near = begin >= 0 and match.start() - stop <= 8 and stop - begin >= _BROKEN_AT
        if near and _LINE_BREAK.fullmatch(content[stop : match.start()]):
            stop = match.end()
            continue
        if begin >= 0:
            yield begin, _end_of_last_line(content, begin, stop)
        begin, stop = match.span()
    if begin >= 0:
        yield begin, _end_of_last_line(content, begin, stop)


def _end_of_last_line(content: bytes, begin: int, stop: int) -> int:
    """Return where a run ends whose last line is short, and nothing else stands on that line."""
    last = _LAST_LINE.match(content, stop) if stop - begin >= _BROKEN_AT else None
    return last.end() if last else stop


def _decoded(run: bytes) -> Iterator[bytes]:
    """Yield what a run of letters may be in base64, with and without what breaks its lines."""
    joined = re.sub(rb"\\[rn]|\s", b"", run)
    for line in {joined, *run.split()}:
        letters = line.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        if len(letters) < 16:
            continue
        try:
            yield base64.b64decode(letters[: len(letters) - (len(letters) % 4 == 1)] + b"==")
        except binascii.Error:
            continue
