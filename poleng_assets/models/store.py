"""MLflow's store of a home: how it is made and opened, and what its errors mean."""

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

# As long as MLflow waits for others once the store is open.
OPENING_SECONDS = 20.0


class RegistryUnusable(RuntimeError):
    """MLflow's store cannot be read or written; the message says why, and what to do."""


class RegistryRefused(RuntimeError):
    """What was asked of the registry cannot be done in its present state; the message says what to do."""


def open_store(home: Home, experiment: str) -> Any:
    """Return a client of a home's store; who opens it waits as long as MLflow waits later on.

    Args:
        home: whose store it is; it is made when it is missing.
        experiment: that is made on first use.

    Raises:
        RegistryUnusable: another process keeps it locked, or it is of a home that stood elsewhere.
    """
    from sqlalchemy.exc import OperationalError

    give_up = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return open_client(home.mlflow_uri, experiment, home.artifacts.as_uri())
        except OperationalError as error:
            if not is_locked(error):
                raise
            if time.monotonic() > give_up:
                raise locked_error(home) from error
            # SQLite waits itself, but not for one that cleans up after a killed process.
            time.sleep(0.2)


def open_client(uri: str, experiment: str, artifacts: str) -> Any:
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
    elif folder_of(known.artifact_location) != folder_of(artifacts):
        raise RegistryUnusable(
            f"this home was moved or copied: its models lie in {folder_of(known.artifact_location)} by "
            f"MLflow's store, not in {folder_of(artifacts)}. Put it back where it was. To have it here, make "
            "a backup there (`poleng backup`) and restore that here (`poleng restore`)"
        )
    return client


def folder_of(uri: str) -> Path:
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


def locked_error(home: Home) -> RegistryUnusable:
    """Return the error that says that another process keeps the store locked."""
    return RegistryUnusable(
        f"the model registry {home.mlflow_store} is locked by another process. Close what has "
        "it open (an SQLite shell, MLflow's UI) and run this again; nothing was lost"
    )


def is_locked(error: Exception) -> bool:
    """Whether an error of MLflow or SQLAlchemy says that another process has the store."""
    return "database is locked" in str(error)


@contextmanager
def refusals_of_mlflow(what: str) -> Iterator[None]:
    """Say in words what MLflow refuses to do, and what to do about it.

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
