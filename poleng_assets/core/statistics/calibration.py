"""Probabilities that mean what they say: a correction of log-odds, fitted out of fold."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """A straight line through the log-odds (Platt 1999); by default it changes nothing.

    Straight, so that the order of people stays, and what an answer contributes stays a sum.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def log_odds(self, raw: np.ndarray) -> np.ndarray:
        """Return the corrected log-odds, shape (n,)."""
        return self.intercept + self.slope * raw

    def probability(self, raw: np.ndarray) -> np.ndarray:
        """Return the probability that log-odds mean: float64, shape (n,)."""
        from scipy.special import expit

        return expit(self.log_odds(raw))

    def in_words(self) -> str:
        """Return what is done to the log-odds."""
        if self == Calibration():
            return "none needed"
        return f"log-odds times {self.slope:.3f}, {self.intercept:+.3f} (Platt scaling, fitted out of fold)"


def calibrate(
    raw: np.ndarray, target: np.ndarray, fold: np.ndarray, min_gain: float
) -> tuple[Calibration, float]:
    """Return the calibration that log-odds need, and the log-loss that it saves.

    What it saves is measured on folds that it was not fitted on; if that is less than ``min_gain``,
    nothing is changed.

    Args:
        raw: out-of-fold log-odds, shape (n,).
        target: 0 or 1, shape (n,).
        fold: of each row, shape (n,).
        min_gain: in nats for each row.
    """
    from sklearn.metrics import log_loss

    fitted = np.empty(len(raw))
    for held_out in np.unique(fold):
        inside = fold == held_out
        fitted[inside] = fit(raw[~inside], target[~inside]).probability(raw[inside])
    before = log_loss(target, Calibration().probability(raw), labels=[0, 1])
    gain = float(before - log_loss(target, fitted, labels=[0, 1]))
    return (fit(raw, target) if gain >= min_gain else Calibration()), gain


def fit(raw: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> Calibration:
    """Return the straight line that fits best.

    Args:
        raw: log-odds, shape (n,).
        target: 0 or 1, both present, shape (n,).
        weights: of the rows, shape (n,), not negative.
    """
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(C=np.inf).fit(raw[:, None], target, sample_weight=weights)
    return Calibration(float(line.coef_[0, 0]), float(line.intercept_[0]))
