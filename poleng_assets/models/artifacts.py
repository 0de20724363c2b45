"""The files of a model version: written, hashed, compared with what was registered, and loaded."""

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
# What MLflow runs when it loads a version, and the file that tells it to; the model's own files lie deeper.
EXECUTED = (SERVED_MODEL.name, "MLmodel")
_CHANGED = "is not what was registered: it was changed or cut off"


class ModelUnusable(RuntimeError):
    """A registered version cannot be used; the message says which, why, and what to do."""


@contextmanager
def unusable_when_broken(version: int) -> Iterator[None]:
    """Say of which version a file is missing or broken, and what to do."""
    try:
        yield
    except Exception as error:
        # MLflow, Arrow, XGBoost, skops and JSON: each has its own way to say that a file is no good.
        if is_locked(error):
            raise
        raise ModelUnusable(
            f"the files of version {version} cannot be used: "
            f"{first_line(error)}. Let an earlier version serve "
            "(`poleng rollback`), train anew (`poleng retrain`), or restore a backup (`poleng restore`)"
        ) from error


def compare_hashes(folder: Path, registered: Mapping[str, str]) -> None:
    """Raise ``ValueError`` when the files of a model's folder are not those that were registered."""
    for name, digest in registered.items():
        path = (folder.parent.parent if name in EXECUTED else folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        if content_hash(path) != digest:
            raise ValueError(f"{path} {_CHANGED}")


def read_compared(path: Path, hashes: Collection[str] | None) -> bytes:
    """Return a file; raises ``ValueError`` when it has none of the hashes that it may have."""
    if hashes and not path.exists():
        raise ValueError(f"{path} is missing")
    content = path.read_bytes()
    if hashes and hashlib.sha256(content).hexdigest() not in hashes:
        raise ValueError(f"{path} {_CHANGED}")
    return content


def write_files(
    folder: Path, model: Model, reference: pd.DataFrame, importance: Mapping[str, float]
) -> dict[str, list[str]]:
    """Write a model, the script by which MLflow loads it, and its reference; return the latter's hashes."""
    model.save(folder / "model")
    # MLflow copies files with their rights; those of the checkout are others' too.
    shutil.copyfile(SERVED_MODEL, folder / SERVED_MODEL.name)
    reference.to_parquet(folder / REFERENCE, index=False)
    (folder / IMPORTANCE).write_text(json.dumps(dict(importance)), encoding="utf-8")
    return {name: [content_hash(folder / name)] for name in (IMPORTANCE, REFERENCE)}


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Make a folder that is empty, whatever a killed process left in it, and remove it in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Let Python keep no compiled files: MLflow tries the script out where it keeps the model.

    The file would be part of the model, name a temporary folder, and differ from time to time.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@lru_cache(maxsize=2)
def load_model(folder: Path) -> Model:
    """Read a model once for all assets of a run; MLflow never uses the name of a folder again."""
    from poleng_assets.core.modeling.model import Model

    return Model.load(folder)
