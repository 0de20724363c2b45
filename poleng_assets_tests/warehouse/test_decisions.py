"""What the ledger says already is not written twice by a run that goes on with the work of one that died."""

from __future__ import annotations

import dagster as dg
import duckdb
import pytest

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.run_history import REQUEST_TAG, earlier_attempts
from poleng_assets.storage.home import Home
from poleng_assets.warehouse.decisions import is_decided, was_decided_by
from poleng_assets.warehouse.schema import record_decision


@pytest.fixture
def held(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    record_decision(con, "hold", "march drifted", evidence={}, champion_version=1, batch="march")
    return con


def test_a_hold_that_stands_in_the_ledger_is_known_by_batch_version_and_reason(held):
    assert is_decided(held, "hold", "march", 1, "march drifted")
    assert not is_decided(held, "hold", "march", 1, "march lost its ranking")
    assert not is_decided(held, "hold", "march", 2, "march drifted")
    assert not is_decided(held, "hold", "april", 1, "march drifted")
    assert not is_decided(held, "skip", "march", 1, "march drifted")


def test_a_batch_that_is_held_again_after_its_release_is_a_new_decision(held):
    record_decision(held, "skip", "nothing to learn from", evidence={}, champion_version=1, batch="march")
    assert is_decided(held, "skip", "march", 1, "nothing to learn from")
    assert not is_decided(held, "hold", "march", 1, "march drifted")


def test_a_decision_is_known_by_the_run_that_wrote_it(con):
    record_decision(con, "retrain", "drift", evidence={}, dagster_run_id="first")
    assert was_decided_by(con, "retrain", ["other", "first"])
    assert not was_decided_by(con, "retrain", ["other"])
    assert not was_decided_by(con, "request", ["first"])
    assert not was_decided_by(con, "retrain", [])


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
        assert earlier_attempts(instance, now) == [third.run_id, second.run_id]
        run(died, request=None)
        assert earlier_attempts(instance, run(dg.DagsterRunStatus.STARTED, request=None)) == []
