"""What many tests stand on: the shipped study, synthetic respondents, a small model, a home to write in.

Session fixtures are shared: a test that wants to change a frame takes ``.copy()`` or ``.assign()``.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.execution import compute_logs
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from pydantic import BaseModel

from poleng_assets.core.modeling import batch_scoring
from poleng_assets.core.modeling.batch_scoring import score_blocks
from poleng_assets.core.modeling.model import Model, train
from poleng_assets.simulation.population import synthesise
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.predictions import count_scored, last_row, people_between, replace_predictions
from poleng_assets.warehouse.writes import transaction
from poleng_assets_tests import homes


def with_policies(study: Study, **changes: dict[str, Any]) -> Study:
    """Return the study with other policies, as in ``with_policies(study, overseer={"min_rows": 50})``."""
    return study.model_copy(update={"policies": _changed(study.policies, changes)})


def _changed(part: BaseModel, changes: dict[str, Any]) -> BaseModel:
    """Return a part of a study with other fields; of fields that are parts themselves, only what is named."""
    update = {}
    for name, value in changes.items():
        inner = getattr(part, name)
        update[name] = (
            _changed(inner, value) if isinstance(inner, BaseModel) and isinstance(value, dict) else value
        )
    return part.model_copy(update=update)


def as_table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def scored_by(model: Model, people: pd.DataFrame) -> pd.DataFrame:
    """Return the people with ``score`` and ``contact`` (0/1), as reference and batch frames have them."""
    score = model.score(people)
    return people.assign(score=score, contact=model.rule.decide(score).astype(int))


def table_counts(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Count the rows of every table there is."""
    tables = con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    return {name: con.table(name).count("*").fetchall()[0][0] for (name,) in tables}


def pytest_configure() -> None:
    """Give the workers of this run one folder for the homes that tests begin with, and rarer collections.

    All tests and the libraries that they load are millions of objects that live as long as the worker:
    looking for garbage among them at every 700th new object is a tenth of all work.
    """
    os.environ[homes.SHARED] = str(homes.kept_folder())
    gc.set_threshold(5_000, 20, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes: of several workers, none is left with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _nobody_is_told() -> None:
    """Tests play stories; who is told of real ones must not hear of them."""
    os.environ.pop("POLENG_NOTIFY", None)


@pytest.fixture(scope="session", autouse=True)
def _dagster_keeps_its_engines() -> Iterator[None]:
    """Dagster makes an SQLAlchemy engine for every access to its databases, and each compiles all SQL anew.

    That is a fifth of what a story in process takes. An engine by address holds no connection (Dagster asks
    for ``NullPool``), so what is opened, written and closed stays the same.
    """

    @cache
    def engine_of(address: str, **arguments: int) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, connect_args=arguments)

    def create_engine(
        address: str, *, poolclass: type[sqlalchemy.Pool], connect_args: dict[str, int] | None = None
    ) -> sqlalchemy.Engine:
        assert poolclass is sqlalchemy.NullPool
        return engine_of(address, **(connect_args or {}))

    with pytest.MonkeyPatch.context() as patch:
        for storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(storage, "create_engine", create_engine)
        yield


@pytest.fixture(scope="session", autouse=True)
def _alembic_reads_its_scripts_once() -> Iterator[None]:
    """Dagster asks for the newest revision of a run's log three times a run, MLflow at each new store.

    Alembic loads every revision there is to tell, which is as much work as to make the tables. They do not
    change while tests run.
    """
    read = ScriptDirectory.from_config
    kept: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in kept:
            kept[place] = read(config)
        return kept[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", staticmethod(from_config))
        yield


@pytest.fixture(scope="session", autouse=True)
def _what_runs_print_is_kept_and_not_shown() -> Iterator[None]:
    """Dagster starts four processes a run that copy what is printed to the terminal as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute_logs, "tail_to_stream", lambda path, stream: nullcontext((None, None)))
        yield


@pytest.fixture(scope="session")
def study() -> Study:
    """The study as it ships."""
    return load_study()


@pytest.fixture(scope="session")
def quick_study(study: Study) -> Study:
    """The shipped study, trained in few rounds."""
    return with_policies(study, training={"xgboost": {"rounds": 40, "learning_rate": 0.2}})


@pytest.fixture(scope="session")
def people(study: Study) -> pd.DataFrame:
    """4,500 labelled respondents of the founding population."""
    return synthesise(study, rows=4_500, seed=11, part="clean")


@pytest.fixture(scope="session")
def newcomers(study: Study) -> pd.DataFrame:
    """600 labelled respondents of countries that the founding population does not have."""
    return synthesise(study, rows=600, seed=12, part="drift")


@pytest.fixture(scope="session")
def training_rows(people: pd.DataFrame) -> pa.Table:
    return as_table(people.iloc[:3_000])


@pytest.fixture(scope="session")
def model(training_rows: pa.Table, quick_study: Study) -> Model:
    """A small model, trained on the first 3,000 people."""
    return train(training_rows, quick_study)


@pytest.fixture(scope="session")
def reference(model: Model, people: pd.DataFrame, study: Study) -> pd.DataFrame:
    """1,500 people whom the model did not learn from, with its scores: what batches are held against."""
    held_out = people.iloc[3_000:].reset_index(drop=True)
    return scored_by(model, held_out).drop(columns=study.id)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home folder of its own."""
    return Home(tmp_path / "home").create()


@pytest.fixture
def warehouse(home: Home, study: Study) -> Warehouse:
    return Warehouse(home.warehouse, study, patience_seconds=1.0)


@pytest.fixture
def con(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a real DuckDB file with all tables."""
    with warehouse.connect() as connection:
        yield connection


def score_batch(
    con: duckdb.DuckDBPyConnection, model: Model, study: Study, batch: str, version: int
) -> tuple[int, int]:
    """Score a batch, and return its respondents and contacts."""
    size = batch_scoring.BLOCK_ROWS
    blocks = (
        people_between(con, study, batch, first, first + size)
        for first in range(0, last_row(con, batch) + 1, size)
    )
    scores = score_blocks(blocks, model, study)
    with transaction(con):
        replace_predictions(con, study, batch, version, scores, model.rule.capacity)
    return count_scored(con, batch, version)
