"""What is told while the project runs: to a real web server, from a real event log."""

from __future__ import annotations

import json
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from poleng_assets.notifications.outbox import Outbox, open_outbox
from poleng_assets.notifications.sensor import collect
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_workshop
from poleng_assets_tests.sinks import WebSink, web_sink

SECRET = "hunter2-very-secret"


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Iterator[Path]:
    """The quick study is in force for this module; the data folder of its survey."""
    folder = tmp_path_factory.mktemp("quick")
    with quick_survey(folder) as data:
        yield data


@pytest.fixture(scope="module")
def sink() -> Iterator[WebSink]:
    with web_sink() as opened:
        yield opened


@pytest.fixture(scope="module")
def told(quick: Path, sink: WebSink, tmp_path_factory) -> Iterator[Workshop]:
    """A home with a model and one that is told everything, after a drift."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLENG_NOTIFY", sink.url("hook", SECRET))
        with open_workshop(tmp_path_factory.mktemp("told") / "home", quick) as workshop:
            workshop.drop("field_studies", "founding_study")
            workshop.drop("batches", "clean_batch_1")
            workshop.drop("field_studies", "followup_study")
            workshop.drop("batches", "drift_batch_1")
            yield workshop


def tick(workshop: Workshop) -> str:
    sensor: Any = workshop.runner.defs.get_sensor_def("notifications")
    resources = {"landing": (workshop.runner.defs.resources or {})["landing"]}
    with dg.build_sensor_context(
        instance=workshop.instance, definitions=workshop.runner.defs, resources=resources
    ) as context:
        return str(sensor(context).skip_message)


def every_byte(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_story_of_a_drift_is_told_in_its_order(told: Workshop, sink: WebSink):
    assert told.verdicts("drift_batch_1")[0][1] == 1
    assert sink.titles[:5] == [
        "Retraining started",
        "Promoted: model version 1 serves now",
        f"Alarm: batch drift_batch_1 is {told.verdicts('drift_batch_1')[0][0]}",
        "Retraining started",
        "Promoted: model version 2 serves now",
    ]
    alarm = sink.got[2]["message"]
    assert "under model version 1" in alarm
    assert str(told.home.root) in alarm
    assert "are out of distribution" in alarm
    assert "**" not in alarm
    assert "drift in drift_batch_1" in sink.got[3]["message"]


def test_no_person_is_told_of(told: Workshop, sink: WebSink):
    study = load_study()
    said = json.dumps(sink.got)
    for kind, name in [("batches", "drift_batch_1"), ("field_studies", "founding_study")]:
        ids = told.synthetic(kind, name)[study.id].astype(str)  # type: ignore[arg-type]
        assert not [one for one in ids if one in said]


def test_no_secret_of_an_address_stands_in_the_home(told: Workshop):
    assert SECRET.encode() not in every_byte(told.home.root)
    assert b"someone" not in told.home.outbox.read_bytes()


def test_what_is_kept_is_readable_by_its_owner_only(told: Workshop):
    assert stat.S_IMODE(told.home.outbox.stat().st_mode) == 0o600


def test_a_tick_in_which_nothing_happened_is_quick_and_tells_nothing(told: Workshop, sink: WebSink):
    tick(told)
    before = list(sink.titles)
    # Of this process: the machine may be busy with other things.
    started = time.process_time()
    assert tick(told) == "No new messages"
    assert time.process_time() - started < 0.1
    assert sink.titles == before


def test_another_process_with_an_empty_cursor_tells_nothing_twice(told: Workshop, sink: WebSink, quick: Path):
    before = list(sink.titles)
    with open_workshop(told.home.root, quick) as again:
        again.runner.run_until_idle()
    assert sink.titles == before


def test_a_refused_file_is_told_once_without_the_answers_in_it(told: Workshop, sink: WebSink):
    study = load_study()
    name = next(feature.name for feature in study.features if feature.is_ordinal)
    before = len(sink.got)
    people = told.synthetic("batches", "clean_batch_2").astype({name: str})
    people.loc[: len(people) // 2, name] = "Jane Doe, 4 Elm Street"
    told.drop_frame("batches", "broken", people)
    told.drop_frame("batches", "too small to have a good name;", people)
    titles = sink.titles[before:]
    assert titles == [
        "The file broken.parquet was refused",
        "The file too small to have a good name;.parquet was refused",
    ]
    assert "rows break the contract" in sink.got[before]["message"]
    assert "Jane" not in json.dumps(sink.got)
    assert "rejected/batches/broken.parquet.reason.txt" in sink.got[before]["message"]


def test_a_rollback_is_told_with_its_reason(told: Workshop, sink: WebSink):
    report = told.runner.run(
        "rollback", run_config={"ops": {"put_back": {"config": {"reason": "the lists look odd"}}}}
    )
    assert report.success
    tick(told)
    assert sink.titles[-1] == "Rolled back: model version 1 serves again"
    assert "the lists look odd" in sink.got[-1]["message"]


def test_a_failing_run_is_told_in_words_and_once(told: Workshop, sink: WebSink):
    before = len(sink.got)
    told.instance.add_dynamic_partitions("batch", ["never_dropped"])
    for _ in range(3):
        report = told.runner.run("score_batch", partition_key="never_dropped")
        assert not report.success
        tick(told)
    assert sink.titles[before:] == ["The run score_batch of never_dropped failed"]
    words = sink.got[before]["message"]
    assert "Traceback" not in words
    newest = told.instance.get_runs(limit=3)[-1]
    assert f"run {newest.run_id[:8]}" in words


def test_a_run_whose_process_died_is_told(told: Workshop, sink: WebSink):
    run = told.instance.create_run_for_job(
        told.runner.defs.resolve_job_def("ingest_outcomes"),
        tags={"dagster/partition": "march"},
        status=dg.DagsterRunStatus.STARTED,
    )
    told.instance.report_run_failed(run, "The process that executed this run was ended before it finished.")
    tick(told)
    assert sink.titles[-1] == "The run ingest_outcomes of march failed"
    assert "was ended before it finished." in sink.got[-1]["message"]


@pytest.fixture
def home(quick: Path, tmp_path: Path) -> Iterator[Workshop]:
    """An empty home."""
    with open_workshop(tmp_path / "home", quick) as workshop:
        yield workshop


def look(workshop: Workshop, now: float) -> tuple[int, list[dict[str, Any]]]:
    """Collect as if it were ``now``; return how many messages are new, and all that are kept by now."""
    with open_outbox(workshop.home.outbox, load_study().policies.notifications) as outbox:
        assert outbox is not None
        kept = collect(workshop.instance, workshop.landing, outbox, now, pytest.fail)
        messages = sorted(outbox.store.waiting("nobody"), key=lambda waiting: waiting.kept_at)
        return kept, [vars(waiting.message) for waiting in messages]


def record(workshop: Workshop, asset: str, metadata: dict[str, Any], partition: str | None = None) -> None:
    """An event as a run would have left it in the log."""
    with dg.DagsterInstance.ephemeral():
        workshop.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset, partition=partition, metadata=metadata)
        )


def test_nobody_is_told_and_nothing_is_kept_without_an_address(home: Workshop, monkeypatch):
    monkeypatch.delenv("POLENG_NOTIFY", raising=False)
    assert tick(home) == "No recipients: POLENG_NOTIFY is not set"
    assert not home.home.outbox.exists()


def test_a_wrong_address_is_named_without_its_secrets(home: Workshop, monkeypatch, capfd, caplog):
    monkeypatch.setenv("POLENG_NOTIFY", f"nosuchservice://{SECRET}  {SECRET}")
    record(home, "champion", {"promoted": True, "serving_version": 2, "challenger_version": 2, "reason": "x"})
    said = tick(home)
    assert "address 1 of POLENG_NOTIFY is not a valid Apprise URL" in said
    assert "address 2 of POLENG_NOTIFY" in said
    out, err = capfd.readouterr()
    assert SECRET not in said + out + err + caplog.text
    assert SECRET.encode() not in every_byte(home.home.root)


def test_a_sink_that_is_down_is_told_later(home: Workshop, monkeypatch, capfd, caplog):
    with web_sink() as closed:
        port = closed.port
    monkeypatch.setenv("POLENG_NOTIFY", f"json://someone:{SECRET}@127.0.0.1:{port}/{SECRET}")
    monkeypatch.setattr("poleng_assets.notifications.outbox.SHORTEST_PAUSE", 0.0)
    record(home, "champion", {"promoted": True, "serving_version": 2, "challenger_version": 2, "reason": "x"})
    said = tick(home)
    assert "could not be reached or refused the message; 1 pending" in said
    out, err = capfd.readouterr()
    assert SECRET not in said + out + err + caplog.text
    with web_sink(port) as opened:
        assert tick(home) == "No new messages"
        assert opened.titles == ["Promoted: model version 2 serves now"]


def test_an_outbox_that_cannot_be_read_is_named_and_stops_nothing(home: Workshop, monkeypatch, sink: WebSink):
    monkeypatch.setenv("POLENG_NOTIFY", sink.url())
    tick(home)
    home.home.outbox.write_text("{" * 5000)
    assert "outbox.db cannot be read" in tick(home)
    assert home.runner.run_until_idle() == []


def test_what_happened_before_anybody_looked_is_counted_and_not_told(home: Workshop):
    for version in (1, 2, 3):
        record(home, "champion", champion(version))
    kept, messages = look(home, time.time() + 25 * 3600)
    assert (kept, messages[0]["title"]) == (1, "3 earlier events not sent one by one")


def champion(version: int) -> dict[str, Any]:
    return {
        "promoted": True,
        "serving_version": version,
        "challenger_version": version,
        "reason": "it is better",
    }


@contextmanager
def changed_outbox(workshop: Workshop) -> Iterator[sqlite3.Connection]:
    """Change the outbox behind the project's back."""
    with closing(sqlite3.connect(workshop.home.outbox)) as con, con:
        yield con


