"""Forgetting a person: who is recognised, what goes from tables and files, and what stays as it is."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poleng_assets.core.privacy.file_erasure import ErasureCounts, Unreadable, copy_without_person
from poleng_assets.core.privacy.subject import ERASED, Person
from poleng_assets.core.privacy.warehouse_erasure import (
    erase_rows,
    find_traces,
    locate_rows,
    raw_lines_in_quarantine,
    reference_without,
)
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.compaction import CopyDiffers, compact
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.erasures import changed_studies
from poleng_assets.warehouse.subject_rows import studies_learned_from
from poleng_assets.warehouse.writes import insert, now, transaction
from poleng_assets_tests.conftest import table_counts

Connection = duckdb.DuckDBPyConnection
WHO = "person-12"


@pytest.fixture
def person(study: Study) -> Person:
    return Person.of(WHO, study)


# Who is recognised


@pytest.mark.parametrize(
    "text",
    [WHO, f"id {WHO}.", f"({WHO}),", f'{{"id": "{WHO}"}}', f"rows:\\n{WHO}", f"a,{WHO},b", f"{WHO}\n"],
)
def test_an_id_is_found_as_a_word(person: Person, text: str):
    assert person.mentioned_in(text)
    assert WHO not in person.redact(text)


@pytest.mark.parametrize(
    "text", ["person-123", "a-person-12", "person-12-b", "person-12.5", "xperson-12", ""]
)
def test_another_persons_longer_id_is_not_taken_for_it(person: Person, text: str):
    assert not person.mentioned_in(text)
    assert person.redact(text) == text


def test_a_short_id_is_not_looked_for_in_texts(study: Study):
    assert not Person.of("7", study).mentioned_in("7")


@pytest.mark.parametrize("cell", ["7", " 7 ", 7, 7.0])
def test_numbers_in_the_column_of_ids_are_read_as_at_the_door(study: Study, cell: object):
    assert Person.of("7", study).matches_id(cell)


@pytest.mark.parametrize("cell", ["07", "70", 7.5, None, float("nan"), "'7"])
def test_other_cells_are_somebody_elses(study: Study, cell: object):
    assert not Person.of("7", study).matches_id(cell)


def test_in_a_list_the_harmless_spelling_is_the_persons_and_at_the_door_it_is_another_id(study: Study):
    dropped = Person.of("=1+1+1", study)
    listed = Person(dropped.id, dropped.column, listed=True)
    assert (dropped.matches_id("=1+1+1"), dropped.matches_id("'=1+1+1")) == (True, False)
    assert (listed.matches_id("=1+1+1"), listed.matches_id("'=1+1+1")) == (False, True)


# CSV


def csv_without(path: Path, person: Person, study: Study) -> tuple[bytes, ErasureCounts]:
    out = io.BytesIO()
    found = copy_without_person(path, out, person, study.feature_names)
    return out.getvalue(), found


ROWS = 'subject_id,country,note\n"x, 1",276,a\nperson-12,32,b\n\n person-123 ,32,"c\nd"\nperson-12,20,e'
LEFT = 'subject_id,country,note\n"x, 1",276,a\n\n person-123 ,32,"c\nd"\n'


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_other_byte_of_a_csv_stays(tmp_path, person, study, delimiter, end, encoding):
    def written(text: str) -> bytes:
        changed = text.replace('"x, 1"', '"x 1"').replace(",", delimiter).replace("\n", end)
        return changed.encode(encoding)

    path = tmp_path / "a.csv"
    path.write_bytes(written(ROWS))
    left, found = csv_without(path, person, study)
    assert left == written(LEFT)
    assert found == ErasureCounts(rows=2)


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.zst"])
def test_a_compressed_csv_is_compressed_again(tmp_path, person, study, suffix):
    packing: dict[str, Any] = {".csv.gz": gzip.compress, ".csv.bz2": bz2.compress}
    unpacking: dict[str, Any] = {".csv.gz": gzip.decompress, ".csv.bz2": bz2.decompress}
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(ROWS.encode())
    else:
        path.write_bytes(packing[suffix](ROWS.encode()))
    left, found = csv_without(path, person, study)
    if suffix == ".csv.zst":
        left = pa.CompressedInputStream(pa.BufferReader(left), "zstd").read()
    else:
        left = unpacking[suffix](left)
    assert (left.decode(), found.rows) == (LEFT, 2)


def test_bytes_that_are_no_utf8_stay(tmp_path, person, study):
    path = tmp_path / "a.csv"
    path.write_bytes(b"subject_id,note\nM\xfcller,\xe9\nperson-12,\xe9\n")
    left, _ = csv_without(path, person, study)
    assert left == b"subject_id,note\nM\xfcller,\xe9\n"


def test_a_person_of_a_windows_file_is_found_by_the_id_that_people_read(tmp_path, study):
    path = tmp_path / "a.csv"
    path.write_bytes("subject_id,note\nMüller-1,a\nMüller-2,b\n".encode("cp1252"))
    left, found = csv_without(path, Person.of("Müller-1", study), study)
    assert (left, found.rows) == ("subject_id,note\nMüller-2,b\n".encode("cp1252"), 1)


def test_a_row_with_a_cell_too_many_goes_when_it_names_the_person(tmp_path, person, study):
    path = tmp_path / "a.csv"
    path.write_text("subject_id,country\nperson-12,276,9\n9,person-12,276\nperson-123,276,9\n")
    left, found = csv_without(path, person, study)
    assert (left, found.rows) == (b"subject_id,country\nperson-123,276,9\n", 2)


def test_a_row_of_another_that_names_the_person_stays_without_the_name(tmp_path, person, study):
    path = tmp_path / "a.csv"
    path.write_text("subject_id,note\nother-77,lives with person-12\n")
    left, found = csv_without(path, person, study)
    assert left.decode() == f"subject_id,note\nother-77,lives with {ERASED}\n"
    assert found == ErasureCounts(mentions=1)


def test_a_code_that_is_the_number_of_somebodys_id_is_an_answer(tmp_path, study):
    path = tmp_path / "a.csv"
    path.write_text("subject_id,country\na,123456\n123456,32\n")
    left, _ = csv_without(path, Person.of("123456", study), study)
    assert left == b"subject_id,country\na,123456\n"


def test_a_csv_without_the_column_of_ids_is_unreadable(tmp_path, person, study):
    path = tmp_path / "a.csv"
    path.write_text("person,country\nperson-12,276\n")
    with pytest.raises(Unreadable, match="no column subject_id"):
        csv_without(path, person, study)


# Parquet


def parquet_without(path: Path, person: Person, study: Study) -> tuple[pa.Table, ErasureCounts]:
    out = io.BytesIO()
    found = copy_without_person(path, out, person, study.feature_names)
    return pq.read_table(io.BytesIO(out.getvalue())), found


def test_parquet_keeps_its_schema_and_the_other_rows(tmp_path, person, study):
    frame = pd.DataFrame(
        {
            study.id: ["a", WHO, "b", None],
            "country": pd.Categorical(["276", "32", "276", "32"]),
            "education": pd.array([1, 2, None, 4], dtype="Int64"),
            "note": ["x", "y", f"with {WHO}", None],
        }
    )
    path = tmp_path / "a.parquet"
    frame.to_parquet(path, compression="zstd")
    left, found = parquet_without(path, person, study)
    before = pq.read_table(path)
    assert left.schema.equals(before.schema, check_metadata=True)
    assert left.drop_columns("note").equals(before.drop_columns("note").take([0, 2, 3]))
    assert left["note"].to_pylist() == ["x", f"with {ERASED}", None]
    assert found == ErasureCounts(rows=1, mentions=1)


@pytest.mark.parametrize(
    "type_", [pa.int64(), pa.float64(), pa.string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_ids_of_every_type_are_read_as_at_the_door(tmp_path, study, type_):
    values = [7, 70, None] if type_ in (pa.int64(), pa.float64()) else [" 7", "70", None]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({study.id: pa.array(values, type=type_)}), path)
    left, found = parquet_without(path, Person.of("7", study), study)
    assert (left.num_rows, found.rows) == (2, 1)


def test_half_a_parquet_file_is_unreadable(tmp_path, person, study):
    path = tmp_path / "a.parquet"
    pd.DataFrame({study.id: [WHO]}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Unreadable):
        parquet_without(path, person, study)


# The warehouse


def answers(study: Study, ids: list[str], **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({study.id: ids, "row_number": range(1, len(ids) + 1)})
    for feature in study.features:
        frame[feature.name] = min(feature.codes) if feature.is_ordinal else str(min(feature.codes))
    return frame.assign(**columns)


def taken_in(con: Connection, kind: str, name: str, kept: int, quarantined: int = 0) -> None:
    row = {
        "kind": kind,
        "name": name,
        "content_hash": f"hash of {name}",
        "rows_read": kept + quarantined,
        "rows_kept": kept,
        "rows_quarantined": quarantined,
        "ignored_columns": "",
        "ingested_at": now(),
    }
    insert(con, "ingested_files", pd.DataFrame([row]))


@pytest.fixture
def filled(con: Connection, study: Study) -> Connection:
    """Two people in every table: one of a batch, a study and outcomes, with a broken row of theirs each."""
    ids = [WHO, "person-123"]
    insert(con, "batch_rows", answers(study, ids, batch="b1"))
    insert(
        con, "field_study_rows", answers(study, ids, field_study="s1", part="train", **{study.target.name: 1})
    )
    told = pd.DataFrame(
        {study.id: ids, "row_number": [1, 2], "source": "o1", "batch": "b1", study.target.name: 1}
    )
    insert(con, "outcomes", told)
    scored = pd.DataFrame({study.id: ids, "batch": "b1", "score": 0.5})
    for version in (1, 2):
        times: dict[str, Any] = {"scored_at": now(), "contact": True, "model_version": version}
        insert(con, "predictions", scored.assign(**times))
    insert(
        con,
        "contact_lists",
        scored.assign(model_version=1, created_at=now(), remark="", reasons="Sex: Female"),
    )
    asked = pd.DataFrame({study.id: ids, "batch": "b1", "stratum": "x", "why": "y", "requested_at": now()})
    insert(con, "field_study_requests", asked)
    broken = [
        ("batches/b1", 3, {study.id: WHO, "country": "x"}),
        ("batches/b1", 3, {study.id: WHO, "country": "x"}),
        ("batches/b1", 4, {study.id: "person-123", "country": "x"}),
        ("batches/b1", 5, {"line": "9;person-12;276"}),
        ("batches/b1", 6, {"line": "9;person-123;276"}),
    ]
    rows = [(source, number, json.dumps(payload)) for source, number, payload in broken]
    frame = pd.DataFrame(rows, columns=["source", "row_number", "payload"])
    insert(con, "quarantine", frame.assign(column_name="country", reason="wrong"))
    taken_in(con, "batches", "b1", 2, 4)
    taken_in(con, "field_studies", "s1", 2)
    taken_in(con, "outcomes", "o1", 2)
    record_decision(con, "hold", f"because of {WHO}", evidence={"who": WHO, "others": ["person-123"]})
    return con


def test_a_person_goes_from_every_table_and_nobody_else_does(
    filled: Connection, study: Study, person: Person
):
    with transaction(filled):
        erased = erase_rows(filled, person)
    assert dict(erased.rows) == {
        "batch_rows": 1,
        "contact_lists": 1,
        "field_study_requests": 1,
        "field_study_rows": 1,
        "outcomes": 1,
        "predictions": 2,
        "quarantine": 2,
    }
    assert find_traces(filled, person).traces == ()
    other = Person.of("person-123", study)
    assert locate_rows(filled, other) == {
        **erased.rows,
        "quarantine": 2,
    }


def test_rows_read_are_kept_in_quarantine_or_erased(filled: Connection, study: Study, person: Person):
    with transaction(filled):
        erase_rows(filled, person)
    counted = filled.execute(
        "SELECT kind, rows_read, rows_kept, rows_quarantined, rows_erased FROM ingested_files ORDER BY kind"
    ).fetchall()
    assert counted == [("batches", 6, 1, 2, 3), ("field_studies", 2, 1, 0, 1), ("outcomes", 2, 1, 0, 1)]


def test_the_ledger_stays_without_the_id(filled: Connection, study: Study, person: Person):
    with transaction(filled):
        erased = erase_rows(filled, person)
    ((reason, evidence),) = filled.execute("SELECT reason, evidence FROM decisions").fetchall()
    assert reason == f"because of {ERASED}"
    assert json.loads(evidence) == {"who": ERASED, "others": ["person-123"]}
    assert dict(erased.mentions) == {"decisions": 2}


def test_a_table_made_tomorrow_is_not_forgotten(filled: Connection, study: Study, person: Person):
    filled.execute(f'CREATE TABLE calls ("{study.id}" VARCHAR, note VARCHAR)')
    filled.execute("CREATE TABLE remarks (words VARCHAR)")
    filled.execute("INSERT INTO calls VALUES (?, 'a'), ('person-123', ?)", [WHO, f"told {WHO}"])
    filled.execute("INSERT INTO remarks VALUES (?)", [f"{WHO} called"])
    assert [
        place for place in find_traces(filled, person).traces if "calls" in place or "remarks" in place
    ] == [
        "table calls, column note: 1",
        "table calls, column subject_id: 1",
        "table remarks, column words: 1",
    ]
    with transaction(filled):
        erase_rows(filled, person)
    assert filled.execute("FROM calls").fetchall() == [("person-123", f"told {ERASED}")]
    assert find_traces(filled, person).traces == ()


def test_erasing_twice_is_the_same_as_once(filled: Connection, study: Study, person: Person):
    with transaction(filled):
        erase_rows(filled, person)
    before = (table_counts(filled), filled.execute("FROM ingested_files ORDER BY ALL").fetchall())
    with transaction(filled):
        assert not erase_rows(filled, person).any
    assert (table_counts(filled), filled.execute("FROM ingested_files ORDER BY ALL").fetchall()) == before


def test_a_field_study_without_a_person_is_other_data_to_learn_from(filled, study, person):
    assert changed_studies(filled) == []
    with transaction(filled):
        erase_rows(filled, person)
    (changed,) = changed_studies(filled)
    assert (changed.name, changed.rows) == ("s1", 1)
    assert changed.data_hash != changed.content_hash


def test_the_studies_that_models_learned_the_person_from_are_named(filled, study, person):
    assert studies_learned_from(filled, person.column, person.ids) == ["s1"]
    filled.execute("UPDATE field_study_rows SET part = 'holdout'")
    assert studies_learned_from(filled, person.column, person.ids) == []


def test_a_short_id_goes_by_the_columns_of_ids_and_leaves_answers_alone(filled: Connection, study: Study):
    insert(filled, "batch_rows", answers(study, ["7", "8"], batch="b2", country=7))
    taken_in(filled, "batches", "b2", 2)
    with transaction(filled):
        erased = erase_rows(filled, Person.of("7", study))
    assert dict(erased.rows) == {"batch_rows": 1}
    left = filled.execute(f"SELECT {study.id}, country FROM batch_rows WHERE batch = 'b2'").fetchall()
    assert left == [("8", 7)]
    assert raw_lines_in_quarantine(filled) == 2


# The reference of a model


def reference_file(tmp_path: Path, study: Study, rows: int) -> Path:
    path = tmp_path / "reference.parquet"
    alike = answers(study, ["-"] * rows, **{study.target.name: 1, "score": 0.4, "contact": 0})
    different = alike.head(1).assign(**{study.target.name: 0})
    both = pd.concat([alike, different]).drop(columns=[study.id, "row_number"])
    both.to_parquet(path, index=False)
    return path


@pytest.fixture
def held_out(filled: Connection) -> Connection:
    filled.execute("UPDATE field_study_rows SET part = 'holdout'")
    return filled


def test_one_row_that_answers_alike_goes_for_each_row_of_the_person(tmp_path, held_out, study, person):
    left = reference_without(held_out, study, person, reference_file(tmp_path, study, 2), ["s1"])
    assert left is not None
    assert left[study.target.name].to_pylist() == [1, 0]
    assert "score" in left.column_names


def test_a_reference_without_the_person_keeps_the_others_who_answered_alike(
    tmp_path, held_out, study, person
):
    assert reference_without(held_out, study, person, reference_file(tmp_path, study, 1), ["s1"]) is None


def test_the_reference_of_a_version_that_never_saw_the_study_stays(tmp_path, held_out, study, person):
    assert reference_without(held_out, study, person, reference_file(tmp_path, study, 2), ["s0"]) is None


def test_who_was_learned_from_stands_in_no_reference(tmp_path, filled, study, person):
    assert reference_without(filled, study, person, reference_file(tmp_path, study, 2), ["s1"]) is None


def test_answers_that_are_missing_are_alike(tmp_path, held_out, study, person):
    ordinal = next(f.name for f in study.features if f.is_ordinal)
    nominal = next(f.name for f in study.features if not f.is_ordinal)
    held_out.execute(f"UPDATE field_study_rows SET {ordinal} = NULL, {nominal} = NULL")
    path = reference_file(tmp_path, study, 2)
    pd.read_parquet(path).assign(**{ordinal: float("nan"), nominal: None}).to_parquet(path)
    left = reference_without(held_out, study, person, path, None)
    assert left is not None
    assert left.num_rows == 2


# The bytes of the warehouse


def test_the_file_written_anew_has_no_byte_of_the_person_and_all_else(warehouse, study, person):
    with warehouse.connect() as con:
        con.execute("CREATE TABLE words (word VARCHAR DEFAULT 'x', n INTEGER PRIMARY KEY)")
        con.execute("SET force_compression = 'uncompressed'")  # else it would be there and not be seen
        con.execute("INSERT INTO words SELECT 'person-' || range || repeat('-', 50), range FROM range(300)")
        con.execute("CHECKPOINT")
        con.execute("DELETE FROM words WHERE n = 12")
    assert b"person-12---" in warehouse.path.read_bytes()
    compact(warehouse.path)
    assert b"person-12---" not in warehouse.path.read_bytes()
    with warehouse.connect() as con:
        assert table_counts(con)["words"] == 299
        con.execute("INSERT INTO words (n) VALUES (500)")
        assert con.execute("SELECT word FROM words WHERE n = 500").fetchall() == [("x",)]
        with pytest.raises(duckdb.ConstraintException):
            con.execute("INSERT INTO words VALUES ('y', 1)")
        assert con.execute("SELECT count(*) FROM current_predictions").fetchall() == [(0,)]


def test_a_file_that_is_held_is_not_written_anew(warehouse, study):
    with warehouse.connect():
        pass
    code = (
        f"import duckdb, sys; c = duckdb.connect({str(warehouse.path)!r}); print('open', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        before = warehouse.path.read_bytes()
        with pytest.raises(duckdb.IOException, match="lock"):
            compact(warehouse.path, patience_seconds=0.3)
        holder.communicate("\n")
    assert warehouse.path.read_bytes() == before
    assert [path.name for path in warehouse.path.parent.glob(".warehouse*")] == []


def test_a_copy_that_is_not_whole_leaves_the_old_file(warehouse, monkeypatch):
    with warehouse.connect() as con:
        record_decision(con, "hold", "why", evidence={})
    before = warehouse.path.stat().st_ino

    def differs(con: Connection) -> None:
        raise CopyDiffers("one row less")

    monkeypatch.setattr("poleng_assets.warehouse.compaction._compare", differs)
    with pytest.raises(CopyDiffers):
        compact(warehouse.path)
    assert warehouse.path.stat().st_ino == before
    with warehouse.connect() as con:
        assert table_counts(con)["decisions"] == 1


def test_a_damaged_gzip_file_is_unreadable(tmp_path, person, study):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(ROWS.encode())[:10] + b"\xff" * 40)
    with pytest.raises(Unreadable):
        copy_without_person(path, None, person, study.feature_names)
