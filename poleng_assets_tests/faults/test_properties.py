"""What holds for every file, table and cell that can be thought of, not only for those in the corpus."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import dropwhile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from poleng_assets.core.contacts.contact_list import as_csv, contact_list
from poleng_assets.core.data.spreadsheet_safety import escape_formula, unescape_formula
from poleng_assets.core.features.codes import to_codes
from poleng_assets.core.features.encoder import Encoder, EncodingError
from poleng_assets.core.ingestion.contract import FileRefused, required_columns
from poleng_assets.core.ingestion.files import delimited_text, parquet_file
from poleng_assets.core.ingestion.files.open_file import count_rows
from poleng_assets.core.ingestion.ingest import Ingested, ingest
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import create_tables
from poleng_assets_tests.conftest import with_policies

# The same examples on every machine that builds; at a desk, new ones each time.
settings.register_profile(
    "faults",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PROFILE = settings.get_profile("faults")


def _small_study() -> Study:
    """Return the shipped study with one feature of each kind, that tolerates any share of broken rows."""
    study = load_study()
    few = tuple(
        next(f for f in study.features if f.kind == kind) for kind in ("nominal", "ordinal", "binary")
    )
    study = study.model_copy(update={"features": few, "contact_list": (few[0].name,)})
    return with_policies(study, ingestion={"max_quarantined_share": 1.0, "max_expanded_megabytes": 4})


STUDY = _small_study()
NOMINAL, ORDINAL, BINARY = STUDY.feature_names
NEEDED = required_columns(STUDY, "batches")
SUFFIXES = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".parquet")

Stored = list[tuple[Any, ...]]
Faults = dict[int, set[str]]


@dataclass(frozen=True)
class Door:
    """What one file became: its rows in the warehouse, and the columns at fault of each row in quarantine."""

    result: Ingested
    rows: Stored
    faults: Faults


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        create_tables(connection, STUDY)
        yield connection


def through_the_door(con: duckdb.DuckDBPyConnection, file_name: str, content: bytes) -> Door:
    """Take a batch in and forget it again; raises ``FileRefused``, and must raise nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file_name)
        path.write_bytes(content)
        try:
            result = ingest(con, STUDY, "batches", path)
            assert result.rows_read == result.rows_kept + result.rows_quarantined > 0
            limit = STUDY.policies.ingestion.max_expanded_megabytes * 2**20
            assert count_rows(path, NEEDED, max_bytes=limit) == result.rows_read
            columns = ", ".join(f'"{name}"' for name in NEEDED)
            rows = con.execute(f"SELECT row_number, {columns} FROM batch_rows ORDER BY 1").fetchall()
            faults: Faults = {}
            for number, column in con.execute("SELECT row_number, column_name FROM quarantine").fetchall():
                faults.setdefault(number, set()).add(column)
            numbers = [row[0] for row in rows]
            assert (len(numbers), len(faults)) == (result.rows_kept, result.rows_quarantined)
            assert sorted([*numbers, *faults]) == list(range(1, result.rows_read + 1))
            return Door(result, [as_numbers(row) for row in rows], faults)
        finally:
            for table in ("batch_rows", "quarantine", "ingested_files"):
                con.execute(f"DELETE FROM {table}")


