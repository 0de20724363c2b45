"""The rival: how the project that this one grew out of does the same job, in code of our own.

Its way (celupa/political-engagement-mlops) is pandas throughout: rows to dicts, scikit-learn's
DictVectorizer, an XGBoost DMatrix, predict; then drift by column on the whole frames, as Evidently 0.4 does
by default.

Evidently is not installed. Its default test of each column is made here from its public documentation
(https://docs.evidentlyai.com/reference/data-drift-algorithm), which for a reference of more than 1,000 rows
is: the Wasserstein distance over the reference's standard deviation for numbers with more than five
values, the Jensen-Shannon distance for everything else, either against .1; for smaller ones
Kolmogorov-Smirnov, chi-squared, or a z-test of two proportions, at 5 %. Its plots and HTML are not made
here, so that this is faster than the seed is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import pandas as pd
import xgboost
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, norm, wasserstein_distance
from sklearn.feature_extraction import DictVectorizer

LARGE_REFERENCE = 1000
FEW_VALUES = 5
DISTANCE_LIMIT = 0.1
P_LIMIT = 0.05
BINS = 30
THRESHOLD = 0.5
SCORE = "prediction"


@dataclass(frozen=True)
class SeedModel:
    """A fitted DictVectorizer, and a booster on its columns."""

    vectoriser: Any
    booster: Any

    def save(self, folder: Path) -> None:
        """Write both into a folder."""
        joblib.dump(self.vectoriser, folder / "vectoriser.joblib")
        self.booster.save_model(folder / "booster.ubj")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""

        vectoriser = joblib.load(folder / "vectoriser.joblib")
        return cls(vectoriser, xgboost.Booster(model_file=folder / "booster.ubj"))


def vectorise(vectoriser: Any, rows: pd.DataFrame) -> Any:
    """Return the rows as DictVectorizer has them: one column for each text answer, numbers as they are."""
    return vectoriser.transform(rows.to_dict(orient="records"))


def learn(
    rows: pd.DataFrame,
    features: Sequence[str],
    target: str,
    rounds: int,
    settings: Mapping[str, Any] | None = None,
) -> SeedModel:
    """Train a booster the seed's way.

    Args:
        rows: labelled.
        features: columns to learn from.
        target: column of 0 and 1.
        rounds: of boosting.
        settings: of the trees.
    """
    vectoriser = DictVectorizer()
    matrix = vectoriser.fit_transform(rows[list(features)].to_dict(orient="records"))
    data = xgboost.DMatrix(matrix, label=rows[target].to_numpy(dtype=np.float32))
    parameters = {"objective": "binary:logistic", **(settings or {})}
    return SeedModel(vectoriser, xgboost.train(parameters, data, num_boost_round=rounds))


def score(model: SeedModel, rows: pd.DataFrame, features: Sequence[str]) -> np.ndarray:
    """Return the probability of each row: rows to dicts, DictVectorizer, DMatrix, predict."""
    matrix = vectorise(model.vectoriser, rows[list(features)])
    return model.booster.predict(xgboost.DMatrix(matrix))


def score_file(model: SeedModel, path: Path, out: Path, features: Sequence[str]) -> int:
    """Score a file into a file; return its rows."""
    rows = pd.read_parquet(path)
    rows[SCORE] = score(model, rows, features)
    rows.to_parquet(out, index=False)
    return len(rows)


def column_drift(reference: pd.Series, current: pd.Series) -> tuple[float, bool]:
    """Return the figure of Evidently's default test of one column, and whether it counts as drift.

    Args:
        reference: text, or numbers.
        current: the same question, in the batch.
    """
    there, here = reference.dropna(), current.dropna()
    number = pd.api.types.is_numeric_dtype(there) and there.nunique() > FEW_VALUES
    if len(reference) > LARGE_REFERENCE:
        distance = _wasserstein(there, here) if number else _jensen_shannon(there, here)
        return distance, distance >= DISTANCE_LIMIT
    if number:
        p = float(ks_2samp(there, here).pvalue)
    else:
        p = _z_test(there, here) if there.nunique() <= 2 else _chi_squared(there, here)
    return p, p < P_LIMIT


def drift(reference: pd.DataFrame, current: pd.DataFrame, columns: Iterable[str]) -> dict[str, bool]:
    """Return which columns of a batch have drifted."""
    return {name: column_drift(reference[name], current[name])[1] for name in columns}


def read(path: Path) -> pd.DataFrame:
    """Read a file as the seed does: whole, with pandas."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def trees_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a rival needs to train as many and as deep trees as a recipe's parameters say."""
    return {name: parameters[name] for name in ("rounds", "max_depth", "eta")}


def _wasserstein(reference: pd.Series, current: pd.Series) -> float:

    spread = max(float(np.std(reference)), 0.001)
    return float(wasserstein_distance(reference, current)) / spread


def _jensen_shannon(reference: pd.Series, current: pd.Series) -> float:
    """Return the distance of the shares of each value; numbers with many values are binned first."""
    both = pd.concat([reference, current])
    shares: list[np.ndarray]
    if pd.api.types.is_numeric_dtype(both) and both.nunique() > 20:
        edges = np.histogram_bin_edges(both, bins=BINS)
        shares = [np.histogram(one, edges)[0] for one in (reference, current)]
    else:
        values = both.unique()
        shares = [
            one.value_counts().reindex(values, fill_value=0).to_numpy(dtype=np.float64)
            for one in (reference, current)
        ]
    # SciPy makes shares of counts.
    return float(jensenshannon(*shares))


def _chi_squared(reference: pd.Series, current: pd.Series) -> float:

    counts = pd.concat([reference.value_counts(), current.value_counts()], axis=1).fillna(0)
    return float(chi2_contingency(counts.to_numpy().T).pvalue) if len(counts) > 1 else 1.0


def _z_test(reference: pd.Series, current: pd.Series) -> float:
    """Return the p-value of a z-test of two proportions, of the value that comes first."""
    first = sorted(pd.concat([reference, current]).unique())[0]
    one, other = (float((side == first).mean()) for side in (reference, current))
    there, here = len(reference), len(current)
    pooled = (one * there + other * here) / (there + here)
    error = np.sqrt(pooled * (1 - pooled) * (1 / there + 1 / here))
    return float(2 * norm.sf(abs(one - other) / error)) if error > 0 else 1.0
