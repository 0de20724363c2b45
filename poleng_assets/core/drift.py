"""What a batch looks like beside the reference: NannyML's figures, gathered and not yet judged.

The reference is held-out rows with the champion's out-of-sample scores. One batch is one chunk:
left-over chunks of a few rows would alert by themselves.
https://nannyml.readthedocs.io/en/v0.13.1/
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.codes import to_codes, to_table
from poleng_assets.core.encoding import outside_support
from poleng_assets.study import Study

SCORE = "score"
CONTACT = "contact"
JENSEN_SHANNON = "jensen_shannon"
MISSING = "missing_values"
UNSEEN = "unseen_values"
ESTIMATED_METRICS = {
    "roc_auc": "auc",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class Figure:
    """One measured figure of one column; ``value`` is None when it could not be computed."""

    column_name: str
    method: str
    value: float | None
    lower_threshold: float | None
    upper_threshold: float | None
    alert: bool


@dataclass(frozen=True)
class Estimate:
    """Performance estimated without labels, with its interval and the reference's realised value."""

    metric: str
    value: float
    lower: float
    upper: float
    reference: float


@dataclass(frozen=True)
class BatchFigures:
    """All figures of one batch under one model version.

    Attributes:
        rows: of the batch.
        rows_measured: of the batch, after sampling.
        outside_support: share of rows with a code that the model never saw.
        flagged_share: share of rows above the threshold of a contact.
        figures: of columns, empty when the batch is too small to measure.
        estimates: of performance, likewise.
    """

    rows: int
    rows_measured: int
    outside_support: float
    flagged_share: float
    figures: tuple[Figure, ...] = ()
    estimates: tuple[Estimate, ...] = ()

    def estimate(self, metric: str) -> Estimate | None:
        """Return the estimate of one metric, or None."""
        return next((e for e in self.estimates if e.metric == metric), None)

    def alerts(self, *methods: str) -> list[Figure]:
        """Return the figures that alert, of these methods, the farthest first."""
        found = [f for f in self.figures if f.alert and f.method in methods]
        return sorted(found, key=lambda f: math.inf if f.value is None else f.value, reverse=True)


def measure_batch(
    reference: pd.DataFrame,
    batch: pd.DataFrame,
    unseen: dict[str, np.ndarray],
    study: Study,
    *,
    rows: int,
    flagged_share: float,
) -> BatchFigures:
    """Measure one scored batch against the reference.

    Args:
        reference: held-out rows: features, target, ``score`` (out of sample), ``contact`` (0/1).
        batch: features, ``score`` and ``contact`` of the rows to measure: all, or a sample.
        unseen: for each categorical feature, a mask of these rows outside its vocabulary.
        study: features and the overseer's policy.
        rows: of the whole batch.
        flagged_share: of the whole batch.
    """
    policy = study.policies.overseer
    outside = outside_support(unseen)
    figures = BatchFigures(
        rows=rows,
        rows_measured=len(batch),
        outside_support=float(outside.mean()) if outside.size else 0.0,
        flagged_share=flagged_share,
        figures=tuple(
            _figure(name, UNSEEN, mask.mean(), None, policy.max_outside_support)
            for name, mask in unseen.items()
            if rows
        ),
    )
    if rows < policy.min_rows:
        return figures
    there = _nannyml_frame(reference, study)
    here = _nannyml_frame(batch, study)
    with warnings.catch_warnings():
        # It warns of too few chunks; one batch is one chunk on purpose, and no threshold is made of them.
        warnings.filterwarnings("ignore", message="The resulting number of chunks is too low")
        warnings.filterwarnings("ignore", message="invalid value encountered in sqrt")
        return dataclasses.replace(
            figures,
            figures=(*_distances(there, here, study), *_missing(there, here, study), *figures.figures),
            estimates=_estimates(there, here, study),
        )