def as_numbers(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a stored row: its number, the id, and the codes as numbers."""
    return (*row[:2], *(None if code is None else int(code) for code in row[2:]))


def packed(file_name: str, content: bytes) -> bytes:
    if file_name.endswith(".gz"):
        return gzip.compress(content, mtime=0)
    if file_name.endswith(".bz2"):
        return bz2.compress(content)
    if file_name.endswith(".zst"):
        return bytes(pa.Codec("zstd").compress(content, asbytes=True)) if content else b""
    return content


@contextmanager
def read_in_pieces(chunk: int, block: int) -> Iterator[None]:
    """Let files be read in pieces so small that every edge is met: so many rows, and so many bytes."""
    with ExitStack() as stack:
        for name, value in {"CHUNK": chunk, "_BLOCK": block, "MAX_RECORD": 16 * block}.items():
            stack.enter_context(patch.object(delimited_text, name, value))
        stack.enter_context(patch.object(parquet_file, "CHUNK", chunk))
        yield


# Bytes that are nothing

MAGICS = (b"PAR1", b"\x1f\x8b\x08\x00", b"BZh9", b"\x28\xb5\x2f\xfd")
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE)
HEADERS = (",".join(NEEDED).encode() + b"\n", ";".join(NEEDED).encode() + b"\r\n")
begins = st.sampled_from((b"", *MAGICS, *MARKS, *HEADERS, *HEADERS))
pieces = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b'"', b'""', b",", b";", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"1", b"person,1,1,1\n"]
    ),
    st.text(max_size=30).map(str.encode),
)
anything = st.builds(lambda begin, rest: begin + b"".join(rest), begins, st.lists(pieces, max_size=12))


@settings(PROFILE, max_examples=120)
@given(
    suffix=st.sampled_from(SUFFIXES),
    content=anything,
    pack=st.booleans(),
    end=st.sampled_from([b"", b"PAR1", b"\0"]),
)
@example(suffix=".parquet", content=b"PAR1", pack=False, end=b"\0\0\0\0PAR1")
def test_bytes_of_any_kind_are_refused_or_accounted_for(
    con: duckdb.DuckDBPyConnection, suffix: str, content: bytes, pack: bool, end: bytes
):
    name = f"drop{suffix}"
    try:
        through_the_door(con, name, packed(name, content + end) if pack else content + end)
    except FileRefused as refusal:
        assert len(str(refusal)) > 10
        assert "Traceback" not in str(refusal)


@settings(PROFILE, max_examples=80)
@given(data=st.data())
def test_a_damaged_parquet_or_compressed_file_raises_nothing_but_a_refusal(
    con: duckdb.DuckDBPyConnection, data: st.DataObject
):
    suffix = data.draw(st.sampled_from([".parquet", ".csv.gz", ".csv.bz2", ".csv.zst"]))
    codes = [[f"p{n}" for n in range(30)], [20] * 30, [1] * 30, [2] * 30]
    table = pa.table(dict(zip(NEEDED, codes, strict=True)))
    if suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(table, sink, compression=data.draw(st.sampled_from(["none", "snappy", "zstd"])))
        content = sink.getvalue()
    else:
        content = packed(suffix, table.to_pandas().to_csv(index=False).encode())
    content = data.draw(mutations(content, data.draw(st.integers(1, 4))))
    try:
        through_the_door(con, f"drop{suffix}", content)
    except FileRefused as refusal:
        assert len(str(refusal)) > 10


@st.composite
def mutations(draw: st.DrawFn, content: bytes, times: int) -> bytes:
    """Flip, cut out or put in some bytes of a file."""
    for _ in range(times):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["flip", "cut", "insert", "truncate"])):
            case "flip" if at < len(content):
                content = content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
            case "cut":
                content = content[:at] + content[at + draw(st.integers(1, 40)) :]
            case "insert":
                content = content[:at] + draw(pieces) + content[at:]
            case "truncate" if draw(st.integers(0, 3)) == 0:
                content = content[:at]
    return content


# Files with known faults


@dataclass(frozen=True)
class Cell:
    """An answer as it is written, the code it means, and whether it breaks its row."""

    text: str
    code: int | None = None
    broken: bool = False


def known(name: str) -> st.SearchStrategy[Cell]:
    codes = st.sampled_from(sorted(STUDY.feature(name).codes))
    written = st.sampled_from(["{}", "{}", "{}", " {} ", "{}.0", "{}.000"])
    return st.builds(lambda code, how: Cell(how.format(code), code), codes, written)


no_codes = [
    "NA",
    "NULL",
    "n/a",
    "-",
    "1.5",
    "x",
    "\u0661",
    "1,5",
    "1;5",
    '1"',
    "2147483648",
    "=1",
    "1\n2",
    "#",
]
broken_cell = st.sampled_from([Cell(text, broken=True) for text in no_codes])
not_listed = st.sampled_from([Cell("42", broken=True), Cell("-1", broken=True)])
missing = st.just(Cell(""))
new_code = st.integers(1_000, 2**31 - 1).map(lambda code: Cell(str(code), code))
cells = {
    NOMINAL: st.one_of(known(NOMINAL), known(NOMINAL), known(NOMINAL), new_code, missing, broken_cell),
    ORDINAL: st.one_of(known(ORDINAL), known(ORDINAL), known(ORDINAL), missing, broken_cell, not_listed),
    BINARY: st.one_of(known(BINARY), known(BINARY), known(BINARY), missing, broken_cell, not_listed),
}
letters = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs"))
id_texts = st.text(letters, min_size=1, max_size=12)
broken_ids = st.sampled_from(["", "  ", "a\nb", "a\tb", "x" * 201, "\x07bell"])
notes = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@dataclass(frozen=True)
class Row:
    """A data row as it is written, with its note; ``faults`` are the columns that put it in quarantine."""

    fields: tuple[str, ...]
    stored: tuple[Any, ...]
    faults: frozenset[str]
    note: str


@st.composite
def rows_of_a_file(draw: st.DrawFn, sound_fields: bool = False) -> list[Row]:
    """Draw rows whose fate is known: ids differ, but for those that repeat the one of a sound row."""
    rows: list[Row] = []
    sound: list[str] = []
    for number in range(1, draw(st.integers(1, 25)) + 1):
        fate = draw(st.sampled_from(["id"] * 8 + ["broken id", "again", "short", "long"]))
        if sound_fields and fate in ("short", "long"):
            fate = "id"
        id_ = f"{draw(id_texts)}|{number}"
        faults: set[str] = set()
        if fate == "broken id":
            id_ = draw(broken_ids)
            faults.add(STUDY.id)
        answers = [draw(cells[name]) for name in STUDY.feature_names]
        faults |= {name for name, cell in zip(STUDY.feature_names, answers, strict=True) if cell.broken}
        if fate == "again" and sound and not faults:
            id_ = draw(st.sampled_from(sound))
            faults.add(STUDY.id)
        fields = [id_, *(cell.text for cell in answers)]
        if fate in ("short", "long"):
            faults = {"*"}
        if not faults:
            sound.append(id_)
        note = draw(notes)
        if fate == "short":
            fields.pop()
        if fate == "long":
            fields.append("1")
        stored = (number, id_, *(cell.code for cell in answers))
        rows.append(Row(tuple(fields), stored, frozenset(faults), note))
    return rows


def expected(rows: list[Row]) -> tuple[Stored, Faults]:
    kept = [row.stored for row in rows if not row.faults]
    return kept, {row.stored[0]: set(row.faults) for row in rows if row.faults}


def line_of(record: Any, delimiter: str, quoting: Any) -> str:
    """Return a record without its line end; fields that hold any kind of line end are quoted."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n", quoting=quoting).writerow(record)
    return text.getvalue().removesuffix("\r\n")


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@settings(PROFILE, max_examples=120)
@given(
    rows=rows_of_a_file(),
    delimiter=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    encoding=st.sampled_from(ENCODINGS),
    suffix=st.sampled_from([s for s in SUFFIXES if s != ".parquet"]),
    order=st.permutations(range(len(NEEDED))),
    blank_lines=st.sets(st.integers(0, 25)),
    chunk=st.sampled_from([1, 2, 3, 7, 100_000]),
    block=st.sampled_from([512, 700, 2**22]),
)
def test_text_in_any_form_keeps_the_sound_rows_and_sets_the_broken_ones_apart(
    con: duckdb.DuckDBPyConnection,
    rows: list[Row],
    delimiter: str,
    newline: str,
    quoting: Any,
    encoding: str,
    suffix: str,
    order: list[int],
    blank_lines: set[int],
    chunk: int,
    block: int,
):
    records: list[Any] = [["a note", *(NEEDED[place] for place in order)]]
    for row in rows:
        whole = len(row.fields) == len(NEEDED)
        records.append([row.note, *([row.fields[place] for place in order] if whole else row.fields)])
    lines = [line_of(record, delimiter, quoting) + newline for record in records]
    text = "".join(line + newline * (number in blank_lines) for number, line in enumerate(lines))
    name = f"drop{suffix}"
    with read_in_pieces(chunk, block):
        door = through_the_door(con, name, packed(name, text.encode(encoding)))
    kept, faults = expected(rows)
    assert door.rows == kept
    assert door.faults == faults


