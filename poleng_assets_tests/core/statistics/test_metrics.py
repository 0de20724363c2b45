"""Figures of merit, held against values worked out by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from poleng_assets.core.statistics.groups import GROUP_COLUMNS, NO_ANSWER, OTHERS, evaluate_groups
from poleng_assets.core.statistics.intervals import wilson_interval
from poleng_assets.core.statistics.metrics import decision_metrics, evaluate, lift, score_metrics
from poleng_assets.core.statistics.resampling import bootstrap_intervals

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


# Intervals


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


@pytest.mark.parametrize(
    ("hits", "rows", "by_hand"),
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_wilson_intervals_are_those_of_the_tables(hits: int, rows: int, by_hand: tuple[float, float]):
    assert wilson_interval(hits, rows) == pytest.approx(by_hand, abs=1e-4)


def test_a_share_of_nobody_has_no_interval():
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


# Groups

PEOPLE = {
    "target": np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0]),
    "score": np.array([0.9, 0.8, 0.3, 0.2, 0.6, 0.2, 0.7, 0.1, 0.1, 0.5]),
    "contact": np.array([1, 1, 0, 0, 1, 0, 1, 0, 0, 1], dtype=bool),
}
HOUSE = np.array(["red"] * 6 + ["blue"] * 4)


def groups_of(min_rows: int = 1, **groups: np.ndarray) -> pd.DataFrame:
    return evaluate_groups(**PEOPLE, groups=groups, min_rows=min_rows)


def test_the_figures_of_a_group_are_what_they_are_by_hand():
    red = groups_of(house=HOUSE).iloc[0]
    assert (red["property"], red["value"], red["rows"]) == ("house", "red", 6)
    assert red["target_rate"] == pytest.approx(4 / 6)
    assert red["mean_score"] == pytest.approx(3.0 / 6)
    assert red["flagged_share"] == pytest.approx(3 / 6)
    assert red["recall"] == pytest.approx(2 / 4)
    assert (red["recall_lower"], red["recall_upper"]) == pytest.approx(wilson_interval(2, 4))
    assert red["precision"] == pytest.approx(2 / 3)
    assert red["auc"] == pytest.approx((2 + 2 + 1 + 0.5) / 8)
    assert red["calibration_gap"] == pytest.approx(0.5 - 4 / 6)
    spread = np.std(PEOPLE["score"][:6] - PEOPLE["target"][:6], ddof=1) / math.sqrt(6)
    assert red["calibration_gap_upper"] - red["calibration_gap"] == pytest.approx(1.96 * spread, rel=1e-3)
    assert red["calibration_gap"] - red["calibration_gap_lower"] == pytest.approx(1.96 * spread, rel=1e-3)


def test_every_property_and_value_has_a_row_the_largest_first():
    found = groups_of(house=HOUSE, side=np.array(["l", "r"] * 5))
    assert list(found.columns) == list(GROUP_COLUMNS)
    assert list(zip(found["property"], found["value"], strict=True)) == [
        ("house", "red"),
        ("house", "blue"),
        ("side", "l"),
        ("side", "r"),
    ]


def test_what_cannot_be_said_about_a_group_is_no_number():
    lonely = np.array(["a"] * 2 + ["b"] * 5 + ["c"] * 2 + ["a"])
    found = groups_of(name=lonely).set_index("value")
    nobody_positive = found.loc["c"]
    assert nobody_positive[["recall", "recall_lower", "auc", "precision"]].isna().all()
    assert nobody_positive["flagged_share"] == 0
    assert nobody_positive["calibration_gap"] == pytest.approx(0.1)
    assert found.loc[["a", "b"], "auc"].notna().all()


def test_a_single_person_has_a_gap_and_no_interval():
    found = groups_of(name=np.array(["x"] + ["y"] * 9)).set_index("value")
    assert found.loc["x", "calibration_gap"] == pytest.approx(-0.1)
    assert pd.isna(found.loc["x", "calibration_gap_lower"])


def test_small_groups_are_counted_and_not_shown():
    values = np.array(["big"] * 5 + ["small"] * 3 + ["tiny"] * 2)
    found = groups_of(min_rows=5, name=values)
    assert list(found["value"]) == ["big", OTHERS]
    others = found.iloc[-1]
    assert others["rows"] == 5
    assert others.drop(["property", "value", "rows"]).isna().all()


def test_nobody_vanishes_from_the_rows_of_a_property():
    values = np.array(["a"] * 4 + ["b"] * 3 + ["c"] * 2 + ["d"])
    found = groups_of(min_rows=3, one=values, other=HOUSE)
    assert found.groupby("property")["rows"].sum().to_dict() == {"one": 10, "other": 10}


def test_a_group_of_just_enough_people_is_shown():
    assert list(groups_of(min_rows=4, house=HOUSE)["value"]) == ["red", "blue"]
    assert list(groups_of(min_rows=5, house=HOUSE)["value"]) == ["red", OTHERS]


def test_no_answer_is_a_group_too():
    values = np.array(["a"] * 4 + [None, float("nan"), "", None, None, None], dtype=object)
    found = groups_of(name=values).set_index("value")
    assert found["rows"].to_dict() == {NO_ANSWER: 6, "a": 4}


def test_without_properties_there_is_an_empty_table_with_its_columns():
    found = groups_of()
    assert found.empty
    assert list(found.columns) == list(GROUP_COLUMNS)


def test_a_property_of_another_length_is_refused():
    with pytest.raises(ValueError, match="house has 3 rows, the target 10"):
        groups_of(house=HOUSE[:3])


def test_an_interval_of_the_gap_covers_the_truth_as_often_as_it_says():
    target, score, contact = draw(40_000, seed=8)
    found = evaluate_groups(
        target, score, contact, {"cell": np.repeat(np.arange(200).astype(str), 200)}, min_rows=1
    )
    covered = (found["calibration_gap_lower"] <= 0) & (found["calibration_gap_upper"] >= 0)
    assert covered.mean() == pytest.approx(0.95, abs=0.05)
