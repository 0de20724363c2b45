"""The landing folders: finding what was dropped, and putting it where it belongs afterwards.

A file leaves landing only after what it feeds is committed (archive) or after its reason for
refusal is written beside its new place (rejected): at no moment does it exist nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from poleng_assets.core.dropped_files import SUFFIXES, content_hash, file_id, has_known_suffix
from poleng_assets.core.plain_text import in_one_line, visible, wrapped
from poleng_assets.files import write_whole
from poleng_assets.home import Home, Kind

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# Windows takes these for devices, whatever suffix they have: a list of that name cannot be opened there.
DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[1-9]|LPT[1-9])(\..*)?", re.IGNORECASE)
SETTLE_SECONDS = 2.0


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


@dataclass(frozen=True)
class Landing:
    """Works on the landing, archive and rejected folders of a home."""

    home: Home
    settle_seconds: float = SETTLE_SECONDS

    def dropped(self, kind: Kind) -> Iterator[Dropped]:
        """Yield the settled files of one kind, oldest first; hidden and ``.part`` files are not seen."""
        folder = self.home.landing(kind)
        if not folder.is_dir():
            return
        entries = [p for p in folder.iterdir() if not p.name.startswith(".") and p.suffix != ".part"]
        found = [(status, entry) for entry in entries if (status := _status(entry)) is not None]
        for status, path in sorted(found, key=lambda pair: (pair[0].st_mtime_ns, pair[1].name)):
            # The change time cannot be set by a copying tool, as the modification time can.
            if abs(time.time() - status.st_ctime) < self.settle_seconds:
                continue
            stamp = f"{status.st_ino}-{status.st_ctime_ns}-{status.st_size}"
            yield Dropped(kind, path, stamp, _problem(path, status))

    def waiting(self, kind: Kind) -> list[Path]:
        """Return every file of one kind that was dropped, settled or not."""
        folder = self.home.landing(kind)
        entries = folder.iterdir() if folder.is_dir() else []
        return sorted(p for p in entries if not p.name.startswith(".") and p.suffix != ".part")

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
            return part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def archive(self, kind: Kind, path: Path, name: str, digest: str | None = None) -> Path:
        """Move a file that was taken in out of landing, and call it by its id; return its place.

        A second copy of what the archive holds is removed: the first one may have been rewritten since,
        without a person who asked to be forgotten. A file of another content than was taken in, dropped
        meanwhile under the same name, stays in landing: it is a new version.

        Args:
            kind: of the file.
            path: of the file, in landing or already in the archive.
            name: the id that it was taken in under.
            digest: hash of the content that was taken in, as ``content_hash`` gives it.
        """
        target = self.place_in_archive(kind, path, name)
        if path != target and path.exists():
            if digest is not None and content_hash(path) != digest:
                return target
            if target.exists():
                path.unlink()
            else:
                _move(path, target)
        return target

    def place_in_archive(self, kind: Kind, path: Path, name: str) -> Path:
        """Return where a file is kept that was taken in under an id."""
        return self.home.archive(kind) / f"{name}{path.name.removeprefix(file_id(path.name))}"

    def archived(self, kind: Kind, name: str) -> Path | None:
        """Return the archived file of an id, None when it is not kept."""
        places = (self.home.archive(kind) / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((place for place in places if place.exists()), None)

    def reject(self, kind: Kind, path: Path, reason: str) -> Path:
        """Move a refused file to ``rejected`` with its reason beside it; return its new place."""
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
        write_whole(target.with_name(f"{target.name}.reason.txt"), visible(text))
        return _move(path, target)


def _status(path: Path) -> os.stat_result | None:
    """Return what is known of an entry, or None when a run has just moved it away."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _problem(path: Path, status: os.stat_result) -> str:
    """Say why an entry can never be taken in, or nothing."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if not NAME.fullmatch(path.name) or ".." in path.name or path.name.endswith("."):
        return (
            "its name may hold letters, digits, '.', '-' and '_' only, 100 at most; it must begin with a "
            "letter or digit, must not end in '.', and must not hold '..'"
        )
    if DEVICE.fullmatch(path.name):
        return f"{path.name.split('.')[0]} is the name of a device on Windows; give the file another name"
    if not has_known_suffix(path.name):
        return f"its name ends in none of {', '.join(SUFFIXES)}"
    return ""


def _move(path: Path, target: Path) -> Path:
    """Move a file to where it is kept, readable by its owner only; a link or folder as it is.

    The mode of a file that somebody else owns cannot be changed; its folder keeps others out.
    """
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and os.geteuid() in (0, status.st_uid):
        path.chmod(0o600)
    path.replace(target)
    return target


class LandingResource(dg.ConfigurableResource[Landing]):
    """The folders in which files are dropped, kept and refused."""

    root: str
    settle_seconds: float = SETTLE_SECONDS

    def create_resource(self, context: dg.InitResourceContext) -> Landing:
        """Return the plain landing that assets, sensors and the command line use alike."""
        return Landing(Home(Path(self.root)), self.settle_seconds)
