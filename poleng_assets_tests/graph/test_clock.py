"""While the clock is in doubt nothing is taken in at any door, until a person has said that it is right."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.defs import clock
from poleng_assets.defs.clock import Mark, read_mark
from poleng_assets.operations.retention import apply
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets_tests.graph.conftest import Workshop
from poleng_assets_tests.graph.test_sensors import requests, tick

DAY = timedelta(days=1)
STUDY = "founding_study"


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


@pytest.fixture
def dropped(workshop: Workshop) -> Workshop:
    """A home in which the clock goes right, and a field study waits."""
    workshop.landing.submit("field_studies", workshop.data / "field_studies" / f"{STUDY}.parquet")
    tick(workshop, "overseer")
    return workshop


def goes(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Let the clock go wrong by so many days."""
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + days * DAY)


def skipped(workshop: Workshop, name: str) -> str:
    answer = tick(workshop, name)
    reason = answer if isinstance(answer, dg.SkipReason) else answer.skip_reason
    return (reason.skip_message or "") if reason else ""


def said(workshop: Workshop, *words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(main, [*words, "--home", str(workshop.home.root)])
    return answer.exit_code, " ".join(answer.output.split())


@pytest.mark.parametrize(("days", "words"), [(400, "may have jumped ahead"), (-20_000, "was set back")])
def test_a_clock_that_jumped_lets_nothing_in_and_says_so_everywhere(
    dropped: Workshop, monkeypatch: pytest.MonkeyPatch, days: int, words: str
):
    goes(monkeypatch, days)
    for sensor in ("field_studies_arrivals", "batches_arrivals", "outcomes_arrivals", "overseer"):
        assert words in skipped(dropped, sensor)
        assert "`poleng clock --trust`" in skipped(dropped, sensor)
    dropped.instance.add_dynamic_partitions("field_study", [STUDY])
    by_hand = dropped.runner.run("ingest_field_study", partition_key=STUDY)
    assert not by_hand.success
    assert "was not ingested, the clock is in doubt" in by_hand.message
    assert dropped.landing.waiting("field_studies")
    code, output = said(dropped, "clock")
    assert (code, words in output) == (1, True)
    told = json.loads(CliRunner().invoke(main, ["status", "--json", "--home", str(dropped.home.root)]).output)
    assert words in told["clock_in_doubt"]
    # It was put right before anything was written down: there is nothing left to doubt.
    goes(monkeypatch, 0)
    dropped.instance.wipe()
    assert len(requests(dropped, "field_studies_arrivals")) == 1


def test_a_person_who_says_that_it_is_right_stands_in_the_ledger_and_work_goes_on(
    dropped: Workshop, monkeypatch: pytest.MonkeyPatch
):
    with Warehouse(dropped.home.warehouse, load_study()).connect():
        pass
    goes(monkeypatch, 400)
    assert requests(dropped, "field_studies_arrivals") == []
    code, output = said(dropped, "clock", "--trust")
    assert (code, "The clock is trusted from now on" in output) == (0, True)
    with duckdb.connect(str(dropped.home.warehouse), read_only=True) as con:
        ((kind, reason),) = con.execute("SELECT kind, reason FROM decisions").fetchall()
    assert (kind, reason.startswith("a person says that the clock is right (")) == ("clock", True)
    assert len(requests(dropped, "field_studies_arrivals")) == 1
    assert said(dropped, "clock")[0] == 0


def test_one_row_of_a_wrong_clock_is_dated_to_now_when_a_person_has_looked(
    dropped: Workshop, monkeypatch: pytest.MonkeyPatch
):
    warehouse = Warehouse(dropped.home.warehouse, load_study())
    ahead = datetime.now(UTC) + 30_000 * DAY
    with warehouse.connect() as con:
        record_decision(con, "hold", "under a wrong clock", evidence={})
        con.execute("UPDATE decisions SET decided_at = ?", [ahead])
    assert "was wrong when it was written" in said(dropped, "status")[1]
    with pytest.raises(RuntimeError, match="Nothing is ingested, scored or erased"):
        apply(dropped.home, warehouse, ahead + DAY, ())
    with pytest.raises(RuntimeError, match="was wrong when it was written"):
        apply(dropped.home, warehouse, datetime.now(UTC), ())
    assert "Dated to now: 1 rows of decisions" in said(dropped, "clock", "--trust")[1]
    with warehouse.connect() as con:
        record_decision(con, "skip", "under a right one", evidence={})
        dates = con.execute("SELECT kind, decided_at FROM decisions ORDER BY decided_at").fetchall()
    assert [kind for kind, _ in dates] == ["hold", "clock", "skip"]
    assert all(abs(at - datetime.now(UTC)) < timedelta(minutes=10) for _, at in dates)
    assert not apply(dropped.home, warehouse, datetime.now(UTC), ()).any


def test_a_run_of_a_wrong_clock_is_no_sign_of_life_any_more_once_a_person_has_spoken(
    dropped: Workshop, monkeypatch: pytest.MonkeyPatch
):
    dropped.instance.create_run_for_job(dropped.runner.defs.resolve_job_def("ingest_field_study"))
    goes(monkeypatch, -2)
    clock._write_mark(dropped.home, Mark())
    assert "was set back" in skipped(dropped, "overseer")
    assert said(dropped, "clock", "--trust")[0] == 0
    assert skipped(dropped, "overseer") != ""
    assert requests(dropped, "field_studies_arrivals")


def test_a_mark_that_cannot_be_read_is_as_good_as_none(dropped: Workshop):
    assert read_mark(dropped.home).trusted_until is not None
    dropped.home.clock.write_text('{"trusted_until": null')
    assert read_mark(dropped.home) == Mark()
    assert len(requests(dropped, "field_studies_arrivals")) == 1
