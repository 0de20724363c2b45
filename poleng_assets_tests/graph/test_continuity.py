"""After a power cut: what events tell of is on the disk, and a warehouse that lost commits is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.defs.continuity import WarehouseBehind, refuse_at_start
from poleng_assets.storage.files import write_atomically
from poleng_assets_tests.faults.syncs import Recorder, recorded
from poleng_assets_tests.graph.conftest import Workshop, open_founded

pytestmark = pytest.mark.slow

BATCH = "clean_batch_1"


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


@pytest.fixture(scope="module")
def scored(
    tmp_path_factory: pytest.TempPathFactory, survey_data: Path
) -> Iterator[tuple[Workshop, Recorder, Path]]:
    """A home in which a batch was taken in and listed; what reached the disk; the warehouse before."""
    folder = tmp_path_factory.mktemp("continuity")
    with open_founded(folder / "home", survey_data) as workshop:
        before = Path(shutil.copyfile(workshop.home.warehouse, folder / "before.duckdb"))
        with recorded(workshop.home.root) as recorder:
            assert all(report.success for report in workshop.drop("batches", BATCH))
        yield workshop, recorder, before


def test_files_are_on_the_disk_before_an_event_tells_of_them(scored: tuple[Workshop, Recorder, Path]):
    workshop, recorder, _ = scored
    home = workshop.home
    for asset, folder in (
        ("batches", home.archive("batches")),
        ("drift_report", home.reports),
        ("contact_list", home.contact_lists),
        ("overview", home.reports),
    ):
        event = recorder.events(asset)[0]
        assert recorder.moved_before(event, folder), f"{asset}: nothing stands in {folder} before its event"
        assert recorder.lost_at(event) == [], asset
    assert recorder.lost_at(len(recorder.happened)) == []


def test_a_batch_waits_for_the_disk_a_few_times_only(scored: tuple[Workshop, Recorder, Path]):
    _, recorder, _ = scored
    syncs = [kind for kind, _ in recorder.happened if kind in ("file", "folder")]
    assert 0 < len(syncs) <= 40


def test_the_recorder_notices_a_file_that_a_power_cut_would_lose(tmp_path: Path):
    with recorded(tmp_path) as recorder:
        write_atomically(tmp_path / "whole.csv", "1")
        (tmp_path / ".half").write_text("1")
        (tmp_path / ".half").replace(tmp_path / "half.csv")
    assert recorder.lost_at(len(recorder.happened)) == [
        f"{tmp_path / 'half.csv'}: its content was not synced",
        f"{tmp_path / 'half.csv'}: its name was not synced",
    ]


def test_a_warehouse_that_has_all_is_not_refused(scored: tuple[Workshop, Recorder, Path]):
    workshop, _, _ = scored
    refuse_at_start(workshop.instance, workshop.warehouse, workshop.home)


def test_a_warehouse_that_lost_its_last_commits_stops_the_work_and_is_made_whole_again(
    scored: tuple[Workshop, Recorder, Path],
):
    workshop, _, before = scored
    shutil.copyfile(before, workshop.home.warehouse)
    words = f"lacks data that Dagster's history reports: batch {BATCH} ("
    with pytest.raises(WarehouseBehind, match=r"batch clean_batch_1 \(.*poleng restore.*poleng recover"):
        refuse_at_start(workshop.instance, workshop.warehouse, workshop.home)
    by_hand = workshop.runner.run("process_batch", partition_key=BATCH)
    assert (by_hand.success, words in by_hand.message) == (False, True)
    said = CliRunner().invoke(main, ["run-pending", "--home", str(workshop.home.root)])
    assert (said.exit_code, words in " ".join(said.output.split())) == (1, True)
    assert workshop.query("SELECT count(*) FROM ingested_files WHERE name = ?", BATCH) == [(0,)]
    made = CliRunner().invoke(main, ["recover", "--yes", "--home", str(workshop.home.root)])
    assert made.exit_code == 0, made.output
    assert workshop.query("SELECT count(*) > 0 FROM current_predictions WHERE batch = ?", BATCH) == [(True,)]
    assert workshop.query("SELECT count(*) FROM decisions WHERE kind = 'recover'") == [(1,)]
    refuse_at_start(workshop.instance, workshop.warehouse, workshop.home)


def test_a_warehouse_that_is_gone_is_not_made_anew_over_the_history(
    scored: tuple[Workshop, Recorder, Path],
):
    workshop, _, _ = scored
    aside = workshop.home.warehouse.rename(workshop.home.root / "aside.duckdb")
    try:
        with pytest.raises(WarehouseBehind, match="lacks data that Dagster's history"):
            refuse_at_start(workshop.instance, workshop.warehouse, workshop.home)
        assert not workshop.runner.run("process_batch", partition_key=BATCH).success
        assert not workshop.home.warehouse.exists()
    finally:
        aside.rename(workshop.home.warehouse)


def test_what_was_wiped_from_the_history_is_asked_of_nobody(scored: tuple[Workshop, Recorder, Path]):
    workshop, _, _ = scored
    with workshop.warehouse.connect() as con:
        con.execute("DELETE FROM ingested_files WHERE name = ?", [BATCH])
    with pytest.raises(WarehouseBehind):
        refuse_at_start(workshop.instance, workshop.warehouse, workshop.home)
    workshop.instance.delete_dynamic_partition("batch", BATCH)
    with workshop.warehouse.connect() as con:
        con.execute("DELETE FROM drift_reports")
    refuse_at_start(workshop.instance, workshop.warehouse, workshop.home)
