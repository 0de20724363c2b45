"""The landing folders: find submitted files, and move them to the archive or to ``rejected``.

Ingestion uses a copy, which is written and hashed while the file is read once. The original is removed from
landing only after the commit, when the copy is in the archive, or in ``rejected`` with its reason, and only
if it has not changed: at every moment there is at least one copy.
"""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from poleng_assets.storage.dropped_files import SUFFIXES, content_hash, copy_hashed, file_id, has_known_suffix
from poleng_assets.storage.file_names import (
    is_hidden,
    is_system_file,
    is_temporary,
    may_be_meant,
    name_problem,
)
from poleng_assets.storage.files import make_folder, move, sync_folder, write_atomically
from poleng_assets.storage.home import Home, Kind
from poleng_assets.storage.writers import ends_early, is_open_for_writing, mount_points, name_writers
from poleng_assets.text.plain_text import in_one_line, visible, wrapped

SETTLE_SECONDS = 2.0
# Factor of the settle time for a file that looks incomplete.
ENDS_EARLY_FACTOR = 10
# Suffix of a file in landing during its final check. A name may have at most 255 bytes.
ASIDE = ".taken"
# Prefix of the test file for a landing folder, followed by the process id.
_TRIAL = ".poleng-"
_LONGEST_NAME = 255
_GET_FLAGS = 0x80086601  # https://man7.org/linux/man-pages/man2/FS_IOC_GETFLAGS.2const.html
_IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20

# Stamps of the complete files that this process submitted: they need no time to settle.
_submitted: set[str] = set()
_tested: set[Path] = set()


class FileChanged(Exception):
    """A file in landing is being written, or has changed since it was copied."""


@dataclass(frozen=True)
class Dropped:
    """A settled file in landing: it has not changed for the settle time.

    ``stamp`` changes whenever the file is written or submitted again, even with the same content.
    """

    kind: Kind
    path: Path
    stamp: str
    problem: str = ""

    @property
    def name(self) -> str:
        """The id of the batch or study, from the file name."""
        return file_id(self.path.name)


@dataclass
class Look:
    """The content of one landing folder.

    Attributes:
        dropped: files to ingest or refuse, oldest first.
        waits: why the others are not ready yet, by their names.
        left: why entries are skipped permanently, by their names.
        seconds: until the next waiting file may have settled; 0 if there is none.
    """

    dropped: list[Dropped] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class TakenCopy:
    """The copy of a submitted file.

    Attributes:
        original: the file in landing.
        path: of the copy, with the name of the original.
        digest: SHA-256 of the content, as hex.
        status: of the original when it was read.
    """

    original: Path
    path: Path
    digest: str
    status: os.stat_result

    def confirm(self) -> None:
        """Check that the original has not changed since it was copied.

        Raises:
            FileChanged: it has, or a process has it open for writing.
        """
        if not self._is_still(self.original):
            raise FileChanged(
                f"{self.original.name} changed during ingestion. Nothing was ingested; it is "
                "ingested when it no longer changes"
            )

    def _is_still(self, path: Path) -> bool:
        """Return whether the original (perhaps renamed) is unchanged and has no writer."""
        try:
            with _opened(path) as file:
                now = os.fstat(file.fileno())
                if is_open_for_writing(file.fileno()):
                    return False
        except OSError:
            return False
        if (now.st_dev, now.st_ino, now.st_size) != (
            self.status.st_dev,
            self.status.st_ino,
            self.status.st_size,
        ):
            return False
        return now.st_mtime_ns == self.status.st_mtime_ns and content_hash(path) == self.digest


