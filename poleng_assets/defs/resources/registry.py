"""The model registry as a resource of Dagster; what it does is in ``models/registry.py``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.models.mlflow_links import run_page, version_page
from poleng_assets.models.registry import ModelVersion, Registry
from poleng_assets.models.store import RegistryRefused
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import StudySource, open_home


class RunRegistry(Registry):
    """The registry as runs use it: what it refuses ends the run in words, and is not tried again."""

    def serving(self, con: Connection, say: Callable[[str], None]) -> ModelVersion | None:
        """Do as the plain registry does; raises ``dagster.Failure``."""
        with refusals_end_the_run():
            return super().serving(con, say)

    def require_serving_version(self, con: Connection) -> None:
        """Do as the plain registry does; raises ``dagster.Failure``."""
        with refusals_end_the_run():
            super().require_serving_version(con)

    def champion(self) -> ModelVersion:
        """Do as the plain registry does; raises ``dagster.Failure``."""
        with refusals_end_the_run():
            return super().champion()

    @contextmanager
    def training_run(self, mlflow: Any) -> Iterator[Any]:
        """Do as the plain registry does; raises ``dagster.Failure``."""
        with refusals_end_the_run(), super().training_run(mlflow) as run:
            yield run


@contextmanager
def refusals_end_the_run() -> Iterator[None]:
    """Let what the registry refuses end a run: it would be refused again."""
    try:
        yield
    except RegistryRefused as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def mlflow_pages(registry: Registry, version: ModelVersion) -> dict[str, dg.MetadataValue]:
    """Return the links to a version and to its training in MLflow's UI, for the metadata of an asset."""
    return {
        "mlflow_version": dg.MetadataValue.url(version_page(registry.model_name, version.version)),
        "mlflow_run": dg.MetadataValue.url(run_page(registry.experiment_of(version), version.run_id)),
    }


def registry_resource(home: Home, study: StudySource) -> dg.ResourceDefinition:
    """Return the resource that gives the registry; the command line uses the plain one."""

    @dg.resource(config_schema={}, description="The model registry of the home folder.")
    def registry(_: dg.InitResourceContext) -> Registry:
        return RunRegistry(home, open_home(home, study))

    return registry
