"""Metrics, held against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics
from sklearn.metrics import log_loss, roc_auc_score

from poleng_assets.core.statistics.metrics import (
    calibration_error,
    decision_metrics,
    evaluate,
    lift,
    paired_auc,
    row_log_loss,
    score_metrics,
)

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


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("auc", 3 / 4),  # of four pairs one is the wrong way round
        ("average_precision", (1 / 1 + 2 / 3) / 2),
        ("log_loss", -(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4),
        ("brier", (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4),
        ("rmse", math.sqrt((0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4)),
        ("calibration_error", (0.1 + 0.4 + 0.65 + 0.2) / 4),  # each row is a bin of its own
        ("lift_at_10", 1 / 0.5),
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


def test_figures_of_decisions_are_those_of_scikit_learn(many: Rows):
    from sklearn import metrics

    target, _, contact = many
    figures = decision_metrics(target, contact)
    for name in ("accuracy", "precision", "recall", "f1"):
        assert figures[name] == pytest.approx(getattr(metrics, f"{name}_score")(target, contact)), name


def test_precision_and_recall_are_not_mixed_up():
    figures = decision_metrics(np.array([1, 1, 1, 1]), np.array([True, False, False, False]))
    assert (figures["precision"], figures["recall"]) == (1.0, 0.25)


def test_contacts_may_be_written_as_zero_and_one(many: Rows):
    target, _, contact = many
    assert decision_metrics(target, contact.astype(int)) == decision_metrics(target, contact)


@pytest.mark.parametrize("only", [0, 1])
def test_with_one_class_only_there_is_no_ranking_to_speak_of(only: int):
    figures = score_metrics(np.full(4, only), SCORE)
    assert set(figures) == {"log_loss", "rmse", "brier", "calibration_error"}


def test_log_loss_of_one_class_is_still_right():
    assert score_metrics(np.ones(1), np.array([0.25]))["log_loss"] == pytest.approx(-math.log(0.25))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("decimals", [1, 6], ids=["tied", "apart"])
def test_figures_are_those_of_scikit_learn(many: Rows, decimals: int, dtype: str):
    """Scores of 0 and 1 that turned out wrong are among the tied ones."""
    target, score = many[0], many[1].round(decimals).astype(dtype)
    theirs = {
        "log_loss": metrics.log_loss(target, score),
        "brier": metrics.brier_score_loss(target, score),
        "auc": metrics.roc_auc_score(target, score),
        "average_precision": metrics.average_precision_score(target, score),
    }
    figures = score_metrics(target, score)
    assert {name: figures[name] for name in theirs} == pytest.approx(theirs, rel=1e-6)


def test_a_wrong_certainty_costs_much_but_not_everything():
    assert score_metrics(np.array([1, 0]), np.array([0.0, 1.0]))["log_loss"] == pytest.approx(36.04, abs=0.01)


@pytest.mark.parametrize("target", [[1, 1], [0, 1]], ids=["one class", "both"])
def test_a_score_that_is_no_number_is_refused(target: list[int]):
    with pytest.raises(ValueError, match="NaN"):
        score_metrics(np.array(target), np.array([math.nan, 0.5]))


def test_precision_of_no_contacts_is_zero():
    assert decision_metrics(TARGET, np.zeros(4, dtype=bool))["precision"] == 0.0


def test_a_contact_is_what_the_rule_says_and_not_what_the_score_says():
    only_the_lowest = np.array([True, False, False, False])
    figures = evaluate(TARGET, SCORE, only_the_lowest)
    assert (figures["flagged_share"], figures["false_positives"], figures["auc"]) == (0.25, 1.0, 0.75)


def test_evaluation_has_figures_of_scores_and_of_decisions():
    figures = evaluate(TARGET, SCORE, SCORE >= 0.5)
    expected = score_metrics(TARGET, SCORE) | decision_metrics(TARGET, SCORE >= 0.5)
    assert figures == expected


# Lift


def test_lift_counts_the_positives_among_the_highest_tenth():
    target = np.array([1, 0, *[0] * 14, 1, 1, 1, 0])
    # The two highest of twenty: one positive, where one in five is positive.
    assert lift(target, np.linspace(0.9, 0.1, 20)) == pytest.approx(0.5 / 0.2)


def test_people_who_tie_for_the_last_place_share_it():
    target = np.array([1, *[0] * 3, 1, *[0] * 15])
    score = np.array([0.9, *[0.8] * 4, *[0.1] * 15])
    # One place is taken by a positive, the other is shared by four people of whom one is positive.
    assert lift(target, score) == pytest.approx((1 + 1 / 4) / 2 / (2 / 20))


def test_lift_does_not_depend_on_the_order_of_the_rows():
    random = np.random.default_rng(5)
    score, target = random.integers(0, 6, 200) / 6, random.integers(0, 2, 200)
    shuffled = random.permutation(200)
    assert lift(target, score) == pytest.approx(lift(target[shuffled], score[shuffled]), rel=1e-12)


def test_equal_scores_have_a_lift_of_one():
    assert lift(np.array([1, 0, 0, 1, 0]), np.full(5, 0.4)) == pytest.approx(1.0)


def test_without_positives_lift_is_unknown():
    assert math.isnan(lift(np.zeros(5), SCORE[[0, 1, 2, 3, 0]]))


# Rows, and two models on the same rows

ROWS = 4_000
RANDOM = np.random.default_rng(7)
TRUTH = RANDOM.normal(-0.6, 1.3, ROWS)  # the log-odds of each person
DRAWN = (RANDOM.random(ROWS) < expit(TRUTH)).astype(int)
CHAMPION, BETTER = (expit(TRUTH + blur * RANDOM.normal(0, 1, ROWS)) for blur in (1.0, 0.5))


def test_the_log_loss_of_the_rows_is_that_of_scikit_learn():
    extreme = np.array([0.0, 1.0, 0.3, 1.0])
    target = np.array([0, 0, 1, 1])
    assert row_log_loss(target, extreme).mean() == pytest.approx(log_loss(target, extreme))


def test_the_standard_error_of_an_auc_difference_is_what_a_paired_bootstrap_finds():
    one, other, error = paired_auc(DRAWN, BETTER, CHAMPION)
    assert one == pytest.approx(roc_auc_score(DRAWN, BETTER))
    assert other == pytest.approx(roc_auc_score(DRAWN, CHAMPION))
    random = np.random.default_rng(3)
    differences = []
    for _ in range(150):
        rows = random.integers(0, ROWS, ROWS)
        differences.append(
            roc_auc_score(DRAWN[rows], BETTER[rows]) - roc_auc_score(DRAWN[rows], CHAMPION[rows])
        )
    assert error == pytest.approx(np.std(differences), rel=0.2)


def test_ties_count_half_in_an_auc():
    target, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.9])
    assert paired_auc(target, score, score) == (0.875, 0.875, 0.0)


def test_chance_makes_the_calibration_error_of_true_scores_as_large_as_said_and_seldom_larger():
    random = np.random.default_rng(9)
    truth = expit(TRUTH)
    errors = [calibration_error((random.random(ROWS) < truth).astype(int), truth)[0] for _ in range(800)]
    _, by_chance = calibration_error(DRAWN, truth)
    assert np.mean(np.array(errors) <= by_chance) == pytest.approx(0.95, abs=0.025)


def test_a_shift_of_all_scores_is_the_calibration_error():
    target = np.tile([0, 1], 500)
    assert calibration_error(target, np.full(1_000, 0.75))[0] == pytest.approx(0.25)