TYPINGS = ("text", "large text", "int", "float", "decimal", "dictionary of int", "dictionary of text")


def typed(codes: list[int | None], typing: str) -> pa.Array:
    """Return codes as an Arrow array of a type that answers come in."""
    match typing:
        case "float":
            return pa.array([np.nan if c is None else float(c) for c in codes], pa.float64())
        case "decimal":
            return pa.array([None if c is None else Decimal(c) for c in codes], pa.decimal128(20, 3))
        case "text" | "large text" | "dictionary of text":
            texts = pa.array(
                [None if c is None else f" {c}.0" if c % 2 else str(c) for c in codes], pa.string()
            )
            if typing == "dictionary of text":
                return texts.dictionary_encode()
            return texts.cast(pa.large_string()) if typing == "large text" else texts
        case "dictionary of int":
            return pa.array(codes, pa.int64()).dictionary_encode()
        case _:
            return pa.array(codes, pa.int64())


some_codes = st.one_of(st.none(), st.integers(-3, 12), st.integers(-(2**40), 2**40))


@settings(PROFILE, max_examples=100)
@given(
    data=st.data(),
    table=st.lists(st.tuples(some_codes, some_codes, some_codes), min_size=1, max_size=30),
    typings=st.tuples(*[st.sampled_from(TYPINGS)] * 3),
    order=st.permutations(range(4)),
    group=st.sampled_from([1, 3, 1_000]),
    chunk=st.sampled_from([1, 2, 5, 100_000]),
)
def test_parquet_of_any_types_keeps_the_sound_rows_and_sets_the_broken_ones_apart(
    con: duckdb.DuckDBPyConnection,
    data: st.DataObject,
    table: list[tuple[int | None, ...]],
    typings: tuple[str, ...],
    order: list[int],
    group: int,
    chunk: int,
):
    kept: Stored = []
    faults: Faults = {}
    for number, codes in enumerate(table, start=1):
        wrong = {
            name
            for name, code in zip(STUDY.feature_names, codes, strict=True)
            if code is not None
            and not (-(2**31) <= code < 2**31 if name == NOMINAL else code in STUDY.feature(name).codes)
        }
        if wrong:
            faults[number] = wrong
        else:
            kept.append((number, str(number), *codes))
    ids: list[Any] = list(range(1, len(table) + 1))
    id_type = data.draw(st.sampled_from([pa.int64(), pa.float64(), pa.string(), pa.int8()]))
    columns = [pa.array(ids).cast(id_type)]
    columns += [typed([row[k] for row in table], typings[k]) for k in range(3)]
    sink = io.BytesIO()
    arrow = pa.table([columns[place] for place in order], names=[NEEDED[place] for place in order])
    pq.write_table(arrow, sink, row_group_size=group)
    with read_in_pieces(chunk, 2**22):
        door = through_the_door(con, "drop.parquet", sink.getvalue())
    assert door.rows == kept
    assert door.faults == faults