@dataclass(frozen=True)
class Landing:
    """The landing, archive and rejected folders of a home."""

    home: Home
    settle_seconds: float = SETTLE_SECONDS

    def dropped(self, kind: Kind) -> Iterator[Dropped]:
        """Yield the settled files of one kind, oldest first."""
        yield from self.look(kind).dropped

    def look(self, kind: Kind) -> Look:
        """Return the state of all entries in landing; nothing is changed."""
        seen, mounted, ages = Look(), mount_points(), {}
        folder = self.home.landing(kind)
        may_change = os.access(folder, os.W_OK | os.X_OK)
        for path in _entries(folder):
            name, status = path.name, _status(path)
            if status is None:
                continue
            if is_hidden(name):
                if may_be_meant(name):
                    seen.left[name] = "its name starts with a dot: hidden files are not ingested"
            elif is_temporary(name):
                seen.waits[name] = "its name is that of an incomplete file"
            elif is_system_file(name):
                seen.left[name] = "it is a file of the operating system or of an editor"
            elif str(path.absolute()) in mounted:
                seen.left[name] = "it is a mount point and cannot be moved: unmount it"
            elif not may_change:
                seen.left[name] = f"{folder} is not writable: correct its permissions"
            elif isinstance(dropped := self._settled(kind, path, status, seen), Dropped):
                seen.dropped.append(dropped)
                ages[name] = status.st_mtime_ns
        seen.dropped.sort(key=lambda dropped: (ages[dropped.path.name], dropped.path.name))
        return seen

    def _settled(self, kind: Kind, path: Path, status: os.stat_result, seen: Look) -> Dropped | None:
        """Return an entry that is ready, or record in ``seen`` why it is not."""
        stamp = _stamp(status)
        # Copying tools can set the modification time, but not the change time.
        age = abs(time.time() - status.st_ctime)
        patience = 0.0 if stamp in _submitted else self.settle_seconds
        problem = ""
        if age < patience:
            _wait(seen, path, "it was changed just now", patience - age)
            return None
        if stat.S_ISREG(status.st_mode):
            try:
                early = self._look_into(path, status, seen)
            except FileNotFoundError:
                return None
            patience *= ENDS_EARLY_FACTOR
            if early and age < patience:
                _wait(seen, path, "it looks incomplete", patience - age)
                return None
            problem = name_problem(path.name)
        else:
            problem = "it is not a regular file"
        is_free = path.name not in seen.waits and path.name not in seen.left
        return Dropped(kind, path, stamp, problem) if is_free else None

    def _look_into(self, path: Path, status: os.stat_result, seen: Look) -> bool:
        """Record in ``seen`` what prevents the ingestion of a file; return whether it looks incomplete.

        Raises:
            FileNotFoundError: a run has just moved it.
        """
        try:
            with _opened(path) as file:
                if _is_fixed(file.fileno()) or _is_stuck(path.parent, status):
                    why = "it cannot be removed: it is immutable, or belongs to another user"
                    seen.left[path.name] = why
                elif is_open_for_writing(file.fileno()):
                    why = f"{name_writers(path)} has it open for writing"
                    _wait(seen, path, why, self.settle_seconds)
                else:
                    return ends_early(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            seen.left[path.name] = f"it cannot be read ({error.strerror}): correct its permissions"
        return False

    def waiting(self, kind: Kind) -> list[Path]:
        """Return all submitted files of one kind, settled or not."""
        return [
            path
            for path in _entries(self.home.landing(kind))
            if not (is_hidden(path.name) or is_temporary(path.name) or is_system_file(path.name))
        ]

    def test_access(self, kind: Kind) -> str:
        """Write, rename and remove a test file in landing; return the error and what to do, empty on success.

        After a success this process does not repeat the test.
        """
        folder = self.home.landing(kind)
        if folder in _tested:
            return ""
        step, trial = "written", folder / f"{_TRIAL}{os.getpid()}.part"
        renamed = trial.with_suffix(".tmp")
        try:
            trial.write_bytes(b"x")
            step = "renamed"
            trial.replace(renamed)
            step = "removed"
            renamed.unlink()
        except OSError as error:
            for path in (trial, renamed):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            return (
                f"Files in {folder} cannot be {step} ({error.strerror}): they cannot be ingested. "
                "Check that its disk is mounted, and that this user can write to it"
            )
        _tested.add(folder)
        return ""

    def submit(self, kind: Kind, file: Path) -> Path:
        """Copy a file into landing atomically; return its path there.

        Raises:
            FileExistsError: a file of that name is already there.
        """
        target = self.home.landing(kind) / file.name
        if target.exists():
            raise FileExistsError(f"{target} is already waiting for ingestion")
        part = target.with_name(f".{target.name}.part")
        try:
            part.touch(mode=0o600)
            part.chmod(0o600)  # private before it has content
            shutil.copyfile(file, part)
            dropped = part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _submitted.add(_stamp(dropped.lstat()))
        return dropped

    # Ingestion

    @contextmanager
    def copied(self, kind: Kind, path: Path) -> Iterator[TakenCopy]:
        """Yield a copy of a file in landing, on the disk of the archive, for the duration of the block.

        Raises:
            FileChanged: a process writes to the file.
            FileNotFoundError: it is missing.
            OSError: it cannot be read, or the copy cannot be written.
        """
        with self._work_folder() as folder:
            copy = folder / path.name
            with _opened(path) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise FileChanged(f"{path.name} is not a regular file")
                if is_open_for_writing(file.fileno()):
                    raise FileChanged(
                        f"{name_writers(path)} has {path.name} open for writing. Nothing was "
                        "ingested; it is ingested when it is closed"
                    )
                digest = copy_hashed(file, copy)
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            yield TakenCopy(path, copy, digest, status)

    def keep(self, kind: Kind, copy: TakenCopy, name: str, *, new: bool = True) -> Path:
        """Move the ingested copy to the archive under its id; return its path there.

        A second copy of an archived file is not kept: the first one may have been rewritten since, without a
        person who was erased.

        Args:
            new: whether it was ingested just now. An existing file of that name is then unknown to the
                warehouse, and is kept under another name.
        """
        target = self.place_in_archive(kind, copy.path, name)
        if target.exists() and new and (digest := content_hash(target)) != copy.digest:
            move(target, target.with_name(f"{name}.{digest[:12]}{target.name.removeprefix(name)}"))
        if not target.exists():
            _move(copy.path, target)
        return target

    def remove(self, copy: TakenCopy) -> str:
        """Remove the original of a copy from landing; return why it was kept, empty if it was removed.

        It is renamed first: after that no process opens it by chance, and an earlier writer is detected. If
        it has changed, its name is restored, and it is a new file.
        """
        original = copy.original
        aside = original.with_name(f".{original.name}{ASIDE}")
        if len(os.fsencode(aside.name)) > _LONGEST_NAME:
            aside = original
        try:
            original.rename(aside)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{original.name} cannot be removed from landing ({error.strerror}): remove it by hand"
        if copy._is_still(aside):
            aside.unlink(missing_ok=True)
            sync_folder(original.parent)
            return ""
        _put_back(aside, original)
        return (
            f"{original.name} was changed after it was read: the new content stays in landing, and is "
            "ingested as a new version when it no longer changes"
        )

    def clear_leftovers(self, kind: Kind) -> None:
        """Clean up after killed processes: test files, unused copies, and renamed originals."""
        for trial in self.home.landing(kind).glob(f"{_TRIAL}*"):
            process = trial.stem.removeprefix(_TRIAL)
            if process.isdecimal() and not psutil.pid_exists(int(process)):
                trial.unlink(missing_ok=True)
        in_use = False
        for folder in _entries(self._work):
            try:
                with _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                in_use = True
            except FileNotFoundError:
                continue  # its process has just ended
        # A process that has renamed a file has a work folder: without one the file is abandoned.
        for path in [] if in_use else self.home.landing(kind).glob(f".*{ASIDE}"):
            _put_back(path, path.with_name(path.name[1 : -len(ASIDE)]))

    @property
    def _work(self) -> Path:
        """The folder of copies: below the archive, so that searches of the archive include it."""
        return self.home.root / "archive" / ".being_taken_in"

    @contextmanager
    def _work_folder(self) -> Iterator[Path]:
        """Yield a private folder; its lock is released when the process ends for any reason."""
        with ExitStack() as stack:
            folder = self._new_work_folder(stack)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    self._work.rmdir()

    def _new_work_folder(self, stack: ExitStack) -> Path:
        """Create a folder and lock it; try again if it was cleaned up before it was locked."""
        while True:
            make_folder(self._work)
            with suppress(FileNotFoundError, BlockingIOError):
                folder = Path(tempfile.mkdtemp(dir=self._work))
                stack.enter_context(_locked(folder))
                if folder.exists():
                    return folder

    def archive(self, kind: Kind, path: Path, name: str, digest: str | None = None) -> Path:
        """Archive an ingested file under its id, and remove it from landing; return its path.

        A file with other content, submitted meanwhile under the same name, stays in landing as a new version.

        Args:
            path: of the file, in landing or already in the archive.
            digest: hash of the ingested content, as of ``content_hash``.
        """
        target = self.place_in_archive(kind, path, name)
        if path == target or not path.exists():
            return target
        with self.copied(kind, path) as copy:
            if digest is None or copy.digest == digest:
                self.keep(kind, copy, name, new=False)
                self.remove(copy)
        return target

    def place_in_archive(self, kind: Kind, path: Path, name: str) -> Path:
        """Return the path of an ingested file in the archive."""
        return self.home.archive(kind) / f"{name}{path.name.removeprefix(file_id(path.name))}"

    def archived(self, kind: Kind, name: str) -> Path | None:
        """Return the archived file of an id, None if there is none."""
        paths = (self.home.archive(kind) / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.exists()), None)

    # Refusing

    def reject(self, kind: Kind, path: Path, reason: str) -> Path:
        """Move a refused file to ``rejected`` with a note about the reason; return its new path.

        A file is copied and then removed, as in ingestion; a link or folder is moved.

        Raises:
            FileChanged: a process writes to the file.
            OSError: it cannot be moved; ``rejected`` is unchanged.
        """
        if not stat.S_ISREG(path.lstat().st_mode):
            return self._move_to_rejected(kind, path, reason)
        with self.copied(kind, path) as copy:
            return self.reject_copy(kind, copy, reason)[0]

    def reject_copy(self, kind: Kind, copy: TakenCopy, reason: str) -> tuple[Path, str]:
        """Move the copy of a refused file to ``rejected``, and remove the original.

        Returns:
            Its new path, and why the original was kept; empty if it was removed.
        """
        rejected = self._move_to_rejected(kind, copy.path, reason)
        return rejected, self.remove(copy)

    def _move_to_rejected(self, kind: Kind, path: Path, reason: str) -> Path:
        # A name may have 255 bytes, including a number and ".reason.txt".
        target = self.home.rejected(kind) / os.fsdecode(os.fsencode(path.name)[:200])
        name, number = target.name, 1
        stem = file_id(name) if has_known_suffix(name) else target.stem
        while target.exists() or target.is_symlink():
            number += 1
            target = target.with_name(f"{stem}.{number}{name.removeprefix(stem)}")
        text = (
            f"{in_one_line(path.name)} was refused.\n\n{wrapped(f'Why: {reason}')}\n\n"
            f"What to do: fix the file and submit it to landing/{kind} again. "
            "No part of it was ingested.\n"
        )
        # A file name may be invalid text, or contain control characters for a terminal.
        note = write_atomically(target.with_name(f"{target.name}.reason.txt"), visible(text))
        try:
            return _move(path, target)
        except BaseException:
            note.unlink(missing_ok=True)
            raise


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_ctime_ns}-{status.st_size}"


