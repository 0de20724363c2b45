"""A workshop: a real home with a real Dagster instance, warehouse and MLflow, driven in process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from poleng_assets.definitions import build_defs
from poleng_assets.defs.instance import open_instance
from poleng_assets.headless.runner import HeadlessRunner, RunReport
from poleng_assets.models.registry import Registry
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.home import Home, Kind
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.faults.quick_study import half_survey
from poleng_assets_tests.homes import founded_home, new_home, promoted_home

SCALE = 0.25


@dataclass
class Workshop:
    """Drops files as people do, lets the sensors react, and looks at what is there afterwards."""

    home: Home
    instance: dg.DagsterInstance
    runner: HeadlessRunner
    data: Path
    seen: list[RunReport] = field(default_factory=list)

    @property
    def landing(self) -> Landing:
        return Landing(self.home, settle_seconds=0.0)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.home.warehouse, load_study())

    @property
    def registry(self) -> Registry:
        return Registry(self.home, load_study())

    def synthetic(self, kind: Kind, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.data / kind / f"{name}.parquet")

    def drop_file(self, kind: Kind, path: Path) -> list[RunReport]:
        self.landing.submit(kind, path)
        return self.runner.run_until_idle()

    def drop(self, kind: Kind, name: str) -> list[RunReport]:
        """Drop one of the synthetic files."""
        return self.drop_file(kind, self.data / kind / f"{name}.parquet")

    def drop_frame(self, kind: Kind, name: str, frame: pd.DataFrame) -> list[RunReport]:
        path = self.home.root / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        try:
            return self.drop_file(kind, path)
        finally:
            path.unlink()

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self.warehouse.connect() as con:
            return con.execute(sql, list(values)).fetchall()

    def contact_list(self, batch: str) -> pd.DataFrame:
        return pd.read_csv(self.home.contact_lists / f"{batch}.csv", dtype=str, keep_default_na=False)

    def verdicts(self, batch: str) -> list[tuple[str, int]]:
        return [
            (verdict, version)
            for verdict, version in self.query(
                "SELECT verdict, model_version FROM drift_reports WHERE batch = ? ORDER BY reported_at", batch
            )
        ]

    def decisions(self) -> list[str]:
        return [kind for (kind,) in self.query("SELECT kind FROM decisions ORDER BY decided_at")]

    def checks(self, job: str) -> dict[str, bool]:
        """Return whether each check of the newest run of a job passed, by its name."""
        (record,) = self.instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
        events = self.instance.all_logs(
            record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
        found = [event.dagster_event.asset_check_evaluation_data for event in events if event.dagster_event]
        return {one.check_name: one.passed for one in found}

    def rejected(self, kind: Kind) -> dict[str, str]:
        folder = self.home.rejected(kind)
        return {path.name: path.read_text() for path in folder.iterdir() if path.name.endswith(".reason.txt")}


@pytest.fixture(scope="session")
def survey_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    write_scenario_data(load_study(), folder, scale=SCALE)
    return folder


@pytest.fixture(scope="module")
def half_survey_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shipped policies are in force on half of the features, for a module; the folder of its data."""
    with half_survey(tmp_path_factory.mktemp("half_survey"), SCALE) as data:
        yield data


@contextmanager
def open_workshop(folder: Path, data: Path) -> Iterator[Workshop]:
    home = new_home(folder)
    with open_instance(home) as instance:
        runner = HeadlessRunner(build_defs(home=home, settle_seconds=0.0), instance, show=lambda report: None)
        yield Workshop(home, instance, runner, data)


@contextmanager
def open_founded(folder: Path, data: Path) -> Iterator[Workshop]:
    """A home of its own whose first champion serves: trained once for all, by the study in force."""
    founded_home(folder, data)
    with open_workshop(folder, data) as opened:
        assert opened.registry.champion().version == 1
        yield opened


@contextmanager
def open_promoted(folder: Path, data: Path) -> Iterator[Workshop]:
    """A home of its own whose second champion serves, since a batch drifted: played once for all."""
    promoted_home(folder, data)
    with open_workshop(folder, data) as opened:
        assert opened.registry.champion().version == 2
        yield opened


@pytest.fixture
def workshop(tmp_path: Path, survey_data: Path) -> Iterator[Workshop]:
    """An empty home."""
    with open_workshop(tmp_path / "home", survey_data) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, survey_data: Path) -> Iterator[Workshop]:
    """A home whose first champion serves; shared by a module, so each test drops files of its own."""
    with open_founded(tmp_path_factory.mktemp("trained") / "home", survey_data) as opened:
        yield opened
