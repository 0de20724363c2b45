"""The snapshot of a home while the daemon works: what is copied when, so that it is as a kill would leave it.

While the warehouse is held nobody commits to it, so nothing is archived, listed or promoted either. What
is written beside it is copied in the order in which a kill would leave it, because from a kill the project
recovers: landing before the folders that files move on to; Dagster's cursors before its runs, runs before
events; events before the models that they speak of; what the project keeps of versions before MLflow's store,
which registers them first; MLflow's store before its artifacts.
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from poleng_assets.defs.continuity import files_without_event
from poleng_assets.defs.instance import open_instance
from poleng_assets.models import version_files
from poleng_assets.operations.backup.state import is_state
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.storage.landing import SETTLE_SECONDS
from poleng_assets.warehouse.compaction import CopyDiffers, copy_database
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.dagster_store import COPY_ORDER
from poleng_assets.warehouse.mlflow_store import registered_places
from poleng_assets.warehouse.sqlite_files import copy_sqlite

# A run lets the warehouse go, then tells Dagster what it did: so long it may take.
EVENT_SECONDS = 5.0
LANDING_SECONDS = 10.0

WAREHOUSE = ("warehouse.duckdb", "warehouse.duckdb.wal")
# One written since MLflow's store was copied would tell of a version that the copy does not know.
VERSIONS = f"mlartifacts/{version_files.FOLDER}"
_REFERENCES = "*/*/artifacts/reference"
# Written only while the warehouse is open, and never changed in place: a hard link is a copy of it.
_HELD_FOLDERS = ("archive", "rejected", "contact_lists", "reports", "requests")


class BackupRefused(RuntimeError):
    """A backup cannot be made, or not where it was asked for; nothing was left behind."""


@dataclass
class Snapshot:
    """What was copied into the stage.

    Attributes:
        taken_at: when the warehouse was held; UTC.
        held_seconds: how long runs had to wait for the warehouse.
        remarks: what was left out or looked odd, in words.
    """

    taken_at: datetime
    rows: dict[str, int] = field(default_factory=dict)
    held_seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)


def take_snapshot(home: Home, warehouse: Warehouse, stage: Path) -> Snapshot:
    """Copy everything that is state in a home into an empty folder of it.

    Raises:
        BackupRefused: the copy is not complete, or MLflow's store names a model whose files are missing.
        WarehouseBusy: a run held the warehouse all the time.
    """
    _let_landing_settle(home)
    with open_instance(home) as instance, warehouse.connect() as con:
        began, snapshot = time.monotonic(), Snapshot(datetime.now(UTC))
        _let_events_follow(partial(files_without_event, instance, con), snapshot)
        _copy_folder(home, "landing", stage, snapshot, _copy_landing)
        _copy_history(home, stage)
        _copy_folder(home, VERSIONS, stage, snapshot, _link)
        if home.mlflow_store.exists():
            copy_sqlite(home.mlflow_store, stage / "mlflow.db")
        try:
            snapshot.rows = copy_database(con, stage / home.warehouse.name)
        except CopyDiffers as error:
            raise BackupRefused(str(error)) from error
        # Erasing a person writes references anew, and their hashes beside them, while it holds the warehouse.
        for folder in sorted(home.artifacts.resolve().glob(_REFERENCES)):
            reference = Path(home.artifacts.name) / folder.relative_to(home.artifacts.resolve())
            _copy_folder(home, str(reference), stage, snapshot, _copy)
        for name in _HELD_FOLDERS:
            _copy_folder(home, name, stage, snapshot, _link)
        snapshot.held_seconds = time.monotonic() - began
    for entry in sorted(home.root.iterdir()):
        if entry.name in (*WAREHOUSE, "mlflow.db", "landing", *_HELD_FOLDERS) or not is_state(entry.name):
            continue
        if entry.is_dir():
            _copy_folder(home, entry.name, stage, snapshot, _copy, but=VERSIONS)
        else:
            _take(entry, stage / entry.name, snapshot, _copy)
    _require_model_files(stage, home.root)
    return snapshot


def _let_landing_settle(home: Home) -> None:
    """Wait, not for ever, until nobody writes to a file in landing."""
    give_up = time.monotonic() + LANDING_SECONDS
    while time.monotonic() < give_up and any(
        not _is_settled(path) for kind in KINDS for path in home.landing(kind).glob("*") if path.is_file()
    ):
        time.sleep(0.2)


def _is_settled(path: Path) -> bool:
    """Whether a file has not been written to for a while; one that has moved on is."""
    try:
        return abs(time.time() - path.lstat().st_ctime) >= SETTLE_SECONDS
    except FileNotFoundError:
        return True


def _let_events_follow(unknown: Callable[[], list[str]], snapshot: Snapshot) -> None:
    """Wait until Dagster knows of every file that the warehouse holds.

    A run archives a file, lets the warehouse go, and tells Dagster then. Between the two, the file is in
    landing no more and in no event yet: a home restored from there would never score it.
    """
    give_up = time.monotonic() + EVENT_SECONDS
    while names := unknown():
        if time.monotonic() > give_up:
            snapshot.remarks.append(
                f"{', '.join(names)}: in the warehouse, and unknown to Dagster. A run died at that "
                "moment; materialise that partition in the UI"
            )
            return
        time.sleep(0.1)


def _copy_history(home: Home, stage: Path) -> None:
    """Copy what Dagster decides by. The log of each run is copied later: nothing is decided by it."""
    for name in COPY_ORDER:
        path = home.dagster / name
        if path.exists():
            copy_sqlite(path, stage / path.relative_to(home.root))


def _copy_folder(
    home: Home, name: str, stage: Path, snapshot: Snapshot, copy: Callable[[Path, Path], bool], but: str = ""
) -> None:
    # The folder itself may be a link to a larger disk; links below it lead nobody knows where.
    for folder, _, files in os.walk((home.root / name).resolve()):
        below = Path(name) / Path(folder).relative_to((home.root / name).resolve())
        if str(below) == but:
            continue
        for file in sorted(files):
            if is_state(str(below / file)) and not (stage / below / file).exists():
                _take(Path(folder) / file, stage / below / file, snapshot, copy)


def _take(path: Path, copy: Path, snapshot: Snapshot, how: Callable[[Path, Path], bool]) -> None:
    """Copy one file; one that has gone meanwhile has moved on to a folder that is copied later."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            snapshot.remarks.append(f"{path!s}: left out, it is no regular file")
            return
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not how(path, copy):
            snapshot.remarks.append(f"{path!s}: left out, it is still being written")
    except FileNotFoundError:
        if path.exists():
            raise