def test_a_lost_state_tells_nothing_twice(home: Workshop):
    record(home, "champion", champion(1))
    assert look(home, time.time())[0] == 1
    with changed_outbox(home) as con:
        con.execute("DELETE FROM state")
    record(home, "champion", champion(2))
    kept, messages = look(home, time.time())
    assert kept == 1
    assert len(messages) == 2


def test_an_event_log_from_a_backup_tells_nothing_twice(home: Workshop):
    record(home, "champion", champion(1))
    assert look(home, time.time())[0] == 1
    with changed_outbox(home) as con:
        con.execute("UPDATE state SET value = value + 1000 WHERE name = 'position'")
        con.execute("DELETE FROM messages")
    assert look(home, time.time())[0] == 0
    record(home, "champion", champion(2))
    assert look(home, time.time())[0] == 1


def test_a_reading_that_was_killed_before_it_was_noted_is_done_again_and_keeps_nothing_twice(
    home: Workshop, monkeypatch
):
    record(home, "champion", champion(1))
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "save", lambda outbox: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            look(home, time.time())
    kept, messages = look(home, time.time())
    assert kept == 0
    assert len(messages) == 1


def test_an_event_without_the_metadata_of_today_stops_nothing(home: Workshop):
    record(home, "realised_performance", {"losses": 3})
    record(home, "champion", champion(1))
    complaints: list[str] = []
    with open_outbox(home.home.outbox, load_study().policies.notifications) as outbox:
        assert outbox is not None
        assert collect(home.instance, home.landing, outbox, time.time(), complaints.append) == 1
    assert "No message about event" in complaints[0]


