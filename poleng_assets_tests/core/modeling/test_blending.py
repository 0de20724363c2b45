"""Blending: the weights with the lowest log-loss, and only members that help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import expit

from poleng_assets.core.modeling.blending import blend_weights, choose_blend, cross_fitted


def loss(log_odds: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, log_odds) - target * log_odds))


@dataclass(frozen=True)
class Guesses:
    """Log-odds of three candidates that each know a part of the truth, and of one that knows nothing."""

    raw: np.ndarray
    target: np.ndarray
    fold: np.ndarray


@pytest.fixture(scope="module")
def guesses() -> Iterator[Guesses]:
    random = np.random.default_rng(9)
    truth = random.normal(0, 1.2, (1_500, 2))
    target = (random.random(1_500) < expit(truth.sum(axis=1))).astype(float)
    raw = np.column_stack(
        [
            truth.sum(axis=1) + random.normal(0, 0.8, 1_500),
            truth.sum(axis=1) + random.normal(0, 0.9, 1_500),
            1.5 * truth[:, 0],
            random.normal(0, 1, 1_500),
        ]
    )
    yield Guesses(raw, target, np.arange(1_500) % 3)


@pytest.mark.parametrize("columns", [(0, 1), (0, 2), (2, 3), (1, 3), (3, 0)])
def test_the_weights_of_two_are_those_that_a_grid_search_finds(guesses: Guesses, columns: tuple[int, int]):
    raw = guesses.raw[:, list(columns)]
    grid = np.linspace(0, 1, 1_001)
    losses = [loss(raw @ [weight, 1 - weight], guesses.target) for weight in grid]
    weights = blend_weights(raw, guesses.target)
    assert weights[0] == pytest.approx(grid[np.argmin(losses)], abs=0.01)
    assert loss(raw @ weights, guesses.target) <= min(losses) + 1e-6


def test_the_weights_of_three_are_those_that_a_grid_search_finds(guesses: Guesses):
    raw = guesses.raw[:, :3]
    grid = np.linspace(0, 1, 41)
    losses = [loss(raw @ [a, b, 1 - a - b], guesses.target) for a in grid for b in grid if a + b <= 1 + 1e-9]
    assert loss(raw @ blend_weights(raw, guesses.target), guesses.target) <= min(losses) + 1e-6


def test_weights_are_shares(guesses: Guesses):
    weights = blend_weights(guesses.raw, guesses.target)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert blend_weights(guesses.raw[:, :1], guesses.target).tolist() == [1.0]


def test_the_same_guesses_give_the_same_weights_digit_for_digit(guesses: Guesses):
    found = {tuple(blend_weights(guesses.raw.copy(), guesses.target)) for _ in range(20)}
    assert len(found) == 1
    # SLSQP itself differs in the last digits from run to run: no weight may say as much.
    weights = np.array(found.pop())
    np.testing.assert_allclose(weights, weights.round(4), atol=1e-12)


def test_a_blend_is_never_worse_than_its_best_member(guesses: Guesses):
    best = min(loss(one, guesses.target) for one in guesses.raw.T)
    assert loss(guesses.raw @ blend_weights(guesses.raw, guesses.target), guesses.target) <= best + 1e-7


def test_what_helps_is_blended_and_what_knows_nothing_is_not(guesses: Guesses):
    chosen = choose_blend(guesses.raw, guesses.target, guesses.fold, at_most=4, min_gain=0.0003)
    assert chosen[0] == 0
    assert 1 in chosen
    assert 3 not in chosen


def test_nothing_is_added_when_the_gain_is_small(guesses: Guesses):
    alone = loss(guesses.raw[:, 0], guesses.target)
    both = loss(cross_fitted(guesses.raw[:, [0, 1]], guesses.target, guesses.fold), guesses.target)
    other = loss(cross_fitted(guesses.raw[:, [0, 2]], guesses.target, guesses.fold), guesses.target)
    gain = alone - min(both, other)
    assert gain > 0
    for least, count in ((gain * 1.001, 1), (gain * 0.999, 2)):
        chosen = choose_blend(guesses.raw[:, :3], guesses.target, guesses.fold, at_most=2, min_gain=least)
        assert len(chosen) == count


def test_a_copy_of_the_best_adds_nothing(guesses: Guesses):
    twins = guesses.raw[:, [0, 0]]
    assert choose_blend(twins, guesses.target, guesses.fold, at_most=3, min_gain=1e-9) == [0]


def test_one_candidate_is_blended_with_nothing(guesses: Guesses):
    assert choose_blend(guesses.raw[:, :1], guesses.target, guesses.fold, at_most=3, min_gain=-1.0) == [0]


def test_no_more_than_asked_for_are_chosen(guesses: Guesses):
    for most in (1, 2, 4):
        chosen = choose_blend(guesses.raw, guesses.target, guesses.fold, at_most=most, min_gain=-1.0)
        assert len(chosen) == most


def test_cross_fitted_weights_come_from_other_folds_only(guesses: Guesses):
    pair = guesses.raw[:, [0, 2]]
    before = cross_fitted(pair, guesses.target, guesses.fold)
    for one in range(3):
        inside = guesses.fold == one
        weights = blend_weights(pair[~inside], guesses.target[~inside])
        np.testing.assert_array_equal(before[inside], pair[inside] @ weights)
        # Whatever a fold's own targets are, its blend does not know them.
        lied = np.where(inside, 1 - guesses.target, guesses.target)
        after = cross_fitted(pair, lied, guesses.fold)
        np.testing.assert_array_equal(after[inside], before[inside])
        assert np.abs(after[~inside] - before[~inside]).max() > 0.01
