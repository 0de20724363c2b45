"""The landing folders: finding what was dropped, and putting it where it belongs afterwards.

What is taken in is a copy, made and hashed by reading the file once. A file leaves landing only after what
it feeds is committed and the copy is archived, or stands in ``rejected`` with its reason: at no moment does
it exist nowhere. It leaves only if it is still what was copied.
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
from poleng_assets.storage.file_names import is_hidden, is_litter, is_temporary, may_be_meant, name_problem
from poleng_assets.storage.files import make_folder, move, sync_folder, write_whole
from poleng_assets.storage.home import Home, Kind
from poleng_assets.storage.writers import ends_early, is_open_for_writing, mount_points, writers_in_words
from poleng_assets.text.plain_text import in_one_line, visible, wrapped

SETTLE_SECONDS = 2.0
# A file that ends where a whole one seldom does is left alone for so many times as long.
ENDS_EARLY_FACTOR = 10
# How a file is called in landing while its last look is taken. No name may be longer than 255 bytes.
ASIDE = ".taken"
# What a process tries a landing folder out with; its number follows.
_TRIAL = ".poleng-"
_LONGEST_NAME = 255
_GET_FLAGS = 0x80086601  # https://man7.org/linux/man-pages/man2/FS_IOC_GETFLAGS.2const.html
_IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20

# What this process dropped whole, by the stamp of each: it needs no time to settle.
_dropped_whole: set[str] = set()
_tried_out: set[Path] = set()


class FileChanged(Exception):
    """A file in landing is written to, or is not any more what was copied; the message says so in words."""


@dataclass(frozen=True)
class Dropped:
    """A file in landing that nobody has touched for a while.

    ``stamp`` changes whenever the file is written or dropped again, even with the same content.
    """

    kind: Kind
    path: Path
    stamp: str
    problem: str = ""

    @property
    def name(self) -> str:
        """The id that the file name gives to the batch or study."""
        return file_id(self.path.name)


@dataclass
class Look:
    """What stands in one landing folder.

    Attributes:
        dropped: files that are to be taken in or refused, oldest first.
        waits: why the others are left alone for now, by their names.
        left: why entries are left alone for ever, by their names: nothing can be done with them.
        seconds: until the next of those that wait may have settled; 0 when none is about to.
    """

    dropped: list[Dropped] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class TakenCopy:
    """A dropped file as it was when it was read.

    Attributes:
        original: the file in landing.
        path: of the copy; it has the name of the original.
        digest: SHA-256 of what was read, as hex.
        status: of the original when it was read.
    """

    original: Path
    path: Path
    digest: str
    status: os.stat_result

    def confirm(self) -> None:
        """Check that the original is still what was copied.

        Raises:
            FileChanged: it is not, or somebody has it open for writing.
        """
        if not self._is_still(self.original):
            raise FileChanged(
                f"{self.original.name} changed while it was taken in. Nothing of it was; it is taken in when "
                "it has been left alone"
            )

    def _is_still(self, path: Path) -> bool:
        """Return whether the original (perhaps moved) still holds what was copied, and nobody writes."""
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
    """Works on the landing, archive and rejected folders of a home."""

    home: Home
    settle_seconds: float = SETTLE_SECONDS

    def dropped(self, kind: Kind) -> Iterator[Dropped]:
        """Yield the settled files of one kind, oldest first, which :meth:`look` finds."""
        yield from self.look(kind).dropped

    def look(self, kind: Kind) -> Look:
        """Look at everything that stands in landing; nothing is changed."""
        seen, mounted, ages = Look(), mount_points(), {}
        folder = self.home.landing(kind)
        may_change = os.access(folder, os.W_OK | os.X_OK)
        for path in _entries(folder):
            name, status = path.name, _status(path)
            if status is None:
                continue
            if is_hidden(name):
                if may_be_meant(name):
                    seen.left[name] = "its name begins with a dot: hidden files are not taken in"
            elif is_temporary(name):
                seen.waits[name] = "its name says that it is not whole yet"
            elif is_litter(name):
                seen.left[name] = "it is no file of people: systems and editors leave such behind"
            elif str(path.absolute()) in mounted:
                seen.left[name] = "a disk or file is mounted there, it cannot be moved: unmount it"
            elif not may_change:
                seen.left[name] = f"nothing may be removed from {folder}: see that it may be written"
            elif isinstance(dropped := self._settled(kind, path, status, seen), Dropped):
                seen.dropped.append(dropped)
                ages[name] = status.st_mtime_ns
        seen.dropped.sort(key=lambda dropped: (ages[dropped.path.name], dropped.path.name))
        return seen

    def _settled(self, kind: Kind, path: Path, status: os.stat_result, seen: Look) -> Dropped | None:
        """Return an entry that is to be dealt with now; else say in ``seen`` why it is not."""
        stamp = _stamp(status)
        # The change time cannot be set by a copying tool, as the modification time can.
        age = abs(time.time() - status.st_ctime)
        patience = 0.0 if stamp in _dropped_whole else self.settle_seconds
        problem = ""
        if age < patience:
            _wait(seen, path, "it was touched just now", patience - age)
            return None
        if stat.S_ISREG(status.st_mode):
            try:
                early = self._look_into(path, status, seen)
            except FileNotFoundError:
                return None
            patience *= ENDS_EARLY_FACTOR
            if early and age < patience:
                _wait(seen, path, "it does not end as a whole file does, more may come", patience - age)
                return None
            problem = name_problem(path.name)
        else:
            problem = "it is not a regular file"
        is_free = path.name not in seen.waits and path.name not in seen.left
        return Dropped(kind, path, stamp, problem) if is_free else None

    def _look_into(self, path: Path, status: os.stat_result, seen: Look) -> bool:
        """Note in ``seen`` what keeps a file from being taken in; return whether it ends early.

        Raises:
            FileNotFoundError: a run has just moved it away.
        """
        try:
            with _opened(path) as file:
                if _is_fixed(file.fileno()) or _is_stuck(path.parent, status):
                    why = "it may not be removed: it is immutable, or belongs to somebody else"
                    seen.left[path.name] = why
                elif is_open_for_writing(file.fileno()):
                    why = f"{writers_in_words(path)} has it open for writing"
                    _wait(seen, path, why, self.settle_seconds)
                else:
                    return ends_early(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            seen.left[path.name] = f"it cannot be read ({error.strerror}): see that this user may"
        return False

    def waiting(self, kind: Kind) -> list[Path]:
        """Return every file of one kind that was dropped, settled or not."""
        return [
            path
            for path in _entries(self.home.landing(kind))
            if not (is_hidden(path.name) or is_temporary(path.name) or is_litter(path.name))
        ]

    def try_out(self, kind: Kind) -> str:
        """Write, rename and remove a file in landing; say what fails and what to do, nothing when all works.

        Where it worked once it is not tried again by this process.
        """
        folder = self.home.landing(kind)
        if folder in _tried_out:
            return ""
        step, begun = "written", folder / f"{_TRIAL}{os.getpid()}.part"
        renamed = begun.with_suffix(".tmp")
        try:
            begun.write_bytes(b"x")
            step = "renamed"
            begun.replace(renamed)
            step = "removed"
            renamed.unlink()
        except OSError as error:
            for path in (begun, renamed):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            return (
                f"Files in {folder} cannot be {step} ({error.strerror}): what is dropped there cannot be "
                "taken in. See that its disk is there, and that this user may write to it"
            )
        _tried_out.add(folder)
        return ""

    def submit(self, kind: Kind, file: Path) -> Path:
        """Copy a file into landing, so that it appears there whole; return its place.

        Raises:
            FileExistsError: a file of that name waits there already.
        """
        target = self.home.landing(kind) / file.name
        if target.exists():
            raise FileExistsError(f"{target} waits to be taken in already")
        part = target.with_name(f".{target.name}.part")
        try:
            part.touch(mode=0o600)
            part.chmod(0o600)  # its owner's alone before anything stands in it
            shutil.copyfile(file, part)
            dropped = part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _dropped_whole.add(_stamp(dropped.lstat()))
        return dropped

    # Taking in

    @contextmanager
    def copied(self, kind: Kind, path: Path) -> Iterator[TakenCopy]:
        """Give a copy of a file in landing, on the disk of the archive, until the end of the block.

        Raises:
            FileChanged: somebody writes to the file.
            FileNotFoundError: it is gone.
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
                        f"{writers_in_words(path)} has {path.name} open for writing. Nothing of it was taken "
                        "in; it is when it was closed"
                    )
                digest = copy_hashed(file, copy)
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            yield TakenCopy(path, copy, digest, status)

    def keep(self, kind: Kind, copy: TakenCopy, name: str, *, new: bool = True) -> Path:
        """Put the copy that was taken in into the archive under its id; return its place there.

        A second copy of what the archive holds is not kept: the first one may have been rewritten since,
        without a person who asked to be forgotten.

        Args:
            new: whether it was taken in just now. A file that stands in its place then is of a history that
                the warehouse does not know; it stays, under another name.
        """
        target = self.place_in_archive(kind, copy.path, name)
        if target.exists() and new and (digest := content_hash(target)) != copy.digest:
            move(target, target.with_name(f"{name}.{digest[:12]}{target.name.removeprefix(name)}"))
        if not target.exists():
            _move(copy.path, target)
        return target

    def remove(self, copy: TakenCopy) -> str:
        """Remove the original of a copy from landing; say why it stays, nothing when it is gone.

        It is given another name first: from then on nobody opens it by chance, and whoever had it open
        before is seen. If it is not any more what was copied it gets its name back, and is a new file.
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
            f"{original.name} was written to after it had been read: what it holds now stays in landing, and "
            "is taken in as a new version when it has been left alone"
        )

    def clear_leftovers(self, kind: Kind) -> None:
        """Undo what killed processes left: trials, copies nobody uses, and files that had been set aside."""
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
        # Who sets a file aside has a work folder: without one there is nobody who would come back to it.
        for path in [] if in_use else self.home.landing(kind).glob(f".*{ASIDE}"):
            _put_back(path, path.with_name(path.name[1 : -len(ASIDE)]))

    @property
    def _work(self) -> Path:
        """Where copies are made: below the archive, so that what looks through it finds them, too."""
        return self.home.root / "archive" / ".being_taken_in"

    @contextmanager
    def _work_folder(self) -> Iterator[Path]:
        """Give a folder of this block alone; the lock on it ends with the process, however that ends."""
        with ExitStack() as stack:
            folder = self._new_work_folder(stack)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    self._work.rmdir()

    def _new_work_folder(self, stack: ExitStack) -> Path:
        """Make a folder and hold its lock; one that was taken for a leftover before it was locked is left."""
        while True:
            make_folder(self._work)
            with suppress(FileNotFoundError, BlockingIOError):
                folder = Path(tempfile.mkdtemp(dir=self._work))
                stack.enter_context(_locked(folder))
                if folder.exists():
                    return folder

    def archive(self, kind: Kind, path: Path, name: str, digest: str | None = None) -> Path:
        """Archive a file that was taken in, under its id, and remove it from landing; return its place.

        A file of another content than was taken in, dropped meanwhile under the same name, stays in landing:
        it is a new version.

        Args:
            path: of the file, in landing or already in the archive.
            digest: hash of the content that was taken in, as ``content_hash`` gives it.
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
        """Return where a file is kept that was taken in under an id."""
        return self.home.archive(kind) / f"{name}{path.name.removeprefix(file_id(path.name))}"

    def archived(self, kind: Kind, name: str) -> Path | None:
        """Return the archived file of an id, None when it is not kept."""
        paths = (self.home.archive(kind) / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.exists()), None)

    # Refusing

    def reject(self, kind: Kind, path: Path, reason: str) -> Path:
        """Put a refused file into ``rejected`` with its reason beside it; return its new place.

        A file is copied and then removed, as one that is taken in; a link or folder is moved as it is.

        Raises:
            FileChanged: somebody writes to the file.
            OSError: it cannot be moved; nothing is left in ``rejected``.
        """
        if not stat.S_ISREG(path.lstat().st_mode):
            return self._set_apart(kind, path, reason)
        with self.copied(kind, path) as copy:
            return self.reject_copy(kind, copy, reason)[0]

    def reject_copy(self, kind: Kind, copy: TakenCopy, reason: str) -> tuple[Path, str]:
        """Put the copy of a refused file into ``rejected``, and remove the original.

        Returns:
            Its new place, and why the original stays; nothing when it is gone.
        """
        rejected = self._set_apart(kind, copy.path, reason)
        return rejected, self.remove(copy)

    def _set_apart(self, kind: Kind, path: Path, reason: str) -> Path:
        # A file system allows 255 bytes: a number and ".reason.txt" must still fit behind the name.
        target = self.home.rejected(kind) / os.fsdecode(os.fsencode(path.name)[:200])
        name, number = target.name, 1
        stem = file_id(name) if has_known_suffix(name) else target.stem
        while target.exists() or target.is_symlink():
            number += 1
            target = target.with_name(f"{stem}.{number}{name.removeprefix(stem)}")
        text = (
            f"{in_one_line(path.name)} was refused.\n\n{wrapped(f'Why: {reason}')}\n\n"
            f"What to do: mend the file and drop it into landing/{kind} again. "
            "Nothing of it was taken in.\n"
        )
        # A file name may be no text, or steer the terminal that shows the note.
        note = write_whole(target.with_name(f"{target.name}.reason.txt"), visible(text))
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
    """Return what is known of an entry, or None when a run has just moved it away."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _put_back(aside: Path, original: Path) -> None:
    """Give a file its name back, unless another has it by now: then it waits until that one is gone."""
    if aside != original and not os.path.lexists(original):
        with suppress(FileNotFoundError):
            aside.rename(original)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; a link is not followed, and a pipe that took its place is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        yield file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        BlockingIOError: somebody holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_fixed(handle: int) -> bool:
    """Return whether a file is marked so that nobody may remove it (``chattr +i``, ``+a``)."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(handle, _GET_FLAGS, flags)
    except OSError:  # a file system without such marks
        return False
    return bool(int.from_bytes(flags, "little") & _IMMUTABLE_OR_APPEND_ONLY)


def _is_stuck(folder: Path, status: os.stat_result) -> bool:
    """Return whether a file belongs to somebody else, in a folder where only owners may remove theirs."""
    around, me = folder.stat(), os.geteuid()
    return bool(around.st_mode & stat.S_ISVTX) and me not in (0, status.st_uid, around.st_uid)


def _move(path: Path, target: Path) -> Path:
    """Move a file to where it is kept, readable by its owner only; a link or folder as it is.

    Raises:
        OSError: a folder, pipe or socket would have to go to another disk, or may not be moved.
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
        raise OSError(errno.EXDEV, "it is on another disk and no file, move it by hand", str(path))
    path.unlink()
    sync_folder(path.parent)
    return target
