"""Erasing a person from the warehouse, and looking through it for what is left of them.

Which tables hold people is asked of the catalogue, so that a table made tomorrow is not forgotten. What
is done with files, models and bytes stands in ``poleng_assets/operations/erase_person.py``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from poleng_assets.core.ingestion.ingest import ROW_TABLES
from poleng_assets.core.privacy.subject import Person
from poleng_assets.study.schema import Study

# These name files, not people, and other rows refer to them.
_KEYS = {"kind", "name", "file", "batch", "source", "field_study", "content_hash", "training_data_hash"}


@dataclass
class Erased:
    """What was erased from the warehouse: rows by table, and cells of other rows that named the person."""

    rows: Counter[str] = field(default_factory=Counter)
    mentions: Counter[str] = field(default_factory=Counter)

    @property
    def any(self) -> bool:
        """Whether the person stood in the warehouse."""
        return bool(self.rows or self.mentions)


@dataclass(frozen=True)
class Looked:
    """What was looked through in the warehouse, and where the person still stands."""

    tables: int
    columns: int
    traces: tuple[str, ...]


def erase(con: duckdb.DuckDBPyConnection, study: Study, person: Person) -> Erased:
    """Delete a person's rows from every table; to be called inside a transaction.

    ``ingested_files`` follows: a row that is erased is no longer kept or in quarantine. An id that stands in
    the text of another row is replaced there.

    Args:
        con: of the warehouse.
        study: names the columns of the row tables.
        person: who is forgotten.
    """
    erased = Erased()
    quarantined = _quarantined(con, person)
    for kind, (table, key) in ROW_TABLES.items():
        for name, rows in con.execute(
            f"SELECT {key}, count(*) FROM {table} WHERE {_is_persons(person)} GROUP BY 1",  # noqa: S608
            _ids(person),
        ).fetchall():
            rows_erased(con, kind, name, kept=rows)
    for source, numbers in _by_source(quarantined).items():
        kind_name, _, name = source.partition("/")
        rows_erased(con, kind_name, name, quarantined=len(numbers))
        for number in sorted(numbers):
            con.execute("DELETE FROM quarantine WHERE source = ? AND row_number = ?", [source, number])
            erased.rows["quarantine"] += 1
    for table, columns in _tables(con).items():
        if person.column in columns:
            gone = con.execute(
                f'DELETE FROM "{table}" WHERE {_is_persons(person)} RETURNING 1',  # noqa: S608
                _ids(person),
            ).fetchall()
            erased.rows += Counter({table: len(gone)})
        for column, row, text in _mentions(con, person, table, columns):
            if column not in _KEYS:
                con.execute(
                    f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?',  # noqa: S608
                    [person.erased_from(text), row],
                )
                erased.mentions[table] += 1
    erased.rows = +erased.rows
    return erased


def look(con: duckdb.DuckDBPyConnection, person: Person) -> Looked:
    """Look for a person in every column of every table.

    A short id is looked for in the columns of ids and in quarantined rows only: elsewhere it may be an
    answer (``core/privacy/subject.py``).
    """
    traces: Counter[str] = Counter()
    tables = _tables(con)
    for table, columns in tables.items():
        if person.column in columns:
            found = con.execute(
                f'SELECT count(*) FROM "{table}" WHERE {_is_persons(person)}',  # noqa: S608
                _ids(person),
            ).fetchall()
            traces[f"table {table}, column {person.column}"] += found[0][0]
        for column, _, _ in _mentions(con, person, table, columns):
            traces[f"table {table}, column {column}"] += 1
    traces["table quarantine, column payload"] += len(_quarantined(con, person))
    for table, column, rows in _marked(con, person, tables):
        traces[f"table {table}, {column}"] += rows
    told = tuple(f"{place}: {count}" for place, count in sorted((+traces).items()))
    return Looked(len(tables), sum(map(len, tables.values())), told)


def raw_lines_in_quarantine(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many quarantined rows are a line that could not be split: a short id is not found there."""
    return sum(set(payload) == {"line"} for _, _, payload in _payloads(con))


