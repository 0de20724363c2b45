"""Intervals and standard errors from a formula, and the percentile interval of resamples.

Sources:
    E. Wilson, JASA 22, 1927 (interval of a share). J. Hanley, B. McNeil, Radiology 143, 1982 (standard error
    of the AUC). B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentiles).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]

Z_95 = NormalDist().inv_cdf(0.975)  # how many standard errors a 95 % interval reaches to each side


def wilson_interval(hits: float, rows: int, z: float = Z_95) -> Interval:
    """Return the interval of a share (Wilson 1927), which holds for few rows and near 0 and 1.

    Args:
        hits: number of rows that count, from 0 to ``rows``.
        rows: number of rows; without any, both ends are NaN.
        z: the quantile of the normal distribution that it reaches to on both sides; of 95 % by default.
    """
    if rows == 0:
        return math.nan, math.nan
    share, spread = hits / rows, z**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    # Rounding must not put an end beyond the share itself.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def central(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the central 95 % of the values, at least one."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def hanley_mcneil_error(auc: float, positives: float, negatives: float) -> float:
    """Return the standard error of an AUC (Hanley & McNeil 1982, with their exponential approximation).

    Args:
        auc: expected, in [0.5, 1].
        positives: number of people with the target, above 0; need not be whole.
        negatives: without it, likewise.
    """
    both_positive, both_negative = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc)
        + max(positives - 1, 0) * (both_positive - auc**2)
        + max(negatives - 1, 0) * (both_negative - auc**2)
    ) / (positives * negatives)
    return math.sqrt(max(variance, 0.0))
