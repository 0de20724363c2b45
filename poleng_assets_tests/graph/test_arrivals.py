"""Arrivals as a whole: the sensor, its runs, and what is told when a file cannot be dealt with."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.core.ingestion import ingest
from poleng_assets.core.ingestion.archive_check import compare_archive, note_rewritten
from poleng_assets.definitions import build_defs
from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.jobs import ingest_field_study
from poleng_assets.defs.sensors import field_study_arrivals
from poleng_assets.headless.runner import HeadlessRunner, RunReport
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.writes import now, transaction
from poleng_assets_tests.faults.disks import read_only


@dataclass
class Door:
    """The arrival of field studies alone: nothing is trained on them."""

    home: Home
    runner: HeadlessRunner

    @property
    def folder(self) -> Path:
        return self.home.landing("field_studies")

    @property
    def said(self) -> str:
        return self.runner.skips["field_studies_arrivals"]

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.home.warehouse, load_study())

    def react(self) -> list[RunReport]:
        return self.runner.run_until_idle()

    def taken_in(self) -> dict[str, int]:
        if not self.home.warehouse.exists():
            return {}
        with self.warehouse.connect() as con:
            return dict(con.execute("SELECT name, rows_read FROM ingested_files").fetchall())


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    yield from opened(tmp_path / "home", 0.0)


@pytest.fixture
def patient_door(tmp_path: Path) -> Iterator[Door]:
    yield from opened(tmp_path / "home", 0.4)


def opened(folder: Path, settle_seconds: float) -> Iterator[Door]:
    home = Home(folder).create()
    full = build_defs(home=home, settle_seconds=settle_seconds)
    defs = dg.Definitions(
        assets=full.assets,
        asset_checks=full.asset_checks,
        jobs=[ingest_field_study],
        sensors=[field_study_arrivals],
        executor=dg.in_process_executor,
        resources=full.resources,
    )
    with open_instance(home) as instance:
        yield Door(home, HeadlessRunner(defs, instance, show=lambda report: None))


@pytest.fixture(scope="module")
def text(people: pd.DataFrame, study: Study) -> str:
    wanted = [study.id, *study.feature_names, study.target.name]
    return people[wanted].head(186).to_csv(index=False)


def first_rows(text: str, rows: int) -> str:
    return "".join(text.splitlines(keepends=True)[: rows + 1])


def test_an_export_that_pauses_while_it_has_the_file_open_is_waited_for(door: Door, text: str):
    path = door.folder / "march.csv"
    begun = first_rows(text, 100)
    with path.open("w") as export:
        export.write(begun)
        export.flush()
        assert door.react() == []
        assert "Waiting for march.csv" in door.said
        assert "open for writing" in door.said
        export.write(text.removeprefix(begun))
    assert [run.success for run in door.react()] == [True]
    assert door.taken_in() == {"march": 186}
    assert (door.home.archive("field_studies") / "march.csv").read_text() == text


def test_an_export_that_goes_on_while_the_file_is_read_is_taken_in_whole_and_once(
    door: Door, text: str, monkeypatch: pytest.MonkeyPatch
):
    path = door.folder / "march.csv"
    path.write_text(first_rows(text, 100))
    check = ingest.check_columns

    def meanwhile(*arguments: Any) -> list[str]:
        path.write_text(text)
        monkeypatch.setattr(ingest, "check_columns", check)
        return check(*arguments)

    monkeypatch.setattr(ingest, "check_columns", meanwhile)
    runs = door.react()
    assert [run.success for run in runs] == [False, True]
    assert "march.csv changed during ingestion" in runs[0].message
    assert door.taken_in() == {"march": 186}
    assert list(door.folder.iterdir()) == []


def test_settle_waits_for_a_file_that_somebody_else_just_dropped(patient_door: Door, text: str):
    path = patient_door.folder / "march.csv"
    path.write_text(first_rows(text, 100))

    def go_on() -> None:
        time.sleep(0.25)
        path.write_text(text)

    export = threading.Thread(target=go_on)
    export.start()
    runs = patient_door.react()
    export.join()
    assert [run.success for run in runs] == [True]
    assert patient_door.taken_in() == {"march": 186}


def test_names_that_differ_by_capitals_only_are_refused_at_the_door(door: Door, text: str):
    for name, rows in (("march.csv", 100), ("March.csv", 120)):
        path = door.folder / name
        path.write_text(first_rows(text, rows))
        os.utime(path, (1e9 + rows, 1e9 + rows))
    assert [run.partition for run in door.react()] == ["march"]
    (note,) = door.home.rejected("field_studies").glob("*.reason.txt")
    assert "'March' differs from the existing 'march'" in " ".join(note.read_text().split())


def test_what_cannot_be_refused_is_named_and_tried_once_and_does_not_stop_the_others(
    door: Door, text: str, monkeypatch: pytest.MonkeyPatch
):
    (door.folder / "odd name.csv").write_text("x")
    (door.folder / "Thumbs.db").write_text("x")
    (door.folder / "march.csv").write_text(text)
    tried = []
    reject = Landing.reject

    def counted(landing: Landing, *arguments: object) -> Path:
        tried.append(arguments)
        return reject(landing, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Landing, "reject", counted)
    with read_only(door.home.rejected("field_studies")):
        assert [run.success for run in door.react()] == [True]
        assert door.react() == []
        assert "odd name.csv: it is rejected" in door.said
        assert "cannot be moved (Read-only file system)" in door.said
        assert "Thumbs.db" in door.said
    assert len(tried) == 1
    with door.warehouse.connect() as con:
        assert con.execute("SELECT count(*) FROM refused_files").fetchall() == [(0,)]


def test_a_file_that_was_taken_in_and_cannot_be_removed_is_not_taken_in_again(
    door: Door, text: str, monkeypatch: pytest.MonkeyPatch
):
    (door.folder / "march.csv").write_text(text)
    monkeypatch.setattr(Landing, "remove", lambda self, copy: "it stays")
    assert [run.success for run in door.react()] == [True]
    assert door.react() == []
    assert "march.csv: it was ingested, but cannot be removed from landing" in door.said


def test_the_archive_is_compared_with_what_was_taken_in(door: Door, text: str):
    for name, rows in (("march.csv", 100), ("april.csv", 120), ("may.csv", 140)):
        (door.folder / name).write_text(first_rows(text, rows))
    door.react()
    folder, command = door.home.archive("field_studies"), ["check-archive", "--home", str(door.home.root)]
    sound = CliRunner().invoke(main, command)
    assert (sound.exit_code, "field_studies: 3 files are intact" in sound.output) == (0, True)
    with (folder / "march.csv").open("a") as late:
        late.write("more\n")
    (folder / "may.csv").unlink()
    changed = CliRunner().invoke(main, command)
    assert changed.exit_code == 1
    assert "1 differ: march; 1 are missing: may" in changed.output
    with door.warehouse.connect() as con:
        assert compare_archive(con, "field_studies", folder, now(), keep_days=0).gone == ()
        with transaction(con):  # as after somebody was forgotten
            note_rewritten(con, "field_studies", [folder / "march.csv", folder / "may.csv"])
        assert compare_archive(con, "field_studies", folder, now(), None).sound
