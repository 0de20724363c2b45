"""The model: one encoder and one booster that belong together, and how they are trained and kept.

A folder with ``encoder.json``, ``booster.ubj`` and ``model.json`` is a model; nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.encoding import Encoder
from poleng_assets.study import Study, TrainingPolicy


@dataclass(frozen=True)
class Model:
    """An encoder, the booster trained on its matrices, and the threshold of a contact."""

    encoder: Encoder
    booster: Any
    threshold: float

    def score(self, rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> np.ndarray:
        """Return the probability of being disengaged for each row: float64, shape (rows,).

        Raises:
            EncodingError: a feature is absent or holds a value that is no survey code.
        """
        matrix = self.encoder.encode(rows)
        if not len(matrix):
            return np.empty(0)
        return self.booster.inplace_predict(matrix).astype(np.float64)

    def contributions(self, rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> np.ndarray:
        """Return how much each answer moves each score: log-odds, float64, shape (rows, features).

        Together with a constant they add up to the log-odds of :meth:`score`.
        """
        import xgboost

        matrix = self.encoder.encode(rows)
        if not len(matrix):
            return np.empty(matrix.shape)
        data = xgboost.DMatrix(matrix, feature_types=self.encoder.feature_types, enable_categorical=True)
        return self.booster.predict(data, pred_contribs=True)[:, :-1].astype(np.float64)

    def save(self, folder: Path) -> None:
        """Write the model into a folder, which is made if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(self.encoder.to_json(), encoding="utf-8")
        (folder / "model.json").write_text(json.dumps({"threshold": self.threshold}), encoding="utf-8")
        self.booster.save_model(folder / "booster.ubj")

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Read what :meth:`save` wrote."""
        import xgboost

        settings = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return cls(
            Encoder.from_json((folder / "encoder.json").read_text(encoding="utf-8")),
            xgboost.Booster(model_file=folder / "booster.ubj"),
            settings["threshold"],
        )


def booster_parameters(policy: TrainingPolicy) -> dict[str, Any]:
    """Return XGBoost's parameters for a policy; https://xgboost.readthedocs.io/en/release_2.1.0/."""
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "seed": policy.seed,
        "eta": policy.learning_rate,
        "max_depth": policy.max_depth,
        "min_child_weight": policy.min_child_weight,
        "subsample": policy.subsample,
        "colsample_bytree": policy.colsample,
    }


def train(rows: pa.Table, study: Study) -> Model:
    """Train a booster on labelled rows.

    A share of the rows is learned from a second time with the ``masked`` features hidden, so that a
    missing value means "a code that training did not have": without it an unseen country sends
    the scores of a whole batch astray.

    Args:
        rows: features and target in canonical codes; holdout rows must not be among them.
        study: features, target and training policy.

    Raises:
        ValueError: there are no rows, or the target has one class only.
    """
    import xgboost

    policy = study.policies.training
    target = rows[study.target.name].to_numpy().astype(np.float32)
    if len(np.unique(target)) < 2:
        raise ValueError(
            f"a model needs both classes of {study.target.name}; the {len(target)} training rows have "
            f"{sorted(set(target.tolist()))}"
        )
    encoder = Encoder.fit(rows, study)
    matrix = encoder.encode(rows)
    again = np.random.default_rng(policy.seed).random(len(matrix)) < policy.masked_share
    hidden = matrix[again]
    hidden[:, [encoder.features.index(name) for name in policy.masked]] = np.nan
    data = xgboost.DMatrix(
        np.vstack([matrix, hidden]),
        np.concatenate([target, target[again]]),
        feature_types=encoder.feature_types,
        enable_categorical=True,
    )
    booster = xgboost.train(booster_parameters(policy), data, num_boost_round=policy.rounds)
    return Model(encoder, booster, study.policies.contact.threshold)