# Files that were good


def oracle(text: str, delimiter: str, strict: bool) -> list[list[str]] | None:
    """Return the records of a text that are not blank, read by Python; None when it cannot be read.

    Before the header, a record of empty names is as good as blank.
    """
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=strict)
    records, begun = [], 0
    try:
        for record in reader:
            # An empty quoted cell is read as nothing, too: only the text tells that it is no blank line.
            if len(record) > 1 or "".join(lines[begun : reader.line_num]).strip():
                records.append(record)
            begun = reader.line_num
    except csv.Error:
        return None
    return list(dropwhile(lambda record: not any(map(str.strip, record)), records))


def stand_in(text: str, rows: Stored) -> str:
    """Say which kept row stands in no reading of the text, under its number where all agree on it."""
    readings = []
    for delimiter in ",;\t|":
        for strict in (True, False):
            records = oracle(text, delimiter, strict)
            if records and set(NEEDED) <= {name.strip() for name in records[0]}:
                readings.append((records, strict))
    # A record with a broken quote is malformed by itself: what begins with a line after it is read anew.
    lines = text.splitlines(keepends=True)
    anew = [next(csv.reader(lines[k:], delimiter=d), []) for d in ",;\t|" for k in range(len(lines))]
    for row in rows:
        wanted = (row[1], *row[2:])
        for records, strict in readings:
            names = [name.strip() for name in records[0]]
            if strict:
                # The file can be read without doubt: the row must stand in its very place.
                if as_row(records[row[0]], names) != wanted:
                    return f"{row} is not row {row[0]}: {records[row[0]]}"
                break
            if wanted not in [as_row(record, names) for record in [*records[1:], *anew]]:
                return f"{row} stands nowhere"
    return "" if readings or not rows else "there is no header"


