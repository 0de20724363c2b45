"""Figures of merit of scores and contacts against known answers, their intervals, and those of groups.

What belongs here measures and judges nothing: gates stand in ``core/promotion/gates.py``, pictures in
``core/reports/holdout_plots.py``, words in ``core/reports/model_card.py``.

Sources:
    B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval).
    E. Wilson, JASA 22, 1927 (interval of a share).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from poleng_assets.core.promotion.gates import calibration_error
from poleng_assets.core.statistics.intervals import NO_ANSWER, OTHERS, Interval, wilson_interval

CALIBRATION_BINS = 10
TOP_SHARE = 0.1
GROUP_COLUMNS = (
    "property",
    "value",
    "rows",
    "target_rate",
    "mean_score",
    "flagged_share",
    "recall",
    "recall_lower",
    "recall_upper",
    "precision",
    "auc",
    "calibration_gap",
    "calibration_gap_lower",
    "calibration_gap_upper",
)
_Z = NormalDist().inv_cdf(0.975)


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
        repeats: number of resamples.
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


def evaluate_groups(
    target: np.ndarray,
    score: np.ndarray,
    contact: np.ndarray,
    groups: Mapping[str, np.ndarray],
    min_rows: int,
) -> pd.DataFrame:
    """Measure each group of people on its own: how often it is contacted, found, and rightly scored.

    Values that fewer than ``min_rows`` people have are left out: such figures are noise, and near to
    telling about single persons. So that nobody vanishes, each property that leaves somebody out ends
    with a row :data:`OTHERS` that has their number and no figure; pooled figures of one small group
    would be its own. A missing value is a group too (:data:`NO_ANSWER`).

    Args:
        target: 0 or 1, shape (n,).
        score: probability of 1, shape (n,).
        contact: whether the person is contacted, bool, shape (n,).
        groups: for each property, the value of each row in words, shape (n,).
        min_rows: that a value needs to be shown, at least 1.

    Returns:
        One row for each property and value, the largest first within a property, with
        :data:`GROUP_COLUMNS`. ``calibration_gap`` is the mean score minus the target rate: above zero,
        the group is said to be more positive than it is. Intervals are of 95 %: Wilson's for the
        recall, the normal approximation (of the mean of score minus target) for the gap. NaN is what
        cannot be said: recall without positives, precision without contacts, AUC of one class.

    Raises:
        ValueError: a property has another number of rows than the target.
    """
    rows: list[dict[str, object]] = []
    for name, values in groups.items():
        if len(values) != len(target):
            raise ValueError(f"{name} has {len(values)} rows, the target {len(target)}")
        words = _in_words(values)
        found, which, counts = np.unique(words, return_inverse=True, return_counts=True)
        # By size, and by name where sizes are equal, so that the table is the same every time.
        for position in sorted(range(len(found)), key=lambda p: (-counts[p], found[p])):
            if counts[position] >= min_rows:
                members = which == position
                figures = _group_figures(target[members], score[members], contact[members])
                rows.append({"property": name, "value": str(found[position]), **figures})
        left_out = int(counts[counts < min_rows].sum())
        if left_out:
            rows.append({"property": name, "value": OTHERS, "rows": left_out})
    numbers = dict.fromkeys(GROUP_COLUMNS[3:], float)
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS)).astype({"rows": int, **numbers})


def _group_figures(target: np.ndarray, score: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    positives, contacts = int((target == 1).sum()), int(contact.sum())
    hits = int(contact[target == 1].sum())
    recall_lower, recall_upper = wilson_interval(hits, positives)
    excess = score - target
    gap = float(excess.mean())
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess)) if len(excess) > 1 else math.nan
    return {
        "rows": len(target),
        "target_rate": float(target.mean()),
        "mean_score": float(score.mean()),
        "flagged_share": contacts / len(target),
        "recall": _ratio(hits, positives, math.nan),
        "recall_lower": recall_lower,
        "recall_upper": recall_upper,
        "precision": _ratio(hits, contacts, math.nan),
        "auc": float(roc_auc_score(target, score)) if 0 < positives < len(target) else math.nan,
        "calibration_gap": gap,
        "calibration_gap_lower": gap - _Z * error,
        "calibration_gap_upper": gap + _Z * error,
    }


def _in_words(values: np.ndarray) -> np.ndarray:
    column = pd.Series(values, dtype=object)
    return np.where(column.isna() | (column == ""), NO_ANSWER, column.astype(str)).astype(str)


def central(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the central 95 % of the values, at least one."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _ratio(part: int, whole: int, otherwise: float = 0.0) -> float:
    return part / whole if whole else otherwise
