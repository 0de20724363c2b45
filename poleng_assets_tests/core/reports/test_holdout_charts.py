"""Charts of a holdout: they show what they are given, in its place, and are small."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from poleng_assets.core.reports.charts import Chart, as_markdown, as_svg
from poleng_assets.core.reports.holdout_charts import (
    BARS_SHOWN,
    CAPTIONS,
    CURVE_POINTS,
    _expected_hits,
    holdout_charts,
    importance_chart,
)

VIEWS = ["ROC", "Precision and recall", "Calibration", "Cumulative gains", "Scores by class"]


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return (np.random.default_rng(1).random(7_000) < 0.4).astype(int)


@pytest.fixture(scope="module")
def score(target: np.ndarray) -> np.ndarray:
    return np.clip(np.random.default_rng(2).normal(0.3 + 0.3 * target, 0.15), 0, 1)


@pytest.fixture(scope="module")
def charts(target: np.ndarray, score: np.ndarray) -> dict[str, Chart]:
    return holdout_charts(target, score)


def names(chart: Chart) -> list[str]:
    return [words for _, _, words in chart.key]


def test_every_view_is_a_chart_of_its_own_with_a_caption(charts: dict[str, Chart]):
    assert list(charts) == VIEWS == list(CAPTIONS)
    assert len({chart.says for chart in charts.values()}) == len(VIEWS)


def test_charts_are_small_enough_for_the_metadata_of_a_run(charts: dict[str, Chart]):
    assert sum(len(as_markdown("view", chart)) for chart in charts.values()) < 60_000


def test_a_chart_is_the_same_every_time(target: np.ndarray, score: np.ndarray, charts: dict[str, Chart]):
    assert holdout_charts(target, score) == charts


def test_another_model_makes_another_chart(target: np.ndarray, score: np.ndarray, charts: dict[str, Chart]):
    other = holdout_charts(target, score[::-1])
    assert [title for title in VIEWS if other[title] == charts[title]] == []


def test_every_line_lies_within_its_chart_and_rises_from_corner_to_corner(charts: dict[str, Chart]):
    for title, chart in charts.items():
        assert all(0 <= x <= 100 and 0 <= y <= 100 for line in chart.lines for x, y in line.places), title
    for title in ("ROC", "Cumulative gains"):
        places = charts[title].lines[0].places
        assert (places[0], places[-1]) == ((0, 100), (100, 0))
        assert all(x1 <= x2 and y1 >= y2 for (x1, y1), (x2, y2) in pairwise(places))
        assert len(places) <= CURVE_POINTS


def test_the_area_under_the_drawn_curve_is_the_auc(
    target: np.ndarray, score: np.ndarray, charts: dict[str, Chart]
):
    x, y = np.array(charts["ROC"].lines[0].places).T / 100
    auc = roc_auc_score(target, score)
    assert np.trapezoid(1 - y, x) == pytest.approx(auc, abs=1e-3)
    assert names(charts["ROC"]) == [f"this model: AUC {auc:.3f}", "random"]


def test_calibration_has_a_mark_and_an_interval_for_each_tenth(target: np.ndarray, charts: dict[str, Chart]):
    chart = charts["Calibration"]
    assert len(chart.marks) == len(chart.segments) == 10
    for mark, interval in zip(chart.marks, chart.segments, strict=True):
        assert interval.y2 <= mark.y <= interval.y1
        assert interval.x1 == mark.x == interval.x2
    assert np.mean([100 - mark.y for mark in chart.marks]) == pytest.approx(100 * target.mean(), abs=0.1)


def test_the_shares_of_each_class_fill_the_histogram(charts: dict[str, Chart]):
    chart = charts["Scores by class"]
    assert names(chart) == ["target group", "the others"]
    top = float(chart.rows[-1].text)
    for line in chart.lines:
        shares = [(100 - y) / 100 * top for _, y in line.places[1:-1:2]]
        assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_charts_too_and_says_what_is_undefined(only: int):
    charts = holdout_charts(np.full(30, only), np.linspace(0, 1, 30))
    assert list(charts) == VIEWS
    undefined = {title for title, chart in charts.items() if "undefined" in chart.says}
    assert undefined == {"ROC", "Precision and recall", "Cumulative gains"}
    assert b"undefined: all people have the same class</text>" in as_svg(charts["ROC"])


def test_a_single_person_can_be_drawn():
    assert len(holdout_charts(np.array([1]), np.array([0.4]))) == len(VIEWS)


def test_scores_of_another_length_are_refused(target: np.ndarray, score: np.ndarray):
    with pytest.raises(ValueError, match="5 scores, but 7000 rows"):
        holdout_charts(target, score[:5])


def test_gains_of_perfect_scores_rise_at_once():
    found = _expected_hits(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.8]))
    assert found.tolist() == [0, 1, 2, 2, 2]


def test_gains_of_people_who_tie_are_those_of_a_lot():
    found = _expected_hits(np.array([1, 0, 0, 1]), np.full(4, 0.5))
    assert found.tolist() == [0, 0.5, 1, 1.5, 2]


# Importance


def test_as_many_bars_are_drawn_as_can_be_read():
    assert len(importance_chart([(f"question {n}", n) for n in range(BARS_SHOWN + 5)]).boxes) == BARS_SHOWN


def test_bars_are_drawn_by_size_in_whatever_order_they_come():
    chart = importance_chart([("a", 1), ("b", 3), ("c", 2)])
    assert chart == importance_chart([("c", 2), ("a", 1), ("b", 3)])
    assert [tick.text for tick in chart.rows] == ["b 3.000", "c 2.000", "a 1.000"]
    assert [box.width for box in chart.boxes] == pytest.approx([100, 200 / 3, 100 / 3])


def test_bars_of_equal_titles_are_all_drawn():
    assert len(importance_chart([("same", 1), ("same", 2)]).boxes) == 2


def test_a_long_question_leaves_room_for_its_bar():
    (label,) = importance_chart([("word " * 60, 1.0)]).rows
    assert len(label.text) < 45


def test_no_bars_are_a_chart_too():
    assert importance_chart([]).boxes == ()
