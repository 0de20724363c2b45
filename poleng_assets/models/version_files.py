"""The version files: the record of each model version that allows scoring without MLflow's store.

Users can delete, rename or edit versions in MLflow's UI. ``mlartifacts/versions/<number>.json`` has the files
of a version and their hashes; the ledger says which version serves. Paths are relative to ``mlartifacts``, so
a backup can be restored elsewhere.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from poleng_assets.storage.files import write_atomically

FOLDER = "versions"


@dataclass(frozen=True)
class VersionFile:
    """One registered version.

    Attributes:
        run_id: of the MLflow run that trained it.
        model_id: of the logged model, empty if unknown.
        model: folder of the MLflow model, relative to the artifacts.
        reference: folder of the reference, relative to the artifacts.
        tags: as registered, with the hashes of all files.
    """

    version: int
    run_id: str
    experiment_id: str
    model_id: str
    model: str
    reference: str
    tags: Mapping[str, str]


def read_version_file(artifacts: Path, number: int) -> VersionFile | None:
    """Return the version file of a version, None if there is none.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = _path(artifacts, number)
    try:
        return VersionFile(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Restore it from a backup (`poleng restore`)"
        ) from error


def read_version_files(artifacts: Path) -> dict[int, VersionFile]:
    """Return all version files by their numbers, oldest first."""
    numbers = sorted(int(path.stem) for path in (artifacts / FOLDER).glob("*.json") if path.stem.isdecimal())
    files = ((number, read_version_file(artifacts, number)) for number in numbers)
    return {number: kept for number, kept in files if kept is not None}


def write_version_file(artifacts: Path, kept: VersionFile) -> None:
    """Write a version file atomically."""
    write_atomically(_path(artifacts, kept.version), json.dumps(asdict(kept), indent=1, sort_keys=True))


def write_tag(artifacts: Path, kept: VersionFile, name: str, value: str) -> None:
    """Replace one tag of a version."""
    write_version_file(artifacts, replace(kept, tags={**kept.tags, name: value}))


def _path(artifacts: Path, number: int) -> Path:
    return artifacts / FOLDER / f"{number}.json"
