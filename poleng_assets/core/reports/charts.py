"""Charts as positions in percent, drawn by ``templates/_charts.html``.

On a page a chart is HTML and SVG: it needs no script, scales with the page while its text keeps its size,
prints, and supports dark mode. In the Dagster UI, which shows Markdown, the same chart is an SVG image.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poleng_assets.core.reports.pages import template
from poleng_assets.text.markdown import escaped

BAR_LABEL = 34  # characters


@dataclass(frozen=True)
class Tick:
    """A label on an axis.

    Attributes:
        at: in percent of the axis, from the left or from the top.
        text: the label; cut with an ellipsis where it does not fit.
        minor: left out on a narrow screen.
    """

    at: float
    text: str
    minor: bool = False


@dataclass(frozen=True)
class Mark:
    """A sign at a position in percent; ``text`` is its tooltip."""

    sign: str
    x: float
    y: float
    look: str
    text: str = ""


@dataclass(frozen=True)
class Segment:
    """A straight line between two positions in percent."""

    x1: float
    y1: float
    x2: float
    y2: float
    look: str


@dataclass(frozen=True)
class Line:
    """A line through positions in percent, each from the left and from the top."""

    places: tuple[tuple[float, float], ...]
    look: str


@dataclass(frozen=True)
class Box:
    """A rectangle: its upper left corner and its size in percent; ``text`` as of a mark."""

    x: float
    y: float
    width: float
    height: float
    look: str
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        says: a description for screen readers.
        height: of the drawing, in rem.
        rows: labels of the vertical axis.
        columns: labels of the horizontal axis.
        notes: labels above the drawing.
        boxes: drawn first.
        segments: drawn over the boxes.
        lines: likewise.
        marks: drawn last.
        gutter: room for the labels of the rows, in rem.
        slanted: whether the labels of the columns are slanted, because they are long.
        ruled: whether a line crosses the drawing at each label of the rows, of the columns, or at none.
        dense: whether signs are small, because there are many.
        key: the legend: sign, look and name.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
    """

    says: str
    height: float
    rows: tuple[Tick, ...] = ()
    columns: tuple[Tick, ...] = ()
    notes: tuple[Tick, ...] = ()
    boxes: tuple[Box, ...] = ()
    segments: tuple[Segment, ...] = ()
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    gutter: float = 4.0
    slanted: bool = False
    ruled: str = "rows"
    dense: bool = False
    key: tuple[tuple[str, str, str], ...] = ()
    x_title: str = ""
    y_title: str = ""


@dataclass(frozen=True)
class Scale:
    """Values on an axis, with round numbers to label it by.

    Attributes:
        low: value at 0 percent.
        high: value at 100 percent.
        steps: round values between the two.
    """

    low: float
    high: float
    steps: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float], steps: int = 5) -> Scale:
        """Return the scale that holds all values, at least one; its ends are round.

        There are about so many steps between the smallest and the largest value, each 1, 2 or 5 times a
        power of ten.
        """
        listed = list(values)
        low, high = min(listed), max(listed)
        # Values that are all alike get some room on either side.
        spread = (high - low) or abs(high) or 1.0
        power = 10.0 ** math.floor(math.log10(spread / steps))
        step = power * next(
            factor for factor in (1, 2, 5, 10) if factor * power * steps > spread * (1 - 1e-9)
        )
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple(step * n for n in range(first, max(last, first + 1) + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def percent(self, value: float) -> float:
        """Return the position of a value, in percent from the low end."""
        return 100 * (value - self.low) / (self.high - self.low)


def short(label: str, length: int) -> str:
    """Return a label cut to so many characters."""
    return label if len(label) <= length else label[: length - 1].rstrip() + "…"


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: its label, its value and its threshold."""

    label: str
    value: float
    limit: float | None = None
    alert: bool = False


def bar_chart(says: str, bars: Sequence[Bar]) -> Chart:
    """Return a horizontal bar chart, the first bar on top, with the value beside each label."""
    longest = max((end for bar in bars for end in (bar.value, bar.limit or 0.0)), default=0.0) or 1.0
    step = 100 / max(1, len(bars))
    rows, boxes, limits = [], [], []
    for position, bar in enumerate(bars):
        top, width = step * position, 100 * bar.value / longest
        rows.append(Tick(top + step / 2, f"{short(bar.label, BAR_LABEL)} {bar.value:.3f}"))
        boxes.append(Box(0, top + 0.18 * step, width, 0.64 * step, "here" if bar.alert else "there"))
        if bar.limit is not None:
            x = 100 * bar.limit / longest
            limits.append(Segment(x, top + 0.05 * step, x, top + 0.95 * step, "limit"))
    return Chart(
        says=says,
        height=1.4 * max(1, len(bars)),
        rows=tuple(rows),
        boxes=tuple(boxes),
        segments=tuple(limits),
        gutter=18.0,
        ruled="none",
    )


def as_svg(chart: Chart) -> bytes:
    """Return a chart as an SVG image of a fixed size, on white ground."""
    return str(template("_charts.html").module.image(chart)).encode()  # type: ignore[attr-defined]


def as_markdown(title: str, chart: Chart) -> str:
    """Return a chart as markdown that holds it completely: metadata of the Dagster UI shows it.

    Args:
        title: read out where the image is not seen.
    """
    image = base64.b64encode(as_svg(chart)).decode()
    return f"**{escaped(title)}**\n\n![{escaped(title)}](data:image/svg+xml;base64,{image})"
