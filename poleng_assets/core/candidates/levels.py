"""One column for each answer: the layout that linear models, and trees without categories, learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Levels:
    """Which answers get a column.

    Attributes:
        values: for each column of the matrix, the values that get a column of their own, ascending;
            any other value, and NaN, is nothing but zeros.
    """

    values: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, matrix: np.ndarray, at_least: int) -> Levels:
        """Find the values that stand in at least so many rows of the matrix, shape (n, features)."""
        found = []
        for column in matrix.T:
            values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            found.append(tuple(values[counts >= at_least].tolist()))
        return cls(tuple(found))

    @property
    def starts(self) -> list[int]:
        """The first one-hot column of each column of the matrix, and, last, how many there are."""
        return list(accumulate((len(values) for values in self.values), initial=0))

    def positions(self, matrix: np.ndarray) -> np.ndarray:
        """Return the one-hot column of each answer, -1 where it has none: int64, shape (n, features)."""
        found = np.full(matrix.shape, -1, dtype=np.int64)
        for column, (values, start) in enumerate(zip(self.values, self.starts, strict=False)):
            if not values:
                continue
            known = np.asarray(values)
            place = np.searchsorted(known, matrix[:, column]).clip(max=len(known) - 1)
            found[:, column] = np.where(known[place] == matrix[:, column], start + place, -1)
        return found

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

        positions = self.positions(matrix)
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
        places, weights = np.hstack(parts), np.hstack(values)
        filled = places >= 0
        ends = np.concatenate([[0], filled.sum(axis=1).cumsum()])
        return csr_matrix((weights[filled], places[filled], ends), shape=(len(matrix), columns))

    def dense(self, matrix: np.ndarray, one_hot: Sequence[bool]) -> np.ndarray:
        """Return the matrix with some columns one-hot and the others as they are: float32.

        Where a one-hot answer is missing or unknown, all its columns are zero.
        """
        parts = []
        for column, wanted in enumerate(one_hot):
            values = matrix[:, [column]]
            parts.append(values == np.asarray(self.values[column]) if wanted else values)
        return np.hstack([part.astype(np.float32) for part in parts])
