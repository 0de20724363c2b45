"""Realised performance: scores against the outcomes that arrived, however few, late or contradictory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.monitoring.realised_performance import (
    REALISED_METRICS,
    RealisedPerformance,
    measure_realised,
    save_realised,
)
from poleng_assets.core.statistics.intervals import hanley_mcneil_error
from poleng_assets.core.statistics.metrics import evaluate
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.outcomes import (
    affected_batches,
    count_contradictory_respondents,
    count_unknown_respondents,
)
from poleng_assets.warehouse.predictions import outcomes_of_scored
from poleng_assets.warehouse.writes import insert
from poleng_assets_tests.conftest import with_policies

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
        """INSERT INTO ingested_files VALUES ('outcomes', ?, ?, 1, 1, 0, '', ?, 0, NULL, NULL, NULL, NULL)
        ON CONFLICT DO NOTHING""",
        [source, source, START + timedelta(days=days)],
    )


def realised(
    con: Connection, study: Study, batch: str, version: int, reference: pd.DataFrame | None
) -> RealisedPerformance | None:
    return measure_realised(outcomes_of_scored(con, study, batch, version), study, reference)


def measure(
    con: Connection, study: Study, source: str = "answers"
) -> dict[tuple[str, int], RealisedPerformance]:
    """Measure and keep all that a file speaks about, as the asset does, without a reference."""
    found = {}
    for batch, version in affected_batches(con, study, source):
        measured = realised(con, study, batch, version, None)
        assert measured is not None
        save_realised(con, batch, version, measured)
        found[(batch, version)] = measured
    return found


def values(measured: RealisedPerformance | None) -> dict[str, float]:
    assert measured is not None
    return {estimate.metric: estimate.value for estimate in measured.estimates}


def expected(target: np.ndarray, scores: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    figures = evaluate(target, scores, contact)
    return {metric: figures[metric] for metric in REALISED_METRICS}


def kept(con: Connection, metric: str = "auc") -> dict[tuple[str, int], float]:
    rows = con.execute(
        "SELECT batch, model_version, value FROM performance WHERE kind = 'realised' AND metric = ?", [metric]
    ).fetchall()
    return {(batch, version): value for batch, version, value in rows}


def test_realised_figures_are_those_of_the_scores_against_the_outcomes(con: Connection, study: Study):
    score(con)
    arrive(con)
    measured = measure(con, study)
    assert set(measured) == {("b1", 1)}
    found = measured[("b1", 1)]
    assert (found.respondents, found.scored, found.coverage, found.contradictory) == (10, 10, 1.0, 0)
    assert found.missing_because == ""
    assert values(found) == pytest.approx(expected(TARGET, SCORES, CONTACT))
    assert {m: kept(con, m)[("b1", 1)] for m in REALISED_METRICS} == pytest.approx(values(found))


def test_contacts_count_as_they_were_decided_and_not_as_a_threshold_would(con: Connection, study: Study):
    only_two = SCORES >= 0.75
    score(con, contact=only_two)
    arrive(con)
    measured = values(measure(con, study)[("b1", 1)])
    assert measured["recall"] == pytest.approx(2 / 5)
    assert measured["precision"] == pytest.approx(1.0)
    assert kept(con, "recall") == {("b1", 1): pytest.approx(2 / 5)}


def test_outcomes_are_joined_by_id_and_not_by_order(con: Connection, study: Study):
    score(con)
    arrive(con, TARGET[::-1], ids=IDS[::-1])
    assert values(measure(con, study)[("b1", 1)]) == pytest.approx(expected(TARGET, SCORES, CONTACT))


def test_each_figure_has_an_interval_around_it(con: Connection, study: Study):
    score(con)
    arrive(con)
    measure(con, study)
    rows = con.execute("SELECT metric, value, lower, upper FROM performance").fetchall()
    assert sorted(metric for metric, *_ in rows) == sorted(REALISED_METRICS)
    assert [row for row in rows if not row[2] <= row[1] <= row[3] or row[2] == row[3]] == []


def test_every_version_that_scored_the_batch_is_measured(con: Connection, study: Study):
    score(con, version=1)
    score(con, version=2, scores=1 - SCORES)
    arrive(con)
    measure(con, study)
    first, second = kept(con)[("b1", 1)], kept(con)[("b1", 2)]
    assert first > 0.5
    assert second == pytest.approx(1 - first)


def test_one_file_speaks_about_every_batch_in_which_its_people_were_scored(con: Connection, study: Study):
    score(con, "b1")
    score(con, "b2", scores=1 - SCORES)
    score(con, "b3", scores=SCORES[:4])
    arrive(con, batch="b1")
    assert {key: one.respondents for key, one in measure(con, study).items()} == {
        ("b1", 1): 10,
        ("b2", 1): 10,
        ("b3", 1): 4,
    }


def test_a_batch_that_the_file_says_nothing_about_is_left_alone(con: Connection, study: Study):
    score(con, "b1", scores=SCORES[:5])
    con.execute("UPDATE predictions SET subject_id = 'other ' || subject_id")
    score(con, "b2")
    arrive(con, batch="b1")
    measure(con, study)
    assert set(kept(con)) == {("b2", 1)}


def test_outcomes_that_came_before_their_batch_count_once_it_is_scored(con: Connection, study: Study):
    arrive(con, batch="answers")
    assert affected_batches(con, study, "answers") == []
    assert count_unknown_respondents(con, study, "answers") == 10
    score(con)
    assert values(realised(con, study, "b1", 1, None)) == pytest.approx(expected(TARGET, SCORES, CONTACT))


def test_the_newest_outcome_of_a_respondent_counts_and_the_contradiction_is_told(
    con: Connection, study: Study
):
    score(con)
    arrive(con, 1 - TARGET, source="correction", days=1)
    arrive(con, np.append(TARGET[:8], 1 - TARGET[8:]), source="answers", days=0)
    found = measure(con, study)[("b1", 1)]
    assert values(found) == pytest.approx(expected(1 - TARGET, SCORES, CONTACT))
    assert (found.respondents, found.contradictory) == (10, 8)
    assert count_contradictory_respondents(con, study, "answers") == 8


def test_the_same_outcome_twice_is_no_contradiction_and_counts_once(con: Connection, study: Study):
    score(con)
    arrive(con)
    arrive(con, source="again", days=1)
    found = measure(con, study)[("b1", 1)]
    assert (found.respondents, found.contradictory) == (10, 0)
    assert count_contradictory_respondents(con, study, "again") == 0


def test_outcomes_of_several_files_add_up(con: Connection, study: Study):
    score(con)
    arrive(con, TARGET[:6], ids=IDS[:6], source="first")
    arrive(con, TARGET[6:], ids=IDS[6:], source="second", days=1)
    assert measure(con, study, "second")[("b1", 1)].respondents == 10


def test_measuring_again_replaces_the_figures(con: Connection, study: Study):
    score(con)
    arrive(con, TARGET[:6], ids=IDS[:6], source="first")
    measure(con, study, "first")
    assert con.execute("SELECT metric FROM performance").fetchall() == [("precision",)]
    arrive(con, TARGET[6:], ids=IDS[6:], source="second", days=1)
    measure(con, study, "second")
    assert con.execute("SELECT count(*) FROM performance").fetchall() == [(len(REALISED_METRICS),)]
    assert kept(con)[("b1", 1)] == pytest.approx(evaluate(TARGET, SCORES, CONTACT)["auc"])


def test_estimated_figures_and_those_of_others_are_left_alone(con: Connection, study: Study):
    score(con)
    arrive(con)
    con.execute("INSERT INTO performance VALUES ('b1', 1, 'estimated', 'auc', 0.5, 0.4, 0.6)")
    con.execute("INSERT INTO performance VALUES ('b1', 7, 'realised', 'auc', 0.6, 0.4, 0.6)")
    measure(con, study)
    others = con.execute("SELECT value FROM performance WHERE kind = 'estimated' OR model_version = 7")
    assert others.fetchall() == [(0.5,), (0.6,)]


def test_outcomes_of_one_class_have_no_ranking_and_give_no_warning(
    con: Connection, study: Study, recwarn: pytest.WarningsRecorder
):
    score(con)
    arrive(con, np.ones(10, dtype=int))
    found = measure(con, study)[("b1", 1)]
    assert set(values(found)) == set(REALISED_METRICS) - {"auc", "average_precision"}
    assert "one class only" in found.missing_because
    assert [str(one.message) for one in recwarn] == []


@pytest.mark.parametrize("everybody", [True, False])
def test_a_batch_that_is_contacted_whole_or_not_at_all_is_measured_without_a_warning(
    con: Connection, study: Study, everybody: bool, recwarn: pytest.WarningsRecorder
):
    contact = np.full(10, everybody)
    score(con, contact=contact)
    arrive(con)
    figures = expected(TARGET, SCORES, contact)
    if not everybody:
        del figures["precision"]
    assert values(measure(con, study)[("b1", 1)]) == pytest.approx(figures)
    assert [str(one.message) for one in recwarn] == []


def test_a_single_respondent_of_a_batch_of_one_is_measured(con: Connection, study: Study):
    score(con, scores=SCORES[:1])
    arrive(con, [1], ids=IDS[:1])
    assert values(measure(con, study)[("b1", 1)])["accuracy"] == 1.0


def test_outcomes_of_people_who_were_not_scored_are_no_figures(con: Connection, study: Study):
    score(con)
    arrive(con, [1, 0], ids=["stranger", "another"])
    assert measure(con, study) == {}
    assert realised(con, study, "b1", 1, None) is None
    assert kept(con) == {}


def test_outcomes_before_any_scoring_are_no_figures(con: Connection, study: Study):
    arrive(con)
    assert measure(con, study) == {}


def test_people_in_no_batch_are_counted(con: Connection, study: Study):
    arrive(con)
    rows = {"batch": "b1", "row_number": range(4), "subject_id": IDS[:4]}
    insert(con, "batch_rows", pd.DataFrame(rows))
    assert count_unknown_respondents(con, study, "answers") == 6


# Many people, so that figures have a distribution


def crowd(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """People whose scores are true probabilities; with a shift, of other people's."""
    random = np.random.default_rng(seed)
    strength = random.normal(-0.7, 1.2, rows)
    scores = 1 / (1 + np.exp(-strength))
    truth = 1 / (1 + np.exp(-(strength * (1 - shift))))
    return pd.DataFrame(
        {
            "subject_id": [f"c{number}" for number in range(rows)],
            "score": scores,
            "contact": (scores >= 0.5).astype(int),
            "country": random.choice(["20", "32"], rows),
            "political_engagement": (random.random(rows) < truth).astype(int),
            "audit": random.random(rows) < 0.1,
        }
    )


