"""What a scored batch looks like beside the reference: NannyML's figures, gathered and not yet judged.

The reference is held-out rows with the champion's out-of-sample scores. One batch is one chunk:
left-over chunks of a few rows would alert by themselves.
https://nannyml.readthedocs.io/en/v0.13.1/
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.features.codes import to_codes, to_table
from poleng_assets.core.features.encoder import outside_support
from poleng_assets.core.monitoring import estimated_performance
from poleng_assets.core.monitoring.comparison import Comparison
from poleng_assets.core.monitoring.drift_limits import distance_limits
from poleng_assets.core.monitoring.estimated_performance import Estimation
from poleng_assets.core.monitoring.measurements import (
    ALL_COLUMNS,
    COMPOSITION,
    CONTACT,
    DISTANCES,
    DOMAIN_CLASSIFIER,
    JENSEN_SHANNON,
    MISSING,
    OUT_OF_RANGE,
    QUARANTINED,
    RECONSTRUCTION,
    SCORE,
    UNSEEN,
    BatchMeasurements,
    DriftMetric,
)
from poleng_assets.core.statistics.intervals import wilson_interval
from poleng_assets.study.policies import OverseerPolicy
from poleng_assets.study.schema import Study

if TYPE_CHECKING:
    from nannyml.base import AbstractResult

SCORE_BANDS = 20


def measure_batch(
    reference: pd.DataFrame,
    batch: pd.DataFrame,
    unseen: Mapping[str, np.ndarray],
    study: Study,
    *,
    rows: int,
    contacts: int,
    quarantined: int = 0,
    importance: Mapping[str, float] | None = None,
) -> BatchMeasurements:
    """Measure one scored batch against the reference.

    Args:
        reference: held-out rows: features, target, ``score`` (out of sample), ``contact`` (0/1).
        batch: features, ``score`` and ``contact`` of the rows to measure: all, or a sample.
        unseen: for each categorical feature, a mask of these rows outside its vocabulary.
        rows: of the whole batch.
        contacts: people of the whole batch whom the rule contacts.
        quarantined: rows of its file that broke the contract, not among ``rows``.
        importance: how much each feature moves the model's scores, in any unit.
    """
    policy = study.policies.overseer
    counted = _count(batch, unseen, policy, rows, contacts, quarantined, importance or {})
    if rows < policy.min_rows:
        return counted
    distances, others, estimated = _compare(reference, batch, study)
    shifted = any(metric.alert for metric in distances if metric.method in DISTANCES)
    return dataclasses.replace(
        counted,
        metrics=(*distances, *others, *counted.metrics),
        estimates=estimated.estimates,
        loss=estimated.loss,
        trust=estimated_performance.trust(estimated, counted.outside_support, shifted, study),
    )


def _compare(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
) -> tuple[list[DriftMetric], list[DriftMetric], Estimation]:
    """Return distances with their limits, what else was measured, and the estimated performance."""
    from threadpoolctl import threadpool_limits

    policy = study.policies.overseer
    codes = Comparison.of(study, _categories(reference, study), _categories(batch, study))
    columns, weighted = _compared_columns(codes), codes.weighted
    # NannyML keeps to one core: what chance alone would make is drawn on another one meanwhile. Threads of
    # linear algebra would take both from them, waiting, and round sums in another order on another machine.
    with quiet(), threadpool_limits(1), ThreadPoolExecutor(1) as beside:
        drawing = beside.submit(
            weighted.bootstrap_weights, policy.resamples, policy.seed, policy.smoothing_rows
        )
        limits = beside.submit(lambda: distance_limits(codes.reference, columns, drawing.result(), policy))
        others = [
            *_data_quality(codes),
            *_structure(codes),
            *(_domain_classifier(codes) if policy.domain_classifier else ()),
        ]
        like, comparable = (rows.reset_index(drop=True) for rows in (codes.like, codes.comparable))
        values = _univariate(like, comparable, columns)
        estimated = estimated_performance.estimate(
            reference, batch[weighted.comparable], weighted, drawing, study, beside
        )
        composition = list(_composition(codes))
        # Last of all: the limits are drawn meanwhile.
        distances = [DriftMetric.compared(*key, value, limits.result()[key]) for key, value in values.items()]
    return [*distances, *composition], others, estimated


def _count(
    batch: pd.DataFrame,
    unseen: Mapping[str, np.ndarray],
    policy: OverseerPolicy,
    rows: int,
    contacts: int,
    quarantined: int,
    importance: Mapping[str, float],
) -> BatchMeasurements:
    """Return what can be said of however few people."""
    outside, total = outside_support(dict(unseen)), sum(importance.values())
    metrics = [
        DriftMetric.compared(name, UNSEEN, float(mask.mean()), policy.max_outside_support)
        for name, mask in unseen.items()
        if rows
    ]
    if quarantined:
        share = quarantined / (rows + quarantined)
        metrics.append(DriftMetric.compared(ALL_COLUMNS, QUARANTINED, share, None))
    return BatchMeasurements(
        rows=rows,
        rows_measured=len(batch),
        outside_support=float(outside.mean()) if outside.size else 0.0,
        flagged_share=contacts / rows if rows else 0.0,
        flagged_interval=wilson_interval(contacts, rows) if rows else (0.0, 1.0),
        importance={name: value / total for name, value in importance.items()} if total else {},
        metrics=tuple(metrics),
    )


def _compared_columns(codes: Comparison) -> list[str]:
    """Return what is compared among comparable people: every feature, the score and the decision."""
    # Both sides are weighed to be equal in the question within which they are compared: see _composition.
    return [name for name in (*codes.study.feature_names, SCORE, CONTACT) if name != codes.within]


def _composition(codes: Comparison) -> Iterator[DriftMetric]:
    """How far the mix of people is from that of the reference, where it is weighed to the batch's."""
    policy, name = codes.study.policies.overseer, codes.within
    if name is None:
        return
    # Of one column the counts are all that matters: people need not be drawn one by one.
    counts = codes.reference[name].value_counts(dropna=False)
    random = np.random.default_rng(policy.seed)
    of_reference, of_batch = (
        random.multinomial(rows, counts / len(codes.reference), size=policy.resamples).astype(np.float32)
        for rows in (len(codes.reference), len(codes.batch))
    )
    limits = distance_limits(pd.DataFrame({name: counts.index}), [name], (of_reference, of_batch), policy)
    value = _univariate(codes.reference, codes.batch, [name])[name, JENSEN_SHANNON]
    yield DriftMetric.compared(name, COMPOSITION, value, limits[name, JENSEN_SHANNON])


