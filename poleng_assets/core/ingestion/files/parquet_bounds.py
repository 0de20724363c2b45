"""How much of a Parquet file may be read at once, asked before any of it is.

A text that stands once in a dictionary stands for any number of rows, and a page of equal bytes is packed a
thousand times over: 20 kB may become 12 GB. So what the file says of itself is asked first (the sizes of its
column chunks, its types, the longest entry of its dictionaries), and rows are read in portions that stay
within a budget however they unfold.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BUDGET = 256 * 2**20  # bytes of rows that are in memory at once
LONGEST_VALUE = 64 * 2**10  # bytes of an id or an answer; sound ids are far shorter
MOST_ON_AVERAGE = 1024  # bytes of a value, of a large column
MOST_PACKED = 1_000  # times that a large column may unfold when its pages are unpacked


class TooMuchInside(ValueError):
    """A file would unfold to more than its rows can need; the message says which column, in words."""


def rows_at_once(
    path: Path,
    footer: pq.FileMetaData,
    columns: Sequence[str],
    most: int,
    longest: int | None = LONGEST_VALUE,
) -> int:
    """Return how many rows of some columns can be read at once, whatever their dictionaries hold.

    Args:
        columns: that are to be read; names that stand once.
        most: rows, when nothing speaks against it.
        longest: value in bytes that is taken; None: any that the budget holds.

    Raises:
        TooMuchInside: a column holds, by what the file itself says, values that are no ids or answers.
        pyarrow.ArrowException: the file is damaged.
    """
    wanted = set(columns)
    indices = [index for index in range(footer.num_columns) if footer.schema.column(index).path in wanted]
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    size_of_a_row = 0
    to_look_at: dict[int, list[str]] = {}
    for index in indices:
        column = footer.schema.column(index)
        size_of_a_row += max(column.length, 8)
        if longest is not None:
            refuse_long_value(column.path, column.length, longest)
        for number, group in enumerate(groups):
            chunk = group.column(index)
            unpacked = chunk.total_uncompressed_size
            if longest is not None and unpacked > BUDGET:
                if unpacked > MOST_ON_AVERAGE * chunk.num_values:
                    raise TooMuchInside(
                        f"the column {column.path} holds {unpacked // max(chunk.num_values, 1):,} bytes a "
                        "row, which are no ids and no answers"
                    )
                if unpacked > MOST_PACKED * chunk.total_compressed_size:
                    raise TooMuchInside(
                        f"the column {column.path} unfolds from {chunk.total_compressed_size:,} bytes to "
                        f"{unpacked:,}, which no survey does"
                    )
            # No entry of a dictionary is longer than its chunk: most chunks are small enough as they are.
            if column.physical_type == "BYTE_ARRAY" and unpacked * min(most, footer.num_rows) > BUDGET:
                to_look_at.setdefault(number, []).append(column.path)
    size_of_a_row += _longest_entries(path, footer, to_look_at, longest)
    if size_of_a_row > BUDGET:
        raise TooMuchInside(f"a single row of it may hold {size_of_a_row:,} bytes")
    return max(1, min(most, BUDGET // max(size_of_a_row, 1)))


def _longest_entries(
    path: Path, footer: pq.FileMetaData, to_look_at: dict[int, list[str]], longest: int | None
) -> int:
    """Return how long the longest entries of dictionaries are, together, in bytes; each is read once."""
    if not to_look_at:
        return 0
    names = sorted({name for some in to_look_at.values() for name in some})
    lengths = dict.fromkeys(names, 0)
    with pq.ParquetFile(
        path, metadata=footer, read_dictionary=names, pre_buffer=False, buffer_size=2**20
    ) as file:
        for number, some in to_look_at.items():
            for batch in file.iter_batches(1, row_groups=[number], columns=some):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    entries = column.dictionary if pa.types.is_dictionary(column.type) else column
                    length = pc.max(pc.binary_length(entries)).as_py() or 0
                    if longest is not None:
                        refuse_long_value(name, length, longest)
                    lengths[name] = max(lengths[name], length)
                break
    return sum(lengths.values())


def refuse_long_value(name: str, length: int, longest: int = LONGEST_VALUE) -> None:
    """Raise :class:`TooMuchInside` when a value of a column is too long, in bytes, for an id or an answer."""
    if length > longest:
        raise TooMuchInside(
            f"the column {name} holds a value of {length:,} bytes, which is too long for an id or an answer"
        )
