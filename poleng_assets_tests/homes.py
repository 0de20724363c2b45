"""Homes that a test begins with: made once by the project itself, then copied.

Dagster and MLflow make the tables of their databases in many steps, which takes seconds of a core, and a
first training takes longer. Tests that are about either of these make their home themselves.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from poleng_assets.backup import make_backup
from poleng_assets.core.dropped_files import content_hash
from poleng_assets.core.warehouse import Warehouse
from poleng_assets.definitions import build_defs
from poleng_assets.home import Home
from poleng_assets.instance import dagster_home, open_instance
from poleng_assets.resources.landing import Landing
from poleng_assets.resources.registry import Registry, create_store
from poleng_assets.restore import restore_backup
from poleng_assets.simulation.conductor import Conductor
from poleng_assets.study import load_study

STORE = "mlflow.db"
# The archive of a home by what founded it: the hash of the file, and the study.
_FOUNDED: dict[tuple[str, str], Path] = {}


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
    key = (content_hash(founding), load_study().model_dump_json())
    if key not in _FOUNDED:
        _FOUNDED[key] = _found(_kept() / f"founded_{len(_FOUNDED)}", founding)
    home = Home(folder)
    restore_backup(_FOUNDED[key], home)
    return home


@cache
def _kept() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="poleng_tests_"))
    atexit.register(shutil.rmtree, folder)
    return folder


@cache
def _empty() -> Home:
    home = Home(_kept() / "empty").create()
    dagster_home(home)
    create_store(home.root / STORE)
    return home


def _found(folder: Path, founding: Path) -> Path:
    """Let the graph found a home; return its archive."""
    home = new_home(folder / "home")
    with open_instance(home) as instance:
        conductor = Conductor(build_defs(home=home, settle_seconds=0.0), instance, show=lambda report: None)
        Landing(home, settle_seconds=0.0).submit("field_studies", founding)
        conductor.settle()
    assert Registry(home, load_study()).champion().version == 1
    warehouse = Warehouse(home.warehouse, load_study())
    return make_backup(home, warehouse, folder / "home.tar.gz").path
