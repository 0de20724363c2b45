"""Making a backup: a snapshot of a home, packed into one file and read back; and which backups were made."""

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
    """What was made.

    Attributes:
        size: of the archive, in bytes.
        held_seconds: how long runs had to wait for the warehouse.
        remarks: in words, what was left out or looked odd.
    """

    path: Path
    manifest: Manifest
    size: int
    held_seconds: float
    remarks: tuple[str, ...]


def make_backup(home: Home, warehouse: Warehouse, target: Path, *, force: bool = False) -> Backup:
    """Write a home into one file, readable by its owner only, and check that it can be read back.

    Everything is put together in a hidden folder of the home first: the archive is written after the
    warehouse is let go.

    Args:
        home: may be worked on by a daemon.
        warehouse: of the home; its ``patience_seconds`` is how long to wait for a run that holds it.
        target: the file, outside of the home; its folder exists.

    Raises:
        BackupRefused: it may not be written there, there is nothing to back up, another backup is under
            way, or what was written is not what was to be kept.
        WarehouseBusy: a run held the warehouse all the time.
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
    """Return in words which backups were made of a home, newest first, and whether they are still there."""
    return [
        f"{known['path']}, made {known['made_at']}"
        + ("" if Path(known["path"]).exists() else " (it lies there no more: was it moved?)")
        for known in _known_backups(root)
    ]


def _known_backups(root: Path) -> list[dict[str, str]]:
    """Return path and time of each backup that the home knows of, newest first."""
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
        raise BackupRefused(f"{home.root} holds nothing yet: there is nothing to back up")
    if target.is_dir():
        raise BackupRefused(f"{target} is a folder: name the file, such as {target / 'poleng.tar.gz'}")
    if not target.parent.is_dir():
        raise BackupRefused(f"{target.parent} is no folder: make it first")
    if target.resolve().is_relative_to(home.root.resolve()):
        raise BackupRefused(f"{target} lies in the home itself: name a place outside of {home.root}")
    if target.exists() and not force:
        raise BackupRefused(f"{target} is there already: name another file, or say --force")


def _check(part: Path, manifest: Manifest) -> None:
    """Read back what was written: a full disk or a broken one is noticed today and not on the bad day."""
    try:
        read = read_archive(part)
    except ArchiveBroken as error:
        raise BackupRefused(f"the archive cannot be read back, and was removed: {error}") from error
    if read != manifest:
        raise BackupRefused("the archive is not what was written, and was removed: is the disk sound?")
