"""One encoder for all: however a row is typed, the model sees the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.features.encoder import Encoder, EncodingError, outside_support
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table

Rows = Any  # an Arrow table, a record batch or a frame


@pytest.fixture(scope="module")
def encoder(training_rows: pa.Table, study: Study) -> Encoder:
    return Encoder.fit(training_rows, study)


@pytest.fixture(scope="module")
def answers(people: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Answers of people whom the encoder learned from, as nullable integers, a few of them missing."""
    frame = people.iloc[:200][study.feature_names].astype("int64").astype("Int64").reset_index(drop=True)
    for row, name in enumerate(study.feature_names):
        frame.loc[row, name] = pd.NA
    return frame


@pytest.fixture(scope="module")
def matrix(encoder: Encoder, answers: pd.DataFrame) -> np.ndarray:
    return encoder.encode(answers)


def in_words(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype("string").astype(object).mask(frame.isna(), None)


def shuffled_categories(frame: pd.DataFrame) -> pd.DataFrame:
    return with_categories(frame, lambda known: known[::-1])


def with_more_categories(frame: pd.DataFrame) -> pd.DataFrame:
    return with_categories(frame, lambda known: ["-9", *known, "99"])


def with_categories(frame: pd.DataFrame, chosen: Callable[[list[str]], list[str]]) -> pd.DataFrame:
    words = in_words(frame)
    return pd.DataFrame(
        {name: pd.Categorical(words[name], chosen(sorted(words[name].dropna().unique()))) for name in words}
    )


def dictionaries(frame: pd.DataFrame) -> pa.Table:
    table = as_table(in_words(frame))
    return pa.table({name: table[name].dictionary_encode() for name in table.column_names})


TYPINGS: dict[str, Callable[[pd.DataFrame], Rows]] = {
    "nullable 32-bit integers": lambda f: f.astype("Int32"),
    "text with None": in_words,
    "text with empty strings": lambda f: in_words(f).fillna(""),
    "text with blanks around": lambda f: " " + in_words(f) + " ",
    "pandas strings": lambda f: f.astype("string"),
    "floats with NaN": lambda f: f.astype("float64"),
    "short floats with NaN": lambda f: f.astype("float32"),
    "text of floats": lambda f: in_words(f.astype("Float64")),
    "objects, mixed": lambda f: f.astype(object).mask(f.isna(), None),
    "categories of text": lambda f: in_words(f).astype("category"),
    "categories of integers": lambda f: f.astype("category"),
    "categories in another order": shuffled_categories,
    "categories that never occur": with_more_categories,
    "Arrow-backed": lambda f: f.astype("int64[pyarrow]"),
    "an Arrow table": as_table,
    "Arrow dictionaries": dictionaries,
    "an Arrow record batch": lambda f: as_table(f).to_batches()[0],
    "columns in another order": lambda f: f[f.columns[::-1]],
    "columns that nobody asked for": lambda f: f.assign(extra="?"),
    "an index of its own": lambda f: f.set_index(f.index[::-1] * 7),
}


@pytest.mark.parametrize("retype", TYPINGS.values(), ids=TYPINGS.keys())
def test_the_same_answers_give_the_same_matrix_however_they_are_typed(
    encoder: Encoder, answers: pd.DataFrame, matrix: np.ndarray, retype: Callable[[pd.DataFrame], Rows]
):
    np.testing.assert_array_equal(encoder.encode(retype(answers)), matrix)


def test_plain_integers_and_plain_text_give_the_same_matrix(
    encoder: Encoder, people: pd.DataFrame, study: Study
):
    whole = people[study.feature_names]
    np.testing.assert_array_equal(encoder.encode(whole.astype("int64")), encoder.encode(whole.astype(str)))


def test_a_matrix_has_a_row_for_each_row_and_a_column_for_each_feature(
    matrix: np.ndarray, answers: pd.DataFrame, study: Study
):
    assert (matrix.shape, matrix.dtype) == ((len(answers), len(study.features)), np.dtype("float32"))


def test_a_missing_answer_becomes_nan_in_its_own_cell_only(matrix: np.ndarray, study: Study):
    expected = np.zeros(matrix.shape, dtype=bool)
    np.fill_diagonal(expected[: len(study.features)], True)
    np.testing.assert_array_equal(np.isnan(matrix), expected)


def test_an_ordinal_code_keeps_its_number(encoder: Encoder, answers: pd.DataFrame, matrix: np.ndarray):
    column = encoder.features.index("education")
    np.testing.assert_array_equal(
        matrix[:, column], answers["education"].to_numpy("float32", na_value=np.nan)
    )


def test_a_category_is_its_position_in_the_vocabulary(encoder: Encoder, answers: pd.DataFrame):
    codes = list(encoder.vocabularies["country"])
    frame = pd.concat([answers.iloc[[100]]] * len(codes), ignore_index=True).assign(country=codes)
    column = encoder.encode(frame)[:, encoder.features.index("country")]
    np.testing.assert_array_equal(column, np.arange(len(codes)))


def test_a_vocabulary_is_what_training_had_sorted_by_number(encoder: Encoder, training_rows: pa.Table):
    had = {int(code) for code in training_rows["country"].to_pylist()}
    assert list(encoder.vocabularies["country"]) == sorted(had)


def test_ordinal_features_have_no_vocabulary(encoder: Encoder, study: Study):
    assert set(encoder.vocabularies) == {f.name for f in study.features if not f.is_ordinal}


def test_the_order_of_the_training_rows_does_not_matter(
    encoder: Encoder, training_rows: pa.Table, study: Study
):
    backwards = training_rows.take(list(range(training_rows.num_rows - 1, -1, -1)))
    assert Encoder.fit(backwards, study) == encoder


def test_a_feature_that_nobody_answered_in_training_has_an_empty_vocabulary(
    training_rows: pa.Table, study: Study, answers: pd.DataFrame
):
    at = training_rows.column_names.index("religion")
    empty = training_rows.set_column(at, "religion", pa.nulls(training_rows.num_rows, pa.string()))
    encoder = Encoder.fit(empty, study)
    assert encoder.vocabularies["religion"] == ()
    assert np.isnan(encoder.encode(answers)[:, encoder.features.index("religion")]).all()


# What training never saw


def test_an_unseen_country_becomes_missing(encoder: Encoder, newcomers: pd.DataFrame):
    assert np.isnan(encoder.encode(newcomers)[:, encoder.features.index("country")]).all()


def test_an_unseen_country_leaves_the_other_answers_alone(encoder: Encoder, answers: pd.DataFrame):
    row = answers.iloc[[100]]
    abroad = encoder.encode(row.assign(country=999))
    at_home = encoder.encode(row)
    at_home[0, encoder.features.index("country")] = np.nan
    np.testing.assert_array_equal(abroad, at_home)


def test_unseen_codes_are_counted(encoder: Encoder, answers: pd.DataFrame):
    strange = answers.copy()
    strange.loc[50:59, "country"] = 999
    strange.loc[55:69, "religion"] = 77
    counts = {name: int(mask.sum()) for name, mask in encoder.unseen(strange).items() if mask.any()}
    assert counts == {"country": 10, "religion": 15}


def test_a_missing_answer_is_not_unseen(encoder: Encoder, answers: pd.DataFrame):
    assert answers["country"].isna().any()
    assert not encoder.unseen(answers)["country"].any()


def test_every_feature_with_categories_is_looked_at_for_unseen_codes(
    encoder: Encoder, answers: pd.DataFrame, study: Study
):
    assert set(encoder.unseen(answers)) == {f.name for f in study.features if not f.is_ordinal}


def test_a_row_is_outside_support_when_any_answer_is_unseen():
    masks = {"a": np.array([True, False, False, True]), "b": np.array([False, False, True, True])}
    assert outside_support(masks).tolist() == [True, False, True, True]


# What cannot be encoded


def test_a_missing_column_is_named(encoder: Encoder, answers: pd.DataFrame):
    with pytest.raises(EncodingError, match="'education' is missing"):
        encoder.encode(answers.drop(columns="education"))


@pytest.mark.parametrize("column", ["country", "education"])
@pytest.mark.parametrize("value", ["Germany", 3.5], ids=repr)
def test_a_value_that_is_no_code_is_named_with_its_column(
    encoder: Encoder, answers: pd.DataFrame, column: str, value: Any
):
    mixed = answers.astype({column: object})
    mixed.loc[7, column] = value
    with pytest.raises(EncodingError, match=f"'{column}' holds '{value}', which is no survey code"):
        encoder.encode(mixed)


@pytest.mark.parametrize(
    "values", [pa.array([[1]] * 200), pa.array([b"\xff"] * 200)], ids=["lists", "bytes that are no text"]
)
def test_a_column_of_a_kind_that_holds_no_codes_is_named(
    encoder: Encoder, answers: pd.DataFrame, values: pa.Array
):
    table = as_table(answers)
    table = table.set_column(table.column_names.index("education"), "education", values)
    with pytest.raises(EncodingError, match="'education'"):
        encoder.encode(table)


def test_an_ordinal_code_that_is_absurdly_large_is_still_encoded(encoder: Encoder, answers: pd.DataFrame):
    absurd = answers.copy()
    absurd.loc[100, "education"] = 999_999_999
    encoded = encoder.encode(absurd)[100, encoder.features.index("education")]
    assert encoded == pytest.approx(1e9)


def test_no_rows_give_an_empty_matrix(encoder: Encoder, answers: pd.DataFrame, study: Study):
    assert encoder.encode(answers.iloc[:0]).shape == (0, len(study.features))


# Kept beside the model


def test_an_encoder_read_back_gives_the_same_matrix(encoder: Encoder, people: pd.DataFrame):
    again = Encoder.from_json(encoder.to_json())
    np.testing.assert_array_equal(again.encode(people), encoder.encode(people))


def test_an_encoder_read_back_is_equal(encoder: Encoder):
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder
    assert again.to_json() == encoder.to_json()


def test_the_kept_encoder_is_read_by_any_json_reader(encoder: Encoder):
    import json

    content: dict[str, Any] = json.loads(encoder.to_json())
    assert content["features"] == list(encoder.features)
    assert content["vocabularies"]["country"] == list(encoder.vocabularies["country"])
