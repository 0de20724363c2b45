"""Metrics of scores and contacts against known answers.

What belongs here measures and judges nothing: gates stand in ``core/promotion/gates.py``, charts in
``core/reports/holdout_plots.py``. Some metrics are computed in more than one way, because they are asked for
different things:

- AUC: :func:`score_metrics` gives the plain one, :func:`paired_auc` that of two models on the same rows with
  the standard error of their difference.
- log-loss: :func:`row_log_loss` gives it row by row, to resample or to split; :func:`score_metrics` its mean,
  fast enough for a hundred resamples; ``core/modeling/blending.py`` that of log-odds, which do not overflow.

Sources:
    E. DeLong, D. DeLong, D. Clarke-Pearson, Biometrics 44, 1988, and X. Sun, W. Xu, IEEE Signal Processing
    Letters 21, 2014 (difference of two AUCs on the same rows). J. Bröcker, L. Smith, Weather and Forecasting
    22, 2007 (how uncalibrated a calibrated forecast looks by chance).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

CALIBRATION_BINS = 10
TOP_SHARE = 0.1


def score_metrics(target: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Return log-loss, RMSE, Brier score, calibration error, AUC, average precision and lift.

    The calibration error is the mean distance between score and rate in 10 bins of equal mass.
    Where only one class is present, there is no ranking to speak of: AUC, average precision and
    lift are left out.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probability of 1, shape (n,).
    """
    from sklearn import metrics

    # For a hundred resamples each: the same as scikit-learn's brier_score_loss, log_loss and roc_auc_score,
    # which take most of their time to find out what kind of target it is. The mean squared error refuses what
    # is no number.
    brier = float(metrics.mean_squared_error(target, score))
    likelihood = np.where(target == 1, score, 1 - score)
    result = {
        "log_loss": float(-np.log(np.maximum(likelihood, np.finfo(likelihood.dtype).eps)).mean()),
        "rmse": math.sqrt(brier),
        "brier": brier,
        "calibration_error": calibration_error(target, score, CALIBRATION_BINS)[0],
    }
    if 0 < target.mean() < 1:
        false_alarms, found, _ = metrics.roc_curve(target, score)
        result["auc"] = float(metrics.auc(false_alarms, found))
        result["average_precision"] = float(metrics.average_precision_score(target, score))
        result["lift_at_10"] = lift(target, score)
    return result


def lift(target: np.ndarray, score: np.ndarray, share: float = TOP_SHARE) -> float:
    """Return how many times more positives the top scores have than people drawn by lot.

    The top has ``share * n`` places, rounded, at least one. People who tie for its last places share
    them: the figure is the mean over all orders of the tied, so it depends on no order of the rows.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: any number that ranks, shape (n,).
        share: of the people, in (0, 1].

    Returns:
        Precision among the top divided by the base rate; NaN when nobody is positive.
    """
    base = float(target.mean())
    if base == 0:
        return math.nan
    places = max(1, round(share * len(target)))
    limit = np.partition(score, len(score) - places)[len(score) - places]
    above, tied = score > limit, score == limit
    hits = float(target[above].sum()) + (places - int(above.sum())) * float(target[tied].mean())
    return hits / places / base


def decision_metrics(target: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    """Return accuracy, precision, recall, F1, share flagged, target rate and the confusion counts.

    A ratio of nothing (the precision of no contacts, the recall where nobody is positive) is 0.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        contact: whether the person is contacted, bool, shape (n,).
    """
    positive, contacted = target == 1, np.asarray(contact, dtype=bool)
    hit, false_alarm = int((positive & contacted).sum()), int((~positive & contacted).sum())
    missed, kept = int((positive & ~contacted).sum()), int((~positive & ~contacted).sum())
    return {
        "accuracy": (hit + kept) / len(target),
        "precision": _ratio(hit, hit + false_alarm),
        "recall": _ratio(hit, hit + missed),
        "f1": _ratio(2 * hit, 2 * hit + false_alarm + missed),
        "flagged_share": (hit + false_alarm) / len(target),
        "target_rate": (hit + missed) / len(target),
        "true_negatives": float(kept),
        "false_positives": float(false_alarm),
        "false_negatives": float(missed),
        "true_positives": float(hit),
    }


def evaluate(target: np.ndarray, score: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    """Return :func:`score_metrics` and :func:`decision_metrics` together.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probability of 1, shape (n,).
        contact: whether the person is contacted, bool, shape (n,); any rule may have decided it.
    """
    return score_metrics(target, score) | decision_metrics(target, contact)


def _ratio(part: int, whole: int, otherwise: float = 0.0) -> float:
    return part / whole if whole else otherwise


def row_log_loss(target: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the log-loss of each row, in nats, shape (n,); scores are clipped as scikit-learn does it.

    Args:
        target: 0 or 1, shape (n,).
        score: probability of 1, shape (n,).
    """
    least = np.finfo(np.float64).eps
    score = np.clip(score.astype(np.float64), least, 1 - least)
    return -np.where(target == 1, np.log(score), np.log1p(-score))


def calibration_error(
    target: np.ndarray, score: np.ndarray, bins: int = 10, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the expected calibration error in bins of equal mass, and how large chance alone makes it.

    In few rows even true probabilities look uncalibrated: a limit for the error has to be widened by the
    second figure, as two independent deviations add up, ``hypot(limit, chance)``. The second figure is
    the upper end of the error of scores that are true, one-sided, by the normal approximation of each
    bin (Bröcker and Smith 2007 get it by resampling).

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probability of 1, shape (n,).
        bins: number of bins, fewer when there are fewer rows.
        confidence: of the second figure, in (0.5, 1).
    """
    order = np.argsort(score, kind="stable")
    error = mean = variance = 0.0
    for rows in np.array_split(order, min(bins, len(order))):
        weight, expected = len(rows) / len(order), score[rows]
        error += weight * abs(float(target[rows].mean() - expected.mean()))
        noise = float((expected * (1 - expected)).sum()) / len(rows) ** 2
        # Mean and variance of |x|, where x is normal around zero with variance ``noise``.
        mean += weight * math.sqrt(noise * 2 / math.pi) if noise >= 0 else math.nan
        variance += weight**2 * noise * (1 - 2 / math.pi)
    return error, mean + NormalDist().inv_cdf(confidence) * math.sqrt(variance)


def paired_auc(target: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return both AUCs and the standard error of their difference (DeLong 1988; Sun and Xu 2014).

    Args:
        target: 0 or 1, shape (n,).
        one: scores of one contestant, shape (n,).
        other: scores of the other, shape (n,).

    Returns:
        AUC of one, AUC of the other, standard error. All NaN where a class has fewer than two rows or a
        score is NaN.
    """
    from scipy.stats import rankdata

    positive = target == 1
    hits, misses = int(positive.sum()), int((~positive).sum())
    if min(hits, misses) < 2 or np.isnan(one).any() or np.isnan(other).any():
        return math.nan, math.nan, math.nan
    beaten, beating = [], []
    for score in (one, other):
        ranks = rankdata(score)
        # For each positive row the share of negative rows that it outranks, and the reverse.
        beaten.append((ranks[positive] - rankdata(score[positive])) / misses)
        beating.append(1 - (ranks[~positive] - rankdata(score[~positive])) / hits)
    variance = (beaten[0] - beaten[1]).var(ddof=1) / hits + (beating[0] - beating[1]).var(ddof=1) / misses
    return float(beaten[0].mean()), float(beaten[1].mean()), math.sqrt(float(variance))
