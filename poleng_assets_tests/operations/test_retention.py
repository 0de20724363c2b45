"""Retention: what has been kept long enough goes, with the account of rows; a doubtful clock erases none."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest
from pydantic import ValidationError

from poleng_assets.core.contacts.contact_history import history_of
from poleng_assets.core.privacy.subject import Person
from poleng_assets.core.privacy.warehouse_erasure import erase_rows
from poleng_assets.core.reports.overview import load_overview, render_overview
from poleng_assets.operations.retention import (
    ClockInDoubt,
    apply,
    apply_retention,
    retention_schedule,
)
from poleng_assets.storage.home import Home
from poleng_assets.study.policies import RetentionPolicy
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.batch_overview import batch_overview
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.erasures import erasures_of
from poleng_assets.warehouse.retention import erase_expired
from poleng_assets.warehouse.writes import insert, transaction
from poleng_assets_tests.conftest import table_counts

Connection = duckdb.DuckDBPyConnection
DAY = timedelta(days=1)
TODAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = TODAY - 100 * DAY, TODAY - 10 * DAY
TABLES = [
    "batch_rows",
    "field_study_rows",
    "outcomes",
    "predictions",
    "contact_lists",
    "drift_reports",
    "drift_metrics",
    "performance",
    "quarantine",
    "field_study_requests",
]


def keeping(days: int | None, **others: Any) -> RetentionPolicy:
    return RetentionPolicy(**{**dict.fromkeys(TABLES, days), **others})


def person(study: Study, **columns: Any) -> pd.DataFrame:
    row: dict[str, Any] = {study.id: "a", "row_number": 1}
    for feature in study.features:
        row[feature.name] = min(feature.codes) if feature.is_ordinal else str(min(feature.codes))
    return pd.DataFrame([{**row, **columns}])


def fill(con: Connection, study: Study, name: str, when: datetime) -> None:
    """Put one row of one batch, study and file of outcomes into every table, all made at one moment."""
    target = study.target.name
    for kind in ("batches", "field_studies", "outcomes"):
        file = {"kind": kind, "name": name, "content_hash": f"{kind} {name}", "ignored_columns": ""}
        counts = {"rows_read": 2, "rows_kept": 1, "rows_quarantined": 1, "ingested_at": when}
        insert(con, "ingested_files", pd.DataFrame([{**file, **counts}]))
        broken = {
            "source": f"{kind}/{name}",
            "row_number": 2,
            "column_name": "x",
            "reason": "y",
            "payload": "{}",
        }
        insert(con, "quarantine", pd.DataFrame([broken]))
    insert(con, "batch_rows", person(study, batch=name))
    insert(con, "field_study_rows", person(study, field_study=name, part="train", **{target: 1}))
    told = {study.id: "a", "row_number": 1, "source": name, "batch": name, target: 1}
    insert(con, "outcomes", pd.DataFrame([told]))
    one = pd.DataFrame([{"batch": name, study.id: "a", "model_version": 1, "score": 0.5}])
    insert(con, "predictions", one.assign(contact=True, scored_at=when))
    insert(con, "contact_lists", one.assign(created_at=when, remark="", reasons=""))
    key = {"batch": name, "model_version": 1}
    report = {**key, "verdict": "clear", "rows": 1, "drifted_columns": 0, "reported_at": when}
    insert(con, "drift_reports", pd.DataFrame([report]))
    insert(con, "drift_metrics", pd.DataFrame([{**key, "column_name": "c", "method": "m", "alert": False}]))
    insert(con, "performance", pd.DataFrame([{**key, "kind": "estimated", "metric": "auc"}]))
    asked = {"requested_at": when, "batch": name, study.id: "a", "stratum": "s", "why": "w"}
    insert(con, "field_study_requests", pd.DataFrame([asked]))


@pytest.fixture
def filled(con: Connection, study: Study) -> Connection:
    fill(con, study, "old", OLD)
    fill(con, study, "new", NEW)
    return con


def erase(
    con: Connection, policy: RetentionPolicy, moment: datetime = TODAY, waiting: Any = ()
) -> dict[str, int]:
    with transaction(con):
        return dict(erase_expired(con, policy, moment, waiting))


def test_what_was_kept_long_enough_goes_from_every_table_and_the_rest_stays(filled: Connection):
    erased = erase(filled, keeping(50))
    assert erased == {**dict.fromkeys(TABLES, 1), "quarantine": 3}
    for table in set(TABLES) - {"field_study_rows", "outcomes", "quarantine"}:
        assert filled.execute(f"SELECT batch FROM {table}").fetchall() == [("new",)]
    assert filled.execute("SELECT field_study FROM field_study_rows").fetchall() == [("new",)]
    assert filled.execute("SELECT source FROM outcomes").fetchall() == [("new",)]


@pytest.mark.parametrize("table", TABLES)
def test_each_table_has_its_own_days(filled: Connection, table: str):
    before = table_counts(filled)
    # Scores may not go before the answers.
    asked = {table} | ({"batch_rows"} if table == "predictions" else set())
    assert set(erase(filled, keeping(None, **dict.fromkeys(asked, 50)))) == asked
    after = table_counts(filled)
    assert {name for name in before if before[name] != after[name]} == asked | {"erasures"}


def test_without_days_everything_is_kept(filled: Connection):
    before = table_counts(filled)
    assert erase(filled, keeping(None)) == {}
    assert table_counts(filled) == before


def test_rows_read_are_kept_in_quarantine_or_erased(filled: Connection):
    erase(filled, keeping(50))
    counted = filled.execute(
        """SELECT DISTINCT name, rows_read, rows_kept, rows_quarantined, rows_erased FROM ingested_files
        ORDER BY name"""
    ).fetchall()
    assert counted == [("new", 2, 1, 1, 0), ("old", 2, 0, 0, 2)]


def test_erasing_again_changes_nothing(filled: Connection):
    erase(filled, keeping(50))
    before = filled.execute("FROM ingested_files ORDER BY ALL").fetchall()
    assert erase(filled, keeping(50)) == {}
    assert filled.execute("FROM ingested_files ORDER BY ALL").fetchall() == before


def test_a_batch_that_waits_for_its_list_loses_nothing(filled: Connection):
    erased = erase(filled, keeping(50), waiting={"old"})
    assert erased == {"field_study_rows": 1, "outcomes": 1, "quarantine": 2}


def test_a_clock_that_goes_back_erases_no_more(filled: Connection):
    assert erase(filled, keeping(50), moment=OLD + DAY) == {}


def test_the_day_itself_is_still_kept(filled: Connection):
    assert erase(filled, keeping(100)) == {}
    assert erase(filled, keeping(100), moment=TODAY + timedelta(seconds=1))["batch_rows"] == 1


def test_figures_whose_report_is_gone_are_as_old_as_their_batch(filled: Connection):
    filled.execute("DELETE FROM drift_reports")
    assert erase(filled, keeping(50))["drift_metrics"] == 1


def test_scores_of_an_earlier_version_go_before_those_that_count(filled: Connection, study: Study):
    again = {
        "batch": "old",
        study.id: "a",
        "model_version": 2,
        "score": 0.6,
        "contact": True,
        "scored_at": NEW,
    }
    insert(filled, "predictions", pd.DataFrame([again]))
    erase(filled, keeping(None, batch_rows=50, predictions=50))
    left = filled.execute("SELECT model_version FROM current_predictions WHERE batch = 'old'").fetchall()
    assert left == [(2,)]


def test_the_ledger_is_never_touched(filled: Connection):
    erase(filled, keeping(1), moment=TODAY + 10_000 * DAY)
    assert table_counts(filled)["ingested_files"] == 6


def test_scores_are_kept_as_long_as_the_answers(study: Study):
    with pytest.raises(ValidationError, match="predictions must be kept as long as batch_rows"):
        RetentionPolicy(batch_rows=100, predictions=99)
    with pytest.raises(ValidationError, match="predictions must be kept"):
        RetentionPolicy(predictions=99)
    assert RetentionPolicy(batch_rows=100).predictions is None


def test_the_shipped_study_keeps_what_models_must_answer_for(study: Study):
    assert study.policies.retention.field_study_rows is None
    assert study.policies.retention.quarantine == 90


# The files


@pytest.fixture
def keeper(home: Home, study: Study) -> Warehouse:
    """A warehouse whose study keeps every table and folder for 50 days."""
    policy = keeping(
        50, **dict.fromkeys(["archive", "rejected", "contact_list_files", "reports", "requests"], 50)
    )
    policies = study.policies.model_copy(update={"retention": policy})
    warehouse = Warehouse(home.warehouse, study.model_copy(update={"policies": policies}))
    with warehouse.connect() as con:
        fill(con, study, "old", datetime.now(UTC))
    return warehouse


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (0, 0))  # a copying tool keeps the time of the original
    return path


@pytest.fixture
def files(home: Home) -> dict[str, Path]:
    return {
        "archive": put(home.archive("batches") / "old.csv"),
        "rejected": put(home.rejected("batches") / "bad.csv"),
        "contact_list_files": put(home.contact_lists / "old.csv"),
        "reports": put(home.report("old", 1)),
        "requests": put(home.requests / "field_study_request.csv"),
    }


def later(days: int) -> datetime:
    return datetime.now(UTC) + days * DAY


def test_files_count_from_when_they_were_put_there_and_not_from_their_date(home, keeper, files):
    assert not apply(home, keeper, later(49), ()).any
    expired = apply(home, keeper, later(51), ())
    assert {name: [path] for name, path in files.items()} == expired.files
    assert not any(path.exists() for path in files.values())
    assert not home.report("old", 1).parent.exists()


def test_pages_of_models_and_of_all_batches_stay(home, keeper, files):
    kept = [put(home.model_card(1)), put(home.overview)]
    apply(home, keeper, later(51), ())
    assert all(path.exists() for path in kept)


def test_files_of_a_batch_that_waits_stay(home, keeper, files):
    again = put(home.archive("batches") / "old.0123456789ab.csv")
    apply(home, keeper, later(51), {"old"})
    assert all(path.exists() for path in (files["archive"], files["reports"], again))
    assert not files["rejected"].exists()


def test_the_ledger_tells_how_much_was_erased_and_only_then(home, keeper, files):
    apply(home, keeper, later(49), ())
    apply(home, keeper, later(51), (), dagster_run_id="run")
    apply(home, keeper, later(51), ())
    with keeper.connect() as con:
        told = con.execute("SELECT kind, evidence, dagster_run_id FROM decisions").fetchall()
    assert [(kind, run) for kind, _, run in told] == [("retention", "run")]
    assert '"batch_rows": 1' in told[0][1]
    assert '"archive": 1' in told[0][1]


def test_a_dry_run_tells_the_same_and_changes_nothing(home, keeper, files):
    with keeper.connect() as con:
        before = table_counts(con)
    looked = apply(home, keeper, later(51), (), dry_run=True)
    with keeper.connect() as con:
        assert table_counts(con) == before
    assert all(path.exists() for path in files.values())
    assert apply(home, keeper, later(51), ()).counted() == looked.counted()


def test_a_clock_in_doubt_erases_nothing_until_a_person_has_looked(home, keeper, files):
    with pytest.raises(ClockInDoubt, match="400 days before"):
        apply(home, keeper, later(400), ())
    assert all(path.exists() for path in files.values())
    assert apply(home, keeper, later(400), (), last_success=later(399), dry_run=True).rows
    assert apply(home, keeper, later(400), (), trust_clock=True).any


def test_the_file_is_written_anew_after_rows_went(home, keeper):
    before = keeper.path.stat().st_ino
    apply(home, keeper, later(49), ())
    assert keeper.path.stat().st_ino == before
    apply(home, keeper, later(51), ())
    assert keeper.path.stat().st_ino != before


def test_a_home_without_a_warehouse_has_nothing_to_erase(home, study):
    assert not apply(home, Warehouse(home.warehouse, study), later(1), ()).any
    assert not home.warehouse.exists()


def test_killed_between_the_warehouse_and_the_files_the_rest_goes_the_next_time(
    home, keeper, files, monkeypatch
):
    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            apply(home, keeper, later(51), ())
    assert all(path.exists() for path in files.values())
    assert set(apply(home, keeper, later(51), ()).files) == set(files)


def test_it_is_done_every_day_unasked():
    assert retention_schedule.job is apply_retention
    assert retention_schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert retention_schedule.cron_schedule == "17 3 * * *"


# What is said of it afterwards


def test_of_each_batch_and_file_it_is_written_down_what_went_when_and_by_which_rule(filled: Connection):
    erase(filled, keeping(50))
    told = filled.execute("SELECT table_name, name, rows, erased_at, rule FROM erasures").fetchall()
    assert {(table, name) for table, name, *_ in told} == {
        *((table, "old") for table in set(TABLES) - {"quarantine"}),
        *(("quarantine", f"{kind}/old") for kind in ("batches", "field_studies", "outcomes")),
    }
    assert {(rows, at) for _, _, rows, at, _ in told} == {(1, TODAY)}
    assert {rule for table, *_, rule in told if table == "contact_lists"} == {
        "policies.retention.contact_lists: 50 days"
    }


def test_a_person_who_was_listed_is_told_that_the_list_was_erased(filled: Connection, study: Study):
    erase(filled, keeping(None, contact_lists=50))
    old, new = history_of(filled, study, "a")
    words = "the list was erased on 2026-03-01, by policies.retention.contact_lists: 50 days"
    assert f"{words}, so it is unknown whether the person was on it" in old.in_words()
    assert "put on the contact list at" in new.in_words()


def test_who_was_never_meant_for_a_list_is_still_said_to_be_on_none(filled: Connection, study: Study):
    filled.execute("UPDATE predictions SET contact = false")
    filled.execute("DELETE FROM contact_lists WHERE batch = 'new'")
    erase(filled, keeping(None, contact_lists=50))
    assert ["not on a list" in one.in_words() for one in history_of(filled, study, "a")] == [True, True]


def test_a_list_that_was_delivered_and_erased_is_not_one_that_is_still_to_come(filled: Connection):
    erase(filled, keeping(50, drift_reports=None))
    rows = {row.batch: row for row in batch_overview(filled)}
    assert rows["old"].erased == "erased on 2026-03-01, by policies.retention.contact_lists: 50 days"
    assert rows["old"].current
    assert rows["new"].erased == ""


def test_the_page_of_all_batches_says_so_too(filled: Connection, study: Study):
    erase(filled, keeping(50, drift_reports=None))
    story = load_overview(filled, study)
    page = render_overview(study, story, made_at=TODAY)
    assert page.count("list erased on 2026-03-01, by policies.retention.contact_lists: 50 days") > 0
    assert story.reports.set_index("batch")["current"].to_dict() == {"old": True, "new": True}


def test_nothing_that_was_erased_on_request_is_told(filled: Connection, study: Study):
    with transaction(filled):
        erase_rows(filled, Person("a", study.id))
    assert filled.execute("FROM erasures").fetchall() == []
    assert erasures_of(filled, "predictions", "contact_lists") == []
