"""The model registry: MLflow versions, their aliases, and what is kept with each version.

dagster-mlflow opens the MLflow run and links it to the Dagster run; what is logged in it, and how it
ends, stands here. MLflow is imported when it is first needed: it costs seconds.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pandas as pd

from poleng_assets.core.model import Model
from poleng_assets.home import Home
from poleng_assets.study import Study, load_study

CHAMPION = "champion"
CHALLENGER = "challenger"
RUN_TAG = "dagster_run_id"
SEARCH_TAG = "search"
MODE_TAG = "mode"
EXPLAINED_ROWS = 300
SERVED_MODEL = Path(__file__).parent.parent / "core" / "served_model.py"
REQUIREMENTS = ("poleng_assets", "mlflow", "pandas", "pyarrow", "scikit-learn", "scipy", "skops", "xgboost")


@dataclass(frozen=True)
class ModelVersion:
    """One registered version; it travels between assets instead of a model object."""

    version: int
    run_id: str
    tags: Mapping[str, str]

    @property
    def field_studies(self) -> list[str]:
        """The field studies that it was trained on."""
        return [name for name in self.tags.get("field_studies", "").split(",") if name]

    @property
    def training_data_hash(self) -> str:
        """The hash of the data that it was trained on."""
        return self.tags.get("training_data_hash", "")


def _invented_person(study: Study) -> pd.DataFrame:
    """Return one row that is nobody's: the first code of every feature."""
    codes = {feature.name: min(feature.codes) for feature in study.features}
    return pd.DataFrame([{name: codes[name] for name in study.feature_names}])


