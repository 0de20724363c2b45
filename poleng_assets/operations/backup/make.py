"""Make a backup: a snapshot of a home in one verified file; and list earlier backups."""

import json
from dataclasses import dataclass
from pathlib import Path

from poleng_assets.operations.backup.archive import (
    ArchiveBroken,
    Manifest,
    installed_versions,
    read_archive,
    write_archive,
)
from poleng_assets.operations.backup.snapshot import BackupRefused, exclusive_folder, take_snapshot
from poleng_assets.operations.backup.state import LAST_BACKUP, contents
from poleng_assets.storage.dropped_files import hash_files
from poleng_assets.storage.files import move, write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.warehouse.connection import Warehouse

STAGE = ".backup"


@dataclass(frozen=True)
class Backup:
    """The result of a backup.

    Attributes:
        size: of the archive, in bytes.
        held_seconds: how long the warehouse was locked.
        remarks: what was skipped or looked unusual.
    """

    path: Path
    manifest: Manifest
    size: int
    held_seconds: float
    remarks: tuple[str, ...]


def make_backup(home: Home, warehouse: Warehouse, target: Path, *, force: bool = False) -> Backup:
    """Write a home to one file, readable by its owner only, and verify it by reading it back.

    All files are first copied to a hidden folder of the home; the archive is written after the lock on the
    warehouse is released.

    Args:
        home: a daemon may run on it.
        warehouse: of the home; its ``patience_seconds`` is how long to wait for a run that has it locked.
        target: the file, outside the home; its folder exists.

    Raises:
        BackupRefused: the target is not allowed, there is nothing to back up, another backup is running,
            or the verification failed.
        WarehouseBusy: the warehouse stayed locked.
        WarehouseUnusable, sqlite3.Error, OSError: a file cannot be read, or the disk is full.
    """
    target = target.resolve()
    _refuse_target(home, target, force=force)
    part = target.with_name(f".{target.name}.part")
    with exclusive_folder(home.root / STAGE) as stage:
        snapshot = take_snapshot(home, warehouse, stage)
        hashes = hash_files(stage)
        manifest = Manifest(
            made_at=snapshot.taken_at.isoformat(timespec="seconds"),
            home=str(home.root),
            study=warehouse.study.name,
            versions=installed_versions(),
            rows=snapshot.rows,
            size=sum((stage / name).stat().st_size for name in hashes),
            hashes=hashes,
        )
        try:
            write_archive(part, stage, manifest)
            _check(part, manifest)
            move(part, target)
        finally:
            part.unlink(missing_ok=True)
    note = {
        "made_at": manifest.made_at,
        "file": target.name,
        "path": str(target),
        "earlier": [known for known in _known_backups(home.root) if known["path"] != str(target)],
    }
    write_atomically(home.root / LAST_BACKUP, json.dumps(note))
    size = target.stat().st_size
    return Backup(target, manifest, size, snapshot.held_seconds, tuple(snapshot.remarks))


def backups_made(root: Path) -> list[str]:
    """Return a description of each backup of a home, newest first."""
    return [
        f"{known['path']}, made {known['made_at']}"
        + ("" if Path(known["path"]).exists() else " (it no longer exists there: was it moved?)")
        for known in _known_backups(root)
    ]


def _known_backups(root: Path) -> list[dict[str, str]]:
    """Return path and time of each known backup, newest first."""
    try:
        note = json.loads((root / LAST_BACKUP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if not isinstance(note, dict) or "made_at" not in note:
        return []
    last = {"path": str(note.get("path") or note.get("file", "")), "made_at": str(note["made_at"])}
    return [last, *note.get("earlier", [])]


def _refuse_target(home: Home, target: Path, *, force: bool) -> None:
    if not contents(home.root):
        raise BackupRefused(f"{home.root} is empty: there is nothing to back up")
    if target.is_dir():
        raise BackupRefused(f"{target} is a folder: give a file name, such as {target / 'poleng.tar.gz'}")
    if not target.parent.is_dir():
        raise BackupRefused(f"{target.parent} is not a folder: create it first")
    if target.resolve().is_relative_to(home.root.resolve()):
        raise BackupRefused(f"{target} is inside the home: choose a path outside {home.root}")
    if target.exists() and not force:
        raise BackupRefused(f"{target} already exists: choose another file, or use --force")


def _check(part: Path, manifest: Manifest) -> None:
    """Read the archive back, to detect a full or broken disk now."""
    try:
        read = read_archive(part)
    except ArchiveBroken as error:
        raise BackupRefused(f"the archive cannot be read back and was deleted: {error}") from error
    if read != manifest:
        raise BackupRefused("the archive differs from what was written and was deleted: check the disk")
