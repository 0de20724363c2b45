"""What every kind of model can do: be fitted with parameters, give log-odds, explain them, be kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from poleng_assets.core.features.encoder import Encoder
from poleng_assets.study.policies import TrainingPolicy
from poleng_assets.study.schema import Study

if TYPE_CHECKING:
    import optuna

Parameters = Mapping[str, Any]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Columns:
    """What a candidate may know of the matrix that it learns from.

    Attributes:
        categorical: for each column, whether its numbers are categories (positions in a vocabulary).
        masked: positions of the columns whose categories may be new one day.
        varies_by: position of the column by which effects may differ, None when there is none.
    """

    categorical: tuple[bool, ...]
    masked: tuple[int, ...]
    varies_by: int | None

    @classmethod
    def of(cls, encoder: Encoder, study: Study) -> Columns:
        """Describe the matrix that an encoder makes."""
        policy = study.policies.training
        return cls(
            tuple(name in encoder.vocabularies for name in encoder.features),
            tuple(encoder.features.index(name) for name in policy.masked),
            encoder.features.index(policy.varies_by) if policy.varies_by else None,
        )


class Candidate(ABC):
    """A fitted model of one kind, on the matrices of one encoder: NaN is missing or unseen."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def starting_points(cls, policy: TrainingPolicy) -> list[Parameters]:
        """Return the parameters that tuning begins with."""

    @classmethod
    @abstractmethod
    def suggest(cls, trial: optuna.Trial, policy: TrainingPolicy) -> Parameters:
        """Return the parameters that a trial is to try; starting points are always within the ranges."""

    @classmethod
    @abstractmethod
    def fit(
        cls, matrix: np.ndarray, target: np.ndarray, columns: Columns, parameters: Parameters, seed: int
    ) -> Self:
        """Learn from rows.

        Args:
            matrix: float32, shape (n, features).
            target: 0 or 1, shape (n,); both classes are there.
            parameters: as :meth:`suggest` gives them.
            seed: the same seed, rows and parameters give the same model.
        """

    @abstractmethod
    def log_odds(self, matrix: np.ndarray) -> np.ndarray:
        """Return the log-odds of a 1 for each row: float64, shape (n,)."""

    @abstractmethod
    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much each answer moves the log-odds: float64, shape (n, features)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into an existing folder; nothing is pickled."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""


def stretched(ends: tuple[Number, Number], start: Number) -> tuple[Number, Number]:
    """Return the ends of a search so that its starting point lies between them."""
    return min(ends[0], start), max(ends[1], start)


def with_masked_copies(
    matrix: np.ndarray, target: np.ndarray, masked: tuple[int, ...], share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows, and a share of them once more with the masked columns hidden.

    A missing value then means "a code that training did not have": without it an unseen country sends
    the scores of a whole batch astray.
    """
    copied = np.random.default_rng(seed).random(len(matrix)) < share
    hidden = matrix[copied]
    hidden[:, list(masked)] = np.nan
    return np.vstack([matrix, hidden]), np.concatenate([target, target[copied]])
