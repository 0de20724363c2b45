"""Forgetting a person: out of the warehouse, the files, the lists and the models' reference rows.

The warehouse tells which rows of a model's reference are the person's, and which answers and scores are
nobody else's, so its rows go last: killed at any moment, the command can simply run again. Then the DuckDB
file is written anew, because deleted rows stay in its bytes, and at the end everything is looked through once
more: for the id, the answers and the scores.
"""

from __future__ import annotations

import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poleng_assets.core.contacts.contact_list import read_list
from poleng_assets.core.data.subject_ids import alike_in_warehouse, plain_id
from poleng_assets.core.ingestion.archive_check import note_rewritten
from poleng_assets.core.privacy.file_erasure import (
    MARKS,
    ErasureCounts,
    Unreadable,
    copy_without_person,
    open_plain,
)
from poleng_assets.core.privacy.packed_files import LIMIT, look_inside, table_holds, without_hidden
from poleng_assets.core.privacy.quasi_identifiers import marks_of
from poleng_assets.core.privacy.subject import Person
from poleng_assets.core.privacy.warehouse_erasure import (
    ErasedRows,
    erase_rows,
    find_traces,
    locate_rows,
    raw_lines_in_quarantine,
    reference_without,
)
from poleng_assets.models.artifacts import REFERENCE
from poleng_assets.models.registry import ModelVersion, Registry
from poleng_assets.operations.backup.make import backups_made
from poleng_assets.storage.dropped_files import SUFFIXES, content_hash, file_id
from poleng_assets.storage.files import in_place_of, move, write_whole
from poleng_assets.storage.home import KINDS, OWN, Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.compaction import compact
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.erasures import changed_studies
from poleng_assets.warehouse.sqlite_files import count_texts, is_sqlite, rewrite_texts, vacuum
from poleng_assets.warehouse.subject_rows import Answers, others_answered, studies_learned_from
from poleng_assets.warehouse.writes import transaction

# Folders of files that people dropped or open: there a file that cannot be read is removed.
OF_PEOPLE = ("landing", "archive", "rejected", "simulation", "contact_lists", "requests")
# Of these, the ones in which ids are made harmless for spreadsheets.
LISTS = ("contact_lists", "requests")
TEXTS = (".txt", ".json", ".html", ".md", ".log", ".out", ".err", ".yaml")
CHUNK = 1 << 22
# All answers side by side, in two bytes for each letter, are shorter.
MARKS_LENGTH = 4096


class NotNow(RuntimeError):
    """Nobody can be forgotten in the present state of the home; the message says what to do first."""


@dataclass
class Changed:
    """What became of a file: rows that went, and words in the rest; ``removed``: the whole file did."""

    path: Path
    rows: int = 0
    mentions: int = 0
    removed: bool = False


@dataclass(frozen=True)
class Proof:
    """What was looked through at the end, and every place where the person still stands.

    ``closed`` are the files, or parts of them, that could not be looked into, with the words for why.
    """

    tables: int
    columns: int
    files: int
    bytes: int
    traces: tuple[str, ...]
    closed: tuple[str, ...] = ()


@dataclass
class Forgotten:
    """What was done to forget a person.

    Attributes:
        warehouse: rows and mentions by table.
        files: that were changed or removed.
        references: model versions whose reference rows lost one of the person.
        learned: model versions that learned from the person: that cannot be undone.
        searches: whether searches for a model, which keep a score for each row, were removed.
        backups: that were made of this home, and may hold the person.
        notes: what could not be told.
        proof: of the end.
    """

    warehouse: ErasedRows = field(default_factory=ErasedRows)
    files: list[Changed] = field(default_factory=list)
    references: list[int] = field(default_factory=list)
    learned: list[int] = field(default_factory=list)
    searches: bool = False
    backups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proof: Proof = Proof(0, 0, 0, 0, ())

    @property
    def any(self) -> bool:
        """Whether the person stood anywhere."""
        return bool(self.warehouse.any or self.files or self.references)


def whereabouts(home: Home, study: Study, warehouse: Warehouse, subject: str) -> dict[str, int]:
    """Return how many rows of each table and file are a person's; nothing is changed."""
    person = Person.of(subject, study)
    found: dict[str, int] = {}
    if home.warehouse.exists():
        with warehouse.connect() as con:
            found = {f"table {table}": rows for table, rows in locate_rows(con, person).items()}
    for path in _files(home):
        if rows := _rows_in(home, study, path, person):
            found[str(path.relative_to(home.root))] = rows
    return found