def stand(con: Connection, people: pd.DataFrame, known: np.ndarray | None = None) -> None:
    """Let a crowd be scored, and the outcomes of some of them be known."""
    rows = people[["subject_id", "score", "audit"]].assign(contact=people["contact"] == 1)
    insert(con, "predictions", rows.assign(batch="b1", model_version=1, scored_at=START))
    answers = people[["subject_id", "country"]].assign(batch="b1", row_number=range(len(people)))
    insert(con, "batch_rows", answers)
    asked = people if known is None else people[known]
    arrive(con, asked["political_engagement"].to_numpy(), ids=asked["subject_id"].tolist())


def of_all(people: pd.DataFrame) -> dict[str, float]:
    columns = (people[name].to_numpy() for name in ("political_engagement", "score", "contact"))
    return expected(*columns)


def test_nannymls_figures_are_scikit_learns(con: Connection, study: Study):
    people = crowd(3_000, 1)
    stand(con, people)
    assert values(realised(con, study, "b1", 1, None)) == pytest.approx(of_all(people), abs=1e-9)


def test_figures_of_weighed_people_are_scikit_learns_with_weights(con: Connection, study: Study):
    from sklearn import metrics

    people = crowd(3_000, 1).assign(audit=False)
    flagged = people["contact"] == 1
    known = (flagged | (np.arange(3_000) % 5 == 0)).to_numpy()
    stand(con, people, known)
    found = values(realised(con, study, "b1", 1, None))
    # Contacts are known all of them, a fifth of the others stand for those of like scores.
    part = people["score"].groupby(flagged).transform(lambda score: pd.qcut(score, 5, labels=False))
    groups = [flagged, part.mask(flagged, 0)]
    weights = pd.Series(1.0, people.index).groupby(groups).transform("sum")[known]
    weights /= pd.Series(known, people.index).groupby(groups).transform("sum")[known]
    asked = people[known]
    target, scores, contact = (asked[name] for name in ("political_engagement", "score", "contact"))
    theirs = {
        "auc": metrics.roc_auc_score(target, scores, sample_weight=weights),
        "average_precision": metrics.average_precision_score(target, scores, sample_weight=weights),
        "precision": metrics.precision_score(target, contact, sample_weight=weights),
        "recall": metrics.recall_score(target, contact, sample_weight=weights),
        "accuracy": metrics.accuracy_score(target, contact, sample_weight=weights),
        "log_loss": metrics.log_loss(target, scores, sample_weight=weights),
        "brier": metrics.brier_score_loss(target, scores, sample_weight=weights),
    }
    assert found == pytest.approx(theirs, abs=0.001)


