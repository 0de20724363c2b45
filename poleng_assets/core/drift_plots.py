"""Plots for pages that open offline: NannyML's of what drifted, and performance with its intervals.

What belongs here makes a Plotly figure and turns it into a piece of a page. A figure holds shares and
counts and never a row of anybody.

NannyML 0.13.1 chooses the answers it shows, and their colours, for the reference and for the batch apart,
so that one colour means two answers; and without times it draws the batch upon the first part of the
reference. Both are put right here; what is counted is NannyML's.
https://nannyml.readthedocs.io/en/v0.13.1/tutorials/detecting_data_drift/univariate_drift_detection.html
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from poleng_assets.core.codes import to_codes, to_table
from poleng_assets.core.evaluation import NO_ANSWER
from poleng_assets.core.figures import (
    COMPOSITION,
    DISTANCES,
    MISSING,
    UNSEEN,
    BatchFigures,
    Estimate,
)
from poleng_assets.core.matching import match
from poleng_assets.study import Feature, Study

PLOTS_SHOWN = 4
PLOTS_WHEN_QUIET = 2
# Parts that the reference is cut into: how much they differ among each other is chance.
PARTS = 5
ANSWERS_SHOWN = 5
LABEL_LENGTH = 40
NEW_ANSWERS = "answers unknown to the reference"
OTHER_ANSWERS = "all other answers"
# Told apart by colour-blind people too, on white and on black (Okabe and Ito, 2008); grey is the rest.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
REST = "#94a3b8"
# Reference, batch, and what outcomes have shown.
THERE, HERE, TRUTH = "#64748b", "#ea580c", "#3b82f6"
APART = 0.4
QUIET_AXIS = {"showgrid": False, "zeroline": False, "showline": False, "mirror": False}


@dataclass(frozen=True)
class Plot:
    """A figure as a piece of a page.

    Attributes:
        title: what it shows, in words.
        caption: what to see in it, one or two sentences; empty when the page says it.
        div: HTML that needs :func:`plotly_js` somewhere before it.
    """

    title: str
    caption: str
    div: str


def plotly_js() -> str:
    """Return Plotly's script, to be put into a page once: 4.5 MB, and nothing is fetched by it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def as_div(figure: Any, name: str, height: int) -> str:
    """Turn a Plotly figure into HTML: transparent, as wide as its place, and still under a finger.

    The page's own style colours texts and lines of the grid, so that they suit a dark page as well.

    Args:
        figure: ``plotly.graph_objects.Figure``; it is changed.
        name: of the element, alone of its kind on the page.
        height: in pixels.
    """
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": "#1e293b", "size": 13}},
        dragmode=False,
        height=height,
    )
    config = {"displayModeBar": False, "responsive": True, "scrollZoom": False, "doubleClick": False}
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=name, config=config
        )
    )


def short(label: str, length: int = LABEL_LENGTH) -> str:
    """Return a label that fits a legend, with what Plotly takes for markup made harmless."""
    cut = label if len(label) <= length else label[: length - 1].rstrip() + "…"
    return html.escape(cut, quote=False)


def answers(feature: Feature, rows: pd.DataFrame) -> pd.Series:
    """Return the answers to one question in words, shape (rows,); nobody's answer is missing from it."""
    codes, _ = to_codes(to_table(rows[[feature.name]])[feature.name])
    # Plain objects: nullable integers vanish from NannyML's results, and floats would read "3.0".
    given = pd.Series(codes.to_pandas(integer_object_nulls=True), dtype=object)
    words = {code: feature.label(code) or NO_ANSWER for code in given.dropna().unique()}
    return given.map(words).fillna(NO_ANSWER).rename(feature.title)


