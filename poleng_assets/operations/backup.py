"""Backup: a whole home in one file, taken while the daemon works, and read back before it is trusted.

While the warehouse is held nobody commits to it, so nothing is archived, listed or promoted either. What
is written beside it is copied in the order in which a kill would leave it, because from a kill the project
recovers: landing before the folders that files move on to; Dagster's cursors before its runs, runs before
events; events before the models that they speak of; what the project keeps of versions before MLflow's store,
which registers them first; MLflow's store before its artifacts.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import stat
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote

import dagster as dg
import duckdb

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.resources.landing import ASIDE, SETTLE_SECONDS
from poleng_assets.models import version_files
from poleng_assets.storage.files import move, write_whole
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.warehouse.compaction import CopyDiffers, copy_database
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.dagster_store import COPY_ORDER
from poleng_assets.warehouse.mlflow_store import registered_places
from poleng_assets.warehouse.sqlite_files import copy_sqlite

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 256 * 2**20
SMALL_MANIFEST = 2**20
MANY_MEMBERS = 10_000
# Of a name that is too long for a header, with its few settings.
LARGEST_EXTENSION = 64 * 2**10
LAST_BACKUP = "last_backup.json"
STAGE = ".backup"
VERSIONED = ("poleng_assets", "dagster", "duckdb", "mlflow")
# Most of it is compressed already (Parquet, DuckDB): more effort costs much time and saves little.
COMPRESSION = 1
BLOCK = 2**20
# A run lets the warehouse go, then tells Dagster what it did: so long it may take.
EVENT_SECONDS = 5.0
LANDING_SECONDS = 10.0

# The README.md of the checkout's data folder; settings that every start writes anew.
_NOT_STATE = {"README.md", LAST_BACKUP, "dagster/dagster.yaml"}
WAREHOUSE = ("warehouse.duckdb", "warehouse.duckdb.wal")
# One written since MLflow's store was copied would tell of a version that the copy does not know.
VERSIONS = f"mlartifacts/{version_files.FOLDER}"
_REFERENCES = "*/*/artifacts/reference"
_LEFT_BESIDE = (".part", ".db-wal", ".db-shm", ".db-journal")
# Written only while the warehouse is open, and never changed in place: a hard link is a copy of it.
_HELD_FOLDERS = ("archive", "rejected", "contact_lists", "reports", "requests")
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class BackupRefused(RuntimeError):
    """A backup cannot be made, or not where it was asked for; nothing was left behind."""


class ArchiveBroken(RuntimeError):
    """A file is no backup, or not as it was written, or of a later release; nothing was restored."""


@dataclass(frozen=True)
class Member:
    """One file of an archive: its name in the home, its bytes, and when it was last written."""

    name: str
    sha256: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Manifest:
    """What an archive says about itself; its first member.

    Attributes:
        made_at: when the snapshot was taken; ISO 8601, UTC.
        home: the root that it was taken from; MLflow's store names it.
        study: name of the study, and of the registered model.
        versions: of the project and of the libraries that wrote the files.
        rows: of each table of the warehouse.
        members: every other file of the archive.
        format: of the archive; a later one may not be readable here.
    """

    made_at: str
    home: str
    study: str
    versions: dict[str, str]
    rows: dict[str, int]
    members: list[Member] = field(repr=False)
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all members, unpacked."""
        return sum(member.size for member in self.members)

    def to_json(self) -> bytes:
        """Return it as ASCII text; a file name that is no text keeps its bytes as escapes."""
        return json.dumps(asdict(self), indent=1).encode("ascii")

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read it back.

        Raises:
            ArchiveBroken: it is no manifest, or of a later format.
        """
        try:
            found = json.loads(content)
            written = int(found["format"])
            if written > FORMAT:
                raise ArchiveBroken(
                    f"it is of format {written}, and this release reads formats up to {FORMAT}: "
                    "restore it with the release that made it, or a later one"
                )
            members = [Member(**member) for member in found["members"]]
            if any(type(one.size) is not int or one.size < 0 for one in members):
                raise ValueError("a size is no number of bytes")
            if len({one.name for one in members}) < len(members):
                raise ValueError("a name stands twice")
            return cls(**found | {"members": members})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ArchiveBroken(f"its {MANIFEST} cannot be understood ({error})") from error


@dataclass(frozen=True)
class Backup:
    """What was made.

    Attributes:
        path: of the archive.
        manifest: of it.
        size: of the archive, in bytes.
        held_seconds: how long runs had to wait for the warehouse.
        remarks: in words, what was left out or looked odd.
    """

    path: Path
    manifest: Manifest
    size: int
    held_seconds: float
    remarks: tuple[str, ...]


@dataclass
class _Snapshot:
    taken_at: datetime
    rows: dict[str, int] = field(default_factory=dict)
    held_seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)


def make_backup(home: Home, warehouse: Warehouse, target: Path, *, force: bool = False) -> Backup:
    """Write a home into one file, readable by its owner only, and check that it can be read back.

    Everything is put together in a hidden folder of the home first: the archive is written after the
    warehouse is let go.

    Args:
        home: may be worked on by a daemon.
        warehouse: of the home; its ``patience_seconds`` is how long to wait for a run that holds it.
        target: the file, outside of the home; its folder exists.
        force: write over an existing file.

    Raises:
        BackupRefused: it may not be written there, there is nothing to back up, another backup is under
            way, or what was written is not what was to be kept.
        WarehouseBusy: a run held the warehouse all the time.
        WarehouseUnusable, sqlite3.Error, OSError: a file cannot be read, or the disk is full.
    """
    target = target.resolve()
    _refuse_place(home, target, force=force)
    part = target.with_name(f".{target.name}.part")
    with claimed(home.root / STAGE) as stage:
        found = _snapshot(home, warehouse, stage)
        manifest = Manifest(
            made_at=found.taken_at.isoformat(timespec="seconds"),
            home=str(home.root),
            study=warehouse.study.name,
            versions=versions(),
            rows=found.rows,
            members=[_member(stage, path) for path in sorted(stage.rglob("*")) if path.is_file()],
        )
        try:
            _write(part, stage, manifest)
            _check(part, manifest)
            move(part, target)
        finally:
            part.unlink(missing_ok=True)
    note = {
        "made_at": manifest.made_at,
        "file": target.name,
        "path": str(target),
        "earlier": [one for one in _backups(home.root) if one["path"] != str(target)],
    }
    write_whole(home.root / LAST_BACKUP, json.dumps(note))
    return Backup(target, manifest, target.stat().st_size, found.held_seconds, tuple(found.remarks))


def read_archive(path: Path, into: Path | None = None) -> Manifest:
    """Read an archive from end to end and compare every member with the manifest.

    Args:
        path: of the archive.
        into: an empty folder to unpack it into; None to look only.

    Raises:
        ArchiveBroken: it is no backup, cut short, changed, of a later format, or a member's name would
            leave the folder. What was unpacked until then is of no use.
        OSError: it cannot be read, or the folder not be written.
    """
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unzipped:
            with tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Header) as archive:
                headers = iter(archive)
                manifest = _read_manifest(archive, next(headers, None), path.stat().st_size)
                if into is not None:
                    _need_space(manifest, into)
                _read_members(archive, headers, manifest, into)
            # To the end: the checksum of the whole stands there.
            behind = 0
            while block := unzipped.read(BLOCK):
                behind += len(block)
                if behind > BLOCK:
                    raise ArchiveBroken("it goes on behind its end")
    except ArchiveBroken as error:
        raise ArchiveBroken(f"{path} cannot be restored: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, RecursionError) as error:
        raise ArchiveBroken(f"{path} is no whole backup: {error}") from error
    return manifest


def backups_made(root: Path) -> list[str]:
    """Return in words which backups were made of a home, newest first, and whether they still lie there."""
    words = []
    for one in _backups(root):
        there = "" if Path(one["path"]).exists() else " (it lies there no more: was it moved?)"
        words.append(f"{one['path']}, made {one['made_at']}{there}")
    return words


def _backups(root: Path) -> list[dict[str, str]]:
    """Return path and time of each backup that the home knows of, newest first."""
    try:
        note = json.loads((root / LAST_BACKUP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if not isinstance(note, dict) or "made_at" not in note:
        return []
    last = {"path": str(note.get("path") or note.get("file", "")), "made_at": str(note["made_at"])}
    return [last, *note.get("earlier", [])]


def versions() -> dict[str, str]:
    """Return the versions of what writes the files of a home."""
    return {"python": platform.python_version()} | {one: importlib.metadata.version(one) for one in VERSIONED}


def contents(root: Path) -> list[str]:
    """Return the names of the files in a home that hold state; none when it is empty or missing."""
    hidden = {".lock"}
    return sorted(
        name
        for path in root.rglob("*")
        if (not path.is_dir() or path.is_symlink())
        and (name := str(path.relative_to(root))) not in _NOT_STATE | hidden
    )


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
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
        empty_out(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def empty_out(folder: Path) -> None:
    """Remove what is in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _refuse_place(home: Home, target: Path, *, force: bool) -> None:
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


