"""What would change for a batch under the challenger: counted by hand, and told without a NaN."""

from __future__ import annotations

import json
import math
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.promotion.shadow_scoring import (
    GroupShares,
    Scored,
    Shadow,
    compare,
    contacts,
    table,
)
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.predictions import _contact_the_first
from poleng_assets.warehouse.writes import insert, now

IDS = np.array([f"p{n}" for n in range(10)], dtype=object)
CHAMPION = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.2, 0.1, 0.05])
CHALLENGER = np.array([0.95, 0.7, 0.4, 0.3, 0.2, 0.6, 0.35, 0.25, 0.15, 0.0])
COLOUR = np.array(["red"] * 4 + ["blue"] * 6, dtype=object)


def by_threshold(score: np.ndarray, threshold: float = 0.5) -> Scored:
    return Scored(score, score >= threshold)


def shadow(champion: np.ndarray = CHAMPION, challenger: np.ndarray = CHALLENGER, **changes: Any) -> Shadow:
    given: dict[str, Any] = {"groups": {}, "batch_rows": len(champion), "min_group_rows": 1}
    return compare("spring", by_threshold(champion), by_threshold(challenger), **(given | changes))


def test_people_on_both_lists_on_one_and_on_none_are_counted():
    found = shadow()
    assert (found.rows, found.champion_contacts, found.challenger_contacts) == (10, 5, 3)
    assert (found.both, found.newcomers, found.dropped) == (2, 1, 3)


def test_overlap_and_volume_are_shares_of_those_counts():
    found = shadow()
    assert found.jaccard == 2 / 6
    assert found.kept_share == 2 / 5
    assert found.volume_change == -2
    assert found.relative_volume_change == -2 / 5


def test_ranks_correlate_as_by_the_formula_of_spearman():
    ranks, others = (np.argsort(np.argsort(score)) for score in (CHAMPION, CHALLENGER))
    by_hand = 1 - 6 * ((ranks - others) ** 2).sum() / (10 * (10**2 - 1))
    assert shadow().rank_correlation == pytest.approx(by_hand)


def test_scores_that_order_people_the_same_way_correlate_fully_though_they_move():
    found = shadow(CHAMPION, CHAMPION**2)
    assert found.rank_correlation == pytest.approx(1)
    assert found.mean_score_change == pytest.approx((CHAMPION - CHAMPION**2).mean())
    assert shadow(CHAMPION, 1 - CHAMPION).rank_correlation == pytest.approx(-1)


def test_moves_up_and_down_do_not_cancel_out():
    up_and_down = CHAMPION + np.tile([0.01, -0.01], 5)
    assert shadow(CHAMPION, up_and_down).mean_score_change == pytest.approx(0.01)


def test_a_model_in_its_own_shadow_changes_nothing():
    found = shadow(CHAMPION, CHAMPION, groups={"Colour": COLOUR})
    assert (found.jaccard, found.kept_share, found.volume_change, found.newcomers) == (1, 1, 0, 0)
    assert (found.rank_correlation, found.mean_score_change) == (pytest.approx(1), 0)
    assert {group.change for group in found.groups.values()} == {0}


def test_each_protected_group_has_its_shares_and_the_most_changed_is_named():
    found = shadow(groups={"Colour": COLOUR})
    assert found.groups == {
        "Colour: red": GroupShares(4, 1.0, 0.5),
        "Colour: blue": GroupShares(6, 1 / 6, 1 / 6),
    }
    assert found.groups["Colour: red"].change == -0.5
    assert found.most_changed_group == "Colour: red"
    assert "Colour: red 100.0% → 50.0%" in found.summary()


def test_groups_of_few_people_are_left_out():
    assert list(shadow(groups={"Colour": COLOUR}, min_group_rows=5).groups) == ["Colour: blue"]
    assert shadow(groups={"Colour": COLOUR}, min_group_rows=7).most_changed_group is None


def test_the_words_say_how_large_the_lists_are_and_what_they_share():
    words = shadow().summary()
    assert words.startswith(
        "Shadow scoring of spring: of 10 people, the champion contacts 5, the challenger 3 "
    )
    assert "(-40.0%); 2 are on both lists (40.0% of the champion's list, Jaccard index 0.333)" in words
    assert "1 added, 3 dropped" in words


def test_a_sample_says_of_how_many_people_it_is_one():
    found = shadow(batch_rows=4_000)
    assert "of 10 of 4,000 people" in found.summary()
    assert found.evidence()["batch_rows"] == 4_000


