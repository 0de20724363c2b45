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

KINDS: Mapping[str, type[Candidate]] = {
    candidate.kind: candidate for candidate in (Boosting, Logistic, Forest)
}


@dataclass(frozen=True)
class Blend:
    """Fitted candidates and their weights; what they contribute adds up as their log-odds do."""

    members: Sequence[Candidate]
    weights: Sequence[float]

    def log_odds(self, matrix: np.ndarray) -> np.ndarray:
        """Return the weighted log-odds of each row: float64, shape (n,)."""
        parts = [
            weight * member.log_odds(matrix)
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        return np.sum(parts, axis=0)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much each answer moves the log-odds: float64, shape (n, features)."""
        parts = [
            weight * member.contributions(matrix)
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        return np.sum(parts, axis=0)

    def save(self, folder: Path) -> None:
        """Write ``blend.json`` and a folder for each member."""
        names = [f"{position}_{member.kind}" for position, member in enumerate(self.members)]
        for member, name in zip(self.members, names, strict=True):
            (folder / name).mkdir()
            member.save(folder / name)
        content = [
            {"folder": name, "kind": member.kind, "weight": weight}
            for member, name, weight in zip(self.members, names, self.weights, strict=True)
        ]
        (folder / "blend.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Blend:
        """Read what :meth:`save` wrote."""
        content = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
        members = [KINDS[member["kind"]].load(folder / member["folder"]) for member in content]
        return cls(members, [member["weight"] for member in content])
