"""One column for each answer: the layout that linear models, and trees without categories, learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

# Codes that lie further apart are looked up by bisection, which is six times slower than a table.
_WIDEST_TABLE = 2**16


@dataclass(frozen=True)
class OneHotLayout:
    """Which answers get a column.

    Attributes:
        values: for each column of the matrix, the values that get a column of their own, whole numbers,
            ascending; any other value, and NaN, is nothing but zeros.
    """

    values: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, matrix: np.ndarray, at_least: int) -> OneHotLayout:
        """Find the values that stand in at least so many rows of the matrix, shape (n, features)."""
        levels = []
        for column in matrix.T:
            values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            levels.append(tuple(values[counts >= at_least].tolist()))
        return cls(tuple(levels))

    @property
    def starts(self) -> list[int]:
        """The first one-hot column of each column of the matrix, and, last, how many there are."""
        return list(accumulate((len(values) for values in self.values), initial=0))

    def positions(self, matrix: np.ndarray) -> np.ndarray:
        """Return the one-hot column of each answer, -1 where it has none: int32, shape (n, features).

        It lies in memory column by column, as it is made and read.
        """
        positions = np.empty(matrix.shape[::-1], dtype=np.int32)
        for lookup, answers in zip(self._lookups, np.ascontiguousarray(matrix.T), strict=True):
            lookup.write_positions(answers, out=positions[lookup.column])
        return positions.T

    @cached_property
    def _lookups(self) -> list[_Lookup]:
        return [
            _Lookup.of(column, values, start)
            for column, (values, start) in enumerate(zip(self.values, self.starts, strict=False))
        ]

    def sparse(self, matrix: np.ndarray, varies_by: int | None = None, strength: float = 0.0) -> Any:
        """Return the one-hot columns, followed by their products with those of one column.

        A linear model on it is a varying-slopes model: each answer has an effect for everybody and a
        deviation from it for each value of ``varies_by``; a ridge penalty shrinks the deviations all
        the more, the smaller ``strength`` is (Gelman and Hill 2007, ch. 13).

        Args:
            matrix: shape (n, features).
            varies_by: the column that effects differ by, None for none.
            strength: the value of a product, 0 for no products.

        Returns:
            A scipy CSR matrix with n rows.
        """
        from scipy.sparse import csr_matrix

        positions = self.positions(matrix).astype(np.int64)
        width = self.starts[-1]
        parts, values = [positions], [np.ones(positions.shape)]
        columns = width
        if varies_by is not None and strength:
            by = positions[:, varies_by] - self.starts[varies_by]
            others = np.delete(positions, varies_by, axis=1)
            known = (positions[:, [varies_by]] >= 0) & (others >= 0)
            parts.append(np.where(known, width * (1 + by[:, None]) + others, -1))
            values.append(np.full(others.shape, strength))
            columns += width * len(self.values[varies_by])
        indices, weights = np.hstack(parts), np.hstack(values)
        filled = indices >= 0
        ends = np.concatenate([[0], filled.sum(axis=1).cumsum()])
        return csr_matrix((weights[filled], indices[filled], ends), shape=(len(matrix), columns))

    def dense(self, matrix: np.ndarray, one_hot: Sequence[bool]) -> np.ndarray:
        """Return the matrix with some columns one-hot and the others as they are: float32.

        Where a one-hot answer is missing or unknown, all its columns are zero.
        """
        widths = [len(values) if split else 1 for values, split in zip(self.values, one_hot, strict=True)]
        starts = list(accumulate(widths, initial=0))
        positions = self.positions(matrix)
        laid_out = np.zeros((len(matrix), starts[-1]), dtype=np.float32)
        rows = np.arange(len(matrix))
        for column, split in enumerate(one_hot):
            if split:
                known = positions[:, column] >= 0
                columns = positions[known, column] + (starts[column] - self.starts[column])
                laid_out[rows[known], columns] = 1.0
            else:
                laid_out[:, starts[column]] = matrix[:, column]
        return laid_out


@dataclass(frozen=True)
class _Lookup:
    """Where the answers of one column stand among the one-hot columns."""

    column: int
    known: np.ndarray
    start: int
    table: np.ndarray | None

    @classmethod
    def of(cls, column: int, values: Sequence[float], start: int) -> _Lookup:
        """Prepare the look-up of some values."""
        known = np.asarray(values, dtype=np.float32)
        if not len(known) or known[-1] - known[0] >= _WIDEST_TABLE:
            return cls(column, known, start, None)
        # The first place is for what is smaller, the last for what is larger or missing.
        table = np.full(int(known[-1] - known[0]) + 3, -1, dtype=np.int32)
        table[(known - known[0]).astype(np.int64) + 1] = start + np.arange(len(known))
        return cls(column, known, start, table)

    def write_positions(self, answers: np.ndarray, out: np.ndarray) -> None:
        """Write the position of each answer, -1 for none: float32 in, int32 out, shape (n,)."""
        if self.table is not None:
            shifted = np.fmax(np.fmin(answers - (self.known[0] - 1), len(self.table) - 1), 0)
            np.take(self.table, shifted.astype(np.intp), out=out)
        elif len(self.known):
            nearest = np.minimum(np.searchsorted(self.known, answers), len(self.known) - 1)
            out[:] = np.where(self.known[nearest] == answers, self.start + nearest, -1)
        else:
            out[:] = -1
