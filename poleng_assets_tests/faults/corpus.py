"""The corpus: files as people really drop them, broken and odd, and what must become of each.

Every case is made by code from a fixed seed, put into landing, and taken through the project's own
sensors and arrival assets. What is expected is said by the case alone: which rows stand in the warehouse,
with which answers, which stand in quarantine, or that the file is refused and why. No test framework is
needed: ``make test-faults`` runs the corpus too.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from poleng_assets.core.ingestion.contract import FileRefused, required_columns
from poleng_assets.core.ingestion.ingest import content_hash, ingest, record_refusal
from poleng_assets.core.ingestion.row_accounting import rows_in
from poleng_assets.definitions import build_defs
from poleng_assets.defs import jobs
from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.defs.sensors import (
    batch_arrivals,
    field_study_arrivals,
    outcome_arrivals,
)
from poleng_assets.headless.runner import HeadlessRunner
from poleng_assets.simulation.population import synthesise
from poleng_assets.storage.home import KINDS, Home, Kind
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets_tests.faults.corpus_content import content_cases
from poleng_assets_tests.faults.corpus_landing import cut_off_cases, landing_cases
from poleng_assets_tests.faults.corpus_rows import repeated_cases
from poleng_assets_tests.faults.quick_study import shipped, write_study
from poleng_assets_tests.faults.row_counter import rows_of

ROWS = 100
MAX_EXPANDED_MEGABYTES = 24
PATIENCE_SECONDS = 20.0
ONE_RUN_IN = 8
SUFFIXES = (".csv.gz", ".csv.bz2", ".csv.zst", ".csv", ".parquet")
ARRIVAL_JOBS: dict[Kind, str] = {
    "field_studies": jobs.ingest_field_study.name,
    "batches": jobs.process_batch.name,
    "outcomes": jobs.ingest_outcomes.name,
}
SENSORS: dict[Kind, dg.SensorDefinition] = {
    "field_studies": field_study_arrivals,
    "batches": batch_arrivals,
    "outcomes": outcome_arrivals,
}

Cells = Mapping[tuple[int, str], str]
Write = Callable[[Path, Study, pd.DataFrame], None]


@dataclass(frozen=True)
class Refused:
    """The file goes to ``rejected``; ``says`` is a regular expression that the reason must match."""

    says: str


@dataclass(frozen=True)
class Waits:
    """Nobody touches the file: it is being copied, or hidden."""


@dataclass(frozen=True)
class Taken:
    """The file is taken in.

    Attributes:
        rows_read: data rows of the file.
        quarantined: row number and the column at fault (several: a frozenset); ``*`` is the whole row.
        changed: what the case changed in the rows that are kept: row number and column, and the answer
            that must stand in the warehouse. Everything else must equal what the case was given.
    """

    rows_read: int = ROWS
    quarantined: Mapping[int, str | frozenset[str]] = field(default_factory=dict)
    changed: Mapping[tuple[int, str], str | int | None] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return self.rows_read - len(self.quarantined)


@dataclass(frozen=True)
class Case:
    """One file: its name, how it is written, and what must become of it.

    ``write`` gets the path, the study and ``ROWS`` labelled people of its own (ids as text, everything
    else as ``Int64``), so that no two cases have the same content unless they mean to. ``version`` is
    the id of a file whose name is taken. ``by_functions``: it follows on another case, and needs no run of
    Dagster to be told from it.
    """

    name: str
    kind: Kind
    file_name: str
    write: Write
    expected: Refused | Taken | Waits
    same_people_as: str = ""
    version: str = ""
    by_functions: bool = False

    @property
    def id(self) -> str:
        if self.version:
            return self.version
        suffix = next((s for s in SUFFIXES if self.file_name.endswith(s)), "")
        return self.file_name.removesuffix(suffix)

    @property
    def follows(self) -> bool:
        """Whether another case has its name or its content."""
        return bool(self.version or self.same_people_as)

    def people(self, people: pd.DataFrame) -> pd.DataFrame:
        seed = zlib.crc32((self.same_people_as or self.name).encode())
        return people.sample(ROWS, random_state=seed).reset_index(drop=True)


@dataclass(frozen=True)
class Outcome:
    """What became of a case; ``problems`` is empty when it came out as expected.

    ``rows_in`` were in the file before anybody touched it, by a counter of its own; None when it has none
    that can be counted, or stays in landing.
    """

    case: Case
    problems: tuple[str, ...]
    seconds: float
    rows_in: int | None = None

    @property
    def as_expected(self) -> bool:
        return not self.problems


# Writing files


def cells_of(study: Study, kind: Kind, rows: pd.DataFrame, changed: Cells | None = None) -> list[list[str]]:
    """Return the header and the rows as text; a missing answer is an empty text."""
    columns = required_columns(study, kind)
    frame = rows[columns].astype(object)
    frame = frame.map(lambda value: "" if value is pd.NA else str(value))
    for (row, column), text in (changed or {}).items():
        frame.loc[row - 1, column] = text
    return [columns, *frame.to_numpy().tolist()]


def joined(
    cells: Sequence[Sequence[str]], delimiter: str = ",", newline: str = "\n", quote: bool = False
) -> str:
    """Return the cells as delimited text; texts are quoted where they must be, or everywhere."""
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=newline,
        quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL,
    )
    writer.writerows(cells)
    return text.getvalue()


def compress(file_name: str, content: bytes) -> bytes:
    """Return the bytes as a file of that name holds them."""
    if file_name.endswith(".gz"):
        return gzip.compress(content, mtime=0)
    if file_name.endswith(".bz2"):
        return bz2.compress(content)
    if file_name.endswith(".zst"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return bytes(sink.getvalue())
    return content


def plain_table(study: Study, kind: Kind, rows: pd.DataFrame) -> pa.Table:
    """Return the rows as a table of text ids and 64-bit numbers."""
    return pa.Table.from_pandas(rows[required_columns(study, kind)], preserve_index=False)


def _text(
    edit: Callable[[list[list[str]]], list[list[str]]] = lambda cells: cells,
    *,
    kind: Kind = "field_studies",
    changed: Cells | None = None,
    delimiter: str = ",",
    newline: str = "\n",
    quote: bool = False,
    lines: Callable[[list[str]], list[str]] = lambda lines: lines,
    encode: Callable[[str], bytes] = str.encode,
    pack: Callable[[bytes], bytes] | None = None,
) -> Write:
    """Return a writer of delimited text: first cells are edited, then physical lines, then bytes."""

    def write(path: Path, study: Study, rows: pd.DataFrame) -> None:
        text = joined(edit(cells_of(study, kind, rows, changed)), delimiter, "\n", quote)
        text = newline.join(lines(text.split("\n")))
        content = encode(text)
        path.write_bytes(pack(content) if pack else compress(path.name, content))

    return write


def _parquet(
    edit: Callable[[pa.Table], pa.Table] = lambda table: table,
    *,
    kind: Kind = "field_studies",
    **options: Any,
) -> Write:
    def write(path: Path, study: Study, rows: pd.DataFrame) -> None:
        pq.write_table(edit(plain_table(study, kind, rows)), path, **options)

    return write


def _damaged(write: Write, damage: Callable[[bytes], bytes]) -> Write:
    def damaged(path: Path, study: Study, rows: pd.DataFrame) -> None:
        write(path, study, rows)
        path.write_bytes(damage(path.read_bytes()))

    return damaged


def _content(content: bytes) -> Write:
    def write(path: Path, study: Study, rows: pd.DataFrame) -> None:
        path.write_bytes(content)

    return write


def _cast(types: Mapping[str, pa.DataType] | pa.DataType, *names: str) -> Callable[[pa.Table], pa.Table]:
    """Return an edit that gives columns another type."""

    def edit(table: pa.Table) -> pa.Table:
        wanted = types if isinstance(types, Mapping) else dict.fromkeys(names, types)
        for name, kind in wanted.items():
            position = table.column_names.index(name)
            table = table.set_column(position, name, table[name].cast(kind, safe=False))
        return table

    return edit


def _column(name: str, values: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    """Return an edit that replaces one column."""

    def edit(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values(table))

    return edit


def _more(columns: Mapping[str, Any], first: bool = False) -> Callable[[pa.Table], pa.Table]:
    """Return an edit that adds columns, even of a name that is there already."""

    def edit(table: pa.Table) -> pa.Table:
        added = [(name, pa.array(values)) for name, values in columns.items()]
        there = [(name, table[name]) for name in table.column_names]
        pairs = [*added, *there] if first else [*there, *added]
        return pa.Table.from_arrays([column for _, column in pairs], names=[name for name, _ in pairs])

    return edit


def _with_column(
    name: str, values: Sequence[str], first: bool = False
) -> Callable[[list[list[str]]], list[list[str]]]:
    """Return an edit that adds a column to text."""

    def edit(cells: list[list[str]]) -> list[list[str]]:
        added = [name, *values]
        return [[a, *row] if first else [*row, a] for a, row in zip(added, cells, strict=True)]

    return edit


def _replaced(row: int, line: str) -> Callable[[list[str]], list[str]]:
    """Return an edit that puts a physical line into the place of a data row."""
    return lambda lines: [*lines[:row], line, *lines[row + 1 :]]


def _inserted(before: int, *new: str) -> Callable[[list[str]], list[str]]:
    """Return an edit that puts physical lines before a data row."""
    return lambda lines: [*lines[:before], *new, *lines[before:]]


def _link(to: Callable[[Path], Path]) -> Write:
    def write(path: Path, study: Study, rows: pd.DataFrame) -> None:
        path.symlink_to(to(path))

    return write


def _good_file_outside(path: Path) -> Path:
    outside = path.parents[2] / f"outside_{path.name}"
    outside.write_text("a file of somebody else\n", encoding="utf-8")
    outside.chmod(0o644)
    return outside


def _folder(path: Path, study: Study, rows: pd.DataFrame) -> None:
    path.mkdir()
    _text()(path / "inside.csv", study, rows)


def _fifo(path: Path, study: Study, rows: pd.DataFrame) -> None:
    os.mkfifo(path)


def _encrypted(path: Path, study: Study, rows: pd.DataFrame) -> None:
    with duckdb.connect() as con:
        con.execute("SET force_mbedtls_unsafe = 'true'")  # the key is in this file anyway
        con.execute("PRAGMA add_parquet_key('key', '0123456789abcdef')")
        con.register("people", plain_table(study, "field_studies", rows))
        con.execute(f"COPY people TO '{path}' (FORMAT parquet, ENCRYPTION_CONFIG {{footer_key: 'key'}})")


def _workbook(path: Path, study: Study, rows: pd.DataFrame) -> None:
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")


def _json(path: Path, study: Study, rows: pd.DataFrame) -> None:
    path.write_text(rows.to_json(orient="records"), encoding="utf-8")


def _bomb(path: Path, study: Study, rows: pd.DataFrame) -> None:
    """A few kilobytes that would become far more than the study lets them: members repeated."""
    block = "".join(f"{'x' * 60}\n" for _ in range(20_000)).encode()
    head = joined(cells_of(study, "field_studies", rows)).encode()
    times = 1 + (MAX_EXPANDED_MEGABYTES * 3 * 1_000_000) // len(block)
    path.write_bytes(compress(path.name, head) + compress(path.name, block) * times)


def _page_flipped(path: Path, study: Study, rows: pd.DataFrame) -> None:
    """Damage one value of a page whose checksum the file holds."""
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(plain_table(study, "field_studies", rows), path, **options)
    content = bytearray(path.read_bytes())
    place = content.index(str(rows[study.id].iloc[50]).encode())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def _twice(content: bytes) -> bytes:
    """Compress as two members, as ``cat a.gz b.gz`` does."""
    half = len(content) // 2
    return gzip.compress(content[:half], mtime=0) + gzip.compress(content[half:], mtime=0)


def _bool_column(name: str) -> Callable[[pa.Table], pa.Table]:
    return _column(name, lambda table: pa.array([value == 1 for value in table[name].to_pylist()]))


def _always(values: pa.Array) -> Callable[[pa.Table], pa.Array]:
    return lambda table: values


def _nested(depth: int) -> pa.Array:
    value: Any = [1]
    for _ in range(depth):
        value = [value]
    return pa.array([value] * ROWS)


# The cases


def corpus(study: Study) -> list[Case]:
    """Return every case, those that follow on another one behind it."""
    return [
        *_good_text(study),
        *_good_parquet(study),
        *_ids(study),
        *_other_kinds(study),
        *_broken_rows(study),
        *_broken_parquet_rows(study),
        *_names(),
        *_bad_content(study),
        *_bad_headers(study),
        *_bad_types(study),
        *_too_much(study),
        *_repetitions(),
        *landing_cases(_case, _text, _parquet, Refused, Taken, Waits),
        *cut_off_cases(study, _case, _text, Refused, Taken),
        *repeated_cases(study, _case, _text, _parquet, Refused, Taken),
        *content_cases(study, _case, _text, _parquet, Refused, Taken),
        _case(
            "the same name in capitals",
            _text(),
            Refused("by upper and lower case only"),
            file_name="CAPITALS.csv",
            same_people_as="a name in small letters",
        ),
    ]


def _case(
    name: str, write: Write, expected: Refused | Taken | Waits, suffix: str = ".csv", **more: Any
) -> Case:
    file_name = more.pop("file_name", name.replace(" ", "_") + suffix)
    return Case(name, more.pop("kind", "field_studies"), file_name, write, expected, **more)


def _features(study: Study) -> tuple[str, str, str]:
    """Return the names of a nominal, an ordinal and a binary feature that have an answer in every row."""
    whole = [feature for feature in study.features if feature.name not in unanswered(study)]
    nominal, ordinal, binary = (
        next(f.name for f in whole if f.kind == k) for k in ("nominal", "ordinal", "binary")
    )
    return nominal, ordinal, binary


def unanswered(study: Study) -> tuple[str, ...]:
    """Return the features that some people of the corpus did not answer: the last of two kinds."""
    return tuple([f.name for f in study.features if f.kind == kind][-1] for kind in ("nominal", "ordinal"))


def _good_text(study: Study) -> list[Case]:
    nominal, ordinal, binary = _features(study)
    needed = required_columns(study, "field_studies")
    notes = [f'she said "{n}",\nthen; left|\t' if n % 3 else "" for n in range(ROWS)]
    long_notes = [f'{n} "quoted",\n\n; ' * 6_000 for n in range(ROWS)]
    spaced = {(row, ordinal): f"  {row % 3 + 1}\t " for row in (2, 50, 100)}
    pointed = {(row, nominal): f"{row}.0" for row in range(1, ROWS + 1)}
    many = [f"unused_{n}" for n in range(5_000)]
    good = Taken()
    return [
        _case("comma", _text(), good),
        _case("semicolon", _text(delimiter=";"), good),
        _case("tab", _text(delimiter="\t"), good),
        _case("pipe", _text(delimiter="|"), good),
        _case(
            "semicolon with commas in a note",
            _text(_with_column("a, b, c, d", ["1,2,3,4"] * ROWS), delimiter=";"),
            good,
        ),
        _case("windows line ends", _text(newline="\r\n"), good),
        _case("old mac line ends", _text(newline="\r"), good),
        _case("no line end at the end", _text(lines=lambda lines: lines[:-1]), good),
        _case("no line end at the end windows", _text(lines=lambda lines: lines[:-1], newline="\r\n"), good),
        _case("mixed line ends", _text(encode=lambda t: t.replace("\n", "\r\n", 40).encode()), good),
        _case("everything quoted", _text(quote=True), good),
        _case(
            "everything quoted with tabs and windows line ends",
            _text(quote=True, delimiter="\t", newline="\r\n"),
            good,
        ),
        _case("utf8 with bom", _text(encode=lambda t: t.encode("utf-8-sig")), good),
        _case(
            "utf8 with bom and quoted header", _text(quote=True, encode=lambda t: t.encode("utf-8-sig")), good
        ),
        _case("utf16 little endian", _text(encode=lambda t: b"\xff\xfe" + t.encode("utf-16-le")), good),
        _case("utf16 big endian", _text(encode=lambda t: b"\xfe\xff" + t.encode("utf-16-be")), good),
        _case(
            "utf16 semicolons windows line ends",
            _text(delimiter=";", newline="\r\n", encode=lambda t: t.encode("utf-16")),
            good,
        ),
        _case("utf32", _text(encode=lambda t: b"\xff\xfe\x00\x00" + t.encode("utf-32-le")), good),
        _case("gzip", _text(), good, ".csv.gz"),
        _case("gzip of two members", _text(pack=_twice), good, ".csv.gz"),
        _case(
            "gzip of utf16 with semicolons",
            _text(delimiter=";", encode=lambda t: t.encode("utf-16")),
            good,
            ".csv.gz",
        ),
        _case("bzip2", _text(), good, ".csv.bz2"),
        _case("zstandard", _text(newline="\r\n"), good, ".csv.zst"),
        _case("blanks in the header", _text(lambda c: [[f"  {name} " for name in c[0]], *c[1:]]), good),
        _case("columns turned round", _text(lambda c: [row[::-1] for row in c]), good),
        _case("a trailing delimiter in every row", _text(lambda c: [[*row, ""] for row in c]), good),
        _case(
            "five trailing delimiters in every row",
            _text(lambda c: [[*row, *[""] * 5] for row in c], delimiter=";"),
            good,
        ),
        _case(
            "blank lines",
            _text(lines=lambda ls: [part for line in ls[:-1] for part in (line, "")] + [""] * 9),
            good,
        ),
        _case(
            "blank lines windows", _text(lines=lambda ls: [*ls[:3], "", "", *ls[3:]], newline="\r\n"), good
        ),
        _case(
            "notes with delimiters quotes and line ends",
            _text(_with_column("notes", notes, first=True)),
            good,
        ),
        _case("long notes over many blocks", _text(_with_column("notes", long_notes)), good),
        _case(
            "long notes over many blocks windows",
            _text(_with_column("notes", long_notes), newline="\r\n"),
            good,
            ".csv.gz",
        ),
        _case(
            "a field of a megabyte", _text(_with_column("notes", ["n" * 1_000_000, *[""] * (ROWS - 1)])), good
        ),
        _case(
            "five thousand columns",
            _text(lambda c: [[*row, *(many if n == 0 else ["7"] * 5_000)] for n, row in enumerate(c)]),
            good,
        ),
        _case(
            "sql in a column name", _text(_with_column('"; DROP TABLE quarantine; --', ["1"] * ROWS)), good
        ),
        _case(
            "columns named as the warehouse names its own",
            _text(
                lambda c: [
                    ["row_number", "part", "batch", "source", "field_study", "filename", *c[0]],
                    *[["9"] * 6 + row for row in c[1:]],
                ]
            ),
            good,
        ),
        _case(
            "a column that differs in capitals only",
            _text(_with_column(ordinal.upper(), ["42"] * ROWS, first=True)),
            good,
        ),
        _case(
            "accents of windows in a note",
            _text(
                _with_column("notes", ["caf\xe9 \x93"] * ROWS),
                encode=lambda t: t.replace("\x93", "\u201c").encode("cp1252"),
            ),
            good,
        ),
        _case(
            "accents of utf8 in a note and a header",
            _text(_with_column("zażółć 調査", ["café 人"] * ROWS)),
            good,
        ),
        _case(
            "codes with blanks around them",
            _text(changed=spaced),
            Taken(changed={(row, ordinal): row % 3 + 1 for row, _ in spaced}),
        ),
        _case(
            "codes as floats in text",
            _text(changed=pointed),
            Taken(changed={(row, nominal): row for row, _ in pointed}),
        ),
        _case(
            "empty texts in quotes",
            _text(changed={(4, binary): ""}, quote=True),
            Taken(changed={(4, binary): None}),
        ),
        _case(
            "a nominal code that nobody knows",
            _text(changed={(7, nominal): "9999", (8, nominal): "2147483647"}),
            Taken(changed={(7, nominal): 9999, (8, nominal): 2147483647}),
        ),
        _case(
            "no answers at all",
            _text(changed={(9, name): "" for name in study.feature_names}),
            Taken(changed={(9, name): None for name in study.feature_names}),
        ),
        _case("dots in the name", _text(), good, file_name="wave7.v2.final.csv"),
        _case("a name of a hundred letters", _text(), good, file_name="n" * 96 + ".csv"),
        _case("a name that is a number", _text(), good, file_name="7.csv.gz"),
        _case("a name that begins like a device", _text(), good, file_name="console.csv"),
        _case(
            "needed columns at both ends",
            _text(
                lambda c: [
                    [row[0], *["x"] * 300, *row[1:]]
                    if n
                    else [row[0], *[f"u{k}" for k in range(300)], *row[1:]]
                    for n, row in enumerate(c)
                ]
            ),
            good,
        ),
        _case(
            "header in quotes with line ends in an unused name",
            _text(_with_column("a name\nin two lines", ["1"] * ROWS)),
            good,
        ),
        _case(
            "a quoted delimiter in the header",
            _text(_with_column(f"{needed[1]};{needed[2]};x", ["1"] * ROWS)),
            good,
        ),
    ]


def _good_parquet(study: Study) -> list[Case]:
    _, ordinal, binary = _features(study)
    names = study.feature_names
    whole = [name for name in names if name not in unanswered(study)]
    yes_no = next(f.name for f in study.features if set(f.codes) == {0, 1})
    text = {name: pa.string() for name in names}
    odd = {
        "nested": _nested(30),
        "picture": [b"\x89PNG"] * ROWS,
        "interviewed": pd.to_datetime(["2024-02-29"] * ROWS),
        "both": [{"a": [1, 2]}] * ROWS,
    }
    good = Taken()
    return [
        _case("plain", _parquet(), good, ".parquet"),
        _case("numbers as text", _parquet(_cast(text)), good, ".parquet"),
        _case(
            "numbers as large text",
            _parquet(_cast(dict.fromkeys(names, pa.large_string()))),
            good,
            ".parquet",
        ),
        _case(
            "floats",
            _parquet(_cast(dict.fromkeys([*names, study.target.name], pa.float64()))),
            good,
            ".parquet",
        ),
        _case("small floats", _parquet(_cast(dict.fromkeys(whole, pa.float32()))), good, ".parquet"),
        _case(
            "missing as nan",
            _parquet(
                _column(
                    unanswered(study)[0],
                    lambda t: pa.array(
                        t[unanswered(study)[0]].to_pandas().astype(float).to_numpy(), from_pandas=False
                    ),
                )
            ),
            good,
            ".parquet",
        ),
        _case("small integers", _parquet(_cast(dict.fromkeys(whole, pa.int16()))), good, ".parquet"),
        _case("unsigned integers", _parquet(_cast(dict.fromkeys(names, pa.uint64()))), good, ".parquet"),
        _case("decimals", _parquet(_cast(dict.fromkeys(names, pa.decimal128(38, 4)))), good, ".parquet"),
        _case(
            "truths",
            _parquet(lambda t: _bool_column(study.target.name)(_bool_column(yes_no)(t))),
            good,
            ".parquet",
        ),
        _case("categories of text", _categories(str), good, ".parquet"),
        _case("categories of numbers", _categories(int), good, ".parquet"),
        _case(
            "text floats",
            _parquet(_column(ordinal, lambda t: pa.array([f" {v}.00 " for v in t[ordinal].to_pylist()]))),
            good,
            ".parquet",
        ),
        _case(
            "a column without any answer",
            _parquet(_column(binary, lambda t: pa.nulls(ROWS))),
            Taken(changed={(row, binary): None for row in range(1, ROWS + 1)}),
            ".parquet",
        ),
        _case(
            "many row groups",
            _parquet(row_group_size=7, compression="zstd", write_statistics=False),
            good,
            ".parquet",
        ),
        _case(
            "no compression and version 1",
            _parquet(compression="none", version="1.0", use_dictionary=False),
            good,
            ".parquet",
        ),
        _case(
            "page checksums", _parquet(write_page_checksum=True, data_page_version="2.0"), good, ".parquet"
        ),
        _case(
            "numbers of an index beside",
            _parquet(_more({"__index_level_0__": list(range(ROWS))})),
            good,
            ".parquet",
        ),
        _case(
            "parquet blanks in the header",
            _parquet(lambda t: t.rename_columns([f" {n} " for n in t.column_names])),
            good,
            ".parquet",
        ),
        _case(
            "parquet columns turned round",
            _parquet(lambda t: t.select(t.column_names[::-1])),
            good,
            ".parquet",
        ),
        _case(
            "parquet sql in a column name",
            _parquet(_more({'x"; DROP TABLE quarantine; --': [1] * ROWS, "*": [2] * ROWS, "": [3] * ROWS})),
            good,
            ".parquet",
        ),
        _case(
            "parquet columns named as the warehouse names its own",
            _parquet(
                _more(
                    {n: [9] * ROWS for n in ("row_number", "part", "file_row_number", "filename", "rowid")},
                    first=True,
                )
            ),
            good,
            ".parquet",
        ),
        _case(
            "parquet a column that differs in capitals only",
            _parquet(_more({ordinal.upper(): [42] * ROWS}, first=True)),
            good,
            ".parquet",
        ),
        _case(
            "parquet five thousand columns",
            _parquet(_more({f"unused_{n}": [n] * ROWS for n in range(5_000)})),
            good,
            ".parquet",
        ),
        _case("parquet odd types beside", _parquet(_more(odd)), good, ".parquet"),
    ]


def _categories(kind: type) -> Write:
    def write(path: Path, study: Study, rows: pd.DataFrame) -> None:
        frame = rows[required_columns(study, "field_studies")].copy()
        for name in study.feature_names:
            frame[name] = frame[name].map(kind, na_action="ignore").astype(object).astype("category")
        frame.to_parquet(path, index=False)

    return write


def _ids(study: Study) -> list[Case]:
    attacks = {
        "formulas": ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", '=HYPERLINK("http://x.example";"y")'],
        "paths": ["../../etc/passwd", "/etc/passwd", "C:\\Windows\\win.ini", "..", "~root"],
        "marks that turn text round": ["abc\u202edef", "\u200fabc", "a\u2066b"],
        "markup": ["<script>alert(1)</script>", "{{7*7}}", "${7*7}", "%s%n", "&amp;"],
        "sql": ["'; DROP TABLE batch_rows; --", '" OR 1=1', "x) UNION SELECT 1"],
        "words that mean nothing elsewhere": ["NULL", "NA", "nan", "None", "true", "1e5", "007", "1.0", "-"],
        "signs of comments": ["#first", "# second", "//", "--", "%"],
        "letters of the world": ["Zoë", "Zoe\u0308", "人口", "😀", "ß", "SS", "\u0131", "\u0130"],
        "capitals that differ": ["ab-1", "AB-1", "Ab-1"],
        "two hundred letters": ["x" * 200, "人" * 200],
        "delimiters": ["a,b", "c;d", "e\tf"[:1] + "|f", '"quoted"', "it's"],
    }
    cases = []
    for what, ids in attacks.items():
        changed = {(row, study.id): text for row, text in enumerate(ids, start=11)}
        cases.append(
            _case(
                f"ids that are {what}",
                _text(changed=changed, quote="delimiters" in what),
                Taken(changed=changed),
            )
        )
    formulas = {(row, study.id): text for row, text in enumerate(attacks["formulas"], start=3)}
    numbers = list(range(9_007_199_254_740_993, 9_007_199_254_740_993 + ROWS))
    floats = [float(n) for n in range(ROWS)]
    cases += [
        _case(
            "parquet ids that are formulas",
            _parquet(_column(study.id, lambda t: _edited(t[study.id], formulas))),
            Taken(changed=formulas),
            ".parquet",
        ),
        _case(
            "ids that are large whole numbers",
            _parquet(_column(study.id, lambda t: pa.array(numbers, pa.int64()))),
            Taken(changed={(n + 1, study.id): str(number) for n, number in enumerate(numbers)}),
            ".parquet",
        ),
        _case(
            "ids that are whole floats",
            _parquet(_column(study.id, lambda t: pa.array(floats))),
            Taken(changed={(n + 1, study.id): str(n) for n in range(ROWS)}),
            ".parquet",
        ),
        _case(
            "ids that are categories",
            _parquet(_column(study.id, lambda t: t[study.id].combine_chunks().dictionary_encode())),
            Taken(),
            ".parquet",
        ),
        _case(
            "ids with blanks around them",
            _text(changed={(5, study.id): "  padded "}),
            Taken(changed={(5, study.id): "padded"}),
        ),
    ]
    return cases


def _edited(
    column: pa.ChunkedArray, cells: Mapping[tuple[int, str], Any], kind: pa.DataType | None = None
) -> pa.Array:
    values = column.to_pylist()
    for (row, _), value in cells.items():
        values[row - 1] = value
    return pa.array(values, kind)


def _other_kinds(study: Study) -> list[Case]:
    nominal, ordinal, _ = _features(study)
    return [
        _case("a batch", _text(kind="batches"), Taken(), kind="batches"),
        _case("a batch in parquet", _parquet(kind="batches"), Taken(), ".parquet", kind="batches"),
        _case(
            "a batch in zstandard with semicolons",
            _text(kind="batches", delimiter=";"),
            Taken(),
            ".csv.zst",
            kind="batches",
        ),
        _case("a batch with the target", _text(), Taken(), kind="batches"),
        _case("a batch of one person", _text(lambda c: c[:2], kind="batches"), Taken(1), kind="batches"),
        _case(
            "a batch with broken rows",
            _text(kind="batches", changed={(2, ordinal): "42", (3, nominal): "x", (4, study.id): ""}),
            Taken(quarantined={2: ordinal, 3: nominal, 4: study.id}),
            kind="batches",
        ),
        _case(
            "a batch without a question",
            _text(lambda c: [row[:-1] for row in c], kind="batches"),
            Refused(f"missing.*{study.feature_names[-1]}"),
            kind="batches",
        ),
        _case("outcomes", _text(kind="outcomes"), Taken(), kind="outcomes"),
        _case(
            "outcomes with pipes and old mac line ends",
            _text(kind="outcomes", delimiter="|", newline="\r"),
            Taken(),
            kind="outcomes",
        ),
        _case("outcomes in parquet", _parquet(kind="outcomes"), Taken(), ".parquet", kind="outcomes"),
        _case("outcomes of one person", _text(lambda c: c[:2], kind="outcomes"), Taken(1), kind="outcomes"),
        _case("outcomes with all answers", _text(), Taken(), kind="outcomes"),
        _case(
            "outcomes that are no codes",
            _text(
                kind="outcomes",
                changed={
                    (2, study.target.name): "yes",
                    (50, study.target.name): "",
                    (100, study.target.name): "2",
                },
            ),
            Taken(quarantined=dict.fromkeys((2, 50, 100), study.target.name)),
            kind="outcomes",
        ),
        _case(
            "outcomes without ids",
            _text(lambda c: [row[1:] for row in c], kind="outcomes"),
            Refused(study.id),
            kind="outcomes",
        ),
    ]


def _broken_rows(study: Study) -> list[Case]:
    nominal, ordinal, binary = _features(study)
    target, person = study.target.name, study.id
    no_code = {(10, ordinal): "NA", (11, nominal): "NULL", (12, binary): "n/a", (13, ordinal): "-"}
    no_number = {
        (20, ordinal): "2.5",
        (21, ordinal): "\uff13",
        (22, nominal): "0x1",
        (23, nominal): "1,5",
        (24, binary): "True",
    }
    control = {
        (5, person): "two\nlines",
        (6, person): "a\ttab",
        (7, person): "bell\x07",
        (8, person): "del\x7f",
    }
    too_long = ",".join(["y" * 50] * 400)
    five = {(row, ordinal): "42" for row in (1, 25, 50, 75, 100)}
    notes = ["one\ntwo\nthree"] * ROWS
    everything = frozenset([*study.feature_names, target])

    def at(cells: Cells) -> dict[int, str | frozenset[str]]:
        return dict(cells.keys())

    def first_id_again(cells: list[list[str]]) -> list[list[str]]:
        cells[40][0] = cells[1][0]
        cells[41][0] = f" {cells[2][0]} "
        return cells

    def utf8_first(text: str) -> bytes:
        return text.replace("@", "\u00e9").encode().replace(b"LATE", b"\xe9")

    return [
        _case(
            "a row too short",
            _text(lines=lambda ls: _replaced(7, ls[7].rsplit(",", 1)[0])(ls)),
            Taken(quarantined={7: "*"}),
        ),
        _case(
            "a row with its id only",
            _text(lines=lambda ls: _replaced(100, ls[100].split(",", 1)[0])(ls)),
            Taken(quarantined={100: "*"}),
        ),
        _case(
            "a row too long",
            _text(lines=lambda ls: _replaced(1, ls[1] + ",1")(ls)),
            Taken(quarantined={1: "*"}),
        ),
        _case("a row much too long", _text(lines=_replaced(3, too_long)), Taken(quarantined={3: "*"})),
        _case(
            "rows too short with tabs and windows line ends",
            _text(
                delimiter="\t", newline="\r\n", lines=lambda ls: _replaced(9, ls[9].rsplit("\t", 2)[0])(ls)
            ),
            Taken(quarantined={9: "*"}),
        ),
        _case(
            "a row cut off at the end",
            _text(lines=lambda ls: [*ls[:-2], ls[-2][: len(ls[-2]) // 2]]),
            Refused("breaks off"),
        ),
        _case(
            "a comment between the rows",
            _text(lines=_inserted(5, "# checked by hand")),
            Taken(101, {5: "*"}, changed={}),
        ),
        _case(
            "a line that only says total",
            _text(lines=lambda ls: [*ls[:-1], "Total: 100", ""]),
            Taken(101, {101: "*"}),
        ),
        _case(
            "a broken row after blank lines",
            _text(lines=lambda ls: [*ls[:3], "", "", "", *ls[3:30], "oops", *ls[30:]]),
            Taken(101, {30: "*"}),
        ),
        _case(
            "a broken row after notes of three lines",
            _text(_with_column("notes", notes, first=True), changed={(60, ordinal): "42"}),
            Taken(quarantined={60: ordinal}),
        ),
        _case(
            "a short row after notes of three lines",
            _text(
                lambda c: [
                    *_with_column("notes", notes, first=True)(c)[:50],
                    ["x", "y"],
                    *_with_column("notes", notes, first=True)(c)[50:],
                ]
            ),
            Taken(101, {50: "*"}),
        ),
        _case(
            "a row of delimiters only",
            _text(lambda c: [*c[:20], [""] * len(c[0]), *c[20:]]),
            Taken(101, {20: frozenset([person, target])}),
        ),
        _case(
            "the header again in the middle",
            _text(lambda c: [*c[:51], c[0], *c[51:]]),
            Taken(101, {51: everything}),
        ),
        _case("values that mean missing elsewhere", _text(changed=no_code), Taken(quarantined=at(no_code))),
        _case("values that are no whole numbers", _text(changed=no_number), Taken(quarantined=at(no_number))),
        _case(
            "codes that the study does not list",
            _text(changed={(3, ordinal): "42", (4, binary): "7", (5, ordinal): "-1"}),
            Taken(quarantined={3: ordinal, 4: binary, 5: ordinal}),
        ),
        _case(
            "nominal codes beyond all numbers",
            _text(changed={(3, nominal): "2147483648", (4, nominal): "99999999999999999999"}),
            Taken(quarantined={3: nominal, 4: nominal}),
        ),
        _case(
            "targets that are missing",
            _text(changed={(3, target): "", (99, target): "  "}),
            Taken(quarantined={3: target, 99: target}),
        ),
        _case(
            "targets that are no codes",
            _text(changed={(3, target): "2", (4, target): "yes", (5, target): "0.5"}),
            Taken(quarantined=dict.fromkeys((3, 4, 5), target)),
        ),
        _case(
            "ids that are empty",
            _text(changed={(3, person): "", (4, person): "   "}),
            Taken(quarantined={3: person, 4: person}),
        ),
        _case(
            "ids of more than two hundred letters",
            _text(changed={(3, person): "x" * 201, (4, person): "y" * 100_000}),
            Taken(quarantined={3: person, 4: person}),
        ),
        _case("ids with control characters", _text(changed=control), Taken(quarantined=at(control))),
        _case("ids that stand twice", _text(first_id_again), Taken(quarantined={40: person, 41: person})),
        _case(
            "ids in the alphabet of windows",
            _text(changed={(3, person): "Jos\xe9"}, encode=lambda t: t.encode("latin-1")),
            Taken(quarantined={3: person}),
        ),
        _case(
            "a foreign byte late in a file of utf8",
            _text(
                _with_column("notes", ["n" * 40_000] * 99 + ["LATE"]),
                changed={(3, person): "Jos@"},
                encode=utf8_first,
            ),
            Taken(quarantined={3: person}),
        ),
        _case(
            "several faults in one row",
            _text(changed={(3, ordinal): "42", (3, nominal): "?", (3, person): ""}),
            Taken(quarantined={3: frozenset([ordinal, nominal, person])}),
        ),
        _case("as many broken rows as are tolerated", _text(changed=five), Taken(quarantined=at(five))),
        _case(
            "broken rows in gzip",
            _text(changed=no_code, newline="\r\n"),
            Taken(quarantined=at(no_code)),
            ".csv.gz",
        ),
        _case(
            "broken rows in utf16",
            _text(changed=no_code, encode=lambda t: t.encode("utf-16")),
            Taken(quarantined=at(no_code)),
        ),
        _case(
            "the last row broken without a line end",
            _text(changed={(100, ordinal): "42"}, lines=lambda ls: ls[:-1]),
            Taken(quarantined={100: ordinal}),
        ),
    ]


def _broken_parquet_rows(study: Study) -> list[Case]:
    nominal, ordinal, binary = _features(study)
    person = study.id

    def floats(name: str, cells: Mapping[int, float]) -> Callable[[pa.Table], pa.Table]:
        def values(table: pa.Table) -> pa.Array:
            numbers = [float(v) for v in table[name].to_pylist()]
            for row, number in cells.items():
                numbers[row - 1] = number
            return pa.array(numbers, from_pandas=False)

        return _column(name, values)

    def decimals(table: pa.Table) -> pa.Array:
        values = [Decimal(v) for v in table[ordinal].to_pylist()]
        values[6] = Decimal("2.5")
        return pa.array(values, pa.decimal128(10, 2))

    ids = [float(n) for n in range(ROWS)]
    ids[2], ids[3], ids[4] = 1.5, 2.0**53, float("inf")
    expected_ids = {(n + 1, person): str(n) for n in range(ROWS)}
    return [
        _case(
            "infinite answers",
            _parquet(floats(ordinal, {4: float("inf"), 5: float("-inf"), 6: 2.5})),
            Taken(quarantined=dict.fromkeys((4, 5, 6), ordinal)),
            ".parquet",
        ),
        _case(
            "decimals between the codes",
            _parquet(_column(ordinal, decimals)),
            Taken(quarantined={7: ordinal}),
            ".parquet",
        ),
        _case(
            "huge whole numbers",
            _parquet(
                _column(
                    nominal,
                    lambda t: _edited(
                        t[nominal], {(3, nominal): 2**31, (4, nominal): 2**62, (5, nominal): -(2**62)}
                    ),
                )
            ),
            Taken(quarantined=dict.fromkeys((3, 4, 5), nominal)),
            ".parquet",
        ),
        _case(
            "unsigned numbers beyond all signed ones",
            _parquet(_column(nominal, lambda t: _edited(t[nominal], {(3, nominal): 2**64 - 1}, pa.uint64()))),
            Taken(quarantined={3: nominal}),
            ".parquet",
        ),
        _case(
            "float ids that are no whole numbers",
            _parquet(_column(person, lambda t: pa.array(ids))),
            Taken(quarantined={3: person, 4: person, 5: person}, changed=expected_ids),
            ".parquet",
        ),
        _case(
            "ids that are null",
            _parquet(_column(person, lambda t: _edited(t[person], {(3, person): None}))),
            Taken(quarantined={3: person}),
            ".parquet",
        ),
        _case(
            "parquet ids with control characters",
            _parquet(
                _column(
                    person,
                    lambda t: _edited(
                        t[person], {(3, person): "a\x00b", (4, person): "a\nb", (5, person): "\x1b[31m"}
                    ),
                )
            ),
            Taken(quarantined=dict.fromkeys((3, 4, 5), person)),
            ".parquet",
        ),
        _case(
            "parquet text that is no code",
            _parquet(
                lambda t: _column(
                    ordinal, lambda u: _edited(u[ordinal], {(3, ordinal): "2.5", (4, ordinal): "two"})
                )(_cast(pa.string(), ordinal)(t))
            ),
            Taken(quarantined={3: ordinal, 4: ordinal}),
            ".parquet",
        ),
        _case(
            "broken rows in later row groups",
            _parquet(
                _column(binary, lambda t: _edited(t[binary], {(91, binary): 7, (100, binary): 8})),
                row_group_size=9,
            ),
            Taken(quarantined={91: binary, 100: binary}),
            ".parquet",
        ),
    ]


def _names() -> list[Case]:
    bad = Refused("name")
    other = Refused(r"neither|suffix|kind of file|\.parquet")
    return [
        _case("a folder", _folder, Refused("regular file")),
        _case(
            "a link to the users of this machine",
            _link(lambda _: Path("/etc/passwd")),
            Refused("regular file"),
        ),
        _case("a link to a file of somebody else", _link(_good_file_outside), Refused("regular file")),
        _case(
            "a link to nothing",
            _link(lambda path: path.with_name("nothing_is_here.csv")),
            Refused("regular file"),
        ),
        _case("a pipe", _fifo, Refused("regular file")),
        _case("blanks in the name", _text(), bad, file_name="my study.csv"),
        _case("two dots in the name", _text(), bad, file_name="a..b.csv"),
        _case("a dot at the end", _text(), Refused("name|neither"), file_name="study.csv."),
        _case("a dash at the beginning", _text(), bad, file_name="-rf.csv"),
        _case("a formula as name", _text(), bad, file_name="=1+1.csv"),
        _case("a command as name", _text(), bad, file_name="$(touch pwned).csv"),
        _case("a line end in the name", _text(), bad, file_name="two\nlines.csv"),
        _case("letters of the world in the name", _text(), bad, file_name="étude_調査_😀.csv"),
        _case("text turned round in the name", _text(), bad, file_name="study\u202evsc.csv"),
        _case("a name of 255 bytes", _text(), bad, file_name="n" * 251 + ".csv"),
        _case("a name of 254 bytes of wide letters", _text(), bad, file_name="人" * 83 + "x.csv"),
        _case("a name that is no text", _text(), bad, file_name=os.fsdecode(b"\xff\xfe_study.csv")),
        _case("a name of 101 letters", _text(), bad, file_name="n" * 97 + ".csv"),
        _case("device con", _text(), bad, file_name="CON.csv"),
        _case("device nul", _parquet(), bad, file_name="nul.parquet"),
        _case("device com1 in gzip", _text(), bad, file_name="Com1.csv.gz"),
        _case("device lpt9 with a suffix", _text(), bad, file_name="LPT9.backup.csv"),
        _case("a workbook", _workbook, other, ".xlsx"),
        _case("a text file", _text(), other, ".txt"),
        _case("an archive", _workbook, other, ".zip"),
        _case("no suffix", _text(), other, ""),
        _case("an archive of unix", _content(b"\x1f\x8b"), other, ".tar.gz"),
        _case("half a copy", _text(), Waits(), ".csv.part"),
        _case("a hidden file", _text(), Waits(), file_name=".hidden.csv"),
    ]


def _bad_content(study: Study) -> list[Case]:
    good = _text()
    any_words = Refused(r"\w+ \w+")
    noise = np.random.default_rng(7).bytes(4_096)
    html = (
        b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>Session, expired</body></html>\n"
    )

    def open_quote(row: int) -> Write:
        return _text(lines=lambda ls: _replaced(row, '"' + ls[row])(ls))

    return [
        _case("no bytes", _content(b""), Refused("empty|no rows|0 bytes")),
        _case("no bytes in parquet", _content(b""), Refused("empty|0 bytes"), ".parquet"),
        _case("no bytes in gzip", _content(b""), Refused("empty|0 bytes"), ".csv.gz"),
        _case("nothing compressed", _content(gzip.compress(b"", mtime=0)), any_words, ".csv.gz"),
        _case("line ends only", _content(b"\n\r\n\n\n"), any_words),
        _case("a bom only", _content(b"\xef\xbb\xbf"), any_words),
        _case("a header only", _text(lambda c: c[:1]), Refused("rows")),
        _case(
            "a header without a line end", _text(lambda c: c[:1], lines=lambda ls: ls[:-1]), Refused("rows")
        ),
        _case(
            "a header and blank lines",
            _text(lambda c: c[:1], lines=lambda ls: [*ls, "", ""]),
            Refused("rows"),
        ),
        _case("parquet without rows", _parquet(lambda t: t.slice(0, 0)), Refused("rows"), ".parquet"),
        _case("parquet without columns", _parquet(lambda t: t.select([])), any_words, ".parquet"),
        _case("truncated parquet", _damaged(_parquet(), lambda c: c[: len(c) // 2]), any_words, ".parquet"),
        _case("parquet without its last byte", _damaged(_parquet(), lambda c: c[:-1]), any_words, ".parquet"),
        _case(
            "parquet with a corrupt footer",
            _damaged(_parquet(), lambda c: c[:-200] + b"\xff" * 150 + c[-50:]),
            any_words,
            ".parquet",
        ),
        _case(
            "parquet with corrupt pages",
            _damaged(_parquet(), lambda c: c[:4] + b"\x5a" * (len(c) // 2) + c[4 + len(c) // 2 :]),
            any_words,
            ".parquet",
        ),
        _case(
            "parquet with a footer of four gigabytes",
            _damaged(_parquet(), lambda c: c[:-8] + b"\xff\xff\xff\x7fPAR1"),
            any_words,
            ".parquet",
        ),
        _case("parquet whose checksum is wrong", _page_flipped, any_words, ".parquet"),
        _case("two signs of parquet", _content(b"PAR1PAR1"), any_words, ".parquet"),
        _case("noise between signs of parquet", _content(b"PAR1" + noise + b"PAR1"), any_words, ".parquet"),
        _case("encrypted parquet", _encrypted, Refused("encrypt|password|key"), ".parquet"),
        _case("truncated gzip", _damaged(good, lambda c: c[: len(c) // 2]), any_words, ".csv.gz"),
        _case("gzip without its checksum", _damaged(good, lambda c: c[:-8]), any_words, ".csv.gz"),
        _case(
            "gzip with a wrong checksum",
            _damaged(good, lambda c: c[:-8] + b"\0\0\0\0" + c[-4:]),
            any_words,
            ".csv.gz",
        ),
        _case("gzip with noise behind", _damaged(good, lambda c: c + noise), any_words, ".csv.gz"),
        _case("truncated bzip2", _damaged(good, lambda c: c[: len(c) // 2]), any_words, ".csv.bz2"),
        _case(
            "corrupt bzip2", _damaged(good, lambda c: c[:200] + b"\xff" * 20 + c[220:]), any_words, ".csv.bz2"
        ),
        _case("truncated zstandard", _damaged(good, lambda c: c[: len(c) // 2]), any_words, ".csv.zst"),
        _case("zstandard without its last byte", _damaged(good, lambda c: c[:-1]), any_words, ".csv.zst"),
        _case("gzip called zstandard", _text(pack=gzip.compress), any_words, ".csv.zst"),
        _case("text called gzip", _text(pack=lambda c: c), any_words, ".csv.gz"),
        _case("gzip in gzip", _text(pack=lambda c: gzip.compress(gzip.compress(c))), any_words, ".csv.gz"),
        _case("parquet called csv", _parquet(), Refused("parquet")),
        _case("a workbook called csv", _workbook, Refused("xlsx|Excel|workbook|zip|spreadsheet")),
        _case("gzip called csv", _text(pack=gzip.compress), Refused("gz|compress")),
        _case("text called parquet", good, any_words, ".parquet"),
        _case("a page of the web called csv", _content(html), Refused("HTML|page|header")),
        _case("a page of the web called parquet", _content(html), any_words, ".parquet"),
        _case(
            "json called csv",
            _json,
            any_words,
        ),
        _case("noise called csv", _content(noise), any_words),
        _case("a program called csv", _content(b"\x7fELF" + noise), any_words),
        _case(
            "nul characters",
            _text(lines=lambda ls: _replaced(50, ls[50].replace(",", "\0,", 1))(ls)),
            Refused("NUL"),
        ),
        _case(
            "a nul character in a note",
            _text(_with_column("notes", ["n\0"] * ROWS), quote=True),
            Refused("NUL"),
        ),
        _case("zeros at the end", _damaged(good, lambda c: c + b"\0" * 4_096), Refused("NUL")),
        _case("utf16 without a bom", _text(encode=lambda t: t.encode("utf-16-le")), any_words),
        _case("a quote that is never closed", open_quote(50), Refused("quot")),
        _case("a quote that is never closed in the first row", open_quote(1), Refused("quot")),
        _case("a quote that is never closed in the last row", open_quote(100), Refused("quot")),
        _case(
            "a quote that is never closed in the last field",
            _text(lines=lambda ls: _replaced(100, ls[100].rsplit(",", 1)[0] + ',"1')(ls)),
            Refused("quot"),
        ),
        _case(
            "a quote that is never closed in the header",
            _text(lines=lambda ls: ['"' + ls[0], *ls[1:]]),
            any_words,
        ),
        _case("single quotes", _text(lambda c: [[f"'{v}'" for v in row] for row in c]), any_words),
    ]


def _bad_headers(study: Study) -> list[Case]:
    nominal, ordinal, _ = _features(study)
    target = study.target.name
    twice = "twice|two columns|more than once"

    def without(name: str) -> Callable[[list[list[str]]], list[list[str]]]:
        def edit(cells: list[list[str]]) -> list[list[str]]:
            at = cells[0].index(name)
            return [row[:at] + row[at + 1 :] for row in cells]

        return edit

    return [
        _case("no header", _text(lambda c: c[1:]), Refused("header")),
        _case(
            "a title above the header",
            _text(lines=lambda ls: ["Wave 7, cleaned", *ls]),
            any_header := Refused("header|missing|columns"),
        ),
        _case("a hint for excel above the header", _text(lines=lambda ls: ["sep=,", *ls]), any_header),
        _case("without a question", _text(without(ordinal)), Refused(f"missing.*{ordinal}")),
        _case("without the target", _text(without(target)), Refused(f"missing.*{target}")),
        _case("without ids", _text(without(study.id)), Refused(f"missing.*{study.id}")),
        _case(
            "parquet without a question",
            _parquet(lambda t: t.drop_columns([nominal])),
            Refused(f"missing.*{nominal}"),
            ".parquet",
        ),
        _case("columns in capitals", _text(lambda c: [[n.upper() for n in c[0]], *c[1:]]), any_header),
        _case(
            "a question twice", _text(_with_column(ordinal, ["1"] * ROWS)), Refused(f"{ordinal}.*({twice})")
        ),
        _case(
            "ids twice",
            _text(_with_column(study.id, ["1"] * ROWS, first=True)),
            Refused(f"{study.id}.*({twice})"),
        ),
        _case(
            "a question twice after blanks are taken off",
            _text(_with_column(f" {ordinal} ", ["1"] * ROWS)),
            Refused(f"{ordinal}.*({twice})"),
        ),
        _case(
            "a column twice that nobody needs",
            _text(lambda c: [[*row, "note", "note"] for row in c]),
            Refused(f"note.*({twice})"),
        ),
        _case(
            "parquet a question twice",
            _parquet(_more({ordinal: [1] * ROWS})),
            Refused(f"{ordinal}.*({twice})"),
            ".parquet",
        ),
        _case(
            "parquet a question twice after blanks are taken off",
            _parquet(_more({f"{ordinal} ": [1] * ROWS}, first=True)),
            Refused(f"{ordinal}.*({twice})"),
            ".parquet",
        ),
        _case(
            "parquet a column twice that nobody needs",
            _parquet(lambda t: _more({"note": [2] * ROWS})(_more({"note": [1] * ROWS})(t))),
            Refused(f"note.*({twice})"),
            ".parquet",
        ),
        _case("a delimiter that nobody knows", _text(delimiter="~"), any_header),
    ]


def _bad_types(study: Study) -> list[Case]:
    _, ordinal, _ = _features(study)
    days = pd.to_datetime(["2024-02-29"] * ROWS)
    kinds: dict[str, Any] = {
        "lists": pa.array([[1]] * ROWS),
        "structures": pa.array([{"code": 1}] * ROWS),
        "maps": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        "bytes": pa.array([b"1"] * ROWS),
        "dates": pa.array(days.date),
        "moments": pa.array(days),
        "lists of lists of lists": _nested(30),
    }
    cases = [
        _case(
            f"answers that are {what}",
            _parquet(_column(ordinal, _always(values))),
            Refused(ordinal),
            ".parquet",
        )
        for what, values in kinds.items()
    ]
    return [
        *cases,
        _case(
            "ids that are lists",
            _parquet(_column(study.id, lambda t: pa.array([[str(n)] for n in range(ROWS)]))),
            Refused(study.id),
            ".parquet",
        ),
        _case(
            "ids that are bytes",
            _parquet(_column(study.id, lambda t: pa.array([b"\xff%d" % n for n in range(ROWS)]))),
            Refused(study.id),
            ".parquet",
        ),
        _case(
            "ids that are dates",
            _parquet(_column(study.id, lambda t: pa.array(days))),
            Refused(study.id),
            ".parquet",
        ),
        _case(
            "ids that are truths",
            _parquet(_column(study.id, lambda t: pa.array([n % 2 == 0 for n in range(ROWS)]))),
            Refused(study.id),
            ".parquet",
        ),
        _case(
            "targets that are lists",
            _parquet(_column(study.target.name, lambda t: pa.array([[1]] * ROWS))),
            Refused(study.target.name),
            ".parquet",
        ),
        _case(
            "targets that are all missing",
            _parquet(_column(study.target.name, lambda t: pa.nulls(ROWS))),
            Refused(study.target.name),
            ".parquet",
        ),
        _case(
            "answers that are truths where none can be",
            _parquet(_column(ordinal, lambda t: pa.array([False] * ROWS)))
            if 0 not in study.feature(ordinal).codes
            else _content(b""),
            Refused(r"\w"),
            ".parquet",
        ),
    ]


def _too_much(study: Study) -> list[Case]:
    _, ordinal, _ = _features(study)
    six = {(row, ordinal): "42" for row in (1, 20, 40, 60, 80, 100)}
    much = Refused(r"megabyte|MB|expand|larger|too (big|large|long)|longer")
    return [
        _case(
            "more broken rows than are tolerated",
            _text(changed=six),
            Refused(f"6 of (the first )?100.*{ordinal}"),
        ),
        _case(
            "six rows too short",
            _text(
                lines=lambda ls: [
                    line.rsplit(",", 1)[0] if n in range(10, 16) else line for n, line in enumerate(ls)
                ]
            ),
            Refused("6 of (the first )?100"),
        ),
        _case(
            "a trailing delimiter in every row but the header",
            _text(lambda c: [c[0], *[[*row, ""] for row in c[1:]]]),
            Refused("100 of (the first )?100"),
        ),
        _case(
            "a trailing delimiter in the header only",
            _text(lambda c: [[*c[0], ""], *c[1:]]),
            Refused("100 of (the first )?100"),
        ),
        _case(
            "a decimal comma in every row",
            _text(lines=lambda ls: [ls[0], *[line + ",0" for line in ls[1:-1]], ""]),
            Refused("100 of (the first )?100"),
        ),
        _case("a bomb in gzip", _bomb, much, ".csv.gz"),
        _case("a bomb in bzip2", _bomb, much, ".csv.bz2"),
        _case("a bomb in zstandard", _bomb, much, ".csv.zst"),
        _case(
            "a bomb of one line",
            _text(encode=lambda t: t.encode() + b"x" * MAX_EXPANDED_MEGABYTES * 3_000_000),
            much,
            ".csv.gz",
        ),
        _case(
            "a bomb in quotes",
            _text(encode=lambda t: t.encode() + b'"' + b"x\n" * MAX_EXPANDED_MEGABYTES * 1_500_000),
            Refused(f"{much.says}|quot"),
            ".csv.gz",
        ),
    ]


def _repetitions() -> list[Case]:
    twin = "a file that comes again"
    again = {"same_people_as": twin}
    return [
        _case(twin, _text(), Taken(), file_name="twin.csv"),
        _case("the same file under another name", _text(), Refused("twin"), file_name="other.csv", **again),
        _case("another file of that name", _text(), Taken(), file_name="twin.csv", version="twin@2"),
        _case("a third one in gzip", _text(), Taken(), file_name="twin.csv.gz", version="twin@3"),
        _case("a broken one of that name", _content(b""), Refused("empty"), file_name="twin.csv"),
        _case("the file as another kind", _text(), Taken(), file_name="twin.csv", kind="outcomes", **again),
    ]


# Running it


def corpus_people(study: Study) -> pd.DataFrame:
    """Return the people whom the cases draw from: ids as text, everything else ``Int64``."""
    people = synthesise(study, rows=2_000, seed=41, part="clean")
    people = people.astype(dict.fromkeys([*study.feature_names, study.target.name], "Int64"))
    people[study.id] = [f"person-{n:04d}-{study.name}" for n in range(len(people))]
    for step, name in enumerate(unanswered(study), start=9):
        people.loc[people.index % step == 0, name] = pd.NA
    return people


@contextmanager
def _study_named(path: Path) -> Iterator[Study]:
    """Write the shipped study with a small limit on expansion, and let ``POLENG_STUDY`` name it."""
    content = shipped()
    content["policies"]["ingestion"]["max_expanded_megabytes"] = MAX_EXPANDED_MEGABYTES
    write_study(content, path)
    before = os.environ.get("POLENG_STUDY")
    os.environ["POLENG_STUDY"] = str(path)
    try:
        yield load_study()
    finally:
        if before is None:
            del os.environ["POLENG_STUDY"]
        else:
            os.environ["POLENG_STUDY"] = before


@dataclass(frozen=True)
class _Door:
    """The project's sensors and arrival assets over one home; jobs end behind the arrival.

    Scoring and measuring are no part of the door, so each job is cut to its first asset.
    """

    home: Home
    study: Study
    instance: dg.DagsterInstance
    runners: Mapping[Kind, HeadlessRunner]

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.home.warehouse, self.study)

    @classmethod
    def over(cls, home: Home, study: Study, instance: dg.DagsterInstance) -> _Door:
        full = build_defs(home=home, settle_seconds=0.0)
        # Batches wait for a model; that one serves is all that their arrival asks for.
        instance.report_runless_asset_event(
            dg.AssetMaterialization("champion", metadata={"serving_version": 1})
        )
        runners = {}
        for kind in KINDS:
            defs = dg.Definitions(
                assets=full.assets,
                asset_checks=full.asset_checks,
                jobs=[dg.define_asset_job(ARRIVAL_JOBS[kind], selection=[kind])],
                sensors=[SENSORS[kind]],
                executor=dg.in_process_executor,
                resources=full.resources,
            )
            runners[kind] = HeadlessRunner(defs, instance, show=lambda report: None)
        return cls(home, study, instance, runners)


def run_corpus(
    home: Home, cases: Sequence[Case] | None = None, *, one_run_in: int = ONE_RUN_IN
) -> list[Outcome]:
    """Drop every case into landing and let the project react; say for each what came of it.

    Args:
        home: an empty home; the study with its small limit is written into it.
        cases: some of ``corpus(study)``, in its order; all by default.
        one_run_in: each so-many-th case goes through the project's sensors and a run of Dagster (half a
            second each), and every one that follows on another or is followed; the others through the same
            functions.
    """
    home.create()
    with _study_named(home.root / "corpus_study.yaml") as study, open_instance(home) as instance:
        door = _Door.over(home, study, instance)
        people = corpus_people(study)
        chosen = cases or corpus(study)
        followed = {case.same_people_as for case in chosen if not case.by_functions}
        return [
            _run(
                door,
                case,
                case.people(people),
                by_run=number % one_run_in == 0
                or (case.follows and not case.by_functions)
                or case.name in followed,
            )
            for number, case in enumerate(chosen)
        ]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return how many cases came out as expected, and what was wrong with the others."""
    good = sum(outcome.as_expected for outcome in outcomes)
    lines = [f"bad files: {good} of {len(outcomes)} as expected"]
    for outcome in outcomes:
        if not outcome.as_expected:
            lines += [f"  {outcome.case.name} ({outcome.case.file_name[:60]!r}):"]
            lines += [f"    {problem}" for problem in outcome.problems]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Dropped:
    """What is known of a dropped file before anybody touches it."""

    kind_of_file: int
    digest: str
    linked: tuple[Path, int, str] | None

    @classmethod
    def of(cls, path: Path) -> _Dropped:
        status = path.lstat()
        digest = content_hash(path) if stat.S_ISREG(status.st_mode) else ""
        linked = None
        if path.is_symlink() and path.exists():
            target = path.resolve()
            linked = (target, target.stat().st_mode, content_hash(target))
        return cls(stat.S_IFMT(status.st_mode), digest, linked)

    def problems(self, path: Path) -> list[str]:
        """Say what is not as it was, now that the file lies at ``path``."""
        found = []
        status = path.lstat()
        if stat.S_IFMT(status.st_mode) != self.kind_of_file:
            found.append(f"{path} became another kind of file")
        elif stat.S_ISREG(status.st_mode):
            if content_hash(path) != self.digest:
                found.append(f"{path} is not byte for byte what was dropped")
            if status.st_mode & 0o077:
                found.append(f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):o})")
        if self.linked is not None:
            target, mode, digest = self.linked
            if target.stat().st_mode != mode or content_hash(target) != digest:
                found.append(f"the link's target {target} was changed")
        return found


