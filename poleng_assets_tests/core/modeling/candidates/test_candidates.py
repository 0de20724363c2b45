"""The kinds of model: what the interface promises, each of them keeps."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.modeling.candidates.base import Candidate, Columns, with_masked_copies
from poleng_assets.core.modeling.candidates.blend import KINDS, Blend
from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.candidates.forest import Forest
from poleng_assets.core.modeling.candidates.logistic import MIN_ROWS_OF_A_LEVEL, Logistic
from poleng_assets.core.modeling.candidates.one_hot_layout import OneHotLayout
from poleng_assets.core.modeling.candidates.target_ordered_layout import TargetOrderedLayout
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table, with_policies

NAN = np.nan
TREES = {"rounds": 12, "eta": 0.2, "max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.5}
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "native trees": ("xgboost", {"categories": "native", **TREES}),
    "ranked trees": ("xgboost", {"categories": "ranked", **TREES}),
    "one-hot trees": ("xgboost", {"categories": "one_hot", **TREES}),
    "logistic": ("logistic", {"C": 0.05, "strength": 0.0}),
    "varying slopes": ("logistic", {"C": 0.05, "strength": 0.6}),
    "forest": ("forest", {"trees": 12, "min_samples_leaf": 5, "max_features": 0.3}),
}


@dataclass(frozen=True)
class Data:
    """What a candidate is fitted on, and strangers that it is not."""

    encoder: Encoder
    columns: Columns
    matrix: np.ndarray
    target: np.ndarray
    strangers: np.ndarray

    def fit(self, case: str, seed: int = 1) -> Candidate:
        kind, parameters = CASES[case]
        return KINDS[kind].fit(self.matrix, self.target, self.columns, parameters, seed)


@pytest.fixture(scope="module")
def data(people: pd.DataFrame, study: Study) -> Data:
    rows = as_table(people.iloc[:1_000])
    encoder = Encoder.fit(rows, study)
    columns = Columns.of(encoder, study)
    target = rows[study.target.name].to_numpy().astype(np.float32)
    matrix, target = with_masked_copies(encoder.encode(rows), target, columns.masked, 0.2, 1)
    return Data(encoder, columns, matrix, target, encoder.encode(people.iloc[1_000:1_400]))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def fitted(data: Data, case: str) -> Candidate:
    return data.fit(case)


def kept(candidate: Candidate, folder: Path) -> dict[str, object]:
    """Save a candidate and return all that is in its files, but for the addresses that skops writes."""
    folder.mkdir()
    candidate.save(folder)
    return {
        path.name: inside(path) if path.suffix == ".skops" else path.read_bytes()
        for path in sorted(folder.iterdir())
    }


def inside(path: Path) -> object:
    with zipfile.ZipFile(path) as parts:

        def plain(node: dict[str, Any]) -> dict[str, Any]:
            node.pop("__id__", None)
            if "file" in node:
                node["file"] = numbers(parts.read(node["file"]))
            return node

        return json.loads(parts.read("schema.json"), object_hook=plain)


def numbers(content: bytes) -> str:
    """Return a hash of an array field by field: what lies between the fields of a tree is left to chance."""
    array = np.load(BytesIO(content))
    fields = [array] if array.dtype.names is None else [array[name] for name in array.dtype.names]
    told = [(one.dtype.str, one.shape, one.tobytes()) for one in fields]
    return sha256(repr(told).encode()).hexdigest()


# What all of them promise


def test_the_cases_are_all_kinds_that_there_are():
    assert {kind for kind, _ in CASES.values()} == set(KINDS)


def test_the_same_seed_gives_the_same_files(data: Data, case: str, fitted: Candidate, tmp_path: Path):
    assert kept(data.fit(case), tmp_path / "again") == kept(fitted, tmp_path / "first")


@pytest.mark.parametrize("which", ["native trees", "ranked trees", "one-hot trees", "forest"])
def test_another_seed_gives_other_trees(data: Data, which: str):
    scores = [data.fit(which, seed).log_odds(data.strangers) for seed in (1, 2)]
    assert np.abs(scores[0] - scores[1]).max() > 0.01


def test_log_odds_are_float64_and_tell_people_apart(data: Data, fitted: Candidate):
    found = fitted.log_odds(data.strangers)
    assert (found.shape, found.dtype) == ((len(data.strangers),), np.dtype("float64"))
    assert np.isfinite(found).all()
    assert found.std() > 0.1


def test_what_was_read_back_scores_bit_for_bit_alike(data: Data, fitted: Candidate, tmp_path: Path):
    fitted.save(tmp_path)
    again = type(fitted).load(tmp_path)
    np.testing.assert_array_equal(again.log_odds(data.strangers), fitted.log_odds(data.strangers))
    some = data.strangers[:50]
    np.testing.assert_array_equal(again.contributions(some), fitted.contributions(some))


def test_what_was_read_back_is_kept_as_it_was(fitted: Candidate, tmp_path: Path):
    first = kept(fitted, tmp_path / "first")
    assert kept(type(fitted).load(tmp_path / "first"), tmp_path / "again") == first


def test_nothing_is_pickled(fitted: Candidate, tmp_path: Path):
    fitted.save(tmp_path)
    files = list(tmp_path.iterdir())
    assert {path.suffix for path in files} <= {".json", ".npy", ".ubj", ".skops"}
    for path in files:
        if path.suffix == ".npy":
            assert np.load(path, allow_pickle=False).dtype == np.float64
        if path.suffix == ".skops":
            with zipfile.ZipFile(path) as parts:
                assert {Path(name).suffix for name in parts.namelist()} <= {".json", ".npy", ".npz"}
                # An array of objects would be a pickle inside of its file.
                arrays = [name for name in parts.namelist() if name.endswith(".npy")]
                assert arrays
                assert all(
                    np.lib.format.read_magic(file) and not object_array(file)
                    for file in map(parts.open, arrays)
                )
        else:
            assert not path.read_bytes().startswith(b"\x80")


def object_array(file: Any) -> bool:
    return np.lib.format.read_array_header_1_0(file)[2].hasobject


def test_a_score_does_not_depend_on_who_else_is_scored(data: Data, fitted: Candidate):
    together = fitted.log_odds(data.strangers)
    np.testing.assert_array_equal(fitted.log_odds(data.strangers[::-1])[::-1], together)
    for one in range(5):
        np.testing.assert_array_equal(fitted.log_odds(data.strangers[[one]]), together[[one]])


def test_contributions_do_not_depend_on_who_else_is_explained(data: Data, fitted: Candidate):
    together = fitted.contributions(data.strangers[:40])
    assert together.shape == (40, data.matrix.shape[1])
    assert together.dtype == np.dtype("float64")
    np.testing.assert_array_equal(fitted.contributions(data.strangers[:3]), together[:3])


@pytest.mark.parametrize("which", [case for case in CASES if case != "forest"])
def test_contributions_add_up_to_the_log_odds(data: Data, which: str):
    fitted = data.fit(which)
    rest = fitted.log_odds(data.strangers) - fitted.contributions(data.strangers).sum(axis=1)
    assert np.ptp(rest) < 1e-5


def test_people_who_answered_nothing_get_finite_log_odds_and_contributions(data: Data, fitted: Candidate):
    nothing = np.full((3, data.matrix.shape[1]), NAN, dtype=np.float32)
    found = fitted.log_odds(nothing)
    assert np.isfinite(found).all()
    assert len(set(found)) == 1
    assert np.isfinite(fitted.contributions(nothing)).all()


def test_answers_that_were_never_seen_are_like_missing_ones(
    data: Data, fitted: Candidate, people: pd.DataFrame, study: Study
):
    some = people.iloc[1_400:1_500]
    nominal = [feature.name for feature in study.features if not feature.is_ordinal]
    unseen = data.encoder.encode(some.assign(**dict.fromkeys(nominal, "9876")))
    missing = data.encoder.encode(some.assign(**dict.fromkeys(nominal, None)))
    np.testing.assert_array_equal(fitted.log_odds(unseen), fitted.log_odds(missing))
    assert len(np.unique(fitted.log_odds(unseen))) > 5


def test_scoring_leaves_the_matrix_as_it_is(data: Data, fitted: Candidate):
    before = data.strangers[:20].copy()
    given = before.copy()
    fitted.log_odds(given)
    fitted.contributions(given)
    np.testing.assert_array_equal(given, before)


def test_a_column_that_nobody_answered_in_training_contributes_nothing(data: Data, case: str):
    kind, parameters = CASES[case]
    matrix = data.matrix.copy()
    empty = [data.encoder.features.index("education"), data.encoder.features.index("religion")]
    matrix[:, empty] = NAN
    found = KINDS[kind].fit(matrix, data.target, data.columns, parameters, 1)
    told = found.contributions(data.strangers[:50])
    np.testing.assert_array_equal(told[:, empty], 0.0)
    assert np.abs(told).sum(axis=1).min() > 0


# Each of them


def test_a_boosters_margin_is_the_one_that_xgboost_itself_predicts(data: Data):
    for which in ("native trees", "ranked trees", "one-hot trees"):
        found = data.fit(which)
        assert isinstance(found, Boosting)
        margin = found.booster.predict(found._data(data.strangers), output_margin=True)
        np.testing.assert_array_equal(found.log_odds(data.strangers), margin.astype(np.float64))


def test_trees_that_part_nobody_score_everybody_alike(data: Data):
    stumps = {"categories": "native", **TREES, "min_child_weight": 1e9}
    found = KINDS["xgboost"].fit(data.matrix, data.target, data.columns, stumps, 1)
    assert len(np.unique(found.log_odds(data.strangers))) == 1


def test_one_hot_trees_explain_an_answer_by_all_columns_of_its_question(data: Data):
    found = data.fit("one-hot trees")
    assert isinstance(found, Boosting)
    assert found.levels is not None
    each = found.booster.predict(found._data(data.strangers), pred_contribs=True)[:, :-1]
    widths = [
        len(values) if wanted else 1
        for values, wanted in zip(found.levels.values, found.categorical, strict=True)
    ]
    ends = np.cumsum(widths)
    assert ends[-1] == each.shape[1]
    by_hand = [each[:, end - width : end].sum(axis=1) for end, width in zip(ends, widths, strict=True)]
    np.testing.assert_allclose(found.contributions(data.strangers), np.column_stack(by_hand), atol=1e-6)


def test_what_logistic_regression_contributes_is_zero_on_average(data: Data):
    told = data.fit("varying slopes").contributions(data.matrix)
    np.testing.assert_allclose(told.mean(axis=0), 0, atol=1e-12)


def test_effects_that_may_vary_differ_between_countries(data: Data):
    country = data.columns.varies_by
    assert country is not None
    other = [column for column in range(data.matrix.shape[1]) if column != country]
    people = np.tile(data.matrix[:1], (2, 1))
    people[:, country] = np.unique(data.matrix[:, country])[:2]

    def spread(case: str) -> float:
        told = data.fit(case).contributions(people)[:, other]
        return float(np.abs(told[0] - told[1]).max())

    assert spread("logistic") == 0
    assert spread("varying slopes") > 0.001


def test_effects_vary_by_nothing_when_the_study_names_nothing(data: Data, study: Study):
    columns = Columns.of(data.encoder, with_policies(study, training={"varies_by": None}))
    kind, parameters = CASES["varying slopes"]
    found = KINDS[kind].fit(data.matrix, data.target, columns, parameters, 1)
    np.testing.assert_allclose(
        found.log_odds(data.strangers), data.fit("logistic").log_odds(data.strangers), atol=1e-8
    )


def test_a_forest_that_is_sure_still_has_finite_log_odds(data: Data):
    kind, parameters = CASES["forest"]
    matrix = np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32)
    columns = Columns((False,), (), None)
    sure = KINDS[kind].fit(matrix, matrix[:, 0], columns, parameters | {"max_features": 1.0}, 1)
    assert np.isfinite(sure.log_odds(matrix)).all()


def test_starting_points_know_the_study(study: Study):
    trees = with_policies(study, training={"xgboost": {"rounds": 41}}).policies.training
    assert [one["rounds"] for one in Boosting.starting_points(trees)] == [41, 41, 41]
    assert [one["categories"] for one in Boosting.starting_points(trees)] == ["ranked", "native", "one_hot"]
    fixed = with_policies(study, training={"varies_by": None}).policies.training
    assert [one["strength"] for one in KINDS["logistic"].starting_points(fixed)] == [0.0]


# Files that somebody tampered with


class Planted:
    """An object of a type that no model has a reason to hold."""

    def __init__(self) -> None:
        self.command = "rm -rf /"


def test_objects_among_the_weights_are_not_loaded(data: Data, tmp_path: Path):
    data.fit("logistic").save(tmp_path)
    np.save(tmp_path / "weights.npy", np.array([Planted()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Logistic.load(tmp_path)


def test_an_object_of_a_foreign_type_is_not_loaded(data: Data, tmp_path: Path):
    data.fit("forest").save(tmp_path)
    skops.io.dump(Planted(), tmp_path / "forest.skops")
    with pytest.raises(UntrustedTypesFoundException, match="Planted"):
        Forest.load(tmp_path)


def test_a_foreign_object_hidden_within_a_model_is_not_loaded(data: Data, tmp_path: Path):
    data.fit("forest").save(tmp_path)
    file = tmp_path / "forest.skops"
    inner = skops.io.load(file, trusted=["sklearn.tree._tree.Tree"])
    inner.planted = Planted()
    skops.io.dump(inner, file)
    with pytest.raises(UntrustedTypesFoundException, match="Planted"):
        Forest.load(tmp_path)


def test_a_blend_of_a_kind_that_is_none_is_not_loaded(data: Data, tmp_path: Path):
    Blend([data.fit("logistic")], [1.0]).save(tmp_path)
    text = (tmp_path / "blend.json").read_text()
    (tmp_path / "blend.json").write_text(text.replace('"kind": "logistic"', '"kind": "oracle"'))
    with pytest.raises(KeyError, match="oracle"):
        Blend.load(tmp_path)


# The one-hot layout

ANSWERS = np.array([[0, 5], [0, 7], [2, 7], [2, NAN], [9, 7]], dtype=np.float32)


def test_only_values_that_stand_often_enough_get_a_column():
    assert OneHotLayout.fit(ANSWERS, at_least=2).values == ((0.0, 2.0), (7.0,))
    assert OneHotLayout.fit(ANSWERS, at_least=1).values == ((0.0, 2.0, 9.0), (5.0, 7.0))
    assert OneHotLayout.fit(ANSWERS, at_least=4).values == ((), ())


def test_columns_are_counted_on_from_feature_to_feature():
    assert OneHotLayout(((0.0, 2.0, 9.0), (), (5.0, 7.0))).starts == [0, 3, 3, 5]


def test_rare_unseen_and_missing_answers_have_no_position():
    levels = OneHotLayout.fit(ANSWERS, at_least=2)
    asked = np.array([[0, 7], [2, 5], [9, NAN], [NAN, 8], [-1, 6.5], [1, 100]], dtype=np.float32)
    found = [[0, 2], [1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1]]
    assert levels.positions(asked).tolist() == found


def test_a_column_without_levels_has_no_position():
    levels = OneHotLayout(((), (1.0,)))
    assert levels.positions(np.array([[3.0, 1.0], [NAN, NAN]])).tolist() == [[-1, 0], [-1, -1]]


def test_the_sparse_matrix_has_a_one_for_each_answer():
    found = OneHotLayout.fit(ANSWERS, at_least=2).sparse(ANSWERS)
    assert found.toarray().tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_products_stand_after_the_answers_for_each_value_that_effects_vary_by():
    levels = OneHotLayout(((0.0, 2.0), (5.0, 7.0)))
    asked = np.array([[0, 5], [2, 5], [2, 7], [NAN, 7], [2, NAN]], dtype=np.float32)
    found = levels.sparse(asked, varies_by=0, strength=0.5).toarray()
    answers, for_0, for_2 = found[:, :4], found[:, 4:8], found[:, 8:]
    assert answers.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert for_0.tolist() == [[0, 0, 0.5, 0], *[[0, 0, 0, 0]] * 4]
    none = [0, 0, 0, 0]
    assert for_2.tolist() == [none, [0, 0, 0.5, 0], [0, 0, 0, 0.5], none, none]


def test_no_strength_means_no_products():
    levels = OneHotLayout(((0.0, 2.0), (5.0, 7.0)))
    assert levels.sparse(ANSWERS, varies_by=0, strength=0.0).shape == (5, 4)


def test_each_row_of_the_sparse_matrix_is_of_its_own_answers(data: Data):
    levels = OneHotLayout.fit(data.matrix, MIN_ROWS_OF_A_LEVEL)
    some = data.strangers[:30]
    whole = levels.sparse(some, data.columns.varies_by, 0.6)
    for row in range(30):
        alone = levels.sparse(some[[row]], data.columns.varies_by, 0.6)
        assert (whole[[row]] != alone).nnz == 0
        assert whole.shape[1] == alone.shape[1]


def test_the_dense_matrix_leaves_quantities_as_they_are():
    levels = OneHotLayout.fit(ANSWERS, at_least=1)
    found = levels.dense(ANSWERS, [True, False])
    assert found.dtype == np.float32
    expected = [[1, 0, 0, 5], [1, 0, 0, 7], [0, 1, 0, 7], [0, 1, 0, NAN], [0, 0, 1, 7]]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


def test_a_dense_category_that_is_unknown_is_all_zeros():
    levels = OneHotLayout(((0.0, 2.0), ()))
    asked = np.array([[1, 3], [NAN, 3]], dtype=np.float32)
    assert levels.dense(asked, [True, True]).tolist() == [[0, 0], [0, 0]]


# Masked copies


def test_a_share_of_the_rows_comes_once_more_with_the_masked_columns_hidden(data: Data):
    matrix, target = data.strangers, np.arange(len(data.strangers), dtype=np.float32)
    both, labels = with_masked_copies(matrix, target, (0, 3), 0.25, seed=7)
    copies, of = both[len(matrix) :], labels[len(matrix) :].astype(int)
    np.testing.assert_array_equal(both[: len(matrix)], matrix)
    np.testing.assert_array_equal(labels[: len(matrix)], target)
    assert len(copies) == pytest.approx(0.25 * len(matrix), rel=0.3)
    assert len(set(of)) == len(of)
    expected = matrix[of].copy()
    expected[:, [0, 3]] = NAN
    np.testing.assert_array_equal(copies, expected)


def test_masked_copies_leave_the_given_rows_alone(data: Data):
    before = data.strangers.copy()
    with_masked_copies(data.strangers, np.zeros(len(before)), (0,), 1.0, seed=7)
    np.testing.assert_array_equal(data.strangers, before)


@pytest.mark.parametrize(("share", "times"), [(0.0, 1), (1.0, 2)])
def test_none_and_all_of_the_rows_can_be_masked(data: Data, share: float, times: int):
    both, labels = with_masked_copies(data.strangers, np.zeros(len(data.strangers)), (0,), share, seed=7)
    assert (len(both), len(labels)) == (times * len(data.strangers),) * 2


def test_the_same_seed_masks_the_same_rows(data: Data):
    target = np.zeros(len(data.strangers))
    first, second, other = (
        with_masked_copies(data.strangers, target, (0,), 0.3, seed)[0] for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape != other.shape or not np.array_equal(first, other, equal_nan=True)


# The layout in the order of the target

NAMES = np.array([[0.0, 5.0], [0.0, 6.0], [2.0, 7.0], [2.0, 8.0], [3.0, 9.0], [3.0, 5.0]], dtype=np.float32)
ONES = np.array([1, 1, 0, 0, 1, 0], dtype=np.float32)


def test_categories_stand_in_the_order_of_their_share_of_ones():
    ranks = TargetOrderedLayout.fit(NAMES, ONES, (True, False), at_most=3)
    assert ranks.ranked(NAMES)[:, 0].tolist() == [2, 2, 0, 0, 1, 1]
    assert ranks.ranked(NAMES)[:, 1].tolist() == NAMES[:, 1].tolist()


def test_a_category_that_nobody_had_has_no_rank():
    ranks = TargetOrderedLayout.fit(NAMES, ONES, (True, False), at_most=3)
    asked = np.array([[1.0, 5.0], [4.0, 5.0], [np.nan, np.nan], [3.0, 5.0]], dtype=np.float32)
    assert np.isnan(ranks.ranked(asked)[:, 0]).tolist() == [True, True, True, False]


def test_a_column_of_many_categories_stays_as_it_is():
    ranks = TargetOrderedLayout.fit(NAMES, ONES, (True, True), at_most=3)
    assert ranks.ranks[0] is not None
    assert ranks.ranks[1] is None


def test_ranks_come_back_from_their_lists():
    ranks = TargetOrderedLayout.fit(NAMES, ONES, (True, False), at_most=3)
    again = TargetOrderedLayout.from_lists(json.loads(json.dumps(ranks.to_lists())))
    np.testing.assert_array_equal(again.ranked(NAMES), ranks.ranked(NAMES))
    assert again.to_lists() == ranks.to_lists()
