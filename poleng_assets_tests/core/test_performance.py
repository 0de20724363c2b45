"""Realised performance: scores against the outcomes that arrived, the newest outcome counting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.evaluation import evaluate
from poleng_assets.core.performance import REALISED_METRICS, record_realised_performance
from poleng_assets.core.tables import insert
from poleng_assets.study import Study

Connection = duckdb.DuckDBPyConnection
START = datetime(2024, 5, 1, tzinfo=UTC)
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.45, 0.4, 0.3, 0.2, 0.1])
TARGET = np.array([1, 1, 0, 1, 1, 0, 1, 0, 0, 0])
CONTACT = SCORES >= 0.5
IDS = [f"p{number}" for number in range(10)]


def score(
    con: Connection,
    batch: str = "b1",
    version: int = 1,
    scores: np.ndarray = SCORES,
    contact: np.ndarray | None = None,
) -> None:
    rows = pd.DataFrame(
        {
            "batch": batch,
            "subject_id": IDS[: len(scores)],
            "model_version": version,
            "score": scores,
            "contact": scores >= 0.5 if contact is None else contact,
            "scored_at": START + timedelta(hours=version),
        }
    )
    insert(con, "predictions", rows)


def arrive(
    con: Connection,
    target: Sequence[int] | np.ndarray = TARGET,
    *,
    source: str = "answers",
    batch: str = "b1",
    ids: Sequence[str] = tuple(IDS),
    days: int = 0,
) -> None:
    """Let outcomes arrive as the ingestion leaves them."""
    rows = {
        "batch": batch,
        "source": source,
        "row_number": range(1, len(ids) + 1),
        "subject_id": list(ids),
        "political_engagement": list(target),
    }
    insert(con, "outcomes", pd.DataFrame(rows))
    con.execute(
        "INSERT INTO ingested_files VALUES ('outcomes', ?, ?, 1, 1, 0, '', ?) ON CONFLICT DO NOTHING",
        [source, source, START + timedelta(days=days)],
    )


def kept(con: Connection, metric: str = "auc") -> dict[tuple[str, int], float]:
    rows = con.execute(
        "SELECT batch, model_version, value FROM performance WHERE kind = 'realised' AND metric = ?", [metric]
    ).fetchall()
    return {(batch, version): value for batch, version, value in rows}


def test_realised_figures_are_those_of_the_scores_against_the_outcomes(con: Connection, study: Study):
    score(con)
    arrive(con)
    expected = evaluate(TARGET, SCORES, CONTACT)
    measured = record_realised_performance(con, study, "answers")
    assert measured == {
        ("b1", 1): pytest.approx({**{m: expected[m] for m in REALISED_METRICS}, "respondents": 10})
    }
    assert {m: kept(con, m)[("b1", 1)] for m in REALISED_METRICS} == pytest.approx(
        {m: expected[m] for m in REALISED_METRICS}
    )


def test_contacts_count_as_they_were_decided_and_not_as_a_threshold_would(con: Connection, study: Study):
    only_two = SCORES >= 0.75
    score(con, contact=only_two)
    arrive(con)
    measured = record_realised_performance(con, study, "answers")[("b1", 1)]
    assert measured["recall"] == pytest.approx(2 / 5)
    assert measured["precision"] == pytest.approx(1.0)
    assert kept(con, "recall") == {("b1", 1): pytest.approx(2 / 5)}


def test_outcomes_are_joined_by_id_and_not_by_order(con: Connection, study: Study):
    score(con)
    arrive(con, TARGET[::-1], ids=IDS[::-1])
    assert record_realised_performance(con, study, "answers")[("b1", 1)]["auc"] == pytest.approx(
        evaluate(TARGET, SCORES, CONTACT)["auc"]
    )


def test_each_figure_has_an_interval_around_it(con: Connection, study: Study):
    score(con)
    arrive(con)
    record_realised_performance(con, study, "answers")
    rows = con.execute("SELECT metric, value, lower, upper FROM performance").fetchall()
    assert sorted(metric for metric, *_ in rows) == sorted(REALISED_METRICS)
    assert [row for row in rows if not row[2] <= row[1] <= row[3] or row[2] == row[3]] == []


def test_every_version_that_scored_the_batch_is_measured(con: Connection, study: Study):
    score(con, version=1)
    score(con, version=2, scores=1 - SCORES)
    arrive(con)
    record_realised_performance(con, study, "answers")
    first, second = kept(con)[("b1", 1)], kept(con)[("b1", 2)]
    assert first > 0.5
    assert second == pytest.approx(1 - first)


def test_one_file_may_speak_about_several_batches(con: Connection, study: Study):
    score(con, "b1")
    score(con, "b2", scores=1 - SCORES)
    arrive(con, batch="b1")
    arrive(con, batch="b2")
    assert set(record_realised_performance(con, study, "answers")) == {("b1", 1), ("b2", 1)}


def test_a_batch_that_the_file_says_nothing_about_is_left_alone(con: Connection, study: Study):
    score(con, "b1")
    score(con, "b2")
    arrive(con, batch="b1")
    arrive(con, batch="b2", source="other")
    record_realised_performance(con, study, "answers")
    assert set(kept(con)) == {("b1", 1)}


def test_the_newest_outcome_of_a_respondent_counts(con: Connection, study: Study):
    score(con)
    arrive(con, 1 - TARGET, source="correction", days=1)
    arrive(con, TARGET, source="answers", days=0)
    assert record_realised_performance(con, study, "answers")[("b1", 1)] == pytest.approx(
        {
            **{m: evaluate(1 - TARGET, SCORES, CONTACT)[m] for m in REALISED_METRICS},
            "respondents": 10,
        }
    )


def test_outcomes_of_several_files_add_up(con: Connection, study: Study):
    score(con)
    arrive(con, TARGET[:6], ids=IDS[:6], source="first")
    arrive(con, TARGET[6:], ids=IDS[6:], source="second", days=1)
    assert record_realised_performance(con, study, "second")[("b1", 1)]["respondents"] == 10


def test_measuring_again_replaces_the_figures(con: Connection, study: Study):
    score(con)
    arrive(con, TARGET[:6], ids=IDS[:6], source="first")
    record_realised_performance(con, study, "first")
    arrive(con, TARGET[6:], ids=IDS[6:], source="second", days=1)
    record_realised_performance(con, study, "second")
    assert con.execute("SELECT count(*) FROM performance").fetchall() == [(len(REALISED_METRICS),)]
    assert kept(con)[("b1", 1)] == pytest.approx(evaluate(TARGET, SCORES, CONTACT)["auc"])


def test_estimated_figures_are_left_alone(con: Connection, study: Study):
    score(con)
    arrive(con)
    con.execute("INSERT INTO performance VALUES ('b1', 1, 'estimated', 'auc', 0.5, 0.4, 0.6)")
    record_realised_performance(con, study, "answers")
    assert con.execute("SELECT value FROM performance WHERE kind = 'estimated'").fetchall() == [(0.5,)]


def test_outcomes_of_one_class_have_no_auc(con: Connection, study: Study):
    score(con)
    arrive(con, np.ones(10, dtype=int))
    figures = record_realised_performance(con, study, "answers")[("b1", 1)]
    assert set(figures) == {"log_loss", "precision", "recall", "accuracy", "respondents"}


def test_the_outcome_of_a_single_respondent_is_measured(con: Connection, study: Study):
    score(con)
    arrive(con, [1], ids=IDS[:1])
    assert record_realised_performance(con, study, "answers")[("b1", 1)]["accuracy"] == 1.0


def test_outcomes_of_people_who_were_not_scored_are_no_figures(con: Connection, study: Study):
    score(con)
    arrive(con, [1, 0], ids=["stranger", "another"])
    assert record_realised_performance(con, study, "answers") == {}
    assert kept(con) == {}


def test_outcomes_before_any_scoring_are_no_figures(con: Connection, study: Study):
    arrive(con)
    assert record_realised_performance(con, study, "answers") == {}
