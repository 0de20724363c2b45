"""What every open file gives: numbered rows in chunks; and how a file is refused that is not what it says."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.storage.dropped_files import known_suffix
from poleng_assets.text.plain_text import first_line

CHUNK = 100_000  # rows
MAX_RECORD = 16 * 2**20  # bytes; also how much text is parsed at once
MAX_LINE_KEPT = 2_000  # characters of a malformed row
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
        present = [name for name in self._needed if self.columns.count(name) == 1]
        index = self.columns.index(present[0]) if present else 0
        return sum(c.rows.num_rows + len(c.malformed) for c in self._chunks([(index, "any")]))

    @abstractmethod
    def _chunks(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        """Yield the data rows with the columns at some places, under other names."""


def is_other_content(begin: bytes) -> bool:
    """Return whether a file begins as something that is neither text nor a table of it."""
    return any(begin.startswith(magic) for magic, _ in _MAGICS)


def content_kind(begin: bytes) -> str:
    """Return in words what a file is by its first bytes."""
    what = next((what for magic, what in _MAGICS if begin.startswith(magic)), "something else")
    return f"its content is {what}"


def damaged(path: Path, error: Exception) -> FileRefused:
    """Return the refusal of a file that cannot be read on."""
    kind = known_suffix(path.name).removeprefix(".")
    return FileRefused(
        f"{path.name} cannot be read as {kind}, it is damaged or not whole: {first_line(error)[:300]}"
    )


def too_large(path: Path, max_bytes: int) -> FileRefused:
    """Return the refusal of a file that holds more than the study allows."""
    return FileRefused(
        f"{path.name} holds more than {max_bytes / 2**20:,.0f} MB when it is unpacked, which is as much as "
        "policies.ingestion.max_expanded_megabytes of the study allows. Split it, or raise that number"
    )
