"""The picture that the Dagster UI shows of a report: how far each column moved, beside its limit.

It is SVG and not drawn with Matplotlib, which takes a third of a second to load and makes a picture six
times as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from poleng_assets.core.monitoring.measurements import JENSEN_SHANNON, BatchFigures, Figure
from poleng_assets.core.reports.charts import short
from poleng_assets.core.reports.holdout_plots import as_markdown
from poleng_assets.study.schema import Study

SHOWN = 12
TITLE_LENGTH = 34  # characters
_WIDTH, _LEFT, _RIGHT, _ROW, _BAR = 560, 215, 50, 22, 14  # pixels
_ALERT, _QUIET, _LIMIT, _WORDS = "#c2410c", "#64748b", "#0f172a", "#334155"


def distance_picture(study: Study, figures: BatchFigures) -> str:
    """Return Markdown that holds a picture of the columns that moved most in the measure of their limits.

    Args:
        study: titles of the columns.
        figures: of the batch.

    Returns:
        An image with its bytes in its address, so that nothing is fetched to show it; words when nothing was
        compared.
    """
    shown = sorted(
        (one for one in figures.figures if one.method == JENSEN_SHANNON and one.value is not None),
        key=lambda one: -(one.value or 0.0) / (one.upper_threshold or 1.0),
    )[:SHOWN]
    if not shown:
        return "No column was compared."
    titles = {feature.name: feature.title for feature in study.features}
    svg = _drawn(shown, [titles.get(one.column_name, f"{one.column_name} of the model") for one in shown])
    return (
        f"{as_markdown('How far each column moved', svg, 'svg+xml')}\n\nJensen-Shannon distance from people "
        "of their kind in the reference; the upright line is the limit of what chance does."
    )


def _drawn(shown: Sequence[Figure], titles: Sequence[str]) -> bytes:
    """Return one bar for each figure, the first on top."""
    height = _ROW * len(shown) + 8
    size = {"width": str(_WIDTH), "height": str(height)}
    picture = ElementTree.Element("svg", size, xmlns="http://www.w3.org/2000/svg")
    # The UI may be dark, and dark words stand on this.
    ElementTree.SubElement(picture, "rect", size, fill="#ffffff")
    longest = max(max(one.value or 0.0, one.upper_threshold or 0.0) for one in shown) or 1.0
    pixels = (_WIDTH - _LEFT - _RIGHT) / longest
    for row, (one, title) in enumerate(zip(shown, titles, strict=True)):
        top = 4 + row * _ROW
        value = one.value or 0.0
        _words(picture, _LEFT - 8, top, short(title, TITLE_LENGTH), "end")
        ElementTree.SubElement(
            picture,
            "rect",
            x=str(_LEFT),
            y=str(top + (_ROW - _BAR) // 2),
            width=f"{pixels * value:.1f}",
            height=str(_BAR),
            fill=_ALERT if one.alert else _QUIET,
        )
        if one.upper_threshold is not None:
            place = f"{_LEFT + pixels * one.upper_threshold:.1f}"
            line = {"x1": place, "x2": place, "y1": str(top + 1), "y2": str(top + _ROW - 1)}
            ElementTree.SubElement(picture, "line", line | {"stroke": _LIMIT, "stroke-width": "2"})
        _words(picture, _WIDTH - _RIGHT + 6, top, f"{value:.3f}", "start")
    return ElementTree.tostring(picture)


def _words(picture: ElementTree.Element, x: int, top: int, words: str, anchor: str) -> None:
    look = {"font-family": "sans-serif", "font-size": "12", "fill": _WORDS, "text-anchor": anchor}
    ElementTree.SubElement(picture, "text", look, x=str(x), y=str(top + _ROW // 2 + 4)).text = words