def near_spellings_of(warehouse: Warehouse, subject: str) -> str:
    """Return in words which ids of the warehouse differ from one that it lacks by spelling alone."""
    if not warehouse.path.exists():
        return ""
    with warehouse.read() as con:
        return alike_in_warehouse(con, warehouse.study, [plain_id(subject)]).in_words()


def forget(home: Home, study: Study, warehouse: Warehouse, registry: Registry, subject: str) -> Forgotten:
    """Erase a person from a home, and look for traces; nobody else may work on the home meanwhile.

    Args:
        home: whose files are changed.
        study: names the columns.
        warehouse: of the home.
        registry: of the home.
        subject: the person's id.

    Raises:
        NotNow: a dropped file that holds the person is still being taken in, or still being copied.
        WarehouseBusy: another process has the warehouse open.
    """
    person = Person.of(subject, study)
    result = Forgotten(backups=backups_made(home.root))
    if home.warehouse.exists():
        with warehouse.connect() as con:
            _refuse_unfinished(home, study, con, person)
            alone = _Alone(warehouse, person, con)
            person = replace(person, marks=marks_of(con, study, sorted(person.ids), alone))
            _clean_files(home, study, person, result, con)
            _clean_references(home, study, con, person, registry, result)
            if not person.recognisable and (lines := raw_lines_in_quarantine(con)):
                result.notes.append(
                    f"{lines} quarantined rows are lines that could not be split, and an id of "
                    f"{len(person.id)} characters cannot be told from an answer there"
                )
            with transaction(con):
                result.warehouse = erase_rows(con, person)
                for kind in KINDS:
                    folder = home.archive(kind)
                    note_rewritten(con, kind, [one.path for one in result.files if one.path.parent == folder])
                if result.any:
                    _record(con, result)
        alone.con = None
        compact(home.warehouse, warehouse.patience_seconds)
    else:
        _refuse_unfinished(home, study, None, person)
        _clean_files(home, study, person, result, None)
    result.proof = prove(home, study, warehouse, person)
    return result


def prove(home: Home, study: Study, warehouse: Warehouse, person: Person) -> Proof:
    """Look through every table and every file of a home for a person.

    Tables and cells are compared as such, and the bytes of every file are searched for the id as a word,
    unpacked where they are packed; with marks, for the answers and the scores as well. Bytes cannot tell a
    short id from an answer: it is looked for in the columns of ids only.
    """
    tables = columns = files = size = 0
    traces: list[str] = []
    closed: list[str] = []
    if home.warehouse.exists():
        with warehouse.connect() as con:
            looked = find_traces(con, person)
        tables, columns = looked.tables, looked.columns
        traces += looked.traces
    for path in _files(home):
        files += 1
        size += path.stat().st_size
        name = path.relative_to(home.root)
        try:
            traces += [f"{name}: {where}" for where in _traces(home, study, path, person)]
            closed += _closed(home, study, path, person)
        except PermissionError:
            closed.append(f"{name}: it may not be read")
    return Proof(tables, columns, files, size, tuple(traces), tuple(closed))


def tell_of_changed_studies(instance: dg.DagsterInstance, warehouse: Warehouse) -> list[str]:
    """Tell the graph of field studies whose data are others since rows were erased; return their names.

    The overseer learns from it that there is something to learn anew, and a retraining is not mistaken for
    one of the same data. Said once for each change, whatever was killed in between.
    """
    with warehouse.connect() as con:
        changed = changed_studies(con)
    told = []
    for study in changed:
        found = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("field_studies"), asset_partitions=[study.name]), 1
        )
        newest = found.records[0].asset_materialization if found.records else None
        known = newest.metadata.get("data_hash") if newest else None
        if known is not None and known.value == study.data_hash:
            continue
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "field_studies",
                partition=study.name,
                metadata={
                    "dagster/row_count": study.rows,
                    "content_hash": study.content_hash,
                    "data_hash": study.data_hash,
                },
                tags={"dagster/data_version": study.data_hash},
            )
        )
        told.append(study.name)
    return told