def test_figures_of_resamples_are_measured_as_the_libraries_do(con: Connection, study: Study):
    # Scores in steps, so that many people tie.
    people = crowd(400, 2).round({"score": 1})
    stand(con, people)
    found = realised(con, study, "b1", 1, None)
    assert found is not None
    truth = of_all(people)
    for estimate in found.estimates:
        assert estimate.lower < truth[estimate.metric] < estimate.upper
        middle = (estimate.lower + estimate.upper) / 2
        assert middle == pytest.approx(truth[estimate.metric], abs=0.25 * (estimate.upper - estimate.lower))


# Partial outcomes


def test_outcomes_mostly_of_contacts_are_weighed_to_everybody_scored(con: Connection, study: Study):
    people = crowd(6_000, 3)
    random = np.random.default_rng(4)
    known = (people["contact"] == 1) | (random.random(6_000) < 0.15)
    stand(con, people.assign(audit=False), known.to_numpy())
    found, truth, naive = realised(con, study, "b1", 1, None), of_all(people), of_all(people[known])
    for metric in ("auc", "recall", "accuracy", "log_loss"):
        estimate = found.estimate(metric) if found else None
        assert estimate is not None
        assert estimate.lower < truth[metric] < estimate.upper, metric
        assert abs(estimate.value - truth[metric]) < abs(naive[metric] - truth[metric])
    assert naive["recall"] > truth["recall"] + 0.15


