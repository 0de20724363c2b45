"""The contract at the door: columns decide about the file, codes about the row."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.ingestion.contract import (
    QUARANTINE_COLUMNS,
    CheckedRows,
    FileRefused,
    check_columns,
    check_rows,
    required_columns,
)
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table


@pytest.fixture(scope="module")
def few(people: pd.DataFrame) -> pd.DataFrame:
    return people.iloc[:8].reset_index(drop=True)


def with_answers(few: pd.DataFrame, answers: dict[tuple[int, str], Any]) -> pa.Table:
    """Return the few with other answers; keys are (row from 0, column)."""
    frame = few.astype(object)
    for (row, column), value in answers.items():
        frame.loc[row, column] = value
    return as_table(frame.astype("string"))


def faults(checked: CheckedRows) -> list[tuple[int, str, str]]:
    return [tuple(row) for row in checked.broken[["row_number", "column_name", "reason"]].to_numpy()]


# Columns


@pytest.mark.parametrize(
    ("kind", "features", "target"),
    [("field_studies", True, True), ("batches", True, False), ("outcomes", False, True)],
)
def test_each_kind_of_file_needs_its_own_columns(study: Study, kind: Kind, features: bool, target: bool):
    needed = required_columns(study, kind)
    assert needed[0] == study.id
    assert set(study.feature_names).issubset(needed) is features
    assert (study.target.name in needed) is target
    assert len(needed) == 1 + 32 * features + target


def test_a_file_with_just_its_columns_has_nothing_to_ignore(study: Study):
    assert check_columns(required_columns(study, "batches"), study, "batches") == []


def test_columns_may_come_in_any_order(study: Study):
    assert check_columns(required_columns(study, "batches")[::-1], study, "batches") == []


def test_columns_that_the_study_does_not_use_are_named(study: Study):
    columns = ["notes", *required_columns(study, "batches"), "weight"]
    assert check_columns(columns, study, "batches") == ["notes", "weight"]


def test_a_target_in_a_batch_is_left_out(study: Study):
    columns = required_columns(study, "field_studies")
    assert check_columns(columns, study, "batches") == [study.target.name]


def test_a_missing_column_refuses_the_file_and_is_named(study: Study):
    columns = [c for c in required_columns(study, "batches") if c != "religion"]
    with pytest.raises(FileRefused, match=r"^1 column is missing: religion\. A file of batches needs: "):
        check_columns(columns, study, "batches")


def test_all_missing_columns_are_named_at_once(study: Study):
    columns = [c for c in required_columns(study, "batches") if c not in ("religion", "country")]
    with pytest.raises(FileRefused, match=r"^2 columns are missing: country, religion"):
        check_columns(columns, study, "batches")


def test_a_field_study_without_its_target_is_told_that_it_is_a_batch(study: Study):
    with pytest.raises(FileRefused, match="a file without it is a batch, for landing/batches"):
        check_columns(required_columns(study, "batches"), study, "field_studies")


def test_a_batch_without_a_feature_is_not_told_about_targets(study: Study):
    with pytest.raises(FileRefused) as caught:
        check_columns([study.id], study, "batches")
    assert "target" not in str(caught.value)


def test_a_column_that_stands_twice_refuses_the_file(study: Study):
    with pytest.raises(FileRefused, match="the column sex stands twice"):
        check_columns([*required_columns(study, "batches"), "sex"], study, "batches")


def test_a_first_row_that_is_no_header_is_told_so_though_its_values_repeat(study: Study):
    with pytest.raises(FileRefused, match="does the file have a header row"):
        check_columns(["p1", "1", "1", "2", "2"], study, "batches")


def test_columns_without_a_name_may_stand_often_and_are_not_named(study: Study):
    columns = [*required_columns(study, "batches"), "", "weight", ""]
    assert check_columns(columns, study, "batches") == ["weight"]


def test_a_column_that_is_not_needed_must_not_stand_twice_either(study: Study):
    with pytest.raises(FileRefused, match="the column weight stands twice"):
        check_columns([*required_columns(study, "batches"), "weight", "weight"], study, "batches")


# Rows


def test_sound_rows_are_all_kept(few: pd.DataFrame, study: Study):
    checked = check_rows(as_table(few), study, "field_studies")
    assert (len(checked.frame()), checked.broken_rows) == (len(few), 0)
    assert list(checked.broken.columns) == QUARANTINE_COLUMNS


def test_codes_as_integers_and_as_text_are_stored_alike(few: pd.DataFrame, study: Study):
    numbers = few.astype(dict.fromkeys([*study.feature_names, study.target.name], "int64"))
    from_numbers = check_rows(as_table(numbers), study, "field_studies").frame()
    from_text = check_rows(as_table(few.astype(str)), study, "field_studies").frame()
    pd.testing.assert_frame_equal(from_numbers, from_text)


def test_codes_of_every_kind_are_stored_as_numbers(few: pd.DataFrame, study: Study):
    rows = check_rows(as_table(few.astype(str)), study, "batches").frame()
    kinds = {f.name: str(rows[f.name].dtype) for f in study.features}
    assert kinds == dict.fromkeys(study.feature_names, "Int64")


def test_a_code_is_stored_without_decimals_and_blanks(few: pd.DataFrame, study: Study):
    table = with_answers(few, {(0, "sex"): " 2.0 ", (1, "sex"): "01"})
    assert check_rows(table, study, "batches").frame()["sex"].tolist()[:2] == [2, 1]


def test_an_unknown_country_is_kept(few: pd.DataFrame, study: Study):
    checked = check_rows(with_answers(few, {(2, "country"): "999"}), study, "batches")
    assert checked.broken_rows == 0
    assert checked.frame()["country"].tolist()[2] == 999


@pytest.mark.parametrize("column", ["education", "sex"])
def test_an_unknown_code_of_a_scale_or_a_pair_goes_to_quarantine(
    few: pd.DataFrame, study: Study, column: str
):
    checked = check_rows(with_answers(few, {(2, column): "77"}), study, "batches")
    assert faults(checked) == [(3, column, "77 is not among the codes of the study")]
    assert 3 not in checked.frame()["row_number"].tolist()
    assert len(checked.frame()) == len(few) - 1


def test_missing_answers_are_kept(few: pd.DataFrame, study: Study):
    nothing = {(1, name): None for name in study.feature_names}
    checked = check_rows(with_answers(few, nothing), study, "batches")
    assert checked.broken_rows == 0
    assert checked.frame()[study.feature_names].iloc[1].isna().all()


def test_a_value_that_is_no_code_goes_to_quarantine_as_it_was_written(few: pd.DataFrame, study: Study):
    checked = check_rows(with_answers(few, {(0, "country"): "Germany"}), study, "batches")
    assert faults(checked) == [(1, "country", "'Germany' is no survey code")]


@pytest.mark.parametrize("empty", [None, "", "   "], ids=repr)
def test_a_respondent_without_an_id_goes_to_quarantine(few: pd.DataFrame, study: Study, empty: str | None):
    checked = check_rows(with_answers(few, {(4, study.id): empty}), study, "batches")
    assert faults(checked) == [(5, study.id, "is empty")]


BAD_IDS = {
    "a newline": ("7\n8", "holds a control character"),
    "a newline at its end": ("7\n", "holds a control character"),
    "a tab": ("7\t8", "holds a control character"),
    "a NUL": ("7\x008", "holds a control character"),
    "an escape": ("\x1b[31m7", "holds a control character"),
    "a control character of Latin-1": ("7\x858", "holds a control character"),
    "a line separator": ("7\u20288", "holds a control character"),
    "201 characters": ("ü" * 201, "is longer than 200 characters"),
    "nothing but newlines": ("\r\n", "is empty"),
}


@pytest.mark.parametrize(("bad", "why"), BAD_IDS.values(), ids=BAD_IDS.keys())
def test_an_id_that_would_spoil_a_list_goes_to_quarantine(
    few: pd.DataFrame, study: Study, bad: str, why: str
):
    checked = check_rows(with_answers(few, {(4, study.id): bad}), study, "batches")
    assert faults(checked) == [(5, study.id, why)]
    assert json.loads(checked.broken["payload"].iloc[0])[study.id] == bad


@pytest.mark.parametrize(
    "sound", ["ü" * 200, "a b", "=cmd|' /C calc'!A0", "../../etc/passwd", "007"], ids=repr
)
def test_other_ids_are_kept_without_blanks_around_them(few: pd.DataFrame, study: Study, sound: str):
    checked = check_rows(with_answers(few, {(4, study.id): f"  {sound} "}), study, "batches")
    assert faults(checked) == []
    assert checked.frame()[study.id].tolist()[4] == sound


def with_ids(few: pd.DataFrame, study: Study, ids: list[Any], kind: pa.DataType) -> pa.Table:
    table = as_table(few.iloc[: len(ids)])
    return table.set_column(table.column_names.index(study.id), study.id, pa.array(ids, kind))


NUMBERS = {
    "integers": ([7, -8, 2**63 - 1, None], pa.int64(), ["7", "-8", str(2**63 - 1)], [(4, "is empty")]),
    "unsigned": ([7, 2**64 - 1], pa.uint64(), ["7", str(2**64 - 1)], []),
    "floats": (
        [7.0, 1.5, 2.0**53, 2.0**53 - 1, float("nan"), float("inf"), None, -0.0],
        pa.float64(),
        ["7", str(2**53 - 1), "0"],
        [(2, "no whole"), (3, "no whole"), (5, "is empty"), (6, "no whole"), (7, "is empty")],
    ),
    "decimals": (
        [Decimal("7.00"), Decimal("1.50"), Decimal(10**30), None],
        pa.decimal128(36, 2),
        ["7", str(10**30)],
        [(2, "no whole"), (4, "is empty")],
    ),
}


@pytest.mark.parametrize(("ids", "kind", "kept", "broken"), NUMBERS.values(), ids=NUMBERS.keys())
def test_ids_that_are_numbers_are_kept_when_they_are_exact(
    few: pd.DataFrame,
    study: Study,
    ids: list[Any],
    kind: pa.DataType,
    kept: list[str],
    broken: list[tuple[int, str]],
):
    checked = check_rows(with_ids(few, study, ids, kind), study, "batches")
    assert checked.frame()[study.id].tolist() == kept
    found = faults(checked)
    assert [row for row, _, _ in found] == [row for row, _ in broken]
    assert all(why in said for (_, _, said), (_, why) in zip(found, broken, strict=True))


def test_ids_in_a_dictionary_are_kept(few: pd.DataFrame, study: Study):
    ids = pa.array(["x", "y", "z"]).dictionary_encode()
    table = with_ids(few, study, ["x", "y", "z"], pa.string())
    table = table.set_column(table.column_names.index(study.id), study.id, ids)
    assert check_rows(table, study, "batches").frame()[study.id].tolist() == ["x", "y", "z"]


def test_ids_that_are_true_or_false_refuse_the_file(few: pd.DataFrame, study: Study):
    with pytest.raises(FileRefused, match="cannot be ids"):
        check_rows(with_ids(few, study, [True, False], pa.bool_()), study, "batches")


def test_where_the_encoding_was_guessed_only_ascii_can_be_trusted(few: pd.DataFrame, study: Study):
    table = with_answers(few, {(1, study.id): "Jürgen", (2, "sex"): "1\xa0", (3, study.id): "Jurgen"})
    checked = check_rows(table, study, "batches", ascii_only=True)
    assert [(row, column) for row, column, _ in faults(checked)] == [(2, study.id), (3, "sex")]
    assert "save the file as UTF-8" in faults(checked)[0][2]
    assert "Jürgen" in check_rows(table, study, "batches").frame()[study.id].tolist()


def test_ids_that_are_all_missing_break_every_row(few: pd.DataFrame, study: Study):
    table = as_table(few.assign(**{study.id: None}))
    assert check_rows(table, study, "batches").broken_rows == len(few)


def test_a_row_of_a_field_study_without_its_target_goes_to_quarantine(few: pd.DataFrame, study: Study):
    checked = check_rows(with_answers(few, {(4, study.target.name): None}), study, "field_studies")
    assert faults(checked) == [(5, study.target.name, "is empty")]


def test_a_target_that_is_neither_zero_nor_one_goes_to_quarantine(few: pd.DataFrame, study: Study):
    checked = check_rows(with_answers(few, {(4, study.target.name): "2"}), study, "outcomes")
    assert faults(checked) == [(5, study.target.name, "2 is not among the codes of the study")]


def test_a_row_with_several_faults_is_one_broken_row(few: pd.DataFrame, study: Study):
    table = with_answers(few, {(0, "sex"): "77", (0, "education"): "x", (0, study.id): ""})
    checked = check_rows(table, study, "batches")
    assert {column for _, column, _ in faults(checked)} == {"sex", "education", study.id}
    assert checked.broken_rows == 1


def test_rows_are_numbered_as_in_the_file(few: pd.DataFrame, study: Study):
    checked = check_rows(with_answers(few, {(1, "sex"): "77"}), study, "batches", np.arange(101, 109))
    assert checked.frame()["row_number"].tolist() == [101, *range(103, 109)]
    assert checked.broken["row_number"].tolist() == [102]


def test_the_payload_is_the_whole_row_as_it_was_written(few: pd.DataFrame, study: Study):
    table = with_answers(few, {(1, "education"): "Größe 7"})
    kept = json.loads(check_rows(table, study, "batches").broken["payload"].iloc[0])
    assert kept == {name: table[name][1].as_py() for name in required_columns(study, "batches")}


def test_no_rows_are_no_faults(few: pd.DataFrame, study: Study):
    checked = check_rows(as_table(few.iloc[:0]), study, "field_studies")
    assert (len(checked.frame()), checked.broken_rows) == (0, 0)


def test_a_file_whose_rows_are_all_broken_has_no_sound_rows(few: pd.DataFrame, study: Study):
    checked = check_rows(as_table(few.assign(education=77)), study, "batches")
    assert (len(checked.frame()), checked.broken_rows) == (0, len(few))


@pytest.mark.parametrize("column", ["country", "education", "subject_id"])
@pytest.mark.parametrize(
    "value", [[1], {"x": 1}, b"\xff", b"1", date(2024, 1, 1), datetime(2024, 1, 1)], ids=repr
)
def test_a_column_of_a_kind_that_holds_no_answers_refuses_the_file(
    few: pd.DataFrame, study: Study, column: str, value: object
):
    table = as_table(few)
    table = table.set_column(table.column_names.index(column), column, pa.array([value] * len(few)))
    with pytest.raises(FileRefused, match=column):
        check_rows(table, study, "batches")


def test_a_code_beyond_32_bits_goes_to_quarantine_in_every_spelling(few: pd.DataFrame, study: Study):
    table = with_answers(few, {(1, "country"): str(2**31), (2, "country"): str(2**31 - 1)})
    for kind in (pa.string(), pa.int64(), pa.float64()):
        place = table.column_names.index("country")
        checked = check_rows(
            table.set_column(place, "country", table["country"].cast(kind)), study, "batches"
        )
        assert [(row, column) for row, column, _ in faults(checked)] == [(2, "country")]
        assert 2**31 - 1 in checked.frame()["country"].tolist()


CODINGS = [pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(30, 3), pa.large_string()]


@pytest.mark.parametrize("kind", CODINGS, ids=str)
def test_every_type_of_column_gives_the_same_rows(few: pd.DataFrame, study: Study, kind: pa.DataType):
    plain = with_answers(few, {(1, name): None for name in study.feature_names})
    expected = check_rows(plain, study, "batches")
    assert expected.broken_rows == 0
    for written in (lambda column: column, lambda column: column.dictionary_encode()):
        other = plain
        for name in [n for n in study.feature_names if n != "country"]:
            column = written(plain[name].cast(pa.int64()).cast(kind))
            other = other.set_column(other.column_names.index(name), name, column)
        checked = check_rows(other, study, "batches")
        assert checked.broken_rows == 0
        pd.testing.assert_frame_equal(checked.frame(), expected.frame())


def test_an_absent_number_stands_as_null_in_a_payload(few: pd.DataFrame, study: Study):
    table = with_answers(few, {(1, "sex"): "77", (1, "religion"): None})
    for name, value in (("religion", float("nan")), ("education", float("inf"))):
        column = pa.array([value] * len(few), pa.float64())
        table = table.set_column(table.column_names.index(name), name, column)
    payload = check_rows(table, study, "batches").broken["payload"].iloc[0]
    assert "NaN" not in payload
    assert json.loads(payload)["religion"] is None
    assert json.loads(payload)["education"] == "inf"


def test_a_reason_shows_the_beginning_of_a_long_value(few: pd.DataFrame, study: Study):
    checked = check_rows(with_answers(few, {(1, "sex"): "x" * 5_000}), study, "batches")
    assert len(faults(checked)[0][2]) < 150
    assert json.loads(checked.broken["payload"].iloc[0])["sex"] == "x" * 5_000


def test_truth_values_are_the_same_in_every_form_of_file(few: pd.DataFrame, study: Study):
    yes_no = next(feature.name for feature in study.features if feature.is_yes_or_no)
    other = next(
        feature.name for feature in study.features if feature.kind == "binary" and not feature.is_yes_or_no
    )
    truths = few[study.target.name].astype(int) == 1
    typed = as_table(few.assign(**{study.target.name: truths, yes_no: truths}))
    in_words = as_table(
        few.assign(**{study.target.name: truths.map(str), yes_no: truths.map({True: "TRUE", False: "false"})})
    )
    expected = check_rows(typed, study, "field_studies")
    assert expected.broken_rows == 0
    pd.testing.assert_frame_equal(check_rows(in_words, study, "field_studies").frame(), expected.frame())
    assert faults(check_rows(with_answers(few, {(0, other): "True"}), study, "field_studies")) == [
        (1, other, "'True' is no survey code")
    ]
