"""Integrity of the archive: whether its files are unchanged, byte for byte."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.dropped_files import SUFFIXES, content_hash
from poleng_assets.storage.home import Kind
from poleng_assets.warehouse.files import file_records, update_file

REMOVED = "removed"


@dataclass(frozen=True)
class ArchiveFindings:
    """What a comparison of archived files with their hashes found; ids of files, sorted.

    Attributes:
        compared: how many files are what they were.
        differ: files that hold something else.
        gone: files that are not there, though nothing was to remove them.
        unknown: files from which people were erased before hashes of that were kept: nobody can tell.
    """

    compared: int
    differ: tuple[str, ...]
    gone: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Return whether nothing differs and nothing is gone."""
        return not self.differ and not self.gone

    def in_words(self) -> str:
        """Return it as one line, with names."""
        parts = [f"{self.compared:,} files are intact"]
        for what, ids in (
            ("differ", self.differ),
            ("are missing", self.gone),
            ("cannot be compared because people were erased from them", self.unknown),
        ):
            if ids:
                parts.append(f"{len(ids):,} {what}: {', '.join(ids)}")
        return "; ".join(parts)


def compare_archive(
    con: Connection, kind: Kind, folder: Path, moment: datetime, keep_days: int | None
) -> ArchiveFindings:
    """Compare the archived files of one kind with the hash that each had when it was taken in.

    Args:
        keep_days: how long the study keeps archived files, None for ever: older ones may be gone.
    """
    compared, differ, gone, unknown = 0, [], [], []
    for record in sorted(file_records(con, kind), key=lambda record: record.name):
        path = _archived(folder, record.name, record.content_hash)
        if path is None:
            may_be_gone = keep_days is not None and moment - record.ingested_at > timedelta(days=keep_days)
            if not may_be_gone and record.archived_hash != REMOVED:
                gone.append(record.name)
        elif content_hash(path) == (record.archived_hash or record.content_hash):
            compared += 1
        elif record.rows_erased and record.archived_hash is None:
            unknown.append(record.name)
        else:
            differ.append(record.name)
    return ArchiveFindings(compared, tuple(differ), tuple(gone), tuple(unknown))


def note_rewritten(con: Connection, kind: Kind, paths: Iterable[Path]) -> None:
    """Write down what archived files hold since people were erased from them; a file may be gone by that.

    Args:
        con: of the warehouse, within a transaction.
    """
    records = file_records(con, kind)
    for path in paths:
        for record in records:
            if path.name in _file_names(record.name, record.content_hash):
                archived_hash = content_hash(path) if path.exists() else REMOVED
                update_file(con, kind, record.name, archived_hash=archived_hash)


def _file_names(name: str, taken_in: str) -> list[str]:
    """Return how an archived file may be called: earlier releases put a part of the hash there."""
    return [f"{name}{middle}{suffix}" for middle in ("", f".{taken_in[:12]}") for suffix in SUFFIXES]


def _archived(folder: Path, name: str, taken_in: str) -> Path | None:
    return next((folder / file for file in _file_names(name, taken_in) if (folder / file).is_file()), None)
