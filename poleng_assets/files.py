"""Files that other people open: written whole or not at all, readable by their owner only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Write a text file beside its place and move it there, as :func:`in_place_of` does."""
    with in_place_of(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Give a file to be written to, and move it to its place at the end: nobody ever opens half of it.

    When it cannot be written, what stood there before still does, and nothing is left beside it. Its
    folder is made if it is missing; it must not be one that others may write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        # Its owner's alone before anything stands in it; one that a killed process left is no other.
        part.touch(mode=0o600)
        part.chmod(0o600)
        yield part
        part.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a disk that fills up while it is written to says no name
        # On a disk that may not be written this fails too: what happened first is what is told.
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