def _take_in(door: _Door, kind: Kind) -> list[tuple[bool, str]]:
    """Do what the sensor and the arrival asset do, without Dagster; return as :func:`_by_runs` does."""
    landing, done = Landing(door.home, settle_seconds=0.0), []
    for dropped in landing.dropped(kind):
        if dropped.problem:
            landing.reject(kind, dropped.path, dropped.problem)
            continue
        try:
            done.append(_take_one_in(door, landing, kind, dropped.path))
        except Exception as error:  # one case that fails otherwise must not hide the others
            done.append((False, f"{type(error).__name__}: {error}"))
    return done


def _take_one_in(door: _Door, landing: Landing, kind: Kind, path: Path) -> tuple[bool, str]:
    with door.warehouse.connect() as con, landing.copied(kind, path) as copy:
        try:
            taken = ingest(con, door.study, kind, copy.path, confirm=copy.confirm)
        except FileRefused as refusal:
            record_refusal(con, kind, copy.path, rows_in(copy.path, door.study, kind), str(refusal))
            stays = landing.reject_copy(kind, copy, str(refusal))[1]
            return False, f"{refusal} {stays}".strip()
        landing.keep(kind, copy, taken.name)
        stays = landing.remove(copy)
        return not stays, stays


def _by_runs(door: _Door, kind: Kind) -> list[tuple[bool, str]]:
    """Let the project react; return of each run whether it was good, and what it said otherwise."""
    return [(run.success, run.message) for run in door.runners[kind].run_until_idle()]