@dataclass
class _Alone:
    """Asks the warehouse whether nobody else gave the same answers, and remembers what it said."""

    warehouse: Warehouse
    person: Person
    con: duckdb.DuckDBPyConnection | None
    known: dict[tuple[tuple[str, ...], Answers], bool] = field(default_factory=dict)

    def __call__(self, names: tuple[str, ...], answers: Answers) -> bool:
        if (names, answers) not in self.known:
            with self._connection() as con:
                others = others_answered(con, self.warehouse.study, self.person.ids, names, answers)
            self.known[names, answers] = not others
        return self.known[names, answers]

    def _connection(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        # A cursor of the connection that is open: it may be in the middle of a transaction.
        return closing(self.con.cursor()) if self.con is not None else self.warehouse.read()


# Files


def _files(home: Home) -> Iterator[Path]:
    """Yield every file of the home, links aside: what they point to is not the home's."""
    for path in sorted(home.root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _is_of_people(home: Home, path: Path) -> bool:
    return path.relative_to(home.root).parts[0] in OF_PEOPLE and path.name.endswith(SUFFIXES)


def _is_workbook(home: Home, path: Path) -> bool:
    return path.parent == home.contact_lists and path.suffix == ".xlsx" and not path.name.startswith(".")


def _sifted(home: Home, path: Path, target: IO[bytes] | None, person: Person, study: Study) -> ErasureCounts:
    listed = path.relative_to(home.root).parts[0] in LISTS
    answers = {*study.feature_names, study.target.name}
    # A row without an id is told by its answers, which takes reading every row.
    may_lack_ids = person.marks is not None and path.relative_to(home.root).parts[0] not in LISTS
    if (
        person.recognisable
        and not may_lack_ids
        and not path.name.endswith(".parquet")
        and not _bytes_hold(path, person)
    ):
        return ErasureCounts()
    return copy_without_person(path, target, replace(person, listed=listed), answers)


def _refuse_unfinished(
    home: Home, study: Study, con: duckdb.DuckDBPyConnection | None, person: Person
) -> None:
    """Raise when a file in landing holds the person and cannot be changed there without harm."""
    known = set(con.execute("SELECT kind, content_hash FROM ingested_files").fetchall()) if con else set()
    for kind in KINDS:
        for path in sorted(home.landing(kind).iterdir()):
            if not path.is_file() or path.is_symlink():
                continue
            if path.suffix == ".part" and not path.name.startswith(".") and _bytes_hold(path, person):
                raise NotNow(f"{path} is still being copied, and holds this person: wait until it is whole.")
            if path.suffix == ".taken" and _holds_somewhere(path, person):
                raise NotNow(
                    f"{path} was set aside while it was taken in: say `poleng settle` first, then this again."
                )
            if (kind, content_hash(path)) in known and _holds(home, study, path, person):
                raise NotNow(
                    f"{path} was taken in and not archived yet: say `poleng settle` first, then this again."
                )


def _holds(home: Home, study: Study, path: Path, person: Person) -> bool:
    try:
        return path.name.endswith(SUFFIXES) and _sifted(home, path, None, person, study).any
    except Unreadable:
        return _bytes_hold(path, person)


def _rows_in(home: Home, study: Study, path: Path, person: Person) -> int:
    try:
        if _is_workbook(home, path):
            return _rows_in_workbook(path, person)
        return _sifted(home, path, None, person, study).rows if _is_of_people(home, path) else 0
    except Unreadable:
        return 0


def _rows_in_workbook(path: Path, person: Person) -> int:
    if person.recognisable and not _bytes_hold(path, person):
        return 0
    from poleng_assets.core.contacts.workbook import first_cells

    try:
        return sum(person.matches_id(cell) for cell in first_cells(path))
    except ValueError as error:
        raise Unreadable(path.name) from error


def _clean_files(
    home: Home, study: Study, person: Person, result: Forgotten, con: duckdb.DuckDBPyConnection | None
) -> None:
    """Take the person out of every file of the home but the warehouse."""
    called_so = {path.name for path in _files(home) if file_id(path.name) == person.id}
    for path in _files(home):
        if path in (home.warehouse, home.warehouse.with_name(f"{home.warehouse.name}.wal")):
            continue
        try:
            changed = _clean_file(home, study, path, person, con, called_so)
        except PermissionError:
            changed = None  # the proof names it
        except Unreadable:
            changed = _remove_unreadable(home, path, person, result)
        if changed:
            result.files.append(changed)


def _clean_file(
    home: Home,
    study: Study,
    path: Path,
    person: Person,
    con: duckdb.DuckDBPyConnection | None,
    called_so: set[str],
) -> Changed | None:
    """Take the person out of one file.

    Raises:
        Unreadable: it is a file that people dropped, and its rows cannot be told apart.
    """
    if _is_of_people(home, path):
        return _clean_table(home, study, path, person)
    if _is_workbook(home, path):
        return _clean_workbook(study, path, person, con)
    if path.suffix in TEXTS:
        return _clean_text(path, person)
    if path.relative_to(home.root).parts[0] in OF_PEOPLE:
        raise Unreadable(path.name)
    if is_sqlite(path):
        # A batch called like the person is a partition of Dagster's: its name must stay.
        return None if called_so else _clean_sqlite(path, person)
    return None


def _clean_table(home: Home, study: Study, path: Path, person: Person) -> Changed | None:
    if not _sifted(home, path, None, person, study).any:
        return None
    found = ErasureCounts()

    def write(target: IO[bytes]) -> None:
        nonlocal found
        found = _sifted(home, path, target, person, study)

    _rewrite(path, write)
    return Changed(path, found.rows, found.mentions)


def _clean_workbook(
    study: Study, path: Path, person: Person, con: duckdb.DuckDBPyConnection | None
) -> Changed | None:
    """Make the workbook of a contact list anew from the CSV beside it, which is clean by then.

    One that somebody put there, and one whose list cannot be read any more, is removed.
    """
    from poleng_assets.core.contacts.workbook import about_list, write_workbook

    rows = _rows_in_workbook(path, person)
    if not rows and not _bytes_hold(path, person):
        return None
    about = about_list(con, study, path.stem, without=person.ids) if con else None
    try:
        listed = read_list(path.with_suffix(".csv"))
    except (FileNotFoundError, ValueError):
        about = None
    if about is None:
        path.unlink()
        return Changed(path, rows, removed=True)
    with in_place_of(path) as part:
        write_workbook(part, listed, study, about)
        shutil.copystat(path, part)
    return Changed(path, rows, mentions=0 if rows else 1)


def _clean_text(path: Path, person: Person) -> Changed | None:
    if path.stat().st_size > LIMIT:
        if _bytes_hold(path, person):
            raise Unreadable(path.name)
        return None
    content = path.read_bytes()
    encoding = next((code for mark, code in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeError as error:
        raise Unreadable(path.name) from error
    left = _text_without(text, person)
    if left == text:
        return None
    _rewrite(path, lambda target: target.write(left.encode(encoding, "surrogateescape")))
    return Changed(path, mentions=1)


def _text_without(text: str, person: Person) -> str:
    """Return a text without the id, the lines with the person's answers or scores; packed parts too."""
    left = person.redact(text) if person.recognisable else text
    if person.marks and person.marks.in_text(left):
        left = person.marks.redact(left)
    return without_hidden(left, person)


def _remove_unreadable(home: Home, path: Path, person: Person, result: Forgotten) -> Changed | None:
    """Remove a file whose rows cannot be told apart and that holds the person; say so beside its reason."""
    if not _holds_somewhere(path, person):
        if not person.recognisable:
            result.notes.append(
                f"{path} cannot be read, and an id of {len(person.id)} characters cannot be told from an "
                "answer there: look at it, and remove it if it holds this person"
            )
        return None
    folder, *kind = path.relative_to(home.root).parts[:-1]
    if folder not in OF_PEOPLE:
        return None
    if folder in ("landing", "rejected") and kind and kind[0] in KINDS:
        note = home.root / "rejected" / kind[0] / f"{path.name}.reason.txt"
        before = note.read_text(encoding="utf-8", errors="replace") if note.exists() else ""
        write_whole(
            note,
            f"{before}\n{path.name} was removed: it held a person who is forgotten, and its rows could not "
            "be told apart. Drop a file without that person if the others are needed.\n",
        )
    path.unlink()
    return Changed(path, removed=True)


def _holds_somewhere(path: Path, person: Person) -> bool:
    if path.stat().st_size > LIMIT:
        return _bytes_hold(path, person)
    return look_inside(path.read_bytes(), person, path.name).holds


def _closed(home: Home, study: Study, path: Path, person: Person) -> list[str]:
    """Return what of a file could not be looked into; the project's own files are of known kinds."""
    name = path.relative_to(home.root)
    if path.name.startswith(home.warehouse.name):
        own = path in (home.warehouse, home.warehouse.with_name(f"{home.warehouse.name}.wal"))
        return [] if own else [f"{name}: a part or a copy of a warehouse, which this does not look into"]
    if name.parts[0] in OWN and name.parts[0] not in OF_PEOPLE:
        return []
    try:
        if _is_of_people(home, path):
            _sifted(home, path, None, person, study)
            return []
        if _is_workbook(home, path):
            _rows_in_workbook(path, person)
            return []
    except Unreadable:
        pass
    if path.stat().st_size > LIMIT:
        return [f"{name}: larger than {LIMIT // 2**20} MB"]
    return [str(name.parent / words) for words in look_inside(path.read_bytes(), person, path.name).closed]


def _rewrite(
    path: Path,
    write: Callable[[IO[bytes]], object],
    around: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> None:
    """Put other content in the place of a file, whole or not at all; its times and mode stay.

    Args:
        path: of the file.
        write: writes the content.
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


# SQLite


def _clean_sqlite(path: Path, person: Person) -> Changed | None:
    """Take the person out of the texts and free pages of a SQLite file: histories of Dagster and MLflow."""
    if not person.recognisable and not person.marks:
        return None
    cells = rewrite_texts(path, partial(_text_without, person=person))
    if cells or _bytes_hold(path, person):
        vacuum(path)
    return Changed(path, mentions=cells) if cells else None


# Models


def _clean_references(
    home: Home,
    study: Study,
    con: duckdb.DuckDBPyConnection,
    person: Person,
    registry: Registry,
    result: Forgotten,
) -> None:
    """Take the person's rows out of the reference of each version; say which versions learned from them."""
    if not (home.root / "mlflow.db").exists():
        return
    versions = {one.run_id: one for one in registry.versions()}
    learned_from = set(studies_learned_from(con, person.column, person.ids))
    result.learned = sorted(one.version for one in versions.values() if learned_from & set(one.field_studies))
    if learned_from and any(home.tuning.iterdir()):
        # A search keeps a score for each row that it learns from, and these rows are others from now on.
        registry.delete_searches()
        result.searches = True
    for path in sorted(home.artifacts.rglob(REFERENCE)):
        version = _version_of(path, versions)
        left = _reference_without(con, study, person, path, version)
        if left is None:
            continue
        write = partial(_write_parquet, left, pq.read_metadata(path))
        if version:
            _rewrite(path, write, partial(registry.rewriting_reference, version.run_id, path))
            result.references.append(version.version)
        else:
            _rewrite(path, write)


def _reference_without(
    con: duckdb.DuckDBPyConnection, study: Study, person: Person, path: Path, version: ModelVersion | None
) -> pa.Table | None:
    """Return a reference without the person's rows, as the warehouse and the answers tell; None as it is."""
    left = reference_without(con, study, person, path, version.field_studies if version else None)
    if person.marks:
        rows = left if left is not None else pq.read_table(path)
        theirs = person.marks.rows_of_table(rows)
        if pc.any(theirs).as_py():
            return rows.filter(pc.invert(theirs))
    return left


def _write_parquet(rows: pa.Table, like: pq.FileMetaData, target: IO[bytes]) -> None:
    codec = like.row_group(0).column(0).compression
    pq.write_table(rows, target, compression="none" if codec == "UNCOMPRESSED" else codec)


def _version_of(path: Path, versions: dict[str, ModelVersion]) -> ModelVersion | None:
    return next((versions[part] for part in path.parts if part in versions), None)


def _record(con: duckdb.DuckDBPyConnection, result: Forgotten) -> None:
    """Write down that somebody was forgotten, and not who."""
    rows = sum(result.warehouse.rows.values())
    record_decision(
        con,
        "forget",
        f"a person was forgotten on request: {rows} rows of the warehouse, {len(result.files)} files",
        evidence={
            "rows": dict(result.warehouse.rows),
            "mentions": dict(result.warehouse.mentions),
            "files_changed": sum(not one.removed for one in result.files),
            "files_removed": sum(one.removed for one in result.files),
            "references_of_versions": result.references,
            "versions_that_learned_from_the_person": result.learned,
        },
    )


# Looking


def _traces(home: Home, study: Study, path: Path, person: Person) -> Iterator[str]:
    if file_id(path.name) == person.id:
        yield "its name is the id"
    if _is_of_people(home, path):
        yield from _traces_of_table(home, study, path, person)
    elif _is_workbook(home, path):
        if rows := _rows_in(home, study, path, person):
            yield f"{rows} rows"
    elif path.name.endswith(".parquet"):
        if table_holds(pq.read_table(path), person):
            yield "a row or a cell"
    elif is_sqlite(path):
        cells = count_texts(path, lambda text: _text_without(text, person) != text)
        yield from (f"table {table}, column {column}: {rows}" for table, column, rows in cells)
    elif _may_be_anything(home, path) and _holds_somewhere(path, person):
        yield "inside"
    if _bytes_hold(path, person):
        yield "its bytes"


def _traces_of_table(home: Home, study: Study, path: Path, person: Person) -> Iterator[str]:
    try:
        found = _sifted(home, path, None, person, study)
    except Unreadable:
        if _holds_somewhere(path, person):
            yield "inside"
        return
    if found.any:
        yield f"{found.rows} rows, {found.mentions} mentions"


def _may_be_anything(home: Home, path: Path) -> bool:
    """Whether a file is a text, or one that people put there: of others the project knows what they are."""
    first = path.relative_to(home.root).parts[0]
    return path.suffix in TEXTS or first in OF_PEOPLE or first not in OWN


def _bytes_hold(path: Path, person: Person) -> bool:
    """Whether the id, answers or scores stand in the bytes of a file; packed ones are unpacked."""
    if not person.recognisable and not person.marks:
        return False
    if zipfile.is_zipfile(path) and _zip_holds(path, person):
        return True
    try:
        with open_plain(path) as plain:
            if _stream_holds(plain, person):
                return True
    except (OSError, EOFError, zlib.error):
        pass  # it is not packed as its name says, or damaged: its bytes as they are are looked at
    with path.open("rb") as file:
        return _stream_holds(file, person)


def _zip_holds(path: Path, person: Person) -> bool:
    try:
        with zipfile.ZipFile(path) as packed:
            for member in packed.infolist():
                if person.mentioned_in(member.filename):
                    return True
                if member.flag_bits & 1:
                    continue  # encrypted: the proof names it
                with packed.open(member) as file:
                    if _stream_holds(file, person):
                        return True
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, zlib.error, lzma.LZMAError):
        pass  # damaged: what can be read of it is looked into elsewhere, and the rest named
    return False


def _stream_holds(stream: IO[bytes], person: Person) -> bool:
    """Search a stream in windows; a word at the end of one is judged in the next, where it is seen whole."""
    around = 4
    window, cut, last = b"", False, False
    while not last:
        chunk = stream.read(CHUNK)
        last = not chunk
        window += chunk
        if person.marks and person.marks.in_bytes(window):
            return True
        # The literal is found many times faster than the pattern.
        if person.recognisable and any(one in window for one in person.literals):
            for match in person.bytes_pattern.finditer(window):
                if (match.start() >= around or not cut) and (match.end() <= len(window) - around or last):
                    return True
        longest = max(person.longest, MARKS_LENGTH if person.marks else 0)
        cut = cut or len(window) > longest + 2 * around
        window = window[-(longest + 2 * around) :]
    return False


def described(changed: Sequence[Changed], home: Home) -> list[str]:
    """Return one line for each file that was changed."""
    lines = []
    for one in changed:
        told = ["removed, its rows cannot be told apart"] if one.removed else []
        told += [f"{one.rows} {'row' if one.rows == 1 else 'rows'}"] if one.rows else []
        told += [f"{one.mentions} {'mention' if one.mentions == 1 else 'mentions'}"] if one.mentions else []
        lines.append(f"{one.path.relative_to(home.root)}: {', '.join(told)}")
    return lines
