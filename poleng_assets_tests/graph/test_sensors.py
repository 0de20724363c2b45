"""What the sensors ask for, and what they do not ask for, on a real instance."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from poleng_assets.defs import run_history
from poleng_assets.defs.run_history import (
    PROCESS_TAG,
    REQUEST_TAG,
    attempts_of,
    fail_orphaned_runs,
    live_run_ids,
    process_name,
)
from poleng_assets.study.loading import load_study
from poleng_assets_tests.graph.conftest import Workshop, open_founded


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


def tick(workshop: Workshop, name: str) -> dg.SensorResult | dg.SkipReason:
    sensor: Any = workshop.runner.defs.get_sensor_def(name)
    resources = {"landing": (workshop.runner.defs.resources or {})["landing"]}
    with dg.build_sensor_context(
        instance=workshop.instance, definitions=workshop.runner.defs, resources=resources
    ) as context:
        return sensor(context)


def requests(workshop: Workshop, name: str) -> list[dg.RunRequest]:
    answer = tick(workshop, name)
    return list(answer.run_requests or []) if isinstance(answer, dg.SensorResult) else []


def pretend_run(workshop: Workshop, job: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run as a daemon would have left it in the history."""
    return workshop.instance.create_run_for_job(
        workshop.runner.defs.resolve_job_def(job), tags=tags, status=status
    )


@pytest.fixture
def studied(workshop: Workshop) -> Workshop:
    """A home with a field study taken in, and no model yet."""
    workshop.landing.submit("field_studies", workshop.data / "field_studies" / "founding_study.parquet")
    (request,) = requests(workshop, "field_studies_arrivals")
    workshop.instance.add_dynamic_partitions("field_study", ["founding_study"])
    workshop.runner._run(workshop.runner.defs.get_sensor_def("field_studies_arrivals"), request)
    return workshop


@pytest.fixture
def founded(tmp_path: Path, survey_data: Path) -> Iterator[Workshop]:
    """A home of its own whose first champion serves."""
    with open_founded(tmp_path / "home", survey_data) as workshop:
        yield workshop


def test_a_dropped_file_is_asked_for_once_while_its_run_is_at_work(workshop: Workshop):
    workshop.landing.submit("field_studies", workshop.data / "field_studies" / "founding_study.parquet")
    (request,) = requests(workshop, "field_studies_arrivals")
    pretend_run(
        workshop,
        "ingest_field_study",
        dg.DagsterRunStatus.STARTED,
        **{"dagster/partition": "founding_study", **request.tags},
    )
    assert requests(workshop, "field_studies_arrivals") == []


def test_a_file_whose_run_died_is_asked_for_again_under_another_key(workshop: Workshop):
    workshop.landing.submit("field_studies", workshop.data / "field_studies" / "founding_study.parquet")
    (first,) = requests(workshop, "field_studies_arrivals")
    pretend_run(workshop, "ingest_field_study", dg.DagsterRunStatus.FAILURE, **first.tags)
    (second,) = requests(workshop, "field_studies_arrivals")
    assert second.tags[REQUEST_TAG] == first.tags[REQUEST_TAG]
    assert second.run_key != first.run_key


def test_a_file_whose_runs_die_again_and_again_is_named_and_left_alone(workshop: Workshop):
    workshop.landing.submit("field_studies", workshop.data / "field_studies" / "founding_study.parquet")
    (request,) = requests(workshop, "field_studies_arrivals")
    for _ in range(3):
        pretend_run(workshop, "ingest_field_study", dg.DagsterRunStatus.FAILURE, **request.tags)
    answer = tick(workshop, "field_studies_arrivals")
    assert isinstance(answer, dg.SkipReason)
    assert "founding_study.parquet could not be ingested, 3 runs failed" in (answer.skip_message or "")


def test_a_file_that_is_still_written_is_not_touched(workshop: Workshop):
    half = workshop.home.landing("batches") / "half.parquet.part"
    half.write_bytes(b"PAR1")
    assert requests(workshop, "batches_arrivals") == []
    assert half.exists()


def test_the_first_field_study_asks_for_a_first_model(studied: Workshop):
    (request,) = requests(studied, "overseer")
    assert request.job_name == "retrain_and_promote"
    assert "first model" in str(request.run_config)


def test_nothing_is_asked_while_a_retraining_is_at_work(studied: Workshop):
    pretend_run(studied, "retrain_and_promote", dg.DagsterRunStatus.STARTED)
    assert requests(studied, "overseer") == []


def test_the_same_data_are_tried_three_times_and_no_more(studied: Workshop):
    keys = set()
    for _ in range(3):
        (request,) = requests(studied, "overseer")
        keys.add(request.run_key)
        pretend_run(studied, "retrain_and_promote", dg.DagsterRunStatus.FAILURE, **request.tags)
    assert len(keys) == 3
    answer = tick(studied, "overseer")
    assert isinstance(answer, dg.SensorResult)
    assert answer.run_requests == []
    assert answer.skip_reason is not None
    assert "training failed 3 times" in str(answer.skip_reason.skip_message)


def test_a_model_waits_for_a_study_that_is_on_its_way(studied: Workshop):
    studied.landing.submit("field_studies", studied.data / "field_studies" / "followup_study.parquet")
    assert requests(studied, "overseer") == []


