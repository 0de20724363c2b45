"""Scoring a batch: everybody once, each version kept, the newest current."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.ingestion.contract import check_rows
from poleng_assets.core.modeling import batch_scoring
from poleng_assets.core.modeling.batch_scoring import stored_blocks
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.predictions import last_row
from poleng_assets.warehouse.writes import insert
from poleng_assets_tests.conftest import as_table, score_batch, with_policies

Connection = duckdb.DuckDBPyConnection
ROWS = 300


@pytest.fixture(scope="module")
def batch(people: pd.DataFrame, study: Study) -> pd.DataFrame:
    return people.iloc[3_000 : 3_000 + ROWS].drop(columns=study.target.name).reset_index(drop=True)


@pytest.fixture
def stocked(con: Connection, batch: pd.DataFrame, study: Study) -> Connection:
    """A warehouse with the batches ``spring`` and, of other people, ``autumn``."""
    rows = check_rows(as_table(batch), study, "batches").frame()
    insert(con, "batch_rows", rows.assign(batch="spring"))
    others = rows.iloc[:50].assign(batch="autumn", **{study.id: [f"other {n}" for n in range(50)]})
    insert(con, "batch_rows", others)
    return con


def predictions(con: Connection, source: str = "predictions") -> pd.DataFrame:
    return con.execute(f"SELECT * FROM {source} ORDER BY batch, subject_id, model_version").df()


def stricter(model: Model) -> Model:
    """Another model that decides differently: the same with a higher threshold."""
    return replace(model, rule=ContactRule(0.9))


def test_every_respondent_is_scored_once(
    stocked: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    score_batch(stocked, model, study, "spring", 1)
    assert predictions(stocked)[study.id].tolist() == sorted(batch[study.id])


def test_each_respondent_gets_the_score_of_the_model(
    stocked: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    score_batch(stocked, model, study, "spring", 1)
    kept = predictions(stocked).set_index(study.id)["score"]
    np.testing.assert_array_equal(kept.loc[batch[study.id]], model.score(batch))


def test_contacts_are_those_who_reach_the_threshold(
    stocked: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    respondents, contacts = score_batch(stocked, model, study, "spring", 1)
    reached = int((model.score(batch) >= 0.5).sum())
    assert 0 < reached < ROWS
    assert (respondents, contacts) == (ROWS, reached)
    assert predictions(stocked)["contact"].sum() == reached


def test_other_batches_are_left_alone(stocked: Connection, model: Model, study: Study):
    score_batch(stocked, model, study, "autumn", 1)
    score_batch(stocked, model, study, "spring", 1)
    assert predictions(stocked).groupby("batch").size().to_dict() == {"autumn": 50, "spring": ROWS}


def test_scoring_again_by_the_same_version_replaces(stocked: Connection, model: Model, study: Study):
    score_batch(stocked, model, study, "spring", 1)
    score_batch(stocked, model, study, "spring", 1)
    assert len(predictions(stocked)) == ROWS


def test_rescoring_by_a_new_version_keeps_the_old_scores(stocked: Connection, model: Model, study: Study):
    score_batch(stocked, model, study, "spring", 1)
    old = predictions(stocked)
    score_batch(stocked, stricter(model), study, "spring", 2)
    both = predictions(stocked)
    assert both.groupby("model_version").size().to_dict() == {1: ROWS, 2: ROWS}
    pd.testing.assert_frame_equal(both[both["model_version"] == 1].reset_index(drop=True), old)


def test_the_current_predictions_are_the_newest(stocked: Connection, model: Model, study: Study):
    score_batch(stocked, model, study, "spring", 1)
    score_batch(stocked, model, study, "autumn", 1)
    score_batch(stocked, stricter(model), study, "spring", 2)
    current = predictions(stocked, "current_predictions")
    found = current.groupby(["batch", "model_version"]).size().to_dict()
    assert found == {("autumn", 1): 50, ("spring", 2): ROWS}


def test_after_a_rollback_the_older_version_is_current_again(stocked: Connection, model: Model, study: Study):
    for version in (1, 2, 1):
        score_batch(stocked, model, study, "spring", version)
    assert set(predictions(stocked, "current_predictions")["model_version"]) == {1}
    assert len(predictions(stocked)) == 2 * ROWS


def test_a_batch_of_nobody_has_no_scores(con: Connection, model: Model, study: Study):
    assert score_batch(con, model, study, "unheard_of", 1) == (0, 0)


def test_a_batch_of_many_chunks_is_scored_like_one_of_one(
    stocked: Connection, model: Model, study: Study, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    rows = check_rows(as_table(people), study, "batches").frame()
    insert(stocked, "batch_rows", rows.assign(batch="large"))
    calls: list[int] = []

    class Counting(Model):
        def score(self, rows: Any) -> np.ndarray:
            calls.append(rows.num_rows)
            return super().score(rows)

    monkeypatch.setattr(batch_scoring, "BLOCK_ROWS", 2_048)
    counting = Counting(model.encoder, model.blend, model.calibration, model.rule)
    assert score_batch(stocked, counting, study, "large", 1)[0] == len(people)
    assert len(calls) > 1
    kept = predictions(stocked).set_index(study.id)["score"]
    np.testing.assert_array_equal(kept.loc[people[study.id]], model.score(people))


def test_a_model_that_fails_half_way_leaves_the_old_scores(
    stocked: Connection, model: Model, study: Study, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    insert(
        stocked, "batch_rows", check_rows(as_table(people), study, "batches").frame().assign(batch="large")
    )
    score_batch(stocked, model, study, "large", 1)
    old = predictions(stocked)
    calls: list[int] = []

    class Failing(Model):
        def score(self, rows: Any) -> np.ndarray:
            calls.append(rows.num_rows)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return super().score(rows)

    monkeypatch.setattr(batch_scoring, "BLOCK_ROWS", 2_048)
    failing = Failing(model.encoder, model.blend, model.calibration, model.rule)
    with pytest.raises(RuntimeError, match="out of memory"):
        score_batch(stocked, failing, study, "large", 1)
    pd.testing.assert_frame_equal(predictions(stocked), old)


def test_the_blocks_of_a_batch_are_everybody_once_and_the_file_is_let_go_between_them(
    warehouse: Warehouse, study: Study, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    rows = check_rows(as_table(people), study, "batches").frame()
    with warehouse.connect() as con:
        insert(con, "batch_rows", rows.assign(batch="large"))
        last = last_row(con, "large")
    monkeypatch.setattr(batch_scoring, "BLOCK_ROWS", 1_000)
    read = []
    for block in stored_blocks(warehouse, "large", last):
        read += block[study.id].to_pylist()
        with warehouse.connect():
            pass
    assert read == rows[study.id].tolist()


def test_people_with_missing_and_unseen_answers_are_scored_too(
    con: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    strange = batch.iloc[:20].assign(country="999", education=None, religion=None)
    insert(con, "batch_rows", check_rows(as_table(strange), study, "batches").frame().assign(batch="odd"))
    assert score_batch(con, model, study, "odd", 1)[0] == 20
    assert predictions(con)["score"].between(0, 1).all()


# A contact centre that can call so many people of a batch


def with_places(model: Model, places: int, **changes: Any) -> Model:
    return replace(model, rule=ContactRule(0.5, places), **changes)


def contacted(con: Connection, version: int = 1) -> pd.DataFrame:
    found = predictions(con)
    return found[found["contact"] & (found["batch"] == "spring") & (found["model_version"] == version)]


@pytest.mark.parametrize("places", [1, 7, ROWS - 1])
def test_a_capacity_contacts_exactly_as_many_people_and_those_with_the_highest_scores(
    stocked: Connection, model: Model, study: Study, places: int
):
    assert score_batch(stocked, with_places(model, places), study, "spring", 1) == (ROWS, places)
    chosen = contacted(stocked)
    assert len(chosen) == places
    left_out = predictions(stocked).query("not contact")["score"]
    assert chosen["score"].min() >= left_out.max()


def test_a_capacity_counts_whatever_the_threshold_says(stocked: Connection, model: Model, study: Study):
    reached = int((model.score(stocked.table("batch_rows").df().query("batch == 'spring'")) >= 0.5).sum())
    for places in (reached - 5, reached + 5):
        assert score_batch(stocked, with_places(model, places), study, "spring", 1)[1] == places


def test_equal_scores_at_the_end_of_a_capacity_are_decided_by_id(
    stocked: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    alike = with_places(model, 20, calibration=Calibration(slope=0.0, intercept=-1.0))
    score_batch(stocked, alike, study, "spring", 1)
    assert predictions(stocked)["score"].nunique() == 1
    assert contacted(stocked)[study.id].tolist() == sorted(batch[study.id])[:20]


@pytest.mark.parametrize("places", [ROWS, ROWS + 1_000])
def test_a_batch_smaller_than_the_capacity_is_contacted_whole(
    stocked: Connection, model: Model, study: Study, places: int
):
    assert score_batch(stocked, with_places(model, places), study, "spring", 1) == (ROWS, ROWS)


def test_a_capacity_of_one_batch_and_version_leaves_the_others_alone(
    stocked: Connection, model: Model, study: Study
):
    score_batch(stocked, model, study, "spring", 1)
    score_batch(stocked, model, study, "autumn", 2)
    old = predictions(stocked)
    score_batch(stocked, with_places(model, 3), study, "spring", 2)
    both = predictions(stocked)
    added = (both["batch"] == "spring") & (both["model_version"] == 2)
    assert both[added]["contact"].sum() == 3
    pd.testing.assert_frame_equal(both[~added].reset_index(drop=True), old)


def test_scoring_again_with_another_capacity_replaces_the_decision(
    stocked: Connection, model: Model, study: Study
):
    score_batch(stocked, with_places(model, 30), study, "spring", 1)
    score_batch(stocked, with_places(model, 4), study, "spring", 1)
    assert (len(predictions(stocked)), len(contacted(stocked))) == (ROWS, 4)


def test_a_capacity_is_of_the_batch_and_not_of_each_chunk(
    stocked: Connection, model: Model, study: Study, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    insert(
        stocked, "batch_rows", check_rows(as_table(people), study, "batches").frame().assign(batch="large")
    )
    monkeypatch.setattr(batch_scoring, "BLOCK_ROWS", 2_048)
    assert score_batch(stocked, with_places(model, 11), study, "large", 1) == (len(people), 11)
    first = np.sort(model.score(people))[::-1][:11]
    chosen = predictions(stocked).query("contact")["score"]
    np.testing.assert_array_equal(np.sort(chosen)[::-1], first)


def test_a_batch_of_nobody_fills_no_places(con: Connection, model: Model, study: Study):
    assert score_batch(con, with_places(model, 5), study, "unheard_of", 1) == (0, 0)


# The audit sample


def audited(con: Connection, study: Study) -> pd.DataFrame:
    return predictions(con).groupby(study.id)["audit"].agg(["nunique", "first"])


def test_the_audit_sample_is_marked_among_contacts_and_others_alike(
    con: Connection, model: Model, study: Study, people: pd.DataFrame
):
    insert(con, "batch_rows", check_rows(as_table(people), study, "batches").frame().assign(batch="large"))
    often = with_policies(study, outcomes={"audit_share": 0.3})
    score_batch(con, model, often, "large", 1)
    for contact, one in predictions(con).groupby("contact"):
        error = (0.3 * 0.7 / len(one)) ** 0.5
        assert one["audit"].mean() == pytest.approx(0.3, abs=4 * error), contact


def test_the_same_people_are_audited_under_every_version_and_in_every_batch(
    stocked: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    rows = check_rows(as_table(batch), study, "batches").frame()
    insert(stocked, "batch_rows", rows.iloc[::-1].assign(batch="again"))
    often = with_policies(study, outcomes={"audit_share": 0.3})
    score_batch(stocked, model, often, "spring", 1)
    score_batch(stocked, stricter(model), often, "spring", 2)
    score_batch(stocked, model, often, "again", 2)
    found = audited(stocked, study)
    assert len(found) == ROWS
    assert set(found["nunique"]) == {1}
    assert set(found["first"]) == {True, False}
