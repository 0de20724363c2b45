"""Charts of a holdout: how well scores rank, how far they can be believed, and which questions move them.

What belongs here puts what is already known in its place on a chart and decides nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from poleng_assets.core.reports.charts import Bar, Chart, Line, Mark, Scale, Segment, Tick, bar_chart
from poleng_assets.core.statistics import metrics
from poleng_assets.core.statistics.intervals import wilson_interval

# What each view of a holdout shows, for captions and for readers who do not see it.
CAPTIONS = {
    "ROC": "How many of those sought are found (upwards) when how many of the others are contacted too "
    "(to the right). The dashed line is a draw by lot.",
    "Precision and recall": "How many contacts are right (upwards) when so many of those sought are to be "
    "found (to the right). The dashed line is a draw by lot.",
    "Calibration": "The true share (upwards) among people with such scores (to the right), in tenths of the "
    "people, with 95 % intervals. True probabilities lie on the dashed line.",
    "Cumulative gains": "How many of those sought are found (upwards) when so many people are contacted, "
    "the highest scores first (to the right). The dashed line is a draw by lot.",
    "Scores by class": "How scores are spread among those sought and among the others. The less the two "
    "overlap, the better they are told apart.",
}
BARS_SHOWN = 20
CURVE_POINTS = 200  # more are not told apart on a screen, and make the page large
SHARE = Scale(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
HEIGHT = 16.0  # rem

Xy: TypeAlias = tuple[Iterable[float], Iterable[float]]


def holdout_charts(target: np.ndarray, score: np.ndarray) -> dict[str, Chart]:
    """Draw how well scores rank and how far they can be believed, one chart for each view.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        score: probabilities of 1, shape (n,).

    Returns:
        Charts by title, always the five of :data:`CAPTIONS`; calibration is drawn in bins of equal mass with
        Wilson's 95 % intervals. Views that one class alone does not have say so.

    Raises:
        ValueError: the scores have another length than the target.
    """
    if len(score) != len(target):
        raise ValueError(f"there are {len(score)} scores, and {len(target)} rows of the target")
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
    """Draw how much each question moves the scores, the largest on top: the first 20 of them.

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
    """Return a chart of some lines, each with its look, its name in the key, and its places."""
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
    says="undefined: all people are of one class",
    height=2.0,
    notes=(Tick(50, "undefined: all people are of one class"),),
)


def _roc(target: np.ndarray, score: np.ndarray) -> Chart:
    from sklearn.metrics import roc_curve

    false_alarms, hits, _ = roc_curve(target, score)
    return _chart(
        "share of the others contacted",
        "share of those sought found",
        [
            ("here", f"this model: AUC {metrics.auc(target, score):.3f}", _thinned(false_alarms, hits)),
            ("there dashed", "by lot", _DIAGONAL),
        ],
    )


def _precision_recall(target: np.ndarray, score: np.ndarray) -> Chart:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(target, score)
    average = metrics.average_precision(target, score)
    return _chart(
        "recall: share of those sought found",
        "precision of contacts",
        [
            ("here", f"this model: average {average:.3f}", _thinned(recall, precision)),
            ("there dashed", "by lot", ([0, 1], [target.mean()] * 2)),
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
        "mean score of a tenth of the people",
        "share of those sought among them",
        [("here", "this model", (predicted, observed)), ("there dashed", "true probabilities", _DIAGONAL)],
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
                f"mean score {x / 100:.3f}, true share {rate:.3f} ({low:.3f} to {high:.3f})",
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
        "share of those sought found",
        [("here", name, _thinned(share, recall)), ("there dashed", "by lot", _DIAGONAL)],
    )


def _expected_hits(target: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return how many are found after each contact, shape (n + 1,); those who tie come in any order."""
    values, which, counts = np.unique(-score, return_inverse=True, return_counts=True)
    hits = np.bincount(which, weights=target, minlength=len(values))
    after = np.concatenate([[0], np.cumsum(counts)])
    return np.interp(np.arange(len(score) + 1), after, np.concatenate([[0], np.cumsum(hits)]))


def _score_histogram(target: np.ndarray, score: np.ndarray) -> Chart:
    edges = np.linspace(0, 1, 21)
    lines: list[tuple[str, str, Xy]] = []
    highest = 0.0
    for positive, name, look in ((1, "those sought", "here filled"), (0, "the others", "there filled")):
        members = score[target == positive]
        if len(members):
            shares = np.histogram(members, edges)[0] / len(members)
            highest = max(highest, shares.max())
            lines.append(
                (look, name, (np.repeat(edges, 2), np.concatenate([[0], np.repeat(shares, 2), [0]])))
            )
    return _chart("score", "share of the class", lines, y=Scale.of([0.0, highest]))


def _thinned(x: np.ndarray, y: np.ndarray) -> Xy:
    """Return a curve with as many points as can be told apart, its ends among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, CURVE_POINTS).round().astype(int))
    return x[kept], y[kept]
