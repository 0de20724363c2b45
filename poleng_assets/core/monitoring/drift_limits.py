"""How far an unchanged batch of this size may lie from this reference: the limits of distances.

The limits are made by resampling: the reference and a batch are drawn again and again from the same
people, and the distances between the two are what chance makes of no change at all. Both are drawn, since
the reference is a sample too. Fewer people give wider limits, and not more alarms.

Sources:
    The distances are NannyML's: https://nannyml.readthedocs.io/en/v0.13.1/how_it_works/univariate_drift_detection.html
    Family-wise limits from the smallest p-value of each resample: P. Westfall, S. Young, Resampling-Based
    Multiple Testing, 1993. A squared distance of shares is about a weighted sum of chi-squares, for which
    a gamma distribution of the same mean and variance stands in: F. Satterthwaite, Biometrics 2, 1946.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pandas as pd

from poleng_assets.core.monitoring.measurements import JENSEN_SHANNON, L_INFINITY
from poleng_assets.study.policies import OverseerPolicy


def distance_limits(
    reference: pd.DataFrame,
    columns: Sequence[str],
    resampled: tuple[np.ndarray, np.ndarray],
    policy: OverseerPolicy,
) -> dict[tuple[str, str], float]:
    """Return the limit of each column's Jensen-Shannon and L-infinity distance.

    Of batches drawn from the reference's people, a share of ``policy.false_alarms`` has any column
    beyond its limit by either method.

    Args:
        reference: its rows; the columns hold categories, or None.
        columns: to limit together.
        resampled: weights of these rows in resamples of the reference and of an unchanged batch, each of
            shape (resamples, rows); see
            :meth:`poleng_assets.core.statistics.poststratification.WeightedReference.bootstrap_weights`.

    Returns:
        By (column, method), at least ``policy.min_distance``.
    """
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import gamma

    answers, bounds = _one_hot(reference[list(columns)])
    # All columns at once: the resamples are large, and each product reads them whole.
    of_reference, of_batch = (weights @ answers for weights in resampled)
    keys: list[tuple[str, str]] = []
    squared: list[np.ndarray] = []
    for column, start, end in zip(columns, bounds, bounds[1:], strict=False):
        first, second = _shares(of_reference[:, start:end]), _shares(of_batch[:, start:end])
        keys += [(column, JENSEN_SHANNON), (column, L_INFINITY)]
        with np.errstate(invalid="ignore"):  # nobody answers in a resample: no distance
            distance = np.nan_to_num(jensenshannon(first, second, base=2, axis=1))
        squared += [distance**2, np.abs(first - second).max(axis=1) ** 2]
    drawn = np.stack(squared, axis=1)
    mean, variance = drawn.mean(axis=0), drawn.var(axis=0)
    # An answer that everybody gives never moves.
    moves = variance > 0
    limits = np.zeros(len(keys))
    if moves.any():
        shape, scale = mean[moves] ** 2 / variance[moves], variance[moves] / mean[moves]
        smallest = np.exp(gamma.logsf(drawn[:, moves], shape, scale=scale).min(axis=1))
        rare = _share_for_each(smallest, policy.false_alarms, policy.limits_quantile)
        limits[moves] = np.sqrt(gamma.isf(rare, shape, scale=scale))
    return {key: max(float(limit), policy.min_distance) for key, limit in zip(keys, limits, strict=True)}


def _one_hot(rows: pd.DataFrame) -> tuple[np.ndarray, list[int]]:
    """Return one column for each answer, float32, and where those of each column begin, and end."""
    factorized = [pd.factorize(rows[column]) for column in rows]
    bounds = list(accumulate((max(len(categories), 1) for _, categories in factorized), initial=0))
    answers = np.zeros((len(rows), bounds[-1]), np.float32)
    for (codes, _), start in zip(factorized, bounds, strict=False):
        given = np.flatnonzero(codes >= 0)
        answers[given, start + codes[given]] = 1
    return answers, bounds


def _share_for_each(smallest: np.ndarray, together: float, read_at: float) -> float:
    """Return the p-value that each figure may have, so that any has it in a share of ``together``.

    So many independent figures as would make the smallest p-values as small as they are (their number is
    read off where the resamples still show it) share the alarms that are allowed.

    Args:
        smallest: p-value of each resample, shape (resamples,).
        together: share of unchanged batches in which any figure may alert; often smaller than so many
            resamples can show.
        read_at: share of resamples at which the smallest p-value is read.
    """
    typical = float(np.quantile(smallest, read_at))
    independent = np.log1p(-read_at) / np.log1p(-typical)
    return float(-np.expm1(np.log1p(-together) / independent))


def _shares(counts: np.ndarray) -> np.ndarray:
    counts = counts.astype(np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
