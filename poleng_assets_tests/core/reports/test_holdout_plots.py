"""Pictures: they can be opened, are small, show what they are given, and come whole in markdown."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

from poleng_assets.core.reports.holdout_plots import (
    _expected_hits,
    as_data_uri,
    as_markdown,
    holdout_panel,
    holdout_plots,
    importance_plot,
)

VIEWS = ["ROC", "Precision and recall", "Calibration", "Cumulative gains", "Scores by class"]


def size(png: bytes) -> tuple[int, int]:
    """Return width and height that the header of a PNG tells; anything else has no such header."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return (np.random.default_rng(1).random(7_000) < 0.4).astype(int)


@pytest.fixture(scope="module")
def score(target: np.ndarray) -> np.ndarray:
    return np.clip(np.random.default_rng(2).normal(0.3 + 0.3 * target, 0.15), 0, 1)


def test_every_view_is_a_picture_of_its_own(target: np.ndarray, score: np.ndarray):
    pictures = holdout_plots(target, {"version 3": score})
    assert list(pictures) == VIEWS
    assert {size(png) for png in pictures.values()} == {(448, 352)}
    assert len(set(pictures.values())) == len(VIEWS)


def test_pictures_are_small_enough_for_the_metadata_of_a_run(target: np.ndarray, score: np.ndarray):
    several = {f"model {n}": np.roll(score, n) for n in range(4)}
    panel = holdout_panel(target, several)
    assert len(as_markdown("panel", panel)) < 300_000
    assert sum(len(as_markdown("view", png)) for png in holdout_plots(target, several).values()) < 300_000


def test_the_panel_is_wide(target: np.ndarray, score: np.ndarray):
    width, height = size(holdout_panel(target, {"version 3": score}))
    assert width > 1.5 * height


def test_a_picture_is_the_same_every_time(target: np.ndarray, score: np.ndarray):
    first, again = (holdout_plots(target, {"a": score}) for _ in range(2))
    assert first == again


def test_another_model_makes_another_picture(target: np.ndarray, score: np.ndarray):
    one = holdout_plots(target, {"a": score})
    both = holdout_plots(target, {"a": score, "b": score[::-1]})
    assert [title for title in VIEWS if one[title] == both[title]] == []


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_pictures_too(only: int):
    pictures = holdout_plots(np.full(30, only), {"a": np.linspace(0, 1, 30)})
    assert list(pictures) == VIEWS
    assert all(size(png) for png in pictures.values())


def test_a_single_person_can_be_drawn():
    assert len(holdout_plots(np.array([1]), {"a": np.array([0.4])})) == len(VIEWS)


def test_scores_of_another_length_are_refused(target: np.ndarray, score: np.ndarray):
    with pytest.raises(ValueError, match="new has 5 scores, the target 7000 rows"):
        holdout_plots(target, {"old": score, "new": score[:5]})


@pytest.mark.parametrize("draw", [holdout_plots, holdout_panel])
def test_without_a_model_there_is_nothing_to_draw(draw, target: np.ndarray):
    with pytest.raises(ValueError, match="no scores"):
        draw(target, {})


def test_names_that_look_like_formulas_are_drawn_as_they_are():
    assert size(importance_plot([("costs $ or more", 1.0), (r"$\frac{", 2.0)]))
    assert len(holdout_plots(np.array([0, 1]), {r"a $\frac": np.array([0.2, 0.7])})) == len(VIEWS)


def test_gains_of_perfect_scores_rise_at_once():
    found = _expected_hits(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.8]))
    assert found.tolist() == [0, 1, 2, 2, 2]


def test_gains_of_people_who_tie_are_those_of_a_lot():
    found = _expected_hits(np.array([1, 0, 0, 1]), np.full(4, 0.5))
    assert found.tolist() == [0, 0.5, 1, 1.5, 2]


# Bars


def test_more_bars_make_a_higher_picture_up_to_twenty():
    few, many, too_many = (
        size(importance_plot([(f"question {n}", n) for n in range(count)])) for count in (3, 20, 60)
    )
    assert few[1] < many[1] == too_many[1]


def test_bars_are_drawn_by_size_in_whatever_order_they_come():
    assert importance_plot([("a", 1), ("b", 3), ("c", 2)]) == importance_plot([("c", 2), ("a", 1), ("b", 3)])


def test_bars_of_equal_titles_are_all_drawn():
    assert size(importance_plot([("same", 1), ("same", 2)]))[1] > size(importance_plot([("same", 2)]))[1]


def test_a_long_question_leaves_room_for_its_bar():
    assert size(importance_plot([("word " * 60, 1.0)]))[0] == 560


def test_no_bars_are_a_picture_too():
    assert size(importance_plot([]))


# Whole pictures in text


def test_markdown_holds_the_picture_whole():
    png = importance_plot([("a", 1.0)])
    found = re.fullmatch(
        r"!\[What counts\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", as_markdown("What counts", png)
    )
    assert found is not None
    assert base64.b64decode(found[1]) == png


def test_brackets_do_not_end_a_title_early():
    assert as_markdown("a [b](c)", b"").startswith("![a \\[b\\](c)](data:")


def test_an_address_holds_the_picture_whole():
    assert base64.b64decode(as_data_uri(b"\x89PNG").removeprefix("data:image/png;base64,")) == b"\x89PNG"


def test_drawing_needs_no_screen_and_leaves_no_global_state():
    script = (
        "import sys, numpy as np; from poleng_assets.core.reports.holdout_plots import holdout_plots;"
        "holdout_plots(np.array([0, 1]), {'a': np.array([.2, .7])});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
