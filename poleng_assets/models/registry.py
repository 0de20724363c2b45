"""The model registry: MLflow versions, their aliases and their files.

dagster-mlflow opens the MLflow run and links it to the Dagster run; this module logs to it and ends it.
MLflow is imported when it is first used, because that takes seconds.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.library_versions import library_version
from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.models import artifacts, store, version_files
from poleng_assets.models.repair import RegistryLost, RegistryRepair, has_run
from poleng_assets.storage.dropped_files import content_hash, hash_files
from poleng_assets.storage.files import sync_folder, sync_tree
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets.text.plain_text import first_line
from poleng_assets.warehouse.decisions import ServingDecision, serving_decision

if TYPE_CHECKING:
    import pandas as pd

    from poleng_assets.core.modeling.model import Model

CHAMPION = "champion"
CHALLENGER = "challenger"
RUN_TAG = "dagster_run_id"
SEARCH_TAG = "search"
MODE_TAG = "mode"
HASHES_TAG = "model_files_sha256"
# The valid hashes of each file of the reference: two while it is rewritten, one otherwise.
REFERENCE_HASHES_TAG = "reference_files_sha256"
REQUIREMENTS = ("poleng_assets", "mlflow", "pandas", "pyarrow", "scikit-learn", "scipy", "skops", "xgboost")


@dataclass(frozen=True)
class ModelVersion:
    """One registered version; assets pass it on instead of a model object.

    Attributes:
        run_id: of the MLflow run that trained it.
        tags: as registered.
        kept: its version file; None until it is written after the training.
    """

    version: int
    run_id: str
    tags: Mapping[str, str]
    kept: version_files.VersionFile | None = None

    @property
    def field_studies(self) -> list[str]:
        """The field studies that it was trained on."""
        return [name for name in self.tags.get("field_studies", "").split(",") if name]

    @property
    def training_data_hash(self) -> str:
        """The hash of the data that it was trained on."""
        return self.tags.get("training_data_hash", "")


@dataclass(frozen=True)
class LoggedModel:
    """A logged model before its registration: MLflow's URI, model and run, and the tags."""

    uri: str
    model_id: str
    run_id: str
    tags: Mapping[str, str]


def _example_row(study: Study) -> pd.DataFrame:
    """Return an artificial row with the first code of every feature."""
    import pandas as pd

    codes = {feature.name: min(feature.codes) for feature in study.features}
    return pd.DataFrame([{name: codes[name] for name in study.feature_names}])