def test_without_any_outcome_of_those_not_contacted_only_the_precision_is_said(con: Connection, study: Study):
    people = crowd(1_000, 5)
    flagged = people["contact"] == 1
    stand(con, people, flagged.to_numpy())
    found = realised(con, study, "b1", 1, people)
    assert found is not None
    assert values(found) == {"precision": pytest.approx(of_all(people)["precision"])}
    assert found.losses == ()
    assert found.respondents == flagged.sum()
    assert found.missing_because == (
        f"the outcomes of 0 of {(~flagged).sum()} people who were not contacted are known, "
        "at least 30 are required: only precision is measured"
    )


def test_a_handful_of_those_not_contacted_cannot_stand_for_all_of_them(con: Connection, study: Study):
    people = crowd(1_000, 5)
    flagged = people["contact"] == 1
    few = flagged | (np.cumsum(~flagged) <= 29)
    stand(con, people.assign(audit=False), few.to_numpy())
    assert set(values(realised(con, study, "b1", 1, None))) == {"precision"}


def test_without_outcomes_of_contacts_nothing_is_said(con: Connection, study: Study):
    people = crowd(1_000, 5)
    stand(con, people, (people["contact"] == 0).to_numpy())
    found = realised(con, study, "b1", 1, None)
    assert found is not None
    assert found.estimates == ()
    assert f"0 of {people['contact'].sum()} contacts are known" in found.missing_because
    save_realised(con, "b1", 1, found)
    assert kept(con) == {}


def test_the_audit_sample_stands_for_those_not_contacted_when_others_were_known_by_choice(
    con: Connection, study: Study
):
    people = crowd(8_000, 6)
    # Whoever turns out badly is heard of; and the audit sample is asked.
    heard = (people["political_engagement"] == 1) & (np.arange(8_000) % 2 == 0)
    known = (people["contact"] == 1) | heard | people["audit"]
    stand(con, people, known.to_numpy())
    found, truth = realised(con, study, "b1", 1, None), of_all(people)
    recall = found.estimate("recall") if found else None
    assert recall is not None
    assert recall.lower < truth["recall"] < recall.upper
    assert recall.value == pytest.approx(truth["recall"], abs=0.06)
    stood = realised(con, with_policies(study, outcomes={"min_interviews": 5_000}), "b1", 1, None)
    assert stood is not None and "recall" not in values(stood)


def test_people_asked_for_by_a_request_were_drawn_by_lot_as_well(con: Connection, study: Study):
    people = crowd(8_000, 6).assign(audit=False)
    heard = (people["political_engagement"] == 1) & (np.arange(8_000) % 2 == 0)
    asked = (people["contact"] == 0) & (np.random.default_rng(2).random(8_000) < 0.1)
    stand(con, people, ((people["contact"] == 1) | heard | asked).to_numpy())
    before = realised(con, study, "b1", 1, None)
    rows = people.loc[asked, ["subject_id"]].assign(batch="b1", stratum="", why="", requested_at=START)
    insert(con, "field_study_requests", rows)
    after, truth = realised(con, study, "b1", 1, None), of_all(people)
    assert values(before)["recall"] < truth["recall"] - 0.1
    assert values(after)["recall"] == pytest.approx(truth["recall"], abs=0.05)


