"""The contact list: words beside the ids, strongest first, and nothing a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.contacts.contact_list import as_csv, contact_list
from poleng_assets.core.data.spreadsheet_safety import escape_formula, unescape_formula
from poleng_assets.study.schema import Study


def respondents(study: Study, **columns: Any) -> pd.DataFrame:
    """Return three contacts and one who is none, with their answers as the warehouse has them."""
    rows: dict[str, Any] = {
        study.id: ["a", "b", "c", "d"],
        "country": ["276", "32", "276", "20"],
        "sex": ["1", "2", "1", "2"],
        "education": [1, 9, 4, 4],
        "citizenship": ["1", "1", "2", "1"],
        "score": [0.61234567, 0.9, 0.75, 0.4],
        "contact": [True, True, True, False],
        "reasons": ["Employment: Student", "Sex: Female", "", None],
    }
    return pd.DataFrame({**rows, **columns})


def test_only_contacts_are_listed_strongest_first(study: Study):
    listed = contact_list(respondents(study), study)
    assert listed[study.id].tolist() == ["b", "c", "a"]


def test_who_is_a_contact_is_said_by_the_scoring_and_not_by_the_score(study: Study):
    listed = contact_list(respondents(study, contact=[False, False, False, True]), study)
    assert listed[study.id].tolist() == ["d"]


def test_the_columns_are_the_id_the_prediction_the_studys_choice_the_reasons_and_a_remark(study: Study):
    listed = contact_list(respondents(study), study)
    assert list(listed.columns) == [study.id, "prediction", *study.contact_list, "reasons", "remark"]
    assert listed.index.tolist() == [0, 1, 2]


def test_answers_are_words_and_not_codes(study: Study):
    strongest = contact_list(respondents(study), study).iloc[0]
    assert strongest[list(study.contact_list)].tolist() == [
        "Argentina",
        "Female",
        "Doctoral or equivalent (ISCED 8)",
        "Yes, I am a citizen of this country",
    ]


def test_a_prediction_has_four_decimals(study: Study):
    assert contact_list(respondents(study), study)["prediction"].tolist() == [0.9, 0.75, 0.6123]


def test_a_country_that_the_study_does_not_know_says_so(study: Study):
    listed = contact_list(respondents(study, country="999"), study)
    assert set(listed["country"]) == {"unknown (999)"}


def test_a_missing_answer_is_an_empty_cell(study: Study):
    education = pd.array([1, pd.NA, 4, 4], dtype="Int64")
    listed = contact_list(respondents(study, country=[None, "32", None, "20"], education=education), study)
    assert listed["country"].tolist() == ["Argentina", "", ""]
    assert listed["education"].tolist()[0] == ""


def test_a_scale_with_holes_is_still_words(study: Study):
    listed = contact_list(respondents(study, education=[1.0, np.nan, 4.0, 4.0]), study)
    assert listed["education"].tolist() == [
        "",
        "Upper secondary education (ISCED 3)",
        "Early Childhood education (ISCED 0) / no education",
    ]


HOSTILE = [
    "=1+1",
    "+49",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\t1",
    "\x001",
    '=HYPERLINK("http://x")',
    "  =1+1",
    "\u00a0=1",
    "\u3000=1",
    "\ufeff=1",
    "\u200b=1",
    "\u202e=1",
    "\uff1d1+1",
    "\uff0b49",
    "\uff0d2",
    "\uff20SUM",
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_an_id_that_a_spreadsheet_would_run_is_neutralised(study: Study, hostile: str):
    people = respondents(study, **{study.id: ["a", hostile, "c", "d"]})
    assert contact_list(people, study)[study.id].tolist()[0] == f"'{hostile}"


@pytest.mark.parametrize(
    "plain", ["007", "a=b", "x-1", "3fa85f64-5717", "a@b.c", " a", "\u00e9=1", "\u00ad1"]
)
def test_a_harmless_id_is_left_as_it_is(study: Study, plain: str):
    people = respondents(study, **{study.id: ["a", plain, "c", "d"]})
    assert contact_list(people, study)[study.id].tolist()[0] == plain


@pytest.mark.parametrize("text", [*HOSTILE, "007", "'", "'=1", "''x", "x'", ""], ids=repr)
def test_every_id_can_be_read_back_from_its_cell(text: str):
    assert unescape_formula(escape_formula(text)) == text


def test_two_ids_never_look_the_same_in_a_list():
    ids = ["=1", "'=1", "''=1", "1", "'1"]
    assert len({escape_formula(one) for one in ids}) == len(ids)


@pytest.mark.parametrize("column", ["country", "reasons", "remark"])
@pytest.mark.parametrize("hostile", ["=1+1", " @SUM(A1)"])
def test_every_text_of_the_list_is_neutralised(study: Study, column: str, hostile: str):
    people, remark = respondents(study), ""
    if column == "country":
        labels = study.feature("country").model_copy(update={"codes": {32: hostile, 276: "x", 20: "y"}})
        others = tuple(labels if one.name == "country" else one for one in study.features)
        study = study.model_copy(update={"features": others})
    elif column == "reasons":
        people = respondents(study, reasons=[hostile] * 4)
    else:
        remark = hostile
    assert contact_list(people, study, remark)[column].tolist()[0] == f"'{hostile}"


def test_what_else_is_known_of_the_people_does_not_leak(study: Study):
    known = {name: "secret" for name in study.feature_names if name not in study.contact_list}
    people = respondents(study, **known, model_version=1, audit=True, name="secret", **{study.target.name: 1})
    listed = contact_list(people, study)
    assert list(listed.columns) == [study.id, "prediction", *study.contact_list, "reasons", "remark"]
    assert "secret" not in as_csv(listed)


def test_in_the_file_every_text_is_quoted_so_that_no_separator_cuts_it(study: Study):
    hostile = "a;=cmd|' /C calc'!A0"
    listed = contact_list(respondents(study, **{study.id: ["x", hostile, "c", "d"]}), study)
    text = as_csv(listed)
    assert f'"{hostile}",0.9,' in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row[study.id] for row in rows] == listed[study.id].tolist()
    assert [float(row["prediction"]) for row in rows] == listed["prediction"].tolist()


def test_a_contact_without_reasons_has_an_empty_cell(study: Study):
    assert contact_list(respondents(study, reasons=None), study)["reasons"].tolist() == ["", "", ""]


def test_a_remark_stands_in_every_row(study: Study):
    assert contact_list(respondents(study), study, "with caution")["remark"].tolist() == ["with caution"] * 3


def test_without_a_remark_the_column_is_empty_text(study: Study):
    assert contact_list(respondents(study), study)["remark"].tolist() == [""] * 3


def test_ties_come_in_the_order_of_their_ids_whoever_stood_first(study: Study):
    tied = respondents(study, score=0.7)
    forth = contact_list(tied, study)
    back = contact_list(tied.iloc[::-1], study)
    assert forth[study.id].tolist() == ["a", "b", "c"]
    pd.testing.assert_frame_equal(forth, back)


def test_scores_that_round_alike_keep_their_order(study: Study):
    close = respondents(study, score=[0.700001, 0.700002, 0.700003, 0.1])
    assert contact_list(close, study)[study.id].tolist() == ["c", "b", "a"]


@pytest.mark.parametrize("rows", [0, 4])
def test_with_nobody_to_contact_the_list_has_its_columns_and_no_rows(study: Study, rows: int):
    listed = contact_list(respondents(study, contact=False).iloc[:rows], study, "remark")
    assert listed.shape == (0, len(study.contact_list) + 4)


def test_the_reasons_stand_beside_the_person_they_belong_to(study: Study):
    listed = contact_list(respondents(study), study)
    assert dict(zip(listed[study.id], listed["reasons"], strict=True)) == {
        "a": "Employment: Student",
        "b": "Sex: Female",
        "c": "",
    }