def as_row(record: list[str], names: list[str]) -> tuple[Any, ...] | None:
    """Return the id and codes of a record, None when it is not whole."""
    if len(record) != len(names):
        return None
    values = [record[names.index(name)].strip() for name in NEEDED]
    codes, _ = to_codes(pa.array(values[1:]))
    return (values[0], *codes.to_pylist())


@st.composite
def good_text(draw: st.DrawFn) -> str:
    rows = draw(st.lists(st.tuples(*[known(name) for name in STUDY.feature_names]), min_size=2, max_size=8))
    quoting: Any = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    text = io.StringIO()
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    delimiter = draw(st.sampled_from(",;"))
    writer = csv.writer(text, lineterminator=newline, quoting=quoting, delimiter=delimiter)
    writer.writerow([*NEEDED, "note"])
    for number, row in enumerate(rows):
        writer.writerow(
            [f"person {number}", *(cell.text for cell in row), draw(st.sampled_from(["", 'a "b"\nc', "é"]))]
        )
    return text.getvalue()


def test_a_row_behind_a_line_with_a_broken_quote_is_kept_as_its_own_line_has_it(
    con: duckdb.DuckDBPyConnection,
):
    lines = [
        ",".join([*NEEDED, "note"]),
        '"person 0","20","1","1",""',
        '"person 1","20","1","1","é"',
        '"person 2","104#," 1 ","1.000","a ""b""',
        "c#",
        '"person 3","20","1","1",""',
    ]
    text = "\r\n".join([*lines, ""])
    door = through_the_door(con, "drop.csv", text.encode())
    assert [(number, person) for number, person, *_ in door.rows] == [
        (1, "person 0"),
        (2, "person 1"),
        (5, "person 3"),
    ]
    assert set(door.faults) == {3, 4}
    assert stand_in(text, door.rows) == ""


@pytest.mark.parametrize("above", ["\t", ",,,,", " "])
def test_a_header_is_the_first_line_that_names_anything(con: duckdb.DuckDBPyConnection, above: str):
    text = "\n".join([above, ",".join([*NEEDED, "note"]), "person 0,20,1,1,", "person 1,20,1,1,", ""])
    door = through_the_door(con, "drop.csv", text.encode())
    assert [(number, person) for number, person, *_ in door.rows] == [(1, "person 0"), (2, "person 1")]
    assert stand_in(text, door.rows) == ""


def test_an_empty_quoted_cell_alone_on_its_line_is_a_malformed_row(con: duckdb.DuckDBPyConnection):
    lines = [",".join([*NEEDED, "note"]), "person 0,20,1,1,", '""', "", "person 1,20,1,1,", ""]
    text = "\n".join(lines)
    door = through_the_door(con, "drop.csv", text.encode())
    assert [(number, person) for number, person, *_ in door.rows] == [(1, "person 0"), (3, "person 1")]
    assert set(door.faults) == {2}
    assert stand_in(text, door.rows) == ""


@settings(PROFILE, max_examples=200)
@given(data=st.data(), text=good_text())
def test_a_mutated_file_is_refused_or_keeps_only_rows_that_stand_in_it(
    con: duckdb.DuckDBPyConnection, data: st.DataObject, text: str
):
    content = data.draw(mutations(text.encode(), data.draw(st.integers(1, 3))))
    try:
        door = through_the_door(con, "drop.csv", content)
    except FileRefused:
        return
    try:
        read = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        read = content.decode("cp1252", "replace")
    assert stand_in(read, door.rows) == ""


