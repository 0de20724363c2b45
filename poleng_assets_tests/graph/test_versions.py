"""The same name with other content: a new version of a batch or a field study, and the old one kept."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from poleng_assets.core.data.versions import version_id
from poleng_assets.defs.run_history import attempts_of, reset_failures
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_founded


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home whose first champion serves, by a study that trains in seconds."""
    folder = tmp_path_factory.mktemp("versions")
    with quick_survey(folder) as data, open_founded(folder / "home", data) as opened:
        yield opened


@pytest.fixture
def people(quick: Workshop) -> pd.DataFrame:
    return quick.synthetic("batches", "clean_batch_1")


def test_a_mended_batch_is_scored_beside_the_first_one(quick: Workshop, people: pd.DataFrame):
    quick.drop_frame("batches", "march", people)
    first = quick.contact_list("march")
    quick.drop_frame("batches", "march", people.head(150))
    counted = dict(quick.query("SELECT batch, count(*) FROM current_predictions GROUP BY 1"))
    assert (counted["march"], counted["march@2"]) == (len(people), 150)
    assert quick.contact_list("march").equals(first)
    assert 0 < len(quick.contact_list("march@2")) < 150
    assert quick.home.report("march@2", 1).exists()
    archived = sorted(path.name for path in quick.home.archive("batches").glob("march*"))
    assert archived == ["march.parquet", "march@2.parquet"]


def test_the_content_of_an_earlier_version_changes_nothing(quick: Workshop, people: pd.DataFrame):
    for rows in (180, 150, 180):
        quick.drop_frame("batches", "april", people.sample(rows, random_state=4))
    known = [one for one in quick.instance.get_dynamic_partitions("batch") if one.startswith("april")]
    assert known == ["april", "april@2"]
    assert quick.query("SELECT count(*) FROM batch_rows WHERE batch LIKE 'april%'") == [(330,)]
    assert quick.landing.waiting("batches") == []


def test_two_contents_of_one_name_dropped_at_once_are_both_taken_in(quick: Workshop, people: pd.DataFrame):
    folder = quick.home.root / "made"
    folder.mkdir()
    people.sample(120, random_state=1).to_parquet(folder / "may.parquet", index=False)
    people.sample(130, random_state=2).to_csv(folder / "may.csv", index=False)
    for name in ("may.parquet", "may.csv"):
        quick.landing.submit("batches", folder / name)
    quick.runner.run_until_idle()
    counted = quick.query(
        "SELECT batch, count(*) FROM batch_rows WHERE batch LIKE 'may%' GROUP BY 1 ORDER BY 1"
    )
    assert counted == [("may", 120), ("may@2", 130)]


def test_a_refused_version_leaves_the_first_one_and_no_partition(quick: Workshop, people: pd.DataFrame):
    quick.drop_frame("batches", "june", people.sample(150, random_state=6))
    quick.drop_frame("batches", "june", people.drop(columns=load_study().feature_names[0]))
    assert not quick.instance.has_dynamic_partition("batch", "june@2")
    assert quick.query("SELECT DISTINCT batch FROM batch_rows WHERE batch LIKE 'june%'") == [("june",)]
    assert "june.parquet.reason.txt" in quick.rejected("batches")
    refused = quick.query("SELECT file, rows FROM refused_files WHERE file LIKE 'june%'")
    assert refused == [("june.parquet", len(people))]


def test_a_new_version_is_not_taken_in_under_the_old_partition_by_hand(quick: Workshop, people: pd.DataFrame):
    quick.drop_frame("batches", "july", people.sample(150, random_state=7))
    other = quick.home.landing("batches") / "july.parquet"
    people.head(149).to_parquet(other, index=False)
    report = quick.runner.run("process_batch", partition_key="july")
    assert not report.success
    assert "belongs to partition july@2" in report.message
    assert other.exists()
    quick.runner.run_until_idle()
    assert quick.query("SELECT count(*) FROM batch_rows WHERE batch = 'july@2'") == [(149,)]


