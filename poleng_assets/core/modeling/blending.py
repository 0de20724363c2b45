"""Blending: which candidates to combine, and with which weights, by predictions that none has learned from.

Sources:
    D. Wolpert, Stacked generalization, 1992; R. Caruana et al., Ensemble selection, ICML 2004 (a model of
    several, chosen one by one).
"""

import numpy as np

# Weights say no more than this; rounded, they are the same whenever they are found again.
DIGITS_OF_A_WEIGHT = 4


def choose_blend(
    raw: np.ndarray, target: np.ndarray, fold: np.ndarray, at_most: int, min_gain: float
) -> list[int]:
    """Return which columns to blend: the best one, then each that saves enough log-loss beside them.

    Args:
        raw: out-of-fold log-odds, shape (n, candidates), the best candidate first.
        target: 0 or 1, shape (n,).
        fold: of each row, shape (n,).
        min_gain: log-loss that each further one must save, in nats for each row, cross-fitted.
    """
    chosen = [0]
    loss = _loss(raw[:, 0], target)
    while len(chosen) < at_most:
        others = [column for column in range(raw.shape[1]) if column not in chosen]
        losses = {
            column: _loss(cross_fitted(raw[:, [*chosen, column]], target, fold), target) for column in others
        }
        best = min(losses, key=losses.__getitem__, default=None)
        if best is None or loss - losses[best] < min_gain:
            break
        chosen.append(best)
        loss = losses[best]
    return chosen


def blend_weights(raw: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the weights of columns of log-odds with the lowest log-loss: at least 0, summing up to 1.

    Args:
        raw: log-odds, shape (n, candidates).
        target: 0 or 1, shape (n,).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    count = raw.shape[1]
    if count == 1:
        return np.ones(1)

    def slope(weights: np.ndarray) -> np.ndarray:
        return raw.T @ (expit(raw @ weights) - target) / len(target)

    optimum = minimize(
        lambda weights: _loss(raw @ weights, target),
        np.full(count, 1 / count),
        jac=slope,
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        method="SLSQP",
    )
    weights = optimum.x.clip(min=0)
    # The last digits of SLSQP differ from run to run.
    weights = (weights / weights.sum()).round(DIGITS_OF_A_WEIGHT)
    weights[weights.argmax()] += 1 - weights.sum()
    return weights


def cross_fitted(raw: np.ndarray, target: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return blended log-odds whose weights come from the other folds: shape (n,)."""
    blended = np.empty(len(target))
    for held_out in np.unique(fold):
        inside = fold == held_out
        blended[inside] = raw[inside] @ blend_weights(raw[~inside], target[~inside])
    return blended


def _loss(raw: np.ndarray, target: np.ndarray) -> float:
    """Return the mean log-loss of log-odds; by logaddexp, so that large ones do not overflow."""
    return float(np.mean(np.logaddexp(0, raw) - target * raw))
