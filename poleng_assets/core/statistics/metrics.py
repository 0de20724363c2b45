"""Metrics of scores and contacts against known answers.

What belongs here measures and judges nothing: gates stand in ``core/promotion/gates.py``, charts in
``core/reports/holdout_charts.py``. Some metrics are computed in more than one way, because they are asked for
different things:

- AUC: :func:`auc` is the plain one, :func:`paired_auc` that of two models on the same rows with the standard
  error of their difference, :func:`weighted_auc` that of weighted people, :func:`banded_auc` that of many
  resamples at once (ranked by band of scores), :func:`expected_auc` that of scores whose target is not known.
- log-loss: :func:`log_loss` is the mean, :func:`row_log_loss` row by row, to resample or to split;
  ``core/modeling/blending.py`` has that of log-odds, which do not overflow.

Sources:
    E. DeLong, D. DeLong, D. Clarke-Pearson, Biometrics 44, 1988, and X. Sun, W. Xu, IEEE Signal Processing
    Letters 21, 2014 (difference of two AUCs on the same rows). J. Bröcker, L. Smith, Weather and Forecasting
    22, 2007 (how uncalibrated a calibrated forecast looks by chance).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CALIBRATION_BINS = 10
TOP_SHARE = 0.1


def score_metrics(target: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Return the metrics of :data:`METRICS` that judge scores.

    Where only one class is present, there is no ranking to speak of: AUC, average precision and
    lift are left out.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probability of 1, shape (n,).
    """
    both_classes = 0 < target.mean() < 1
    return {
        metric.name: metric.function(target, score)
        for metric in METRICS.values()
        if not metric.of_decisions and (both_classes or not metric.of_ranking)
    }