def test_a_digest_comes_each_day_also_when_nothing_happened(home: Workshop):
    hour = load_study().policies.notifications.digest_hour
    now = datetime.now(UTC).replace(hour=hour, minute=30)
    assert look(home, now.timestamp())[0] == 0  # the first one is due tomorrow
    assert look(home, (now + timedelta(hours=22)).timestamp())[0] == 0
    kept, (quiet,) = look(home, (now + timedelta(hours=24)).timestamp())
    assert kept == 1
    assert "No model serves yet." in quiet["text"]
    assert "Nothing else happened." in quiet["text"]
    assert look(home, (now + timedelta(hours=25)).timestamp())[0] == 0


def test_a_digest_that_was_missed_is_made_once_and_covers_all_that_time(home: Workshop):
    now = datetime.now(UTC) - timedelta(days=5)
    assert look(home, now.timestamp())[0] == 0
    record(
        home,
        "drift_report",
        {"verdict": "untrusted", "held": True, "alarm": False, "model_version": 1},
        partition="march",
    )
    record(home, "batches", {"rows_quarantined": 7}, partition="march")
    record(home, "champion", champion(1))
    (home.home.landing("batches") / "april.csv").write_text("waits")
    home.landing.reject("outcomes", _written(home.home.root / "old.csv"), "it is old")
    (home.home.root / "last_backup.json").write_text(
        json.dumps({"made_at": "2026-11-20T03:00:00", "file": "x"})
    )
    _, messages = look(home, time.time() + 24 * 3600)
    (digest,) = [one for one in messages if one["kind"] == "digest"]
    for words in (
        "Model version 1 serves.",
        "- march: untrusted under version 1, held",
        "Pending in landing/batches: april.csv.",
        "Refused files: old.csv.",
        "quarantine: 7, from march",
        "Last backup: 2026-11-20T03:00:00.",
    ):
        assert words in digest["text"]


def _written(path: Path) -> Path:
    path.write_text("")
    return path
