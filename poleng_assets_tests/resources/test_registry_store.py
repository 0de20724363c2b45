"""What MLflow's store and its artifacts leave behind, when a process is killed and when it is not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from poleng_assets.core.model import Model
from poleng_assets.home import Home
from poleng_assets.resources.registry import EXPLAINED_ROWS, LoggedModel, ModelUnusable, Registry
from poleng_assets.study import Study


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


def test_a_version_exists_with_all_its_tags_or_not_at_all(registry: Registry, tmp_path: Path):
    made = logged(registry, pd.DataFrame({"score": [0.5]}), tmp_path / "training")
    assert registry.versions() == []
    assert registry.next_version() == 1
    version = registry.register(made, search="1234", mode="quick")
    assert version.version == 1
    assert registry.made_by("1234", "quick") == registry.version(1)
    assert registry.made_by("1234", "full") is None
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


def test_what_moves_the_scores_is_kept_with_a_version_and_measured_where_an_earlier_release_did_not(
    home: Home, registry: Registry, model: Model, reference: pd.DataFrame
):
    told = {name: 1.0 / place for place, name in enumerate(model.encoder.features, 1)}
    experiment = registry._client().get_experiment_by_name(registry.model_name)
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        made = registry.log_model(
            mlflow, model, reference, told, home.tuning / "a", parameters={}, metrics={}, tags={}
        )
    version = registry.register(made, "1", "quick")
    assert registry.importance(version) == told
    (kept,) = home.artifacts.rglob("importance.json")
    kept.write_text("{")
    with pytest.raises(ModelUnusable, match="the files of version 1 cannot be used"):
        registry.importance(version)
    kept.unlink()
    measured = registry.importance(version)
    assert measured == model.importance(reference.sample(EXPLAINED_ROWS, random_state=1))
