"""Malformed rows beside the sound ones that Arrow reads: each keeps its number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files.base import MAX_LINE_KEPT, Chunk, Malformed

_MAX_PENDING = 64 * 2**20  # characters of malformed rows, kept until the sound rows before them are known


def wrong_number(fields: int, expected: int) -> str:
    """Return what is wrong with a record of that many fields."""
    return f"has {fields} {'field' if fields == 1 else 'fields'}, the header has {expected}"


class Pending:
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
        reason = wrong_number(row.actual_columns, self._fields)
        self._rows.append(Malformed(row.number - self._blank, reason, line))
        self._size += len(line)
        self.overflown = self._size > _MAX_PENDING
        return "error" if self.overflown else "skip"

    def numbered(self, rows: pa.Table) -> Chunk:
        """Return the next sound rows with their numbers, and the malformed ones before the last of them."""
        # How many sound rows stand before each malformed one, and so which malformed ones before each row.
        malformed = np.array([row.row_number for row in self._rows], dtype=np.int64)
        sound_before = malformed - self._last - 1 - np.arange(len(malformed))
        index = np.arange(rows.num_rows, dtype=np.int64)
        numbers = self._last + 1 + index + np.searchsorted(sound_before, index, side="right")
        self._last = int(numbers[-1])
        passed = int(np.searchsorted(malformed, self._last))
        chunk = Chunk(rows, numbers, tuple(self._rows[:passed]))
        self._rows = self._rows[passed:]
        self._size = sum(len(row.line) for row in self._rows)
        return chunk

    @property
    def ends_short(self) -> bool:
        """Return whether the last row of all has too few fields."""
        return bool(self._rows) and self._short

    def rest(self, names: Sequence[str]) -> Chunk | None:
        """Return the malformed rows behind the last sound one, if there are any."""
        if not self._rows:
            return None
        none = pa.table({name: pa.array([], pa.string()) for name in names})
        return Chunk(none, np.array([], dtype=np.int64), tuple(self._rows))

    def refusal(self, path: Path) -> FileRefused:
        """Return the refusal of a file that has hardly a sound row."""
        first = self._rows[0]
        return FileRefused(
            f"{path.name}: {len(self._rows):,} rows running are malformed; the first, row "
            f"{first.row_number}, {first.reason}"
        )