def _snapshot(home: Home, warehouse: Warehouse, stage: Path) -> _Snapshot:
    _let_landing_settle(home)
    with open_instance(home) as instance, warehouse.connect() as con:
        began, found = time.monotonic(), _Snapshot(datetime.now(UTC))
        _let_events_follow(instance, con, found)
        _copy_folder(home, "landing", stage, found, _copy_landing)
        _copy_history(home, stage)
        _copy_folder(home, VERSIONS, stage, found, _link)
        if (home.root / "mlflow.db").exists():
            copy_sqlite(home.root / "mlflow.db", stage / "mlflow.db")
        try:
            found.rows = copy_database(con, stage / home.warehouse.name)
        except CopyDiffers as error:
            raise BackupRefused(str(error)) from error
        # Erasing a person writes references anew, and their hashes beside them, while it holds the warehouse.
        for folder in sorted(home.artifacts.resolve().glob(_REFERENCES)):
            place = Path(home.artifacts.name) / folder.relative_to(home.artifacts.resolve())
            _copy_folder(home, str(place), stage, found, _copy)
        for name in _HELD_FOLDERS:
            _copy_folder(home, name, stage, found, _link)
        found.held_seconds = time.monotonic() - began
    for entry in sorted(home.root.iterdir()):
        if entry.name in (*WAREHOUSE, "mlflow.db", "landing", *_HELD_FOLDERS) or not _is_kept(entry.name):
            continue
        if entry.is_dir():
            _copy_folder(home, entry.name, stage, found, _copy, but=VERSIONS)
        else:
            _take(entry, stage / entry.name, found, _copy)
    _need_models(stage, home.root)
    return found


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


