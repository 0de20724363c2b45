"""Places on a chart: in percent, between round ends, whatever the values are."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest

from poleng_assets.core.reports.charts import Chart, Line, Mark, Scale, Tick, as_markdown, as_svg, short
from poleng_assets.core.reports.pages import template
from poleng_assets_tests.core.reports.pages import Page


@pytest.mark.parametrize(
    "values", [[0.7, 0.8], [0.71234], [0.0], [-3, 1_000_000], [0.5, 0.5000001], [0.0, 1.0]]
)
def test_every_value_has_a_place_between_the_ends(values: list[float]):
    scale = Scale.of(values)
    assert scale.low < scale.high
    assert all(-1e-6 <= scale.percent(value) <= 100 + 1e-6 for value in values)
    assert (scale.percent(scale.low), scale.percent(scale.high)) == (0, 100)


def test_the_steps_are_round_and_reach_from_end_to_end():
    scale = Scale.of([0.695, 0.812])
    assert scale.steps == pytest.approx((0.65, 0.7, 0.75, 0.8, 0.85))
    assert (scale.low, scale.high) == (scale.steps[0], scale.steps[-1])


def test_a_label_that_is_too_long_is_cut_where_it_says_so():
    assert short("a" * 50, 10) == "a" * 9 + "…"
    assert short("as it is", 10) == "as it is"


def test_a_chart_is_drawn_with_its_words_and_without_markup_from_them():
    hostile = "<b onclick=x>"
    chart = Chart(
        hostile,
        10,
        (Tick(50, hostile),),
        (Tick(10, hostile),),
        marks=(Mark("ring", 10, 20, "alarm", hostile),),
    )
    drawn = str(template("_charts.html").module.chart(chart))  # type: ignore[attr-defined]
    page = Page(drawn)
    assert page.open == []
    assert "b" not in {tag for tag, _ in page.tags}
    assert page.words.count(hostile) == 3
    assert [a["aria-label"] for _, a in page.tags if a.get("role") == "img"] == [hostile]
    assert [(a["x"], a["y"], a["href"]) for tag, a in page.tags if tag == "use"] == [
        ("10.00%", "20.00%", "#ring")
    ]


def test_an_image_has_the_same_words_and_curves_and_fetches_nothing():
    hostile = '<b onclick="x">&'
    chart = Chart(
        "says",
        10,
        (Tick(50, hostile),),
        (Tick(10, "across"),),
        lines=(Line(((0, 100), (100, 0)), "here"),),
        key=(("dash", "here", "a curve"),),
        x_title="to the right",
        y_title="upwards",
    )
    svg = ElementTree.fromstring(as_svg(chart))
    words = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["a curve", "upwards", hostile, "across", "to the right"]
    (curve,) = svg.iter("{http://www.w3.org/2000/svg}polyline")
    assert (curve.get("points") or "").split() == ["0.00,100.00", "100.00,0.00"]
    assert b"url(" not in as_svg(chart)
    assert as_svg(chart) == as_svg(chart)


def test_markdown_holds_the_image_and_its_title():
    chart = Chart("says", 10)
    found = re.fullmatch(
        r"\*\*What counts\*\*\n\n!\[What counts\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)",
        as_markdown("What counts", chart),
    )
    assert found is not None
    assert base64.b64decode(found[1]) == as_svg(chart)


def test_brackets_do_not_end_a_title_early():
    assert "![a \\[b\\](c)](data:" in as_markdown("a [b](c)", Chart("says", 10))
