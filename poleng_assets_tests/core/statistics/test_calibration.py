"""Calibration: what is wrong is put right, what is right is left alone, and the order of people stays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from poleng_assets.core.statistics.calibration import Calibration, calibrate, fit

ROWS = 6_000
FOLD = np.arange(ROWS) % 3


@pytest.fixture(scope="module")
def true() -> np.ndarray:
    """Log-odds that are true."""
    return np.random.default_rng(1).normal(-1, 1.5, ROWS)


@pytest.fixture(scope="module")
def target(true: np.ndarray) -> np.ndarray:
    return (np.random.default_rng(2).random(ROWS) < expit(true)).astype(float)


def loss(log_odds: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, log_odds) - target * log_odds))


def test_no_calibration_changes_nothing(true: np.ndarray):
    np.testing.assert_array_equal(Calibration().log_odds(true), true)
    np.testing.assert_allclose(Calibration().probability(true), 1 / (1 + np.exp(-true)))


def test_overconfident_scores_are_put_right(true: np.ndarray, target: np.ndarray):
    found, gain = calibrate(2 * true + 1, target, FOLD, min_gain=0.0002)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.intercept == pytest.approx(-0.5, abs=0.1)
    assert gain == pytest.approx(loss(2 * true + 1, target) - loss(true, target), rel=0.1)
    assert found.probability(2 * true + 1).mean() == pytest.approx(target.mean(), abs=1e-4)


def test_the_line_is_the_one_with_the_lowest_log_loss(true: np.ndarray, target: np.ndarray):
    raw = 0.3 * true - 2
    found, _ = calibrate(raw, target, FOLD, min_gain=0.0)
    best = minimize(lambda line: loss(line[0] * raw + line[1], target), [1.0, 0.0], tol=1e-10)
    assert loss(found.log_odds(raw), target) == pytest.approx(best.fun, abs=1e-7)


def test_a_fit_is_the_line_with_the_lowest_log_loss(true: np.ndarray, target: np.ndarray):
    raw = 0.3 * true - 2
    best = minimize(lambda line: loss(line[0] * raw + line[1], target), [1.0, 0.0], tol=1e-10)
    assert loss(fit(raw, target).log_odds(raw), target) == pytest.approx(best.fun, abs=1e-7)


def test_a_fit_of_true_scores_changes_next_to_nothing(true: np.ndarray, target: np.ndarray):
    found = fit(true, target)
    assert (found.slope, found.intercept) == pytest.approx((1, 0), abs=0.1)


def test_people_who_weigh_more_count_as_more_people(true: np.ndarray, target: np.ndarray):
    times = np.random.default_rng(3).integers(0, 4, ROWS)
    weighed, repeated = fit(true, target, times), fit(np.repeat(true, times), np.repeat(target, times))
    assert weighed.slope == pytest.approx(repeated.slope, abs=1e-3)
    assert weighed.intercept == pytest.approx(repeated.intercept, abs=1e-3)


def test_people_without_weight_have_no_say(true: np.ndarray, target: np.ndarray):
    half = np.arange(ROWS) % 2
    turned = np.where(half == 0, 1 - target, target)
    found, own = fit(true, turned, half.astype(float)), fit(true[half == 1], target[half == 1])
    assert found.slope == pytest.approx(own.slope, abs=1e-3)
    assert found.intercept == pytest.approx(own.intercept, abs=1e-3)


def test_equal_weights_are_none(true: np.ndarray, target: np.ndarray):
    weighed, plain = fit(true, target, np.full(ROWS, 1.0)), fit(true, target)
    assert (weighed.slope, weighed.intercept) == pytest.approx((plain.slope, plain.intercept), abs=1e-4)


def test_true_scores_are_left_as_they_are(true: np.ndarray, target: np.ndarray):
    found, gain = calibrate(true, target, FOLD, min_gain=0.0002)
    assert found == Calibration()
    assert -0.002 < gain < 0.0002


def test_a_gain_below_the_least_that_counts_changes_nothing(true: np.ndarray, target: np.ndarray):
    _, gain = calibrate(1.2 * true, target, FOLD, min_gain=0.0)
    assert gain > 0
    assert calibrate(1.2 * true, target, FOLD, min_gain=gain * 1.01) == (Calibration(), gain)
    assert calibrate(1.2 * true, target, FOLD, min_gain=gain * 0.99)[0] != Calibration()


def test_the_gain_is_measured_on_folds_that_the_line_was_not_fitted_on(true: np.ndarray, target: np.ndarray):
    few, known, fold = 1.5 * true[:150], target[:150], FOLD[:150]

    def best_line(inside: np.ndarray) -> np.ndarray:
        found = minimize(lambda line: loss(line[0] * few[inside] + line[1], known[inside]), [1.0, 0.0])
        return found.x

    lines = np.array([best_line(fold != one) for one in range(3)])[fold]
    _, gain = calibrate(few, known, fold, min_gain=0.0)
    by_hand = loss(few, known) - loss(lines[:, 0] * few + lines[:, 1], known)
    assert gain == pytest.approx(by_hand, abs=1e-4)
    slope, intercept = best_line(fold >= 0)
    assert gain < loss(few, known) - loss(slope * few + intercept, known) - 1e-3


@pytest.mark.parametrize("line", [Calibration(0.4, -2), Calibration(3, 1)])
def test_the_order_of_people_stays(true: np.ndarray, line: Calibration):
    few = true[:500]
    np.testing.assert_array_equal(np.argsort(line.probability(few)), np.argsort(few))


def test_extreme_log_odds_give_probabilities():
    found = Calibration(2.0, 1.0).probability(np.array([-1e6, 0.0, 1e6]))
    assert (found[0], found[2]) == (0.0, 1.0)
    assert 0 < found[1] < 1


def test_the_same_rows_give_the_same_calibration(true: np.ndarray, target: np.ndarray):
    assert calibrate(2 * true, target, FOLD, 0.0) == calibrate(2 * true, target, FOLD, 0.0)


def test_a_calibration_says_in_words_what_it_does():
    assert Calibration().in_words().startswith("none")
    assert Calibration(0.912, -0.05).in_words().startswith("log-odds times 0.912, -0.050")