def _run(door: _Door, case: Case, people: pd.DataFrame, *, by_run: bool) -> Outcome:
    path = door.home.landing(case.kind) / case.file_name
    case.write(path, door.study, people)
    if path.is_file() and not path.is_symlink():
        path.chmod(0o644)  # as most people's files are
    dropped = _Dropped.of(path)
    rows_in_file = rows_of(path, required_columns(door.study, case.kind))
    archive, rejected = door.home.archive(case.kind), door.home.rejected(case.kind)
    counts = {} if isinstance(case.expected, Taken) else _counts(door)
    places = (set(archive.iterdir()), set(rejected.iterdir()))
    accepted = _accepted(door, case)
    started = time.monotonic()
    runs = (_by_runs if by_run else _take_in)(door, case.kind)
    seconds = time.monotonic() - started
    new = [
        sorted(set(folder.iterdir()) - before)
        for folder, before in zip((archive, rejected), places, strict=True)
    ]
    if isinstance(case.expected, Taken):
        problems = _taken(door, case, case.expected, people, runs, new, dropped)
        if rows_in_file != case.expected.rows_read:
            problems.append(
                f"{rows_in_file} rows are in the file, and {case.expected.rows_read} were expected"
            )
    elif isinstance(case.expected, Refused):
        problems = _refused(case, case.expected, runs, new, dropped)
        problems += _unchanged(door, case, counts, accepted)
    else:
        problems = [] if path.exists() and not runs and not any(new) else ["it was touched"]
        problems += _unchanged(door, case, counts, accepted)
    if not isinstance(case.expected, Waits) and os.path.lexists(path):
        problems.append("it still lies in landing: " + "; ".join(message[:300] for _, message in runs))
        path.rename(door.home.root / f"left_{zlib.crc32(case.name.encode())}")  # or every later tick meets it
    if seconds > PATIENCE_SECONDS:
        problems.append(f"it took {seconds:.0f} s")
    counted = None if isinstance(case.expected, Waits) else rows_in_file
    return Outcome(case, tuple(problems), seconds, counted)