def test_a_list_worked_off_from_the_top_tells_of_the_whole_list(con: Connection, study: Study):
    people = crowd(8_000, 6).assign(audit=False)
    flagged = people["contact"] == 1
    chance = np.where(people["score"] > 0.7, 0.9, 0.2)
    known = flagged & (np.random.default_rng(2).random(8_000) < chance)
    stand(con, people, known.to_numpy())
    found, truth = realised(con, study, "b1", 1, None), of_all(people)["precision"]
    precision = found.estimate("precision") if found else None
    assert precision is not None
    assert of_all(people[known])["precision"] > truth + 0.04
    assert precision.lower < truth < precision.upper
    assert precision.value == pytest.approx(truth, abs=0.03)


def test_interviews_where_scores_are_uncertain_do_not_make_the_ranking_look_bad(
    con: Connection, study: Study
):
    people = crowd(8_000, 6)
    uncertain = people["score"].between(0.35, 0.65)
    known = np.random.default_rng(2).random(8_000) < np.where(uncertain, 0.5, 0.1)
    stand(con, people.assign(audit=False), known)
    found, truth = realised(con, study, "b1", 1, None), of_all(people)["auc"]
    auc = found.estimate("auc") if found else None
    assert auc is not None
    assert of_all(people[known])["auc"] < truth - 0.03
    assert auc.lower < truth < auc.upper
    assert auc.value == pytest.approx(truth, abs=0.025)


def test_when_nearly_everybody_is_known_the_audit_sample_is_nothing_special(con: Connection, study: Study):
    people = crowd(4_000, 7)
    known = np.random.default_rng(1).random(4_000) < 0.95
    stand(con, people, known)
    assert values(realised(con, study, "b1", 1, None)) == pytest.approx(of_all(people[known]), abs=0.004)


def test_intervals_hold_the_truth_as_often_as_they_promise(con: Connection, study: Study):
    truth = of_all(crowd(400_000, 99))
    inside = dict.fromkeys(["auc", "recall", "log_loss", "accuracy"], 0)
    rounds = 30
    for seed in range(rounds):
        con.execute("DELETE FROM predictions; DELETE FROM outcomes; DELETE FROM batch_rows")
        people = crowd(1_500, 1_000 + seed)
        random = np.random.default_rng(seed)
        share = np.where(people["contact"] == 1, 0.6, 0.2)
        stand(con, people.assign(audit=False), random.random(1_500) < share)
        found = realised(con, study, "b1", 1, None)
        for metric in inside:
            estimate = found.estimate(metric) if found else None
            assert estimate is not None
            inside[metric] += estimate.lower <= truth[metric] <= estimate.upper
    # 95 of 100; four standard errors below are 24 of 30.
    assert {metric: times for metric, times in inside.items() if times < 24} == {}


# Losses


def test_a_model_that_does_as_well_as_on_its_reference_has_lost_nothing(con: Connection, study: Study):
    stand(con, crowd(3_000, 8))
    found = realised(con, study, "b1", 1, crowd(3_000, 9))
    assert found is not None
    assert [(words, tolerated) for words, _, tolerated in found.losses] == [
        ("the AUC is lower", study.policies.overseer.max_auc_drop),
        ("the log-loss is higher", study.policies.outcomes.max_log_loss_rise),
    ]
    assert found.significant_losses(study.policies.overseer.confidence) == ()
    for _, loss, _ in found.losses:
        assert abs(loss.value) < 3 * loss.error


def test_a_model_that_ranks_worse_has_surely_lost(con: Connection, study: Study):
    people = crowd(3_000, 8, shift=0.8).assign(country="20")
    reference = crowd(3_000, 9).assign(country="20")
    stand(con, people)
    found = realised(con, study, "b1", 1, reference)
    assert found is not None
    assert [words for words, *_ in found.significant_losses(study.policies.overseer.confidence)] == [
        "the AUC is lower",
        "the log-loss is higher",
    ]
    auc, log_loss = (loss for _, loss, _ in found.losses)
    here, there = of_all(people), of_all(reference)
    assert auc.value == pytest.approx(there["auc"] - here["auc"])
    assert log_loss.value == pytest.approx(here["log_loss"] - there["log_loss"])


