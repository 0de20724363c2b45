"""XGBoost: boosted trees on categories as they are, in an order, or with a column for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poleng_assets.core.modeling.candidates.base import Candidate, Columns, Parameters, stretched
from poleng_assets.core.modeling.candidates.one_hot_layout import OneHotLayout
from poleng_assets.core.modeling.candidates.target_ordered_layout import TargetOrderedLayout
from poleng_assets.core.modeling.candidates.tree_shap import TreeShap
from poleng_assets.study.policies import TrainingPolicy

if TYPE_CHECKING:
    import optuna

NATIVE = "native"
RANKED = "ranked"
ONE_HOT = "one_hot"
# With more categories than this, trees part them; with fewer, they cut their order.
MAX_RANKED = 32
# By so many columns rows are put in order before they go through the trees: more gain nothing.
LEADING = 4


@dataclass(frozen=True)
class Boosting(Candidate):
    """A booster, and how its matrix is laid out.

    Native categories learn a little more of countries that are known, one-hot columns carry over a
    little better to unknown ones; ranks (of all but the largest vocabularies) learn as much as native
    categories and are scored twice as fast. Cross-validation decides.

    Attributes:
        booster: of XGBoost.
        categorical: which columns of the encoder's matrix are categories.
        levels: of the one-hot layout, else None.
        ranks: of the ranked layout, else None.
    """

    kind: ClassVar[str] = "xgboost"
    booster: Any
    categorical: tuple[bool, ...]
    levels: OneHotLayout | None = None
    ranks: TargetOrderedLayout | None = None

    @classmethod
    def starting_points(cls, policy: TrainingPolicy) -> list[Parameters]:
        """Return the study's own trees, in each layout."""
        own = policy.xgboost
        trees = {
            "rounds": own.rounds,
            "eta": own.learning_rate,
            "max_depth": own.max_depth,
            "min_child_weight": own.min_child_weight,
            "subsample": own.subsample,
            "colsample_bytree": own.colsample,
            "lambda": own.reg_lambda,
        }
        return [{"categories": layout, **trees} for layout in (RANKED, NATIVE, ONE_HOT)]

    @classmethod
    def suggest(cls, trial: optuna.Trial, policy: TrainingPolicy) -> Parameters:
        """Search between the ends that the study names, which its starting point stretches."""
        start, search = cls.starting_points(policy)[0], policy.xgboost.search

        def whole(name: str, ends: tuple[int, int]) -> int:
            return trial.suggest_int(name, *stretched(ends, start[name]))

        def real(name: str, ends: tuple[float, float], log: bool = False) -> float:
            return trial.suggest_float(name, *stretched(ends, start[name]), log=log)

        return {
            "categories": trial.suggest_categorical("categories", [RANKED, NATIVE, ONE_HOT]),
            "rounds": whole("rounds", search.rounds),
            "eta": real("eta", search.learning_rate, log=True),
            "max_depth": whole("max_depth", search.max_depth),
            "min_child_weight": real("min_child_weight", search.min_child_weight, log=True),
            "subsample": real("subsample", search.subsample),
            "colsample_bytree": real("colsample_bytree", search.colsample),
            "lambda": real("lambda", search.reg_lambda, log=True),
        }

    @classmethod
    def fit(
        cls, matrix: np.ndarray, target: np.ndarray, columns: Columns, parameters: Parameters, seed: int
    ) -> Boosting:
        """Train the booster; https://xgboost.readthedocs.io/en/release_2.1.0/parameter.html."""
        import xgboost

        settings = dict(parameters)
        rounds, layout = settings.pop("rounds"), settings.pop("categories")
        levels = OneHotLayout.fit(matrix, at_least=1) if layout == ONE_HOT else None
        ranks = (
            TargetOrderedLayout.fit(matrix, target, columns.categorical, MAX_RANKED)
            if layout == RANKED
            else None
        )
        blank = cls(None, columns.categorical, levels, ranks)
        # One thread: the sums of several are rounded in another order on a machine with other cores,
        # and folds and candidates that are fitted side by side use the cores better.
        fixed = {"objective": "binary:logistic", "tree_method": "hist", "seed": seed, "nthread": 1}
        booster = xgboost.train(settings | fixed, blank._data(matrix, target), num_boost_round=rounds)
        return cls(booster, columns.categorical, levels, ranks)

    def log_odds(self, matrix: np.ndarray) -> np.ndarray:
        """Return the booster's margin for each row: float64, shape (n,).

        Rows go through the trees in the order of the columns that part them most: neighbours then take the
        same way, which a processor foresees. It saves a tenth of the time, and no row's sum changes.
        """
        laid_out = self.laid_out(matrix)
        order = np.lexsort([laid_out[:, column] for column in reversed(self._leading)])
        margins = np.empty(len(matrix))
        margins[order] = self.booster.inplace_predict(laid_out[order], predict_type="margin")
        return margins

    @cached_property
    def _leading(self) -> list[int]:
        """The columns that the trees gain most by, the first one first."""
        gains = self.booster.get_score(importance_type="total_gain")
        # XGBoost names columns f0, f1 …; trees without any split have none.
        columns = [int(name[1:]) for name in sorted(gains, key=gains.__getitem__, reverse=True)]
        return columns[:LEADING] or [0]

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much each answer moves the margin: float64, shape (n, features)."""
        each = self._trees.contributions(self.laid_out(matrix))
        if self.levels is None:
            return each
        widths = [
            len(values) if one_hot else 1
            for values, one_hot in zip(self.levels.values, self.categorical, strict=True)
        ]
        # A column without any level would take its neighbour's sum: reduceat cannot add nothing.
        starts = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(int)
        summed = np.zeros(matrix.shape)
        filled = np.asarray(widths) > 0
        summed[:, filled] = np.add.reduceat(each, starts[filled], axis=1)
        return summed

    @cached_property
    def _trees(self) -> TreeShap:
        return TreeShap.of(self.booster)

    def save(self, folder: Path) -> None:
        """Write ``booster.ubj`` and ``layout.json``."""
        self.booster.save_model(folder / "booster.ubj")
        layout = {
            "categorical": self.categorical,
            "levels": self.levels.values if self.levels else None,
            "ranks": self.ranks.to_lists() if self.ranks else None,
        }
        (folder / "layout.json").write_text(json.dumps(layout), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Boosting:
        """Read what :meth:`save` wrote."""
        import xgboost

        layout = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
        levels = (
            OneHotLayout(tuple(tuple(values) for values in layout["levels"])) if layout["levels"] else None
        )
        ranks = TargetOrderedLayout.from_lists(layout["ranks"]) if layout["ranks"] else None
        booster = xgboost.Booster({"nthread": 1}, model_file=folder / "booster.ubj")
        return cls(booster, tuple(layout["categorical"]), levels, ranks)

    def laid_out(self, matrix: np.ndarray) -> np.ndarray:
        """Return the encoder's matrix, float32, shape (n, features), as the booster reads it."""
        if self.ranks is not None:
            return self.ranks.ranked(matrix)
        return matrix if self.levels is None else self.levels.dense(matrix, self.categorical)

    def _data(self, matrix: np.ndarray, target: np.ndarray | None = None) -> Any:
        import xgboost

        if self.levels is not None:
            return xgboost.DMatrix(self.laid_out(matrix), target)
        ranked = self.ranks.ranks if self.ranks else [None] * len(self.categorical)
        types = [
            "c" if categories and rank is None else "q"
            for categories, rank in zip(self.categorical, ranked, strict=True)
        ]
        laid_out = self.laid_out(matrix)
        return xgboost.DMatrix(laid_out, target, feature_types=types, enable_categorical=True)