def known_places(con: duckdb.DuckDBPyConnection, person: Person) -> dict[str, int]:
    """Return how many rows of each table are the person's; quarantine counts rows of files."""
    counts = {
        table: con.execute(
            f'SELECT count(*) FROM "{table}" WHERE {_is_persons(person)}',  # noqa: S608
            _ids(person),
        ).fetchall()[0][0]
        for table, columns in _tables(con).items()
        if person.column in columns
    }
    counts["quarantine"] = sum(map(len, _by_source(_quarantined(con, person)).values()))
    return {table: rows for table, rows in counts.items() if rows}


def studies_learned_from(con: duckdb.DuckDBPyConnection, person: Person) -> list[str]:
    """Return the field studies in which the person stands among those that models learn from."""
    found = con.execute(
        f"""SELECT DISTINCT field_study FROM field_study_rows
        WHERE part = 'train' AND {_is_persons(person)} ORDER BY 1""",  # noqa: S608
        _ids(person),
    ).fetchall()
    return [study for (study,) in found]


def reference_without(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    person: Person,
    reference: Path,
    field_studies: Sequence[str] | None,
) -> pa.Table | None:
    """Return a version's reference rows without those of a person, or None when there is nothing to do.

    Reference rows have no ids. For each held-out row of the person, one row goes that is equal in all
    answers and the target, unless the reference has no more of them than there are other people who
    answered so: then the person's row is gone already, and the command may run twice.

    Args:
        con: of the warehouse, in which the person still stands.
        study: names the columns.
        person: who is forgotten.
        reference: the Parquet file of the version's reference.
        field_studies: that the version was trained on; None when nobody knows: all.
    """
    columns = [*study.feature_names, study.target.name]
    # Codes of the reference come back from Parquet as text or as numbers: compared as the warehouse has them.
    types = dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'field_study_rows'"
        ).fetchall()
    )
    same = " AND ".join(
        f'TRY_CAST(reference."{name}" AS {types[name]}) IS NOT DISTINCT FROM mine."{name}"'
        for name in columns
    )
    alike = " AND ".join(f'other."{name}" IS NOT DISTINCT FROM mine."{name}"' for name in columns)
    listed = ", ".join(f'"{name}"' for name in columns)
    surplus = con.execute(
        f"""WITH known AS (
            SELECT *, {_is_persons(person)} AS _theirs FROM field_study_rows
            WHERE part = 'holdout' AND ($studies IS NULL OR list_contains($studies, field_study))
        ), mine AS (SELECT {listed}, count(*) AS _rows FROM known WHERE _theirs GROUP BY ALL),
        counted AS (
            SELECT mine.*, (SELECT count(*) FROM known other WHERE NOT other._theirs AND {alike}) AS _others
            FROM mine
        )
        SELECT reference.file_row_number, row_number() OVER (PARTITION BY {
            ", ".join(f'mine."{name}"' for name in columns)
        } ORDER BY reference.file_row_number DESC) AS _place,
            count(*) OVER (PARTITION BY {", ".join(f'mine."{name}"' for name in columns)}) AS _there,
            mine._rows, mine._others
        FROM counted mine JOIN read_parquet($file, file_row_number = true) reference ON {same}
        QUALIFY _place <= least(_rows, _there - _others)""",  # noqa: S608
        {"ids": sorted(person.ids), "studies": field_studies, "file": str(reference)},
    ).fetchall()
    if not surplus:
        return None
    gone = {row for row, *_ in surplus}
    table = pq.read_table(reference)
    return table.filter(pa.array([row not in gone for row in range(table.num_rows)]))


def _is_persons(person: Person) -> str:
    """Return the condition on the column of ids; its parameter is the list of the person's ids."""
    return f'list_contains($ids, "{person.column}"::VARCHAR)'


