"""Plots of a drift report: answer distributions side by side, and performance with its intervals.

The plots hold aggregates only, never a row of a person. Tables on the page show the same data as text.

Sources:
    J. L. Fleiss, Statistical Methods for Rates and Proportions, 2nd edition 1981, chapter 2 (difference of
    two proportions). L. Kish, Survey Sampling, 1965, 11.7 (effective sample size).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from poleng_assets.core.features.codes import to_codes, to_table
from poleng_assets.core.monitoring.comparison import Comparison
from poleng_assets.core.monitoring.measurements import (
    COMPOSITION,
    DISTANCES,
    JENSEN_SHANNON,
    MISSING,
    SCORE,
    UNSEEN,
    BatchMeasurements,
    Estimate,
)
from poleng_assets.core.reports import charts
from poleng_assets.core.reports.charts import Chart, Mark, Scale, Segment, Tick, as_markdown, bar_chart
from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.core.statistics.intervals import Z_95
from poleng_assets.study.schema import Feature, Study

PLOTS_SHOWN = 6
PLOTS_WHEN_QUIET = 2
ANSWERS_SHOWN = 8
NEW_ANSWERS = "answers not in the reference"
OTHER_ANSWERS = "all other answers"
DISTANCES_SHOWN = 12


@dataclass(frozen=True)
class Bar:
    """One answer, and the share of people who gave it.

    Attributes:
        label: of the answer.
        reference: share among the people of the reference.
        batch: share among the people of the batch.
        low: lower end of the 95 % range of the batch's share if nothing had changed.
        high: upper end of that range.
    """

    label: str
    reference: float
    batch: float
    low: float
    high: float


@dataclass(frozen=True)
class Distribution:
    """The answers to one question side by side.

    Attributes:
        title: of the question.
        alert: whether a metric is beyond its threshold.
        caption: what changed most, in a sentence.
        bars: ordinal answers in their order, else the most changed first; the rest is one bar.
    """

    title: str
    alert: bool
    caption: str
    bars: tuple[Bar, ...]


def answers(feature: Feature, rows: pd.DataFrame) -> pd.Series:
    """Return the labels of the answers to one question, shape (rows,); missing answers have a label too."""
    codes, _ = to_codes(to_table(rows[[feature.name]])[feature.name])
    # Plain objects: nullable integers vanish from NannyML's results, and floats would read "3.0".
    given = pd.Series(codes.to_pandas(integer_object_nulls=True), dtype=object)
    labels = {code: feature.label(code) or NO_ANSWER for code in given.dropna().unique()}
    return given.map(labels).fillna(NO_ANSWER).rename(feature.title)


def columns_to_plot(measured: BatchMeasurements, study: Study, most: int = PLOTS_SHOWN) -> list[str]:
    """Return the features to plot: those with alerts, most severe first, else the largest distances.

    Unseen answers come first, then missing ones, then shifts by their impact on the model, then composition
    shifts.
    """
    shifts = measured.alerts(*DISTANCES)
    weight = measured.importance or dict.fromkeys(study.feature_names, 1.0)
    shifts.sort(key=lambda f: -(1.0 if f.value is None else f.value) * weight.get(f.column_name, 0.0))
    alerts = [*measured.alerts(UNSEEN), *measured.alerts(MISSING), *shifts, *measured.alerts(COMPOSITION)]
    names = list(dict.fromkeys(f.column_name for f in alerts if f.column_name in study.feature_names))
    if names:
        return names[:most]
    distances = [f for f in measured.metrics if f.method in DISTANCES and f.value is not None]
    distances.sort(key=lambda f: -(f.value or 0.0))
    farthest = dict.fromkeys(f.column_name for f in distances if f.column_name in study.feature_names)
    return list(farthest)[:PLOTS_WHEN_QUIET]


def distributions(measured: BatchMeasurements, comparison: Comparison) -> list[Distribution]:
    """Count the answers to the drifted questions, most severe first; empty when nothing was measured.

    Args:
        measured: of the batch: what drifted.
        comparison: of the rows, with the features.
    """
    if comparison.reference.empty or comparison.batch.empty:
        return []
    study = comparison.study
    return [
        _distribution(study.feature(name), measured, *_compared_in(name, measured, comparison))
        for name in columns_to_plot(measured, study)
    ]


def _compared_in(
    column: str, measured: BatchMeasurements, comparison: Comparison
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to compare a column on: all of them for composition and unseen answers."""
    unseen = measured.metric(column, UNSEEN)
    if measured.metric(column, COMPOSITION) is not None or (unseen is not None and unseen.alert):
        return comparison.reference, comparison.batch
    return comparison.like, comparison.comparable


