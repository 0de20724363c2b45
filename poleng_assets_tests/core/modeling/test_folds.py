"""Folds: what belongs together stays together, and each fold is like the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.modeling.folds import fold_of
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table, with_policies


@pytest.fixture(scope="module")
def rows(people: pd.DataFrame) -> pd.DataFrame:
    return people.iloc[:1_200].reset_index(drop=True)


def folds(frame: pd.DataFrame, study: Study) -> np.ndarray:
    return fold_of(as_table(frame), study)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_row_has_a_fold_and_folds_are_of_equal_size(rows: pd.DataFrame, study: Study, count: int):
    found = folds(rows, with_policies(study, training={"folds": count}))
    assert found.shape == (len(rows),)
    sizes = np.bincount(found)
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 2


def test_every_fold_has_the_same_share_of_each_class(rows: pd.DataFrame, study: Study):
    positive = rows.groupby(folds(rows, study))[study.target.name].sum()
    assert positive.max() - positive.min() <= 1


def test_the_rows_of_one_person_stand_in_one_fold(rows: pd.DataFrame, study: Study):
    # Every person answers twice, the second time like somebody else.
    again = rows.assign(**{study.id: np.roll(rows[study.id].to_numpy(), 400)})
    both = pd.concat([rows.iloc[:300], again.iloc[400:700]], ignore_index=True)
    assert both[study.id].nunique() == 300
    found = folds(both, study)
    np.testing.assert_array_equal(found[:300], found[300:])
    assert len(set(found)) == 3


def test_the_very_same_answers_stand_in_one_fold(rows: pd.DataFrame, study: Study):
    copies = rows.iloc[:300].assign(**{study.id: [f"copy {n}" for n in range(300)]})
    found = folds(pd.concat([rows.iloc[:600], copies], ignore_index=True), study)
    np.testing.assert_array_equal(found[600:], found[:300])


def test_missing_answers_are_answers_like_any_other(rows: pd.DataFrame, study: Study):
    some = rows.iloc[:200].assign(education=None)
    copies = some.assign(**{study.id: [f"copy {n}" for n in range(200)]})
    found = folds(pd.concat([some, copies], ignore_index=True), study)
    np.testing.assert_array_equal(found[200:], found[:200])
    assert len(set(found)) == 3


def test_people_hang_together_over_others(rows: pd.DataFrame, study: Study):
    # 0 and 1 are one person; 1 and 2 answer alike; 2 and 3 are one person; ...
    chain = rows.iloc[:60].copy()
    chain[study.id] = [f"person {(n + 1) // 2}" for n in range(60)]
    chain[study.feature_names] = rows[study.feature_names].iloc[[n // 2 for n in range(60)]].to_numpy()
    found = folds(pd.concat([chain, rows.iloc[60:300]], ignore_index=True), study)
    assert len(set(found[:60])) == 1
    assert set(found[60:]) == {0, 1, 2}


def test_the_same_rows_get_the_same_folds(rows: pd.DataFrame, study: Study):
    np.testing.assert_array_equal(folds(rows, study), folds(rows.copy(), study))


def test_another_seed_deals_out_otherwise(rows: pd.DataFrame, study: Study):
    other = with_policies(study, training={"seed": 24})
    assert (folds(rows, study) != folds(rows, other)).mean() > 0.4


def test_folds_are_no_matter_of_where_a_row_stands(rows: pd.DataFrame, study: Study):
    found = folds(rows.sort_values(study.target.name, kind="stable"), study)
    assert all(len(set(part)) == 3 for part in np.array_split(found, 20))
