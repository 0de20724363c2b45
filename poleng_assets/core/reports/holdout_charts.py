"""Plots of a holdout: ROC, precision and recall, calibration, gains, scores by class, and importance."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from poleng_assets.core.reports.charts import Bar, Chart, Line, Mark, Scale, Segment, Tick, bar_chart
from poleng_assets.core.statistics import metrics
from poleng_assets.core.statistics.intervals import wilson_interval

# The caption of each plot, also read out by screen readers.
CAPTIONS = {
    "ROC": "True positive rate against false positive rate over all thresholds. The dashed line is a random "
    "model.",
    "Precision and recall": "Precision against recall over all thresholds. The dashed line is random.",
    "Calibration": "Observed share of the target group against the mean score, by decile of the score, with "
    "95 % intervals. The dashed line is perfect calibration.",
    "Cumulative gains": "Recall against the share of people contacted, highest scores first. The dashed line "
    "is a random order.",
    "Scores by class": "Distribution of the scores in the target group and among the others. Less overlap "
    "means better separation.",
}
BARS_SHOWN = 20
CURVE_POINTS = 200  # more points make the page larger and look the same
SHARE = Scale(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
HEIGHT = 16.0  # rem

Xy: TypeAlias = tuple[Iterable[float], Iterable[float]]


def holdout_charts(target: np.ndarray, score: np.ndarray) -> dict[str, Chart]:
    """Plot ranking and calibration on a holdout, one chart for each view.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probabilities of 1, shape (n,).

    Returns:
        Charts by title, always the five of :data:`CAPTIONS`; calibration is drawn in bins of equal mass with
        Wilson's 95 % intervals. Plots that need both classes say so when there is one.

    Raises:
        ValueError: the scores have another length than the target.
    """
    if len(score) != len(target):
        raise ValueError(f"there are {len(score)} scores, but {len(target)} rows of the target")
    views: dict[str, Callable[[np.ndarray, np.ndarray], Chart]] = {
        "ROC": _roc,
        "Precision and recall": _precision_recall,
        "Calibration": _calibration,
        "Cumulative gains": _gains,
        "Scores by class": _score_histogram,
    }
    both_classes = 0 < target.mean() < 1
    return {
        title: draw(target, score) if both_classes or draw in (_calibration, _score_histogram) else _UNDEFINED
        for title, draw in views.items()
    }


def importance_chart(importance: Sequence[tuple[str, float]]) -> Chart:
    """Plot the feature importance of the 20 most important questions.

    Args:
        importance: title of the question, and its mean contribution to a score in log-odds.
    """
    largest = sorted(importance, key=lambda bar: -bar[1])[:BARS_SHOWN]
    return bar_chart("Mean contribution of each question to a score", [Bar(*bar) for bar in largest])


def _chart(
    x_title: str,
    y_title: str,
    lines: Sequence[tuple[str, str, Xy]],
    x: Scale = SHARE,
    y: Scale = SHARE,
    **more: tuple[Segment, ...] | tuple[Mark, ...],
) -> Chart:
    """Return a chart of lines, each with its look, its name in the legend and its points."""
    return Chart(
        says=f"{y_title}, by {x_title}",
        height=HEIGHT,
        rows=tuple(Tick(100 - y.percent(value), f"{value:.2f}") for value in y.steps),
        columns=tuple(Tick(x.percent(value), f"{value:.2f}") for value in x.steps),
        lines=tuple(
            Line(
                tuple((x.percent(right), 100 - y.percent(up)) for right, up in zip(*places, strict=True)),
                look,
            )
            for look, _, places in lines
        ),
        key=tuple(("dash", look, name) for look, name, _ in lines),
        x_title=x_title,
        y_title=y_title,
        gutter=3.0,
        **more,  # type: ignore[arg-type]
    )


_DIAGONAL = ([0, 1], [0, 1])
_UNDEFINED = Chart(
    says="undefined: all people have the same class",
    height=2.0,
    notes=(Tick(50, "undefined: all people have the same class"),),
)


def _roc(target: np.ndarray, score: np.ndarray) -> Chart:
    from sklearn.metrics import roc_curve

    false_alarms, hits, _ = roc_curve(target, score)
    return _chart(
        "false positive rate",
        "true positive rate (recall)",
        [
            ("here", f"this model: AUC {metrics.auc(target, score):.3f}", _thinned(false_alarms, hits)),
            ("there dashed", "random", _DIAGONAL),
        ],
    )


def _precision_recall(target: np.ndarray, score: np.ndarray) -> Chart:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(target, score)
    average = metrics.average_precision(target, score)
    return _chart(
        "recall (true positive rate)",
        "precision of the contacts",
        [
            ("here", f"this model: average {average:.3f}", _thinned(recall, precision)),
            ("there dashed", "random", ([0, 1], [target.mean()] * 2)),
        ],
    )


def _calibration(target: np.ndarray, score: np.ndarray) -> Chart:
    bins = np.array_split(np.argsort(score, kind="stable"), min(metrics.CALIBRATION_BINS, len(score)))
    predicted = [float(score[rows].mean()) for rows in bins]
    observed = [float(target[rows].mean()) for rows in bins]
    intervals = [wilson_interval(float(target[rows].sum()), len(rows)) for rows in bins]
    places = [
        (SHARE.percent(mean), rate, interval)
        for mean, rate, interval in zip(predicted, observed, intervals, strict=True)
    ]
    return _chart(
        "mean score (decile)",
        "observed share of the target group",
        [("here", "this model", (predicted, observed)), ("there dashed", "perfect calibration", _DIAGONAL)],
        segments=tuple(
            Segment(x, 100 - SHARE.percent(low), x, 100 - SHARE.percent(high), "here")
            for x, _, (low, high) in places
        ),
        marks=tuple(
            Mark(
                "circle",
                x,
                100 - SHARE.percent(rate),
                "here",
                f"mean score {x / 100:.3f}, observed share {rate:.3f} ({low:.3f} to {high:.3f})",
            )
            for x, rate, (low, high) in places
        ),
    )


def _gains(target: np.ndarray, score: np.ndarray) -> Chart:
    share = np.arange(len(target) + 1) / len(target)
    recall = _expected_hits(target, score) / target.sum()
    name = f"this model: {np.interp(0.1, share, recall):.0%} in the top 10 %"
    return _chart(
        "share of people contacted, highest scores first",
        "true positive rate (recall)",
        [("here", name, _thinned(share, recall)), ("there dashed", "random", _DIAGONAL)],
    )


def _expected_hits(target: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the expected true positives after each contact, shape (n + 1,); ties are in random order."""
    values, which, counts = np.unique(-score, return_inverse=True, return_counts=True)
    hits = np.bincount(which, weights=target, minlength=len(values))
    after = np.concatenate([[0], np.cumsum(counts)])
    return np.interp(np.arange(len(score) + 1), after, np.concatenate([[0], np.cumsum(hits)]))


def _score_histogram(target: np.ndarray, score: np.ndarray) -> Chart:
    edges = np.linspace(0, 1, 21)
    lines: list[tuple[str, str, Xy]] = []
    highest = 0.0
    for positive, name, look in ((1, "target group", "here filled"), (0, "the others", "there filled")):
        members = score[target == positive]
        if len(members):
            shares = np.histogram(members, edges)[0] / len(members)
            highest = max(highest, shares.max())
            lines.append(
                (look, name, (np.repeat(edges, 2), np.concatenate([[0], np.repeat(shares, 2), [0]])))
            )
    return _chart("score", "share of the class", lines, y=Scale.of([0.0, highest]))


def _thinned(x: np.ndarray, y: np.ndarray) -> Xy:
    """Return a curve thinned to :data:`CURVE_POINTS` points, including both ends."""
    kept = np.unique(np.linspace(0, len(x) - 1, CURVE_POINTS).round().astype(int))
    return x[kept], y[kept]