def _univariate(
    reference: pd.DataFrame, batch: pd.DataFrame, columns: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Return NannyML's distances of categorical columns, by (column, method); NaN where there are none."""
    import nannyml

    names = list(columns)
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=names, treat_as_categorical=names, categorical_methods=list(DISTANCES), chunk_number=1
    )
    result = _batch_row(calculator.fit(reference[names]).calculate(batch[names]))
    distances = {}
    for name in names:
        comparable = reference[name].notna().any() and batch[name].notna().any()
        for method in DISTANCES:
            value = float(result[name, method, "value"])
            # SciPy takes the root of -1e-17 when the two are equal: no distance, rather than unknown.
            distances[name, method] = 0.0 if math.isnan(value) and comparable else value
    return distances


def _data_quality(codes: Comparison) -> Iterator[DriftMetric]:
    """Shares of missing answers, and of ordinal answers beyond those of the reference."""
    import nannyml

    reference, batch, features = codes.reference, codes.batch, codes.study.features
    policy, names = codes.study.policies.overseer, codes.study.feature_names
    # Most surveys have an answer of everybody to most questions: only of the others has NannyML to count.
    missed = [name for name in names if reference[name].hasnans or batch[name].hasnans]
    shares = dict.fromkeys(names, 0.0)
    if missed:
        calculator = nannyml.MissingValuesCalculator(column_names=missed, normalize=True, chunk_number=1)
        result = _batch_row(calculator.fit(reference[missed]).calculate(batch[missed]))
        shares |= {name: float(result[name, "value"]) for name in missed}
    for name in names:
        usual = float(reference[name].isna().mean())
        yield DriftMetric.compared(name, MISSING, shares[name], min(usual + policy.max_missing_rise, 1.0))
    ordinal = [f.name for f in features if f.is_ordinal and reference[f.name].notna().any()]
    if not ordinal:
        return
    ranges = nannyml.NumericalRangeCalculator(column_names=ordinal, normalize=True, chunk_number=1)
    result = _batch_row(ranges.fit(reference[ordinal]).calculate(batch[ordinal]))
    for name in ordinal:
        share = float(result[name, "value"])
        yield DriftMetric.compared(name, OUT_OF_RANGE, share, policy.max_outside_support)


