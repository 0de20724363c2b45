"""Repair of the MLflow registry after versions were deleted or models renamed in MLflow's UI.

The ledger decides which version serves, and its files are in the home: a version can be used without MLflow
(``models/version_files.py``). The repair runs at the next training, or when an alias is corrected.
"""

from dataclasses import dataclass
from typing import Any

from poleng_assets.models.version_files import VersionFile, read_version_files
from poleng_assets.storage.home import Home
from poleng_assets.text.markdown import escaped
from poleng_assets.warehouse.mlflow_store import undelete_version


class RegistryLost(RuntimeError):
    """A change in MLflow cannot be undone; the message says why and what to do."""


@dataclass(frozen=True)
class RegistryRepair:
    """Repairs one registered model of a home.

    Attributes:
        home: with the version files.
        model: name of the registered model.
        title: its description.
    """

    client: Any
    home: Home
    model: str
    title: str

    def version(self, number: int) -> None:
        """Register a version again if it is missing.

        Raises:
            RegistryLost: the store is another one, or the version has no version file.
        """
        if self.is_registered(number):
            return
        self.registered_model()
        if self.is_registered(number):
            return
        kept = read_version_files(self.home.artifacts).get(number)
        if kept is None:
            raise RegistryLost(f"Version {number} was deleted in MLflow and has no version file")
        store = self.home.mlflow_store
        if not undelete_version(store, self.model, number, kept.run_id, self._source(kept)):
            raise RegistryLost(
                f"Version {number} is not in {store}. Restore the store from a backup (`poleng restore`)."
            )

    def registered_model(self) -> None:
        """Restore the registered model with its version numbers if it is missing.

        A renamed model gets its name back. A deleted model is created again with its versions and their
        numbers, to which the ledger refers.

        Raises:
            RegistryLost: the store is not the one in which the versions were registered.
        """
        if self.client.search_registered_models(f"name = '{self.model}'"):
            return
        files = read_version_files(self.home.artifacts)
        runs = {kept.run_id for kept in files.values()}
        for other in self.client.search_registered_models():
            versions = self.client.search_model_versions(f"name = '{other.name}'")
            if any(version.run_id in runs for version in versions):
                self.client.rename_registered_model(other.name, self.model)
                return
        if files and not any(has_run(self.client, run) for run in runs):
            raise RegistryLost(
                f"Was {self.home.mlflow_store} deleted? Restore it from a backup (`poleng restore`)."
            )
        self.client.create_registered_model(self.model, description=escaped(self.title))
        for number in range(1, max(files, default=0) + 1):
            kept = files.get(number)
            made = self.client.create_model_version(
                self.model,
                self._source(kept) if kept else self.home.artifacts.as_uri(),
                run_id=kept.run_id if kept else None,
                tags=dict(kept.tags) if kept else None,
            )
            if kept is None:  # its number must not be reused
                self.client.delete_model_version(self.model, made.version)

    def is_registered(self, number: int) -> bool:
        """Whether a version is registered in MLflow."""
        versions = self.client.search_model_versions(f"name = '{self.model}'")
        return any(int(version.version) == number for version in versions)

    def _source(self, kept: VersionFile) -> str:
        return (self.home.artifacts / kept.model).as_uri()


def has_run(client: Any, run_id: str) -> bool:
    """Whether the store has a run; a deleted run counts until ``mlflow gc`` removes it."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException:
        return False
    return True


def restore_experiment(client: Any, name: str) -> None:
    """Restore a deleted experiment with its runs, because MLflow starts no run in a deleted one."""
    known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
