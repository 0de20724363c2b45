"""The picture of a report's metadata: what moved most stands on top, with its limit."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from poleng_assets.core.monitoring.measurements import (
    JENSEN_SHANNON,
    L_INFINITY,
    SCORE,
    BatchMeasurements,
    DriftMetric,
)
from poleng_assets.core.reports.drift_charts import DISTANCES_SHOWN, distance_picture
from poleng_assets.study.schema import Study

SVG = "{http://www.w3.org/2000/svg}"


def measured(*found: DriftMetric) -> BatchMeasurements:
    return BatchMeasurements(500, 500, 0.0, 0.3, metrics=found)


def moved(column: str, value: float | None, limit: float = 0.1) -> DriftMetric:
    return DriftMetric.compared(column, JENSEN_SHANNON, value, limit)


def picture(study: Study, *found: DriftMetric) -> ElementTree.Element:
    held = re.search(
        r"!\[[^]]+\]\(data:image/svg\+xml;base64,([^)]+)\)", distance_picture(study, measured(*found))
    )
    assert held
    return ElementTree.fromstring(base64.b64decode(held[1]))


def words(svg: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in svg.iter(f"{SVG}text")]


def bars(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return [rect for rect in svg.iter(f"{SVG}rect") if rect.get("class")]


def limits(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return [line for line in svg.iter(f"{SVG}line") if line.get("class") == "limit"]


def percent(element: ElementTree.Element, name: str) -> float:
    return float((element.get(name) or "").removesuffix("%"))


def test_what_lies_farthest_beyond_its_limit_stands_on_top_and_looks_otherwise(study: Study):
    first, second = study.features[0], study.features[1]
    svg = picture(study, moved(first.name, 0.08), moved(second.name, 0.06, limit=0.02))
    assert words(svg) == [f"{second.title} 0.060", f"{first.title} 0.080"]
    alert, quiet = bars(svg)
    assert (alert.get("class"), quiet.get("class")) == ("here", "there")
    assert percent(alert, "width") / percent(quiet, "width") == pytest.approx(0.75)  # lengths are distances
    assert len(limits(svg)) == 2


def test_no_bar_or_limit_lies_beyond_the_picture(study: Study):
    svg = picture(study, moved(study.features[0].name, 0.9), moved(SCORE, 0.0, limit=1.0))
    assert (
        max([*(percent(bar, "width") for bar in bars(svg)), *(percent(x, "x1") for x in limits(svg))]) == 100
    )


def test_the_score_is_told_from_the_questions(study: Study):
    assert f"{SCORE} of the model 0.200" in words(picture(study, moved(SCORE, 0.2)))


def test_titles_with_signs_of_markup_are_words(study: Study):
    named = study.features[0].model_copy(update={"title": '<b>"R&D"</b>'})
    other = study.model_copy(update={"features": [named, *study.features[1:]]})
    assert '<b>"R&D"</b> 0.200' in words(picture(other, moved(named.name, 0.2)))


def test_of_many_columns_the_first_are_shown(study: Study):
    found = [moved(feature.name, 0.01 * place) for place, feature in enumerate(study.features)]
    svg = picture(study, *found)
    assert len(bars(svg)) == DISTANCES_SHOWN
    assert study.features[-1].title[:20] in words(svg)[0]
    assert len(distance_picture(study, measured(*found))) < 8_000


def test_other_methods_and_unknown_distances_are_not_drawn(study: Study):
    name = study.features[0].name
    known = moved(name, 0.3)
    svg = picture(study, replace(known, method=L_INFINITY), moved(study.features[1].name, None), known)
    assert len(bars(svg)) == 1
    assert distance_picture(study, measured()) == "No column was compared."
