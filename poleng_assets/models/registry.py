"""The model registry: MLflow versions, their aliases, and what is kept with each version.

dagster-mlflow opens the MLflow run and links it to the Dagster run; what is logged in it, and how it
ends, stands here. MLflow is imported when it is first needed: it costs seconds.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import dagster as dg
import duckdb
import psutil

from poleng_assets.core.data.library_versions import library_version
from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.models.mlflow_links import run_page, version_page
from poleng_assets.models.repair import Mending, RegistryLost, has_run, restore_experiment
from poleng_assets.models.version_files import (
    VersionFile,
    read_version_file,
    read_version_files,
    write_tag,
    write_version_file,
)
from poleng_assets.storage.files import sync_file, sync_folder, sync_tree
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
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
# The hashes that each file of the reference may have: two while it is rewritten, one otherwise.
REFERENCE_HASHES_TAG = "reference_files_sha256"
REFERENCE = "reference.parquet"
IMPORTANCE = "importance.json"
EXPLAINED_ROWS = 300
# As long as MLflow waits for others once the store is open.
OPENING_SECONDS = 20.0
SERVED_MODEL = Path(__file__).parent.parent / "core" / "modeling" / "mlflow_model.py"
# What MLflow runs when it loads a version, and the file that tells it to; the model's own files lie deeper.
EXECUTED = (SERVED_MODEL.name, "MLmodel")
REQUIREMENTS = ("poleng_assets", "mlflow", "pandas", "pyarrow", "scikit-learn", "scipy", "skops", "xgboost")


_CHANGED = "is not what was registered: it was changed or cut off"


class ModelUnusable(RuntimeError):
    """A registered version cannot be used; the message says which, why, and what to do."""


class RegistryUnusable(RuntimeError):
    """MLflow's store cannot be read or written; the message says why, and what to do."""


@dataclass(frozen=True)
class ModelVersion:
    """One registered version; it travels between assets instead of a model object.

    Attributes:
        version: its number.
        run_id: of the MLflow run that trained it.
        tags: as registered.
        kept: what the project itself keeps of it, None for versions of earlier releases.
    """

    version: int
    run_id: str
    tags: Mapping[str, str]
    kept: VersionFile | None = None

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
    """What was logged and is to become a version: MLflow's address, model and run, and the tags."""

    uri: str
    model_id: str
    run_id: str
    tags: Mapping[str, str]