def _copy(path: Path, copy: Path) -> bool:
    if path.suffix == ".db":
        copy_sqlite(path, copy)
    else:
        shutil.copyfile(path, copy)
        status = path.stat()
        os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return True


def _copy_landing(path: Path, copy: Path) -> bool:
    """Copy a file that people drop, unless somebody still writes to it; return whether it was copied."""
    before = path.stat()
    shutil.copyfile(path, copy)
    after = path.stat()
    unchanged = (before.st_ino, before.st_size, before.st_ctime_ns) == (
        after.st_ino, after.st_size, after.st_ctime_ns,
    )  # fmt: skip
    if not unchanged or not _is_settled(path):
        copy.unlink()
        return False
    os.utime(copy, ns=(after.st_mtime_ns, after.st_mtime_ns))
    return True


def _link(path: Path, copy: Path) -> bool:
    try:
        os.link(path, copy)
    except FileNotFoundError:
        raise
    except OSError:  # a folder on another disk, or a disk that knows no links
        return _copy(path, copy)
    return True


def _require_model_files(stage: Path, root: Path) -> None:
    """Raise when the store names a model that is not in the snapshot."""
    missing = models_without_files(stage, root)
    if missing:
        raise BackupRefused(
            f"the files of {', '.join(missing)} are missing in {root}: MLflow's store names them. "
            "Nothing was written"
        )


def models_without_files(folder: Path, root: Path) -> list[str]:
    """Return the registered versions whose files are not in a folder that is to be the home ``root``."""
    if not (folder / "mlflow.db").exists():
        return []
    own = root.as_uri()
    return [
        name
        for name, uri in registered_places(folder / "mlflow.db")
        if uri.startswith("file:")
        and not (uri.startswith(f"{own}/") and any(_inside(folder, uri.removeprefix(f"{own}/"))))
    ]


def _inside(folder: Path, uri: str) -> Iterator[Path]:
    inner = folder / unquote(uri)
    return inner.rglob("*") if inner.is_dir() else iter(())


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that one process at a time may work in, empty; remove it at the end.

    What a killed process left in it is removed: its lock ended with it.

    Raises:
        BackupRefused: another process works in it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRefused(f"another backup or restore works in {folder}: wait until it ends") from None
        if not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat()):
            raise BackupRefused(f"another backup or restore has just ended in {folder}: try again")
        _remove_contents(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _remove_contents(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
