"""The picture: each figure that has a bar, over the runs of the history."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tools.bench.rows import Bar, in_unit

COLUMNS = 3
RUNS_SHOWN = 20
GOOD, BAD, LINE = "#0f766e", "#c2410c", "#334155"


def draw(series: Mapping[str, Sequence[tuple[str, dict[str, Any]]]], title: str, path: Path) -> None:
    """Draw one panel for each figure: a point for each run, the bar dashed.

    Args:
        series: of ``history.py``; empty draws nothing.
        title: of the picture.
        path: of the PNG, which is written whole.
    """
    if not series:
        return
    lines = -(-len(series) // COLUMNS)
    canvas = Figure(figsize=(4.6 * COLUMNS, 2.7 * lines + 0.6), layout="constrained")
    canvas.suptitle(title, fontsize=11)
    panels = canvas.subplots(lines, COLUMNS, squeeze=False).flatten()
    for panel, runs in zip(panels, series.values(), strict=False):
        shown = runs[-RUNS_SHOWN:]
        newest = shown[-1][1]
        bar = Bar(**newest["bar"])
        figures = [row["figure"] for _, row in shown]
        panel.plot(range(len(shown)), figures, color=LINE, linewidth=1, zorder=1)
        colours = [{True: GOOD, False: BAD, None: "#94a3b8"}[row["met"]] for _, row in shown]
        panel.scatter(range(len(shown)), figures, color=colours, s=28, zorder=2)
        panel.axhline(bar.value, color=LINE, linestyle="--", linewidth=1)
        panel.annotate(
            bar.in_words(),
            (0.99, bar.value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
        )
        panel.set_ylim(0, 1.25 * max(*figures, bar.value))
        panel.yaxis.set_major_formatter(FuncFormatter(partial(_tick, bar.unit)))
        panel.tick_params(axis="y", labelsize=7)
        panel.set_xticks(range(len(shown)), [commit for commit, _ in shown], rotation=60, fontsize=6)
        panel.set_title("\n".join(textwrap.wrap(newest["what"], 52)), fontsize=8)
    for panel in panels[len(series) :]:
        panel.set_axis_off()
    part = path.with_name(f".{path.name}.part")
    canvas.savefig(part, format="png", dpi=110)
    part.replace(path)


def _tick(unit: str, value: float, position: int) -> str:
    return in_unit(value, unit)