def rows_somewhere(home: Home, study: Study) -> int:
    """Return how many rows of taken files are in the warehouse, sound or in quarantine."""
    with Warehouse(home.warehouse, study).read() as con:
        kept = sum(con.table(table).count("*").fetchall()[0][0] for table, _ in ROW_TABLES.values())
        apart = con.execute("SELECT count(DISTINCT (source, row_number)) FROM quarantine").fetchall()[0][0]
    return int(kept + apart)


def rows_refused(home: Home, study: Study) -> int:
    """Count the rows of the files in ``rejected``, as far as anybody can."""
    files = [(kind, path) for kind in KINDS for path in sorted(home.rejected(kind).iterdir())]
    return sum(rows_of(path, required_columns(study, kind)) or 0 for kind, path in files)


def _taken(
    door: _Door,
    case: Case,
    expected: Taken,
    people: pd.DataFrame,
    runs: Sequence[tuple[bool, str]],
    new: Sequence[Sequence[Path]],
    dropped: _Dropped,
) -> list[str]:
    archived, rejected = new
    notes = [path.read_text(encoding="utf-8") for path in rejected if path.name.endswith(".reason.txt")]
    if notes:
        return [f"it was refused: {_reason(notes[0])[:400]}"]
    if [success for success, _ in runs] != [True]:
        return [f"not one good run but {runs}"]
    problems = []
    if len(archived) != 1 or rejected:
        problems.append(f"archived {archived}, rejected {rejected}")
    else:
        problems += dropped.problems(archived[0])
    table, key = ROW_TABLES[case.kind]
    columns = required_columns(door.study, case.kind)
    listed = ", ".join(f'"{name}"' for name in columns)
    with door.warehouse.read() as con:
        rows = con.execute(
            f"SELECT row_number, {listed} FROM {table} WHERE {key} = ? ORDER BY 1",
            [case.id],
        ).fetchall()
        faults = con.execute(
            "SELECT row_number, column_name, payload FROM quarantine WHERE source = ? ORDER BY 1, 2",
            [f"{case.kind}/{case.id}"],
        ).fetchall()
        told = con.execute(
            "SELECT rows_read, rows_kept, rows_quarantined FROM ingested_files WHERE kind = ? AND name = ?",
            [case.kind, case.id],
        ).fetchall()
    if told != [(expected.rows_read, expected.kept, len(expected.quarantined))]:
        problems.append(f"(read, kept, quarantined) is {told}, not {expected.rows_read, expected.kept}")
    problems += _compare_rows(door.study, case.kind, expected, people, rows)
    problems += _compare_faults(expected, faults)
    return problems