def _invented_person(study: Study) -> pd.DataFrame:
    """Return one row that is nobody's: the first code of every feature."""
    import pandas as pd

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
        """Return the version that an alias points to, None when there is no such alias.

        Raises:
            RegistryUnusable: another process keeps the store locked.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            found = self._client().get_model_version_by_alias(self.model_name, alias)
        except MlflowException as error:
            if _is_locked(error):
                raise RegistryUnusable(self._locked_words()) from error
            absent = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
            if error.error_code not in absent:
                raise
            return None
        return self._known(int(found.version)) or _of_mlflow(found)

    def serving(self, con: duckdb.DuckDBPyConnection, say: Callable[[str], None]) -> ModelVersion | None:
        """Return the version that serves by registry and ledger, None when there is none yet.

        An alias that is gone, or that still points to the version before, is put where the ledger says: a
        run may have died between its decision and the move. What somebody deleted or renamed in MLflow does
        not keep a version from serving whose files are kept; it is put back as far as that can be done.

        Args:
            con: of the warehouse.
            say: told when the alias was put back.

        Raises:
            dagster.Failure: the alias points to a version that the ledger did not appoint, or the version
                that it appointed is not known; an empty ledger appointed none.
        """
        version, told = self.alias(CHAMPION), serving_decision(con)
        words = registry_conflict(told, version.version if version else None)
        if not words:
            return self._keep(version) if version else None
        if told is None or (version is not None and version.version != told.before):
            raise dg.Failure(f"Not done: {words}.", allow_retries=False)
        meant = self._appointed_version(told)
        if lost := self.appoint(told.version):
            say(f"Version {told.version} goes on to serve from its files, as the ledger says. {lost}")
        else:
            say(f"The alias 'champion' is put back to version {told.version}: {words}")
        return self._keep(meant)

    def appoint(self, version: int) -> str:
        """Point ``champion`` to the version that the ledger appointed; return why it cannot be, else nothing.

        The ledger has decided, and the version serves from its files whatever became of MLflow's store.

        Raises:
            RegistryUnusable: another process keeps the store locked.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.set_alias(CHAMPION, version)
        except RegistryLost as error:
            return str(error)
        except MlflowException as error:
            if _is_locked(error):
                raise RegistryUnusable(self._locked_words()) from error
            return f"MLflow cannot be mended: {_first_line(error)}"
        return ""

    def see_that_it_is_whole(self, con: duckdb.DuckDBPyConnection) -> None:
        """See that the version which the ledger appointed is registered; mend what was deleted or renamed.

        In a registry that was made anew, versions would be counted from 1 again, and the ledger would speak
        of others by the same numbers.

        Raises:
            dagster.Failure: it is not, and cannot be; the message says what to do.
        """
        for version in self.versions():
            self._keep(version)
        if told := serving_decision(con):
            self._appointed_version(told)
            try:
                with _told_of_mlflow("What was deleted or renamed in MLflow cannot be put back"):
                    self._mending().version(told.version)
                    if self.alias(CHAMPION) is None:
                        self.set_alias(CHAMPION, told.version)
            except RegistryLost as error:
                raise dg.Failure(
                    f"The ledger says that version {told.version} serves, but the registry has no such "
                    f"version. {error}",
                    allow_retries=False,
                ) from error

    def _mending(self) -> Mending:
        return Mending(self._client(), self.home, self.model_name, self.study.title)

    def _known(self, number: int) -> ModelVersion | None:
        """Return a version by what the project keeps of it, None when it keeps nothing."""
        try:
            kept = read_version_file(self.home.artifacts, number)
        except ValueError as error:
            raise RegistryUnusable(str(error)) from error
        return ModelVersion(number, kept.run_id, kept.tags, kept) if kept else None

    def _keep(self, version: ModelVersion) -> ModelVersion:
        """Write down what is needed to use a version without MLflow: earlier releases have not.

        Of what is deleted or missing already nothing is written: who uses its files says what is wrong.
        """
        from mlflow.exceptions import MlflowException

        if version.kept is not None:
            return version
        try:
            client = self._client()
            run = client.get_run(version.run_id).info
            model_id = client.get_model_version(self.model_name, str(version.version)).model_id or ""
            served = client.get_model_version_download_uri(self.model_name, str(version.version))
            root = _place(self.home.artifacts.as_uri())
            model, reference = (
                str(_place(uri).relative_to(root)) for uri in (served, f"{run.artifact_uri}/reference")
            )
        except (MlflowException, ValueError):
            return version
        kept = VersionFile(
            version.version, version.run_id, run.experiment_id, model_id, model, reference, dict(version.tags)
        )
        write_version_file(self.home.artifacts, kept)
        return replace(version, kept=kept)

    def _appointed_version(self, told: ServingDecision) -> ModelVersion:
        try:
            return self.version(told.version)
        except LookupError as error:
            raise dg.Failure(
                f"The ledger says that version {told.version} serves, but the registry has no such version. "
                f"Was {self.home.root / 'mlflow.db'} removed? Put it back from a backup (`poleng restore`).",
                allow_retries=False,
            ) from error

    def champion(self) -> ModelVersion:
        """Return the version that serves by the registry.

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
        """Return every version that is registered or kept, oldest first."""
        found = self._client().search_model_versions(f"name = '{self.model_name}'")
        registered = {int(one.version): _of_mlflow(one) for one in found}
        try:
            files = read_version_files(self.home.artifacts)
        except ValueError as error:
            raise RegistryUnusable(str(error)) from error
        # A tag or a version may have been edited or deleted in MLflow: what is kept counts.
        kept = {number: ModelVersion(number, one.run_id, one.tags, one) for number, one in files.items()}
        return [version for _, version in sorted({**registered, **kept}.items())]

    def version(self, number: int) -> ModelVersion:
        """Return one version; raises ``LookupError`` when it is not registered."""
        found = next((one for one in self.versions() if one.version == number), None)
        if found is None:
            raise LookupError(f"{self.model_name} has no version {number} in {self.home.mlflow_uri}")
        return found

    def pages(self, version: ModelVersion) -> dict[str, dg.MetadataValue]:
        """Return the links to a version and to its training in MLflow's UI, for the metadata of an asset."""
        kept = version.kept
        experiment = kept.experiment_id if kept else self._client().get_run(version.run_id).info.experiment_id
        return {
            "mlflow_version": dg.MetadataValue.url(version_page(self.model_name, version.version)),
            "mlflow_run": dg.MetadataValue.url(run_page(experiment, version.run_id)),
        }

    def made_by(self, search: str, mode: str) -> ModelVersion | None:
        """Return the newest version that this search ended in, None when there is none."""
        wanted = {SEARCH_TAG: search, MODE_TAG: mode}
        made = next((one for one in self.versions()[::-1] if wanted.items() <= one.tags.items()), None)
        return made if made and self._mending().is_registered(made.version) else None

    def next_version(self) -> int:
        """Return the number that the next version will get, unless somebody deleted the newest by hand."""
        return max((one.version for one in self.versions()), default=0) + 1

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias to a version: one row of the store, so it moves whole or not at all.

        Raises:
            RegistryLost: the version is not registered, and cannot be again.
        """
        self._mending().version(version)
        self._client().set_registered_model_alias(self.model_name, alias, str(version))

    def model(self, version: ModelVersion) -> Model:
        """Load the model of a version: the very files that MLflow serves.

        Raises:
            ModelUnusable: a file of it is missing, changed or broken, or the study has other features
                than the one it was trained by.
        """
        with _told_of(version):
            folder = self._model_folder(version)
            _compare_hashes(folder, version)
            model = _load(folder)
        learned, asked = set(model.encoder.features), set(self.study.feature_names)
        if learned != asked:
            raise ModelUnusable(
                f"version {version.version} was trained by another study: with "
                f"{', '.join(sorted(learned - asked)) or 'nothing'} that the study does not have any more, "
                f"without {', '.join(sorted(asked - learned)) or 'nothing'} that it has now. Train a model "
                "by the study of now (`poleng retrain`), or undo the change of the study"
            )
        return model

    def fault(self, version: ModelVersion) -> str:
        """Return why a version cannot be used, empty when it can."""
        try:
            self.model(version)
            self.reference(version)
            if self._may_be(version).get(IMPORTANCE):
                self.importance(version)
        except ModelUnusable as error:
            return str(error)
        return ""

    def reference(self, version: ModelVersion) -> pd.DataFrame:
        """Return the version's reference: held-out rows with its out-of-sample scores.

        Raises:
            ModelUnusable: it is missing, changed or broken.
        """
        import pandas as pd

        with _told_of(version):
            return pd.read_parquet(io.BytesIO(self._content(version, REFERENCE)))

    def importance(self, version: ModelVersion) -> Mapping[str, float]:
        """Return how much each feature moves the version's scores, in log-odds; raises as :meth:`model`."""
        with _told_of(version), suppress(FileNotFoundError):
            found: dict[str, float] = json.loads(self._content(version, IMPORTANCE))
            return found
        # Earlier releases did not keep it, and said nothing of it.
        self.model(version)
        return _importance(self._model_folder(version), self._reference_folder(version) / REFERENCE)

    @contextmanager
    def rewriting_reference(self, run_id: str, path: Path, fresh: Path) -> Iterator[None]:
        """Let a reference be replaced by other content inside the block; it is whole before, in and after it.

        Both contents are good from before the first write to after the last: a process that is killed in
        between leaves one of them. What was damaged before stays noticed: its hash is not that of any.

        Args:
            run_id: of the versions whose reference it is.
            path: of the reference.
            fresh: what is put in its place, in the block.
        """
        client, mending, name = self._client(), self._mending(), path.name
        of_run = [version for version in self.versions() if version.run_id == run_id]
        before, after = _hash(path), _hash(fresh)

        def allow(version: ModelVersion, hashes: list[str]) -> None:
            told = json.dumps({**self._may_be(version), name: hashes}, sort_keys=True)
            if kept := read_version_file(self.home.artifacts, version.version):
                write_tag(self.home.artifacts, kept, REFERENCE_HASHES_TAG, told)
            if mending.is_registered(version.version):
                client.set_model_version_tag(
                    self.model_name, str(version.version), REFERENCE_HASHES_TAG, told
                )

        whole = [version for version in of_run if before in self._may_be(version).get(name, ())]
        for version in whole:
            allow(version, [before, after])
        yield
        for version in whole:
            allow(version, [after])

    def _may_be(self, version: ModelVersion) -> dict[str, list[str]]:
        """Return the hashes that each file of the reference may have now; none for earlier releases."""
        if kept := read_version_file(self.home.artifacts, version.version):
            tags = kept.tags
        else:
            tags = self._client().get_model_version(self.model_name, str(version.version)).tags
        found: dict[str, list[str]] = json.loads(tags.get(REFERENCE_HASHES_TAG, "{}"))
        return found

    def _content(self, version: ModelVersion, name: str) -> bytes:
        """Return a file of the reference; raises ``ValueError`` when it is not what was registered."""
        path, may_be = self._reference_folder(version) / name, self._may_be(version).get(name)
        if may_be and not path.exists():
            raise ValueError(f"{path} is missing")
        content = path.read_bytes()
        if may_be and hashlib.sha256(content).hexdigest() not in may_be:
            raise ValueError(f"{path} {_CHANGED}")
        return content

    def _model_folder(self, version: ModelVersion) -> Path:
        if version.kept:
            return self.home.artifacts / version.kept.model / "artifacts" / "model"
        self._client()  # so that no other registry is asked
        served = f"models:/{self.model_name}/{version.version}"
        return _artifacts(served, self.home.mlflow_uri, version.run_id) / "artifacts" / "model"

    def _reference_folder(self, version: ModelVersion) -> Path:
        if version.kept:
            return self.home.artifacts / version.kept.reference
        # Not by runs:/, of which MLflow leaves a copy in the folder of temporary files: rows of people.
        place = self._client().get_run(version.run_id).info.artifact_uri
        return _artifacts(f"{place}/reference", self.home.mlflow_uri, version.run_id)

    @contextmanager
    def training_run(self, mlflow: Any) -> Iterator[Any]:
        """Use the MLflow run that dagster-mlflow opened, and end it: FINISHED, or FAILED on error.

        Left alone, such a run stays RUNNING after a failed step or a materialisation by hand.

        Raises:
            dagster.Failure: MLflow refused, as when somebody deleted the run meanwhile.
        """
        from mlflow.exceptions import MlflowException

        try:
            with _told_of_mlflow("The training cannot be written down in MLflow"):
                yield mlflow.active_run()
        except BaseException:
            with suppress(MlflowException):  # the run is deleted: what was raised says so
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
        """Log a model with its reference in the active run; it is no version yet, see :meth:`register`.

        Args:
            mlflow: dagster-mlflow's resource, with its run active.
            model: what was trained.
            reference: held-out rows with features, target, ``score`` and ``contact``.
            importance: how much each feature moves its scores, in log-odds.
            folder: of the home, emptied before and removed afterwards: what is logged is written there
                first. It holds rows of people, and a killed process would leave them behind elsewhere.
            parameters: of the training.
            metrics: of the model.
            tags: kept with run and version; ``field_studies`` and ``training_data_hash`` among them.
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
        with _emptied(folder):
            model.save(folder / "model")
            # MLflow copies files with their rights; those of the checkout are others' too.
            script = Path(shutil.copyfile(SERVED_MODEL, folder / SERVED_MODEL.name))
            hashes = _hashes(folder / "model")
            reference.to_parquet(folder / REFERENCE, index=False)
            (folder / IMPORTANCE).write_text(json.dumps(dict(importance)), encoding="utf-8")
            of_reference = {name: [_hash(folder / name)] for name in (IMPORTANCE, REFERENCE)}
            for name in of_reference:
                mlflow.log_artifact(str(folder / name), "reference")
            with _nothing_compiled():
                logged = mlflow.pyfunc.log_model(
                    name="served_model",
                    python_model=str(script),
                    artifacts={"model": str(folder / "model")},
                    signature=signature,
                    input_example=_invented_person(self.study),
                    pip_requirements=[f"{name}=={library_version(name)}" for name in REQUIREMENTS],
                )
        place = _place(self._client().get_logged_model(logged.model_id).artifact_location)
        hashes |= {name: _hash(place / name) for name in EXECUTED}
        kept = {
            **tags,
            HASHES_TAG: json.dumps(hashes, sort_keys=True),
            REFERENCE_HASHES_TAG: json.dumps(of_reference),
        }
        return LoggedModel(logged.model_uri, logged.model_id, run.info.run_id, kept)

    def register(self, logged: LoggedModel, search: str, mode: str) -> ModelVersion:
        """Make a version of a logged model, in one transaction of the store with all of its tags.

        To be called last: a version that exists is whole, and a killed training leaves none behind.

        Args:
            logged: by :meth:`log_model`.
            search: that the model came from, for :meth:`made_by`.
            mode: of that search.
        """
        client = self._client()
        # MLflow waits for no disk. Its store does: after a power cut it would name files that are empty.
        of_run = client.get_run(logged.run_id).info.artifact_uri
        for uri in (client.get_logged_model(logged.model_id).artifact_location, of_run):
            sync_tree(_place(uri))
        sync_folder(self.home.artifacts)
        self._mending().registered_model()
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
        # One that was deleted in MLflow stays as it is.
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

    def _locked_words(self) -> str:
        return (
            f"the model registry {self.home.root / 'mlflow.db'} is locked by another process. Close what has "
            "it open (an SQLite shell, MLflow's UI) and run this again; nothing was lost"
        )

    def _client(self) -> Any:
        """Return a client of the store; a process that opens it waits as long as MLflow waits later on."""
        from sqlalchemy.exc import OperationalError

        give_up = time.monotonic() + OPENING_SECONDS
        while True:
            try:
                return _client(self.home.mlflow_uri, self.model_name, self.home.artifacts.as_uri())
            except OperationalError as error:
                if not _is_locked(error):
                    raise
                if time.monotonic() > give_up:
                    raise RegistryUnusable(self._locked_words()) from error
                # SQLite waits itself, but not for one that cleans up after a killed process.
                time.sleep(0.2)


def _of_mlflow(found: Any) -> ModelVersion:
    return ModelVersion(int(found.version), found.run_id, found.tags)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_locked(error: Exception) -> bool:
    return "database is locked" in str(error)


@contextmanager
def _told_of(version: ModelVersion) -> Iterator[None]:
    """Say of which version a file is missing or broken, and what to do."""
    try:
        yield
    except Exception as error:
        # MLflow, Arrow, XGBoost, skops and JSON: each has its own way to say that a file is no good.
        if _is_locked(error):
            raise
        raise ModelUnusable(
            f"the files of version {version.version} cannot be used: "
            f"{_first_line(error)}. Let an earlier version serve "
            "(`poleng rollback`), train anew (`poleng retrain`), or restore a backup (`poleng restore`)"
        ) from error


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its place in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _hash(path) for path in files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare_hashes(folder: Path, version: ModelVersion) -> None:
    """Raise ``ValueError`` when the files are not those that were registered.

    Versions of earlier releases have no hashes, or none of the script: of them only what cannot be read is
    noticed.
    """
    registered: dict[str, str] = json.loads(version.tags.get(HASHES_TAG, "{}"))
    for name, digest in registered.items():
        path = (folder.parent.parent if name in EXECUTED else folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        if _hash(path) != digest:
            raise ValueError(f"{path} {_CHANGED}")


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """Make a folder that is empty, whatever a killed process left in it, and remove it in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Let Python keep no compiled files: MLflow tries the script out where it keeps the model.

    The file would be part of the model, name a temporary folder, and differ from time to time.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@lru_cache(maxsize=16)