def test_the_reference_stands_beside_each_figure(con: Connection, study: Study):
    reference = crowd(3_000, 9).assign(country="20")
    stand(con, crowd(2_000, 8).assign(country="20"))
    found = realised(con, study, "b1", 1, reference)
    assert found is not None
    assert {e.metric: e.reference for e in found.estimates} == pytest.approx(of_all(reference))


def test_the_error_of_a_loss_is_how_much_it_varies_from_draw_to_draw(con: Connection, study: Study):
    losses, errors = [], []
    for seed in range(40):
        con.execute("DELETE FROM predictions; DELETE FROM outcomes; DELETE FROM batch_rows")
        stand(con, crowd(600, 1_000 + seed))
        found = realised(con, study, "b1", 1, crowd(900, 2_000 + seed))
        assert found is not None
        losses.append([loss.value for _, loss, _ in found.losses])
        errors.append([loss.error for _, loss, _ in found.losses])
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(losses, axis=0), rtol=0.4)


def test_people_are_compared_with_their_like_in_the_reference(con: Connection, study: Study):
    # In one country the model ranks well, in the other it does not; the batch is of the other.
    good, bad = crowd(4_000, 8).assign(country="20"), crowd(1_000, 9, shift=1).assign(country="32")
    reference = pd.concat([good, bad], ignore_index=True)
    stand(con, crowd(2_000, 10, shift=1).assign(country="32"))
    within = with_policies(study, overseer={"compare_within": "country"})
    found = realised(con, within, "b1", 1, reference)
    anybody = realised(con, with_policies(study, overseer={"compare_within": None}), "b1", 1, reference)
    assert found is not None and anybody is not None
    assert found.significant_losses(study.policies.overseer.confidence) == ()
    assert [words for words, *_ in anybody.significant_losses(study.policies.overseer.confidence)] == [
        "the AUC is lower",
        "the log-loss is higher",
    ]
    auc = found.estimate("auc")
    assert auc is not None and auc.reference == pytest.approx(of_all(bad)["auc"])


def test_people_are_compared_with_the_likes_of_those_whose_outcomes_are_known(con: Connection, study: Study):
    good, bad = crowd(4_000, 8).assign(country="20"), crowd(2_000, 9, shift=1).assign(country="32")
    people = pd.concat(
        [crowd(1_000, 11).assign(country="20"), crowd(1_000, 10, shift=1).assign(country="32")]
    )
    people["subject_id"] = [f"p{number}" for number in range(2_000)]
    # Only the second country has answered so far.
    within = with_policies(study, overseer={"compare_within": "country"})
    stand(con, people.reset_index(drop=True), (people["country"] == "32").to_numpy())
    found = realised(con, within, "b1", 1, pd.concat([good, bad], ignore_index=True))
    assert found is not None
    assert found.significant_losses(study.policies.overseer.confidence) == ()


def test_too_few_outcomes_say_nothing_about_a_loss(con: Connection, study: Study):
    stand(con, crowd(99, 8, shift=2))
    found = realised(con, study, "b1", 1, crowd(3_000, 9))
    assert found is not None
    assert found.losses == ()


def test_a_single_positive_proves_no_loss_of_ranking(con: Connection, study: Study):
    people = crowd(300, 8)
    lowest = people["score"].rank() == 20
    stand(con, people.assign(political_engagement=lowest.astype(int)))
    found = realised(con, study, "b1", 1, crowd(3_000, 9))
    assert found is not None
    words, loss, tolerated = found.losses[0]
    assert words == "the AUC is lower"
    assert loss.value > 0.4
    assert not loss.is_above(tolerated, 0.998)


def test_the_error_of_an_auc_is_that_of_hanley_and_mcneil():
    # Worked out by hand from their formula.
    assert hanley_mcneil_error(0.5, 10, 20) == pytest.approx(
        ((0.25 + 9 * (1 / 3 - 0.25) + 19 * (1 / 3 - 0.25)) / 200) ** 0.5
    )
    assert hanley_mcneil_error(1.0, 10, 20) == 0.0
    assert hanley_mcneil_error(0.8, 50, 50) > hanley_mcneil_error(0.8, 100, 100)


def test_measuring_twice_says_the_same(con: Connection, study: Study):
    stand(con, crowd(500, 8))
    reference = crowd(500, 9)
    assert realised(con, study, "b1", 1, reference) == realised(con, study, "b1", 1, reference)
