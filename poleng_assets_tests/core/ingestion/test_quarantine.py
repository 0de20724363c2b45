"""Rows in quarantine can be seen, mended and put back: through the same door, each once, and all or none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.ingest import ingest
from poleng_assets.core.ingestion.quarantine import release as module
from poleng_assets.core.ingestion.quarantine.listing import Fault, list_faults, list_sources, parse_source
from poleng_assets.core.ingestion.quarantine.release import Released, release
from poleng_assets.core.ingestion.quarantine.sheet import mending_sheet
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.files import file_record
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets_tests.conftest import with_policies

Connection = duckdb.DuckDBPyConnection
Sheet = list[dict[str, str]]
PutBack = Callable[..., Released]


@pytest.fixture(scope="module")
def lenient(study: Study) -> Study:
    """The study, which lets a small file have many broken rows."""
    return with_policies(study, ingestion={"max_quarantined_share": 0.9})


@pytest.fixture(scope="module")
def answered(people: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Forty labelled people, all answers as text."""
    return people.iloc[:40].reset_index(drop=True).astype(str)


@pytest.fixture
def take_in(con: Connection, lenient: Study, tmp_path: Path) -> Callable[..., None]:
    def from_frame(kind: Kind, frame: pd.DataFrame, name: str = "march") -> None:
        path = tmp_path / f"{name}.csv"
        frame.to_csv(path, index=False)
        ingest(con, lenient, kind, path)

    return from_frame


@pytest.fixture
def put_back(con: Connection, lenient: Study, tmp_path: Path) -> PutBack:
    """Release a sheet, and see that every row that was read is kept or in quarantine afterwards."""

    def from_sheet(
        sheet: Sheet | bytes, kind: Kind = "batches", name: str = "march", study: Study = lenient
    ) -> Released:
        path = tmp_path / "mended.csv"
        path.write_bytes(sheet if isinstance(sheet, bytes) else as_bytes(sheet))
        result = release(con, study, kind, name, path, reason="mended by hand")
        assert_accounted_for(con, kind, name)
        return result

    return from_sheet


def data_hash(con: Connection, name: str) -> str:
    return file_record(con, "batches", name).data_hash


