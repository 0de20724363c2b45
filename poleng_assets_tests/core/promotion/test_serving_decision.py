"""Which version serves by the ledger, and what is said when the registry says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from poleng_assets.core.promotion.serving_decision import Appointed, appointed, disagreement
from poleng_assets.warehouse.schema import record_decision, stamp


def promote(con: duckdb.DuckDBPyConnection, version: int, before: int | None) -> None:
    evidence = {"champion_before": before}
    record_decision(
        con, "promote", "better", evidence=evidence, champion_version=version, challenger_version=version
    )


def test_a_ledger_without_promotions_appoints_nobody(con: duckdb.DuckDBPyConnection):
    assert appointed(con) is None
    record_decision(con, "reject", "worse", evidence={"champion_before": 1}, champion_version=1)
    assert appointed(con) is None


def test_the_newest_promotion_or_rollback_appoints(con: duckdb.DuckDBPyConnection):
    promote(con, 1, None)
    assert appointed(con) == Appointed(1, None, "better", frozenset({1}))
    promote(con, 2, 1)
    assert appointed(con) == Appointed(2, 1, "better", frozenset({1, 2}))
    record_decision(con, "rollback", "complaints", evidence={"taken_back": 2}, champion_version=1)
    record_decision(con, "reject", "worse", evidence={"champion_before": 1}, champion_version=1)
    assert appointed(con) == Appointed(1, 2, "complaints", frozenset({1, 2}))


def test_a_decision_is_the_newest_though_the_clock_went_back(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    promote(con, 1, None)
    monkeypatch.setattr("poleng_assets.warehouse.schema.now", lambda: datetime.now(UTC) - timedelta(days=400))
    promote(con, 2, 1)
    promote(con, 3, 2)
    assert appointed(con) == Appointed(3, 2, "better", frozenset({1, 2, 3}))


def test_a_stamp_is_the_time_of_day_when_the_clock_goes_right(con: duckdb.DuckDBPyConnection):
    before = datetime.now(UTC)
    assert before <= stamp(con, "decisions", "decided_at") <= datetime.now(UTC)
    promote(con, 1, None)
    assert before <= stamp(con, "decisions", "decided_at") <= datetime.now(UTC)


@pytest.mark.parametrize(("told", "alias"), [(None, None), (Appointed(2, 1, "better"), 2)])
def test_nothing_is_said_when_they_agree(told: Appointed | None, alias: int | None):
    assert disagreement(told, alias) == ""


def test_an_alias_of_which_an_empty_ledger_knows_nothing_is_named():
    words = disagreement(None, 3)
    assert "points to version 3, but the ledger never appointed one" in words
    assert "`poleng restore`" in words


def test_an_alias_that_points_elsewhere_is_named_with_both_ways_out():
    words = disagreement(Appointed(2, 1, "better", frozenset({1, 2})), 1)
    assert "the ledger says that version 2 serves (better)" in words
    assert "points to version 1, which nobody decided" in words
    assert "`poleng rollback --to 2` puts it back" in words
    assert "`poleng rollback --to 1` lets version 1 serve" in words


def test_a_version_that_never_passed_the_gates_is_not_offered():
    assert "--to 3" not in disagreement(Appointed(2, 1, "better", frozenset({1, 2})), 3)


def test_an_alias_that_is_gone_is_named():
    words = disagreement(Appointed(2, 1, "better"), None)
    assert "'champion' is gone" in words
    assert words.endswith("`poleng rollback --to 2` puts it back")
