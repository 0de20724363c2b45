"""Answers are told in the words of the survey, whatever way their codes came."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.statistics.groups import NO_ANSWER, groups_in_words
from poleng_assets.study.schema import Study


def test_answers_stand_under_the_title_of_their_question_in_words(study: Study):
    rows = pa.table({"sex": ["2", "1", "2"], "settlement": ["5", "1", "1"]})
    told = groups_in_words(study, rows, ["sex", "settlement"])
    assert {title: words.tolist() for title, words in told.items()} == {
        "Sex": ["Female", "Male", "Female"],
        "Kind of settlement": ["Village", "Capital city", "Capital city"],
    }


def test_only_the_questions_asked_for_are_told_in_their_order(study: Study):
    rows = pa.table({"sex": ["1"], "country": ["20"], "settlement": ["1"]})
    assert list(groups_in_words(study, rows, ["settlement", "sex"])) == ["Kind of settlement", "Sex"]
    assert groups_in_words(study, rows, []) == {}


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
    (words,) = groups_in_words(study, pa.table({"country": codes}), ["country"]).values()
    assert words[:3].tolist() == ["Czechia", "Andorra", NO_ANSWER]
    assert words[3].startswith("unknown (998")


def test_a_missing_answer_is_told_as_such(study: Study):
    for nobody in (pa.array([None, None], pa.string()), pa.nulls(2), pa.array([None, float("nan")])):
        told = groups_in_words(study, pa.table({"sex": nobody}), ["sex"])
        assert told["Sex"].tolist() == [NO_ANSWER, NO_ANSWER]


def test_nobody_gives_no_words(study: Study):
    told = groups_in_words(study, pa.table({"sex": pa.array([], pa.string())}), ["sex"])
    assert told["Sex"].shape == (0,)


def test_every_answer_of_the_study_has_words_of_its_own(study: Study):
    for feature in study.features:
        rows = pa.Table.from_pandas(pd.DataFrame({feature.name: [str(code) for code in feature.codes]}))
        (words,) = groups_in_words(study, rows, [feature.name]).values()
        assert words.tolist() == list(feature.codes.values())
