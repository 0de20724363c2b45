"""Files that other people open: written whole or not at all, readable by their owner only.

What is written here outlives a power cut: a file is on the disk before it gets its name, and its name is
before anybody goes on. An event that says that a file exists therefore never says more than the disk knows.
https://www.man7.org/linux/man-pages/man2/fsync.2.html tells why the folder needs a sync of its own.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What a file system answers that knows no sync of folders (some network mounts): nothing more can be done.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def write_whole(path: Path, text: str) -> Path:
    """Write a text file beside its place and move it there, as :func:`in_place_of` does."""
    with in_place_of(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Give a file to be written to, and move it to its place at the end: nobody ever opens half of it.

    When it cannot be written, what stood there before still does, and nothing is left beside it. Its
    folder is made if it is missing; it must not be one that others may write to. On return the file and
    its name are on the disk.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    try:
        # Its owner's alone before anything stands in it; one that a killed process left is no other.
        part.touch(mode=0o600)
        part.chmod(0o600)
        yield part
        sync_file(part)
        move(part, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a disk that fills up while it is written to says no name
        # On a disk that may not be written this fails too: what happened first is what is told.
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def move(path: Path, target: Path) -> Path:
    """Move a file or folder within one disk; return its new place. On return the disk knows of it.

    What is in the file must have been synced before (:func:`sync_file`, :func:`sync_tree`).
    """
    path.replace(target)
    sync_folder(target.parent)
    if path.parent != target.parent:
        # Only now: a cut in between leaves the file at both places, never at none.
        sync_folder(path.parent)
    return target


def make_folder(folder: Path, mode: int = 0o777) -> Path:
    """Make a folder and those above it that are missing, so that the disk knows of them; return it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=mode)
        sync_folder(path.parent)
    return folder


def sync_file(path: Path) -> None:
    """Have the disk take in what stands in a file; a link is followed.

    Raises:
        OSError: the disk could not; what was written may be lost.
    """
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Have the disk take in which files stand in a folder, by which names: after a move, or a removal."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Have the disk take in all files below a folder, and their names."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(inner, name)
            if path.is_file() and not path.is_symlink():
                sync_file(path)
        sync_folder(Path(inner))


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            error.filename = str(path)
            raise
    finally:
        os.close(handle)