@dataclass(frozen=True)
class Registry:
    """Reads and writes the versions of the study's one registered model."""

    home: Home
    study: Study

    @property
    def model_name(self) -> str:
        """The name of the registered model."""
        return self.study.name

    def alias(self, alias: str) -> ModelVersion | None:
        """Return the version that an alias points to, None when there is no such alias."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            found = self._client().get_model_version_by_alias(self.model_name, alias)
        except MlflowException as error:
            absent = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
            if error.error_code not in absent:
                raise
            return None
        return ModelVersion(int(found.version), found.run_id, found.tags)

    def champion(self) -> ModelVersion:
        """Return the version that serves.

        Raises:
            dagster.Failure: there is none yet.
        """
        version = self.alias(CHAMPION)
        if version is None:
            raise dg.Failure(
                "No model serves yet. Drop a field study into landing/field_studies; when a model has "
                "been trained from it and has passed its gates, run this again.",
                allow_retries=False,
            )
        return version

    def versions(self) -> list[ModelVersion]:
        """Return every version, oldest first."""
        found = self._client().search_model_versions(f"name = '{self.model_name}'")
        return sorted(
            (ModelVersion(int(v.version), v.run_id, v.tags) for v in found), key=lambda v: v.version
        )

    def version(self, number: int) -> ModelVersion:
        """Return one version; raises ``LookupError`` when it is not registered."""
        found = next((one for one in self.versions() if one.version == number), None)
        if found is None:
            raise LookupError(f"{self.model_name} has no version {number} in {self.home.mlflow_uri}")
        return found

    def made_by(self, search: str, mode: str) -> ModelVersion | None:
        """Return the newest complete version that this search ended in, None when there is none."""
        wanted = {SEARCH_TAG: search, MODE_TAG: mode}
        return next((one for one in self.versions()[::-1] if wanted.items() <= one.tags.items()), None)

    def complete(self, version: ModelVersion, search: str, mode: str) -> None:
        """Mark a version as whole: all that belongs to it is kept."""
        for tag, value in ((MODE_TAG, mode), (SEARCH_TAG, search)):
            self._client().set_model_version_tag(self.model_name, str(version.version), tag, value)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias to a version: one row of the store, so it moves whole or not at all."""
        self._client().set_registered_model_alias(self.model_name, alias, str(version))

    def model(self, version: ModelVersion) -> Model:
        """Load the model of a version: the very files that MLflow serves."""
        return _load(self._model_folder(version))

    def reference(self, version: ModelVersion) -> pd.DataFrame:
        """Return the version's reference: held-out rows with its out-of-sample scores."""
        return pd.read_parquet(self._reference_file(version))

    def importance(self, version: ModelVersion) -> Mapping[str, float]:
        """Return how much each feature moves the version's scores, in log-odds."""
        return _importance(self._model_folder(version), self._reference_file(version))

    def _model_folder(self, version: ModelVersion) -> Path:
        served = f"models:/{self.model_name}/{version.version}"
        return _artifacts(served, self.home.mlflow_uri, version.run_id) / "artifacts" / "model"

    def _reference_file(self, version: ModelVersion) -> Path:
        uri = f"runs:/{version.run_id}/reference"
        return _artifacts(uri, self.home.mlflow_uri, version.run_id) / "reference.parquet"

    @contextmanager
    def training_run(self, mlflow: Any) -> Iterator[Any]:
        """Use the MLflow run that dagster-mlflow opened, and end it: FINISHED, or FAILED on error.

        Left alone, such a run stays RUNNING after a failed step or a materialisation by hand.
        """
        try:
            yield mlflow.active_run()
        except BaseException:
            mlflow.end_run("FAILED")
            raise
        mlflow.end_run("FINISHED")

    def log_version(
        self,
        mlflow: Any,
        model: Model,
        reference: pd.DataFrame,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> ModelVersion:
        """Log a model with its reference in the active run, and register it.

        Args:
            mlflow: dagster-mlflow's resource, with its run active.
            model: what was trained.
            reference: held-out rows with features, target, ``score`` and ``contact``.
            parameters: of the training.
            metrics: of the model.
            tags: kept with the version; ``field_studies`` and ``training_data_hash`` among them.
        """
        from mlflow.models import ModelSignature
        from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

        signature = ModelSignature(
            # Any type: a survey code may come as a number or as text, the encoder reads both.
            inputs=Schema([ColSpec(AnyType(), name) for name in model.encoder.features]),
            outputs=Schema([ColSpec(DataType.double, "score"), ColSpec(DataType.boolean, "contact")]),
        )
        run = mlflow.active_run()
        mlflow.log_params(dict(parameters))
        mlflow.log_metrics(dict(metrics))
        mlflow.set_tags(dict(tags))
        with TemporaryDirectory() as folder:
            model.save(Path(folder) / "model")
            reference.to_parquet(Path(folder) / "reference.parquet", index=False)
            mlflow.log_artifact(str(Path(folder) / "reference.parquet"), "reference")
            logged = mlflow.pyfunc.log_model(
                name="served_model",
                python_model=str(SERVED_MODEL),
                artifacts={"model": str(Path(folder) / "model")},
                signature=signature,
                input_example=_invented_person(self.study),
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS],
            )
        return self._register(logged.model_uri, logged.model_id, run.info.run_id, tags)

    def log_trial(
        self,
        mlflow: Any,
        name: str,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Log one trial of tuning as a run of its own, nested in the active one."""
        with mlflow.start_run(run_name=name, nested=True, tags=dict(tags)):
            mlflow.log_params(dict(parameters))
            mlflow.log_metrics(dict(metrics))

    def log_page(self, mlflow: Any, page: Path, folder: str) -> None:
        """Keep a page as an artifact of the active run."""
        mlflow.log_artifact(str(page), folder)

    def forget_searches(self, but: str = "") -> None:
        """Remove what searches have left, but for one: field data only grow, the others are over."""
        for folder in self.home.tuning.iterdir():
            if folder.is_dir() and folder.name != but:
                shutil.rmtree(folder)

    def _register(self, source: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        client = self._client()
        if not client.search_registered_models(f"name = '{self.model_name}'"):
            client.create_registered_model(self.model_name, description=self.study.title)
        made = client.create_model_version(
            self.model_name, source, run_id=run_id, tags=dict(tags), model_id=model_id
        )
        return ModelVersion(int(made.version), run_id, made.tags)

    def end_abandoned_runs(self, alive: Callable[[], set[str]]) -> int:
        """Mark as KILLED the MLflow runs whose Dagster run is not alive; return how many.

        Who is alive is asked after the runs are listed: one that starts in between is not among them.
        """
        client = self._client()
        experiment = client.get_experiment_by_name(self.model_name)
        if experiment is None:
            return 0
        running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
        living = alive()
        abandoned = [run for run in running if run.data.tags.get(RUN_TAG) not in living]
        for run in abandoned:
            client.set_terminated(run.info.run_id, "KILLED")
        return len(abandoned)

    def _client(self) -> Any:
        return _client(self.home.mlflow_uri, self.model_name, self.home.artifacts.as_uri())


@lru_cache(maxsize=16)
def _artifacts(uri: str, store: str, run_id: str) -> Path:
    """Return where artifacts lie: what a run has logged never changes, a version's number may come again."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(uri, tracking_uri=store))


@lru_cache(maxsize=2)
def _load(folder: Path) -> Model:
    """Read a model once for all assets of a run; MLflow never uses the name of a folder again."""
    return Model.load(folder)


@lru_cache(maxsize=2)
def _importance(folder: Path, reference: Path) -> Mapping[str, float]:
    """Explain some rows of the reference; the mean settles long before all of them."""
    rows = pd.read_parquet(reference)
    return _load(folder).importance(rows.sample(min(EXPLAINED_ROWS, len(rows)), random_state=1))


def _client(uri: str, experiment: str, artifacts: str) -> Any:
    """Return a client of the store, with the experiment made on first use.

    Made by us, because MLflow would put its artifacts into the working folder.
    """
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    if client.get_experiment_by_name(experiment) is None:
        client.create_experiment(experiment, artifact_location=artifacts)
    return client


class RegistryResource(dg.ConfigurableResource[Registry]):
    """The model registry of the home folder."""

    root: str

    def create_resource(self, context: dg.InitResourceContext) -> Registry:
        """Return the plain registry that assets and the command line use alike."""
        return Registry(Home(Path(self.root)), load_study())


@dg.resource(
    config_schema={"experiment_name": str, "mlflow_tracking_uri": str, "artifact_location": str},
    description="dagster-mlflow's resource: an MLflow run linked to the Dagster run by its id.",
)
def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
    """Hand out dagster-mlflow's resource, imported late because it loads MLflow.

    A step that ran to its end has closed its MLflow run itself; one that is still active here
    belongs to a step that failed before it got there.
    """
    from dagster_mlflow import mlflow_tracking

    settings = context.resource_config
    _client(settings["mlflow_tracking_uri"], settings["experiment_name"], settings["artifact_location"])
    yield from mlflow_tracking.resource_fn(context)
    import mlflow

    if mlflow.active_run() is not None:
        mlflow.end_run("FAILED")
