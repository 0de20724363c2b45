"""Whom to contact: each rule does what it promises, held against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from poleng_assets.core.modeling.decision_rule import ContactRule, choose_rule
from poleng_assets.study.policies import ContactPolicy
from poleng_assets.study.schema import Study

ROWS = 2_000


@pytest.fixture(scope="module")
def score() -> np.ndarray:
    """Scores with ties: there are 200 different ones."""
    return np.random.default_rng(5).beta(2, 5, ROWS).round(2) * 0.98 + 0.01


@pytest.fixture(scope="module")
def target(score: np.ndarray) -> np.ndarray:
    """What the scores say: they are true probabilities."""
    return (np.random.default_rng(6).random(ROWS) < score).astype(float)


def policy(study: Study, **changes: object) -> ContactPolicy:
    return study.policies.contact.model_copy(update=changes)


def youden_index(target: np.ndarray, contact: np.ndarray) -> float:
    """Return sensitivity + specificity - 1."""
    return contact[target == 1].mean() - contact[target == 0].mean()


def test_by_default_the_threshold_is_the_studys(study: Study, target: np.ndarray, score: np.ndarray):
    assert choose_rule(policy(study, threshold=0.35), target, score) == ContactRule(0.35)


def test_a_person_on_the_threshold_is_contacted():
    assert ContactRule(0.5).decide(np.array([0.49, 0.5, 0.51])).tolist() == [False, True, True]


def test_nobody_is_contacted_among_nobody():
    assert ContactRule(0.5).decide(np.empty(0)).shape == (0,)


# Youden


@pytest.mark.parametrize("seed", range(5))
def test_youdens_rule_finds_what_brute_force_finds(study: Study, score: np.ndarray, seed: int):
    random = np.random.default_rng(seed)
    some = random.choice(score, 150)
    known = (random.random(150) < some).astype(float)
    rule = choose_rule(policy(study, rule="youden"), known, some)
    best = max(youden_index(known, some >= threshold) for threshold in some)
    assert youden_index(known, rule.decide(some)) == pytest.approx(best, abs=1e-12)
    assert best > 0


def test_youdens_threshold_is_a_finite_score_even_when_scores_are_upside_down(study: Study):
    target, score = np.array([1.0, 1, 0, 0]), np.array([0.1, 0.2, 0.8, 0.9])
    assert choose_rule(policy(study, rule="youden"), target, score).threshold in score


def test_youdens_rule_parts_classes_that_can_be_parted(study: Study):
    target, score = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    assert choose_rule(policy(study, rule="youden"), target, score).threshold == 0.3


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_youdens_rule_is_refused_without_both_classes(study: Study, only: float):
    with pytest.raises(ValueError, match="needs rows of both classes"):
        choose_rule(policy(study, rule="youden"), np.full(3, only), np.array([0.1, 0.5, 0.9]))


# Costs


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0, 9.0])
def test_a_cost_ratio_has_the_lowest_expected_cost_of_all_thresholds(
    study: Study, score: np.ndarray, ratio: float
):
    def expected_cost(threshold: float) -> float:
        """A needless contact costs 1, a missed person ``ratio``; the scores are true probabilities."""
        contact = score >= threshold
        return float(np.where(contact, 1 - score, ratio * score).sum())

    rule = choose_rule(policy(study, rule="cost_ratio", cost_ratio=ratio), np.zeros(ROWS), score)
    lowest = min(expected_cost(threshold) for threshold in np.linspace(0, 1.01, 1_000))
    assert expected_cost(rule.threshold) <= lowest + 1e-9


def test_the_dearer_a_missed_person_the_more_are_contacted(study: Study, score: np.ndarray):
    contacts = [
        choose_rule(policy(study, rule="cost_ratio", cost_ratio=ratio), np.zeros(ROWS), score)
        .decide(score)
        .sum()
        for ratio in (0.5, 1, 2, 4, 8)
    ]
    assert contacts == sorted(set(contacts))


def test_equal_costs_mean_one_half(study: Study, target: np.ndarray, score: np.ndarray):
    assert choose_rule(policy(study, rule="cost_ratio", cost_ratio=1.0), target, score) == ContactRule(0.5)


# Capacity


@pytest.mark.parametrize(("capacity", "usual"), [(100, 4_000), (1_000, 4_000), (3_999, 4_000)])
def test_a_capacity_stands_for_the_same_share_of_any_people(study: Study, capacity: int, usual: int):
    different = np.random.default_rng(1).random(10_000)
    rule = choose_rule(
        policy(study, rule="capacity", capacity=capacity, usual_batch=usual), different, different
    )
    assert rule.capacity == capacity
    assert rule.decide(different).mean() == pytest.approx(capacity / usual, abs=2e-4)


def test_a_capacity_for_everybody_contacts_everybody(study: Study, target: np.ndarray, score: np.ndarray):
    rule = choose_rule(policy(study, rule="capacity", capacity=5_000, usual_batch=4_000), target, score)
    assert rule.decide(score).all()


def test_only_a_capacity_limits_a_batch(study: Study, target: np.ndarray, score: np.ndarray):
    limited = {
        rule: choose_rule(policy(study, rule=rule), target, score).capacity
        for rule in ("threshold", "youden", "cost_ratio", "capacity")
    }
    assert limited == {"threshold": None, "youden": None, "cost_ratio": None, "capacity": 1_000}


def test_a_rule_says_in_words_what_it_does():
    assert ContactRule(0.25).in_words() == "contact if the probability is at least 0.250"
    assert ContactRule(0.25, 40).in_words() == "contact the 40 highest scores of each batch"
