"""A person in the files of a home: which hold them, how each kind is cleaned, and what is left at the end.

What belongs here is which file is treated how. Tables are copied without the person
(``core/privacy/file_erasure.py``), texts and SQLite files lose words and lines, workbooks are made again.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.contacts.contact_list import read_list
from poleng_assets.core.privacy.byte_search import file_mentions
from poleng_assets.core.privacy.file_erasure import MARKS, ErasureCounts, Unreadable, copy_without_person
from poleng_assets.core.privacy.packed_files import LIMIT, look_inside, table_holds, without_hidden
from poleng_assets.core.privacy.subject import Person
from poleng_assets.storage.dropped_files import SUFFIXES, file_id
from poleng_assets.storage.files import in_place_of, move, write_atomically
from poleng_assets.storage.home import KINDS, OWN, Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.sqlite_files import count_texts, is_sqlite, rewrite_texts, vacuum

# Folders of files that people dropped or open: there a file that cannot be read is removed.
OF_PEOPLE = ("landing", "archive", "rejected", "simulation", "contact_lists", "requests")
# Of these, the ones in which ids are made harmless for spreadsheets.
LISTS = ("contact_lists", "requests")
TEXTS = (".txt", ".json", ".html", ".md", ".log", ".out", ".err", ".yaml")


@dataclass
class ChangedFile:
    """What became of a file: rows that went, and words in the rest; ``removed``: the whole file did."""

    path: Path
    rows: int = 0
    mentions: int = 0
    removed: bool = False


@dataclass(frozen=True)
class HomeFiles:
    """The files of a home, searched for one person.

    Attributes:
        home: whose files they are.
        study: names the columns.
        person: with the marks that are known.
        notes: gets in words what could not be judged.
    """

    home: Home
    study: Study
    person: Person
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Path]:
        """Yield every file of the home, links aside: what they point to is not the home's."""
        for path in sorted(self.home.root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path

    def rows_in(self, path: Path) -> int:
        """Return how many rows of a file are the person's; 0 for one that has none or cannot be read."""
        try:
            if self._is_workbook(path):
                return self._rows_in_workbook(path)
            return self._copy(path, None).rows if self._is_table(path) else 0
        except Unreadable:
            return 0

    def table_mentions(self, path: Path) -> bool:
        """Whether a dropped file holds the person, in rows or in its bytes."""
        try:
            return path.name.endswith(SUFFIXES) and self._copy(path, None).any
        except Unreadable:
            return file_mentions(path, self.person)

    def content_mentions(self, path: Path) -> bool:
        """Whether the content of a file holds the person, whatever it is packed in."""
        if path.stat().st_size > LIMIT:
            return file_mentions(path, self.person)
        return look_inside(path.read_bytes(), self.person, path.name).holds

    def clean(self, con: Connection | None) -> list[ChangedFile]:
        """Take the person out of every file of the home but the warehouse; return what was changed.

        Args:
            con: of the warehouse, in which the person still is; None when there is none.
        """
        named = any(file_id(path.name) == self.person.id for path in self)
        changed_files = []
        for path in self:
            if self._is_warehouse(path):
                continue
            try:
                changed = self._clean_file(path, con, named)
            except PermissionError:
                changed = None  # the proof names it
            except Unreadable:
                changed = self._remove_unreadable(path)
            if changed:
                changed_files.append(changed)
        return changed_files

    def traces_in(self, path: Path) -> Iterator[str]:
        """Yield in words where in a file the person still is."""
        if file_id(path.name) == self.person.id:
            yield "its name is the id"
        if self._is_table(path):
            yield from self._traces_in_table(path)
        elif self._is_workbook(path):
            if rows := self.rows_in(path):
                yield f"{rows} rows"
        elif path.name.endswith(".parquet"):
            if table_holds(pq.read_table(path), self.person):
                yield "a row or a cell"
        elif is_sqlite(path):
            cells = count_texts(path, lambda text: self._redacted(text) != text)
            yield from (f"table {table}, column {column}: {rows}" for table, column, rows in cells)
        elif self._may_be_anything(path) and self.content_mentions(path):
            yield "inside"
        if file_mentions(path, self.person):
            yield "its bytes"

    def closed_parts(self, path: Path) -> list[str]:
        """Return what of a file could not be looked into; the project's own files are of known kinds."""
        name = path.relative_to(self.home.root)
        if path.name.startswith(self.home.warehouse.name):
            reason = f"{name}: a part or a copy of a warehouse, which this does not look into"
            return [] if self._is_warehouse(path) else [reason]
        if name.parts[0] in OWN and name.parts[0] not in OF_PEOPLE:
            return []
        try:
            if self._is_table(path):
                self._copy(path, None)
                return []
            if self._is_workbook(path):
                self._rows_in_workbook(path)
                return []
        except Unreadable:
            pass
        if path.stat().st_size > LIMIT:
            return [f"{name}: larger than {LIMIT // 2**20} MB"]
        closed = look_inside(path.read_bytes(), self.person, path.name).closed
        return [str(name.parent / part) for part in closed]

    # Kinds of files

    def _folder(self, path: Path) -> str:
        return path.relative_to(self.home.root).parts[0]

    def _is_warehouse(self, path: Path) -> bool:
        own = self.home.warehouse
        return path in (own, own.with_name(f"{own.name}.wal"))

    def _is_table(self, path: Path) -> bool:
        return self._folder(path) in OF_PEOPLE and path.name.endswith(SUFFIXES)

    def _is_workbook(self, path: Path) -> bool:
        lists = self.home.contact_lists
        return path.parent == lists and path.suffix == ".xlsx" and not path.name.startswith(".")

    def _may_be_anything(self, path: Path) -> bool:
        """Whether a file is a text, or one that people put there: the project knows what the others are."""
        folder = self._folder(path)
        return path.suffix in TEXTS or folder in OF_PEOPLE or folder not in OWN

    # Looking

    def _copy(self, path: Path, target: IO[bytes] | None) -> ErasureCounts:
        """Copy a table without the person, or only count."""
        listed = self._folder(path) in LISTS
        # A row without an id is told by its answers, which takes reading every row.
        may_lack_ids = self.person.marks is not None and not listed
        if (
            self.person.recognisable
            and not may_lack_ids
            and not path.name.endswith(".parquet")
            and not file_mentions(path, self.person)
        ):
            return ErasureCounts()
        answers = {*self.study.feature_names, self.study.target.name}
        return copy_without_person(path, target, replace(self.person, listed=listed), answers)

    def _rows_in_workbook(self, path: Path) -> int:
        if self.person.recognisable and not file_mentions(path, self.person):
            return 0
        from poleng_assets.core.contacts.workbook import first_cells

        try:
            return sum(self.person.matches_id(cell) for cell in first_cells(path))
        except ValueError as error:
            raise Unreadable(path.name) from error

    def _traces_in_table(self, path: Path) -> Iterator[str]:
        try:
            counts = self._copy(path, None)
        except Unreadable:
            if self.content_mentions(path):
                yield "inside"
            return
        if counts.any:
            yield f"{counts.rows} rows, {counts.mentions} mentions"

    # Cleaning

    def _clean_file(self, path: Path, con: Connection | None, named: bool) -> ChangedFile | None:
        """Take the person out of one file; ``named``: a file is called like the person.

        Raises:
            Unreadable: it is a file that people dropped, and its rows cannot be distinguished.
        """
        if self._is_table(path):
            return self._clean_table(path)
        if self._is_workbook(path):
            return self._clean_workbook(path, con)
        if path.suffix in TEXTS:
            return self._clean_text(path)
        if self._folder(path) in OF_PEOPLE:
            raise Unreadable(path.name)
        # A batch called like the person is a partition of Dagster's: its name must stay.
        return self._clean_sqlite(path) if is_sqlite(path) and not named else None

    def _clean_table(self, path: Path) -> ChangedFile | None:
        if not self._copy(path, None).any:
            return None
        counts = ErasureCounts()

        def write(target: IO[bytes]) -> None:
            nonlocal counts
            counts = self._copy(path, target)

        rewrite(path, write)
        return ChangedFile(path, counts.rows, counts.mentions)

    def _clean_workbook(self, path: Path, con: Connection | None) -> ChangedFile | None:
        """Make the workbook of a contact list again from the CSV beside it, which is clean by then.

        One that somebody put there, and one whose list cannot be read any more, is removed.
        """
        from poleng_assets.core.contacts.workbook import about_list, write_workbook

        rows = self._rows_in_workbook(path)
        if not rows and not file_mentions(path, self.person):
            return None
        about = about_list(con, self.study, path.stem, without=self.person.ids) if con else None
        try:
            listed = read_list(path.with_suffix(".csv"))
        except (FileNotFoundError, ValueError):
            about = None
        if about is None:
            path.unlink()
            return ChangedFile(path, rows, removed=True)
        with in_place_of(path) as part:
            write_workbook(part, listed, self.study, about)
            shutil.copystat(path, part)
        return ChangedFile(path, rows, mentions=0 if rows else 1)

    def _clean_text(self, path: Path) -> ChangedFile | None:
        if path.stat().st_size > LIMIT:
            if file_mentions(path, self.person):
                raise Unreadable(path.name)
            return None
        content = path.read_bytes()
        encoding = next((code for mark, code in MARKS.items() if content.startswith(mark)), "utf-8")
        try:
            text = content.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
        except UnicodeError as error:
            raise Unreadable(path.name) from error
        left = self._redacted(text)
        if left == text:
            return None
        rewrite(path, lambda target: target.write(left.encode(encoding, "surrogateescape")))
        return ChangedFile(path, mentions=1)

    def _clean_sqlite(self, path: Path) -> ChangedFile | None:
        """Take the person out of the texts and free pages of a SQLite file, such as a history of Dagster."""
        if not self.person.recognisable and not self.person.marks:
            return None
        cells = rewrite_texts(path, self._redacted)
        if cells or file_mentions(path, self.person):
            vacuum(path)
        return ChangedFile(path, mentions=cells) if cells else None

    def _redacted(self, text: str) -> str:
        """Return a text without the id, the lines with the person's answers or scores; packed parts too."""
        person = self.person
        left = person.redact(text) if person.recognisable else text
        if person.marks and person.marks.in_text(left):
            left = person.marks.redact(left)
        return without_hidden(left, person)

    def _remove_unreadable(self, path: Path) -> ChangedFile | None:
        """Remove a file with the person whose rows cannot be distinguished; say so beside its reason."""
        if not self.content_mentions(path):
            if not self.person.recognisable:
                self.notes.append(
                    f"{path} cannot be read, and an id of {len(self.person.id)} characters cannot be told "
                    "from an answer there: look at it, and remove it if it holds this person"
                )
            return None
        folder, *kind = path.relative_to(self.home.root).parts[:-1]
        if folder not in OF_PEOPLE:
            return None
        if folder in ("landing", "rejected") and kind and kind[0] in KINDS:
            note = self.home.root / "rejected" / kind[0] / f"{path.name}.reason.txt"
            before = note.read_text(encoding="utf-8", errors="replace") if note.exists() else ""
            write_atomically(
                note,
                f"{before}\n{path.name} was removed: it held a person who is forgotten, and its rows could "
                "not be told apart. Drop a file without that person if the others are needed.\n",
            )
        path.unlink()
        return ChangedFile(path, removed=True)


def rewrite(
    path: Path,
    write: Callable[[IO[bytes]], object],
    around: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> None:
    """Put other content in the place of a file, complete or not at all; its times and mode stay.

    Args:
        around: begins when the file is written, and ends when it is in its place.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch(mode=0o600)
        with part.open("wb") as target:
            write(target)
            target.flush()
            os.fsync(target.fileno())
        shutil.copystat(path, part)
        with around(part) if around else nullcontext():
            move(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
