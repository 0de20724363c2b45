"""The configuration: it survives JSON, and the untuned one is the study's own boosted trees."""

from __future__ import annotations

import json

import pytest

from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.training_configuration import Member, TrainingConfiguration
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies

MIXED = TrainingConfiguration(
    (
        Member("xgboost", {"categories": "one_hot", "rounds": 20, "eta": 0.1 + 0.2}, 1 / 3),
        Member("logistic", {"C": 0.1, "strength": 0.0}, 2 / 3),
    ),
    Calibration(0.9, -0.01),
    ContactRule(1 / 7, 250),
)


@pytest.mark.parametrize("which", ["mixed", "untuned"])
def test_a_configuration_survives_json_digit_for_digit(study: Study, which: str):
    configuration = MIXED if which == "mixed" else TrainingConfiguration.untuned(study)
    again = TrainingConfiguration.from_dict(json.loads(json.dumps(configuration.to_dict())))
    assert again == configuration
    assert isinstance(again.members, tuple)


def test_a_configuration_without_a_capacity_survives_json():
    configuration = TrainingConfiguration(MIXED.members, Calibration(), ContactRule(0.4))
    assert (
        TrainingConfiguration.from_dict(json.loads(json.dumps(configuration.to_dict()))).rule.capacity is None
    )


def test_every_number_of_the_training_policy_is_in_the_untuned_configuration(study: Study):
    numbers = {
        "rounds": 33,
        "learning_rate": 0.21,
        "max_depth": 3,
        "min_child_weight": 4.0,
        "subsample": 0.55,
        "colsample": 0.65,
    }
    (one,) = TrainingConfiguration.untuned(with_policies(study, training={"xgboost": numbers})).members
    assert (one.kind, one.weight) == ("xgboost", 1.0)
    assert (
        one.parameters
        == Boosting.starting_points(with_policies(study, training={"xgboost": numbers}).policies.training)[0]
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


def test_the_untuned_configuration_contacts_from_the_studys_threshold_on(study: Study):
    strict = with_policies(study, contact={"threshold": 0.8})
    assert TrainingConfiguration.untuned(strict).rule == ContactRule(0.8)


def test_a_member_says_in_words_what_it_is():
    assert MIXED.members[0].in_words() == "33% xgboost (categories one_hot, rounds 20, eta 0.3)"
