"""Atomic and durable writes of files that are readable by their owner only.

Files survive a power cut: content is synced before the rename, and the rename before the function returns. So
an event about a file is never ahead of the disk. https://www.man7.org/linux/man-pages/man2/fsync.2.html
explains why the folder needs a sync of its own.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Errors of file systems that cannot sync folders (some network mounts).
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def write_atomically(path: Path, text: str) -> Path:
    """Write a text file atomically, as :func:`in_place_of` does."""
    with in_place_of(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Yield a temporary file, and rename it at the end: no reader sees an incomplete file.

    On an error the previous file is kept and the temporary file is deleted. A missing folder is created; it
    must not be writable by others. On return the file and its name are synced.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    try:
        # Private before it has content; a file left by a killed process is reused.
        part.touch(mode=0o600)
        part.chmod(0o600)
        yield part
        sync_file(part)
        move(part, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the error of a full disk has no file name
        # On a read-only disk this fails as well; the first error is raised.
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def move(path: Path, target: Path) -> Path:
    """Move a file or folder within one disk and sync the move; return its new path.

    Its content must have been synced before (:func:`sync_file`, :func:`sync_tree`).
    """
    path.replace(target)
    sync_folder(target.parent)
    if path.parent != target.parent:
        # In this order: a power cut in between leaves both names, never none.
        sync_folder(path.parent)
    return target


def make_folder(folder: Path, mode: int = 0o777) -> Path:
    """Create a folder and its missing parents, and sync them; return it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=mode)
        sync_folder(path.parent)
    return folder


def sync_file(path: Path) -> None:
    """Sync the content of a file to disk; a link is followed.

    Raises:
        OSError: the sync failed; written data may be lost.
    """
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Sync the file names of a folder to disk, after a move or a removal."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Sync all files below a folder, and their names."""
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