def _compare_rows(
    study: Study, kind: Kind, expected: Taken, people: pd.DataFrame, rows: Sequence[tuple[Any, ...]]
) -> list[str]:
    """Compare what stands in the warehouse with what the case was given."""
    columns = required_columns(study, kind)
    # A row that the file has more than the people is expected in quarantine; the others move down.
    extra = sorted(set(expected.quarantined)) if expected.rows_read > ROWS else []
    given = iter(people[columns].astype(object).itertuples(index=False, name=None))
    wanted = []
    for number in range(1, expected.rows_read + 1):
        if number in extra:
            continue
        values = dict(zip(columns, next(given), strict=True))
        if number not in expected.quarantined:
            values |= {
                name: expected.changed[number, name] for name in columns if (number, name) in expected.changed
            }
            wanted.append((number, *(None if value is pd.NA else value for value in values.values())))
    stored = [
        (
            row[0],
            *(
                v if v is None or name == study.id else int(v)
                for name, v in zip(columns, row[1:], strict=True)
            ),
        )
        for row in rows
    ]
    different = [pair for pair in zip(stored, wanted, strict=False) if pair[0] != pair[1]]
    if different:
        have, want = different[0]
        cells = [(n, h, w) for n, h, w in zip(["row", *columns], have, want, strict=True) if h != w]
        return [f"{len(different)} kept rows are not as given, first (column, is, should): {cells[:4]}"]
    if len(stored) != len(wanted):
        return [f"{len(stored)} rows are kept, not {len(wanted)}"]
    return []