def _signature(model: Model) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    return ModelSignature(
        # Any type: a survey code may be a number or text, the encoder reads both.
        inputs=Schema([ColSpec(AnyType(), name) for name in model.encoder.features]),
        outputs=Schema([ColSpec(DataType.double, "score"), ColSpec(DataType.boolean, "contact")]),
    )


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
        """Return the version of an alias, None if there is no such alias.

        Raises:
            RegistryUnusable: another process has the store locked.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            version = self._client().get_model_version_by_alias(self.model_name, alias)
        except MlflowException as error:
            if store.is_locked(error):
                raise store.locked_error(self.home) from error
            absent = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
            if error.error_code not in absent:
                raise
            return None
        return self._known(int(version.version)) or _of_mlflow(version)

    def serving(self, con: Connection, say: Callable[[str], None]) -> ModelVersion | None:
        """Return the version that serves by registry and ledger, None if there is none yet.

        An alias that is missing or still points to the previous version is corrected to the ledger's version:
        a run may have crashed between its decision and the update. A version deleted or renamed in MLflow
        still serves if its files are kept, and is restored if possible.

        Args:
            say: called with a message if the alias was corrected.

        Raises:
            RegistryRefused: the alias points to a version that is not in the ledger, or the ledger's version
                is unknown; an empty ledger has none.
        """
        version, decision = self.alias(CHAMPION), serving_decision(con)
        conflict = registry_conflict(decision, version.version if version else None)
        if not conflict:
            return self._keep(version) if version else None
        if decision is None or (version is not None and version.version != decision.before):
            raise store.RegistryRefused(f"Not done: {conflict}.")
        version_of_ledger = self._version_of_decision(decision)
        if lost := self.appoint(decision.version):
            say(f"Version {decision.version} still serves from its files, as decided in the ledger. {lost}")
        else:
            say(f"The alias 'champion' is corrected to version {decision.version}: {conflict}")
        return self._keep(version_of_ledger)

    def appoint(self, version: int) -> str:
        """Point ``champion`` to the version of the ledger; return the reason if that is impossible.

        The ledger decides, and the version serves from its files, whatever the state of MLflow's store.

        Raises:
            RegistryUnusable: another process has the store locked.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.set_alias(CHAMPION, version)
        except RegistryLost as error:
            return str(error)
        except MlflowException as error:
            if store.is_locked(error):
                raise store.locked_error(self.home) from error
            return f"MLflow cannot be repaired: {first_line(error)}"
        return ""

    def require_serving_version(self, con: Connection) -> None:
        """Check that the version of the ledger is registered; repair a deletion or a rename.

        A new registry would number versions from 1 again, and the ledger would refer to other versions by the
        same numbers.

        Raises:
            RegistryRefused: it is not and cannot be registered; the message says what to do.
        """
        for version in self.versions():
            self._keep(version)
        if decision := serving_decision(con):
            self._version_of_decision(decision)
            try:
                with store.refusals_of_mlflow("What was deleted or renamed in MLflow cannot be restored"):
                    self._repair().version(decision.version)
                    if self.alias(CHAMPION) is None:
                        self.set_alias(CHAMPION, decision.version)
            except RegistryLost as error:
                raise store.RegistryRefused(
                    f"The ledger says that version {decision.version} serves, but the registry has no such "
                    f"version. {error}"
                ) from error

    def _repair(self) -> RegistryRepair:
        return RegistryRepair(self._client(), self.home, self.model_name, self.study.title)

    def _known(self, number: int) -> ModelVersion | None:
        try:
            kept = version_files.read_version_file(self.home.artifacts, number)
        except ValueError as error:
            raise store.RegistryUnusable(str(error)) from error
        return ModelVersion(number, kept.run_id, kept.tags, kept) if kept else None

    def _keep(self, version: ModelVersion) -> ModelVersion:
        """Write the version file, which is needed without MLflow, if a killed training has not.

        Nothing is written for a deleted or missing version: the use of its files raises the error.
        """
        from mlflow.exceptions import MlflowException

        if version.kept is not None:
            return version
        try:
            client = self._client()
            run = client.get_run(version.run_id).info
            model_id = client.get_model_version(self.model_name, str(version.version)).model_id or ""
            served = client.get_model_version_download_uri(self.model_name, str(version.version))
            root = store.folder_of(self.home.artifacts.as_uri())
            model, reference = (
                str(store.folder_of(uri).relative_to(root))
                for uri in (served, f"{run.artifact_uri}/reference")
            )
        except (MlflowException, ValueError):
            return version
        kept = version_files.VersionFile(
            version.version, version.run_id, run.experiment_id, model_id, model, reference, dict(version.tags)
        )
        version_files.write_version_file(self.home.artifacts, kept)
        return replace(version, kept=kept)

    def _version_of_decision(self, decision: ServingDecision) -> ModelVersion:
        try:
            return self.version(decision.version)
        except LookupError as error:
            raise store.RegistryRefused(
                f"The ledger says that version {decision.version} serves, but the registry has no such "
                f"version. Was {self.home.mlflow_store} deleted? Restore it from a backup "
                "(`poleng restore`)."
            ) from error

    def champion(self) -> ModelVersion:
        """Return the champion of the registry.

        Raises:
            RegistryRefused: there is none yet.
        """
        version = self.alias(CHAMPION)
        if version is None:
            raise store.RegistryRefused(
                "No model serves yet. Submit a field study to landing/field_studies, and run this again when "
                "a model was trained on it and promoted."
            )
        return version

    def versions(self) -> list[ModelVersion]:
        """Return every version that is registered or has a version file, oldest first."""
        shown = self._client().search_model_versions(f"name = '{self.model_name}'")
        registered = {int(version.version): _of_mlflow(version) for version in shown}
        try:
            files = version_files.read_version_files(self.home.artifacts)
        except ValueError as error:
            raise store.RegistryUnusable(str(error)) from error
        # A tag or a version may have been edited or deleted in MLflow: the version file takes precedence.
        kept = {number: ModelVersion(number, file.run_id, file.tags, file) for number, file in files.items()}
        return [version for _, version in sorted({**registered, **kept}.items())]

    def version(self, number: int) -> ModelVersion:
        """Return one version; raises ``LookupError`` if it is not registered."""
        for version in self.versions():
            if version.version == number:
                return version
        raise LookupError(f"{self.model_name} has no version {number} in {self.home.mlflow_uri}")

    def experiment_of(self, version: ModelVersion) -> str:
        """Return the id of the MLflow experiment of a version."""
        if version.kept:
            return version.kept.experiment_id
        return str(self._client().get_run(version.run_id).info.experiment_id)

    def version_of_search(self, search: str, mode: str) -> ModelVersion | None:
        """Return the newest version from this search, None if there is none."""
        wanted = {SEARCH_TAG: search, MODE_TAG: mode}
        for version in self.versions()[::-1]:
            if wanted.items() <= version.tags.items():
                return version if self._repair().is_registered(version.version) else None
        return None

    def next_version(self) -> int:
        """Return the number of the next version, unless the newest was deleted by hand."""
        return max((version.version for version in self.versions()), default=0) + 1

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias to a version, atomically.

        Raises:
            RegistryLost: the version is not registered and cannot be restored.
        """
        self._repair().version(version)
        self._client().set_registered_model_alias(self.model_name, alias, str(version))

    def model(self, version: ModelVersion) -> Model:
        """Load the model of a version, from the files that MLflow serves.

        Raises:
            ModelUnusable: a file is missing, changed or broken, or the study has other features than at
                its training.
        """
        with artifacts.unusable_when_broken(version.version):
            folder = self.model_folder(version)
            artifacts.compare_hashes(folder, json.loads(version.tags.get(HASHES_TAG, "{}")))
            model = artifacts.load_model(folder)
        learned, asked = set(model.encoder.features), set(self.study.feature_names)
        if learned != asked:
            raise artifacts.ModelUnusable(
                f"version {version.version} was trained with another study: with "
                f"{', '.join(sorted(learned - asked)) or 'nothing'} that the study no longer has, "
                f"without {', '.join(sorted(asked - learned)) or 'nothing'} that it has now. Train a model "
                "with the current study (`poleng retrain`), or undo the change of the study"
            )
        return model

    def validation_error(self, version: ModelVersion) -> str:
        """Return why a version cannot be used, empty if it can."""
        try:
            self.model(version)
            self.reference(version)
            if self.reference_hashes(version).get(artifacts.IMPORTANCE):
                self.importance(version)
        except artifacts.ModelUnusable as error:
            return str(error)
        return ""

    def reference(self, version: ModelVersion) -> pd.DataFrame:
        """Return the version's reference: held-out rows with its out-of-sample scores.

        Raises:
            ModelUnusable: it is missing, changed or broken.
        """
        import pandas as pd

        with artifacts.unusable_when_broken(version.version):
            return pd.read_parquet(io.BytesIO(self._content(version, artifacts.REFERENCE)))

    def importance(self, version: ModelVersion) -> Mapping[str, float]:
        """Return the feature importance of a version, in log-odds; raises as :meth:`model`."""
        with artifacts.unusable_when_broken(version.version):
            importance: dict[str, float] = json.loads(self._content(version, artifacts.IMPORTANCE))
        return importance

    @contextmanager
    def rewriting_reference(self, run_id: str, path: Path, fresh: Path) -> Iterator[None]:
        """Allow a reference to be replaced inside the block; it is valid before, during and after it.

        Both hashes are valid from before the first write until after the last: a killed process leaves one of
        them. Earlier damage is still detected, because it has neither hash.

        Args:
            run_id: of the versions with this reference.
            fresh: the new content, moved there in the block.
        """
        client, repair, name = self._client(), self._repair(), path.name
        of_run = [version for version in self.versions() if version.run_id == run_id]
        before, after = content_hash(path), content_hash(fresh)

        def allow(version: ModelVersion, hashes: list[str]) -> None:
            tag = json.dumps({**self.reference_hashes(version), name: hashes}, sort_keys=True)
            if kept := version_files.read_version_file(self.home.artifacts, version.version):
                version_files.write_tag(self.home.artifacts, kept, REFERENCE_HASHES_TAG, tag)
            if repair.is_registered(version.version):
                client.set_model_version_tag(self.model_name, str(version.version), REFERENCE_HASHES_TAG, tag)

        intact = [version for version in of_run if before in self.reference_hashes(version).get(name, ())]
        for version in intact:
            allow(version, [before, after])
        yield
        for version in intact:
            allow(version, [after])

    def reference_hashes(self, version: ModelVersion) -> dict[str, list[str]]:
        """Return the valid hashes of each file of the reference."""
        kept = version_files.read_version_file(self.home.artifacts, version.version)
        hashes: dict[str, list[str]] = json.loads((kept or version).tags.get(REFERENCE_HASHES_TAG, "{}"))
        return hashes

    def model_folder(self, version: ModelVersion) -> Path:
        """Return the folder of a model's own files; raises ``ValueError`` if it is unknown."""
        return self.home.artifacts / self._known_files(version).model / "artifacts" / "model"

    def _content(self, version: ModelVersion, name: str) -> bytes:
        """Return a file of the reference; raises ``ValueError`` if it differs from the registered one."""
        path = self.home.artifacts / self._known_files(version).reference / name
        return artifacts.read_compared(path, self.reference_hashes(version).get(name))

    def _known_files(self, version: ModelVersion) -> version_files.VersionFile:
        kept = self._keep(version).kept
        if kept is None:
            raise ValueError("its training was killed before they were recorded, and its run was deleted")
        return kept

    @contextmanager
    def training_run(self, mlflow: Any) -> Iterator[Any]:
        """Yield the MLflow run of dagster-mlflow, and end it: FINISHED, or FAILED on error.

        Otherwise the run stays RUNNING after a failed step or a materialisation by hand.

        Raises:
            RegistryRefused: MLflow raised an error, for example because the run was deleted meanwhile.
        """
        from mlflow.exceptions import MlflowException

        try:
            with store.refusals_of_mlflow("The training cannot be logged in MLflow"):
                yield mlflow.active_run()
        except BaseException:
            with suppress(MlflowException):  # the run is deleted: the first error says so
                mlflow.end_run("FAILED")
            raise
        mlflow.end_run("FINISHED")

    def log_model(
        self,
        mlflow: Any,
        model: Model,
        reference: pd.DataFrame,
        importance: Mapping[str, float],
        folder: Path,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> LoggedModel:
        """Log a model with its reference in the active run; :meth:`register` makes it a version.

        Args:
            mlflow: dagster-mlflow's resource, with its run active.
            reference: held-out rows with features, target, ``score`` and ``contact``.
            importance: of each feature, in log-odds.
            folder: in the home, emptied before and removed afterwards, for the files to log. They contain
                personal data, which a killed process must not leave elsewhere.
            tags: of the run and the version, including ``field_studies`` and ``training_data_hash``.
        """
        run = mlflow.active_run()
        mlflow.log_params(dict(parameters))
        mlflow.log_metrics(dict(metrics))
        mlflow.set_tags(dict(tags))
        with artifacts.emptied(folder):
            reference_hashes = artifacts.write_files(folder, model, reference, importance)
            hashes = hash_files(folder / "model")
            for name in reference_hashes:
                mlflow.log_artifact(str(folder / name), "reference")
            with artifacts.nothing_compiled():
                logged = mlflow.pyfunc.log_model(
                    name="served_model",
                    python_model=str(folder / artifacts.SERVED_MODEL.name),
                    artifacts={"model": str(folder / "model")},
                    signature=_signature(model),
                    input_example=_example_row(self.study),
                    pip_requirements=[f"{name}=={library_version(name)}" for name in REQUIREMENTS],
                )
        location = store.folder_of(self._client().get_logged_model(logged.model_id).artifact_location)
        hashes |= {name: content_hash(location / name) for name in artifacts.EXECUTED}
        all_tags = {
            **tags,
            HASHES_TAG: json.dumps(hashes, sort_keys=True),
            REFERENCE_HASHES_TAG: json.dumps(reference_hashes),
        }
        return LoggedModel(logged.model_uri, logged.model_id, run.info.run_id, all_tags)

    def register(self, logged: LoggedModel, search: str, mode: str) -> ModelVersion:
        """Register a logged model as a version with all its tags, in one transaction of the store.

        To be called last: an existing version is complete, and a killed training leaves none.

        Args:
            search: of the model, for :meth:`version_of_search`.
        """
        client = self._client()
        # MLflow syncs only its store: after a power cut the store could refer to empty files.
        of_run = client.get_run(logged.run_id).info.artifact_uri
        for uri in (client.get_logged_model(logged.model_id).artifact_location, of_run):
            sync_tree(store.folder_of(uri))
        sync_folder(self.home.artifacts)
        self._repair().registered_model()
        made = client.create_model_version(
            self.model_name,
            logged.uri,
            run_id=logged.run_id,
            tags={**logged.tags, SEARCH_TAG: search, MODE_TAG: mode},
            model_id=logged.model_id,
        )
        return self._keep(ModelVersion(int(made.version), logged.run_id, made.tags))

    def finish_run(self, version: ModelVersion) -> None:
        """Mark the run of a version as finished, if it was killed after the registration."""
        client = self._client()
        # A run that was deleted in MLflow is not changed.
        info = client.get_run(version.run_id).info if has_run(client, version.run_id) else None
        if info is not None and info.lifecycle_stage == "active" and info.status != "FINISHED":
            client.set_terminated(version.run_id, "FINISHED")

    def log_trial(
        self,
        mlflow: Any,
        name: str,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Log one tuning trial as a nested run of the active one."""
        with mlflow.start_run(run_name=name, nested=True, tags=dict(tags)):
            mlflow.log_params(dict(parameters))
            mlflow.log_metrics(dict(metrics))

    def log_page(self, mlflow: Any, page: Path, folder: str) -> None:
        """Log a page as an artifact of the active run."""
        mlflow.log_artifact(str(page), folder)

    def delete_searches(self, but: str = "") -> None:
        """Delete the state of all searches but one: the others are for older data."""
        for folder in self.home.tuning.iterdir():
            if folder.is_dir() and folder.name != but:
                shutil.rmtree(folder)

    def end_abandoned_runs(self, alive: Callable[[], set[str]]) -> int:
        """Mark the MLflow runs without a live Dagster run as KILLED; return their number.

        The live runs are read after the list of runs: a run that starts in between is not in the list.
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
        return store.open_store(self.home, self.model_name)


def _of_mlflow(version: Any) -> ModelVersion:
    return ModelVersion(int(version.version), version.run_id, version.tags)