def _let_events_follow(
    instance: dg.DagsterInstance, con: duckdb.DuckDBPyConnection, found: _Snapshot
) -> None:
    """Wait until Dagster knows of every file that the warehouse holds.

    A run archives a file, lets the warehouse go, and tells Dagster then. Between the two, the file is in
    landing no more and in no event yet: a home restored from there would never score it.
    """
    give_up = time.monotonic() + EVENT_SECONDS
    while unknown := _without_event(instance, con):
        if time.monotonic() > give_up:
            found.remarks.append(
                f"{', '.join(unknown)}: in the warehouse, and unknown to Dagster. A run died at that "
                "moment; materialise that partition in the UI"
            )
            return
        time.sleep(0.1)


def _without_event(instance: dg.DagsterInstance, con: duckdb.DuckDBPyConnection) -> list[str]:
    unknown = []
    for kind in KINDS:
        taken_in = con.execute("SELECT name FROM ingested_files WHERE kind = ?", [kind]).fetchall()
        known = instance.get_materialized_partitions(dg.AssetKey(kind)) if taken_in else set()
        unknown += [f"{kind}/{name}" for (name,) in taken_in if name not in known]
    return unknown


def _copy_history(home: Home, stage: Path) -> None:
    """Copy what Dagster decides by. The log of each run is copied later: nothing is decided by it."""
    for name in COPY_ORDER:
        path = home.dagster / name
        if path.exists():
            copy_sqlite(path, stage / path.relative_to(home.root))


