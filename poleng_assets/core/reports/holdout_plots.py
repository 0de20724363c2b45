"""Pictures of a holdout and of bars, as small PNG bytes, for the Dagster UI, MLflow and the model card.

What belongs here draws what is already known and decides nothing. Figures are drawn without pyplot,
whose global state outlives a run and is not safe in threads.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from poleng_assets.core.statistics.intervals import wilson_interval
from poleng_assets.core.statistics.metrics import CALIBRATION_BINS
from poleng_assets.text.markdown import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scores = Mapping[str, np.ndarray]

DPI = 80
ONE_PLOT = (5.6, 4.4)  # inches
# Room beside a plot for its title, labels and numbers, in inches: to measure these takes as long as to draw.
LEFT, RIGHT, BELOW, ABOVE = 0.75, 0.15, 0.6, 0.4
GROUND, ACCENT, QUIET = "#ffffff", "#c2410c", "#64748b"
# Told apart by hue, by brightness and by the dashes, so that no reader depends on one of them.
LOOKS = (
    {"color": ACCENT, "linestyle": "-", "marker": "o"},
    {"color": "#334155", "linestyle": "--", "marker": "s"},
    {"color": "#2563eb", "linestyle": "-.", "marker": "^"},
    {"color": "#15803d", "linestyle": ":", "marker": "D"},
)
# What each view of a holdout shows, for captions and for readers who do not see it.
CAPTIONS = {
    "ROC": "How many of those sought are found (upwards) when how many of the others are contacted too "
    "(to the right). The dotted line is a draw by lot.",
    "Precision and recall": "How many contacts are right (upwards) when so many of those sought are to be "
    "found (to the right). The dotted line is a draw by lot.",
    "Calibration": "The true share (upwards) among people with such scores (to the right), in tenths of the "
    "people, with 95 % intervals. True probabilities lie on the dotted line.",
    "Cumulative gains": "How many of those sought are found (upwards) when so many people are contacted, "
    "the highest scores first (to the right). The dotted line is a draw by lot.",
    "Scores by class": "How scores are spread among those sought and among the others. The less the two "
    "overlap, the better they are told apart.",
}
BARS_SHOWN = 20
TITLE_WIDTH = 42  # characters


def holdout_plots(target: np.ndarray, scores: Scores) -> dict[str, bytes]:
    """Draw how well scores rank and how far they can be believed, one picture for each view.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        scores: probabilities of 1 by the name of the model, each of shape (n,); several models are
            laid over one another.

    Returns:
        PNG by title, always the five of :data:`CAPTIONS`; calibration is drawn in bins of equal mass with
        Wilson's 95 % intervals. Views that one class alone does not have say so in the picture.

    Raises:
        ValueError: there is no model, or its scores have another length than the target.
    """
    _refuse_other_lengths(target, scores)
    pictures = {}
    for title, draw in _VIEWS.items():
        figure, (axes,) = _plots(*ONE_PLOT)
        _view(axes, title, draw, target, scores)
        pictures[title] = to_png(figure)
    return pictures


def holdout_panel(target: np.ndarray, scores: Scores) -> bytes:
    """Draw the views of :func:`holdout_plots` in one picture, two rows high: one value in the UI.

    Args:
        target: 0 or 1, shape (n,), n > 0.
        scores: probabilities of 1 by the name of the model, each of shape (n,).

    Raises:
        ValueError: there is no model, or its scores have another length than the target.
    """
    _refuse_other_lengths(target, scores)
    figure, (*grid, last) = _plots(14, 8.4, rows=2, columns=3)
    for axes, (title, draw) in zip(grid, _VIEWS.items(), strict=True):
        _view(axes, title, draw, target, scores)
    last.axis("off")
    return to_png(figure)


def importance_plot(bars: Sequence[tuple[str, float]], label: str = "mean contribution to a score") -> bytes:
    """Draw bars, the largest on top: the first 20 of them, since more cannot be read.

    Args:
        bars: what each stands for, in words, and its length in the unit that ``label`` names.
        label: of the axis.
    """
    from matplotlib.figure import Figure

    largest = sorted(bars, key=lambda bar: -bar[1])[:BARS_SHOWN][::-1]
    figure = Figure(figsize=(7, 1.0 + 0.3 * max(1, len(largest))), layout="constrained", facecolor=GROUND)
    axes = figure.add_subplot()
    # Drawn by position: bars of equal titles would be laid over one another.
    axes.barh(range(len(largest)), [value for _, value in largest], color=ACCENT)
    shortened = [textwrap.shorten(_plain(title), TITLE_WIDTH, placeholder=" ...") for title, _ in largest]
    axes.set_yticks(range(len(largest)), shortened)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes for the same figure."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    return picture.getvalue()


def as_data_uri(picture: bytes, kind: str = "png") -> str:
    """Return a picture as an address that holds it whole: nothing is fetched to show it.

    Args:
        picture: its bytes.
        kind: of image, as in its media type: ``png``, ``svg+xml``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def as_markdown(title: str, picture: bytes, kind: str = "png") -> str:
    """Return a picture as markdown that holds it whole: metadata of the Dagster UI shows it.

    Args:
        title: read out where the picture is not seen.
        picture: its bytes.
        kind: as of :func:`as_data_uri`.
    """
    return f"![{escaped(title)}]({as_data_uri(picture, kind)})"


