"""The drift report: one self-contained page, verdict and reasons in words first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from poleng_assets.core.codes import to_codes, to_table
from poleng_assets.core.drift import JENSEN_SHANNON, MISSING, SCORE, BatchFigures
from poleng_assets.core.overseer import Judgement
from poleng_assets.study import Feature, Study

MEANINGS = {
    "clear": "The model fits this batch. Its contact list is made at once.",
    "drifted": "The batch is not like the data the model knows, and the model is expected to do worse on "
    "it. The contact list is held until a better model has been tried.",
    "untrusted": "The batch lies outside what the model has ever seen, so no estimate about it can be "
    "believed. The contact list is held until a better model has been tried.",
    "insufficient": "The batch is too small to be judged. It is scored, and its contact list made, like "
    "a clear one.",
}
DISTRIBUTIONS_SHOWN = 6


@dataclass(frozen=True)
class Bar:
    """One answer: its words, and the share of people who gave it, in the reference and in the batch."""

    label: str
    reference: float
    batch: float


@dataclass(frozen=True)
class Distribution:
    """The answers to one question side by side."""

    title: str
    distance: float | None
    bars: list[Bar]


def render_report(
    study: Study,
    batch: str,
    version: int,
    figures: BatchFigures,
    judgement: Judgement,
    reference: pd.DataFrame,
    scored: pd.DataFrame,
) -> str:
    """Return the report as HTML that opens offline: no script, no font, no picture from elsewhere.

    Args:
        study: titles and labels.
        batch: id of the batch.
        version: of the model that scored it.
        figures: what was measured.
        judgement: what the overseer made of it.
        reference: held-out rows with features and ``score``.
        scored: the measured rows of the batch, with features and ``score``.
    """
    import jinja2

    titles = {f.name: f.title for f in study.features} | {SCORE: "Score of the model"}
    distances = sorted(
        (f for f in figures.figures if f.method == JENSEN_SHANNON),
        key=lambda f: -(2.0 if f.value is None else f.value),
    )
    templates = jinja2.Environment(loader=jinja2.PackageLoader("poleng_assets"), autoescape=True)
    return templates.get_template("drift_report.html").render(
        study=study,
        batch=batch,
        version=version,
        figures=figures,
        judgement=judgement,
        meaning=MEANINGS[judgement.verdict],
        titles=titles,
        distances=distances,
        missing=[f for f in figures.figures if f.method == MISSING and (f.alert or f.value)],
        distributions=[
            _distribution(study.feature(f.column_name), f.value, reference, scored)
            for f in distances
            if f.column_name != SCORE
        ][:DISTRIBUTIONS_SHOWN],
        scores=_score_distribution(reference, scored),
        made_at=datetime.now(UTC),
    )


def _distribution(
    feature: Feature, distance: float | None, reference: pd.DataFrame, scored: pd.DataFrame
) -> Distribution:
    """Count the answers to one question; the codes most different between the two come first."""
    there, here = (_shares(rows, feature.name) for rows in (reference, scored))
    bars = [
        Bar(
            feature.label(code) or "no answer",
            float(there.get(code, 0.0)),
            float(here.get(code, 0.0)),
        )
        for code in sorted(set(there) | set(here), key=lambda code: (code is None, code))
    ]
    bars.sort(key=lambda bar: -abs(bar.reference - bar.batch))
    return Distribution(feature.title, distance, bars[:10])


def _shares(rows: pd.DataFrame, name: str) -> dict[int | None, float]:
    codes, _ = to_codes(to_table(rows[[name]])[name])
    counted = Counter(codes.to_pylist())
    return {code: count / len(rows) for code, count in counted.items()}


def _score_distribution(reference: pd.DataFrame, scored: pd.DataFrame) -> list[Bar]:
    edges = [i / 10 for i in range(11)]
    there, here = (
        pd.cut(rows[SCORE], edges, include_lowest=True).value_counts(normalize=True, sort=False)
        for rows in (reference, scored)
    )
    return [
        Bar(f"{low:.1f} to {low + 0.1:.1f}", float(a), float(b))
        for low, a, b in zip(edges, there.fillna(0), here.fillna(0), strict=False)
    ]
