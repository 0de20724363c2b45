"""Which respondents are held out. The answer depends on the id alone, so it never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np

Part = Literal["train", "holdout"]


def part_of(ids: Iterable[str], holdout_share: float) -> np.ndarray:
    """Return ``"holdout"`` or ``"train"`` for each id.

    The id's hash is read as a number in [0, 1): the same respondent falls on the same side for
    every later model version and for both contestants, whatever else is in the data.

    Args:
        ids: respondent ids, length n.
        holdout_share: share that falls into the holdout, in (0, 1).
    """
    limit = int(holdout_share * 2**64)
    held = [
        int.from_bytes(hashlib.sha256(f"holdout:{one}".encode()).digest()[:8], "big") < limit for one in ids
    ]
    return np.where(np.asarray(held, dtype=bool), "holdout", "train").astype(object)