def _plots(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure, in inches, and its plots, all of one size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=GROUND)
    grid = figure.subplots(rows, columns, squeeze=False)
    beside, over = LEFT + RIGHT, BELOW + ABOVE
    figure.subplots_adjust(
        left=LEFT / width,
        right=1 - RIGHT / width,
        bottom=BELOW / height,
        top=1 - ABOVE / height,
        wspace=beside / (width / columns - beside),
        hspace=over / (height / rows - over),
    )
    return figure, list(grid.flat)


def _refuse_other_lengths(target: np.ndarray, scores: Scores) -> None:
    if not scores:
        raise ValueError("there are no scores to draw")
    for name, score in scores.items():
        if len(score) != len(target):
            raise ValueError(f"{name} has {len(score)} scores, the target {len(target)} rows")


def _view(
    axes: Axes,
    title: str,
    draw: Callable[[Axes, np.ndarray, Scores], None],
    target: np.ndarray,
    scores: Scores,
) -> None:
    axes.set_title(title, fontsize=12)
    if draw in _NEED_BOTH_CLASSES and not 0 < target.mean() < 1:
        axes.text(0.5, 0.5, "undefined:\nall people are of one class", ha="center", va="center")
        axes.set_axis_off()
        return
    draw(axes, target, scores)
    axes.grid(color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, framealpha=0.9)


def _roc(axes: Axes, target: np.ndarray, scores: Scores) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    for (name, score), look in _styled(scores):
        false_alarms, hits, _ = roc_curve(target, score)
        auc = roc_auc_score(target, score)
        axes.plot(false_alarms, hits, label=f"{name}: AUC {auc:.3f}", **_line(look))
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":", label="by lot")
    axes.set(xlabel="share of the others contacted", ylabel="share of those sought found")


def _precision_recall(axes: Axes, target: np.ndarray, scores: Scores) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    for (name, score), look in _styled(scores):
        precision, recall, _ = precision_recall_curve(target, score)
        average = average_precision_score(target, score)
        axes.plot(recall, precision, label=f"{name}: average {average:.3f}", **_line(look))
    axes.axhline(target.mean(), color=QUIET, linewidth=1, linestyle=":", label="by lot")
    axes.set(xlabel="recall: share of those sought found", ylabel="precision of contacts", ylim=(0, 1.03))


def _calibration(axes: Axes, target: np.ndarray, scores: Scores) -> None:
    for (name, score), look in _styled(scores):
        bins = np.array_split(np.argsort(score, kind="stable"), min(CALIBRATION_BINS, len(score)))
        said = np.array([score[rows].mean() for rows in bins])
        true = np.array([target[rows].mean() for rows in bins])
        ends = np.array([wilson_interval(float(target[rows].sum()), len(rows)) for rows in bins])
        axes.errorbar(
            said,
            true,
            yerr=np.clip([true - ends[:, 0], ends[:, 1] - true], 0, None),
            color=look["color"],
            marker=look["marker"],
            linestyle=look["linestyle"],
            markersize=4,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
            label=name,
        )
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":", label="true probabilities")
    axes.set(xlabel="mean score of a tenth of the people", ylabel="share of those sought among them")


def _gains(axes: Axes, target: np.ndarray, scores: Scores) -> None:
    share = np.arange(len(target) + 1) / len(target)
    for (name, score), look in _styled(scores):
        found = _expected_hits(target, score) / target.sum()
        axes.plot(
            share, found, label=f"{name}: {np.interp(0.1, share, found):.0%} in the top 10 %", **_line(look)
        )
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":", label="by lot")
    axes.set(xlabel="share of people contacted, highest scores first", ylabel="share of those sought found")


def _expected_hits(target: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return how many are found after each contact, shape (n + 1,); those who tie come in any order."""
    values, which, counts = np.unique(-score, return_inverse=True, return_counts=True)
    hits = np.bincount(which, weights=target, minlength=len(values))
    after = np.concatenate([[0], np.cumsum(counts)])
    return np.interp(np.arange(len(score) + 1), after, np.concatenate([[0], np.cumsum(hits)]))


def _score_histogram(axes: Axes, target: np.ndarray, scores: Scores) -> None:
    edges = np.linspace(0, 1, 21)
    for (name, score), look in _styled(scores):
        for positive, words, color in ((1, "sought", ACCENT), (0, "others", QUIET)):
            members = score[target == positive]
            if len(members):
                shares = np.histogram(members, edges)[0] / len(members)
                label = f"{name}: {words}"
                axes.stairs(
                    shares, edges, color=color, linestyle=look["linestyle"], linewidth=1.6, label=label
                )
                if len(scores) == 1:
                    axes.stairs(shares, edges, color=color, fill=True, alpha=0.18)
    axes.set(xlabel="score", ylabel="share of the class")


def _styled(scores: Scores) -> list[tuple[tuple[str, np.ndarray], dict[str, str]]]:
    named = [(_plain(name), score) for name, score in scores.items()]
    return [(pair, LOOKS[position % len(LOOKS)]) for position, pair in enumerate(named)]


def _line(look: Mapping[str, str]) -> dict[str, Any]:
    return {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.8}


def _plain(words: str) -> str:
    """Return words without the sign that opens a formula for matplotlib, which half a formula would stop."""
    return words.replace("$", r"\$")


_VIEWS = {
    "ROC": _roc,
    "Precision and recall": _precision_recall,
    "Calibration": _calibration,
    "Cumulative gains": _gains,
    "Scores by class": _score_histogram,
}
_NEED_BOTH_CLASSES = (_roc, _precision_recall, _gains)
