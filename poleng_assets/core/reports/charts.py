"""Charts of pages: what stands where, in percent, for ``templates/_charts.html`` to draw.

What belongs here is the shape of a chart and the places on its scales. A chart is HTML and SVG: it needs no
script, stretches with the page while its words keep their size, is printed, and follows a dark screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Signs that the template can draw; a sign differs by its form, never by its colour alone.
SIGNS = ("circle", "square", "diamond", "triangle", "cross", "dash", "ring")


@dataclass(frozen=True)
class Tick:
    """A label on an axis.

    Attributes:
        at: in percent of the axis, from the left or from the top.
        words: what stands there; cut with an ellipsis where there is no room.
        minor: left out on a narrow screen.
    """

    at: float
    words: str
    minor: bool = False


@dataclass(frozen=True)
class Mark:
    """A sign at a place in percent; ``words`` are shown to a pointer that rests on it."""

    sign: str
    x: float
    y: float
    look: str
    words: str = ""


@dataclass(frozen=True)
class Segment:
    """A straight line between two places in percent."""

    x1: float
    y1: float
    x2: float
    y2: float
    look: str


@dataclass(frozen=True)
class Box:
    """A rectangle: its upper left corner and its size in percent; ``words`` as of a mark."""

    x: float
    y: float
    width: float
    height: float
    look: str
    words: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        says: what it shows and where the same stands in words, read out to who does not see it.
        height: of the drawing, in rem.
        rows: labels of the vertical axis.
        columns: labels of the horizontal axis.
        notes: labels above the drawing.
        boxes: drawn first.
        segments: drawn over the boxes.
        marks: drawn last.
        gutter: room for the labels of the rows, in rem.
        slanted: whether the labels of the columns stand aslant, because they are long.
        ruled: whether a line crosses the drawing at each label of the rows, of the columns, or at none.
        dense: whether signs are small, because there are many.
    """

    says: str
    height: float
    rows: tuple[Tick, ...] = ()
    columns: tuple[Tick, ...] = ()
    notes: tuple[Tick, ...] = ()
    boxes: tuple[Box, ...] = ()
    segments: tuple[Segment, ...] = ()
    marks: tuple[Mark, ...] = ()
    gutter: float = 4.0
    slanted: bool = False
    ruled: str = "rows"
    dense: bool = False


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

        The steps are those of Matplotlib's ``MaxNLocator``.
        """
        from matplotlib.ticker import MaxNLocator

        found = list(values)
        ticks = MaxNLocator(steps, steps=[1, 2, 5, 10], min_n_ticks=2).tick_values(min(found), max(found))
        return cls(float(ticks[0]), float(ticks[-1]), tuple(float(tick) for tick in ticks))

    def place(self, value: float) -> float:
        """Return where a value stands, in percent from the low end."""
        return 100 * (value - self.low) / (self.high - self.low)


def short(label: str, length: int) -> str:
    """Return a label cut to so many characters."""
    return label if len(label) <= length else label[: length - 1].rstrip() + "…"
