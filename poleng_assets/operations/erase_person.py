"""Erase a person from the warehouse, the files, the lists and the models' reference rows.

The warehouse knows which reference rows belong to the person, and which answers and scores are unique, so its
rows are erased last: after an interruption the command can run again. Then the DuckDB file is rewritten,
because deleted rows stay in its bytes, and everything is searched for the id, the answers and the scores.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.subject_ids import alike_in_warehouse, plain_id
from poleng_assets.core.ingestion.archive_check import note_rewritten
from poleng_assets.core.privacy.byte_search import file_mentions
from poleng_assets.core.privacy.home_files import ChangedFile, HomeFiles, rewrite
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
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.compaction import compact
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.files import content_hashes
from poleng_assets.warehouse.subject_rows import Answers, others_answered, studies_learned_from
from poleng_assets.warehouse.writes import transaction


class NotNow(RuntimeError):
    """The home is in a state in which no one can be erased; the message says what to do first."""


@dataclass(frozen=True)
class ErasureProof:
    """What was searched at the end, and where traces of the person are left.

    ``closed`` are the files, or parts of them, that could not be searched, with the reason.
    """

    tables: int
    columns: int
    files: int
    bytes: int
    traces: tuple[str, ...]
    closed: tuple[str, ...] = ()


@dataclass
class ErasureReport:
    """The result of an erasure.

    Attributes:
        warehouse: erased rows and mentions, by table.
        files: changed or removed files.
        references: model versions with erased reference rows.
        learned: model versions that were trained on the person: this cannot be undone.
        searches: whether hyperparameter searches, which store a score for each row, were removed.
        backups: earlier backups of this home, which may contain the person.
    """

    warehouse: ErasedRows = field(default_factory=ErasedRows)
    files: list[ChangedFile] = field(default_factory=list)
    references: list[int] = field(default_factory=list)
    learned: list[int] = field(default_factory=list)
    searches: bool = False
    backups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proof: ErasureProof = ErasureProof(0, 0, 0, 0, ())

    @property
    def any(self) -> bool:
        """Whether anything was erased."""
        return bool(self.warehouse.any or self.files or self.references)


def locate_person(home: Home, study: Study, warehouse: Warehouse, subject: str) -> dict[str, int]:
    """Return the number of rows of a person in each table and file; nothing is changed."""
    person = Person.of(subject, study)
    rows: dict[str, int] = {}
    if home.warehouse.exists():
        with warehouse.connect() as con:
            rows = {f"table {table}": count for table, count in locate_rows(con, person).items()}
    files = HomeFiles(home, study, person)
    counts = {str(path.relative_to(home.root)): files.rows_in(path) for path in files}
    return rows | {name: count for name, count in counts.items() if count}


def near_spellings_of(warehouse: Warehouse, subject: str) -> str:
    """Return a description of the ids in the warehouse that differ from an id by spelling only."""
    if not warehouse.path.exists():
        return ""
    with warehouse.read() as con:
        return alike_in_warehouse(con, warehouse.study, [plain_id(subject)]).in_words()


def erase_person(
    home: Home, study: Study, warehouse: Warehouse, registry: Registry, subject: str
) -> ErasureReport:
    """Erase a person from a home, and search for traces; no other process may use the home.

    Raises:
        NotNow: a submitted file with the person is still being ingested or copied.
        WarehouseBusy: another process has the warehouse open.
    """
    person = Person.of(subject, study)
    report = ErasureReport(backups=backups_made(home.root))
    if home.warehouse.exists():
        with warehouse.connect() as con:
            _refuse_unfinished(HomeFiles(home, study, person), content_hashes(con))
            alone = _UniqueAnswers(warehouse, person, con)
            person = replace(person, marks=marks_of(con, study, sorted(person.ids), alone))
            report.files = HomeFiles(home, study, person, report.notes).clean(con)
            _clean_references(home, study, con, person, registry, report)
            if not person.recognisable and (lines := raw_lines_in_quarantine(con)):
                report.notes.append(
                    f"{lines} quarantined rows are unparsed lines, in which an id of {len(person.id)} "
                    "characters cannot be distinguished from an answer"
                )
            _erase_and_record(home, con, person, report)
        alone.con = None
        compact(home.warehouse, warehouse.patience_seconds)
    else:
        files = HomeFiles(home, study, person, report.notes)
        _refuse_unfinished(files, set())
        report.files = files.clean(None)
    report.proof = verify_erasure(home, study, warehouse, person)
    return report


def verify_erasure(home: Home, study: Study, warehouse: Warehouse, person: Person) -> ErasureProof:
    """Search every table and every file of a home for a person.

    Tables and cells are compared by value, and the decompressed bytes of every file are searched for the id
    as a word; with marks, for the answers and the scores as well. In bytes a short id looks like an answer:
    it is searched in id columns only.
    """
    tables = columns = number = size = 0
    traces: list[str] = []
    closed: list[str] = []
    if home.warehouse.exists():
        with warehouse.connect() as con:
            searched = find_traces(con, person)
        tables, columns = searched.tables, searched.columns
        traces += searched.traces
    files = HomeFiles(home, study, person)
    for path in files:
        number += 1
        size += path.stat().st_size
        name = path.relative_to(home.root)
        try:
            traces += [f"{name}: {trace}" for trace in files.traces_in(path)]
            closed += files.closed_parts(path)
        except PermissionError:
            closed.append(f"{name}: it is not readable")
    return ErasureProof(tables, columns, number, size, tuple(traces), tuple(closed))


def described(changed_files: Sequence[ChangedFile], home: Home) -> list[str]:
    """Return one line for each changed file."""
    lines = []
    for changed in changed_files:
        parts = ["removed, because its rows cannot be identified"] if changed.removed else []
        for number, noun in ((changed.rows, "row"), (changed.mentions, "mention")):
            parts += [f"{number} {noun}{'' if number == 1 else 's'}"] if number else []
        lines.append(f"{changed.path.relative_to(home.root)}: {', '.join(parts)}")
    return lines


@dataclass
class _UniqueAnswers:
    """Checks in the warehouse whether answers are unique, and caches the results."""

    warehouse: Warehouse
    person: Person
    con: Connection | None
    known: dict[tuple[tuple[str, ...], Answers], bool] = field(default_factory=dict)

    def __call__(self, names: tuple[str, ...], answers: Answers) -> bool:
        if (names, answers) not in self.known:
            with self._connection() as con:
                others = others_answered(con, self.warehouse.study, self.person.ids, names, answers)
            self.known[names, answers] = not others
        return self.known[names, answers]

    def _connection(self) -> AbstractContextManager[Connection]:
        # A cursor of the open connection, which may be in a transaction.
        return closing(self.con.cursor()) if self.con is not None else self.warehouse.read()


def _refuse_unfinished(files: HomeFiles, ingested: set[tuple[str, str]]) -> None:
    """Raise if a file in landing contains the person and cannot be changed safely.

    Args:
        ingested: kind and content hash of the files in the warehouse.
    """
    for kind in KINDS:
        for path in sorted(files.home.landing(kind).iterdir()):
            if not path.is_file() or path.is_symlink():
                continue
            copied = path.suffix == ".part" and not path.name.startswith(".")
            if copied and file_mentions(path, files.person):
                raise NotNow(
                    f"{path} is still being copied and contains this person: wait until it is complete."
                )
            if path.suffix == ".taken" and files.content_mentions(path):
                raise NotNow(f"{path} is partly ingested: run `poleng run-pending` first, then retry.")
            if (kind, content_hash(path)) in ingested and files.table_mentions(path):
                raise NotNow(
                    f"{path} is ingested but not archived yet: run `poleng run-pending` first, then retry."
                )


def _clean_references(
    home: Home, study: Study, con: Connection, person: Person, registry: Registry, report: ErasureReport
) -> None:
    """Remove the person's rows from the reference of each version; record the versions trained on them."""
    if not home.mlflow_store.exists():
        return
    versions = {version.run_id: version for version in registry.versions()}
    learned_from = set(studies_learned_from(con, person.column, person.ids))
    report.learned = sorted(
        version.version for version in versions.values() if learned_from & set(version.field_studies)
    )
    if learned_from and any(home.tuning.iterdir()):
        # A search stores a score for each training row, and the training rows change.
        registry.delete_searches()
        report.searches = True
    for path in sorted(home.artifacts.rglob(REFERENCE)):
        version = next((versions[part] for part in path.parts if part in versions), None)
        rows = _reference_without(con, study, person, path, version)
        if rows is None:
            continue
        write = partial(_write_parquet, rows, pq.read_metadata(path))
        if version:
            rewrite(path, write, partial(registry.rewriting_reference, version.run_id, path))
            report.references.append(version.version)
        else:
            rewrite(path, write)


