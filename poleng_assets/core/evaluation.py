"""Figures of merit of scores against known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Interval = tuple[float, float]


def score_metrics(target: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Return AUC, average precision, log-loss, RMSE and Brier score of probabilities.

    Args:
        target: 0 or 1, shape (n,).
        score: probability of 1, shape (n,).

    Where only one class is present, AUC and average precision are undefined and left out.
    """
    from sklearn import metrics

    result = {
        "log_loss": float(metrics.log_loss(target, score, labels=[0, 1])),
        "rmse": math.sqrt(float(metrics.mean_squared_error(target, score))),
        "brier": float(metrics.brier_score_loss(target, score)),
    }
    if 0 < target.mean() < 1:
        result["auc"] = float(metrics.roc_auc_score(target, score))
        result["average_precision"] = float(metrics.average_precision_score(target, score))
    return result


def decision_metrics(target: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    """Return accuracy, precision, recall, F1, share flagged and the confusion counts.

    Args:
        target: 0 or 1, shape (n,).
        contact: whether the person is contacted, shape (n,).
    """
    from sklearn import metrics

    negative_kept, false_alarm, missed, hit = metrics.confusion_matrix(
        target, contact.astype(int), labels=[0, 1]
    ).ravel()
    return {
        "accuracy": float(metrics.accuracy_score(target, contact)),
        "precision": float(metrics.precision_score(target, contact, zero_division=0.0)),
        "recall": float(metrics.recall_score(target, contact, zero_division=0.0)),
        "f1": float(metrics.f1_score(target, contact, zero_division=0.0)),
        "flagged_share": float(contact.mean()),
        "target_rate": float(target.mean()),
        "true_negatives": float(negative_kept),
        "false_positives": float(false_alarm),
        "false_negatives": float(missed),
        "true_positives": float(hit),
    }


def evaluate(target: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, float]:
    """Return :func:`score_metrics` and :func:`decision_metrics` together."""
    return score_metrics(target, score) | decision_metrics(target, score >= threshold)


def bootstrap_intervals(
    target: np.ndarray,
    score: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    repeats: int = 100,
    seed: int = 23,
) -> dict[str, Interval]:
    """Return the central 95 % of each figure over resamples of the rows (Efron, 1979).

    Args:
        target: 0 or 1, shape (n,).
        score: probability of 1, shape (n,).
        measure: returns named figures for a target and its scores.
        repeats: number of resamples.
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(repeats):
        rows = random.integers(0, len(target), len(target))
        for name, value in measure(target[rows], score[rows]).items():
            drawn.setdefault(name, []).append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in drawn.items()
    }