def _copy_folder(
    home: Home,
    name: str,
    stage: Path,
    found: _Snapshot,
    copy: Callable[[Path, Path], bool],
    but: str = "",
) -> None:
    # The folder itself may be a link to a larger disk; links below it lead nobody knows where.
    for folder, _, files in os.walk((home.root / name).resolve()):
        below = Path(name) / Path(folder).relative_to((home.root / name).resolve())
        if str(below) == but:
            continue
        for file in sorted(files):
            if _is_kept(str(below / file)) and not (stage / below / file).exists():
                _take(Path(folder) / file, stage / below / file, found, copy)


def _is_kept(name: str) -> bool:
    """Whether a file is state: half-written ones, locks and what databases have beside them are not.

    A dropped file that a killed run had set aside is: the next look gives it its name back.
    """
    path = PurePosixPath(name)
    if path.parts[0] == "landing" and len(path.parts) == 3 and path.name.endswith(ASIDE):
        return True
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not path.name.endswith(_LEFT_BESIDE) and name not in _NOT_STATE


def _take(path: Path, copy: Path, found: _Snapshot, how: Callable[[Path, Path], bool]) -> None:
    """Copy one file; one that has gone meanwhile has moved on to a folder that is copied later."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            found.remarks.append(f"{path!s}: left out, it is no regular file")
            return
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not how(path, copy):
            found.remarks.append(f"{path!s}: left out, it is still being written")
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


def _need_models(stage: Path, root: Path) -> None:
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
        for name, place in registered_places(folder / "mlflow.db")
        if place.startswith("file:")
        and not (place.startswith(f"{own}/") and any(_inside(folder, place.removeprefix(f"{own}/"))))
    ]


def _inside(folder: Path, uri: str) -> Iterator[Path]:
    place = folder / unquote(uri)
    return place.rglob("*") if place.is_dir() else iter(())


def _member(stage: Path, path: Path) -> Member:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    status = path.stat()
    return Member(str(path.relative_to(stage)), digest, status.st_size, status.st_mtime_ns)


def _write(part: Path, stage: Path, manifest: Manifest) -> None:
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as packed:
        with (
            gzip.GzipFile(
                filename="", fileobj=packed, mode="wb", compresslevel=COMPRESSION, mtime=0
            ) as zipped,
            tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            content = manifest.to_json()
            archive.addfile(_header(MANIFEST, len(content)), io.BytesIO(content))
            for member in manifest.members:
                with (stage / member.name).open("rb") as file:
                    archive.addfile(_header(member.name, member.size, member.modified_ns), file)
        packed.flush()
        os.fsync(packed.fileno())


def _header(name: str, size: int, modified_ns: int = 0) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, 0o600, modified_ns // 10**9
    return header


def _check(part: Path, manifest: Manifest) -> None:
    """Read back what was written: a full disk or a broken one is noticed today and not on the bad day."""
    try:
        found = read_archive(part)
    except ArchiveBroken as error:
        raise BackupRefused(f"the archive cannot be read back, and was removed: {error}") from error
    if found != manifest:
        raise BackupRefused("the archive is not what was written, and was removed: is the disk sound?")


class _Header(tarfile.TarInfo):
    """A header that is refused before what it announces is read: tarfile keeps extensions in memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and not 0 <= header.size <= LARGEST_EXTENSION:
            raise ArchiveBroken(f"a name in it takes {header.size:,} bytes, which no backup would write")
        if header.type not in (*_EXTENSIONS, tarfile.REGTYPE, tarfile.AREGTYPE):
            raise ArchiveBroken(f"it holds {header.name!r}, which no backup would: it is no file")
        return header


