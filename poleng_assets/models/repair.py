"""What is undone of what people did in MLflow's UI: versions that were deleted, models that were renamed.

The ledger says which version serves, and its files lie in the home: a version can be used without MLflow
(``models/version_files.py``). What belongs here makes MLflow show again what is so, at the next training or
when an alias has to be put back.
"""

from dataclasses import dataclass
from typing import Any

from poleng_assets.models.version_files import VersionFile, read_version_files
from poleng_assets.storage.home import Home
from poleng_assets.text.markdown import escaped
from poleng_assets.warehouse.mlflow_store import undelete_version


class RegistryLost(RuntimeError):
    """What was done in MLflow cannot be undone; the message says why, and what to do."""


@dataclass(frozen=True)
class RegistryRepair:
    """Repairs one registered model of the store of a home.

    Attributes:
        home: whose version files say what there was.
        model: name of the registered model.
        title: that describes it.
    """

    client: Any
    home: Home
    model: str
    title: str

    def version(self, number: int) -> None:
        """See that a version is registered. Nothing is done when it is.

        Raises:
            RegistryLost: it cannot be, because the store is another one, or nothing of the version is kept.
        """
        if self.is_registered(number):
            return
        self.registered_model()
        if self.is_registered(number):
            return
        kept = read_version_files(self.home.artifacts).get(number)
        if kept is None:
            raise RegistryLost(f"Version {number} was deleted in MLflow, and nothing of it is kept")
        store = self.home.mlflow_store
        if not undelete_version(store, self.model, number, kept.run_id, self._source(kept)):
            raise RegistryLost(
                f"Version {number} is not in {store}. Put the store back from a backup (`poleng restore`)."
            )

    def registered_model(self) -> None:
        """See that the registered model is there, with the numbers of its versions.

        One that was renamed gets its name back. One that was deleted is made again with its versions, so that
        none is counted anew: the ledger speaks of them by their numbers.

        Raises:
            RegistryLost: the store is another one than the versions were registered in.
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
                f"Was {self.home.mlflow_store} removed? Put it back from a backup (`poleng restore`)."
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
            if kept is None:  # it had a number, which is not given again
                self.client.delete_model_version(self.model, made.version)

    def is_registered(self, number: int) -> bool:
        """Whether MLflow shows a version."""
        versions = self.client.search_model_versions(f"name = '{self.model}'")
        return any(int(version.version) == number for version in versions)

    def _source(self, kept: VersionFile) -> str:
        return (self.home.artifacts / kept.model).as_uri()


def has_run(client: Any, run_id: str) -> bool:
    """Whether the store knows a run; one that was deleted, but not for ever (``mlflow gc``), is known."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException:
        return False
    return True


def restore_experiment(client: Any, name: str) -> None:
    """Take back that an experiment was deleted, with the runs that went with it: MLflow starts none in it."""
    known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