@pytest.mark.parametrize(
    ("champion", "challenger", "undefined"),
    [
        pytest.param(
            CHAMPION / 10, CHALLENGER / 10, {"jaccard", "kept_share", "relative_volume_change"}, id="no lists"
        ),
        pytest.param(CHAMPION / 10, CHALLENGER, {"kept_share", "relative_volume_change"}, id="first list"),
        pytest.param(CHAMPION, np.full(10, 0.7), {"rank_correlation"}, id="constant"),
        pytest.param(
            CHAMPION, np.full(10, math.nan), {"rank_correlation", "mean_score_change"}, id="no numbers"
        ),
        pytest.param(
            np.empty(0),
            np.empty(0),
            {"jaccard", "kept_share", "relative_volume_change", "rank_correlation", "mean_score_change"},
            id="nobody",
        ),
    ],
)
def test_what_is_undefined_is_left_out_of_the_evidence_and_said_in_words(
    champion: np.ndarray, challenger: np.ndarray, undefined: set[str]
):
    found = shadow(champion, challenger)
    everything = set(shadow().evidence())
    assert everything - set(found.evidence()) == undefined
    json.dumps(found.evidence(), allow_nan=False)
    assert "undefined" in found.summary()
    assert "nan" not in (found.summary() + table([found])).lower()


def test_the_evidence_survives_json_as_it_is():
    evidence = shadow(groups={"Colour": COLOUR}).evidence()
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence
    assert evidence["groups"]["Colour: red"] == {
        "rows": 4,
        "champion": 1.0,
        "challenger": 0.5,
        "change": -0.5,
    }


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="the columns of spring have 10, 10, 9, 9 rows"):
        shadow(CHAMPION, CHALLENGER[:9])
    with pytest.raises(ValueError, match="10, 10, 10, 10, 4"):
        shadow(groups={"Colour": COLOUR[:4]})


def test_the_table_has_one_column_for_each_batch_and_whole_cells():
    groups = {"Colour": np.array(["red|green"] * 10, dtype=object)}
    head, line, people, *rows = table([shadow(groups=groups), shadow(batch_rows=99)]).splitlines()
    assert {one.replace("\\|", "").count("|") for one in (head, line, people, *rows)} == {4}
    assert people == "| people | 10 | 10 of 99 |"
    assert "red\\|green" in rows[-1]


# Whom a rule would contact


def test_a_threshold_decides_about_each_person_alone():
    chosen = contacts(ContactRule(0.55), CHAMPION, IDS, 4_000)
    assert chosen.tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize(("capacity", "batch_rows", "places"), [(3, 10, 3), (30, 100, 3), (40, 10, 10)])
def test_a_capacity_is_one_for_the_whole_batch(capacity: int, batch_rows: int, places: int):
    order = np.random.default_rng(1).permutation(10)
    chosen = contacts(ContactRule(0.99, capacity), CHAMPION[order], IDS, batch_rows)
    assert sorted(CHAMPION[order][chosen]) == sorted(CHAMPION[:places])


def test_equal_scores_at_the_limit_of_a_capacity_do_not_exceed_it():
    chosen = contacts(ContactRule(0.5, 4), np.full(10, 0.3), IDS[::-1], 10)
    assert chosen.tolist() == [False] * 6 + [True] * 4


def test_equal_scores_are_taken_as_the_list_takes_them(con: duckdb.DuckDBPyConnection, study: Study):
    random = np.random.default_rng(3)
    ids = np.array([f"{prefix}{n}" for n in range(40) for prefix in ("ä", "Z", "a")], dtype=object)
    random.shuffle(ids)
    score = random.choice([0.2, 0.5, 0.7], len(ids))
    rows = {study.id: ids, "score": score, "batch": "b", "model_version": 1, "contact": False}
    insert(con, "predictions", pd.DataFrame(rows).assign(scored_at=now()))
    _contact_the_first(con, study, "b", 1, 60)
    listed = con.execute(f'SELECT "{study.id}" FROM predictions WHERE contact').fetchall()
    assert {one for (one,) in listed} == set(ids[contacts(ContactRule(0.5, 60), score, ids, len(ids))])


def test_nobody_is_contacted_among_nobody():
    for rule in (ContactRule(0.5), ContactRule(0.5, 5)):
        assert contacts(rule, np.empty(0), np.empty(0, dtype=object), 0).shape == (0,)