def test_three_drifted_batches_between_two_ticks_ask_for_one_retraining(founded: Workshop):
    for number in (1, 2, 3):
        founded.landing.submit("batches", founded.data / "batches" / f"drift_batch_{number}.parquet")
    founded.landing.submit("field_studies", founded.data / "field_studies" / "followup_study.parquet")
    arrivals = [s for s in founded.runner.defs.sensors or [] if s.name != "overseer"]
    for sensor in arrivals:
        founded.runner._tick(sensor)
    asked = requests(founded, "overseer")
    assert [request.job_name for request in asked] == ["retrain_and_promote"]
    founded.runner.run_until_idle()
    assert founded.decisions().count("retrain") == 2
    for number in (1, 2, 3):
        assert [version for _, version in founded.verdicts(f"drift_batch_{number}")] == [1, 2]


def test_a_batch_whose_scoring_died_is_scored_by_the_overseer(founded: Workshop):
    founded.drop("batches", "clean_batch_1")
    with founded.warehouse.connect() as con:
        con.execute("DELETE FROM drift_reports")
    founded.instance.wipe_assets([dg.AssetKey("contact_list"), dg.AssetKey("drift_report")])
    (founded.home.contact_lists / "clean_batch_1.csv").unlink()
    founded.runner._cursors.clear()
    founded.runner.run_until_idle()
    assert founded.verdicts("clean_batch_1") == [("clear", 1)]
    assert len(founded.contact_list("clean_batch_1")) > 0


def test_a_run_whose_process_is_gone_is_buried(workshop: Workshop):
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(psutil.Process(ended.pid))
    run = pretend_run(
        workshop, "retrain_and_promote", dg.DagsterRunStatus.STARTED, **{PROCESS_TAG: name, REQUEST_TAG: "r"}
    )
    assert fail_orphaned_runs(workshop.instance) == []
    ended.kill()
    ended.wait()
    assert fail_orphaned_runs(workshop.instance) == [run.run_id]
    assert live_run_ids(workshop.instance) == set()
    assert attempts_of(workshop.instance, ["r"])["r"].failed == 1


def test_a_run_that_never_said_who_executes_it_is_buried_after_a_while(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    run = pretend_run(workshop, "retrain_and_promote", dg.DagsterRunStatus.STARTED)
    waiting = pretend_run(workshop, "retrain_and_promote", dg.DagsterRunStatus.NOT_STARTED)
    assert fail_orphaned_runs(workshop.instance) == []
    monkeypatch.setattr(run_history, "NAMED_WITHIN_SECONDS", -1)
    assert fail_orphaned_runs(workshop.instance) == [run.run_id]
    assert live_run_ids(workshop.instance) == {waiting.run_id}


def test_a_run_of_the_command_line_says_who_executes_it_from_its_first_moment(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    tags: list[dict[str, str]] = []
    storage = workshop.instance.run_storage
    keep = storage.add_run

    def add_run(run: dg.DagsterRun) -> dg.DagsterRun:
        tags.append(dict(run.tags))
        return keep(run)

    monkeypatch.setattr(storage, "add_run", add_run)
    workshop.runner.run("rollback")  # refused, for nothing serves; that it was made is enough
    assert [one[PROCESS_TAG] for one in tags] == [process_name(psutil.Process())]


def test_a_run_of_another_host_is_left_alone(workshop: Workshop):
    elsewhere = f"not-{socket.gethostname()}/1/0.00"
    pretend_run(workshop, "retrain_and_promote", dg.DagsterRunStatus.STARTED, **{PROCESS_TAG: elsewhere})
    assert fail_orphaned_runs(workshop.instance) == []


def test_failures_before_the_last_success_do_not_count(workshop: Workshop):
    for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE):
        pretend_run(workshop, "retrain_and_promote", status, **{REQUEST_TAG: "again"})
    assert attempts_of(workshop.instance, ["again"])["again"].failed == 1
    assert attempts_of(workshop.instance, ["again"])["again"].number == 4


def test_a_challenger_that_is_no_better_is_rejected_and_the_list_made(founded: Workshop):
    study = load_study()
    people = founded.synthetic("field_studies", "founding_study")
    trained = founded.query(f"SELECT \"{study.id}\" FROM field_study_rows WHERE part = 'train'")
    people = people[people[study.id].isin([one for (one,) in trained])]
    # Wrong labels, and answers that put all of them into the training part: the holdout knows better.
    ids = [f"wrong-{number}" for number in range(len(people))]
    wrong = people.assign(**{study.id: ids})
    wrong[study.target.name] = 1 - people[study.target.name].to_numpy()
    founded.drop_frame("field_studies", "wrong_labels", wrong)
    founded.drop("batches", "drift_batch_1")
    decided = founded.query("SELECT kind, reason FROM decisions ORDER BY decided_at")
    kinds = [kind for kind, _ in decided]
    assert kinds[:5] == ["retrain", "promote", "hold", "retrain", "reject"]
    # Nothing is left to learn from: the list is made, and labels are asked for.
    assert sorted(kinds[5:]) == ["request", "skip"]
    assert "log-loss" in decided[4][1]
    assert "the newest challenger was not promoted" in dict(decided)["skip"]
    assert founded.registry.champion().version == 1
    assert founded.query("SELECT DISTINCT part FROM field_study_rows WHERE field_study = 'wrong_labels'") == [
        ("train",)
    ]
    assert founded.contact_list("drift_batch_1")["remark"].str.contains("caution").all()
    assert founded.runner.run_until_idle() == []