def _distribution(
    feature: Feature, measured: BatchMeasurements, reference: pd.DataFrame, batch: pd.DataFrame
) -> Distribution:
    usual, given = (answers(feature, rows) for rows in (reference, batch))
    unseen = measured.metric(feature.name, UNSEEN)
    if unseen is not None and unseen.alert:
        # Together: each unseen answer alone may be too rare to show.
        given = given.where(given.isin(set(usual)), NEW_ANSWERS)
    before, now = (labels.value_counts(normalize=True) for labels in (usual, given))
    moved = now.sub(before, fill_value=0.0).abs().sort_values(ascending=False, kind="stable")
    shown = list(moved.index[:ANSWERS_SHOWN])
    first = shown[0]
    if feature.kind == "ordinal":
        shown = list(dict.fromkeys(label for label in [*feature.codes.values(), *shown] if label in shown))
    shares = [(label, before.get(label, 0.0), now.get(label, 0.0)) for label in shown]
    if len(moved) > len(shown):
        rest = (1.0 - sum(usual for _, usual, _ in shares), 1.0 - sum(given for *_, given in shares))
        shares.append((OTHER_ANSWERS, *rest))
    what = NEW_ANSWERS if first == NEW_ANSWERS else f"“{first}”"
    return Distribution(
        feature.title,
        any(f.alert for f in measured.metrics if f.column_name == feature.name),
        f"Largest change: {what}, from {before.get(first, 0.0):.1%} of the reference to "
        f"{now.get(first, 0.0):.1%} of this batch.",
        _bars(shares, reference, batch),
    )


def score_bars(reference: pd.DataFrame, batch: pd.DataFrame) -> tuple[Bar, ...]:
    """Count the scores of both sides in ten equal bins; nothing when a side is empty."""
    if reference.empty or batch.empty:
        return ()
    edges = [i / 10 for i in range(11)]
    of_reference, of_batch = (
        pd.cut(rows[SCORE], edges, include_lowest=True).value_counts(normalize=True, sort=False)
        for rows in (reference, batch)
    )
    labels = [f"{low:.1f} to {low + 0.1:.1f}" for low in edges[:-1]]
    return _bars(list(zip(labels, of_reference, of_batch, strict=True)), reference, batch)


def _bars(
    shares: Sequence[tuple[str, float, float]], reference: pd.DataFrame, batch: pd.DataFrame
) -> tuple[Bar, ...]:
    # Weighted people of the reference count as their effective sample size.
    weights = reference.index.value_counts().to_numpy(dtype=float)
    people, others = weights.sum() ** 2 / (weights**2).sum(), len(batch)
    bars = []
    for label, of_reference, of_batch in shares:
        # Rounding may leave a rest a little below zero.
        usual, given = max(0.0, float(of_reference)), max(0.0, float(of_batch))
        # Under the null hypothesis both have the pooled share.
        common = (usual * people + given * others) / (people + others)
        width = Z_95 * math.sqrt(common * (1 - common) * (1 / people + 1 / others))
        bars.append(Bar(label, usual, given, max(0.0, usual - width), min(1.0, usual + width)))
    return tuple(bars)


