"""The request for a field study: how many people, of which kinds, and who."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from poleng_assets.core.monitoring.label_request import (
    AUDIT,
    DRAWN,
    FieldStudyRequest,
    allocate,
    half_width,
    interviews_needed,
    plan_request,
)
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies


def scored(rows: int = 6_000, seed: int = 1, **columns: Any) -> pd.DataFrame:
    """People of one batch, of two countries that are new and one that is not."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "subject_id": [f"p{number:05}" for number in range(rows)],
            "batch": "b1",
            "score": random.beta(2, 4, rows),
            "audit": random.random(rows) < 0.02,
            "known": False,
            "country": random.choice(["20", "32", "76"], rows, p=[0.5, 0.3, 0.2]),
            "religion": random.choice(np.array(["1", "6", None], dtype=object), rows),
            **columns,
        }
    )


def asked(request: FieldStudyRequest) -> set[str]:
    return set(request.people["subject_id"])


# How many


CASES = pytest.mark.parametrize(("auc", "rate"), [(0.65, 0.3), (0.75, 0.3), (0.75, 0.5), (0.85, 0.15)])


def interval(auc: float, rate: float, people: int, draw: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return half the width of the middle 95 % of the AUC over studies of so many people."""
    random = np.random.default_rng(3)
    targets = random.random((400, people)) < rate
    found = [roc_auc_score(target, draw(target)) for target in targets]
    assert np.mean(found) == pytest.approx(auc, abs=0.005)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(high - low) / 2


@CASES
def test_so_many_interviews_make_the_interval_as_narrow_as_promised(auc: float, rate: float):
    # Exponential scores, for which Hanley and McNeil's variance is exact.
    people, random = interviews_needed(auc, rate, 0.04), np.random.default_rng(4)
    found = interval(
        auc, rate, people, lambda target: random.exponential(np.where(target, auc / (1 - auc), 1))
    )
    assert found == pytest.approx(0.04, rel=0.15)


@CASES
def test_for_scores_of_two_normal_populations_the_interval_is_no_wider(auc: float, rate: float):
    from scipy.stats import norm

    people, random = interviews_needed(auc, rate, 0.04), np.random.default_rng(4)
    found = interval(auc, rate, people, lambda target: random.normal(2**0.5 * norm.ppf(auc) * target))
    assert 0.7 * 0.04 < found < 1.1 * 0.04


def test_the_size_is_the_smallest_that_reaches_the_precision():
    people = interviews_needed(0.72, 0.33, 0.03)
    assert half_width(0.72, 0.33, people) <= 0.03 < half_width(0.72, 0.33, people - 1)


def test_more_people_are_needed_for_a_worse_model_a_rarer_target_and_a_finer_answer():
    usual = interviews_needed(0.75, 0.4, 0.03)
    assert interviews_needed(0.65, 0.4, 0.03) > usual
    assert interviews_needed(0.75, 0.1, 0.03) > usual
    assert interviews_needed(0.75, 0.4, 0.02) > 2 * usual
    assert interviews_needed(0.3, 0.4, 0.03) == interviews_needed(0.5, 0.4, 0.03)


def test_an_interval_of_one_class_is_infinite():
    assert half_width(0.7, 0.0, 100) == half_width(0.7, 1.0, 100) == float("inf")


# Of which kinds


def test_interviews_go_where_many_people_are_and_little_is_known():
    given = allocate(np.array([1000, 1000, 2000]), np.array([0.5, 0.25, 0.25]), 400, 1)
    assert given.tolist() == [160, 80, 160]


@pytest.mark.parametrize("total", [0, 1, 57, 400, 999, 1_830, 5_000])
def test_no_stratum_gives_more_people_than_it_has_or_fewer_than_the_least(total: int):
    people, spread = np.array([3, 40, 700, 1_000, 87]), np.array([0.5, 0.1, 0.0, 0.4, 0.3])
    given = allocate(people, spread, total, 30)
    least = np.minimum(people, 30)
    assert (given >= least).all()
    assert (given <= people).all()
    assert given.sum() == min(max(total, least.sum()), people.sum())


def test_each_stratum_is_named_by_what_drifted_and_how_uncertain_the_scores_are(study: Study):
    strata = plan_request(scored(), ["country"], study).strata.set_index("stratum")
    assert len(strata) == 9
    label = study.feature("country").label("20")
    uncertain = strata.loc[f"Country of the interview: {label}, uncertain score, 0.35 to 0.65"]
    sure = strata.loc[f"Country of the interview: {label}, score below 0.35"]
    assert uncertain["interviews"] / uncertain["people"] > 1.1 * sure["interviews"] / sure["people"]
    assert strata["people"].sum() == 6_000


def test_every_stratum_gets_the_least_as_far_as_it_has_people(study: Study):
    strata = plan_request(scored(1_200), ["country"], study).strata
    assert (
        strata["interviews"] >= np.minimum(strata["people"], study.policies.outcomes.min_interviews)
    ).all()
    assert (strata["interviews"] <= strata["people"]).all()


def test_answers_of_few_people_stand_together(study: Study):
    people = scored()
    people.loc[:9, "country"] = "76"
    people.loc[10:29, "country"] = "124"
    people.loc[30:49, "country"] = "152"
    names = plan_request(people, ["country"], study).strata["stratum"]
    assert not names.str.contains("Canada|Chile").any()
    assert names.str.startswith("other answers").any()


def test_bands_of_few_people_stand_together(study: Study):
    people = scored().query("score < 0.65")
    few = people.iloc[:10].assign(score=0.9, subject_id=[f"q{n}" for n in range(10)], country="20")
    names = plan_request(pd.concat([people, few]), ["country"], study).strata["stratum"]
    first = names[names.str.contains(study.feature("country").label("20"))]
    assert first.str.removeprefix(first.iloc[0].rsplit(", ", 1)[0] + ", ").tolist() == [
        "score above 0.35",
        "score below 0.35",
    ]
    tiny = scored(40, score=np.linspace(0.1, 0.9, 40))
    assert plan_request(tiny, [], study).strata["stratum"].tolist() == ["any score"]


def test_many_answers_do_not_ask_for_more_people_than_the_precision_does(study: Study):
    codes = [str(code) for code in study.feature("country").codes]
    random = np.random.default_rng(5)
    people = scored(20_000, country=random.choice(codes, 20_000))
    request = plan_request(people, ["country"], study)
    assert request.size <= 1.3 * interviews_needed(0.7, float(people["score"].mean()), 0.03)
    assert request.strata["stratum"].str.startswith("other answers").any()


def test_an_answer_of_many_people_stands_alone_however_many_such_answers_there_are(study: Study):
    codes = [str(code) for code in study.feature("country").codes][:14]
    people = scored(4_200, country=[codes[number % 14] for number in range(4_200)])
    strata = plan_request(people, ["country"], study).strata["stratum"]
    assert not strata.str.startswith("other answers").any()
    assert strata.str.rsplit(",", n=1).str[0].str.split(",").str[0].nunique() == 14


def test_without_a_drifted_answer_the_strata_are_of_the_scores(study: Study):
    request = plan_request(scored(), [], study)
    assert len(request.strata) == 3
    assert "No answer drifted" in request.words


def test_missing_answers_and_unknown_codes_have_words(study: Study):
    people = scored(country=np.random.default_rng(1).choice(np.array(["999", None], dtype=object), 6_000))
    names = " / ".join(plan_request(people, ["country"], study).strata["stratum"])
    assert "unknown (999)" in names
    assert "no answer" in names


def test_codes_that_come_as_numbers_have_the_same_words(study: Study):
    text = scored(country=np.random.default_rng(1).choice(["20", "32"], 6_000))
    numbers = text.assign(country=text["country"].astype(float))
    expected = plan_request(text, ["country"], study)
    pd.testing.assert_frame_equal(plan_request(numbers, ["country"], study).strata, expected.strata)


# Who


def test_the_people_are_those_of_the_strata_and_each_is_asked_once(study: Study):
    request = plan_request(scored(), ["country"], study)
    assert request.size == len(asked(request)) == request.strata["interviews"].sum()
    found = request.people["stratum"].value_counts().to_dict()
    assert found == request.strata.set_index("stratum")["interviews"].to_dict()


def test_the_same_people_are_drawn_whatever_the_order_of_rows_and_others_by_another_seed(study: Study):
    people = scored()
    first = plan_request(people, ["country"], study)
    again = plan_request(people.sample(frac=1, random_state=2), ["country"], study)
    pd.testing.assert_frame_equal(first.people, again.people)
    other = plan_request(people, ["country"], with_policies(study, outcomes={"audit_seed": 7}))
    assert asked(other) != asked(first)


def test_the_audit_sample_is_asked_first(study: Study):
    people = scored()
    request = plan_request(people, ["country"], study)
    assert set(people.loc[people["audit"], "subject_id"]) <= asked(request)
    why = request.people.set_index("subject_id")["why"]
    assert set(why[why == AUDIT].index) == set(people.loc[people["audit"], "subject_id"])
    assert set(why) == {AUDIT, DRAWN}


def test_nobody_is_asked_whose_outcome_is_known_and_what_is_known_counts(study: Study):
    people = scored()
    first = plan_request(people, ["country"], study)
    half = set(first.people["subject_id"].iloc[::2])
    second = plan_request(people.assign(known=people["subject_id"].isin(half)), ["country"], study)
    assert not asked(second) & half
    assert second.size == first.size - len(half)
    both = asked(first) | asked(second)
    third = plan_request(people.assign(known=people["subject_id"].isin(both)), ["country"], study)
    assert third.size == 0
    assert third.words.startswith("No interviews needed: known outcomes give the AUC")


def test_a_person_of_two_batches_is_asked_once_as_a_respondent_of_the_newest(study: Study):
    newest, older = scored(200, batch="b2"), scored(200, batch="b1")
    request = plan_request(pd.concat([newest, older]), ["country"], study)
    assert request.size == 200
    assert set(request.people["batch"]) == {"b2"}


def test_answers_that_a_contact_list_may_not_show_are_not_in_the_request(study: Study):
    assert "religion" not in study.contact_list
    request = plan_request(scored(), ["religion", "country"], study)
    title = study.feature("religion").title
    assert request.strata["stratum"].str.contains(title).any()
    assert not request.people["stratum"].str.contains(title).any()
    assert request.people["stratum"].str.contains("Country of the interview|other answers").all()
    assert list(request.people) == [study.id, "batch", "stratum", "why"]


# What it promises


def test_the_precision_is_reached_when_there_are_people_enough(study: Study):
    request = plan_request(scored(), ["country"], study, auc=0.7)
    wanted = study.policies.outcomes.request_within
    assert request.within <= wanted
    assert request.words == f"Interview {request.size} people of 9 strata: " + (
        f"this gives the AUC to ±{request.within:.3f}"
    )
    # Unequal shares cost something, and not much.
    plain = interviews_needed(0.7, float(scored()["score"].mean()), wanted)
    assert plain <= request.size < 1.3 * plain


def test_too_few_people_are_all_asked_and_the_request_says_what_they_cannot_tell(study: Study):
    request = plan_request(scored(300), ["country"], study, auc=0.7)
    assert request.size == 300
    assert request.within == pytest.approx(half_width(0.7, float(scored(300)["score"].mean()), 300))
    assert request.words.endswith("There are too few people to reach the target of ±0.030")


def test_a_request_that_is_answered_measures_the_auc_as_well_as_promised(study: Study):
    random = np.random.default_rng(4)
    people = scored(8_000)
    request = plan_request(people, ["country"], study)
    target = pd.Series(random.random((200, 8_000)).__lt__(people["score"].to_numpy()).tolist())
    strata = plan_request(people, ["country"], study).strata.set_index("stratum")
    weight = (strata["people"] / strata["interviews"]).to_dict()
    chosen = people.set_index("subject_id").index.get_indexer(pd.Index(request.people["subject_id"]))
    weights = request.people["stratum"].map(weight).to_numpy()
    score = people["score"].to_numpy()
    found = [roc_auc_score(np.array(one)[chosen], score[chosen], sample_weight=weights) for one in target]
    assert 1.96 * np.std(found) < 1.1 * request.within


@pytest.mark.parametrize("people", [scored(0), scored(50, score=0.0)])
def test_where_nothing_can_be_learned_nobody_is_asked(study: Study, people: pd.DataFrame):
    request = plan_request(people, ["country"], study)
    assert (request.size, len(request.strata)) == (0, 0)
    assert list(request.people) == [study.id, "batch", "stratum", "why"]
    assert request.words


def test_equal_scores_expect_no_ranking(study: Study):
    request = plan_request(scored(3_000, score=0.4), [], study)
    assert request.needed == pytest.approx(interviews_needed(0.5, 0.4, 0.03), rel=0.01)