def decision_metrics(target: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    """Return the metrics of :data:`METRICS` that judge decisions, and the confusion counts.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        contact: whether the person is contacted, bool, shape (n,).
    """
    positive, contacted = target == 1, np.asarray(contact, dtype=bool)
    return {
        metric.name: metric.function(positive, contacted)
        for metric in METRICS.values()
        if metric.of_decisions
    } | {
        "true_negatives": float((~positive & ~contacted).sum()),
        "false_positives": float((~positive & contacted).sum()),
        "false_negatives": float((positive & ~contacted).sum()),
        "true_positives": float((positive & contacted).sum()),
    }


def evaluate(target: np.ndarray, score: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    """Return :func:`score_metrics` and :func:`decision_metrics` together.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probability of 1, shape (n,).
        contact: whether the person is contacted, bool, shape (n,); any rule may have decided it.
    """
    return score_metrics(target, score) | decision_metrics(target, contact)


# Of scores: target 0 or 1 and probability of 1, each of shape (n,). They are those of scikit-learn, without
# what it does to find out what kind of target it is: a hundred resamples ask for each.


def auc(target: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve; both classes are required."""
    from sklearn import metrics

    false_positive_rate, true_positive_rate, _ = metrics.roc_curve(target, score)
    return float(metrics.auc(false_positive_rate, true_positive_rate))


def average_precision(target: np.ndarray, score: np.ndarray) -> float:
    """Return the average precision; both classes are required."""
    from sklearn import metrics

    return float(metrics.average_precision_score(target, score))


def log_loss(target: np.ndarray, score: np.ndarray) -> float:
    """Return the mean log-loss, in nats."""
    likelihood = np.where(target == 1, score, 1 - score)
    return float(-np.log(np.maximum(likelihood, np.finfo(likelihood.dtype).eps)).mean())


def brier(target: np.ndarray, score: np.ndarray) -> float:
    """Return the Brier score; raises ``ValueError`` for a score that is no number."""
    from sklearn import metrics

    return float(metrics.mean_squared_error(target, score))


def lift(target: np.ndarray, score: np.ndarray, share: float = TOP_SHARE) -> float:
    """Return how many times more positives the top scores have than people drawn at random.

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


# Of decisions: who is of the positive class and who is contacted, each bool of shape (n,). A ratio of nothing
# (the precision of no contacts, the recall where nobody is positive) is 0.


def precision(positive: np.ndarray, contacted: np.ndarray) -> float:
    """Return the share of the contacts who are positive."""
    return _ratio(int((positive & contacted).sum()), int(contacted.sum()))


def recall(positive: np.ndarray, contacted: np.ndarray) -> float:
    """Return the share of the positives who are contacted."""
    return _ratio(int((positive & contacted).sum()), int(positive.sum()))


def f1(positive: np.ndarray, contacted: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall."""
    return _ratio(2 * int((positive & contacted).sum()), int(contacted.sum()) + int(positive.sum()))


def _ratio(part: int, total: int) -> float:
    return part / total if total else 0.0


# Row by row, of two models, and with what chance makes of it.


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


def paired_auc(target: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return both AUCs and the standard error of their difference (DeLong 1988; Sun and Xu 2014).

    Args:
        target: 0 or 1, shape (n,).
        first: scores of one model, shape (n,).
        second: scores of the other, shape (n,).

    Returns:
        AUC of the first, of the second, standard error. All NaN where a class has fewer than two rows or a
        score is NaN.
    """
    from scipy.stats import rankdata

    positive = target == 1
    hits, misses = int(positive.sum()), int((~positive).sum())
    if min(hits, misses) < 2 or np.isnan(first).any() or np.isnan(second).any():
        return math.nan, math.nan, math.nan
    beaten, beating = [], []
    for score in (first, second):
        ranks = rankdata(score)
        # For each positive row the share of negative rows that it outranks, and the reverse.
        beaten.append((ranks[positive] - rankdata(score[positive])) / misses)
        beating.append(1 - (ranks[~positive] - rankdata(score[~positive])) / hits)
    variance = (beaten[0] - beaten[1]).var(ddof=1) / hits + (beating[0] - beating[1]).var(ddof=1) / misses
    return float(beaten[0].mean()), float(beaten[1].mean()), math.sqrt(float(variance))


# Of weighted people, by score: how much weight there is of both classes at each score, lowest first.


def weighted_auc(positive: np.ndarray, negative: np.ndarray, positives: float, negatives: float) -> float:
    """Return the AUC of weighted people.

    Args:
        positive: weight of the positives at each score, lowest first, shape (scores,).
        negative: weight of the others, likewise.
        positives: all weight of the positives, above 0.
        negatives: of the others, likewise.
    """
    return float(positive @ (np.cumsum(negative) - negative / 2) / (positives * negatives))


def weighted_average_precision(positive: np.ndarray, negative: np.ndarray, positives: float) -> float:
    """Return the average precision of weighted people; arguments as of :func:`weighted_auc`."""
    hits = np.cumsum(positive[::-1])
    contacts = np.maximum(hits + np.cumsum(negative[::-1]), np.finfo(float).tiny)
    return float(positive[::-1] @ (hits / contacts) / positives)


def banded_auc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return the AUC of each row of weights by band, the bands being in rising order of the score."""
    below = np.cumsum(negative, axis=1) - negative / 2
    return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def expected_auc(score: np.ndarray) -> float:
    """Return the AUC of scores that are true probabilities: each person is both, in these parts (CBPE)."""
    from sklearn.metrics import roc_auc_score

    if score.min() == score.max():
        return 0.5
    target = np.repeat([1, 0], len(score))
    return float(roc_auc_score(target, np.tile(score, 2), sample_weight=np.concatenate([score, 1 - score])))


@dataclass(frozen=True)
class Metric:
    """A metric, as it is measured and shown everywhere.

    Attributes:
        name: in the registry, the warehouse and answers of the server.
        title: in words.
        unit: how a value is written: ``share``, ``number`` or ``times``.
        higher_is_better: whether more of it is better; None where it says nothing of good and bad.
        says: its meaning, with "target group" for people of the positive class.
        function: of target and score, or of who is positive and who is contacted; see above.
        of_decisions: whether it judges contacts and not scores.
        of_ranking: whether it needs both classes.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    says: str
    function: Callable[[np.ndarray, np.ndarray], float]
    of_decisions: bool = False
    of_ranking: bool = False

    @property
    def explanation(self) -> str:
        """The meaning of the metric, with its direction where that is not obvious."""
        return self.says + ("; lower is better" if self.higher_is_better is False else "")


METRICS = {
    metric.name: metric
    for metric in (
        Metric("auc", "Ranking (AUC)", "number", True, "probability that a person of the target group scores "
               "higher than another person; 0.5 is random, 1 is perfect", auc, of_ranking=True),
        Metric("average_precision", "Average precision", "number", True, "area under the "
               "precision-recall curve; the target rate is random", average_precision, of_ranking=True),
        Metric("lift_at_10", "Lift at 10 %", "times", True, "target rate among the 10 % with the "
               "highest scores, divided by the overall target rate", lift, of_ranking=True),
        Metric("log_loss", "Log-loss", "number", False, "mean negative log-likelihood, in nats for each "
               "person", log_loss),
        Metric("brier", "Brier score", "number", False, "mean squared error of the probabilities", brier),
        Metric("rmse", "RMSE", "number", False, "root of the Brier score",
               lambda target, score: math.sqrt(brier(target, score))),
        Metric("calibration_error", "Calibration error", "share", False, "mean distance of the scores from "
               "the observed share, over deciles of the score",
               lambda target, score: calibration_error(target, score, CALIBRATION_BINS)[0]),
        Metric("target_rate", "Target rate", "share", None, "share of the target group in the holdout",
               lambda positive, contacted: float(positive.mean()), of_decisions=True),
        Metric("flagged_share", "Share contacted", "share", None, "share of the holdout that is contacted",
               lambda positive, contacted: float(contacted.mean()), of_decisions=True),
        Metric("precision", "Precision", "share", True, "share of the contacted people who are in the "
               "target group", precision, of_decisions=True),
        Metric("recall", "Recall", "share", True, "share of the target group that is contacted", recall,
               of_decisions=True),
        Metric("f1", "F1", "number", True, "harmonic mean of precision and recall", f1, of_decisions=True),
        Metric("accuracy", "Accuracy", "share", True, "share of correct decisions",
               lambda positive, contacted: float((positive == contacted).mean()), of_decisions=True),
    )
}  # fmt: skip
