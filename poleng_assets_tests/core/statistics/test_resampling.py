"""Resampling: intervals hold their values, are as wide as theory says, and are the same every time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from poleng_assets.core.statistics.metrics import (
    evaluate,
    score_metrics,
)
from poleng_assets.core.statistics.resampling import bootstrap_intervals, resampled_means

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]

TARGET = np.array([0, 0, 1, 1])
SCORE = np.array([0.1, 0.4, 0.35, 0.8])


def draw(rows: int, seed: int = 3) -> Rows:
    """Return targets, true probabilities and contacts."""
    random = np.random.default_rng(seed)
    score = random.random(rows)
    return (random.random(rows) < score).astype(int), score, score >= 0.5


@pytest.fixture(scope="module")
def many() -> Rows:
    return draw(400)


def test_an_interval_contains_its_value(many: Rows):
    values, intervals = evaluate(*many), bootstrap_intervals(*many)
    outside = {name for name, (low, high) in intervals.items() if not low <= values[name] <= high}
    assert (set(intervals), outside) == (set(values), set())


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_of_the_calibration_error_lies_around_it(seed: int):
    target, score, contact = draw(2_000, seed)
    low, high = bootstrap_intervals(target, score, contact, repeats=40)["calibration_error"]
    value = score_metrics(target, score)["calibration_error"]
    assert 0 <= low < value < high
    assert high - low < 0.05


def test_an_interval_is_as_wide_as_theory_says(many: Rows):
    low, high = bootstrap_intervals(*many, repeats=600)["target_rate"]
    rate = many[0].mean()
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(rate * (1 - rate) / 400), rel=0.1)


def test_more_people_give_a_narrower_interval(many: Rows):
    target, score, contact = many
    few = bootstrap_intervals(target[:50], score[:50], contact[:50])
    all_of_them = bootstrap_intervals(*many)
    for name in ("auc", "recall", "brier"):
        widths = [interval[1] - interval[0] for interval in (all_of_them[name], few[name])]
        assert widths[0] < widths[1], name


def test_an_interval_is_the_same_every_time(many: Rows):
    first, again, other = (bootstrap_intervals(*many, repeats=20, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_the_three_columns_are_drawn_together():
    # Drawn apart, perfect scores and contacts would not stay perfect.
    target = np.array([0, 1] * 50)
    intervals = bootstrap_intervals(target, target.astype(float), target == 1)
    assert [intervals[name] for name in ("auc", "recall", "precision")] == [(1.0, 1.0)] * 3


def test_one_class_only_has_intervals_without_a_ranking():
    score = np.linspace(0.1, 0.9, 20)
    intervals = bootstrap_intervals(np.ones(20), score, score > 0.5, repeats=10)
    assert intervals.keys().isdisjoint({"auc", "average_precision", "lift_at_10"})
    assert intervals["log_loss"][0] < intervals["log_loss"][1]


def test_resamples_that_happen_to_have_one_class_are_left_out_of_the_ranking():
    target, score = np.array([1, *[0] * 29]), np.linspace(0.9, 0.1, 30)
    low, high = bootstrap_intervals(target, score, score > 0.5)["auc"]
    assert (low, high) == (pytest.approx(1.0), pytest.approx(1.0))


@pytest.mark.timed
def test_a_holdout_of_seven_thousand_is_resampled_in_seconds():
    started = time.perf_counter()
    bootstrap_intervals(*draw(7_000))
    # Measured 0.9 s; the limit leaves room for a busy machine.
    assert time.perf_counter() - started < 6


def test_resampled_means_spread_like_the_standard_error_of_a_mean():
    values = np.random.default_rng(7).normal(3, 2, 1_000)
    means = resampled_means(values, np.column_stack([np.full(1_000, True), np.arange(1_000) < 250]), 800, 5)
    assert means.shape == (800, 2)
    assert means.mean(axis=0) == pytest.approx([values.mean(), values[:250].mean()], abs=0.02)
    assert means.std(axis=0) == pytest.approx(
        [values.std() / 1_000**0.5, values[:250].std() / 250**0.5], rel=0.1
    )


def test_a_resample_without_a_row_of_a_part_says_nothing_about_it():
    means = resampled_means(np.array([1.0, 2.0]), np.array([[True], [False]]), 200, 5)
    assert set(means[~np.isnan(means)]) == {1.0}
    assert 20 < np.isnan(means).sum() < 90
