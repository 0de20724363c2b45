"""A recorder of what reaches the disk: which files were synced, which names, and when events were written.

It stands between the process and the kernel (``os.fsync``, ``os.replace``, ``os.rename``) and between
SQLAlchemy and Dagster's event log. From what it saw it tells what a power cut would leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine


@dataclass
class Recorder:
    """What happened, in its order: ``file`` synced, ``folder`` synced, ``moved``, ``event`` written.

    Files are told apart by their number on the disk: a synced file stays synced when it gets another name.
    """

    root: Path
    happened: list[tuple[str, object]] = field(default_factory=list)

    def lost_at(self, number: int) -> list[str]:
        """Return the files of the home that a power cut right after a happening might lose or leave empty.

        Args:
            number: of the happening.
        """
        before = self.happened[: number + 1]
        files = {what for kind, what in before if kind == "file"}
        folders: dict[str, int] = {
            str(what): place for place, (kind, what) in enumerate(before) if kind == "folder"
        }
        moves = {str(what): place for place, (kind, what) in enumerate(before) if kind == "moved"}
        lost = []
        for path, place in moves.items():
            if not Path(path).exists():
                continue  # moved on later
            if Path(path).stat().st_ino not in files:
                lost.append(f"{path}: its content was not synced")
            if folders.get(str(Path(path).parent), -1) < place:
                lost.append(f"{path}: its name was not synced")
        return lost

    def events(self, asset: str) -> list[int]:
        """Return the happenings that are materialisations of an asset; each is written into two databases."""
        return [n for n, (kind, what) in enumerate(self.happened) if kind == "event" and what == asset]

    def moved_before(self, number: int, folder: Path) -> list[str]:
        """Return what got its name in a folder before a happening."""
        return [
            str(what)
            for kind, what in self.happened[:number]
            if kind == "moved" and Path(str(what)).is_relative_to(folder)
        ]


def _last(happened: list[tuple[str, object]], kind: str) -> dict[str, int]:
    """Return when each name was last synced or given."""
    return {str(what): place for place, (one, what) in enumerate(happened) if one == kind}


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """Record what this process does below a folder, until the end of the block."""
    recorder = Recorder(root)
    fsync, replace, rename, link = os.fsync, os.replace, os.rename, os.link

    def note(kind: str, what: object) -> None:
        recorder.happened.append((kind, what))

    def seen_fsync(handle: int) -> None:
        fsync(handle)
        place = Path(f"/proc/self/fd/{handle}").readlink()
        if place.is_dir():
            note("folder", str(place))
        else:
            note("file", os.fstat(handle).st_ino)

    def seen_move(move: Any) -> Any:
        def moved(source: Any, target: Any, *args: Any, **options: Any) -> None:
            move(source, target, *args, **options)
            place = Path(os.path.abspath(os.fsdecode(target)))  # noqa: PTH100 - links are not followed
            if place.is_relative_to(root) and not place.is_dir():
                note("moved", str(place))

        return moved

    def seen_statement(*arguments: Any) -> None:
        statement, values = arguments[2], arguments[3]
        if statement.startswith("INSERT INTO event_logs"):
            texts = list(values.values() if isinstance(values, dict) else values)
            if "ASSET_MATERIALIZATION" in texts:
                note("event", next(str(one)[2:-2] for one in texts if str(one).startswith('["')))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", seen_fsync)
        for name, move in (("replace", replace), ("rename", rename), ("link", link)):
            patch.setattr(os, name, seen_move(move))
        event.listen(Engine, "before_cursor_execute", seen_statement)
        try:
            yield recorder
        finally:
            event.remove(Engine, "before_cursor_execute", seen_statement)
