"""A home whose champion is a blend of all kinds, trained by the graph, and what hangs on it.

The package's fixtures are made once: a test that changes a home takes a copy of it (``copied``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import pytest
import yaml
from starlette.testclient import TestClient

from poleng_assets.core.modeling.model import Model
from poleng_assets.defs.instance import open_instance
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.operations.restore import restore_backup
from poleng_assets.serving.app import build_app
from poleng_assets.serving.champion_watcher import Watch
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets_tests.faults.quick_study import write_quick_study, write_study
from poleng_assets_tests.graph.conftest import open_workshop
from poleng_assets_tests.homes import kept_archive

BATCH = "clean_batch_1"
LATER_BATCH = "drift_batch_1"


@dataclass(frozen=True)
class Served:
    """A home with a champion and scored batches, and the study that it was made by."""

    home: Home
    study: Study
    study_file: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.home, self.study)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with Warehouse(self.home.warehouse, self.study).connect() as con:
            return con.execute(sql, list(values)).fetchall()

    def respondents(self, batch: str = BATCH) -> list[dict[str, Any]]:
        """Return the people of a batch as a caller would send them."""
        names = [self.study.id, *self.study.feature_names]
        columns = ", ".join(f'"{name}"' for name in names)
        rows = self.query(f"SELECT {columns} FROM batch_rows WHERE batch = ? ORDER BY row_number", batch)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def tell(self, version: int) -> None:
        """Let the graph tell that a version serves, as the last step of a promotion."""
        with open_instance(self.home) as instance:
            instance.report_runless_asset_event(
                dg.AssetMaterialization("champion", metadata={"serving_version": version, "promoted": True})
            )

    def decide(self, version: int) -> None:
        """Write into the ledger that a version serves, as the first step of a promotion."""
        with Warehouse(self.home.warehouse, self.study).connect() as con:
            record_decision(
                con,
                "promote",
                "it won",
                evidence={"champion_before": 1},
                champion_version=version,
                challenger_version=version,
            )

    def promote(self, version: int) -> None:
        """Promote a version in the order of the graph: ledger, alias, event."""
        self.decide(version)
        self.registry.set_alias(CHAMPION, version)
        self.tell(version)

    def register(self, model: Model) -> int:
        """Register another version, as a training does; it does not serve yet."""
        import mlflow

        registry, first = self.registry, self.registry.version(1)
        client = registry._client()
        experiment = client.get_experiment_by_name(registry.model_name)
        reference = registry.reference(first)
        with mlflow.start_run(experiment_id=experiment.experiment_id):
            logged = registry.log_model(
                mlflow,
                model,
                reference,
                registry.importance(first),
                self.home.tuning / "another",
                parameters={},
                metrics={"test_auc": 0.75},
                tags={**first.tags, "training_data_hash": "another"},
            )
        return registry.register(logged, "another", "quick").version


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A home whose graph has trained a blend of all three kinds, and has scored two batches with it."""
    folder = tmp_path_factory.mktemp("served")
    path = write_quick_study(folder / "study.yaml", every_feature=True)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["policies"]["training"] |= {
        "candidates": ["xgboost", "logistic", "forest"],
        "max_blended": 3,
        "min_blend_gain": 0.0,
        "quick": {"trials": 4, "minutes": 5},
    }
    write_study(content, path)
    with patch.dict(os.environ, POLENG_STUDY=str(path)):
        study, home = load_study(), Home(folder / "home")
        restore_backup(_served_archive(), home)
        made = Served(home, study, path)
        kinds = {one["kind"] for one in json.loads(made.registry.version(1).tags["recipe"])["ingredients"]}
        assert kinds == {"xgboost", "logistic", "forest"}
        yield made


def _served_archive() -> Path:
    """Let the graph train and score, in one of the workers of a test run."""

    def work(home: Home) -> None:
        data = home.root.parent / "data"
        write_scenario_data(load_study(), data, scale=0.1)
        with open_workshop(home.root, data) as workshop:
            workshop.drop("field_studies", "founding_study")
            workshop.drop("batches", BATCH)
            workshop.drop("batches", LATER_BATCH)

    return kept_archive("founded, and two batches scored", work)


@pytest.fixture
def copied(served: Served, tmp_path: Path) -> Served:
    """A home of its own to change: the served one, restored in another place."""
    home = Home(tmp_path / "home")
    restore_backup(_served_archive(), home)
    return Served(home, served.study, served.study_file)


@pytest.fixture(scope="package")
def watch(served: Served) -> Iterator[Watch]:
    """A watch that has looked once."""
    watch = Watch(served.home, served.study)
    watch.look()
    assert watch.seen.failed == ""
    yield watch
    watch.stop()


Client = Callable[..., TestClient]


@pytest.fixture
def client(served: Served, watch: Watch) -> Client:
    """Make a client of the application in this process."""

    def made(**settings: Any) -> TestClient:
        app = build_app(served.study, lambda: watch.seen, **{"max_rows": 1000, **settings})
        return TestClient(app, raise_server_exceptions=False)

    return made


def ask(client: TestClient, respondents: object, **more: object) -> Mapping[str, Any]:
    answer = client.post("/predict", json={"respondents": respondents, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()