class _Series(NamedTuple):
    """Values of one kind, with their sign, its look, and how far below the middle of a row they are drawn."""

    name: str
    estimates: Sequence[Estimate]
    sign: str
    look: str
    offset: float


def _series(estimates: Sequence[Estimate], realised: Sequence[Estimate], trusted: bool) -> list[_Series]:
    references = {e.metric: e.reference for e in (*realised, *estimates) if e.reference is not None}
    on_reference = [Estimate(metric, value, value, value) for metric, value in references.items()]
    name, look = ("estimated", "here") if trusted else ("estimated, not trusted", "here hollow")
    return [
        _Series("reference", on_reference, "diamond", "there", -0.24),
        _Series(name, estimates, "circle", look, 0.0),
        _Series("realised", realised, "square", "truth", 0.24),
    ]


def performance_chart(
    estimates: Sequence[Estimate], realised: Sequence[Estimate], trusted: bool, titles: Mapping[str, str]
) -> Chart | None:
    """Plot estimated and realised performance side by side with 95 % intervals; None without any.

    Log-loss has another scale than the others and is shown in the table only.

    Args:
        estimates: without labels, from CBPE.
        realised: with outcomes; may be empty.
        trusted: whether the estimates can be trusted; their signs are hollow otherwise.
        titles: of the metrics, in the order in which they are drawn; others are left out.
    """
    known = {estimate.metric for estimate in (*estimates, *realised)}
    shown = [metric for metric in titles if metric in known]
    if not shown:
        return None
    drawn = [
        (estimate, series)
        for series in _series(estimates, realised, trusted)
        for estimate in series.estimates
        if estimate.metric in shown
    ]
    scale = Scale.of([value for estimate, _ in drawn for value in estimate.row[1:]])
    step = 100 / len(shown)
    marks, segments = [], []
    for estimate, series in drawn:
        metric, value, lower, upper = estimate.row
        y = step * (shown.index(metric) + 0.5 + series.offset)
        between = "" if lower == upper else f" ({lower:.3f} to {upper:.3f})"
        if between:
            segments.append(Segment(scale.percent(lower), y, scale.percent(upper), y, series.look))
        tooltip = f"{titles[metric]}, {series.name}: {value:.3f}{between}"
        marks.append(Mark(series.sign, scale.percent(value), y, series.look, tooltip))
    return Chart(
        says="Performance with 95 % intervals; the table below has the same values.",
        height=1.0 + 2.6 * len(shown),
        rows=tuple(Tick(step * (row + 0.5), titles[metric]) for row, metric in enumerate(shown)),
        columns=tuple(
            Tick(scale.percent(value), f"{value:.2f}", minor=bool(number % 2))
            for number, value in enumerate(scale.steps)
        ),
        segments=tuple(segments),
        marks=tuple(marks),
        gutter=7.5,
        ruled="columns",
    )


def distance_picture(study: Study, measured: BatchMeasurements) -> str:
    """Return Markdown for the Dagster UI with the columns that drifted most, relative to their thresholds.

    Returns:
        An image as a data URL, or a sentence when nothing was compared.
    """
    distances = [f for f in measured.metrics if f.method == JENSEN_SHANNON and f.value is not None]
    distances.sort(key=lambda f: -(f.value or 0.0) / (f.upper_threshold or 1.0))
    if not distances:
        return "No column was compared."
    titles = {feature.name: feature.title for feature in study.features}
    chart = bar_chart(
        "Jensen-Shannon distance of each column",
        [
            charts.Bar(
                titles.get(f.column_name, f"{f.column_name} of the model"),
                f.value or 0.0,
                f.upper_threshold,
                f.alert,
            )
            for f in distances[:DISTANCES_SHOWN]
        ],
    )
    return (
        f"{as_markdown('Drift by column', chart)}\n\nJensen-Shannon distance from the same "
        "strata of the reference; the vertical line is the threshold."
    )
