"""The ledger: which version serves, and what is not written twice by a run that replaces one that died."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import duckdb
import pytest

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.run_history import REQUEST_TAG, failed_runs_of_request
from poleng_assets.storage.home import Home
from poleng_assets.warehouse.decisions import (
    ServingDecision,
    already_recorded,
    record_decision,
    recorded_by_runs,
    serving_decision,
)
from poleng_assets.warehouse.writes import monotonic_timestamp


@pytest.fixture
def held(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    record_decision(con, "hold", "march drifted", evidence={}, champion_version=1, batch="march")
    return con


def test_a_hold_that_stands_in_the_ledger_is_known_by_batch_version_and_reason(held):
    assert already_recorded(held, "hold", "march", 1, "march drifted")
    assert not already_recorded(held, "hold", "march", 1, "march lost its ranking")
    assert not already_recorded(held, "hold", "march", 2, "march drifted")
    assert not already_recorded(held, "hold", "april", 1, "march drifted")
    assert not already_recorded(held, "skip", "march", 1, "march drifted")


def test_a_batch_that_is_held_again_after_its_release_is_a_new_decision(held):
    record_decision(held, "skip", "nothing to learn from", evidence={}, champion_version=1, batch="march")
    assert already_recorded(held, "skip", "march", 1, "nothing to learn from")
    assert not already_recorded(held, "hold", "march", 1, "march drifted")


def test_a_decision_is_known_by_the_run_that_wrote_it(con):
    record_decision(con, "retrain", "drift", evidence={}, dagster_run_id="first")
    assert recorded_by_runs(con, "retrain", ["other", "first"])
    assert not recorded_by_runs(con, "retrain", ["other"])
    assert not recorded_by_runs(con, "request", ["first"])
    assert not recorded_by_runs(con, "retrain", [])


def test_a_run_goes_on_with_those_of_its_request_that_died_since_the_last_success(home: Home):
    @dg.job
    def nothing() -> None:
        """Do nothing."""

    died, done = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
    with open_instance(home) as instance:

        def run(status: dg.DagsterRunStatus, request: str | None = "retrain/a") -> dg.DagsterRun:
            tags = {REQUEST_TAG: request} if request else {}
            return instance.create_run_for_job(nothing, status=status, tags=tags)

        run(died)
        run(done)
        run(died, request="retrain/b")
        second, third = run(died), run(dg.DagsterRunStatus.CANCELED)
        now = run(dg.DagsterRunStatus.STARTED)
        assert failed_runs_of_request(instance, now) == [third.run_id, second.run_id]
        run(died, request=None)
        assert failed_runs_of_request(instance, run(dg.DagsterRunStatus.STARTED, request=None)) == []


def promote(con: duckdb.DuckDBPyConnection, version: int, before: int | None) -> None:
    evidence = {"champion_before": before}
    record_decision(
        con, "promote", "better", evidence=evidence, champion_version=version, challenger_version=version
    )


def test_a_ledger_without_promotions_appoints_nobody(con: duckdb.DuckDBPyConnection):
    assert serving_decision(con) is None
    record_decision(con, "reject", "worse", evidence={"champion_before": 1}, champion_version=1)
    assert serving_decision(con) is None


def test_the_newest_promotion_or_rollback_appoints(con: duckdb.DuckDBPyConnection):
    promote(con, 1, None)
    assert serving_decision(con) == ServingDecision(1, None, "better", frozenset({1}))
    promote(con, 2, 1)
    assert serving_decision(con) == ServingDecision(2, 1, "better", frozenset({1, 2}))
    record_decision(con, "rollback", "complaints", evidence={"taken_back": 2}, champion_version=1)
    record_decision(con, "reject", "worse", evidence={"champion_before": 1}, champion_version=1)
    assert serving_decision(con) == ServingDecision(1, 2, "complaints", frozenset({1, 2}), ())


def test_a_decision_is_the_newest_though_the_clock_went_back(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    promote(con, 1, None)
    monkeypatch.setattr("poleng_assets.warehouse.writes.now", lambda: datetime.now(UTC) - timedelta(days=400))
    promote(con, 2, 1)
    promote(con, 3, 2)
    assert serving_decision(con) == ServingDecision(3, 2, "better", frozenset({1, 2, 3}))


def test_a_stamp_is_the_time_of_day_when_the_clock_goes_right(con: duckdb.DuckDBPyConnection):
    before = datetime.now(UTC)
    assert before <= monotonic_timestamp(con, "decisions", "decided_at") <= datetime.now(UTC)
    promote(con, 1, None)
    assert before <= monotonic_timestamp(con, "decisions", "decided_at") <= datetime.now(UTC)