def _ids(person: Person) -> dict[str, list[str]]:
    return {"ids": sorted(person.ids)}


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Return every table with the type of each of its columns."""
    tables: dict[str, dict[str, str]] = {}
    for table, column, type_ in con.execute(
        """SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables()
        USING (database_name, schema_name, table_name)
        WHERE database_name = current_database() ORDER BY ALL"""
    ).fetchall():
        tables.setdefault(table, {})[column] = type_
    return tables


def _mentions(
    con: duckdb.DuckDBPyConnection, person: Person, table: str, columns: dict[str, str]
) -> Iterator[tuple[str, int, str]]:
    """Yield column, row and text of the cells that name the person, but for the column of ids."""
    if not person.recognisable:
        return
    for column, type_ in columns.items():
        if column == person.column or type_ in _NUMBERS or type_.startswith("TIMESTAMP"):
            continue
        written = dict(enumerate(person.spellings))
        named = " OR ".join(f'contains("{column}"::VARCHAR, $s{number})' for number in written)
        rows = con.execute(
            f'SELECT rowid, "{column}"::VARCHAR FROM "{table}" WHERE {named}',  # noqa: S608
            {f"s{number}": word for number, word in written.items()},
        ).fetchall()
        yield from ((column, row, text) for row, text in rows if person.stands_in(text))


def _marked(
    con: duckdb.DuckDBPyConnection, person: Person, tables: dict[str, dict[str, str]]
) -> Iterator[tuple[str, str, int]]:
    """Yield table, what was found there, and in how many rows: the person's answers, or their exact score."""
    marks = person.marks
    if marks is None:
        return
    for table, columns in tables.items():
        questions = [name for name in marks.study.feature_names if name in columns]
        if len(questions) == len(marks.study.features):
            same = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in questions)
            for answers in marks.answers:
                ((rows,),) = con.execute(
                    f'SELECT count(*) FROM "{table}" WHERE {same}',  # noqa: S608
                    list(answers),
                ).fetchall()
                yield table, "the same answers", rows
        for column, type_ in columns.items():
            if type_ == "DOUBLE" and marks.scores:
                ((rows,),) = con.execute(
                    f'SELECT count(*) FROM "{table}" WHERE list_contains(?, "{column}")',  # noqa: S608
                    [list(marks.scores)],
                ).fetchall()
                yield table, f"the exact score in {column}", rows


_NUMBERS = {"BIGINT", "INTEGER", "DOUBLE", "BOOLEAN"}


def _quarantined(con: duckdb.DuckDBPyConnection, person: Person) -> list[tuple[str, int]]:
    """Return source and number of the quarantined rows that are the person's."""
    return [(source, number) for source, number, payload in _payloads(con) if _is_about(person, payload)]


def _payloads(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for source, number, payload in con.execute(
        "SELECT DISTINCT source, row_number, payload FROM quarantine ORDER BY ALL"
    ).fetchall():
        yield source, number, json.loads(payload)


def _is_about(person: Person, payload: dict[str, Any]) -> bool:
    if set(payload) == {"line"}:
        line = str(payload["line"])
        return person.stands_in(line) or bool(person.marks and person.marks.in_bytes(line.encode()))
    return person.owns(payload.get(person.column)) or bool(person.marks and person.marks.is_row(payload))


def _by_source(rows: Sequence[tuple[str, int]]) -> dict[str, set[int]]:
    sources: dict[str, set[int]] = {}
    for source, number in rows:
        sources.setdefault(source, set()).add(number)
    return sources


def rows_erased(
    con: duckdb.DuckDBPyConnection, kind: str, name: str, kept: int = 0, quarantined: int = 0
) -> None:
    """Keep the account of a file: rows that are erased are no longer kept or in quarantine.

    A field study without some of its rows is other data to learn from: its data get another hash, so that
    a retraining does not take a model of the same file for the same model.
    """
    con.execute(
        """UPDATE ingested_files SET rows_kept = rows_kept - $kept,
            rows_quarantined = rows_quarantined - $quarantined,
            rows_erased = coalesce(rows_erased, 0) + $kept + $quarantined,
            data_hash = CASE WHEN kind = 'field_studies' AND $kept > 0
                THEN sha256(coalesce(data_hash, content_hash) || ' erased ' || $kept) ELSE data_hash END
        WHERE kind = $kind AND name = $name""",
        {"kind": kind, "name": name, "kept": kept, "quarantined": quarantined},
    )


@dataclass(frozen=True)
class StudyData:
    """A field study whose rows are others than those of its file."""

    name: str
    content_hash: str
    data_hash: str
    rows: int


def changed_studies(con: duckdb.DuckDBPyConnection) -> list[StudyData]:
    """Return the field studies whose data changed since their files were taken in."""
    found = con.execute(
        """SELECT name, content_hash, data_hash, rows_kept FROM ingested_files
        WHERE kind = 'field_studies' AND data_hash IS NOT NULL AND withdrawn_at IS NULL ORDER BY name"""
    ).fetchall()
    return [StudyData(*row) for row in found]
