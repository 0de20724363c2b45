"""MLflow's store of a home: create it, open it, and explain its errors."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import psutil

from poleng_assets.storage.files import sync_file, sync_folder
from poleng_assets.storage.home import Home
from poleng_assets.text.plain_text import first_line

# The same timeout as that of MLflow after the store is open.
OPENING_SECONDS = 20.0


class RegistryUnusable(RuntimeError):
    """MLflow's store cannot be read or written; the message says why and what to do."""


class RegistryRefused(RuntimeError):
    """The operation is impossible in the current state of the registry; the message says what to do."""


def open_store(home: Home, experiment: str) -> Any:
    """Return a client of a home's store; waits for a lock as long as MLflow does.

    Args:
        home: whose store is opened; a missing store is created.
        experiment: created on first use.

    Raises:
        RegistryUnusable: another process has it locked, or the home was moved.
    """
    from sqlalchemy.exc import OperationalError

    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return open_client(home.mlflow_uri, experiment, home.artifacts.as_uri())
        except OperationalError as error:
            if not is_locked(error):
                raise
            if time.monotonic() > deadline:
                raise locked_error(home) from error
            # SQLite waits itself, but not for a process that recovers from a crash.
            time.sleep(0.2)


def open_client(uri: str, experiment: str, artifacts: str) -> Any:
    """Return a client of the store; the experiment is created on first use.

    Created here, because MLflow would put its artifacts into the working directory.

    Raises:
        RegistryUnusable: the home was moved: the store would be used at the old path.
    """
    import mlflow

    create_store(Path(uri.removeprefix("sqlite:///")))
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        client.create_experiment(experiment, artifact_location=artifacts)
    elif folder_of(known.artifact_location) != folder_of(artifacts):
        raise RegistryUnusable(
            f"this home was moved or copied: by MLflow's store its models are in "
            f"{folder_of(known.artifact_location)}, not in {folder_of(artifacts)}. Move it back. To move it "
            "here, make a backup there (`poleng backup`) and restore it here (`poleng restore`)"
        )
    return client


def folder_of(uri: str) -> Path:
    """Return the resolved folder of a ``file:`` URI."""
    return Path(url2pathname(urlparse(uri).path)).resolve()


def create_store(path: Path) -> None:
    """Create MLflow's database atomically, if there is none.

    MLflow creates its tables in about forty steps. A process that is killed in between would leave a database
    that cannot be opened.
    """
    for leftover in path.parent.glob(f".{path.name}.*.part*"):  # SQLite's journal beside it as well
        if not psutil.pid_exists(int(leftover.name.partition(".part")[0].rpartition(".")[2])):
            leftover.unlink(missing_ok=True)
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


def locked_error(home: Home) -> RegistryUnusable:
    """Return the error for a store that another process has locked."""
    return RegistryUnusable(
        f"the model registry {home.mlflow_store} is locked by another process. Close the "
        "program that uses it (an SQLite shell, MLflow's UI) and run this again; nothing was lost"
    )


def is_locked(error: Exception) -> bool:
    """Whether an error of MLflow or SQLAlchemy means that the store is locked."""
    return "database is locked" in str(error)


@contextmanager
def refusals_of_mlflow(what: str) -> Iterator[None]:
    """Convert an error of MLflow into :class:`RegistryRefused`, with what to do.

    Raises:
        RegistryRefused: MLflow raised an error; nothing of the training is registered.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if is_locked(error):
            raise
        raise RegistryRefused(
            f"{what}: {first_line(error)}. Was something deleted, restored or renamed in MLflow's UI "
            "(`poleng mlflow`) meanwhile? Batches are scored as before; nothing of this training is "
            "registered. Train again: `poleng retrain`"
        ) from error
