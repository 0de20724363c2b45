"""Shares of people: their interval, and what the groups are called whose people gave no answer, or are few.

Source: E. Wilson, JASA 22, 1927 (interval of a share).
"""

from __future__ import annotations

import math
from statistics import NormalDist

Interval = tuple[float, float]

NO_ANSWER = "no answer"
OTHERS = "others, too few each"
_Z = NormalDist().inv_cdf(0.975)


def wilson_interval(hits: float, rows: int, z: float = _Z) -> Interval:
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