def _batch_row(result: AbstractResult) -> dict[tuple[str, ...], Any]:
    """Return NannyML's result for the rows to compare, which are one chunk, by the names of its columns."""
    rows = result.to_df()
    # The reference's chunk stands first. NannyML's own filter would copy all rows of both to tell them apart.
    return dict(zip(rows.columns, rows.iloc[-1], strict=True))


def _structure(codes: Comparison) -> Iterator[DriftMetric]:
    """How badly the answers are reconstructed by what holds the reference's answers together (PCA)."""
    import nannyml

    study, policy = codes.study, codes.study.policies.overseer
    positions = codes.weighted.expand_rows()
    # Learned from one half of the people, measured on the other: what is learned fits its own people best.
    learned, kept = (
        codes.reference.iloc[positions[positions % 2 == half]].reset_index(drop=True) for half in (0, 1)
    )
    common = {
        f.name: learned[f.name].value_counts(normalize=True, dropna=False)
        for f in study.features
        if not f.is_ordinal
    }
    calculator = nannyml.DataReconstructionDriftCalculator(column_names=study.feature_names, chunk_number=1)
    calculator.fit(_as_quantities(learned, common, study))
    usual, result = (
        _batch_row(calculator.calculate(_as_quantities(rows, common, study)))
        for rows in (kept, codes.comparable.reset_index(drop=True))
    )
    key = "reconstruction_error"
    # The repeated rows are no more people than there are; so many would tell as much.
    spread = float(usual[key, "sampling_error"]) * math.sqrt(2 * len(kept) / codes.weighted.effective_rows)
    error = math.hypot(float(result[key, "sampling_error"]), spread)
    reach = NormalDist().inv_cdf(1 - policy.false_alarms / 2) * error
    value, middle = float(result[key, "value"]), float(usual[key, "value"])
    yield DriftMetric.compared(ALL_COLUMNS, RECONSTRUCTION, value, middle + reach, max(middle - reach, 0.0))


def _domain_classifier(codes: Comparison) -> Iterator[DriftMetric]:
    """AUC of a classifier that tells the batch from the reference (slow: on request only)."""
    import nannyml

    names = codes.study.feature_names
    # Nobody twice: the classifier would know again whom it has learned from.
    like = codes.reference.iloc[codes.weighted.distinct()].reset_index(drop=True)
    calculator = nannyml.DomainClassifierCalculator(
        feature_column_names=names,
        treat_as_categorical=names,
        chunk_number=1,
        hyperparameters={"verbosity": -1, "n_jobs": 1, "random_state": codes.study.policies.overseer.seed},
    )
    batch = codes.comparable[names].reset_index(drop=True)
    result = _batch_row(calculator.fit(like[names]).calculate(batch))
    value = float(result["domain_classifier_auroc", "value"])
    limit = codes.study.policies.overseer.max_domain_auc
    yield DriftMetric.compared(ALL_COLUMNS, DOMAIN_CLASSIFIER, value, limit)


def _as_quantities(rows: pd.DataFrame, common: Mapping[str, pd.Series], study: Study) -> pd.DataFrame:
    """Return ordinal answers as they are, and of the others how common they are, in [0, 1], by answer.

    NannyML would count the latter itself, in more time than all the rest takes it, and its imputers refuse a
    column without any answer. No answer is one like any other where answers are names, and the middle of
    the scale where they have an order.
    """
    columns = {
        f.name: rows[f.name].fillna(float(np.median(list(f.codes))))
        if f.is_ordinal
        else rows[f.name].map(common[f.name]).fillna(0.0)  # nobody in the reference has said so
        for f in study.features
    }
    return pd.DataFrame(columns, index=rows.index)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what NannyML warns of where one batch is one chunk, and perhaps nobody is contacted.

    It takes means of nothing and roots of -1e-17; what is no number in its results is dealt with here.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The resulting number of chunks is too low")
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message=".*contains a single class.*")
        warnings.filterwarnings("ignore", message="Too few unique values present")
        warnings.filterwarnings("ignore", message="Only one class is present")
        yield


def _categories(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return codes, score bands and decisions as plain numbers, NaN where there is no answer.

    Nullable integers silently vanish from NannyML's results, and text takes it twice as long to sort.
    """
    table = to_table(rows[study.feature_names])
    columns = {
        name: to_codes(table[name])[0].cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in study.feature_names
    }
    band = np.minimum(np.floor(rows[SCORE].to_numpy(dtype=np.float64) * SCORE_BANDS), SCORE_BANDS - 1)
    columns[SCORE] = band
    columns[CONTACT] = rows[CONTACT].to_numpy().astype(np.float64)
    return pd.DataFrame(columns)
