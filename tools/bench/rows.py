"""The table: what was measured, beside what, and whether it meets its bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FORMATS: dict[str, Callable[[float], str]] = {
    "s": lambda v: f"{v:.2f} s" if v < 10 else f"{v:,.1f} s",
    "ms": lambda v: f"{v:.0f} ms",
    "min": lambda v: f"{v:.1f} min",
    "GB": lambda v: f"{v:.2f} GB",
    "rows/s": lambda v: f"{v:,.0f} rows/s",
    "x": lambda v: f"{v:.2f} ×" if v < 10 else f"{v:,.1f} ×",  # noqa: RUF001
    "%": lambda v: f"{v:.0%}",
}
HEADS = ("what", "measured", "limit or rival", "ratio", "bar", "met")


def in_unit(value: float, unit: str) -> str:
    """Write a figure with its unit, one of :data:`FORMATS`; a share is given as 0.6 for 60 %."""
    return FORMATS[unit](value)


@dataclass(frozen=True)
class Bar:
    """What is asked of a figure.

    Attributes:
        sense: whether the figure must be at least or at most as large.
        value: of the bar, in the unit.
        unit: one of :data:`FORMATS`.
    """

    sense: Literal["at least", "at most"]
    value: float
    unit: str

    def met_by(self, figure: float) -> bool:
        """Return whether a figure, in the unit of the bar, meets it."""
        return figure >= self.value if self.sense == "at least" else figure <= self.value

    def in_words(self) -> str:
        """Return the bar as the table shows it."""
        return f"{'≥' if self.sense == 'at least' else '≤'} {FORMATS[self.unit](self.value)}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: the same for the same line in every run: what the history goes by.
        what: was measured.
        measured: in words, with its unit.
        rival: the limit or the rival, in words.
        ratio: of the two, in words.
        figure: what the bar is about, in the bar's unit (or "x" when there is no bar), None when it could
            not be measured.
        bar: None for a line that is only told.
        not_judged: why the bar does not count this time; empty when it does.
        failed: the measurement itself failed.
    """

    key: str
    what: str
    measured: str
    rival: str = ""
    ratio: str = ""
    figure: float | None = None
    bar: Bar | None = None
    not_judged: str = ""
    failed: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None when there is none or it does not count."""
        if self.failed:
            return False
        if self.bar is None or self.not_judged or self.figure is None:
            return None
        return self.bar.met_by(self.figure)

    def cells(self) -> tuple[str, ...]:
        """Return the line as the table shows it, in the order of :data:`HEADS`."""
        verdict = {True: "yes", False: "**no**", None: self.not_judged}[self.met]
        bar = self.bar.in_words() if self.bar else ""
        return (self.what, self.measured, self.rival, self.ratio, bar, verdict)

    def to_json(self) -> dict[str, Any]:
        """Return what the history keeps."""
        return {
            "key": self.key,
            "what": self.what,
            "measured": self.measured,
            "rival": self.rival,
            "ratio": self.ratio,
            "figure": self.figure,
            "bar": vars(self.bar) if self.bar else None,
            "met": self.met,
        }


def failed(key: str, what: str, why: str) -> Row:
    """Return the line of a measurement that failed: it counts as missed."""
    return Row(key, what, f"failed: {why}", failed=True)


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table as aligned Markdown."""
    cells = [[_in_a_cell(cell) for cell in row.cells()] for row in rows]
    widths = [max(len(line[column]) for line in [list(HEADS), *cells]) for column in range(len(HEADS))]
    lines = [list(HEADS), ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def missed(rows: Sequence[Row]) -> list[Row]:
    """Return the lines whose bar is not met, or whose measurement failed."""
    return [row for row in rows if row.met is False]


def _in_a_cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")
