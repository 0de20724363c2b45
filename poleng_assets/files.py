"""Files that other people open: written whole or not at all, readable by their owner only."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Write a text file beside its place and move it there: nobody ever opens half of it.

    Its folder is made if it is missing; it must not be one that others may write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(0o600)
    return part.replace(path)
