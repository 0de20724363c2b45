"""The clock is doubted at every jump between two signs of life, and rows that it dated are put right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import duckdb
import pandas as pd
import pytest

from poleng_assets.study.schema import Study
from poleng_assets.warehouse import writes
from poleng_assets.warehouse.clock import (
    SLACK,
    date_to_now,
    doubt_about_clock,
    signs_of_life,
    trusted_until,
)
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.writes import insert, monotonic_timestamp, transaction

Connection = duckdb.DuckDBPyConnection
DAY = timedelta(days=1)
TODAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAR = datetime(2099, 1, 1, tzinfo=UTC)


def doubted(moment: datetime, *signs: datetime, trusted: datetime | None = None) -> str:
    return doubt_about_clock(moment, signs, 100, trusted)


@pytest.mark.parametrize(
    "signs",
    [
        (),
        (TODAY,),
        (TODAY - 100 * DAY,),
        (TODAY - 190 * DAY, TODAY - 95 * DAY),
        (TODAY + SLACK,),
        (TODAY - DAY, TODAY - DAY),
    ],
)
def test_a_clock_that_fits_all_that_was_written_down_is_believed(signs: tuple[datetime, ...]):
    assert doubted(TODAY, *signs) == ""


@pytest.mark.parametrize(
    ("moment", "signs", "words"),
    [
        (TODAY, (TODAY - 101 * DAY,), "101 days before: the clock may have jumped ahead"),
        (
            FAR,
            (TODAY,),
            "the clock shows 2099-01-01 00:00 UTC, and the last sign of life before it is of 2026",
        ),
        # One write under a wrong clock makes it no better.
        (FAR + DAY, (TODAY, FAR), "a record is of 2099-01-01 00:00 UTC, and the last sign of life"),
        (TODAY, (TODAY - 400 * DAY, TODAY - DAY), "is of 2026-02-28 12:00 UTC, and the last sign of life"),
        (
            TODAY,
            (TODAY - DAY, FAR),
            "ahead: the clock was set back, or was wrong when it was written",
        ),
        (datetime(1970, 1, 1, tzinfo=UTC), (TODAY,), "the clock shows 1970-01-01 00:00 UTC, but a record"),
        (TODAY, (TODAY + 2 * SLACK,), ", 2 hours ahead"),
    ],
    ids=[
        "ahead",
        "far ahead",
        "after a write",
        "between two",
        "a row ahead",
        "no clock at boot",
        "two hours",
    ],
)
def test_every_jump_between_neighbouring_signs_is_doubted(moment, signs, words):
    assert words in doubted(moment, *signs)


def test_what_lies_before_the_moment_at_which_it_was_found_right_is_settled():
    assert doubted(TODAY, TODAY - 400 * DAY, trusted=TODAY - DAY) == ""
    assert "101 days" in doubted(TODAY, TODAY - 400 * DAY, trusted=TODAY - 101 * DAY)
    assert "set back" in doubted(TODAY, trusted=TODAY + DAY)


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(writes, "now", lambda: moment)


def decide(con: Connection, kind: str) -> None:
    with transaction(con):
        record_decision(con, kind, kind, evidence={})


def dates(con: Connection) -> list[tuple[str, datetime]]:
    return con.execute("SELECT kind, decided_at FROM decisions ORDER BY decided_at").fetchall()


def test_an_empty_warehouse_knows_no_sign_of_life(con: Connection):
    assert signs_of_life(con) == []
    assert trusted_until(con) is None


def test_what_is_written_after_a_wrong_clock_is_dated_to_now_in_its_order(
    con: Connection, study: Study, monkeypatch: pytest.MonkeyPatch
):
    at(monkeypatch, TODAY - DAY)
    decide(con, "first")
    at(monkeypatch, FAR)
    decide(con, "wrong clock")
    scored = pd.DataFrame([{"batch": "b", study.id: "a", "model_version": 2, "score": 0.5, "contact": True}])
    insert(con, "predictions", scored.assign(scored_at=monotonic_timestamp(con, "predictions", "scored_at")))
    at(monkeypatch, TODAY)
    decide(con, "clock right again")
    # Until a person has said so, what is later counts as later, and nothing lies further ahead.
    assert [kind for kind, _ in dates(con)] == ["first", "wrong clock", "clock right again"]
    assert dates(con)[-1][1] == FAR + timedelta(microseconds=1)
    with transaction(con):
        changed = date_to_now(con, TODAY)
    assert changed == {"decisions": 2, "predictions": 1}
    decide(con, "from now on")
    told = dates(con)
    assert [kind for kind, _ in told] == ["first", "wrong clock", "clock right again", "from now on"]
    assert all(one < other for (_, one), (_, other) in pairwise(told))
    assert told[-1][1] == TODAY
    assert TODAY - told[1][1] < timedelta(seconds=1)
    # Rows of one moment keep one moment, in all tables.
    assert con.execute("SELECT scored_at FROM predictions").fetchall() == [(told[1][1],)]
    assert signs_of_life(con, TODAY) == []


def test_dates_that_are_right_are_left_alone(con: Connection, monkeypatch: pytest.MonkeyPatch):
    at(monkeypatch, TODAY)
    decide(con, "one")
    with transaction(con):
        assert date_to_now(con, TODAY) == {}
    assert dates(con) == [("one", TODAY)]
