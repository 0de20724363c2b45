"""A rule that contacts nobody of a group is seen, and a small group proves nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.promotion.gates import Holdout, contest, groups_passed_over, promoted
from poleng_assets.core.statistics.groups import evaluate_groups
from poleng_assets.core.statistics.selection_rates import (
    GroupContacts,
    contacts_by_group,
    contacts_in_table,
    contacts_of_groups,
    describe_passed_over,
    group_questions,
    passed_over,
)
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.predictions import count_groups
from poleng_assets.warehouse.writes import insert, now
from poleng_assets_tests.conftest import with_policies


def group(rows: int, contacted: int, sought: int | None = None, found: int | None = None) -> GroupContacts:
    return GroupContacts("Country", "Andorra", rows, contacted, sought, found)


@pytest.mark.parametrize(
    ("one", "flagged"),
    [
        (group(200, 0), True),
        (group(200, 0, 60, 0), True),
        (group(100, 0), True),
        (group(99, 0), False),  # too small to judge
        (group(200, 8), False),  # 4 %, but not surely fewer than 5 %
        (group(2_000, 60), True),
        (group(2_000, 300, 700, 20), True),  # many are contacted, and hardly any of those sought
        (group(200, 60, 5, 0), False),  # of five people nothing is sure
        (group(200, 60, 0, 0), False),
        (group(200, 60), False),
    ],
)
def test_a_group_is_passed_over_when_surely_hardly_anybody_is_contacted(
    study: Study, one: GroupContacts, flagged: bool
):
    policy = study.policies.promotion
    assert one.is_passed_over(policy) is flagged
    assert passed_over([one], policy) == ([one] if flagged else [])
    assert bool(describe_passed_over(passed_over([one], policy), policy)) is flagged


@pytest.fixture(scope="module")
def judged() -> tuple[Holdout, np.ndarray]:
    """Two countries of 400 people; scores are good in both, and in one of them all below the threshold."""
    random = np.random.default_rng(3)
    country = np.repeat(["Andorra", "Chile"], 400)
    target = (random.random(800) < 0.4).astype(int)
    score = np.clip(0.25 + 0.4 * target + random.normal(0, 0.12, 800), 0.01, 0.99)
    score[country == "Andorra"] *= 0.5
    holdout = Holdout(target, np.full(800, "spring"), contacted={"Country": country})
    return holdout, score


def test_a_rule_that_contacts_nobody_of_a_country_is_named(judged: tuple[Holdout, np.ndarray], study: Study):
    holdout, score = judged
    (found,) = groups_passed_over(holdout, score >= 0.5, study.policies.promotion)
    assert (found.value, found.rows, found.contacted, found.found) == ("Andorra", 400, 0, 0)
    assert found.sought == int(holdout.target[:400].sum())
    words = describe_passed_over([found], study.policies.promotion)
    assert "“Andorra” (Country): 0 of 400 people are contacted, 0 of " in words


def test_it_is_refused_only_when_the_study_says_so(judged: tuple[Holdout, np.ndarray], study: Study):
    holdout, score = judged
    loose = {"max_calibration_error": 1.0, "flagged_share": (0.0, 1.0), "max_auc": 1.0}
    for refuse in (False, True):
        asked = with_policies(study, promotion={**loose, "refuse_passed_over": refuse})
        gates = contest(holdout, score, None, score >= 0.5, asked.policies.promotion)
        assert promoted(gates) is not refuse
        assert [gate.words for gate in gates if "Andorra" in gate.words] == (
            [gates[-1].words] if refuse else []
        )


def test_the_table_of_groups_tells_the_same(judged: tuple[Holdout, np.ndarray]):
    holdout, score = judged
    table = evaluate_groups(holdout.target, score, score >= 0.5, holdout.contacted, 100)
    by_name = {one.value: one for one in contacts_by_group(holdout.contacted, score >= 0.5, holdout.target)}
    assert {one.value: one for one in contacts_in_table(table)} == by_name


def test_of_a_batch_recall_is_told_when_nearly_all_outcomes_are_known(con, study: Study):
    ids = [f"p{number}" for number in range(200)]
    codes = {feature.name: min(feature.codes) for feature in study.features}
    rows = pd.DataFrame({study.id: ids, "row_number": range(200), **codes, "batch": "march"})
    title = study.feature("country").title
    country = min(study.feature("country").codes)
    rows["country"] = rows["country"].astype("Int64").where(rows["row_number"] < 150)
    insert(con, "batch_rows", rows)
    scored = pd.DataFrame(
        {study.id: ids, "batch": "march", "score": 0.5, "contact": [True] * 20 + [False] * 180}
    )
    insert(con, "predictions", scored.assign(model_version=1, scored_at=now()))

    def contacts_by_country() -> dict[str, GroupContacts]:
        counts = {"country": count_groups(con, study, "march", 1, "country")}
        return {group.value: group for group in contacts_of_groups(study, counts)}

    known = contacts_by_country()
    label = study.feature("country").label(country)
    assert known[label] == GroupContacts(title, label, 150, 20)
    told = pd.DataFrame({study.id: ids[:130], "row_number": range(130), "source": "o", "batch": "march"})
    insert(con, "outcomes", told.assign(**{study.target.name: 1}))
    insert(
        con,
        "ingested_files",
        pd.DataFrame(
            [
                {
                    "kind": "outcomes", "name": "o", "content_hash": "h", "rows_read": 130, "rows_kept": 130,
                    "rows_quarantined": 0, "ignored_columns": "", "ingested_at": now(),
                }
            ]
        ),
    )  # fmt: skip
    found = contacts_by_country()
    assert (found[label].sought, found[label].found) == (130, 20)
    assert found["no answer"].sought is None


def test_groups_are_countries_and_protected_answers(study: Study):
    assert group_questions(study) == ["country", *study.protected]
    alone = with_policies(study, overseer={"compare_within": None})
    assert group_questions(alone) == list(study.protected)
