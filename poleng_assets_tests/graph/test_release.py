"""Mended rows come back into the graph: scored, listed, learned from and measured like all others."""

from __future__ import annotations

import csv
import io
import json
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from poleng_assets.cli.quarantine import quarantine
from poleng_assets.core.ingestion.quarantine.sheet import mending_sheet
from poleng_assets.core.monitoring.loop_state import LoopState
from poleng_assets.defs import quarantine_release as module
from poleng_assets.defs.checks import list_differences
from poleng_assets.defs.jobs import RETRAIN_JOB
from poleng_assets.defs.quarantine_release import RELEASE_JOB
from poleng_assets.defs.run_history import PARTITION_TAG
from poleng_assets.defs.sensors.overseer import survey
from poleng_assets.headless.runner import RunReport
from poleng_assets.models.registry import CHAMPION
from poleng_assets.storage.home import Kind
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_founded

STUDY = load_study()
AGE = next(feature.name for feature in STUDY.features if feature.is_ordinal)
BROKEN = 4


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home in which a small model serves, trained in seconds."""
    folder = tmp_path_factory.mktemp("release")
    with quick_survey(folder) as data, open_founded(folder / "home", data) as workshop:
        champion = workshop.registry.alias(CHAMPION)
        assert champion is not None
        assert champion.version == 1
        yield workshop


def drop_broken(workshop: Workshop, kind: Kind, name: str, source: str, column: str) -> pd.DataFrame:
    """Drop a synthetic file whose first rows have a broken answer; return it as it should have been."""
    frame = workshop.synthetic(kind, source)
    frame = frame.assign(**{STUDY.id: f"{name}-" + frame[STUDY.id].astype(str)}).astype(str)
    broken = frame.copy()
    broken.loc[: BROKEN - 1, column] = "?"
    workshop.drop_frame(kind, name, broken)
    assert quarantined(workshop, kind, name) == BROKEN
    return frame


def quarantined(workshop: Workshop, kind: Kind, name: str) -> int:
    ((rows,),) = workshop.query(
        "SELECT count(DISTINCT row_number) FROM quarantine WHERE source = ?", f"{kind}/{name}"
    )
    return int(rows)


def mend(workshop: Workshop, kind: Kind, name: str, column: str, answers: Any) -> Path:
    """Write the sheet of a file with these answers in place of the broken ones."""
    with workshop.warehouse.read() as con:
        text = mending_sheet(con, STUDY, kind, name).removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    path = workshop.home.root.parent / f"{name}_mended.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row, answer in zip(rows, answers, strict=False):
            writer.writerow({**row, column: answer})
    return path


def put_back(workshop: Workshop, source: str, sheet: Path) -> RunReport:
    settings = {"source": source, "file": str(sheet), "reason": "mended by hand"}
    return workshop.runner.run(RELEASE_JOB, run_config={"ops": {"put_rows_back": {"config": settings}}})


def told(workshop: Workshop, *words: str) -> Result:
    return CliRunner().invoke(quarantine, [*words, "--home", str(workshop.home.root)])


def test_released_people_of_a_batch_are_scored_reported_and_listed(quick: Workshop):
    frame = drop_broken(quick, "batches", "march", "clean_batch_1", AGE)
    assert quick.query("SELECT count(*) FROM current_predictions WHERE batch = 'march'") == [
        (len(frame) - BROKEN,)
    ]
    _, before, _ = survey(quick.instance, quick.landing, LoopState())
    report = put_back(quick, "batches/march", mend(quick, "batches", "march", AGE, frame[AGE][:BROKEN]))
    assert report.success, report.message
    assert report.metadata["batches"]["rows_released"] == BROKEN
    ran = [one.job for one in quick.runner.run_until_idle()]
    assert ran == ["score_batch"]

    assert quick.query("SELECT count(*) FROM current_predictions WHERE batch = 'march'") == [(len(frame),)]
    released = set(frame[STUDY.id][:BROKEN])
    scored = quick.query(
        f"""SELECT "{STUDY.id}" FROM current_predictions
        WHERE batch = 'march' AND list_contains(?, "{STUDY.id}")""",
        sorted(released),
    )
    assert {one for (one,) in scored} == released
    ((rows,),) = quick.query(
        "SELECT rows FROM drift_reports WHERE batch = 'march' ORDER BY reported_at DESC LIMIT 1"
    )
    assert rows == len(frame)
    assert list_differences(quick.warehouse, quick.landing, "march") == (set(), set())
    _, after, decided = survey(quick.instance, quick.landing, LoopState())
    assert decided.idle
    assert after.batches_since_retraining == before.batches_since_retraining, "it is no new batch"
    checked = quick.checks("score_batch")
    assert checked["no_row_is_lost"]
    assert checked["every_respondent_has_a_score"]


def test_a_dropped_copy_of_the_file_is_known_after_a_release(quick: Workshop):
    """The hash of the file still tells it, whatever became of its rows."""
    frame = drop_broken(quick, "batches", "april", "clean_batch_2", AGE)
    assert put_back(quick, "batches/april", mend(quick, "batches", "april", AGE, frame[AGE][:BROKEN])).success
    quick.runner.run_until_idle()
    batches = quick.query("SELECT name FROM ingested_files WHERE kind = 'batches'")
    copy = quick.home.archive("batches") / "april.parquet"
    quick.drop_file("batches", copy)
    assert quick.query("SELECT name FROM ingested_files WHERE kind = 'batches'") == batches
    assert quarantined(quick, "batches", "april") == 0
    assert quick.runner.run_until_idle() == []


def test_the_command_line_shows_writes_and_puts_back(quick: Workshop, tmp_path: Path):
    frame = drop_broken(quick, "batches", "may", "clean_batch_3", AGE)
    listed = told(quick, "list")
    assert listed.exit_code == 0, listed.output
    assert "batches/may" in listed.output
    assert f"{AGE}: '?' is no survey code ({BROKEN})" in listed.output
    faults = json.loads(told(quick, "list", "--source", "batches/may", "--json").output)
    assert faults[0] == {"row_number": 1, "column": AGE, "reason": "'?' is no survey code"}
    assert frame[STUDY.id][0] not in told(quick, "list", "--source", "batches/may").output

    sheet = tmp_path / "sheets" / "may.csv"
    written = told(quick, "list", "--source", "batches/may", "--out", str(sheet))
    assert written.exit_code == 0, written.output
    assert f"poleng quarantine release batches/may {sheet}" in written.output.replace("\n", "")
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    mended = pd.read_csv(sheet, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    mended[AGE] = [*frame[AGE][: BROKEN - 1], "?"]
    mended.to_csv(sheet, index=False, sep=";")

    done = told(quick, "release", "batches/may", str(sheet), "--reason", "asked the interviewer")
    assert done.exit_code == 0, done.output
    assert f"{BROKEN - 1} rows of batches/may released, 1 row of the sheet still broken" in done.output
    assert "score_batch may" in done.output
    ((scored,),) = quick.query("SELECT count(*) FROM current_predictions WHERE batch = 'may'")
    assert scored == len(frame) - 1

    again = told(quick, "release", "batches/may", str(sheet))
    assert again.exit_code == 0, again.output
    assert "No row of this sheet could be released" in again.output
    ((reasons,),) = quick.query("SELECT list(reason) FROM decisions WHERE kind = 'release' AND batch = 'may'")
    assert len(reasons) == 1
    assert "asked the interviewer" in reasons[0]


def test_what_cannot_be_is_said_in_words(quick: Workshop, tmp_path: Path):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("a,b\n1,2\n")
    assert "such as batches/march" in told(quick, "list", "--source", "march").output
    assert "no file june was taken in" in told(quick, "list", "--source", "batches/june").output
    assert "--out needs --source" in told(quick, "list", "--out", str(sheet)).output
    before = quick.decisions()
    refused = told(quick, "release", "batches/june", str(sheet))
    assert refused.exit_code == 1
    assert "No rows were released: no file june" in refused.output.replace("\n", "")
    assert quick.decisions() == before


def test_a_run_that_dies_after_the_warehouse_is_made_good_by_the_next_one(
    quick: Workshop, monkeypatch: pytest.MonkeyPatch
):
    frame = drop_broken(quick, "batches", "killed", "clean_batch_1", AGE)
    sheet = mend(quick, "batches", "killed", AGE, frame[AGE][:BROKEN])

    def dies(*_: object) -> None:
        raise ConnectionError("gone before the event")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_event", dies)
        assert not put_back(quick, "batches/killed", sheet).success
    assert quarantined(quick, "batches", "killed") == 0
    assert quick.runner.run_until_idle() == []
    assert put_back(quick, "batches/killed", sheet).success
    assert [one.job for one in quick.runner.run_until_idle()] == ["score_batch"]
    assert quick.query("SELECT count(*) FROM current_predictions WHERE batch = 'killed'") == [(len(frame),)]
    ((decided,),) = quick.query("SELECT count(*) FROM decisions WHERE kind = 'release' AND batch = 'killed'")
    assert decided == 1


@pytest.mark.parametrize("job", ["score_batch", RETRAIN_JOB])
def test_rows_are_not_put_back_while_a_run_works_with_them(quick: Workshop, job: str):
    kind: Kind = "batches" if job == "score_batch" else "field_studies"
    name = "clean_batch_1" if kind == "batches" else "founding_study"
    busy = quick.instance.add_run(
        dg.DagsterRun(
            job_name=job,
            run_id=str(uuid.uuid4()),
            status=dg.DagsterRunStatus.STARTED,
            tags={PARTITION_TAG: name} if kind == "batches" else {},
        )
    )
    try:
        report = put_back(quick, f"{kind}/{name}", Path("nowhere.csv"))
    finally:
        quick.instance.delete_run(busy.run_id)
    assert not report.success
    assert "try again when it has finished" in report.message


def test_released_outcomes_are_measured(quick: Workshop):
    people = drop_broken(quick, "batches", "asked", "clean_batch_2", AGE)
    labels = quick.synthetic("outcomes", "clean_batch_2").astype(str)
    labels[STUDY.id] = "asked-" + labels[STUDY.id]
    mended = labels[STUDY.target.name][len(labels) - BROKEN :].tolist()
    labels.loc[len(labels) - BROKEN :, STUDY.target.name] = "?"
    quick.drop_frame("outcomes", "answers", labels)

    def measured() -> float:
        ((value,),) = quick.query(
            """SELECT value FROM performance
            WHERE batch = 'asked' AND kind = 'realised' AND metric = 'log_loss'"""
        )
        return float(value)

    before = measured()
    assert put_back(
        quick, "outcomes/answers", mend(quick, "outcomes", "answers", STUDY.target.name, mended)
    ).success
    ran = quick.runner.run_until_idle()
    assert [(one.job, one.partition) for one in ran] == [("measure_outcomes", "answers")]
    assert ran[0].success, ran[0].message
    assert measured() != before
    assert quick.runner.run_until_idle() == []
    assert len(people) > BROKEN


def test_released_rows_of_a_field_study_are_other_data_to_learn_from(quick: Workshop):
    """Last in this module: another version may serve afterwards."""
    frame = drop_broken(quick, "field_studies", "followup", "followup_study", AGE)
    _, before, _ = survey(quick.instance, quick.landing, LoopState())
    assert before.pending == ("followup",)
    assert quick.runner.run(RETRAIN_JOB).success
    state, situation, _ = survey(quick.instance, quick.landing, LoopState())
    assert situation.pending == ()
    first = quick.query("SELECT DISTINCT training_data_hash FROM training_sets")

    sheet = mend(quick, "field_studies", "followup", AGE, frame[AGE][:BROKEN])
    assert put_back(quick, "field_studies/followup", sheet).success
    state, situation, _ = survey(quick.instance, quick.landing, state)
    assert situation.pending == ("followup",)
    trained = quick.runner.run(RETRAIN_JOB)
    assert trained.success, trained.message
    assert "taken_over" not in trained.metadata["challenger"]
    assert len(quick.query("SELECT DISTINCT training_data_hash FROM training_sets")) == len(first) + 1
    _, situation, _ = survey(quick.instance, quick.landing, state)
    assert situation.pending == ()
    ((rows,),) = quick.query("SELECT count(*) FROM field_study_rows WHERE field_study = 'followup'")
    assert rows == len(frame)
    # Taken in again by hand, it is still known as what it has become.
    taken = quick.runner.run("ingest_field_study", partition_key="followup")
    assert taken.success, taken.message
    _, situation, _ = survey(quick.instance, quick.landing, state)
    assert situation.pending == ()
