"""What may be asked: the door's contract, in a request."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poleng_assets.core.ingestion.contract import MAX_ID, check_rows
from poleng_assets.serving.requests import SHAPE, Asked, NotUnderstood, Reader, Refused, TooMany
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study

STUDY = load_study()
NOMINAL = next(f.name for f in STUDY.features if f.kind == "nominal")
ORDINAL = next(f.name for f in STUDY.features if f.kind == "ordinal")


def somebody(**answers: Any) -> dict[str, Any]:
    """One respondent who gave the first code to every question, but for some."""
    return {feature.name: min(feature.codes) for feature in STUDY.features} | answers


def body(respondents: object, **more: object) -> bytes:
    return json.dumps({"respondents": respondents, **more}).encode()


def read(respondents: object, **more: object) -> Asked:
    return Reader(STUDY, 1000).read(body(respondents, **more))


def faults(respondents: object) -> list[tuple[int, str, str]]:
    with pytest.raises(Refused) as refused:
        read(respondents)
    return [(one.row, one.field, one.reason) for one in refused.value.faults]


def test_one_respondent_and_a_list_of_one_are_the_same_request():
    one, many = read(somebody()), read([somebody()])
    assert one.rows == many.rows
    assert one.rows.num_rows == 1
    assert one.rows.column_names == STUDY.feature_names


def test_codes_may_be_numbers_or_text_and_null_is_no_answer():
    name = ORDINAL
    asked = read([somebody(**{name: code}) for code in (2, "2", 2.0, " 2.0 ", None, "")])
    assert asked.rows[name].to_pylist() == [2, 2, 2, 2, None, None]


def test_a_country_that_the_study_does_not_list_is_taken():
    assert read(somebody(**{NOMINAL: 9999})).rows[NOMINAL].to_pylist() == [9999]


def test_columns_that_the_study_does_not_know_are_left_out():
    assert read(somebody(shoe_size=44)).rows.column_names == STUDY.feature_names


def test_faults_are_told_by_row_and_field_and_never_repeat_the_answer():
    found = faults([somebody(), somebody(**{ORDINAL: 771177, NOMINAL: "secret word"}), somebody()])
    assert [(row, field) for row, field, _ in found] == [(2, NOMINAL), (2, ORDINAL)]
    told = " ".join(reason for _, _, reason in found)
    assert "771177" not in told
    assert "secret" not in told
    assert "is not among the codes of the study: 1, 2, 3" in told


def test_a_question_that_is_not_there_is_a_fault_and_not_a_missing_answer():
    respondent = somebody()
    del respondent[ORDINAL]
    assert faults(respondent) == [(1, ORDINAL, "is missing: send null for no answer")]


@pytest.mark.parametrize("answer", [[1], {"code": 1}, "\ud800", 1e30, 10**30, "1e0", 1.5, "x"])
def test_what_is_no_code_is_refused(answer: object):
    ((row, field, reason),) = faults(somebody(**{ORDINAL: answer}))
    assert (row, field) == (1, ORDINAL)
    assert "survey code" in reason


def test_ids_are_given_back_as_the_door_reads_them():
    asked = read([somebody(**{STUDY.id: one}) for one in (" a1 ", 17, None)])
    assert list(asked.ids) == ["a1", "17", None]
    assert list(read([somebody(), somebody()]).ids) == [None, None]


@pytest.mark.parametrize("given_id", ["", "   ", "a\nb", "x" * (MAX_ID + 1), True, 1.5, [], "\ud800"])
def test_an_id_that_the_door_would_not_take_is_refused_without_repeating_it(given_id: object):
    found = faults([somebody(**{STUDY.id: "sound"}), somebody(**{STUDY.id: given_id})])
    assert [(row, field) for row, field, _ in found] == [(2, STUDY.id)]
    assert "xxx" not in found[0][2]


def test_more_than_allowed_is_refused_and_says_what_to_do():
    with pytest.raises(TooMany, match=r"at most 2 respondents, this one has 3.*poleng submit batch"):
        Reader(STUDY, 2).read(body([somebody()] * 3))
    assert Reader(STUDY, 2).read(body([somebody()] * 2)).rows.num_rows == 2


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"respondents": 5},
        {"respondents": None},
        {"respondents": [somebody()], "reasons": "yes"},
        {"respondents": [somebody()], "model_version": 3},
        somebody(),
    ],
)
def test_another_shape_is_refused_and_the_right_one_told(content: object):
    with pytest.raises(NotUnderstood) as refused:
        Reader(STUDY, 10).read(json.dumps(content).encode())
    assert str(refused.value) == SHAPE


def test_a_respondent_who_is_no_object_is_told_by_its_row():
    assert faults([somebody(), [1, 2]]) == [(2, "", "is not an object with an answer to each question")]


def test_no_respondent_is_no_request():
    with pytest.raises(NotUnderstood, match="no respondent"):
        read([])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\xfd",
        b'{"respondents": [NaN]}',
        b'{"respondents": [], "respondents": []}',
        b'{"respondents": ' + b"9" * 10_000 + b"}",
        b"[" * 200_000,
        '{"respondents": "sécret"'.encode("latin-1"),
    ],
)
def test_what_is_no_json_is_refused_without_repeating_it(text: bytes):
    with pytest.raises(NotUnderstood) as refused:
        Reader(STUDY, 10).read(text)
    assert "the body is not valid JSON" in str(refused.value)
    assert "99999" not in str(refused.value)
    assert refused.value.__cause__ is None


ANSWERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", " ", "1", " 2 ", "2.0", "2.5", "+3", "0001", "1e0", "x", "٣", "-0", "1_0"]),
    st.sampled_from(["12345678901", "00000000000001", "2147483648", "-2147483648"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(STUDY.feature_names), ANSWERS, max_size=5), max_size=4))
def test_the_server_and_the_door_find_the_same_answers_broken_and_read_the_same_codes(
    changes: list[dict[str, Any]],
):
    rows = [somebody(), *(somebody(**change) for change in changes)]
    at_the_door = by_the_door(STUDY, rows)
    try:
        asked = read(rows)
    except Refused as refused:
        assert {(one.row, one.field) for one in refused.faults} == at_the_door
        return
    assert at_the_door == set()
    checked = check_rows(as_text(rows), STUDY, "batches")
    for name in STUDY.feature_names:
        stored = checked.rows[name].to_pylist()
        assert [None if one is None else int(one) for one in stored] == asked.rows[name].to_pylist()


def as_text(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as a CSV would bring them: the door reads text and numbers alike."""

    def text(answer: object) -> str | None:
        if answer is None:
            return None
        return str(int(answer)) if isinstance(answer, bool) else str(answer)

    columns = {name: pa.array([text(row[name]) for row in rows], pa.string()) for name in STUDY.feature_names}
    return pa.table({STUDY.id: [f"p{place}" for place in range(len(rows))], **columns})


def by_the_door(study: Study, rows: list[dict[str, Any]]) -> set[tuple[int, str]]:
    broken = check_rows(as_text(rows), study, "batches").broken
    return set(zip(broken["row_number"].tolist(), broken["column_name"].tolist(), strict=True))


def test_a_truth_value_may_be_a_word_where_the_codes_are_one_and_zero():
    yes_no = next(feature.name for feature in STUDY.features if feature.is_yes_or_no)
    asked = read([somebody(**{yes_no: one}) for one in ("True", " false ", True, "1")])
    assert asked.rows[yes_no].to_pylist() == [1, 0, 1, 1]
