"""The files of a model version: write, hash, verify and load them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from poleng_assets.models.store import is_locked
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.text.plain_text import first_line

if TYPE_CHECKING:
    import pandas as pd

    from poleng_assets.core.modeling.model import Model

REFERENCE = "reference.parquet"
IMPORTANCE = "importance.json"
SERVED_MODEL = Path(__file__).parent.parent / "core" / "modeling" / "mlflow_model.py"
# The script that MLflow runs to load a version, and the file that refers to it, outside the model's folder.
EXECUTED = (SERVED_MODEL.name, "MLmodel")
_CHANGED = "differs from the registered file: it was changed or truncated"


class ModelUnusable(RuntimeError):
    """A registered version cannot be used; the message says which one, why, and what to do."""


@contextmanager
def unusable_when_broken(version: int) -> Iterator[None]:
    """Convert an error about the files of a version into :class:`ModelUnusable`."""
    try:
        yield
    except Exception as error:
        # MLflow, Arrow, XGBoost, skops and JSON raise different errors for invalid files.
        if is_locked(error):
            raise
        raise ModelUnusable(
            f"the files of version {version} cannot be used: "
            f"{first_line(error)}. Make an earlier version the "
            "champion (`poleng rollback`), retrain (`poleng retrain`), or restore a backup (`poleng restore`)"
        ) from error


def compare_hashes(folder: Path, registered: Mapping[str, str]) -> None:
    """Raise ``ValueError`` if the files of a model's folder differ from the registered ones."""
    for name, digest in registered.items():
        path = (folder.parent.parent if name in EXECUTED else folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        if content_hash(path) != digest:
            raise ValueError(f"{path} {_CHANGED}")


def read_compared(path: Path, hashes: Collection[str] | None) -> bytes:
    """Return the content of a file; raises ``ValueError`` if its hash is none of ``hashes``."""
    if hashes and not path.exists():
        raise ValueError(f"{path} is missing")
    content = path.read_bytes()
    if hashes and hashlib.sha256(content).hexdigest() not in hashes:
        raise ValueError(f"{path} {_CHANGED}")
    return content


def write_files(
    folder: Path, model: Model, reference: pd.DataFrame, importance: Mapping[str, float]
) -> dict[str, list[str]]:
    """Write a model, its loading script for MLflow, and its reference; return the hashes of the latter."""
    model.save(folder / "model")
    # MLflow copies files with their permissions; those of the checkout are not private.
    shutil.copyfile(SERVED_MODEL, folder / SERVED_MODEL.name)
    reference.to_parquet(folder / REFERENCE, index=False)
    (folder / IMPORTANCE).write_text(json.dumps(dict(importance)), encoding="utf-8")
    return {name: [content_hash(folder / name)] for name in (IMPORTANCE, REFERENCE)}


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Create an empty folder, and remove it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Disable compiled Python files: MLflow runs the script in the folder of the model.

    The compiled file would be part of the model, contain a temporary path, and not be reproducible.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@lru_cache(maxsize=2)
def load_model(folder: Path) -> Model:
    """Load a model once for all assets of a run; MLflow never reuses the name of a folder."""
    from poleng_assets.core.modeling.model import Model

    return Model.load(folder)
