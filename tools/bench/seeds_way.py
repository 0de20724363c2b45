"""The rival: how the project that this one grew out of does the same job, in code of our own.

Its way (celupa/political-engagement-mlops) is pandas throughout: rows to dicts, scikit-learn's
DictVectorizer, an XGBoost DMatrix, predict; then drift by column on the whole frames, as Evidently 0.4 does
by default; on drift, more field data, a retraining of few rounds, and the same batch once more.

Evidently is not installed. Its default test of each column is made here from its public documentation
(https://docs.evidentlyai.com/reference/data-drift-algorithm), which for a reference of more than 1,000 rows
is: the Wasserstein distance over the reference's standard deviation for numbers with more than five
values, the Jensen-Shannon distance for everything else, either against .1; for smaller ones
Kolmogorov-Smirnov, chi-squared, or a z-test of two proportions, at 5 %. Neither its pictures and HTML nor
Hyperopt run here, so that this is faster than the seed is; MLflow keeps a retraining's trials where it is
asked for.
"""

from __future__ import annotations

import tempfile
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
# Columns that may be off before the whole batch counts as drifted.
DRIFTED_SHARE = 0.05
THRESHOLD = 0.5
SCORE = "prediction"
ROUNDS = 10
TRIALS = ({"max_depth": 6, "eta": 0.3}, {"max_depth": 8, "eta": 0.1})


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
    rounds: int = ROUNDS,
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


def has_drifted(found: Mapping[str, bool]) -> bool:
    """Return the verdict on a batch: the score moved, or too many of the columns."""
    columns = [drifted for name, drifted in found.items() if name != SCORE]
    return found.get(SCORE, False) or sum(columns) / max(len(columns), 1) > DRIFTED_SHARE


@dataclass
class Seed:
    """The seed's whole flow: one model, the rows that it knows, and the field data that are left.

    Attributes:
        features: columns to learn from.
        target: column of 0 and 1.
        known: labelled rows that the model was trained on, with their scores.
        model: that serves.
        tracked: whether MLflow keeps the trials and the model of a retraining, as the seed has it.
        retrainings: so far.
    """

    features: Sequence[str]
    target: str
    known: pd.DataFrame
    model: SeedModel
    tracked: bool = False
    retrainings: int = 0

    @classmethod
    def founded_on(cls, study: Path, features: Sequence[str], target: str, tracked: bool = False) -> Self:
        """Train the model that the seed ships with."""
        rows = read(study)
        model = learn(rows, features, target)
        rows[SCORE] = score(model, rows, features)
        return cls(features, target, rows, model, tracked)

    def process(self, batch: Path, studies: list[Path], out: Path) -> bool:
        """Deal with one batch: score, look for drift, retrain if there is, score again, write.

        Args:
            batch: file of people without the target.
            studies: field data that are left; one that is used is removed.
            out: folder of the lists.

        Returns:
            Whether the batch had drifted.
        """
        rows = read(batch)
        rows[SCORE] = score(self.model, rows, self.features)
        drifted = has_drifted(drift(self.known, rows, [*self.features, SCORE]))
        if drifted and studies:
            self._retrain(studies.pop(0))
        rows[SCORE] = score(self.model, rows, self.features)
        rows[rows[SCORE] > THRESHOLD].to_parquet(out / f"{batch.stem}.parquet", index=False)
        return drifted

    def _retrain(self, study: Path) -> None:
        """Learn from all rows anew: a few trials on a part of them, then the best on all."""
        rows = pd.concat([self.known.drop(columns=SCORE), read(study)], ignore_index=True)
        held_out = np.random.default_rng(1).random(len(rows)) < 0.2
        losses = []
        for settings in TRIALS:
            tried = learn(rows[~held_out], self.features, self.target, settings=settings)
            chance = score(tried, rows[held_out], self.features).clip(1e-6, 1 - 1e-6)
            truth = rows.loc[held_out, self.target].to_numpy()
            losses.append(-np.where(truth == 1, np.log(chance), np.log(1 - chance)).mean())
            self._track(settings, losses[-1])
        best = int(np.argmin(losses))
        self.model = learn(rows, self.features, self.target, settings=TRIALS[best])
        self._track(TRIALS[best], losses[best], self.model)
        rows[SCORE] = score(self.model, rows, self.features)
        self.known = rows
        self.retrainings += 1

    def _track(self, settings: Mapping[str, Any], loss: float, model: SeedModel | None = None) -> None:
        """Let MLflow keep a trial, or a model, where it was told to (``mlflow.set_tracking_uri``)."""
        if not self.tracked:
            return
        import mlflow  # noqa: PLC0415

        with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
            mlflow.log_params(dict(settings))
            mlflow.log_metric("log_loss", loss)
            if model is not None:
                model.save(Path(folder))
                mlflow.log_artifacts(folder)


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
