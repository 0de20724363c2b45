"""From an answer as people write it to a survey code."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.features.codes import to_codes, to_table


def read(values: list[Any], kind: pa.DataType | None = None) -> tuple[list[int | None], list[bool]]:
    codes, broken = to_codes(pa.array(values, kind))
    return codes.to_pylist(), broken.to_pylist()


SPELLINGS = {
    "integer": (20, pa.int32()),
    "small integer": (20, pa.uint8()),
    "text": ("20", pa.string()),
    "long text": ("20", pa.large_string()),
    "bytes": (b"20", pa.binary()),
    "float": (20.0, pa.float64()),
    "short float": (20.0, pa.float32()),
    "decimal": (Decimal("20.00"), pa.decimal128(6, 2)),
    "finer decimal": (Decimal("20"), pa.decimal128(38, 5)),
    "very fine decimal": (Decimal("20"), pa.decimal256(60, 30)),
    "text of a float": ("20.0", pa.string()),
    "text of a long float": ("20.000", pa.string()),
    "text with blanks": (" 20 ", pa.string()),
    "text with a sign": ("+20", pa.string()),
    "text with leading zeros": ("0020", pa.string()),
}


@pytest.mark.parametrize(("value", "kind"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_of_twenty_is_twenty(value: object, kind: pa.DataType):
    assert read([value], kind) == ([20], [False])


@pytest.mark.parametrize(("value", "code"), [("-5", -5), (-5, -5), (-5.0, -5), ("-5.0", -5)])
def test_a_negative_code_is_a_code(value: object, code: int):
    assert read([value]) == ([code], [False])


def test_a_boolean_is_one_or_zero():
    assert read([True, False, None]) == ([1, 0, None], [False] * 3)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None], pa.int64()),
        ([None], pa.string()),
        ([""], pa.string()),
        (["   "], pa.string()),
        ([float("nan")], pa.float64()),
        ([None], pa.float64()),
        ([None], pa.null()),
    ],
)
def test_a_missing_answer_is_missing_and_not_broken(values: list[Any], kind: pa.DataType):
    assert read(values, kind) == ([None], [False])


@pytest.mark.parametrize(
    "value",
    ["yes", "3.5", "1e3", "1,5", "20 30", "0x14", "+-5", "nan", "²", "2147483648", 3.5, float("inf"), 1e12],
    ids=repr,
)
def test_what_is_no_code_is_broken_and_has_no_code(value: object):
    assert read([value]) == ([None], [True])


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31)])
@pytest.mark.parametrize("write", [int, float, str, Decimal], ids=lambda write: write.__name__)
def test_the_largest_code_is_what_32_bits_hold_in_every_spelling(number: int, write: type):
    beyond = number + (1 if number > 0 else -1)
    assert read([write(number), write(beyond)]) == ([number, None], [False, True])


def test_a_number_of_64_bits_without_a_sign_does_not_become_a_negative_code():
    assert read([2**64 - 1, 5, None], pa.uint64()) == ([None, 5, None], [True, False, False])


def test_any_number_of_leading_zeros_changes_nothing():
    assert read(["0" * 400 + "7"]) == ([7], [False])


def test_decimals_that_are_no_whole_numbers_are_broken():
    assert read([Decimal("3.00000"), Decimal("3.00001"), None]) == ([3, None, None], [False, True, False])


@pytest.mark.parametrize(
    "value", [date(2020, 1, 1), datetime(2020, 1, 1), timedelta(seconds=1), time(1), [1], {"x": 1}], ids=repr
)
def test_what_is_neither_number_nor_text_is_no_code(value: object):
    assert read([value, None]) == ([None, None], [True, False])


def test_a_period_is_no_code():
    periods = pd.Series(pd.period_range("2020", periods=2, freq="Y"))
    codes, broken = to_codes(to_table(periods.to_frame("x"))["x"])
    assert (codes.to_pylist(), broken.to_pylist()) == ([None, None], [True, True])


@pytest.mark.parametrize(
    "column",
    [pd.Series([1 + 2j]), pd.Series([1.0, 0.0], dtype="Sparse[float]"), pd.Series(["\ud800"], dtype=object)],
    ids=["complex numbers", "sparse", "half a character"],
)
def test_a_frame_column_that_cannot_be_read_is_named(column: pd.Series):
    with pytest.raises(ValueError, match="the column 'education' of"):
        to_table(column.to_frame("education"))


def test_a_frame_column_that_stands_twice_is_named():
    with pytest.raises(ValueError, match="the column 'sex' stands twice"):
        to_table(pd.DataFrame([[1, 2]], columns=["sex", "sex"]))


def test_good_and_broken_values_keep_their_places():
    assert read(["1", "x", None, "2"]) == ([1, None, None, 2], [False, True, False, False])


def test_dictionaries_and_chunks_are_read_like_plain_values():
    chunked = pa.chunked_array(
        [pa.array(["3", None]).dictionary_encode(), pa.array(["x"]).dictionary_encode()]
    )
    codes, broken = to_codes(chunked)
    assert (codes.to_pylist(), broken.to_pylist()) == ([3, None, None], [False, False, True])


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.float64(), pa.null(), pa.bool_()], ids=str)
def test_no_values_give_no_codes(kind: pa.DataType):
    assert read([], kind) == ([], [])


def test_a_frame_column_that_mixes_numbers_and_text_is_read():
    table = to_table(pd.DataFrame({"x": [1, "2", 3.0, None]}, dtype=object))
    assert to_codes(table["x"])[0].to_pylist() == [1, 2, 3, None]


def test_a_table_is_passed_through_as_it_is():
    table = pa.table({"x": [1]})
    assert to_table(table) is table


def test_a_record_batch_becomes_a_table():
    assert to_table(pa.record_batch({"x": [1, 2]})).to_pydict() == {"x": [1, 2]}


@pytest.mark.parametrize("dictionary", [False, True])
def test_truth_values_may_be_words_where_the_codes_are_one_and_zero(dictionary: bool):
    words = pa.array(["True", " FALSE ", "true", "false", "1", "0", None, "", "yes", "t", "truely"])
    codes, broken = to_codes(words.dictionary_encode() if dictionary else words, truths=True)
    assert codes.to_pylist() == [1, 0, 1, 0, 1, 0, None, None, None, None, None]
    assert broken.to_pylist() == [False] * 8 + [True] * 3


def test_truth_values_are_no_words_elsewhere():
    codes, broken = to_codes(pa.array(["True", "false"]))
    assert codes.to_pylist() == [None, None]
    assert broken.to_pylist() == [True, True]
