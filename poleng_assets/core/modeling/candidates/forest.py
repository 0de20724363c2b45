"""Random forest: many deep trees, each on a resample of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poleng_assets.core.modeling.candidates.base import Candidate, Columns, Parameters, stretched
from poleng_assets.study.policies import TrainingPolicy

if TYPE_CHECKING:
    import optuna

# A leaf may hold one class only; log-odds must stay finite.
LEAST = 1e-4


@dataclass(frozen=True)
class Forest(Candidate):
    """A forest on the encoder's matrix as it is: its trees split categories by position."""

    kind: ClassVar[str] = "forest"
    forest: Any

    @classmethod
    def starting_points(cls, policy: TrainingPolicy) -> list[Parameters]:
        """Return the study's own forest."""
        return [policy.forest.model_dump(exclude={"search"})]

    @classmethod
    def suggest(cls, trial: optuna.Trial, policy: TrainingPolicy) -> Parameters:
        """Search how fine the leaves are and how much the trees differ."""
        own, search = policy.forest, policy.forest.search
        leaf = stretched(search.min_samples_leaf, own.min_samples_leaf)
        features = stretched(search.max_features, own.max_features)
        return {
            "trees": trial.suggest_int("trees", *stretched(search.trees, own.trees)),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", *leaf, log=True),
            "max_features": trial.suggest_float("max_features", *features),
        }

    @classmethod
    def fit(
        cls, matrix: np.ndarray, target: np.ndarray, columns: Columns, parameters: Parameters, seed: int
    ) -> Forest:
        """Grow the forest; scikit-learn's trees learn where missing values go."""
        from sklearn.ensemble import RandomForestClassifier

        settings = dict(parameters)
        forest = RandomForestClassifier(settings.pop("trees"), random_state=seed, n_jobs=-1, **settings)
        forest.fit(matrix, target)
        # In several threads the trees are added up in any order, and the last digit is left to chance.
        return cls(forest.set_params(n_jobs=1))

    def log_odds(self, matrix: np.ndarray) -> np.ndarray:
        """Return the log-odds of the mean of the trees: float64, shape (n,)."""
        chance = self.forest.predict_proba(matrix)[:, 1].clip(LEAST, 1 - LEAST)
        return np.log(chance / (1 - chance))

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much the log-odds fall when one answer is taken away (occlusion).

        A forest has no exact split of its score as boosted trees have; these do not add up to it.
        """
        log_odds = self.log_odds(matrix)

        def moved_by(column: int) -> np.ndarray:
            without = matrix.copy()
            without[:, column] = np.nan
            return log_odds - self.log_odds(without)

        return np.column_stack([moved_by(column) for column in range(matrix.shape[1])])

    def save(self, folder: Path) -> None:
        """Write ``forest.skops``."""
        import skops.io

        skops.io.dump(self.forest, folder / "forest.skops")

    @classmethod
    def load(cls, folder: Path) -> Forest:
        """Read what :meth:`save` wrote; skops refuses every type that it does not trust."""
        import skops.io

        return cls(skops.io.load(folder / "forest.skops", trusted=["sklearn.tree._tree.Tree"]))