# The encoder

MASKED = Encoder(("kind", "rank", "truth"), {"kind": (-5, 3, 20, 1_000), "truth": (0, 1)})
frame_typings = ("int", "Int64", "float", "text", "blanks", "points", "category", "mixed", "Arrow", "decimal")


def as_column(codes: list[int | None], typing: str) -> Any:
    """Return codes as a pandas column of a type that frames come in."""
    texts = [None if code is None else str(code) for code in codes]
    values, dtype = {
        "float": ([np.nan if code is None else float(code) for code in codes], "float64"),
        "text": (texts, "object"),
        "blanks": (["" if text is None else f" {text} " for text in texts], "string"),
        "points": ([np.nan if text is None else f"{text}.0" for text in texts], "object"),
        "category": (texts, "category"),
        "mixed": (
            [(code, text)[n % 2] for n, (code, text) in enumerate(zip(codes, texts, strict=True))],
            "object",
        ),
        "Arrow": (codes, "int32[pyarrow]"),
        "decimal": ([None if code is None else Decimal(code) for code in codes], "object"),
        "Int64": (codes, "Int64"),
        "int": (codes, "Int64" if None in codes else "int64"),
    }[typing]
    return pd.Series(values, dtype=dtype)


small_codes = st.one_of(
    st.none(), st.sampled_from([-5, 0, 1, 3, 20, 21, 1_000]), st.integers(-(2**31), 2**31 - 1)
)


@settings(PROFILE, max_examples=100)
@given(
    rows=st.lists(st.tuples(small_codes, small_codes, small_codes), max_size=12),
    typings=st.tuples(*[st.sampled_from(frame_typings)] * 3),
    extra=st.booleans(),
    turned=st.booleans(),
)
def test_codes_in_any_typing_give_the_same_matrix(
    rows: list[tuple[int | None, ...]], typings: tuple[str, ...], extra: bool, turned: bool
):
    columns = {
        name: as_column([row[k] for row in rows], typings[k]) for k, name in enumerate(MASKED.features)
    }
    frame = pd.DataFrame(columns if not turned else dict(reversed(columns.items())))
    if extra:
        frame.insert(0, "notes", ["x"] * len(frame))
    wanted = np.full((len(rows), 3), np.nan, dtype=np.float32)
    for n, row in enumerate(rows):
        for k, (name, code) in enumerate(zip(MASKED.features, row, strict=True)):
            seen = MASKED.vocabularies.get(name)
            if code is not None and (seen is None or code in seen):
                wanted[n, k] = code if seen is None else seen.index(code)
    again = Encoder.from_json(MASKED.to_json())
    assert again == MASKED
    for encoder in (MASKED, again):
        matrix = encoder.encode(frame)
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, wanted)
    unseen = MASKED.unseen(frame)
    for name, mask in unseen.items():
        given_codes = [row[MASKED.features.index(name)] for row in rows]
        assert mask.tolist() == [c is not None and c not in MASKED.vocabularies[name] for c in given_codes]


@settings(PROFILE, max_examples=60)
@given(
    vocabularies=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.sets(st.integers(-(2**31), 2**31 - 1)).map(sorted).map(tuple),
        max_size=4,
    ),
    ordinal=st.sets(st.text(min_size=1, max_size=8), max_size=3),
)
def test_an_encoder_survives_json_whatever_its_columns_are_called(
    vocabularies: dict[str, tuple[int, ...]], ordinal: set[str]
):
    encoder = Encoder((*vocabularies, *sorted(ordinal - set(vocabularies))), vocabularies)
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder
    codes = {name: pa.array([*encoder.vocabularies.get(name, (1,)), None][:1]) for name in encoder.features}
    if codes:
        np.testing.assert_array_equal(again.encode(pa.table(codes)), encoder.encode(pa.table(codes)))


