"""Before a promotion the challenger scores the newest batches in the champion's shadow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from poleng_assets.study.loading import load_study
from poleng_assets_tests.graph.conftest import Workshop, open_promoted

STUDY = load_study()


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, half_survey_data: Path) -> Iterator[Workshop]:
    """A home in which a batch drifted, and a second version was promoted for it."""
    with open_promoted(tmp_path_factory.mktemp("promoted") / "home", half_survey_data) as workshop:
        yield workshop


def evidence(workshop: Workshop, version: int) -> Any:
    ((kept,),) = workshop.query(
        "SELECT evidence FROM decisions WHERE kind = 'promote' AND challenger_version = ?", version
    )
    return json.loads(kept)["shadow"]


def test_the_ledger_tells_what_a_promotion_changes_for_the_batches_taken_in_before(promoted: Workshop):
    shadows = evidence(promoted, 2)
    assert [one["batch"] for one in shadows] == ["drift_batch_1", "clean_batch_1"]
    for one in shadows:
        rows, contacts = promoted.query(
            """SELECT count(*), count(*) FILTER (contact) FROM predictions
            WHERE batch = ? AND model_version = 1""",
            one["batch"],
        )[0]
        assert (one["rows"], one["batch_rows"], one["champion_contacts"]) == (rows, rows, contacts)
        assert 0 <= one["jaccard"] <= one["kept_share"] <= 1
        assert 0 < one["rank_correlation"] <= 1
        assert 0 < one["mean_score_change"] < 1
        properties = {STUDY.feature(name).title for name in STUDY.protected}
        assert {name.partition(": ")[0] for name in one["groups"]} <= properties
        assert one["groups"]


def test_the_shadow_shows_the_very_list_that_the_new_version_makes_afterwards(promoted: Workshop):
    (drifted, _) = evidence(promoted, 2)
    made = promoted.query(
        f"""SELECT count(*), count(*) FILTER (old.contact) FROM predictions new
        JOIN predictions old USING (batch, "{STUDY.id}")
        WHERE batch = 'drift_batch_1' AND new.model_version = 2 AND old.model_version = 1 AND new.contact"""
    )
    assert made == [(drifted["challenger_contacts"], drifted["both"])]


def test_shadow_scores_are_written_nowhere(promoted: Workshop):
    ((first,),) = promoted.query("SELECT min(scored_at) FROM predictions WHERE model_version = 2")
    ((promotion,),) = promoted.query(
        "SELECT decided_at FROM decisions WHERE kind = 'promote' AND challenger_version = 2"
    )
    assert first > promotion
    assert promoted.query("SELECT DISTINCT model_version FROM predictions WHERE batch = 'clean_batch_1'") == [
        (1,)
    ]


def test_the_ui_shows_the_shadow_as_a_table_and_says_why_the_first_champion_has_none(promoted: Workshop):
    assert evidence(promoted, 1) == []
    records = promoted.instance.fetch_materializations(dg.AssetKey("champion"), limit=2).records
    second, first = (one.asset_materialization.metadata for one in records if one.asset_materialization)
    assert "no champion serves yet" in str(first["shadow"].value)
    head, *_ = str(second["shadow"].value).splitlines()
    assert head == "|  | drift_batch_1 | clean_batch_1 |"
