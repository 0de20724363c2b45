"""An earlier version put back, and the question an auditor asks afterwards."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.core.contacts.contact_history import history_of
from poleng_assets.defs.checks import list_differences
from poleng_assets.defs.events import serving_version
from poleng_assets.defs.rollback import ROLLBACK_JOB
from poleng_assets.headless.runner import RunReport
from poleng_assets.models.registry import Registry
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import (
    SHIPPED,
    half_of_the_features,
    quick_survey,
)
from poleng_assets_tests.graph.conftest import Workshop, open_promoted

STUDY = half_of_the_features(load_study(SHIPPED))


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


def put_back(workshop: Workshop, **config: Any) -> RunReport:
    return workshop.runner.run(ROLLBACK_JOB, run_config={"ops": {"put_back": {"config": config}}})


@pytest.fixture(scope="module")
def taken_back(tmp_path_factory, survey_data):
    """A home in which version 2 served, scored a batch, and was taken back."""
    with open_promoted(tmp_path_factory.mktemp("taken_back") / "home", survey_data) as workshop:
        workshop.first_list = workshop.contact_list("drift_batch_1")  # type: ignore[attr-defined]
        report = put_back(workshop, reason="complaints from the field", score_again=True)
        assert report.success, report.message
        workshop.runner.run_until_idle()
        yield workshop


def test_the_earlier_version_serves_and_the_ledger_says_why(taken_back: Workshop):
    assert taken_back.registry.champion().version == 1
    ((reason, version),) = taken_back.query(
        "SELECT reason, champion_version FROM decisions WHERE kind = 'rollback'"
    )
    assert version == 1
    assert "complaints from the field" in reason


def test_what_the_bad_version_scored_is_scored_again(taken_back: Workshop):
    assert [version for _, version in taken_back.verdicts("drift_batch_1")] == [2, 1]
    current = taken_back.query(
        "SELECT DISTINCT model_version FROM current_predictions WHERE batch = 'drift_batch_1'"
    )
    assert current == [(1,)]


def test_the_report_of_the_version_taken_back_can_be_made_again(taken_back: Workshop):
    page = taken_back.home.report("drift_batch_1", 2)
    before = page.read_text(encoding="utf-8")
    page.unlink()
    told = CliRunner().invoke(
        main, ["report", "drift_batch_1", "--version", "2", "--home", str(taken_back.home.root)]
    )
    assert told.exit_code == 0, told.output
    verdict = {version: word for word, version in taken_back.verdicts("drift_batch_1")}[2]
    assert f"version 2: {verdict}" in told.output
    again = page.read_text(encoding="utf-8")
    assert len(again) == pytest.approx(len(before), rel=0.01)
    assert verdict in again.lower()


def test_a_report_of_a_version_that_never_scored_the_batch_is_refused_in_words(taken_back: Workshop):
    told = CliRunner().invoke(
        main, ["report", "clean_batch_1", "--version", "2", "--home", str(taken_back.home.root)]
    )
    assert told.exit_code != 0
    assert "clean_batch_1 has no report under version 2" in told.output


def test_what_the_earlier_version_scored_is_left_alone(taken_back: Workshop):
    counted = taken_back.query("SELECT count(*) FROM drift_reports WHERE batch = 'clean_batch_1'")
    assert counted == [(1,)]


def test_the_rollback_does_not_train_on_the_same_data_again(taken_back: Workshop):
    assert taken_back.decisions().count("retrain") == 2
    assert taken_back.runner.run_until_idle() == []


def test_a_version_that_was_taken_back_is_not_promoted_by_judging_it_again(taken_back: Workshop):
    before = taken_back.decisions()
    result = taken_back.runner.defs.resolve_job_def("retrain_and_promote").execute_in_process(
        instance=taken_back.instance, asset_selection=[dg.AssetKey("champion")]
    )
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["serving_version"].value == 1
    assert metadata["promoted"].value is False
    assert "complaints from the field" in str(metadata["reason"].value)
    assert taken_back.registry.champion().version == 1
    assert taken_back.decisions() == before


def test_an_auditor_is_told_every_list_that_a_person_stood_on(taken_back: Workshop):
    first = set(taken_back.first_list[STUDY.id])  # type: ignore[attr-defined]
    second = set(taken_back.contact_list("drift_batch_1 (list 2)")[STUDY.id])
    subject = min(first & second)
    with taken_back.warehouse.read() as con:
        history = history_of(con, STUDY, subject)
    assert [(one.model_version, one.contact, one.current) for one in history] == [
        (2, True, False),
        (1, True, True),
    ]
    assert all(one.listed_at is not None for one in history)
    told = "\n".join(one.in_words() for one in history)
    assert "put on the contact list at" in told
    assert "put on the contact list 2 at" in told
    assert "log-loss" in told


def test_somebody_unknown_has_no_history(taken_back: Workshop):
    with taken_back.warehouse.read() as con:
        assert history_of(con, STUDY, "nobody") == []


def test_a_rollback_that_cannot_be_is_refused_and_changes_nothing(taken_back: Workshop):
    before = taken_back.decisions()
    report = put_back(taken_back)
    assert not report.success
    assert "no version was promoted before version 1" in report.message
    assert taken_back.decisions() == before
    assert taken_back.registry.champion().version == 1


def test_a_list_that_somebody_shortened_fails_its_check(taken_back: Workshop):
    path = taken_back.home.contact_lists / "clean_batch_1.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert list_differences(taken_back.warehouse, taken_back.landing, "clean_batch_1") == (set(), set())
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows[:-1])
    missing, too_many = list_differences(taken_back.warehouse, taken_back.landing, "clean_batch_1")
    assert (missing, too_many) == ({rows[-1][0]}, set())


def test_the_check_of_the_list_runs_with_every_list_that_is_made(taken_back: Workshop):
    evaluated = [
        (run.tags["dagster/partition"], event.dagster_event.asset_check_evaluation_data.passed)
        for run in taken_back.instance.get_runs()
        for event in taken_back.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
        if event.dagster_event
        and event.dagster_event.asset_check_evaluation_data.check_name == "every_contact_stands_in_the_list"
    ]
    assert set(evaluated) == {("clean_batch_1", True), ("drift_batch_1", True)}


@pytest.fixture(scope="module")
def twice_promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home in which version 2 serves and version 1 may be put back, by a study that trains in seconds."""
    folder = tmp_path_factory.mktemp("twice_promoted")
    with quick_survey(folder) as data, open_promoted(folder / "home", data) as workshop:
        assert serving_version(workshop.instance) == 2
        yield workshop