odd_values = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.complex_numbers(),
    st.decimals(),
    st.uuids(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
ODD_TYPES: tuple[str, ...] = (
    "object",
    "datetime64[ns]",
    "timedelta64[ns]",
    "complex128",
    "period[M]",
    "bool",
    "boolean",
)
ODD_TYPES += ("float16", "Sparse[int]", "interval", "category", "string", "uint64", "datetime64[ns,UTC]")
odd_dtypes = st.sampled_from(ODD_TYPES)


def odd_column(dtype: str) -> Any:
    if dtype == "interval":
        return pd.Series(pd.interval_range(0, 2))
    if dtype == "period[M]":
        return pd.Series(pd.period_range("2024-01", periods=2, freq="M"))
    if dtype.startswith("datetime64"):
        return pd.Series(pd.to_datetime([0, 1], utc="UTC" in dtype))
    return pd.Series([0, 1], dtype=dtype)


@settings(PROFILE, max_examples=200)
@given(data=st.data())
def test_a_table_of_anything_is_encoded_or_refused_by_name(data: st.DataObject):
    good = pd.Series([1, 0])
    columns = dict.fromkeys(MASKED.features, good)
    victim = data.draw(st.sampled_from(MASKED.features))
    what = data.draw(st.sampled_from(["values", "dtype", "missing", "numbered names"]))
    if what == "values":
        columns[victim] = pd.Series(data.draw(st.lists(odd_values, min_size=2, max_size=2)), dtype=object)
    elif what == "dtype":
        columns[victim] = odd_column(data.draw(odd_dtypes))
    frame = pd.DataFrame(columns)
    if what == "missing":
        frame = frame.drop(columns=victim)
    elif what == "numbered names":
        frame.columns = pd.Index([0, *frame.columns[1:]])
    try:
        assert MASKED.encode(frame).shape == (2, 3)
    except EncodingError as error:
        assert victim in str(error) or what == "numbered names"


# Cells of a list

cell_texts = st.one_of(
    st.text(max_size=20),
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                ["=", "+", "-", "@", "\t", "\r", "\n", " ", "'", '"', ",", ";", "|", "x", "\u202e"]
            )
            | st.sampled_from(["\ufeff", "\uff1d", "\uff0b", "\u00a0", "\u200b", "\0", "1"]),
            max_size=8,
        ),
    ),
)


@settings(PROFILE, max_examples=200)
@given(
    texts=st.lists(
        cell_texts.filter(lambda text: "\r" not in text and "\0" not in text), min_size=1, max_size=5
    )
)
def test_no_cell_of_a_list_is_run_and_every_text_survives_it(texts: list[str]):
    text = as_csv(pd.DataFrame({"cell": [escape_formula(one) for one in texts]}))
    read = [record[0] for record in csv.reader(io.StringIO(text, newline=""), strict=True)][1:]
    for cell, was in zip(read, texts, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\n"))
        assert not cell.strip().startswith(("=", "+", "-", "@"))
        assert cell == escape_formula(was)
        assert (unescape_formula(cell) if cell != was else cell) == was


@settings(PROFILE, max_examples=300)
@given(one=cell_texts, other=cell_texts)
@example(one="=1", other="'=1")
def test_two_texts_are_never_one_cell(one: str, other: str):
    assert (escape_formula(one) == escape_formula(other)) is (one == other)


@settings(PROFILE, max_examples=100)
@given(
    ids=st.lists(st.text(letters, min_size=1, max_size=10), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 99),
)
@example(ids=["=1", "'=1", "@x", "-", "+1", "7"], seed=1)
def test_a_contact_list_names_each_contact_once_and_no_one_else(ids: list[str], seed: int):
    random = np.random.default_rng(seed)
    code = next(iter(STUDY.feature(NOMINAL).codes))
    scored = pd.DataFrame(
        {
            STUDY.id: ids,
            NOMINAL: code,
            "score": random.random(len(ids)).round(2),
            "contact": random.random(len(ids)) < 0.7,
            "reasons": "because",
        }
    )
    listed = contact_list(scored, STUDY, remark="")
    read = pd.read_csv(io.StringIO(as_csv(listed)), dtype=str, keep_default_na=False)
    wanted = scored[scored["contact"]]
    assert sorted(read[STUDY.id]) == sorted(escape_formula(one) for one in wanted[STUDY.id])
    assert len(set(read[STUDY.id])) == len(wanted)
    assert not read.map(lambda cell: cell.startswith(("=", "+", "-", "@"))).to_numpy().any()
