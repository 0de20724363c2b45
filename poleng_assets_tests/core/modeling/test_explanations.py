"""Why a score is high: the contributions of the model, in the words of the answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.explanations import strongest_reasons
from poleng_assets.core.modeling.model import Model, train
from poleng_assets.core.modeling.training_configuration import Member, TrainingConfiguration
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.core.statistics.proxies import cramers_v, proxies, shown_proxies
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies

BOOSTED = {"rounds": 20, "eta": 0.2, "max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.5}
NATIVE = Member("xgboost", {"categories": "native", **BOOSTED})
ONE_HOT = Member("xgboost", {"categories": "one_hot", **BOOSTED})
LOGISTIC = Member("logistic", {"C": 0.1, "strength": 0.5})
CONFIGURATIONS = {
    "native trees": ((NATIVE,), Calibration()),
    "one-hot trees": ((ONE_HOT,), Calibration(1.1, 0.2)),
    "a blend": ((replace(ONE_HOT, weight=0.4), replace(LOGISTIC, weight=0.6)), Calibration(0.9, -0.1)),
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def small_model(quick_study: Study, training_rows, request: pytest.FixtureRequest) -> Model:
    members, calibration = CONFIGURATIONS[request.param]
    return train(training_rows, quick_study, TrainingConfiguration(members, calibration, ContactRule(0.5)))


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
    open_study = with_policies(study, contact={"shown_reasons": tuple(study.feature_names)})
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
        for reason in small_split(text):
            feature = next(f for title, f in by_title.items() if reason.startswith(f"{title}: "))
            assert reason == f"{feature.title}: {feature.label(person[feature.name])}"


def test_only_answers_that_raise_the_score_are_reasons(
    small_model: Model, strangers: pd.DataFrame, study: Study
):
    raising = (small_model.contributions(strangers) > 0).sum(axis=1)
    open_study = with_policies(study, contact={"shown_reasons": tuple(study.feature_names), "reasons": 30})
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


def told_titles(model: Model, strangers: pd.DataFrame, study: Study, **contact: Any) -> set[str]:
    asked = with_policies(study, contact={"reasons": 40, **contact})
    texts = strongest_reasons(model, strangers, asked)
    return {title for text in texts for title in titles(text) if title}


def test_only_what_the_study_lists_is_told(small_model: Model, strangers: pd.DataFrame, study: Study):
    listed = {study.feature(name).title for name in study.policies.contact.shown_reasons or ()}
    told = told_titles(small_model, strangers, study)
    assert told
    assert told <= listed
    assert told_titles(small_model, strangers, study, shown_reasons=()) == set()
    assert told_titles(small_model, strangers, study, shown_reasons=("country",)) == {
        study.feature("country").title
    }


def test_the_shipped_study_tells_nothing_that_is_protected_or_stands_for_it(
    study: Study, training_rows: pa.Table
):
    shown = study.policies.contact.shown_reasons or ()
    assert not {*shown} & {*study.protected}
    assert not {*shown} & {*proxies(training_rows, study)}
    assert not {*shown} & {"immigrant_mother", "birth_country", "employment", "marital_status", "religion"}


def test_a_study_that_only_withholds_tells_nothing_protected_nor_what_stands_for_it(
    small_model: Model, strangers: pd.DataFrame, study: Study, training_rows: pa.Table, tmp_path: Path
):
    measured = proxies(training_rows, study)
    assert {"birth_country", "employment"} <= set(measured)
    replace(small_model, proxies=measured).save(tmp_path)
    small_model = Model.load(tmp_path)
    earlier = {"shown_reasons": None, "withheld_reasons": ("religion",)}
    told = told_titles(small_model, strangers, study, **earlier)
    secret = {*study.protected, *measured, "religion"}
    assert told
    assert not told & {study.feature(name).title for name in secret}


def test_a_model_whose_training_nobody_measured_tells_nothing_unless_the_study_lists_it(
    small_model: Model, strangers: pd.DataFrame, study: Study
):
    assert small_model.proxies is None
    assert told_titles(small_model, strangers, study, shown_reasons=None) == set()


def test_what_is_withheld_is_not_told_even_when_it_is_listed(
    small_model: Model, strangers: pd.DataFrame, study: Study
):
    both = {"shown_reasons": tuple(study.feature_names), "withheld_reasons": ("country",)}
    assert study.feature("country").title not in told_titles(small_model, strangers, study, **both)


def test_two_properties_that_tell_each_other_are_fully_associated():
    assert cramers_v(np.diag([40.0, 60.0])) == pytest.approx(1, abs=0.02)
    assert cramers_v(np.array([[20.0, 30.0], [40.0, 60.0]])) == 0
    assert cramers_v(np.array([[5.0, 7.0]])) == 0
    assert cramers_v(np.zeros((2, 2))) == 0


def test_a_single_answer_can_give_a_protected_one_away(study: Study):
    """Few tick it, so that the association is small; who does is a woman."""
    few = 60
    sex = np.where(np.arange(2_000) % 2 == 0, 1, 2)
    work = np.where(np.arange(2_000) < few, 5, 1)
    sex[:few] = 2
    codes = {name: np.ones(2_000, dtype=int) for name in study.feature_names}
    rows = pa.table({**codes, "sex": sex, "employment_sector": work})
    loose = with_policies(study, contact={"max_association": 1.0})
    assert set(proxies(rows, loose)) == {"employment_sector"}
    assert "60 people" in proxies(rows, loose)["employment_sector"]


def test_a_study_that_shows_what_stands_for_something_protected_is_told_so(study: Study):
    careless = with_policies(study, contact={"shown_reasons": ("sex", "employment", "income_scale")})
    words = shown_proxies(careless, {"employment": "Sex (association 0.37)"})
    assert "Sex is protected, and contact lists may show it as a reason" in words
    title = study.feature("employment").title
    assert f"{title} may be shown as a reason, and is a proxy for Sex (association 0.37)" in words
    assert not any(study.feature("income_scale").title in one for one in words)


def test_nobody_needs_no_reasons(small_model: Model, strangers: pd.DataFrame, study: Study):
    assert strongest_reasons(small_model, strangers.head(0), study) == []


def test_a_missing_answer_is_told_as_such(small_model: Model, strangers: pd.DataFrame, study: Study):
    gone = strangers.assign(country=None)
    everything = with_policies(study, contact={"shown_reasons": tuple(study.feature_names), "reasons": 32})
    told = "; ".join(strongest_reasons(small_model, gone, everything))
    title = study.feature("country").title
    assert f"{title}: no answer" in told
