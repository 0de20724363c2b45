"""What MLflow's store and its artifacts leave behind, when a process is killed and when it is not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import mlflow
import pandas as pd
import pytest

from poleng_assets.core.modeling.model import Model
from poleng_assets.defs.resources.mlflow import mlflow_run
from poleng_assets.defs.resources.registry import RunRegistry, mlflow_pages
from poleng_assets.models.artifacts import ModelUnusable
from poleng_assets.models.registry import CHAMPION, HASHES_TAG, LoggedModel, Registry
from poleng_assets.models.repair import restore_experiment
from poleng_assets.models.store import RegistryRefused, RegistryUnusable, create_store
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets_tests.homes import new_home


@pytest.fixture
def registry(home: Home, study: Study) -> Registry:
    return Registry(home, study)


def logged(registry: Registry, rows: pd.DataFrame, folder: Path) -> LoggedModel:
    """Log what a training logs, with an empty model."""
    client = registry._client()
    experiment = client.get_experiment_by_name(registry.model_name)
    run = client.create_run(experiment.experiment_id)
    model = client.create_logged_model(experiment.experiment_id, "served_model")
    folder.mkdir()
    rows.to_parquet(folder / "reference.parquet", index=False)
    client.log_artifact(run.info.run_id, str(folder / "reference.parquet"), "reference")
    return LoggedModel(model.artifact_location, model.model_id, run.info.run_id, {"field_studies": "a"})


def test_a_store_that_a_killed_process_began_is_made_anew(home: Home, registry: Registry):
    unborn = 2**22 + 1  # above what Linux gives to a process
    begun = home.root / f".mlflow.db.{unborn}.part"
    begun.write_bytes(b"half of a database")
    begun.with_name(f"{begun.name}-journal").write_bytes(b"half of a journal")
    assert registry.versions() == []
    assert not begun.exists()
    assert [path.name for path in home.root.glob("*mlflow*")] == ["mlflow.db"]


def test_a_store_that_another_process_is_making_is_left_alone(home: Home, registry: Registry):
    begun = home.root / f".mlflow.db.{os.getppid()}.part"
    begun.write_bytes(b"half of a database")
    assert registry.versions() == []
    assert begun.exists()


@pytest.fixture
def locked(home: Home, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection that keeps a store locked which this process has not opened yet."""
    create_store(tmp_path / "made.db")
    shutil.copy2(tmp_path / "made.db", home.root / "mlflow.db")
    other = sqlite3.connect(home.root / "mlflow.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    yield other
    other.close()


def test_a_home_that_was_copied_does_not_work_in_the_folders_of_the_other(
    home: Home, registry: Registry, tmp_path: Path
):
    assert registry.versions() == []
    copy = Home(Path(shutil.copytree(home.root, tmp_path / "copy")))
    with pytest.raises(
        RegistryUnusable, match="was moved or copied: by MLflow's store its models are in"
    ) as raised:
        Registry(copy, registry.study).versions()
    assert str(home.artifacts.resolve()) in str(raised.value)
    assert "poleng restore" in str(raised.value)


def test_a_home_that_is_reached_by_another_way_is_the_same(home: Home, registry: Registry, tmp_path: Path):
    assert registry.versions() == []
    (tmp_path / "way").symlink_to(home.root)
    assert Registry(Home(tmp_path / "way"), registry.study).versions() == []


def test_a_locked_store_is_waited_for(registry: Registry, locked: sqlite3.Connection):
    # Longer than SQLite itself waits.
    timer = threading.Timer(6.0, locked.rollback)
    timer.start()
    assert registry.alias("champion") is None
    timer.join()


def test_a_store_that_stays_locked_is_named_with_what_to_do(
    home: Home, registry: Registry, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("poleng_assets.models.store.OPENING_SECONDS", 1.0)
    with pytest.raises(RegistryUnusable, match="is locked by another process") as caught:
        registry.alias("champion")
    assert str(home.root / "mlflow.db") in str(caught.value)
    locked.rollback()
    assert registry.alias("champion") is None


def test_a_version_exists_with_all_its_tags_or_not_at_all(registry: Registry, tmp_path: Path):
    made = logged(registry, pd.DataFrame({"score": [0.5]}), tmp_path / "training")
    assert registry.versions() == []
    assert registry.next_version() == 1
    version = registry.register(made, search="1234", mode="quick")
    assert version.version == 1
    assert registry.version_of_search("1234", "quick") == registry.version(1)
    assert registry.version_of_search("1234", "full") is None
    assert registry.version(1).tags == {"field_studies": "a", "search": "1234", "mode": "quick"}
    assert registry.next_version() == 2


def test_reading_a_reference_leaves_no_copy_of_people_among_temporary_files(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = pd.DataFrame({"score": [0.25, 0.75]})
    made = registry.register(logged(registry, rows, tmp_path / "training"), "1234", "quick")
    outside = tmp_path / "temporary"
    outside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(outside))
    pd.testing.assert_frame_equal(registry.reference(made), rows)
    assert list(outside.rglob("*.parquet")) == []


def test_the_run_of_a_version_is_finished_although_it_was_killed(registry: Registry, tmp_path: Path):
    made = registry.register(logged(registry, pd.DataFrame({"score": [0.5]}), tmp_path / "a"), "1", "quick")
    client = registry._client()
    client.set_terminated(made.run_id, "KILLED")
    registry.finish_run(made)
    ended = client.get_run(made.run_id).info
    assert ended.status == "FINISHED"
    registry.finish_run(made)
    assert client.get_run(made.run_id).info.end_time == ended.end_time


@pytest.fixture
def made(home: Home, registry: Registry, model: Model, reference: pd.DataFrame) -> LoggedModel:
    """A whole model, logged with all that belongs to it."""
    told = {name: 1.0 / place for place, name in enumerate(model.encoder.features, 1)}
    experiment = registry._client().get_experiment_by_name(registry.model_name)
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        return registry.log_model(
            mlflow, model, reference, told, home.tuning / "a", parameters={}, metrics={}, tags={}
        )


def test_what_moves_the_scores_is_kept_with_a_version(
    home: Home, registry: Registry, made: LoggedModel, model: Model
):
    version = registry.register(made, "1", "quick")
    expected = {name: 1.0 / place for place, name in enumerate(model.encoder.features, 1)}
    assert registry.importance(version) == expected
    (kept,) = home.artifacts.rglob("importance.json")
    kept.write_text("{")
    with pytest.raises(ModelUnusable, match="the files of version 1 cannot be used"):
        registry.importance(version)
    kept.unlink()
    with pytest.raises(ModelUnusable, match=r"importance\.json is missing"):
        registry.importance(version)


@pytest.mark.parametrize("name", ["importance.json", "reference.parquet"])
def test_a_change_that_can_still_be_read_is_noticed_and_named(
    home: Home, registry: Registry, made: LoggedModel, reference: pd.DataFrame, name: str
):
    version = registry.register(made, "1", "quick")
    assert registry.validation_error(version) == ""
    (kept,) = home.artifacts.rglob(name)
    content = kept.read_bytes()
    if name == "importance.json":
        kept.write_bytes(content.replace(b"1.0", b"9.0", 1))
    else:
        reference.iloc[1:].to_parquet(kept, index=False)
    changed = f"version 1 cannot be used: {kept} differs from the registered file"
    assert changed in registry.validation_error(version)
    kept.write_bytes(content)
    assert registry.validation_error(version) == ""


def test_a_reference_that_is_rewritten_is_whole_at_every_moment(
    home: Home, registry: Registry, made: LoggedModel, reference: pd.DataFrame
):
    version = registry.register(made, "1", "quick")
    (kept,) = home.artifacts.rglob("reference.parquet")
    before, fresh = kept.read_bytes(), kept.with_name("fresh")
    reference.iloc[1:].to_parquet(fresh, index=False)
    after = fresh.read_bytes()
    with registry.rewriting_reference(version.run_id, kept, fresh):
        assert registry.validation_error(version) == ""
        fresh.replace(kept)
        assert registry.validation_error(version) == ""
    assert registry.validation_error(version) == ""
    assert len(registry.reference(version)) == len(reference) - 1
    kept.write_bytes(before)
    assert "differs from the registered file" in registry.validation_error(version)
    # What is damaged is not made good by being rewritten.
    fresh.write_bytes(after[:-1] + b"?")
    with registry.rewriting_reference(version.run_id, kept, fresh):
        fresh.replace(kept)
    assert "differs from the registered file" in registry.validation_error(version)


def test_a_killed_rewriting_leaves_a_reference_that_is_whole(
    home: Home, registry: Registry, made: LoggedModel, reference: pd.DataFrame
):
    version = registry.register(made, "1", "quick")
    registry._client().delete_model_version(
        registry.model_name, "1"
    )  # by hand: its files are used all the same
    (kept,) = home.artifacts.rglob("reference.parquet")
    fresh = kept.with_name("fresh")
    reference.iloc[1:].to_parquet(fresh, index=False)
    for replaced in (False, True):
        with pytest.raises(KeyboardInterrupt), registry.rewriting_reference(version.run_id, kept, fresh):
            if replaced:
                fresh.replace(kept)
            raise KeyboardInterrupt
        assert registry.validation_error(version) == ""
    assert len(registry.reference(version)) == len(reference) - 1


def registered(registry: Registry, folder: Path, versions: int) -> Any:
    """Register versions as trainings do; return a client such as MLflow's UI works with."""
    for number in range(1, versions + 1):
        rows = pd.DataFrame({"score": [number / 10]})
        registry.register(logged(registry, rows, folder / f"training{number}"), f"{number}", "quick")
    return registry._client()


@pytest.fixture
def ready(tmp_path: Path, study: Study) -> Registry:
    """A registry with the tables of its store, in a home in which nothing has happened."""
    return Registry(new_home(tmp_path / "home"), study)


def appoint(con: duckdb.DuckDBPyConnection, registry: Registry, number: int) -> None:
    registry.set_alias(CHAMPION, number)
    record_decision(
        con,
        "promote",
        "better",
        evidence={"champion_before": None},
        champion_version=number,
        challenger_version=number,
    )


def delete_version(client: Any, name: str) -> None:
    client.delete_model_version(name, "2")


def delete_model(client: Any, name: str) -> None:
    client.delete_registered_model(name)


def rename_model(client: Any, name: str) -> None:
    client.rename_registered_model(name, "renamed")


def delete_alias(client: Any, name: str) -> None:
    client.delete_registered_model_alias(name, CHAMPION)


def delete_run_and_experiment(client: Any, name: str) -> None:
    client.delete_run(client.get_model_version(name, "2").run_id)
    client.delete_experiment(client.get_experiment_by_name(name).experiment_id)


def rename_experiment(client: Any, name: str) -> None:
    client.rename_experiment(client.get_experiment_by_name(name).experiment_id, "renamed")


def edit_tags(client: Any, name: str) -> None:
    client.set_model_version_tag(name, "2", "field_studies", "another")
    client.set_model_version_tag(name, "2", HASHES_TAG, "edited")
    client.delete_model_version_tag(name, "2", "search")
    client.update_model_version(name, "2", description="edited")


BY_HAND = [
    delete_version,
    delete_model,
    rename_model,
    delete_alias,
    delete_run_and_experiment,
    rename_experiment,
    edit_tags,
]


@pytest.mark.parametrize("by_hand", BY_HAND)
def test_what_is_done_in_mlflow_by_hand_keeps_no_version_from_serving_and_is_mended(
    ready: Registry, con: duckdb.DuckDBPyConnection, tmp_path: Path, by_hand: Callable[[Any, str], None]
):
    client, name = registered(ready, tmp_path, 3), ready.model_name
    appoint(con, ready, 2)
    before = ready.version(2)
    by_hand(client, name)
    said: list[str] = []
    serving = ready.serving(con, said.append)
    assert serving == before
    assert ready.reference(before)["score"].tolist() == [0.2]
    assert mlflow_pages(ready, before)
    ready.finish_run(before)
    ready.require_serving_version(con)
    assert [version.version for version in ready.versions()] == [1, 2, 3]
    assert client.get_model_version_by_alias(name, CHAMPION).run_id == before.run_id
    # No number is given again; the next training restores the experiment.
    restore_experiment(client, name)
    rows = pd.DataFrame({"score": [0.9]})
    assert ready.register(logged(ready, rows, tmp_path / "next"), "4", "quick").version == 4


def test_a_version_that_is_gone_with_what_is_kept_of_it_is_told_with_what_to_do(
    ready: Registry, con: duckdb.DuckDBPyConnection, tmp_path: Path
):
    client = registered(ready, tmp_path, 1)
    appoint(con, ready, 1)
    client.delete_model_version(ready.model_name, "1")
    (ready.home.artifacts / "versions" / "1.json").unlink()
    with pytest.raises(RegistryRefused, match="version 1 serves, but the registry has no such version"):
        ready.serving(con, print)
    in_a_run = RunRegistry(ready.home, ready.study)
    with pytest.raises(dg.Failure, match="version 1 serves, but the registry has no such version") as ended:
        in_a_run.serving(con, print)
    assert ended.value.allow_retries is False


def test_numbers_of_versions_of_which_nothing_is_kept_are_not_given_again(ready: Registry, tmp_path: Path):
    client = registered(ready, tmp_path, 3)
    (ready.home.artifacts / "versions" / "1.json").unlink()
    client.delete_registered_model(ready.model_name)
    ready.set_alias(CHAMPION, 3)
    assert [version.version for version in ready.versions()] == [2, 3]
    assert ready.next_version() == 4


def test_a_version_that_a_killed_training_did_not_write_down_is_kept_when_it_serves(
    ready: Registry, con: duckdb.DuckDBPyConnection, tmp_path: Path
):
    client = registered(ready, tmp_path, 1)
    appoint(con, ready, 1)
    kept = ready.home.artifacts / "versions" / "1.json"
    content = json.loads(kept.read_text())
    kept.unlink()
    assert ready.version(1).kept is None
    assert ready.serving(con, print) == ready.version(1)
    assert json.loads(kept.read_text()) == content
    client.delete_registered_model(ready.model_name)
    assert ready.serving(con, print) is not None


def test_a_damaged_file_of_a_version_is_named(ready: Registry, tmp_path: Path):
    registered(ready, tmp_path, 1)
    kept = ready.home.artifacts / "versions" / "1.json"
    kept.write_text("{")
    with pytest.raises(RegistryUnusable, match="is damaged") as raised:
        ready.version(1)
    assert str(kept) in str(raised.value)


def test_a_script_that_mlflow_would_run_is_compared_with_what_was_registered(
    home: Home, registry: Registry, made: LoggedModel
):
    version = registry.register(made, "1", "quick")
    for name in ("mlflow_model.py", "MLmodel"):
        assert name in json.loads(version.tags[HASHES_TAG])
        (kept,) = home.artifacts.rglob(name)
        content = kept.read_text()
        kept.write_text(f"{content}\n# print('stranger')\n")
        assert f"{kept} differs from the registered file" in registry.validation_error(version)
        kept.unlink()
        assert f"{kept} is missing" in registry.validation_error(version)
        kept.write_text(content)
        assert registry.validation_error(version) == ""
    registry._client().delete_model_version(registry.model_name, "1")
    assert registry.validation_error(version) == ""


def test_mlflow_s_variables_of_a_shell_do_not_reach_a_training_and_are_put_back(
    ready: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    foreign = f"sqlite:///{tmp_path / 'foreign.db'}"
    shell = {
        "MLFLOW_RUN_ID": "0" * 32,
        "MLFLOW_EXPERIMENT_ID": "77",
        "MLFLOW_EXPERIMENT_NAME": "foreign",
        "MLFLOW_TRACKING_URI": foreign,
        "MLFLOW_REGISTRY_URI": foreign,
        "MLFLOW_ACTIVE_MODEL_ID": "m-1",
    }
    home, name = ready.home, ready.model_name
    client = ready._client()
    client.delete_experiment(client.get_experiment_by_name(name).experiment_id)
    for variable, value in shell.items():
        monkeypatch.setenv(variable, value)

    @dg.op(required_resource_keys={"mlflow"})
    def train(context) -> str:  # Dagster reads no annotations that are text
        run = context.resources.mlflow.active_run()
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        with ready.training_run(context.resources.mlflow):
            context.resources.mlflow.log_metric("auc", 0.7)
        return str(run.info.run_id)

    settings = {
        "experiment_name": name,
        "mlflow_tracking_uri": home.mlflow_uri,
        "artifact_location": home.artifacts.as_uri(),
    }

    @dg.job(resource_defs={"mlflow": mlflow_run.configured(settings)})
    def training() -> None:
        train()

    run = client.get_run(training.execute_in_process().output_for_node("train"))
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"auc": 0.7})
    assert run.info.experiment_id == client.get_experiment_by_name(name).experiment_id
    assert {variable: os.environ[variable] for variable in shell} == shell
    assert not (tmp_path / "foreign.db").exists()


def test_a_run_that_is_deleted_while_it_is_trained_is_told_in_words(ready: Registry):
    client = ready._client()
    experiment = client.get_experiment_by_name(ready.model_name).experiment_id
    run = mlflow.start_run(experiment_id=experiment)
    with (
        pytest.raises(dg.Failure, match="cannot be logged in MLflow") as told,
        RunRegistry(ready.home, ready.study).training_run(mlflow),
    ):
        client.delete_run(run.info.run_id)
        mlflow.log_metric("auc", 0.7)
    assert "`poleng retrain`" in str(told.value.description)
    assert "\n" not in str(told.value.description)
    assert mlflow.active_run() is None
