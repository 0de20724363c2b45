"""Which files of a home are state: those in a backup, and those that an empty home must not have."""

from pathlib import Path, PurePosixPath

from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import ASIDE

LAST_BACKUP = "last_backup.json"
# The first members of an archive.
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
# The README.md of the checkout's data folder; settings that every start rewrites.
_NOT_STATE = {"README.md", LAST_BACKUP, "dagster/dagster.yaml", MANIFEST, SUMS}
_LEFT_BESIDE = (".part", ".db-wal", ".db-shm", ".db-journal")


def is_state(name: str) -> bool:
    """Whether a file is state: incomplete files, locks and auxiliary database files are not.

    A submitted file that a killed run had renamed is state: its name is restored later.
    """
    path = PurePosixPath(name)
    if path.parts[0] == "landing" and len(path.parts) == 3 and path.name.endswith(ASIDE):
        return True
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not path.name.endswith(_LEFT_BESIDE) and name not in _NOT_STATE


def contents(root: Path) -> list[str]:
    """Return the names of the state files in a home; none if it is empty or missing.

    A home with only a study file is empty.
    """
    hidden = {".lock", Home(root).study_file.name}
    return sorted(
        name
        for path in root.rglob("*")
        if (not path.is_dir() or path.is_symlink())
        and (name := str(path.relative_to(root))) not in _NOT_STATE | hidden
    )
