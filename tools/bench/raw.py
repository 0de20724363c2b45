"""The limit: what a model costs when its matrices are ready, and nothing but its own predict runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.candidates.forest import Forest
from poleng_assets.core.modeling.candidates.logistic import Logistic


def ready(member: Any, matrix: np.ndarray) -> Callable[[], np.ndarray]:
    """Lay a matrix out for one member of a blend; return its raw predict, on all cores.

    Args:
        member: a fitted candidate.
        matrix: of the encoder, float32, shape (n, features).

    Raises:
        TypeError: a kind of candidate that this does not know.
    """
    if isinstance(member, Boosting):
        laid_out = member.laid_out(matrix)
        # A model is read with one thread: it is scored in blocks, as many at a time as there are cores.
        member.booster.set_param({"nthread": os.cpu_count()})
        return lambda: member.booster.inplace_predict(laid_out, predict_type="margin")
    if isinstance(member, Logistic):
        sparse = member.levels.sparse(matrix, member.varies_by, member.strength)
        return lambda: sparse @ member.weights + member.intercept
    if isinstance(member, Forest):
        member.forest.set_params(n_jobs=-1)
        return lambda: member.forest.predict_proba(matrix)
    raise TypeError(f"the bench does not know how a {type(member).__name__} predicts: tell it in raw.py")