def as_bytes(sheet: Sheet, delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(sheet[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(sheet)
    return text.getvalue().encode()


def sheet_of(con: Connection, study: Study, kind: Kind = "batches", name: str = "march") -> Sheet:
    text = mending_sheet(con, study, kind, name)
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def assert_accounted_for(con: Connection, kind: Kind, name: str) -> None:
    table, key = ROW_TABLES[kind]
    ((read, kept, quarantined),) = con.execute(
        "SELECT rows_read, rows_kept, rows_quarantined FROM ingested_files WHERE kind = ? AND name = ?",
        [kind, name],
    ).fetchall()
    ((stored,),) = con.execute(f"SELECT count(*) FROM {table} WHERE {key} = ?", [name]).fetchall()
    ((broken,),) = con.execute(
        "SELECT count(DISTINCT row_number) FROM quarantine WHERE source = ?", [f"{kind}/{name}"]
    ).fetchall()
    assert (kept, quarantined) == (stored, broken)
    assert read == kept + quarantined


def everything(con: Connection) -> dict[str, list[tuple[Any, ...]]]:
    tables = con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    return {name: con.execute(f'SELECT * FROM "{name}" ORDER BY ALL').fetchall() for (name,) in tables}


def batch_of(answered: pd.DataFrame, study: Study, *changes: tuple[int, str, str]) -> pd.DataFrame:
    """Return a batch in which some answers are changed: (row number from 1, column, value)."""
    frame = answered.drop(columns=study.target.name)
    for row, column, value in changes:
        frame.loc[row - 1, column] = value
    return frame


def ordinal(study: Study) -> str:
    return next(feature.name for feature in study.features if feature.is_ordinal)


# What is seen


def test_the_files_with_rows_in_quarantine_are_listed_with_what_is_wrong_most_often(
    con: Connection, take_in: Any, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x"), (5, age, "x"), (5, study.id, "")))
    take_in("batches", answered.drop(columns=study.target.name).iloc[::-1], "sound")
    (march,) = list_sources(con)
    assert (march.source, march.rows) == ("batches/march", 2)
    assert march.commonest == ((age, "'x' is no survey code", 2), (study.id, "is empty", 1))
    assert list_faults(con, "batches", "march")[0] == Fault(3, age, "'x' is no survey code")
    assert list_faults(con, "batches", "sound") == []


def test_a_file_that_was_never_taken_in_is_named_in_words(con: Connection, study: Study):
    with pytest.raises(LookupError, match="no file march was taken in as batches"):
        mending_sheet(con, study, "batches", "march")
    for wrong in ("march", "batch/march", "batches/", ""):
        with pytest.raises(LookupError, match="such as batches/march"):
            parse_source(wrong)
    assert parse_source("outcomes/march@2") == ("outcomes", "march@2")


def test_the_sheet_has_the_answers_as_they_were_read_and_all_that_is_wrong(
    con: Connection, take_in: Any, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    batch = batch_of(answered, study, (3, age, "forty"), (3, study.id, ""))
    take_in("batches", batch)
    (row,) = sheet_of(con, study)
    assert list(row) == ["row_number", *batch.columns, "what_is_wrong"]
    assert row["row_number"] == "3"
    assert {name: row[name] for name in batch.columns} == batch.iloc[2].to_dict()
    assert row["what_is_wrong"] == f"{age}: 'forty' is no survey code; {study.id}: is empty"


def test_no_cell_of_the_sheet_is_a_formula_and_a_negative_code_stays_a_number(
    con: Connection, take_in: Any, answered: pd.DataFrame, study: Study
):
    age, other = ordinal(study), study.feature_names[-1]
    take_in(
        "batches", batch_of(answered, study, (3, study.id, "=cmd"), (3, age, "@SUM(1)"), (3, other, "-1"))
    )
    (row,) = sheet_of(con, study)
    assert (row[study.id], row[age], row[other]) == ("'=cmd", "'@SUM(1)", "-1")


# What is put back


def test_a_mended_row_gets_its_place_and_leaves_quarantine(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x"), (5, age, "x")))
    before = data_hash(con, "march")
    sheet = sheet_of(con, study)
    sheet[0][age] = answered[age][2]
    result = put_back(sheet)
    assert (result.released, result.still_broken, result.file.rows_quarantined) == (1, 1, 1)
    stored = con.execute("SELECT * EXCLUDE (batch) FROM batch_rows ORDER BY row_number").df()
    assert stored["row_number"].tolist() == [n for n in range(1, 41) if n != 5]
    for name in study.feature_names:
        assert str(stored[name][2]) == answered[name][2]
    assert [fault.row_number for fault in list_faults(con, "batches", "march")] == [5]
    assert data_hash(con, "march") == result.file.data_hash != before == result.file.content_hash


def test_the_ledger_tells_how_many_and_nobodys_id(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x")))
    sheet = sheet_of(con, study)
    sheet[0][age] = ""
    put_back(sheet)
    ((kind, reason, evidence, batch),) = con.execute(
        "SELECT kind, reason, evidence, batch FROM decisions"
    ).fetchall()
    assert (kind, batch) == ("release", "march")
    assert reason == "1 row of batches/march released; 0 rows left in quarantine: mended by hand"
    assert json.loads(evidence)["released"] == 1
    assert answered[study.id][2] not in reason + evidence


def test_the_same_sheet_again_changes_nothing(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x"), (5, age, "x")))
    sheet = sheet_of(con, study)
    sheet[0][age], sheet[1][age] = "", "y"
    put_back(sheet)
    before = everything(con)
    again = put_back(sheet)
    assert (again.released, again.still_broken, again.already) == (0, 1, 1)
    assert everything(con) == before


def test_a_row_that_is_still_broken_stays_with_what_is_wrong_now(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x")))
    sheet = sheet_of(con, study)
    sheet[0][age] = "y"
    assert put_back(sheet).released == 0
    assert list_faults(con, "batches", "march") == [Fault(3, age, "'y' is no survey code")]
    assert sheet_of(con, study)[0][age] == "y"


def test_rows_that_the_sheet_does_not_hold_stay_in_quarantine(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x"), (5, age, "x")))
    sheet = sheet_of(con, study)[:1]
    sheet[0][age] = ""
    assert put_back(sheet).file.rows_quarantined == 1
    assert [fault.row_number for fault in list_faults(con, "batches", "march")] == [5]


def test_an_id_that_stands_in_the_file_already_keeps_its_row_in_quarantine(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    first, other = answered[study.id][0], "somebody-new"
    take_in("batches", batch_of(answered, study, (3, study.id, first), (5, study.id, ""), (7, study.id, "")))
    sheet = sheet_of(con, study)
    assert [row["row_number"] for row in sheet] == ["3", "5", "7"]
    sheet[1][study.id] = sheet[2][study.id] = other
    result = put_back(sheet)
    assert (result.released, result.still_broken) == (1, 2)
    assert list_faults(con, "batches", "march") == [
        Fault(3, study.id, "the id stands in row 1 already"),
        Fault(7, study.id, "the id stands in row 5 already"),
    ]


def test_an_id_that_was_made_harmless_comes_back_as_it_was(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    ids = {3: "=1+1", 5: "'=1", 7: "'quoted", 9: "-7", 11: "007"}
    changes = [change for row, id_ in ids.items() for change in ((row, study.id, id_), (row, age, "x"))]
    take_in("batches", batch_of(answered, study, *changes))
    sheet = [{**row, age: ""} for row in sheet_of(con, study)]
    assert put_back(sheet).released == 5
    found = con.execute(
        f'SELECT row_number, "{study.id}" FROM batch_rows WHERE row_number IN (3, 5, 7, 9, 11)'
    ).fetchall()
    assert dict(found) == ids


def test_a_sheet_in_which_a_spreadsheet_changed_a_sound_id_is_refused(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, study.id, "007"), (3, age, "x")))
    sheet = sheet_of(con, study)
    sheet[0] |= {study.id: "7", age: ""}
    before = everything(con)
    with pytest.raises(FileRefused, match="was valid and has been changed in row 3"):
        put_back(sheet)
    assert everything(con) == before


def test_a_row_with_too_few_fields_is_filled_in_by_hand_and_its_text_is_kept_until_then(
    con: Connection, lenient: Study, put_back: PutBack, answered: pd.DataFrame, study: Study, tmp_path: Path
):
    lines = batch_of(answered, study).to_csv(index=False).splitlines()
    lines[3] = lines[3].rpartition(",")[0]
    path = tmp_path / "march.csv"
    path.write_text("\n".join(lines) + "\n")
    ingest(con, lenient, "batches", path)
    (row,) = sheet_of(con, study)
    assert row["line"] == lines[3]
    assert not any(row[name] for name in [study.id, *study.feature_names])
    before = everything(con)
    assert put_back([row]).still_broken == 1
    assert everything(con) == before, "nobody has filled it in yet"

    filled = row | batch_of(answered, study).iloc[2].to_dict()
    age = ordinal(study)
    assert put_back([filled | {age: "x"}]).still_broken == 1
    assert sheet_of(con, study)[0]["line"] == lines[3], "still to be looked at"
    assert put_back([filled]).released == 1


def test_a_sheet_is_read_as_spreadsheets_of_any_language_save_it(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    age = ordinal(study)
    take_in("batches", batch_of(answered, study, (3, age, "x"), (5, age, "x")))
    sheet = sheet_of(con, study)
    for row in sheet:
        row[age] = ""
    text = as_bytes(sheet, ";").decode()
    blank = ";" * (len(sheet[0]) - 1)
    assert put_back(("\ufeff" + text + blank + "\r\n\r\n").encode()).released == 2


def test_a_code_that_the_study_has_learned_since_is_put_back_untouched(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study, lenient: Study
):
    age = ordinal(study)
    code = str(max(study.feature(age).codes) + 7)
    take_in("batches", batch_of(answered, study, (3, age, code)))
    sheet = sheet_of(con, study)
    assert put_back(sheet).still_broken == 1
    known = study.feature(age).model_copy(
        update={"codes": {**dict.fromkeys(study.feature(age).codes, "x"), int(code): "x"}}
    )
    wiser = lenient.model_copy(
        update={"features": [known if one.name == age else one for one in lenient.features]}
    )
    assert put_back(sheet, study=wiser).released == 1


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sheet: [row | {"row_number": "77"} for row in sheet], "has no row 77"),
        (lambda sheet: [row | {"row_number": "three"} for row in sheet], "row_number is not a row number"),
        (lambda sheet: [*sheet, *sheet], "duplicate row_number"),
        (lambda sheet: [{k: v for k, v in row.items() if k != "row_number"} for row in sheet], "no column"),
        (lambda sheet: [{k: v for k, v in row.items() if k != "religion"} for row in sheet], "religion"),
        (lambda sheet: as_bytes(sheet) + b"3,4\r\n", "row 2 below the header"),
        (lambda sheet: b"", "empty"),
        (lambda sheet: as_bytes(sheet) + b'3,"4', "quote"),
        (lambda sheet: as_bytes(sheet).replace(b",x", b",\xe4"), "CSV UTF-8"),
    ],
)  # fmt: skip
def test_a_sheet_that_cannot_be_understood_is_refused_in_words_and_changes_nothing(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study, change: Any,
    words: str,
):  # fmt: skip
    take_in("batches", batch_of(answered, study, (3, ordinal(study), "x")))
    before = everything(con)
    with pytest.raises(FileRefused, match=words):
        put_back(change(sheet_of(con, study)))
    assert everything(con) == before


def test_the_sheet_of_another_kind_or_another_file_is_refused(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study, tmp_path: Path
):
    take_in("batches", batch_of(answered, study, (3, ordinal(study), "x")))
    sheet = sheet_of(con, study)
    with pytest.raises(LookupError, match="no file april"):
        put_back(sheet, name="april")
    with pytest.raises(FileRefused, match="not a CSV file"):
        release(con, study, "batches", "march", tmp_path / "nowhere.csv", reason="")
    take_in("field_studies", answered, "founding")
    with pytest.raises(FileRefused, match="the target"):
        put_back(sheet, "field_studies", "founding")


def test_whatever_fails_in_between_leaves_everything_as_it_was(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    age = ordinal(study)
    take_in("field_studies", answered.assign(**{age: ["x", "y", *answered[age][2:]]}))
    sheet = [
        {**row, age: code} for row, code in zip(sheet_of(con, study, "field_studies"), ["", "z"], strict=True)
    ]
    before = everything(con)

    def dies(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    for step in ("keep_duplicates_together", "remove_rows", "record_decision", "insert", "_hash_with"):
        with monkeypatch.context() as patched:
            patched.setattr(module, step, dies)
            with pytest.raises(ConnectionError):
                put_back(sheet, "field_studies")
        assert everything(con) == before, step
    result = put_back(sheet, "field_studies")
    assert (result.released, result.still_broken) == (1, 1)


# Field studies and outcomes


def parts(con: Connection, field_study: str = "founding") -> dict[int, str]:
    query = "SELECT row_number, part FROM field_study_rows WHERE field_study = ?"
    return dict(con.execute(query, [field_study]).fetchall())


def test_released_rows_of_a_field_study_follow_people_with_their_answers_whose_part_stays(
    con: Connection, take_in: Any, put_back: PutBack, people: pd.DataFrame, study: Study
):
    age = ordinal(study)
    frame = people.iloc[:200].reset_index(drop=True).astype(str).drop_duplicates(study.feature_names)
    frame = frame.reset_index(drop=True)
    # Each of these has the answers of the person thirty rows above, and an id that sorts first.
    twins = frame.iloc[:30].assign(**{study.id: [f"!{n:03}" for n in range(30)]})
    answers = twins[age].tolist()
    twins[age] = "x"
    take_in("field_studies", pd.concat([frame, twins], ignore_index=True), "founding")
    before = parts(con)
    assert len(before) == len(frame)
    sheet = sheet_of(con, study, "field_studies", "founding")
    for row, answer in zip(sheet, answers, strict=True):
        row[age] = answer
    assert put_back(sheet, "field_studies", "founding").released == 30
    after = parts(con)
    assert {number: after[number] for number in before} == before, "who was settled stays"
    assert [after[len(frame) + 1 + n] for n in range(30)] == [before[1 + n] for n in range(30)]
    assert {"train", "holdout"} == {before[1 + n] for n in range(30)}, "both parts were asked about"


def test_a_released_row_whose_id_is_held_out_in_another_study_is_held_out(
    con: Connection, take_in: Any, put_back: PutBack, people: pd.DataFrame, study: Study
):
    age = ordinal(study)
    frame = people.iloc[:60].reset_index(drop=True).astype(str)
    take_in("field_studies", frame, "founding")
    held_out = min(number for number, part in parts(con).items() if part == "holdout")
    later = people.iloc[100:160].reset_index(drop=True).astype(str)
    later.loc[4, [study.id, age]] = [frame[study.id][held_out - 1], "x"]
    take_in("field_studies", later, "later")
    sheet = sheet_of(con, study, "field_studies", "later")
    sheet[0][age] = ""
    assert put_back(sheet, "field_studies", "later").released == 1
    assert parts(con, "later")[5] == "holdout"


def test_a_released_outcome_finds_the_batch_of_its_person(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    take_in("batches", answered.drop(columns=study.target.name))
    labels = answered[[study.id, study.target.name]].copy()
    labels.loc[2, study.target.name] = ""
    take_in("outcomes", labels, "april")
    sheet = sheet_of(con, study, "outcomes", "april")
    sheet[0][study.target.name] = answered[study.target.name][2]
    assert put_back(sheet, "outcomes", "april").released == 1
    assert con.execute("SELECT DISTINCT batch, source FROM outcomes").fetchall() == [("march", "april")]


def test_values_of_a_parquet_file_come_back_as_the_door_reads_them(
    con: Connection, put_back: PutBack, answered: pd.DataFrame, study: Study, lenient: Study, tmp_path: Path
):
    age = ordinal(study)
    batch = batch_of(answered, study).astype(dict.fromkeys(study.feature_names, "float64"))
    batch[study.id] = [float(n) for n in range(40)]
    batch.loc[2, study.feature_names[-1]] = float("nan")
    batch.loc[2, age] = 1.5
    path = tmp_path / "march.parquet"
    batch.to_parquet(path, index=False)
    ingest(con, lenient, "batches", path)
    (row,) = sheet_of(con, study)
    assert (row[study.id], row[age], row[study.feature_names[-1]]) == ("2", "1.5", "")
    row[age] = answered[age][2]
    assert put_back([row]).released == 1
    stored = con.execute("SELECT * FROM batch_rows WHERE row_number = 3").df()
    assert stored[study.id][0] == "2"
    assert pd.isna(stored[study.feature_names[-1]][0])


def test_a_warehouse_of_an_earlier_release_gets_the_column_that_is_needed(
    con: Connection, take_in: Any, put_back: PutBack, answered: pd.DataFrame, study: Study
):
    from poleng_assets.warehouse.schema import create_tables

    take_in("batches", batch_of(answered, study, (3, ordinal(study), "x")))
    # It did not say what it has.
    con.execute("DROP MACRO warehouse_layout; ALTER TABLE ingested_files DROP COLUMN data_hash")
    create_tables(con, study)
    sheet = sheet_of(con, study)
    sheet[0][ordinal(study)] = ""
    assert put_back(sheet).released == 1
    # A later file is taken in beside it as before.
    take_in("batches", batch_of(answered, study).iloc[:10], "may")
    assert data_hash(con, "may") != data_hash(con, "march")
