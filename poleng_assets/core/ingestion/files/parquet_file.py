"""Rows of a Parquet file, in bounded memory."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files.base import CHUNK, Chunk, OpenFile, content_kind, damaged, too_large
from poleng_assets.core.ingestion.files.parquet_bounds import TooMuchInside, refuse_long_value, rows_at_once
from poleng_assets.core.ingestion.headers import plain_name


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file whose frame is sound.

    Raises:
        FileRefused: it is no Parquet file, is encrypted, or is damaged.
    """
    with path.open("rb") as file:
        begin = file.read(8)
        file.seek(-min(4, path.stat().st_size), io.SEEK_END)
        end = file.read()
    if b"PARE" in (begin[:4], end):
        raise FileRefused(f"{path.name} is encrypted parquet. Write it again without encryption")
    if not begin.startswith(b"PAR1"):
        raise FileRefused(f"{path.name} cannot be read as parquet: {content_kind(begin)}")
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
        raise damaged(path, error) from error
    with file:
        yield file


def _texts_that_repeat(footer: pq.FileMetaData) -> list[str]:
    """Return the columns of texts that the file keeps once for many rows: each is read once then, too.

    Kept for each row, a text takes four bytes for its length alone. Each row group has its own dictionaries,
    and Arrow begins a chunk with each: with small ones, more is lost than won.
    """
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    repeating: list[str] = []
    if len(groups) > 1 and footer.num_rows < len(groups) * CHUNK // 2:
        return repeating
    for index in range(footer.num_columns):
        column, chunks = footer.schema.column(index), [group.column(index) for group in groups]
        is_text = column.logical_type.type == "STRING" and column.max_repetition_level == 0
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        if is_text and "." not in column.path and size < 4 * footer.num_rows:
            repeating.append(column.path)
    return repeating


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


class ParquetFile(OpenFile):
    """A Parquet file; what its pages unpack to is asked before they are."""

    def __init__(self, path: Path, file: pq.ParquetFile, needed: Sequence[str], max_bytes: int) -> None:
        self._path, self._file, self._needed, self._max_bytes = path, file, list(needed), max_bytes
        try:
            self._raw = list(file.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
        if not self._raw:
            raise FileRefused(f"{path.name} has no columns")
        self.columns = [plain_name(name) for name in self._raw]
        self.rows_at_most = file.metadata.num_rows
        # Every value takes a byte at least, however well a long run of them was packed; and the pages unpack
        # to as much as the file says, or it is damaged.
        if max(self.rows_at_most * len(self._needed), self._unpacked()) > max_bytes:
            raise too_large(path, max_bytes)

    def _chunks(self, wanted: list[tuple[int, str]]) -> Iterator[Chunk]:
        raw = [self._raw[index] for index, _ in wanted]
        self._refuse_nested(wanted)
        read = size = 0
        try:
            at_once = rows_at_once(self._path, self._file.metadata, raw, CHUNK)
            for batch in self._file.iter_batches(at_once, columns=raw):
                rows = pa.Table.from_batches([batch]).select(raw).rename_columns([name for _, name in wanted])
                size += _unpacked_bytes(rows)
                if size > self._max_bytes:
                    raise too_large(self._path, self._max_bytes)
                _refuse_long_values(rows)
                rows.validate(full=True)  # Arrow takes the text of a parquet file as it is, UTF-8 or not
                numbers = np.arange(read + 1, read + 1 + rows.num_rows, dtype=np.int64)
                read += rows.num_rows
                yield Chunk(rows, numbers)
        except TooMuchInside as error:
            raise FileRefused(f"{self._path.name} is refused before it is unpacked: {error}") from error
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._path, error) from error
        if read != self.rows_at_most:
            raise FileRefused(
                f"{self._path.name} cannot be read as parquet: it says that it has {self.rows_at_most} rows, "
                f"and has {read}"
            )

    def _unpacked(self) -> int:
        """Return what the pages of the needed columns take when they are unpacked, as the file says."""
        footer = self._file.metadata
        indices = [
            index
            for index in range(footer.num_columns)
            if plain_name(footer.schema.column(index).path.partition(".")[0]) in self._needed
        ]
        groups = map(footer.row_group, range(footer.num_row_groups))
        return sum(group.column(index).total_uncompressed_size for group in groups for index in indices)

    def _refuse_nested(self, wanted: list[tuple[int, str]]) -> None:
        """Refuse lists and the like before they are read: one row may hold any number of them."""
        for index, name in wanted:
            kind = self._file.schema_arrow.field(index).type
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
