"""Homes that a test begins with: made once by the project itself, then copied.

Dagster and MLflow make the tables of their databases in many steps, which takes seconds of a core, and a
first training takes longer. Tests that are about either of these make their home themselves. What was
made lies in one folder for all workers of a test run.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path

from poleng_assets.definitions import build_defs
from poleng_assets.defs.instance import dagster_home, open_instance
from poleng_assets.headless.runner import HeadlessRunner
from poleng_assets.models.registry import Registry
from poleng_assets.models.store import create_store
from poleng_assets.operations.backup.make import make_backup
from poleng_assets.operations.restore import restore_backup
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse

STORE = "mlflow.db"
# The folder that the workers of a test run share, in the environment.
SHARED = "POLENG_TESTS_HOMES"


def new_home(folder: Path) -> Home:
    """Make a home in which nothing has happened, with the databases of Dagster and MLflow."""
    home = Home(folder).create()
    if not (home.root / STORE).exists() and not any(home.dagster.iterdir()):
        shutil.copytree(_empty().dagster, home.dagster, dirs_exist_ok=True)
        shutil.copy2(_empty().root / STORE, home.root / STORE)
        dagster_home(home)  # its settings name the place
    return home


def founded_home(folder: Path, data: Path) -> Home:
    """Make a home in which the founding study of a survey has trained version 1, by the study in force."""
    founding = data / "field_studies" / "founding_study.parquet"

    def found(home: Home) -> None:
        _drop(new_home(home.root), founding)
        assert Registry(home, load_study()).champion().version == 1

    home = Home(folder)
    restore_backup(kept_archive(f"founded {content_hash(founding)}", found), home)
    return home


def promoted_home(folder: Path, data: Path) -> Home:
    """Make a founded home in which a clean batch was scored, and version 2 won when a batch drifted."""
    files = (
        data / "batches" / "clean_batch_1.parquet",
        data / "field_studies" / "followup_study.parquet",
        data / "batches" / "drift_batch_1.parquet",
    )

    def promote(home: Home) -> None:
        _drop(founded_home(home.root, data), *files)
        assert Registry(home, load_study()).champion().version == 2

    home = Home(folder)
    restore_backup(kept_archive(f"promoted {' '.join(map(content_hash, files))}", promote), home)
    return home


def _drop(home: Home, *files: Path) -> None:
    """Drop files, from folders of their kind, one after the other; what they ask for is done."""
    with open_instance(home) as instance:
        runner = HeadlessRunner(build_defs(home=home, settle_seconds=0.0), instance, show=lambda report: None)
        for file in files:
            Landing(home, settle_seconds=0.0).submit(file.parent.name, file)  # type: ignore[arg-type]
            runner.run_until_idle()


def kept_archive(what: str, make: Callable[[Home], None]) -> Path:
    """Return the backup of a home in which something was done, under the study in force.

    Args:
        what: was done. Homes of the same name and study are the same home.
        make: makes that home, where there is none, when no worker of this test run has.
    """
    made_from = f"{what} {load_study().model_dump_json()}"
    kept = kept_folder() / f"home_{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    archive = kept / "home.tar.gz"
    with _one_makes(kept):
        if not archive.exists():
            shutil.rmtree(kept, ignore_errors=True)  # a killed process may have begun
            home = Home(kept / "home")
            make(home)
            make_backup(home, Warehouse(home.warehouse, load_study()), archive)
    return archive


@cache
def kept_folder() -> Path:
    """Return where finished homes are kept: shared by a test run, and gone with it or with this process."""
    if SHARED in os.environ:
        return Path(os.environ[SHARED])
    folder = Path(tempfile.mkdtemp(prefix="poleng_tests_"))
    atexit.register(shutil.rmtree, folder)
    return folder


@contextmanager
def _one_makes(folder: Path) -> Iterator[None]:
    """Let one process at a time make something beside ``folder``; a killed one lets the next begin."""
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


@cache
def _empty() -> Home:
    home = Home(kept_folder() / "empty")
    with _one_makes(home.root):
        if not (home.root / STORE).exists():
            made = Home(kept_folder() / f"empty.{os.getpid()}").create()
            dagster_home(made)
            create_store(made.root / STORE)
            made.root.rename(home.root)
    return home