def _read_manifest(archive: tarfile.TarFile, first: tarfile.TarInfo | None, packed_size: int) -> Manifest:
    """Read the first member, which says what the others are.

    Args:
        archive: that is read.
        first: its first header.
        packed_size: of the whole archive: hashes cannot be packed, so that a manifest and the number of its
            members are bounded by it.
    """
    if first is None or first.name != MANIFEST or not first.isreg() or first.sparse is not None:
        raise ArchiveBroken(f"it does not begin with a {MANIFEST}: `poleng backup` did not make it")
    if first.size > min(LARGEST_MANIFEST, SMALL_MANIFEST + 16 * packed_size):
        raise ArchiveBroken(
            f"its {MANIFEST} is said to take {first.size:,} bytes, which an archive of {packed_size:,} "
            "cannot hold"
        )
    manifest = Manifest.from_json(_content(archive, first).read())
    if len(manifest.members) > MANY_MEMBERS + packed_size // 64:
        raise ArchiveBroken(
            f"it names {len(manifest.members):,} files, which so small an archive cannot hold"
        )
    return manifest


def _need_space(manifest: Manifest, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if manifest.size > free:
        raise ArchiveBroken(f"it needs {manifest.size:,} bytes, and {folder} has {free:,} left")


def _read_members(
    archive: tarfile.TarFile, headers: Iterator[tarfile.TarInfo], manifest: Manifest, into: Path | None
) -> None:
    expected = {member.name: member for member in manifest.members}
    for header in headers:
        member = expected.pop(header.name, None)
        if member is None or not header.isreg() or not _stays_inside(header.name):
            raise ArchiveBroken(f"it holds {header.name!r}, which no backup would")
        # Before a byte of it is written: what the header announces, and what a sparse file would become.
        if header.size != member.size or header.sparse is not None:
            raise ArchiveBroken(
                f"{header.name} was changed: it is not what was backed up. It is said to take "
                f"{header.size:,} bytes, and took {member.size:,} when it was backed up"
            )
        tarfile.data_filter(header, str(into or Path.cwd()))
        size, digest = _unpack(_content(archive, header), into / header.name if into else None, member)
        if (size, digest) != (member.size, member.sha256):
            raise ArchiveBroken(f"{header.name} was changed: it is not what was backed up")
    if expected:
        raise ArchiveBroken(f"{len(expected)} files are missing, {min(expected)!r} among them")


def _stays_inside(name: str) -> bool:
    """Whether a name is that of a file in a home, and of nothing above or beside it."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and _is_kept(name)


def _unpack(source: IO[bytes], target: Path | None, member: Member) -> tuple[int, str]:
    """Read a member, and write it if it is wanted; return its size and hash."""
    size, digest = 0, hashlib.sha256()
    with _opened(target) as file:
        while block := source.read(BLOCK):
            size += len(block)
            if size > member.size:
                raise ArchiveBroken(f"{member.name} was changed: it is larger than what was backed up")
            digest.update(block)
            if file is not None:
                file.write(block)
    if target is not None:
        os.utime(target, ns=(member.modified_ns, member.modified_ns))
    return size, digest.hexdigest()


@contextmanager
def _opened(target: Path | None) -> Iterator[IO[bytes] | None]:
    if target is None:
        yield None
        return
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveBroken(f"it holds {target.name!r} as a file and as a folder") from error
    with os.fdopen(handle, "wb") as file:
        yield file


def _content(archive: tarfile.TarFile, header: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(header)
    if content is None:
        raise ArchiveBroken(f"{header.name!r} has no content")
    return content
