"""A weighted sum of the log-odds of several candidates; of one alone it is that candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poleng_assets.core.modeling.candidates.base import Candidate
from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.candidates.forest import Forest
from poleng_assets.core.modeling.candidates.logistic import Logistic

KINDS: Mapping[str, type[Candidate]] = {one.kind: one for one in (Boosting, Logistic, Forest)}


@dataclass(frozen=True)
class Blend:
    """Fitted candidates and their weights; what they contribute adds up as their log-odds do."""

    members: Sequence[Candidate]
    weights: Sequence[float]

    def log_odds(self, matrix: np.ndarray) -> np.ndarray:
        """Return the weighted log-odds of each row: float64, shape (n,)."""
        parts = [
            weight * one.log_odds(matrix) for one, weight in zip(self.members, self.weights, strict=True)
        ]
        return np.sum(parts, axis=0)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much each answer moves the log-odds: float64, shape (n, features)."""
        parts = [
            weight * one.contributions(matrix) for one, weight in zip(self.members, self.weights, strict=True)
        ]
        return np.sum(parts, axis=0)

    def save(self, folder: Path) -> None:
        """Write ``blend.json`` and a folder for each member."""
        names = [f"{position}_{one.kind}" for position, one in enumerate(self.members)]
        for one, name in zip(self.members, names, strict=True):
            (folder / name).mkdir()
            one.save(folder / name)
        content = [
            {"folder": name, "kind": one.kind, "weight": weight}
            for one, name, weight in zip(self.members, names, self.weights, strict=True)
        ]
        (folder / "blend.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Blend:
        """Read what :meth:`save` wrote."""
        content = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
        members = [KINDS[one["kind"]].load(folder / one["folder"]) for one in content]
        return cls(members, [one["weight"] for one in content])
