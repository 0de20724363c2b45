"""What the project keeps of each model version, beside the models: enough to score without MLflow's store.

Anybody may delete, rename or edit in MLflow's UI. Which files belong to a version, and what they are to look
like, stands in ``mlartifacts/versions/<number>.json``; the ledger says which version serves. Places are
relative to ``mlartifacts``, so that a backup can be restored elsewhere.
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
        model_id: of the logged model, empty when it is not known.
        model: folder of what MLflow serves, relative to the artifacts.
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
    """Return what is kept of a version, None when nothing is.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = _place(artifacts, number)
    try:
        return VersionFile(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Restore it from a backup (`poleng restore`)"
        ) from error


def read_version_files(artifacts: Path) -> dict[int, VersionFile]:
    """Return what is kept of every version, by its number, the oldest first."""
    numbers = sorted(int(path.stem) for path in (artifacts / FOLDER).glob("*.json") if path.stem.isdecimal())
    files = ((number, read_version_file(artifacts, number)) for number in numbers)
    return {number: kept for number, kept in files if kept is not None}


def write_version_file(artifacts: Path, kept: VersionFile) -> None:
    """Write down what is kept of a version, whole or not at all."""
    write_atomically(_place(artifacts, kept.version), json.dumps(asdict(kept), indent=1, sort_keys=True))


def write_tag(artifacts: Path, kept: VersionFile, name: str, value: str) -> None:
    """Replace one tag of a version."""
    write_version_file(artifacts, replace(kept, tags={**kept.tags, name: value}))


def _place(artifacts: Path, number: int) -> Path:
    return artifacts / FOLDER / f"{number}.json"