def _artifacts(uri: str, store: str, run_id: str) -> Path:
    """Return where artifacts lie: what a run has logged never changes, a version's number may come again."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(uri, tracking_uri=store))


@lru_cache(maxsize=2)
def _load(folder: Path) -> Model:
    """Read a model once for all assets of a run; MLflow never uses the name of a folder again."""
    from poleng_assets.core.modeling.model import Model

    return Model.load(folder)


@lru_cache(maxsize=2)
def _importance(folder: Path, reference: Path) -> Mapping[str, float]:
    """Explain some rows of the reference; the mean settles long before all of them."""
    import pandas as pd

    rows = pd.read_parquet(reference)
    return _load(folder).importance(rows.sample(min(EXPLAINED_ROWS, len(rows)), random_state=1))


def _client(uri: str, experiment: str, artifacts: str) -> Any:
    """Return a client of the store, with the experiment made on first use.

    Made by us, because MLflow would put its artifacts into the working folder.

    Raises:
        RegistryUnusable: the store is of a home that stood elsewhere: it would be read and written there.
    """
    import mlflow

    create_store(Path(uri.removeprefix("sqlite:///")))
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        client.create_experiment(experiment, artifact_location=artifacts)
    elif _place(known.artifact_location) != _place(artifacts):
        raise RegistryUnusable(
            f"this home was moved or copied: its models lie in {_place(known.artifact_location)} by MLflow's "
            f"store, not in {_place(artifacts)}. Put it back where it was. To have it here, make a backup "
            "there (`poleng backup`) and restore that here (`poleng restore`)"
        )
    return client


def _place(uri: str) -> Path:
    """Return the folder that a ``file:`` address names, by whichever way it is reached."""
    return Path(url2pathname(urlparse(uri).path)).resolve()


def create_store(path: Path) -> None:
    """Make MLflow's database whole or not at all, when there is none.

    MLflow makes its tables in some forty steps. A process that is killed between two of them would leave a
    database that no later one can open.
    """
    for left in path.parent.glob(f".{path.name}.*.part*"):  # SQLite's journal beside it, too
        if not psutil.pid_exists(int(left.name.partition(".part")[0].rpartition(".")[2])):
            left.unlink(missing_ok=True)
    if path.exists():
        return
    import mlflow

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    mlflow.MlflowClient(f"sqlite:///{part}", f"sqlite:///{part}").search_experiments()
    try:
        sync_file(part)
        os.link(part, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass  # another process was first; its tables are the same
    finally:
        part.unlink()


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
    experiment = settings["experiment_name"]
    with _settings_of_the_shell_left_out():
        with _told_of_mlflow(f"The training cannot be written down in MLflow's experiment {experiment!r}"):
            client = _client(settings["mlflow_tracking_uri"], experiment, settings["artifact_location"])
            restore_experiment(client, experiment)
            opened = mlflow_tracking.resource_fn(context)
            run = next(opened)
        yield run
        next(opened, None)
        import mlflow

        if mlflow.active_run() is not None:
            mlflow.end_run("FAILED")


@contextmanager
def _settings_of_the_shell_left_out() -> Iterator[None]:
    """Keep MLflow's variables of whoever started this process out of a training, and put them back.

    ``MLFLOW_RUN_ID`` would write it into another run, ``MLFLOW_EXPERIMENT_ID`` into another experiment;
    https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html names some
    hundred of them. The home says all that a training needs.
    """

    def taken_out() -> dict[str, str]:
        settings = [name for name in os.environ if name.startswith(_OF_MLFLOW) and name not in _OUR_OWN]
        return {name: os.environ.pop(name) for name in settings}

    before = taken_out()
    try:
        yield
    finally:
        taken_out()  # MLflow sets some itself
        os.environ.update(before)


_OF_MLFLOW = ("MLFLOW_", "_MLFLOW_")
# Set by this package when it is imported: no telemetry, no noise.
_OUR_OWN = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "MLFLOW_LOGGING_LEVEL")


@contextmanager
def _told_of_mlflow(what: str) -> Iterator[None]:
    """Say in words what MLflow refuses to do, and what to do about it.

    Raises:
        dagster.Failure: MLflow raised an error; nothing of the training is registered.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if _is_locked(error):
            raise
        raise dg.Failure(
            f"{what}: {_first_line(error)}. Was something deleted, restored or renamed in MLflow's UI "
            "(`poleng mlflow`) meanwhile? Batches are scored as before; nothing of this training is "
            "registered. Train again: `poleng retrain`",
            allow_retries=False,
        ) from error