def test_a_batch_is_made_again_from_its_archived_file(quick: Workshop, people: pd.DataFrame):
    for rows in (150, 149):
        quick.drop_frame("batches", "august", people.sample(rows, random_state=8))
    report = quick.runner.run("process_batch", partition_key=version_id("august", 2))
    assert report.success
    assert report.metadata["batches"]["rows_read"] == 149


def test_every_batch_is_accounted_for_row_by_row(quick: Workshop, people: pd.DataFrame):
    quick.drop_frame("batches", "october", people.tail(150))
    key = dg.AssetCheckKey(dg.AssetKey("predictions"), "no_row_is_lost")
    (record,) = quick.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    assert evaluation.passed
    assert "150 rows read (150 in the file) = 150 scored" in str(evaluation.metadata["this_batch"].value)


def test_a_corrected_field_study_replaces_the_earlier_one_in_training(quick: Workshop):
    study = load_study()
    founding = quick.synthetic("field_studies", "founding_study")
    feature = study.features[-1]
    code = sorted(feature.codes)[0]
    corrected = founding.assign(**{feature.name: str(code) if not feature.is_ordinal else code})
    quick.drop_frame("field_studies", "founding_study", corrected)
    # Nobody asked for a retraining yet: it waits for a batch that needs it.
    assert quick.registry.champion().version == 1
    quick.runner.run("retrain_and_promote")
    newest = quick.registry.versions()[-1]
    assert newest.field_studies == ["founding_study@2"]
    sides = quick.query(
        f"""SELECT count(*) FROM field_study_rows a JOIN field_study_rows b USING ("{study.id}")
        WHERE a.field_study = 'founding_study' AND b.field_study = 'founding_study@2'
        AND a.part <> b.part AND b.part <> 'set_aside'"""
    )
    assert sides == [(0,)]
    assert quick.runner.run_until_idle() == []


def pretend_failures(workshop: Workshop, request: str, count: int) -> None:
    from poleng_assets_tests.graph.test_sensors import pretend_run

    for _ in range(count):
        pretend_run(
            workshop, "retrain_and_promote", dg.DagsterRunStatus.FAILURE, **{"poleng/request": request}
        )


def test_what_failed_three_times_rests_and_is_tried_again(quick: Workshop, monkeypatch: pytest.MonkeyPatch):
    pretend_failures(quick, "rests", 2)
    assert attempts_of(quick.instance, ["rests"])["rests"].backoff_seconds == 0
    pretend_failures(quick, "rests", 1)
    first = attempts_of(quick.instance, ["rests"])["rests"]
    assert (first.failed, 50 < first.backoff_seconds <= 60) == (3, True)
    pretend_failures(quick, "rests", 2)
    assert 220 < attempts_of(quick.instance, ["rests"])["rests"].backoff_seconds <= 240
    import time

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 300)
    assert attempts_of(quick.instance, ["rests"])["rests"].backoff_seconds == 0


def test_failures_of_a_clock_that_was_put_back_do_not_rest_for_ever(
    quick: Workshop, monkeypatch: pytest.MonkeyPatch
):
    import time

    pretend_failures(quick, "put back", 3)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    assert attempts_of(quick.instance, ["put back"])["put back"].backoff_seconds == 0


def test_failures_up_to_a_retry_do_not_count(quick: Workshop):
    pretend_failures(quick, "forgiven", 4)
    reset_failures(quick.instance)
    after = attempts_of(quick.instance, ["forgiven"])["forgiven"]
    assert (after.failed, after.number) == (0, 5)
    pretend_failures(quick, "forgiven", 1)
    assert attempts_of(quick.instance, ["forgiven"])["forgiven"].failed == 1


def test_a_batch_that_cannot_be_taken_in_is_tried_three_times_and_again_when_mended(
    quick: Workshop, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    from poleng_assets.core.ingestion import ingest

    def broken(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "ingest", broken)
        reports = quick.drop_frame("batches", "november", people.head(151))
        assert [report.success for report in reports] == [False] * 3
        assert "is retried in" in quick.runner.skips["batches_arrivals"]
    assert quick.runner.run_until_idle() == []
    reset_failures(quick.instance)
    quick.runner.run_until_idle()
    assert quick.query("SELECT count(*) FROM current_predictions WHERE batch = 'november'") == [(151,)]
