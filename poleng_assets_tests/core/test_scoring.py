"""Scoring a batch: everybody once, each version kept, the newest current."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core import scoring
from poleng_assets.core.contract import check_rows
from poleng_assets.core.model import Model
from poleng_assets.core.scoring import score_batch
from poleng_assets.core.tables import insert
from poleng_assets.study import Study
from poleng_assets_tests.conftest import as_table

Connection = duckdb.DuckDBPyConnection
ROWS = 300


@pytest.fixture(scope="module")
def batch(people: pd.DataFrame, study: Study) -> pd.DataFrame:
    return people.iloc[3_000 : 3_000 + ROWS].drop(columns=study.target.name).reset_index(drop=True)


@pytest.fixture
def stocked(con: Connection, batch: pd.DataFrame, study: Study) -> Connection:
    """A warehouse with the batches ``spring`` and, of other people, ``autumn``."""
    rows = check_rows(as_table(batch), study, "batches").rows
    insert(con, "batch_rows", rows.assign(batch="spring"))
    others = rows.iloc[:50].assign(batch="autumn", **{study.id: [f"other {n}" for n in range(50)]})
    insert(con, "batch_rows", others)
    return con


def predictions(con: Connection, source: str = "predictions") -> pd.DataFrame:
    return con.execute(f"SELECT * FROM {source} ORDER BY batch, subject_id, model_version").df()


def stricter(model: Model) -> Model:
    """Another model that scores differently: the same with a higher threshold."""
    return Model(model.encoder, model.booster, 0.9)


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
    rows = check_rows(as_table(people), study, "batches").rows
    insert(stocked, "batch_rows", rows.assign(batch="large"))
    calls: list[int] = []

    class Counting(Model):
        def score(self, rows: Any) -> np.ndarray:
            calls.append(rows.num_rows)
            return super().score(rows)

    monkeypatch.setattr(scoring, "CHUNK", 2_048)
    counting = Counting(model.encoder, model.booster, model.threshold)
    assert score_batch(stocked, counting, study, "large", 1)[0] == len(people)
    assert len(calls) > 1
    kept = predictions(stocked).set_index(study.id)["score"]
    np.testing.assert_array_equal(kept.loc[people[study.id]], model.score(people))


def test_a_model_that_fails_half_way_leaves_the_old_scores(
    stocked: Connection, model: Model, study: Study, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    insert(stocked, "batch_rows", check_rows(as_table(people), study, "batches").rows.assign(batch="large"))
    score_batch(stocked, model, study, "large", 1)
    old = predictions(stocked)
    calls: list[int] = []

    class Failing(Model):
        def score(self, rows: Any) -> np.ndarray:
            calls.append(rows.num_rows)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return super().score(rows)

    monkeypatch.setattr(scoring, "CHUNK", 2_048)
    with pytest.raises(RuntimeError, match="out of memory"):
        score_batch(stocked, Failing(model.encoder, model.booster, model.threshold), study, "large", 1)
    pd.testing.assert_frame_equal(predictions(stocked), old)


def test_people_with_missing_and_unseen_answers_are_scored_too(
    con: Connection, model: Model, study: Study, batch: pd.DataFrame
):
    strange = batch.iloc[:20].assign(country="999", education=None, religion=None)
    insert(con, "batch_rows", check_rows(as_table(strange), study, "batches").rows.assign(batch="odd"))
    assert score_batch(con, model, study, "odd", 1)[0] == 20
    assert predictions(con)["score"].between(0, 1).all()
