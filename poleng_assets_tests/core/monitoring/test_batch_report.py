"""A batch reported: read from a real warehouse, measured, judged, kept, and found again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.modeling.model import Model
from poleng_assets.core.monitoring import batch_report
from poleng_assets.core.monitoring.batch_report import (
    BatchReport,
    ModelContext,
    load_inputs,
    load_report,
    measure_and_judge,
    save_report,
)
from poleng_assets.core.monitoring.measurements import BatchMeasurements, Loss, Trust
from poleng_assets.core.monitoring.realised_performance import measure_realised
from poleng_assets.core.monitoring.verdict import ESTIMATED_LOSS, REALISED_LOSS
from poleng_assets.core.reports.drift_report import render_report
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.predictions import outcomes_of_scored, scoring_version
from poleng_assets.warehouse.writes import insert, transaction
from poleng_assets_tests.conftest import scored_by, table_counts, with_policies

Connection = duckdb.DuckDBPyConnection
START = datetime(2024, 5, 1, tzinfo=UTC)
VERSION = 3


@pytest.fixture(scope="module")
def policed(study: Study) -> Study:
    """The study with fewer resamples: how exact limits are is not asked here."""
    return with_policies(study, overseer={"resamples": 100})


@pytest.fixture(scope="module")
def context(model: Model, reference: pd.DataFrame) -> ModelContext:
    return ModelContext(VERSION, model, reference, {"country": 0.2, "education": 0.1, "sex": 0.1})


@pytest.fixture(scope="module")
def clean(model: Model, people: pd.DataFrame) -> pd.DataFrame:
    """400 people of the founding population, scored."""
    return scored_by(model, people.iloc[3_000:].sample(400, random_state=3)).reset_index(drop=True)


@pytest.fixture(scope="module")
def strangers(model: Model, newcomers: pd.DataFrame) -> pd.DataFrame:
    return scored_by(model, newcomers.iloc[:300]).reset_index(drop=True)


Take = Callable[..., None]


@pytest.fixture
def take(con: Connection, study: Study) -> Take:
    """Take in a batch as ingestion and scoring leave it."""

    def taken(
        batch: str, rows: pd.DataFrame, *versions: int, quarantined: int = 0, only_scores: bool = False
    ) -> None:
        if not only_scores:
            names = [study.id, *study.feature_names]
            insert(con, "batch_rows", rows[names].assign(batch=batch, row_number=range(1, len(rows) + 1)))
            con.execute(
                """INSERT INTO ingested_files
                VALUES ('batches', ?, ?, ?, ?, ?, '', ?, 0, NULL, NULL, NULL, NULL)""",
                [batch, batch, len(rows) + quarantined, len(rows), quarantined, START],
            )
        for version in versions or (VERSION,):
            said = rows[[study.id, "score"]].assign(
                batch=batch,
                model_version=version,
                contact=rows["contact"].astype(bool),
                scored_at=START + timedelta(hours=version),
            )
            insert(con, "predictions", said)

    return taken


def told(con: Connection, rows: pd.DataFrame, study: Study, source: str = "answers") -> None:
    """Let outcomes of these people arrive."""
    names = [study.id, study.target.name]
    insert(
        con,
        "outcomes",
        rows[names].assign(batch=source, source=source, row_number=range(1, len(rows) + 1)),
    )
    con.execute(
        "INSERT INTO ingested_files VALUES ('outcomes', ?, ?, ?, ?, 0, '', ?, 0, NULL, NULL, NULL, NULL)",
        [source, source, len(rows), len(rows), START],
    )


def report_on(con: Connection, study: Study, batch: str, context: ModelContext) -> BatchReport:
    return measure_and_judge(study, context, load_inputs(con, study, batch, context.version))


def one(con: Connection, sql: str, *parameters: Any) -> Any:
    (row,) = con.execute(sql, list(parameters)).fetchall()
    return row[0] if len(row) == 1 else row


# A clear batch


@pytest.fixture
def seen(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
) -> BatchReport:
    take("spring", clean, quarantined=100)
    return report_on(con, policed, "spring", context)


def test_measuring_writes_nothing(con: Connection, seen: BatchReport):
    counts = table_counts(con)
    assert {name for name, count in counts.items() if count} == {
        "batch_rows",
        "predictions",
        "ingested_files",
    }


def test_a_batch_is_measured_as_its_version_scored_it(seen: BatchReport, clean: pd.DataFrame):
    assert (seen.batch, seen.version, seen.realised) == ("spring", VERSION, None)
    assert (seen.measurements.rows, seen.measurements.rows_measured) == (400, 400)
    assert seen.measurements.flagged_share == clean["contact"].mean()
    assert sorted(seen.scored["score"]) == sorted(clean["score"])
    quarantined = seen.measurements.metric("all_features", "quarantined_rows")
    assert quarantined is not None
    assert quarantined.value == 0.2
    assert seen.measurements.importance == {"country": 0.5, "education": 0.25, "sex": 0.25}
    assert seen.judgement.verdict == "clear"


def test_a_clear_batch_is_kept_without_a_decision(con: Connection, policed: Study, seen: BatchReport):
    save_report(con, seen, "run-1")
    assert one(con, "SELECT count(*) FROM decisions") == 0
    assert one(
        con,
        """SELECT model_version, verdict, rows, drifted_columns, rows_measured, held, alarm, weak,
        causes, reasons FROM drift_reports WHERE batch = 'spring'""",
    ) == (VERSION, "clear", 400, 0, 400, False, False, False, "[]", "\n".join(seen.judgement.words))


def test_the_numbers_of_a_report_are_those_of_the_figures(con: Connection, policed: Study, seen: BatchReport):
    save_report(con, seen, "run-1")
    auc, loss = seen.measurements.estimate("auc"), seen.measurements.loss
    assert auc is not None
    assert loss is not None
    assert one(
        con,
        """SELECT outside_support, flagged_share, estimated_auc, reference_auc, trusted, estimated_loss
        FROM drift_reports""",
    ) == pytest.approx((0.0, seen.measurements.flagged_share, auc.value, auc.reference, False, loss.value))


def test_every_figure_and_every_estimate_is_kept(con: Connection, policed: Study, seen: BatchReport):
    save_report(con, seen, "run-1")
    metrics = con.execute(
        """SELECT column_name, method, value, lower_threshold, upper_threshold, alert FROM drift_metrics
        WHERE batch = 'spring' AND model_version = 3 ORDER BY ALL"""
    ).fetchall()
    assert metrics == sorted(tuple(vars(figure).values()) for figure in seen.measurements.metrics)
    estimates = con.execute(
        "SELECT kind, metric, value, lower, upper FROM performance ORDER BY ALL"
    ).fetchall()
    assert estimates == sorted(
        ("estimated", e.metric, e.value, e.lower, e.upper) for e in seen.measurements.estimates
    )


def test_kept_again_a_report_replaces_itself_and_touches_no_other(
    con: Connection, policed: Study, seen: BatchReport
):
    save_report(con, seen, "run-1")
    other = replace(seen, version=VERSION + 1)
    save_report(con, other, "run-2")
    before = table_counts(con)
    small = replace(
        seen.measurements, metrics=seen.measurements.metrics[:2], estimates=seen.measurements.estimates[:1]
    )
    save_report(con, replace(seen, measurements=small), "run-3")
    after = table_counts(con)
    assert after["drift_reports"] == before["drift_reports"] == 2
    assert after["drift_metrics"] == before["drift_metrics"] // 2 + 2
    assert after["performance"] == before["performance"] // 2 + 1


def test_a_report_is_found_again_as_it_was(
    con: Connection, policed: Study, seen: BatchReport, context: ModelContext
):
    save_report(con, seen, "run-1")
    again = load_report(con, policed, "spring", VERSION, context.reference)
    assert again.measurements == seen.measurements
    assert again.judgement == seen.judgement
    pd.testing.assert_frame_equal(again.scored, seen.scored)
    assert (again.batch, again.version, again.realised) == ("spring", VERSION, None)


def test_a_report_is_kept_by_the_names_that_earlier_releases_gave(con: Connection, seen: BatchReport):
    save_report(con, seen, "run-1")
    kept = json.loads(one(con, "SELECT figures FROM drift_reports"))
    assert {"rows", "outside_support", "flagged_share", "figures", "estimates", "loss", "trust"} <= set(kept)
    assert len(kept["figures"]) == len(seen.measurements.metrics)


def test_a_report_found_again_knows_outcomes_that_arrived_since_and_keeps_its_verdict(
    con: Connection, policed: Study, seen: BatchReport, context: ModelContext, clean: pd.DataFrame
):
    save_report(con, seen, "run-1")
    target = policed.target.name
    told(con, clean.assign(**{target: 1 - clean[target]}), policed)
    people = outcomes_of_scored(con, policed, "spring", VERSION)
    outcomes = measure_realised(people, policed, context.reference)
    again = load_report(con, policed, "spring", VERSION, context.reference, outcomes)
    assert again.judgement == seen.judgement
    assert again.realised is not None
    assert again.realised.respondents == 400
    assert again.realised.significant_losses(policed.policies.overseer.confidence)


@pytest.mark.parametrize(
    ("batch", "version", "said"),
    [
        ("spring", VERSION + 1, "spring has no report under version 4"),
        ("autumn", VERSION, "autumn has no report under version 3"),
        ("spring", VERSION, "spring has no report under version 3"),
    ],
)
def test_what_was_never_reported_is_not_found_again(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    batch: str,
    version: int,
    said: str,
):
    take("spring", clean)
    with pytest.raises(LookupError, match=said):
        load_report(con, policed, batch, version, context.reference)


def test_a_report_of_an_earlier_release_is_asked_for_anew(
    con: Connection, policed: Study, context: ModelContext, seen: BatchReport
):
    save_report(con, seen, "run-1")
    con.execute("UPDATE drift_reports SET figures = NULL, judgement = NULL")
    with pytest.raises(LookupError, match="materialise its drift_report"):
        load_report(con, policed, "spring", VERSION, context.reference)


def test_the_order_in_which_a_batch_was_stored_does_not_matter(
    con: Connection, policed: Study, context: ModelContext, take: Take, seen: BatchReport, clean: pd.DataFrame
):
    mixed = clean.sample(frac=1, random_state=1)
    take("mixed", mixed)
    again = report_on(con, policed, "mixed", context)
    assert [f.value for f in again.measurements.metrics if f.method != "quarantined_rows"] == [
        f.value for f in seen.measurements.metrics if f.method != "quarantined_rows"
    ]


def test_a_large_batch_is_measured_by_a_sample_that_is_always_the_same(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
):
    take("spring", clean)
    sampled = with_policies(policed, overseer={"report_sample": 150})
    seen, again = (report_on(con, sampled, "spring", context) for _ in range(2))
    assert (seen.measurements.rows, seen.measurements.rows_measured) == (400, 150)
    assert seen.measurements.flagged_share == clean["contact"].mean()
    pd.testing.assert_frame_equal(seen.scored, again.scored)


# A held batch


@pytest.fixture
def held(
    con: Connection, policed: Study, context: ModelContext, take: Take, strangers: pd.DataFrame
) -> BatchReport:
    take("summer", strangers)
    return report_on(con, policed, "summer", context)


def test_a_held_batch_stands_in_the_ledger_with_its_causes(
    con: Connection, policed: Study, held: BatchReport
):
    assert (held.judgement.verdict, held.judgement.held, held.judgement.alarm) == ("untrusted", True, True)
    save_report(con, held, "run-7")
    kind, champion, batch, run, reason, evidence = one(
        con, "SELECT kind, champion_version, batch, dagster_run_id, reason, evidence FROM decisions"
    )
    assert (kind, champion, batch, run) == ("hold", VERSION, "summer", "run-7")
    assert reason == f"summer is untrusted: {held.judgement.words[0]}"
    found = json.loads(evidence)
    assert found["reasons"] == list(held.judgement.words)
    assert found["causes"] == sorted(held.judgement.causes)
    assert "support:country" in found["causes"]
    assert found["alarm"] is True
    assert found["drifted_columns"] == list(held.judgement.drifted_columns)
    assert one(con, "SELECT held, alarm, causes FROM drift_reports") == (
        True,
        True,
        json.dumps(sorted(held.judgement.causes)),
    )


def test_a_batch_that_is_held_again_for_the_very_same_reason_stands_in_the_ledger_once(
    con: Connection, policed: Study, held: BatchReport
):
    save_report(con, held, "run-7")
    save_report(con, held, "run-8")
    assert one(con, "SELECT count(*) FROM decisions") == 1
    assert one(con, "SELECT count(*) FROM drift_reports") == 1


def test_a_second_batch_with_the_same_cause_is_held_without_an_alarm(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    held: BatchReport,
    strangers: pd.DataFrame,
):
    save_report(con, held, "run-7")
    more = strangers.assign(**{policed.id: [f"again-{number}" for number in range(len(strangers))]})
    take("autumn", more)
    second = report_on(con, policed, "autumn", context)
    assert second.judgement.held
    assert second.judgement.causes == held.judgement.causes
    assert not second.judgement.alarm
    save_report(con, second, "run-9")
    alarms = con.execute("SELECT batch, alarm FROM drift_reports ORDER BY reported_at").fetchall()
    assert alarms == [("summer", True), ("autumn", False)]
    # Observed once more, the first is still the one with the alarm.
    assert report_on(con, policed, "summer", context).judgement.alarm


def test_under_another_version_a_cause_is_new_again(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    held: BatchReport,
    strangers: pd.DataFrame,
):
    save_report(con, held, "run-7")
    take("summer", strangers, VERSION + 1, only_scores=True)
    again = report_on(con, policed, "summer", replace(context, version=VERSION + 1))
    assert again.judgement.alarm


def test_what_fails_half_way_leaves_nothing_behind(
    con: Connection, policed: Study, held: BatchReport, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no space left")

    before = table_counts(con)
    monkeypatch.setattr(batch_report, "record_decision", fail)
    with pytest.raises(RuntimeError, match="no space left"), transaction(con):
        save_report(con, held, "run-7")
    assert table_counts(con) == before


def test_a_held_batch_stays_as_it_was_when_its_new_report_fails(
    con: Connection, policed: Study, held: BatchReport, monkeypatch: pytest.MonkeyPatch
):
    save_report(con, held, "run-7")
    before = one(con, "SELECT reported_at FROM drift_reports")

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_report, "already_recorded", fail)
    with pytest.raises(KeyboardInterrupt), transaction(con):
        save_report(con, held, "run-8")
    assert one(con, "SELECT reported_at FROM drift_reports") == before


# Weak signs of the past

WEAK = BatchMeasurements(
    rows=400,
    rows_measured=400,
    outside_support=0.0,
    flagged_share=0.3,
    loss=Loss(0.02, 0.004),
    trust=Trust(True),
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BatchMeasurements]]:
    """Measure what stands here instead of the batch."""
    found = [WEAK]
    monkeypatch.setattr(batch_report, "measure_batch", lambda *_, **__: found[0])
    yield found


def went_by(con: Connection, policed: Study, context: ModelContext, take: Take, rows: pd.DataFrame) -> Any:
    """Return how to report and keep one batch after the other."""

    def batch_comes(batch: str, *, version: int = VERSION) -> BatchReport:
        take(batch, rows.iloc[:5], version)
        seen = report_on(con, policed, batch, replace(context, version=version))
        save_report(con, seen, "run")
        return seen

    return batch_comes


def test_weak_signs_are_remembered_from_batch_to_batch(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    assert [comes(name).judgement.held for name in ("b1", "b2", "b3", "b4")] == [False, False, True, True]
    assert [row[0] for row in con.execute("SELECT weak FROM drift_reports").fetchall()] == [True] * 4
    alarms = con.execute("SELECT batch FROM drift_reports WHERE alarm").fetchall()
    assert alarms == [("b3",)]
    assert one(con, "SELECT causes FROM drift_reports WHERE batch = 'b3'") == json.dumps([ESTIMATED_LOSS])


def test_only_the_last_batches_count_and_the_newest_come_first(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    comes("b1"), comes("b2")
    measured[0] = replace(WEAK, loss=Loss(0.0, 0.004))
    for number in range(3, 6):
        comes(f"b{number}")
    measured[0] = WEAK
    # Of the five last, b2 and this one: two.
    assert not comes("b6").judgement.held
    # b3 to b5 were quiet, b6 and b7: two.
    assert not comes("b7").judgement.held
    assert comes("b8").judgement.held


def test_signs_under_another_version_do_not_count(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    comes("b1"), comes("b2")
    assert not comes("b3", version=VERSION + 1).judgement.held
    assert comes("b4").judgement.held


def test_batches_too_small_to_judge_do_not_count_as_quiet_ones(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    comes("b1"), comes("b2")
    measured[0] = replace(WEAK, rows=5, loss=None)
    for number in range(3, 9):
        assert comes(f"b{number}").judgement.verdict == "insufficient"
    measured[0] = WEAK
    assert comes("b9").judgement.held


def test_a_batch_does_not_count_its_own_earlier_report_nor_those_after_it(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    comes("b1"), comes("b2"), comes("b3")
    assert not report_on(con, policed, "b2", context).judgement.held
    again = report_on(con, policed, "b3", context).judgement
    assert (again.held, again.alarm) == (True, True)


def test_a_report_kept_again_keeps_its_place_among_the_others(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    comes("b1"), comes("b2"), comes("b3")
    # Whoever looks at an old batch again is told the same as before, as often as he looks.
    for _ in range(2):
        again = report_on(con, policed, "b1", context)
        assert not again.judgement.held
        save_report(con, again, "run")


def test_reports_of_earlier_releases_have_no_signs_and_no_causes(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    measured: list[BatchMeasurements],
):
    comes = went_by(con, policed, context, take, clean)
    comes("b1"), comes("b2")
    con.execute("UPDATE drift_reports SET weak = NULL, causes = NULL, held = NULL")
    assert not comes("b3").judgement.held


# What cannot be reported


@pytest.mark.parametrize(("batch", "version"), [("spring", VERSION + 1), ("autumn", VERSION)])
def test_a_version_that_did_not_score_a_batch_has_nothing_to_say(
    con: Connection,
    policed: Study,
    context: ModelContext,
    take: Take,
    clean: pd.DataFrame,
    batch: str,
    version: int,
):
    take("spring", clean)
    with pytest.raises(LookupError, match=f"version {version} did not score {batch}: materialise its"):
        report_on(con, policed, batch, replace(context, version=version))


def test_a_tiny_batch_is_kept_as_insufficient(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
):
    take("tiny", clean.iloc[:7])
    seen = report_on(con, policed, "tiny", context)
    save_report(con, seen, "run-1")
    assert one(con, "SELECT verdict, rows, held, weak, estimated_auc, estimated_loss FROM drift_reports") == (
        "insufficient",
        7,
        False,
        False,
        None,
        None,
    )
    assert one(con, "SELECT count(*) FROM performance") == 0
    assert one(con, "SELECT count(*) FROM decisions") == 0
    again = load_report(con, policed, "tiny", VERSION, context.reference)
    assert (again.measurements, again.judgement) == (seen.measurements, seen.judgement)


def test_missing_answers_survive_the_warehouse(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
):
    gaps = clean.assign(education=None, savings=None)
    gaps.loc[:40, "sex"] = None
    take("gaps", gaps)
    seen = report_on(con, policed, "gaps", context)
    assert {"missing:education", "missing:savings", "missing:sex"} <= seen.judgement.causes
    save_report(con, seen, "run-1")
    again = load_report(con, policed, "gaps", VERSION, context.reference)
    assert again.measurements == seen.measurements
    assert one(
        con, "SELECT value FROM drift_metrics WHERE column_name = 'sex' AND method = 'missing_values'"
    ) == pytest.approx(41 / 400)


# Outcomes


def test_outcomes_that_are_known_are_held_against_the_scores(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
):
    from sklearn.metrics import roc_auc_score

    take("spring", clean)
    told(con, clean, policed)
    seen = report_on(con, policed, "spring", context)
    assert seen.realised is not None
    assert REALISED_LOSS not in seen.judgement.causes
    save_report(con, seen, "run-1")
    realised = dict(con.execute("SELECT metric, value FROM performance WHERE kind = 'realised'").fetchall())
    assert realised["auc"] == pytest.approx(roc_auc_score(clean[policed.target.name], clean["score"]))
    assert one(con, "SELECT count(*) FROM performance WHERE kind = 'estimated' AND metric = 'auc'") == 1


def test_a_realised_loss_holds_a_batch(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
):
    take("spring", clean)
    random = np.random.default_rng(1)
    told(con, clean.assign(**{policed.target.name: random.integers(0, 2, len(clean))}), policed)
    seen = report_on(con, policed, "spring", context)
    assert seen.judgement.causes == {REALISED_LOSS}
    save_report(con, seen, "run-1")
    assert json.loads(one(con, "SELECT evidence FROM decisions"))["causes"] == [REALISED_LOSS]


def test_outcomes_of_others_are_no_outcomes(
    con: Connection, policed: Study, context: ModelContext, take: Take, clean: pd.DataFrame
):
    take("spring", clean)
    told(con, clean.assign(**{policed.id: [f"other-{number}" for number in range(400)]}), policed)
    seen = report_on(con, policed, "spring", context)
    assert seen.realised is None


# The version that counts


def test_the_newest_scores_name_their_version(con: Connection, take: Take, clean: pd.DataFrame):
    assert scoring_version(con, "spring") is None
    take("spring", clean, VERSION)
    take("autumn", clean, VERSION + 5)
    assert scoring_version(con, "spring") == VERSION
    take("spring", clean, VERSION + 1, only_scores=True)
    assert scoring_version(con, "spring") == VERSION + 1
    assert scoring_version(con, "autumn") == VERSION + 5


def test_a_report_has_its_page(con: Connection, policed: Study, seen: BatchReport):
    page = render_report(policed, seen)
    assert "spring" in page
    assert seen.judgement.words[0].lower() in page.lower()
