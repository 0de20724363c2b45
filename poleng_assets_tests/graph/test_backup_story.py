"""A home that was backed up goes on elsewhere as if nothing had happened, whenever the backup was made."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from poleng_assets.cli.backup import backup, restore
from poleng_assets.cli.main import main
from poleng_assets.defs import clock
from poleng_assets.models.registry import Registry
from poleng_assets.operations.backup.make import make_backup
from poleng_assets.operations.restore import restore_backup
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.home import CHECKOUT, Home
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.faults.end_state import State, differences, end_state
from poleng_assets_tests.faults.quick_study import write_quick_study
from poleng_assets_tests.graph.conftest import Workshop, open_workshop

SCALE = 0.05
MOMENTS = 3
# What tells of attempts, of the backup itself, and of the place where a model was logged.
ABOUT_ATTEMPTS = {"files that wait or were left"}
ABOUT_THE_PLACE = {"last_backup.json", ".lock", " MLmodel "}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The synthetic survey in small, and a study that is trained in seconds."""
    folder = tmp_path_factory.mktemp("quick")
    write_scenario_data(load_study(), folder, scale=SCALE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLENG_STUDY", str(write_quick_study(folder / "study.yaml")))
        yield folder


@dataclass
class Told:
    """A home with a champion and a scored batch, its backup, and the place it was restored to."""

    original: Path
    copy: Path
    data: Path
    archive: Path


@pytest.fixture(scope="module")
def told(quick: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("told")
    original, copy, archive = folder / "home", folder / "elsewhere" / "copy", folder / "home.tar.gz"
    with open_workshop(original, quick) as workshop:
        workshop.drop("field_studies", "founding_study")
        workshop.drop("batches", "clean_batch_1")
        assert workshop.registry.champion().version == 1
    done = CliRunner().invoke(backup, [str(archive), "--home", str(original)])
    assert done.exit_code == 0, done.output
    assert "read back and is complete" in done.output
    done = CliRunner().invoke(restore, [str(archive), "--home", str(copy)])
    assert done.exit_code == 0, done.output
    return Told(original, copy, quick, archive)


def compared(home: Path) -> State:
    state = end_state(Home(home))
    return {
        section: [line for line in lines if not any(name in line for name in ABOUT_THE_PLACE)]
        for section, lines in state.items()
        if section not in ABOUT_ATTEMPTS
    }


def story(workshop: Workshop) -> None:
    """What happens after the backup: field data of new countries, and a batch from there."""
    workshop.drop("field_studies", "followup_study")
    workshop.drop("batches", "drift_batch_1")
    workshop.drop("outcomes", "drift_batch_1")


def test_a_restored_home_asks_for_nothing_that_was_done(told: Told):
    with open_workshop(told.copy, told.data) as workshop:
        assert workshop.runner.run_until_idle() == []


def test_a_restored_home_is_the_one_that_was_backed_up(told: Told):
    assert differences(compared(told.original), compared(told.copy)) == []


def test_nothing_in_the_restored_stores_names_the_old_place(told: Told):
    stores = [told.copy / "mlflow.db", *(told.copy / "dagster").rglob("*.db")]
    assert len(stores) > 3
    old = {str(told.original), told.original.as_uri()}
    assert [line for store in stores for line in dumped(store) if any(place in line for place in old)] == []


def dumped(store: Path) -> list[str]:
    """The rows of a store: freed pages keep what stood in them."""
    with closing(sqlite3.connect(store)) as con:
        return list(con.iterdump())


def test_a_place_with_a_blank_is_one_like_any_other(told: Told, tmp_path: Path):
    """MLflow writes such a place as a URI with escapes, Dagster as JSON with others."""
    odd, again, archive = Home(tmp_path / "das häuschen"), Home(tmp_path / "again"), tmp_path / "odd.tar.gz"
    restore_backup(told.archive, odd)
    make_backup(odd, Warehouse(odd.warehouse, load_study()), archive)
    restore_backup(archive, again)
    assert differences(compared(told.original), compared(again.root)) == []
    for home in (odd, again):
        registry = Registry(home, load_study())
        reference = registry.reference(registry.champion())
        scores = registry.model(registry.champion()).score(reference)
        assert scores == pytest.approx(reference["score"].to_numpy())


def test_restored_elsewhere_it_goes_on_as_the_original_does(told: Told, tmp_path: Path):
    restore_backup(told.archive, Home(tmp_path / "again"))
    # Whatever still leads back to the original must fail: it is not there.
    hidden = told.original.rename(told.original.with_name("moved away"))
    with open_workshop(tmp_path / "again", told.data) as workshop:
        story(workshop)
        assert workshop.registry.champion().version == 2
        assert workshop.verdicts("drift_batch_1")[-1][1] == 2
    hidden.rename(told.original)
    with open_workshop(told.original, told.data) as workshop:
        story(workshop)
        assert workshop.registry.champion().version == 2
    assert differences(compared(told.original), compared(tmp_path / "again")) == []


def test_a_backup_that_lay_for_long_goes_on_when_a_person_has_looked_at_the_clock(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def said(*words: str) -> tuple[int, str]:
        answer = CliRunner().invoke(main, [*words, "--home", str(tmp_path / "late")])
        return answer.exit_code, " ".join(answer.output.split())

    restore_backup(told.archive, Home(tmp_path / "late"))
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + timedelta(days=400))
    code, output = said("clock")
    assert (code, "400 days before: the clock may have jumped ahead" in output) == (1, True)
    assert said("clock", "--trust")[0] == 0
    assert said("clock")[0] == 0
    # Warehouse and history are of one moment: neither tells of what the other lacks.
    code, output = said("run-pending")
    assert (code, "in doubt" in output) == (0, False)
    assert "The warehouse has everything" in said("recover")[1]


@pytest.mark.slow
def test_a_backup_of_any_moment_of_a_run_ends_like_the_undisturbed_home(quick: Path, tmp_path: Path):
    """Backups while another process takes in, trains and scores; each restored one is settled."""
    home = Home(tmp_path / "home").create()
    for kind, name in (("field_studies", "founding_study"), ("batches", "clean_batch_1")):
        shutil.copy2(quick / kind / f"{name}.parquet", home.landing(kind))  # type: ignore[arg-type]
    time.sleep(2.5)  # landing has settled, so that no backup waits for it
    archives: list[Path] = []
    under_way: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-m", "poleng_assets.cli", "run-pending", "--home", str(home.root)],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as worker:
        warehouse = Warehouse(home.warehouse, load_study())
        while worker.poll() is None:
            archive = tmp_path / f"{len(archives)}.tar.gz"
            make_backup(home, warehouse, archive)
            archives.append(archive)
            time.sleep(1.0)
        said = worker.communicate()[0]
    assert worker.returncode == 0, said
    assert len(archives) >= MOMENTS, said
    expected = compared(home.root)
    step = len(archives) / MOMENTS
    for number in range(MOMENTS):
        copy = Home(tmp_path / f"copy_{number}")
        restored = restore_backup(archives[int(number * step)], copy)
        under_way.append(restored.failed_runs)
        with open_workshop(copy.root, quick) as workshop:
            reports = workshop.runner.run_until_idle()
            assert all(report.success for report in reports), [r.message for r in reports]
            assert workshop.runner.run_until_idle() == []
        assert differences(expected, compared(copy.root)) == []
    assert any(under_way), "no backup fell into a run"
