"""The recipe: it survives JSON, and the untuned one is the study's own boosted trees."""

from __future__ import annotations

import json

import pytest

from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.recipe import Ingredient, Recipe
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies

MIXED = Recipe(
    (
        Ingredient("xgboost", {"categories": "one_hot", "rounds": 20, "eta": 0.1 + 0.2}, 1 / 3),
        Ingredient("logistic", {"C": 0.1, "strength": 0.0}, 2 / 3),
    ),
    Calibration(0.9, -0.01),
    ContactRule(1 / 7, 250),
)


@pytest.mark.parametrize("which", ["mixed", "untuned"])
def test_a_recipe_survives_json_digit_for_digit(study: Study, which: str):
    recipe = MIXED if which == "mixed" else Recipe.untuned(study)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert isinstance(again.ingredients, tuple)


def test_a_recipe_without_a_capacity_survives_json():
    recipe = Recipe(MIXED.ingredients, Calibration(), ContactRule(0.4))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))).rule.capacity is None


def test_every_number_of_the_training_policy_is_in_the_untuned_recipe(study: Study):
    numbers = {
        "rounds": 33,
        "learning_rate": 0.21,
        "max_depth": 3,
        "min_child_weight": 4.0,
        "subsample": 0.55,
        "colsample": 0.65,
    }
    (one,) = Recipe.untuned(with_policies(study, training=numbers)).ingredients
    assert (one.kind, one.weight) == ("xgboost", 1.0)
    assert (
        one.parameters
        == Boosting.starting_points(with_policies(study, training=numbers).policies.training)[0]
    )
    assert one.parameters == {
        "categories": "ranked",
        "rounds": 33,
        "eta": 0.21,
        "max_depth": 3,
        "min_child_weight": 4.0,
        "subsample": 0.55,
        "colsample_bytree": 0.65,
        "lambda": 1.0,
    }


def test_the_untuned_recipe_contacts_from_the_studys_threshold_on(study: Study):
    strict = with_policies(study, contact={"threshold": 0.8})
    assert Recipe.untuned(strict).rule == ContactRule(0.8)


def test_an_ingredient_says_in_words_what_it_is():
    assert MIXED.ingredients[0].in_words() == "33% xgboost (categories one_hot, rounds 20, eta 0.3)"
