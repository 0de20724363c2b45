"""Why a score is high: the contributions of the model, in the words of the answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.calibration import Calibration
from poleng_assets.core.contact_rule import ContactRule
from poleng_assets.core.model import Model, train
from poleng_assets.core.reasons import strongest_reasons
from poleng_assets.core.recipe import Ingredient, Recipe
from poleng_assets.study import Study
from poleng_assets_tests.conftest import with_policies

BOOSTED = {"rounds": 20, "eta": 0.2, "max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.5}
NATIVE = Ingredient("xgboost", {"categories": "native", **BOOSTED})
ONE_HOT = Ingredient("xgboost", {"categories": "one_hot", **BOOSTED})
LOGISTIC = Ingredient("logistic", {"C": 0.1, "strength": 0.5})
RECIPES = {
    "native trees": ((NATIVE,), Calibration()),
    "one-hot trees": ((ONE_HOT,), Calibration(1.1, 0.2)),
    "a blend": ((replace(ONE_HOT, weight=0.4), replace(LOGISTIC, weight=0.6)), Calibration(0.9, -0.1)),
}


@pytest.fixture(scope="module", params=RECIPES)
def small_model(quick_study: Study, training_rows, request: pytest.FixtureRequest) -> Model:
    ingredients, calibration = RECIPES[request.param]
    return train(training_rows, quick_study, Recipe(ingredients, calibration, ContactRule(0.5)))


@pytest.fixture(scope="module")
def strangers(people: pd.DataFrame) -> pd.DataFrame:
    return people.iloc[3_000:3_200].reset_index(drop=True)


def titles(text: str) -> list[str]:
    return [reason.split(": ")[0] for reason in text.split("; ")]


def test_contributions_add_up_to_the_score(small_model: Model, strangers: pd.DataFrame):
    score = small_model.score(strangers)
    log_odds = np.log(score / (1 - score))
    constant = log_odds - small_model.contributions(strangers).sum(axis=1)
    assert constant.std() < 1e-4
    assert log_odds.std() > 0.05


def test_the_first_reason_is_the_answer_that_raises_the_score_most(
    small_model: Model, strangers: pd.DataFrame, study: Study
):
    open_study = with_policies(study, contact={"withheld_reasons": ()})
    largest = small_model.contributions(strangers).argmax(axis=1)
    told = strongest_reasons(small_model, strangers, open_study)
    assert [titles(text)[0] for text in told] == [study.features[position].title for position in largest]


def test_each_reason_is_told_in_the_words_of_the_answer(
    small_model: Model, strangers: pd.DataFrame, study: Study
):
    by_title = {feature.title: feature for feature in study.features}
    for text, (_, person) in zip(
        strongest_reasons(small_model, strangers, study), strangers.iterrows(), strict=True
    ):
        for reason in text.split("; "):
            feature = next(f for title, f in by_title.items() if reason.startswith(f"{title}: "))
            assert reason == f"{feature.title}: {feature.label(person[feature.name])}"


def test_only_answers_that_raise_the_score_are_reasons(
    small_model: Model, strangers: pd.DataFrame, study: Study
):
    raising = (small_model.contributions(strangers) > 0).sum(axis=1)
    open_study = with_policies(study, contact={"withheld_reasons": (), "reasons": 30})
    told = strongest_reasons(small_model, strangers, open_study)
    assert [len(small_split(text)) for text in told] == np.minimum(raising, 30).tolist()


def small_split(text: str) -> list[str]:
    return text.split("; ") if text else []


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_no_more_reasons_are_told_than_the_study_asks_for(
    small_model: Model, strangers: pd.DataFrame, study: Study, asked: int
):
    told = strongest_reasons(small_model, strangers, with_policies(study, contact={"reasons": asked}))
    assert max(len(small_split(text)) for text in told) == asked


def test_withheld_answers_are_never_told(small_model: Model, strangers: pd.DataFrame, study: Study):
    strict = with_policies(study, contact={"withheld_reasons": ("country",), "reasons": 30})
    told = strongest_reasons(small_model, strangers, strict)
    assert not any(study.feature("country").title in titles(text) for text in told)


def test_nobody_needs_no_reasons(small_model: Model, strangers: pd.DataFrame, study: Study):
    assert strongest_reasons(small_model, strangers.head(0), study) == []


def test_a_missing_answer_is_told_as_such(small_model: Model, strangers: pd.DataFrame, study: Study):
    gone = strangers.assign(country=None)
    everything = with_policies(study, contact={"withheld_reasons": (), "reasons": 32})
    told = "; ".join(strongest_reasons(small_model, gone, everything))
    title = study.feature("country").title
    assert f"{title}: no answer" in told
