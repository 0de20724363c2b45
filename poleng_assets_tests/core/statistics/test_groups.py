"""Answers are told in the words of the survey, whatever way their codes came."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.statistics.groups import (
    GROUP_COLUMNS,
    NO_ANSWER,
    OTHERS,
    evaluate_groups,
    labelled_groups,
)
from poleng_assets.core.statistics.intervals import wilson_interval
from poleng_assets.study.schema import Study


def test_answers_stand_under_the_title_of_their_question_in_words(study: Study):
    rows = pa.table({"sex": ["2", "1", "2"], "settlement": ["5", "1", "1"]})
    told = labelled_groups(study, rows, ["sex", "settlement"])
    assert {title: words.tolist() for title, words in told.items()} == {
        "Sex": ["Female", "Male", "Female"],
        "Kind of settlement": ["Village", "Capital city", "Capital city"],
    }


def test_only_the_questions_asked_for_are_told_in_their_order(study: Study):
    rows = pa.table({"sex": ["1"], "country": ["20"], "settlement": ["1"]})
    assert list(labelled_groups(study, rows, ["settlement", "sex"])) == ["Kind of settlement", "Sex"]
    assert labelled_groups(study, rows, []) == {}


@pytest.mark.parametrize(
    "codes",
    [
        pa.array([203, 20, None, 998], pa.int64()),
        pa.array(["203", "20", None, "998"]),
        pa.array([203.0, 20.0, None, 998.0]),
        pa.array(["203", "20", None, "998"]).dictionary_encode(),
    ],
    ids=["whole numbers", "text", "numbers", "categories"],
)
def test_codes_may_come_as_numbers_or_text(study: Study, codes: pa.Array):
    (words,) = labelled_groups(study, pa.table({"country": codes}), ["country"]).values()
    assert words[:3].tolist() == ["Czechia", "Andorra", NO_ANSWER]
    assert words[3].startswith("unknown (998")


def test_a_missing_answer_is_told_as_such(study: Study):
    for nobody in (pa.array([None, None], pa.string()), pa.nulls(2), pa.array([None, float("nan")])):
        told = labelled_groups(study, pa.table({"sex": nobody}), ["sex"])
        assert told["Sex"].tolist() == [NO_ANSWER, NO_ANSWER]


def test_nobody_gives_no_words(study: Study):
    told = labelled_groups(study, pa.table({"sex": pa.array([], pa.string())}), ["sex"])
    assert told["Sex"].shape == (0,)


def test_every_answer_of_the_study_has_words_of_its_own(study: Study):
    for feature in study.features:
        rows = pa.Table.from_pandas(pd.DataFrame({feature.name: [str(code) for code in feature.codes]}))
        (words,) = labelled_groups(study, rows, [feature.name]).values()
        assert words.tolist() == list(feature.codes.values())


# What a model does in each group

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
    random = np.random.default_rng(8)
    score = random.random(40_000)
    target, contact = (random.random(40_000) < score).astype(int), score >= 0.5
    found = evaluate_groups(
        target, score, contact, {"cell": np.repeat(np.arange(200).astype(str), 200)}, min_rows=1
    )
    covered = (found["calibration_gap_lower"] <= 0) & (found["calibration_gap_upper"] >= 0)
    assert covered.mean() == pytest.approx(0.95, abs=0.05)