@pytest.mark.parametrize("name", ["encoder.json", "booster.ubj", "reference.parquet", "importance.json"])
@pytest.mark.parametrize("damage", ["missing", "cut in half", "changed"])
def test_a_version_whose_files_cannot_be_used_is_not_put_back(
    twice_promoted: Workshop, name: str, damage: str
):
    registry, decided = twice_promoted.registry, twice_promoted.decisions()
    version = registry.version(1)
    assert version.kept is not None
    folders = (registry.model_folder(version), registry.home.artifacts / version.kept.reference)
    (file,) = (found for folder in folders for found in folder.rglob(name))
    content = file.read_bytes()
    file.unlink()
    if damage == "cut in half":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused = put_back(twice_promoted, to=1)
    told = CliRunner().invoke(main, ["status", "--json", "--home", str(twice_promoted.home.root)])
    file.write_bytes(content)
    assert not refused.success
    assert "version 1 cannot serve and nothing was changed" in refused.message
    assert "the alias 'champion' still points to version 2" in refused.message
    assert (
        f"{file} {'is missing' if damage == 'missing' else 'differs from the registered file'}"
        in refused.message
    )
    assert twice_promoted.decisions() == decided
    assert (registry.champion().version, serving_version(twice_promoted.instance)) == (2, 2)
    assert json.loads(told.stdout)["champion_version"] == 2


def test_a_version_that_is_not_registered_any_more_is_not_put_back(
    twice_promoted: Workshop, monkeypatch: pytest.MonkeyPatch
):
    decided = twice_promoted.decisions()
    versions = twice_promoted.registry.versions()
    monkeypatch.setattr(Registry, "versions", lambda _: versions[1:])
    refused = put_back(twice_promoted)
    assert "version 1 cannot serve" in refused.message
    assert "has no version 1" in refused.message
    assert twice_promoted.decisions() == decided
    assert twice_promoted.registry.champion().version == 2


def test_a_version_that_was_mended_is_put_back(twice_promoted: Workshop):
    assert put_back(twice_promoted, to=1).success
    assert twice_promoted.registry.champion().version == 1


def test_a_rollback_that_died_before_it_was_told_is_told_by_the_next_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with quick_survey(tmp_path) as data, open_promoted(tmp_path / "home", data) as workshop:
        assert serving_version(workshop.instance) == 2
        with monkeypatch.context() as patch:
            patch.setattr("poleng_assets.defs.rollback._event", killed)
            assert put_back(workshop, score_again=True).message == "RuntimeError: killed"
        assert (workshop.registry.champion().version, serving_version(workshop.instance)) == (1, 2)
        workshop.drop("batches", "clean_batch_2")
        assert serving_version(workshop.instance) == 1
        assert [version for _, version in workshop.verdicts("drift_batch_1")] == [2, 1]
        assert [version for _, version in workshop.verdicts("clean_batch_2")] == [1]
        assert workshop.decisions().count("rollback") == 1
        assert workshop.runner.run_until_idle() == []
