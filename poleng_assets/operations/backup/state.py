"""Which files of a home are state: what a backup keeps, and what an empty home must not hold."""

from pathlib import Path, PurePosixPath

from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import ASIDE

LAST_BACKUP = "last_backup.json"
# What an archive begins with.
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
# The README.md of the checkout's data folder; settings that every start writes again.
_NOT_STATE = {"README.md", LAST_BACKUP, "dagster/dagster.yaml", MANIFEST, SUMS}
_LEFT_BESIDE = (".part", ".db-wal", ".db-shm", ".db-journal")


def is_state(name: str) -> bool:
    """Whether a file is state: half-written ones, locks and what databases have beside them are not.

    A dropped file that a killed run had set aside is: the next look gives it its name back.
    """
    path = PurePosixPath(name)
    if path.parts[0] == "landing" and len(path.parts) == 3 and path.name.endswith(ASIDE):
        return True
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not path.name.endswith(_LEFT_BESIDE) and name not in _NOT_STATE


def contents(root: Path) -> list[str]:
    """Return the names of the files in a home that hold state; none when it is empty or missing.

    A study alone is none: it says whose answers a home is for, and nobody's are in it yet.
    """
    hidden = {".lock", Home(root).study_file.name}
    return sorted(
        name
        for path in root.rglob("*")
        if (not path.is_dir() or path.is_symlink())
        and (name := str(path.relative_to(root))) not in _NOT_STATE | hidden
    )