def _distances(reference: pd.DataFrame, batch: pd.DataFrame, study: Study) -> Iterable[Figure]:
    """Jensen-Shannon distance of every feature and of the score."""
    import nannyml
    from nannyml.thresholds import ConstantThreshold

    policy = study.policies.overseer
    columns = [*study.feature_names, SCORE]
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=columns,
        treat_as_categorical=study.feature_names,
        categorical_methods=[JENSEN_SHANNON],
        continuous_methods=[JENSEN_SHANNON],
        thresholds={JENSEN_SHANNON: ConstantThreshold(upper=policy.column_threshold)},
        chunk_number=1,
    )
    result = calculator.fit(reference).calculate(batch).filter(period="analysis").to_df()
    for name in columns:
        value = result[(name, JENSEN_SHANNON, "value")].iloc[0]
        if math.isnan(value) and reference[name].notna().any() and batch[name].notna().any():
            # SciPy takes the root of -1e-17 when the two are equal: no distance, rather than unknown.
            value = 0.0
        upper = policy.score_threshold if name == SCORE else policy.column_threshold
        yield _figure(name, JENSEN_SHANNON, value, None, upper)


def _missing(reference: pd.DataFrame, batch: pd.DataFrame, study: Study) -> Iterable[Figure]:
    """Share of missing values of every feature, against the reference's share."""
    import nannyml

    names = study.feature_names
    calculator = nannyml.MissingValuesCalculator(column_names=names, normalize=True, chunk_number=1)
    result = calculator.fit(reference).calculate(batch).filter(period="analysis").to_df()
    for name in names:
        upper = min(float(reference[name].isna().mean()) + study.policies.overseer.max_missing_rise, 1.0)
        yield _figure(name, MISSING, result[(name, "value")].iloc[0], None, upper)


def _estimates(reference: pd.DataFrame, batch: pd.DataFrame, study: Study) -> tuple[Estimate, ...]:
    """Confidence-based performance estimation (CBPE): labels of the reference, scores of the batch."""
    import nannyml

    estimator = nannyml.CBPE(
        y_true=study.target.name,
        y_pred=CONTACT,
        y_pred_proba=SCORE,
        problem_type="classification_binary",
        metrics=list(ESTIMATED_METRICS),
        chunk_number=1,
    )
    result = estimator.fit(reference).estimate(batch)
    here = result.filter(period="analysis").to_df()
    there = result.filter(period="reference").to_df()
    return tuple(
        Estimate(
            ours,
            value=float(here[(theirs, "value")].iloc[0]),
            lower=float(here[(theirs, "lower_confidence_boundary")].iloc[0]),
            upper=float(here[(theirs, "upper_confidence_boundary")].iloc[0]),
            reference=float(there[(theirs, "realized")].iloc[0]),
        )
        for theirs, ours in ESTIMATED_METRICS.items()
    )


def _figure(name: str, method: str, value: float, lower: float | None, upper: float | None) -> Figure:
    """Compare a value with its thresholds; a value that is not a number alerts: nothing is known."""
    if value is None or not math.isfinite(value):
        return Figure(name, method, None, lower, upper, alert=True)
    beyond = (upper is not None and value > upper) or (lower is not None and value < lower)
    return Figure(name, method, float(value), lower, upper, alert=bool(beyond))


def _nannyml_frame(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Plain dtypes and a clean index: nullable integers silently vanish from NannyML's results."""
    table = to_table(rows[study.feature_names])
    # Codes, because a column of integers with one hole comes as floats, and "3.0" would not be "3".
    columns = {name: to_codes(table[name])[0].cast(pa.string()).to_pandas() for name in study.feature_names}
    columns[SCORE] = rows[SCORE].astype("float64").to_numpy()
    columns[CONTACT] = rows[CONTACT].astype("int64").to_numpy()
    if study.target.name in rows:
        columns[study.target.name] = rows[study.target.name].astype("int64").to_numpy()
    return pd.DataFrame(columns)