def _reference_without(
    con: Connection, study: Study, person: Person, path: Path, version: ModelVersion | None
) -> pa.Table | None:
    """Return a reference without the person's rows; None if it needs no change."""
    remaining = reference_without(con, study, person, path, version.field_studies if version else None)
    if person.marks:
        rows = remaining if remaining is not None else pq.read_table(path)
        is_person = person.marks.rows_of_table(rows)
        if pc.any(is_person).as_py():
            return rows.filter(pc.invert(is_person))
    return remaining


def _write_parquet(rows: pa.Table, like: pq.FileMetaData, target: IO[bytes]) -> None:
    codec = like.row_group(0).column(0).compression
    pq.write_table(rows, target, compression="none" if codec == "UNCOMPRESSED" else codec)


def _erase_and_record(home: Home, con: Connection, person: Person, report: ErasureReport) -> None:
    """Delete the person's rows, and record an erasure without the person's id, in one transaction."""
    with transaction(con):
        report.warehouse = erase_rows(con, person)
        for kind in KINDS:
            archived = [changed.path for changed in report.files if changed.path.parent == home.archive(kind)]
            note_rewritten(con, kind, archived)
        if not report.any:
            return
        rows = sum(report.warehouse.rows.values())
        record_decision(
            con,
            "forget",
            f"a person was erased on request: {rows} rows of the warehouse, {len(report.files)} files",
            evidence={
                "rows": dict(report.warehouse.rows),
                "mentions": dict(report.warehouse.mentions),
                "files_changed": sum(not changed.removed for changed in report.files),
                "files_removed": sum(changed.removed for changed in report.files),
                "references_of_versions": report.references,
                "versions_that_learned_from_the_person": report.learned,
            },
        )
