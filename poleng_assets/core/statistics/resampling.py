"""Resampling of rows: what another draw of people would have given.

What belongs here draws rows of equal weight. Resamples that keep strata are drawn where the strata are known:
``core/statistics/poststratification.py`` (reference and batch), ``core/monitoring/realised_performance.py``
(people whose outcomes are known).

Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8 (pairs) and 13 (percentile
interval).
"""

import numpy as np

from poleng_assets.core.statistics.intervals import Interval, central
from poleng_assets.core.statistics.metrics import evaluate, score_metrics


def bootstrap_intervals(
    target: np.ndarray, score: np.ndarray, contact: np.ndarray, repeats: int = 100, seed: int = 23
) -> dict[str, Interval]:
    """Return the central 95 % of each figure of :func:`evaluate` over resamples of the rows.

    A row keeps its target, score and contact together: the model and its decisions are given, the
    people are the draw. Resamples in which a figure is undefined do not count for it.

    The calibration error of a resample is too large on the whole, because each person drawn twice adds
    noise to the bins; its interval is moved by the mean excess, so that it lies around the value.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probability of 1, shape (n,).
        contact: whether the person is contacted, bool, shape (n,).
        seed: of the resampling; the same seed gives the same answer.

    Returns:
        Lower and upper end by the name of the figure.
    """
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(repeats):
        rows = random.integers(0, len(target), len(target))
        for name, value in evaluate(target[rows], score[rows], contact[rows]).items():
            drawn.setdefault(name, []).append(value)
    intervals = {name: central(values) for name, values in drawn.items()}
    excess = float(np.mean(drawn["calibration_error"])) - score_metrics(target, score)["calibration_error"]
    low, high = intervals["calibration_error"]
    intervals["calibration_error"] = (max(0.0, low - excess), high - excess)
    return intervals


def resampled_means(values: np.ndarray, masks: np.ndarray, repeats: int, seed: int) -> np.ndarray:
    """Return the mean of the values under each mask, for each resample of the rows.

    A resample is the same for all masks, and a value is the difference of two contestants on one row:
    what both find hard cancels out (the paired bootstrap).

    Args:
        values: one number for each row, shape (n,).
        masks: which rows belong to a part, shape (n, parts).
        seed: of the resampling; the same seed gives the same answer.

    Returns:
        Shape (repeats, parts); NaN where a resample has no row of a part.
    """
    random = np.random.default_rng(seed)
    rows = len(values)
    inside = masks.astype(np.float64)
    both = np.hstack([inside * values[:, None], inside])
    sums = np.empty((repeats, both.shape[1]))
    for repeat in range(repeats):
        drawn = np.bincount(random.integers(0, rows, rows), minlength=rows)
        sums[repeat] = drawn.astype(np.float64) @ both
    totals, counts = np.hsplit(sums, 2)
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
