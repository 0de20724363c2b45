"""Counts the rows of a file as it was dropped, with none of the project's readers.

The standard library reads texts, Arrow reads Parquet; what neither can read has no rows that anybody could
count. What the project says of rows is held against this number.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_DELIMITERS = ",;\t|"
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MOST_BYTES = 20_000_000


def rows_of(path: Path, columns: list[str]) -> int | None:
    """Return how many rows stand below the header; None when the file cannot be read.

    Args:
        path: of the file.
        columns: that it should have: by them the delimiter is told.
    """
    if not path.is_file() or path.is_symlink():
        return None
    try:
        if path.name.endswith(".parquet"):
            return int(pq.ParquetFile(path).metadata.num_rows)
        return _rows_of_text(_decoded(_unpacked(path)), columns)
    except (pa.ArrowException, OSError, EOFError, ValueError, csv.Error):
        return None


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        return gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES)
    if path.name.endswith(".bz2"):
        return bz2.BZ2File(io.BytesIO(content)).read(_MOST_BYTES)
    if path.name.endswith(".zst"):
        return bytes(pa.CompressedInputStream(pa.BufferReader(content), "zstd").read(_MOST_BYTES))
    return content


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _rows_of_text(text: str, columns: list[str]) -> int:
    """Count the records of a text that are not blank, but for the header."""
    header = text.lstrip("\ufeff\r\n").splitlines()[0] if text.strip() else ""
    delimiter = max(_DELIMITERS, key=header.count)
    lines = io.StringIO(text.lstrip("\ufeff"), newline="")
    csv.field_size_limit(_MOST_BYTES)
    records = sum(
        1 for record in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if record != []
    )
    if not all(column in header for column in columns):
        raise ValueError("the header has other columns")
    return records - 1
