"""Contributions of boosted trees are those of XGBoost, whatever the trees and the rows are like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from poleng_assets.core.modeling.candidates.tree_shap import ROWS, TreeShap

COLUMNS = 6
CATEGORIES = 9
# As exact as sums of a few hundred float32 are.
CLOSE = 2e-5


def rows_of(number: int, seed: int, missing: float = 0.1) -> np.ndarray:
    """Return made-up answers: whole numbers, of which the first column's are categories."""
    chance = np.random.default_rng(seed)
    rows = chance.integers(0, CATEGORIES, (number, COLUMNS)).astype(np.float32)
    rows[chance.random(rows.shape) < missing] = np.nan
    return rows


def grown(rounds: int = 30, seed: int = 1, **settings: Any) -> tuple[xgboost.Booster, list[str]]:
    """Return trees in which columns come again on the way down, and the types of their columns."""
    rows, types = rows_of(600, seed), ["c", *["q"] * (COLUMNS - 1)]
    chance = np.random.default_rng(seed)
    odds = np.nan_to_num(rows[:, 1] * (rows[:, 0] % 3) - rows[:, 2] * rows[:, 3] / 2)
    target = (odds + chance.normal(0, 3, len(rows)) > odds.mean()).astype(float)
    data = xgboost.DMatrix(rows, target, feature_types=types, enable_categorical=True)
    given = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1, "min_child_weight": 1}
    return xgboost.train(given | settings, data, rounds), types


def told_by_xgboost(booster: xgboost.Booster, types: list[str], rows: np.ndarray) -> np.ndarray:
    data = xgboost.DMatrix(rows, feature_types=types, enable_categorical=True)
    return np.asarray(booster.predict(data, pred_contribs=True)[:, :-1])


@pytest.mark.parametrize(
    "settings",
    [
        {"max_depth": 1},
        {"max_depth": 2},
        {"max_depth": 5},
        {"max_depth": 8},
        {"max_depth": 13, "min_child_weight": 0},
        {"max_depth": 0, "max_leaves": 40, "grow_policy": "lossguide"},
        {"max_depth": 6, "gamma": 3.0},
        {"max_depth": 6, "max_cat_to_onehot": 100},
        {"max_depth": 6, "base_score": 0.1, "lambda": 0.0},
    ],
    ids=str,
)
def test_they_are_what_xgboost_tells(settings: dict[str, Any]):
    booster, types = grown(**settings)
    rows = rows_of(5 * ROWS + 3, seed=2)
    told = told_by_xgboost(booster, types, rows)
    assert np.abs(told).max() > 0.1
    np.testing.assert_allclose(TreeShap.of(booster).contributions(rows), told, atol=CLOSE)


def test_trees_that_ask_nothing_contribute_nothing():
    booster, _ = grown(rounds=3, gamma=1e6)
    np.testing.assert_array_equal(TreeShap.of(booster).contributions(rows_of(4, seed=3)), 0.0)


def test_trees_of_different_depths_stand_side_by_side():
    booster, types = grown(rounds=40, max_depth=7, gamma=1.5)
    depths = {tree.count("\t") for tree in booster.get_dump()}
    assert len(depths) > 1
    rows = rows_of(50, seed=4)
    found = TreeShap.of(booster).contributions(rows)
    np.testing.assert_allclose(found, told_by_xgboost(booster, types, rows), atol=CLOSE)


@pytest.mark.parametrize("code", [-1.0, CATEGORIES, CATEGORIES + 20.0])
def test_a_category_that_nobody_had_goes_where_xgboost_sends_it(code: float):
    booster, _ = grown(max_depth=6)
    rows = rows_of(30, seed=5)
    rows[:, 0] = code
    shap = TreeShap.of(booster)
    assert len(shap.questions.nominal) > 0
    found = shap.contributions(rows)
    # XGBoost refuses to build a matrix of negative categories, and predicts with them all the same.
    margin = booster.inplace_predict(rows, predict_type="margin")
    rest = margin - found.sum(axis=1)
    assert np.ptp(rest) < CLOSE


def test_no_rows_have_no_contributions():
    booster, _ = grown(rounds=2)
    assert TreeShap.of(booster).contributions(rows_of(0, seed=6)).shape == (0, COLUMNS)


def test_a_row_is_told_the_same_to_the_last_bit_alone_and_in_any_company():
    booster, _ = grown(rounds=60, max_depth=8)
    shap, rows = TreeShap.of(booster), rows_of(3 * ROWS, seed=7)
    together = shap.contributions(rows)
    for number in range(1, ROWS + 2):
        np.testing.assert_array_equal(shap.contributions(rows[-number:]), together[-number:])
    np.testing.assert_array_equal(shap.contributions(rows[::-1])[::-1], together)
