"""The snapshot of a home while the daemon runs: a copy in a crash-consistent order.

While the warehouse is locked no run commits to it, so nothing is archived, listed or promoted. The other
files are copied in an order that could result from a crash, because the project recovers from a crash:
landing before the folders to which its files move; Dagster's cursors before its runs, runs before events;
events before the models in them; version files before MLflow's store, which registers versions first;
MLflow's store before its artifacts.
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

# Time limit for the event of a run, after it has released the warehouse.
EVENT_SECONDS = 5.0
LANDING_SECONDS = 10.0

WAREHOUSE = ("warehouse.duckdb", "warehouse.duckdb.wal")
# A file written after the copy of MLflow's store would describe a version that is not in the copy.
VERSIONS = f"mlartifacts/{version_files.FOLDER}"
_REFERENCES = "*/*/artifacts/reference"
# Written only while the warehouse is open, and never changed in place: a hard link is a valid copy.
_HELD_FOLDERS = ("archive", "rejected", "contact_lists", "reports", "requests")


class BackupRefused(RuntimeError):
    """A backup cannot be made, or not at this target; nothing was written."""


@dataclass
class Snapshot:
    """The content of the stage folder.

    Attributes:
        taken_at: when the warehouse was locked; UTC.
        held_seconds: how long the warehouse was locked.
        remarks: what was skipped or looked unusual.
    """

    taken_at: datetime
    rows: dict[str, int] = field(default_factory=dict)
    held_seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)


def take_snapshot(home: Home, warehouse: Warehouse, stage: Path) -> Snapshot:
    """Copy all state of a home to an empty folder in it.

    Raises:
        BackupRefused: the copy is not complete, or MLflow's store names a model whose files are missing.
        WarehouseBusy: the warehouse stayed locked.
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
        # Erasing a person rewrites references and their hashes while the warehouse is locked.
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
    """Wait, with a time limit, until no process writes to a file in landing."""
    deadline = time.monotonic() + LANDING_SECONDS
    while time.monotonic() < deadline and any(
        not _is_settled(path) for kind in KINDS for path in home.landing(kind).glob("*") if path.is_file()
    ):
        time.sleep(0.2)


def _is_settled(path: Path) -> bool:
    """Whether a file has not changed for the settle time, or was moved."""
    try:
        return abs(time.time() - path.lstat().st_ctime) >= SETTLE_SECONDS
    except FileNotFoundError:
        return True


def _let_events_follow(unknown: Callable[[], list[str]], snapshot: Snapshot) -> None:
    """Wait until Dagster has an event for every file in the warehouse.

    A run archives a file, releases the warehouse, and then writes the Dagster event. In between the file is
    neither in landing nor in an event: a home restored from that state would never score it.
    """
    deadline = time.monotonic() + EVENT_SECONDS
    while names := unknown():
        if time.monotonic() > deadline:
            snapshot.remarks.append(
                f"{', '.join(names)}: in the warehouse, but without an event in Dagster, probably after a "
                "crash; materialise that partition in the UI"
            )
            return
        time.sleep(0.1)


def _copy_history(home: Home, stage: Path) -> None:
    """Copy the databases on which Dagster bases decisions; the logs of runs are copied later."""
    for name in COPY_ORDER:
        path = home.dagster / name
        if path.exists():
            copy_sqlite(path, stage / path.relative_to(home.root))


def _copy_folder(
    home: Home, name: str, stage: Path, snapshot: Snapshot, copy: Callable[[Path, Path], bool], but: str = ""
) -> None:
    # The folder itself may be a link to a larger disk; links below it are not followed.
    for folder, _, files in os.walk((home.root / name).resolve()):
        below = Path(name) / Path(folder).relative_to((home.root / name).resolve())
        if str(below) == but:
            continue
        for file in sorted(files):
            if is_state(str(below / file)) and not (stage / below / file).exists():
                _take(Path(folder) / file, stage / below / file, snapshot, copy)


def _take(path: Path, copy: Path, snapshot: Snapshot, copy_file: Callable[[Path, Path], bool]) -> None:
    """Copy one file; a missing one was moved to a folder that is copied later."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            snapshot.remarks.append(f"{path!s}: skipped, it is not a regular file")
            return
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy_file(path, copy):
            snapshot.remarks.append(f"{path!s}: skipped, it is still being written")
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
    """Copy a submitted file unless it is still being written; return whether it was copied."""
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
    except OSError:  # a folder on another disk, or a disk without hard links
        return _copy(path, copy)
    return True


def _require_model_files(stage: Path, root: Path) -> None:
    """Raise if a registered model is not in the snapshot."""
    missing = models_without_files(stage, root)
    if missing:
        raise BackupRefused(
            f"the files of {', '.join(missing)} are missing in {root}, but MLflow's store has them "
            "registered. Nothing was written"
        )


def models_without_files(folder: Path, root: Path) -> list[str]:
    """Return the registered versions without files in a folder that will be the home ``root``."""
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
    """Create an empty folder with an exclusive lock; remove it at the end.

    Files of a killed process are removed: its lock was released.

    Raises:
        BackupRefused: another process uses it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRefused(f"another backup or restore uses {folder}: wait until it ends") from None
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