def _wait(seen: Look, path: Path, why: str, rest: float) -> None:
    seen.waits[path.name] = why
    seen.seconds = min(seen.seconds, rest) if seen.seconds else rest


def _status(path: Path) -> os.stat_result | None:
    """Return the status of an entry, None if a run has just moved it."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _put_back(aside: Path, original: Path) -> None:
    """Restore the name of a file, unless another file has it: then it waits until that one is removed."""
    if aside != original and not os.path.lexists(original):
        with suppress(FileNotFoundError):
            aside.rename(original)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, without following a link or waiting for a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        yield file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        BlockingIOError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_fixed(handle: int) -> bool:
    """Return whether a file is immutable or append-only (``chattr +i``, ``+a``)."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(handle, _GET_FLAGS, flags)
    except OSError:  # a file system without these attributes
        return False
    return bool(int.from_bytes(flags, "little") & _IMMUTABLE_OR_APPEND_ONLY)


def _is_stuck(folder: Path, status: os.stat_result) -> bool:
    """Return whether a file belongs to another user, in a folder with the sticky bit."""
    around, me = folder.stat(), os.geteuid()
    return bool(around.st_mode & stat.S_ISVTX) and me not in (0, status.st_uid, around.st_uid)


def _move(path: Path, target: Path) -> Path:
    """Move a file and make it readable by its owner only; move a link or folder unchanged.

    Raises:
        OSError: a folder, pipe or socket is on another disk, or cannot be moved.
    """
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and os.geteuid() in (0, status.st_uid):
        path.chmod(0o600)
    try:
        return move(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        with _opened(path) as file:
            copy_hashed(file, part)
        os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
        move(part, target)
    else:
        raise OSError(errno.EXDEV, "it is on another disk and not a file, move it by hand", str(path))
    path.unlink()
    sync_folder(path.parent)
    return target