def columns_to_plot(figures: BatchFigures, study: Study, most: int = PLOTS_SHOWN) -> list[str]:
    """Return the features that tell most: what alerts, gravest first; else those farthest away.

    Answers that the model never saw come first, then missing ones, then shifts by what they are worth
    to the model, then another mix of people.
    """
    shifts = figures.alerts(*DISTANCES)
    weight = figures.importance or dict.fromkeys(study.feature_names, 1.0)
    shifts.sort(key=lambda f: -(1.0 if f.value is None else f.value) * weight.get(f.column_name, 0.0))
    alerts = [*figures.alerts(UNSEEN), *figures.alerts(MISSING), *shifts, *figures.alerts(COMPOSITION)]
    names = list(dict.fromkeys(f.column_name for f in alerts if f.column_name in study.feature_names))
    if names:
        return names[:most]
    distances = [f for f in figures.figures if f.method in DISTANCES and f.value is not None]
    distances.sort(key=lambda f: -(f.value or 0.0))
    farthest = dict.fromkeys(f.column_name for f in distances if f.column_name in study.feature_names)
    return list(farthest)[:PLOTS_WHEN_QUIET]


@dataclass(frozen=True)
class Sides:
    """Whom the figures compare: everybody, and people of a kind.

    Attributes:
        reference: all held-out rows.
        batch: all measured rows.
        like: rows of the reference, repeated to the batch's mix of people; the same as ``reference`` where
            the batch is compared with everybody.
        comparable: rows of the batch that have their like in the reference.
        within: title of the question whose answers make people a kind; empty when there is none.
    """

    reference: pd.DataFrame
    batch: pd.DataFrame
    like: pd.DataFrame
    comparable: pd.DataFrame
    within: str = ""

    @classmethod
    def of(cls, study: Study, reference: pd.DataFrame, batch: pd.DataFrame) -> Sides:
        """Weigh the reference to a batch under the study's policy, as the figures are measured."""
        policy = study.policies.overseer
        if policy.compare_within is None or reference.empty or batch.empty:
            return cls(reference, batch, reference, batch)
        name = policy.compare_within
        found = match(reference[name], batch[name], (len(reference), len(batch)), policy.min_stratum)
        if not found.within:
            return cls(reference, batch, reference, batch)
        like, comparable = reference.iloc[found.repeated()], batch[found.comparable]
        return cls(reference, batch, like, comparable, study.feature(name).title)

    def compared_in(self, column: str, figures: BatchFigures) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return reference and batch as a column is compared: among all when it says who these people are."""
        unseen = figures.figure(column, UNSEEN)
        of_people = figures.figure(column, COMPOSITION) is not None or (unseen is not None and unseen.alert)
        return (self.reference, self.batch) if of_people else (self.like, self.comparable)


def drift_plots(study: Study, figures: BatchFigures, sides: Sides) -> list[Plot]:
    """Draw NannyML's distributions of what drifted; none when nothing was measured.

    Args:
        study: titles and labels.
        figures: of the batch: they say what drifted.
        sides: the rows, with the features.
    """
    if sides.reference.empty or sides.batch.empty:
        return []
    seed = study.policies.overseer.seed
    return [
        _distribution(study.feature(name), figures, sides.compared_in(name, figures), seed, place)
        for place, name in enumerate(columns_to_plot(figures, study))
    ]


def _distribution(
    feature: Feature,
    figures: BatchFigures,
    sides: tuple[pd.DataFrame, pd.DataFrame],
    seed: int,
    place: int,
) -> Plot:
    there, here = (answers(feature, rows).reset_index(drop=True) for rows in sides)
    unseen = figures.figure(feature.name, UNSEEN)
    if unseen is not None and unseen.alert:
        # One by one they would vanish among the others: it is all of them together that matters.
        here = here.where(here.isin(set(there)), NEW_ANSWERS)
    before, now = (words.value_counts(normalize=True) for words in (there, here))
    moved = now.sub(before, fill_value=0.0)
    shown = moved.abs().sort_values(ascending=False, kind="stable").index[:ANSWERS_SHOWN]
    order = list(dict.fromkeys(label for label in [*feature.codes.values(), *shown] if label in shown))
    if len(moved) > len(order):
        there, here = (words.where(words.isin(order), OTHER_ANSWERS) for words in (there, here))
        order.append(OTHER_ANSWERS)
    # NannyML gets the places of the answers: it fails when one of them is called "Other" or "Missing".
    places = {label: str(at) for at, label in enumerate(order)}
    # Shuffled, because the rows of the reference stand in the order of their files.
    there = there.map(places).sample(frac=1, random_state=seed).reset_index(drop=True)
    figure = _nannyml_distribution(there.to_frame(), here.map(places).to_frame(), feature.title)
    alerts = any(f.alert for f in figures.figures if f.column_name == feature.name)
    _make_readable(figure, order, int(figure.layout.shapes[0].x1), alerts)
    first = shown[0]
    what = NEW_ANSWERS if first == NEW_ANSWERS else f"“{first}”"
    caption = (
        f"What changed most: {what}, from {before.get(first, 0.0):.1%} of the reference to "
        f"{now.get(first, 0.0):.1%} of this batch."
    )
    return Plot(feature.title, caption, as_div(figure, f"distribution-{place}", 430))


def _nannyml_distribution(reference: pd.DataFrame, batch: pd.DataFrame, column: str) -> Any:
    """Let NannyML count and draw one column: the reference in parts, the batch in one piece."""
    import nannyml
    from nannyml.chunk import Chunker, CountBasedChunker

    # NannyML cuts both with one chunker and does not say which it hands over: they differ by length.
    if len(reference) == len(batch) > 1:
        reference = reference.iloc[:-1]
    pieces = {len(reference): min(PARTS, len(reference)), len(batch): 1}

    class ReferenceInParts(Chunker):
        def _split(self, data: pd.DataFrame) -> Any:
            return CountBasedChunker(pieces[len(data)], incomplete="append").split(data)

    calculator = nannyml.UnivariateDriftCalculator(
        column_names=[column],
        treat_as_categorical=[column],
        categorical_methods=["jensen_shannon"],
        chunker=ReferenceInParts(),
    )
    with warnings.catch_warnings():
        # It warns of few chunks: no threshold is made of them here, limits stand in the figures.
        warnings.filterwarnings("ignore", message="The resulting number of chunks is too low")
        warnings.filterwarnings("ignore", message="invalid value encountered in sqrt")
        warnings.filterwarnings("ignore", category=FutureWarning)
        return calculator.fit(reference).calculate(batch).plot(kind="distribution")


def _make_readable(figure: Any, order: Sequence[str], parts: int, alerts: bool) -> None:
    """Give each answer one colour in the reference and in the batch, and say all of it in words."""
    colours = dict(zip(order, PALETTE, strict=False)) | {OTHER_ANSWERS: REST}
    figure.data = sorted(figure.data, key=lambda trace: int(trace.name))
    named: set[str] = set()
    for trace in figure.data:
        label = order[int(trace.name)]
        # Only the reference's stand in NannyML's legend; the batch stands a little apart.
        trace.x = [int(x) for x in trace.x] if trace.showlegend else [parts + APART]
        trace.customdata = [f"part {x + 1} of the reference" if x < parts else "this batch" for x in trace.x]
        trace.hovertemplate = f"<b>{short(label)}</b><br>%{{y:.1%}} of %{{customdata}}<extra></extra>"
        trace.hoverlabel = {}
        trace.name = short(label)
        trace.legendgroup, trace.legendgrouptitle = short(label), None
        trace.showlegend = label not in named
        named.add(label)
        trace.marker.color = colours.get(label, REST)
        trace.marker.line.width = 0
    for shape, (start, end, colour) in zip(
        figure.layout.shapes,
        ((0, parts, THERE), (parts + APART, parts + APART + 1, HERE if alerts else THERE)),
        strict=True,
    ):
        shape.x0, shape.x1, shape.y1 = start, end, 1.0
        shape.line = {"color": colour, "width": 2, "dash": "dot"}
    figure.layout.annotations = ()
    above = [(parts / 2, f"reference in {parts} parts" if parts > 1 else "reference")]
    for x, words in [*above, *([(parts + APART + 0.5, "<b>▲ alert</b>")] if alerts else [])]:
        figure.add_annotation(x=x, y=1.0, yanchor="bottom", text=words, showarrow=False)
    figure.update_xaxes(
        **QUIET_AXIS,
        title=None,
        matches=None,
        tickvals=[*(place + 0.5 for place in range(parts)), parts + APART + 0.5],
        ticktext=[*map(str, range(1, parts + 1)), "this batch"],
        tickangle=0,
        range=[-0.05, parts + APART + 1.25],
        fixedrange=True,
    )
    figure.update_yaxes(**QUIET_AXIS, title=None, range=[0, 1.09], tickformat=".0%",
                        tickvals=[0, 0.25, 0.5, 0.75, 1], fixedrange=True)  # fmt: skip
    figure.update_layout(
        title=None,
        bargap=0.06,
        margin={"l": 48, "r": 8, "t": 12, "b": 40},
        legend={"orientation": "h", "x": 0, "y": -0.1, "yanchor": "top", "traceorder": "normal",
                "itemclick": False, "itemdoubleclick": False},
    )  # fmt: skip


def performance_plot(
    estimates: Sequence[Estimate], realised: Sequence[Estimate], trusted: bool, titles: dict[str, str]
) -> Plot | None:
    """Draw estimated and realised performance side by side with 95 % intervals; None without any.

    Log-loss has another scale than the others and is told by the table alone.

    Args:
        estimates: without labels, from CBPE.
        realised: with outcomes; may be empty.
        trusted: whether the estimates can be believed; their markers are hollow otherwise.
        titles: of the metrics, in the order in which they are drawn; others are left out.
    """
    import plotly.graph_objects as go

    shown = [metric for metric in titles if any(e.metric == metric for e in (*estimates, *realised))]
    if not shown:
        return None
    figure = go.Figure()
    references = {e.metric: e.reference for e in (*realised, *estimates) if e.reference is not None}
    series = (
        ("reference", [Estimate(m, v, v, v) for m, v in references.items()], "diamond", THERE, 0.22),
        ("estimated" if trusted else "estimated, not to be trusted", estimates,
         "circle" if trusted else "circle-open", HERE, 0.0),
        ("realised", realised, "square", TRUTH, -0.22),
    )  # fmt: skip
    for name, found, symbol, colour, offset in series:
        points = [e for e in found if e.metric in shown]
        if not points:
            continue
        between = ["" if e.lower == e.upper else f" ({e.lower:.3f} to {e.upper:.3f})" for e in points]
        figure.add_scatter(
            name=name,
            x=[e.value for e in points],
            y=[len(shown) - 1 - shown.index(e.metric) + offset for e in points],
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 11, "line": {"width": 2, "color": colour}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [e.upper - e.value for e in points],
                "arrayminus": [e.value - e.lower for e in points],
                "color": colour,
                "visible": any(between),
            },
            customdata=[
                f"{titles[e.metric]}, {name}: {e.value:.3f}{b}" for e, b in zip(points, between, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_xaxes(gridcolor="#cbd5e1", zeroline=False, fixedrange=True, tickformat=".2f")
    figure.update_yaxes(
        **QUIET_AXIS,
        tickvals=list(range(len(shown))),
        ticktext=[titles[metric] for metric in reversed(shown)],
        range=[-0.6, len(shown) - 0.4],
        fixedrange=True,
    )
    figure.update_layout(
        margin={"l": 110, "r": 12, "t": 8, "b": 32},
        legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top", "itemclick": False,
                "itemdoubleclick": False},
    )  # fmt: skip
    return Plot("Performance", "", as_div(figure, "performance", 150 + 52 * len(shown)))