def _compare_faults(expected: Taken, faults: Sequence[tuple[int, str, str]]) -> list[str]:
    """Compare the quarantine with what the case expects, and look into the payloads."""
    found: dict[int, set[str]] = {}
    problems = []
    for number, column, payload in faults:
        found.setdefault(number, set()).add(column)
        content = json.loads(payload)
        if column == "*" and (set(content) != {"line"} or not 0 < len(content["line"]) <= 2_000):
            problems.append(f"row {number}: the payload is not its line, shortened: {payload[:100]}")
    wanted = {n: {c} if isinstance(c, str) else set(c) for n, c in expected.quarantined.items()}
    if found != wanted:
        differ = {
            n: (found.get(n), wanted.get(n)) for n in {*found, *wanted} if found.get(n) != wanted.get(n)
        }
        problems.append(f"quarantine (is, should): {dict(sorted(differ.items())[:5])}")
    return problems


def _refused(
    case: Case,
    expected: Refused,
    runs: Sequence[tuple[bool, str]],
    new: Sequence[Sequence[Path]],
    dropped: _Dropped,
) -> list[str]:
    archived, rejected = new
    if any(success for success, _ in runs):
        return ["it was taken in"]
    notes = [path for path in rejected if path.name.endswith(".reason.txt")]
    files = [path for path in rejected if path not in notes]
    if len(notes) != 1 or len(files) != 1 or archived:
        return [f"not one file and one reason: rejected {rejected}, archived {archived}"]
    problems = dropped.problems(files[0])
    if notes[0].name != f"{files[0].name}.reason.txt":
        problems.append(f"the reason {notes[0].name} does not stand beside {files[0].name}")
    reason = _reason(notes[0].read_text(encoding="utf-8"))
    if not re.search(expected.says, reason, re.IGNORECASE | re.DOTALL):
        problems.append(f"the reason does not say {expected.says!r}: {reason[:400]}")
    if re.search(r"Traceback|Error: |0x[0-9a-f]{6}|/landing/", reason):
        problems.append(f"the reason is not for people: {reason[:400]}")
    return problems


def _reason(note: str) -> str:
    """Return what the note beside a refused file gives as reason."""
    return note.partition("Why:")[2].partition("What to do:")[0].strip()


def _unchanged(door: _Door, case: Case, counts: Mapping[str, int], accepted: bool) -> list[str]:
    """Say what a refused file left behind in the warehouse or among the partitions."""
    problems = []
    if _counts(door) != counts:
        problems.append(f"it left rows in the warehouse: {counts} became {_counts(door)}")
    if _accepted(door, case) != accepted:
        problems.append("it left a partition behind, or took one away")
    return problems


def _accepted(door: _Door, case: Case) -> bool:
    partitions = PARTITIONS[case.kind].name or ""
    return case.id in door.instance.get_dynamic_partitions(partitions)


def _counts(door: _Door) -> dict[str, int]:
    if not door.home.warehouse.exists():
        with door.warehouse.connect():
            pass  # so that a refused first file is told from the making of the tables
    tables = [table for table, _ in ROW_TABLES.values()] + ["quarantine", "ingested_files"]
    with door.warehouse.read() as con:
        return {t: con.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in tables}
