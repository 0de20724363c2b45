"""Figures of merit, held against values worked out by hand."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from poleng_assets.core.evaluation import bootstrap_intervals, decision_metrics, evaluate, score_metrics

TARGET = np.array([0, 0, 1, 1])
SCORE = np.array([0.1, 0.4, 0.35, 0.8])


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    score = random.random(400)
    return (random.random(400) < score).astype(int), score


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("auc", 3 / 4),  # of four pairs one is the wrong way round
        ("average_precision", (1 / 1 + 2 / 3) / 2),
        ("log_loss", -(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4),
        ("brier", (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4),
        ("rmse", math.sqrt((0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4)),
    ],
)
def test_a_figure_of_scores_is_what_it_is_by_hand(name: str, by_hand: float):
    assert score_metrics(TARGET, SCORE)[name] == pytest.approx(by_hand)


def test_figures_of_decisions_are_what_they_are_by_hand():
    target = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    contact = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    assert decision_metrics(target, contact) == pytest.approx(
        {
            "accuracy": 0.8,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "flagged_share": 0.3,
            "target_rate": 0.3,
            "true_negatives": 6,
            "false_positives": 1,
            "false_negatives": 1,
            "true_positives": 2,
        }
    )


def test_precision_and_recall_are_not_mixed_up():
    figures = decision_metrics(np.array([1, 1, 1, 1]), np.array([True, False, False, False]))
    assert (figures["precision"], figures["recall"]) == (1.0, 0.25)


@pytest.mark.parametrize("only", [0, 1])
def test_with_one_class_only_there_is_no_ranking_to_speak_of(only: int):
    figures = score_metrics(np.full(4, only), SCORE)
    assert set(figures) == {"log_loss", "rmse", "brier"}


def test_log_loss_of_one_class_is_still_right():
    assert score_metrics(np.ones(1), np.array([0.25]))["log_loss"] == pytest.approx(-math.log(0.25))


def test_precision_of_no_contacts_is_zero():
    assert decision_metrics(TARGET, np.zeros(4, dtype=bool))["precision"] == 0.0


def test_a_score_that_reaches_the_threshold_is_a_contact():
    assert evaluate(TARGET, SCORE, threshold=0.35)["flagged_share"] == 0.75
    assert evaluate(TARGET, SCORE, threshold=0.351)["flagged_share"] == 0.5


def test_evaluation_has_figures_of_scores_and_of_decisions():
    figures = evaluate(TARGET, SCORE, threshold=0.5)
    expected = score_metrics(TARGET, SCORE) | decision_metrics(TARGET, SCORE >= 0.5)
    assert figures == expected


# Intervals


def test_an_interval_contains_its_value(many: tuple[np.ndarray, np.ndarray]):
    measure = partial(evaluate, threshold=0.5)
    values = measure(*many)
    intervals = bootstrap_intervals(*many, measure)
    outside = {name for name, (low, high) in intervals.items() if not low <= values[name] <= high}
    assert (set(intervals), outside) == (set(values), set())


def test_an_interval_is_as_wide_as_theory_says(many: tuple[np.ndarray, np.ndarray]):
    low, high = bootstrap_intervals(*many, lambda target, _: {"rate": float(target.mean())}, repeats=1_000)[
        "rate"
    ]
    rate = many[0].mean()
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(rate * (1 - rate) / 400), rel=0.1)


def test_more_people_give_a_narrower_interval(many: tuple[np.ndarray, np.ndarray]):
    target, score = many
    few = bootstrap_intervals(target[:50], score[:50], score_metrics)["auc"]
    all_of_them = bootstrap_intervals(target, score, score_metrics)["auc"]
    assert all_of_them[1] - all_of_them[0] < few[1] - few[0]


def test_an_interval_is_the_same_every_time(many: tuple[np.ndarray, np.ndarray]):
    first, again, other = (bootstrap_intervals(*many, score_metrics, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_score_and_target_are_drawn_together():
    # Drawn apart, perfect scores would not stay perfect.
    target = np.array([0, 1] * 50)
    assert bootstrap_intervals(target, target.astype(float), score_metrics)["auc"] == (1.0, 1.0)


def test_one_class_only_has_intervals_without_a_ranking():
    intervals = bootstrap_intervals(np.ones(20), np.linspace(0.1, 0.9, 20), score_metrics, repeats=10)
    assert "auc" not in intervals
    assert intervals["log_loss"][0] < intervals["log_loss"][1]


def test_resamples_that_happen_to_have_one_class_are_left_out_of_the_ranking():
    target = np.array([1, *[0] * 29])
    low, high = bootstrap_intervals(target, np.linspace(0.9, 0.1, 30), score_metrics)["auc"]
    assert (low, high) == (pytest.approx(1.0), pytest.approx(1.0))
