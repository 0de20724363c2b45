"""A dropped file becomes rows of the warehouse whole, or not at all; no row is ever lost silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poleng_assets.core.ingestion import ingest as ingestion
from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files import delimited_text, parquet_file
from poleng_assets.core.ingestion.ingest import Ingested, content_hash, ingest, record_refusal
from poleng_assets.core.ingestion.row_accounting import account
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table, table_counts, with_policies

Connection = duckdb.DuckDBPyConnection
TakeIn = Callable[[Kind, Path], Ingested]


@pytest.fixture(scope="module")
def labelled(people: pd.DataFrame) -> pd.DataFrame:
    return people.iloc[:100].reset_index(drop=True)


@pytest.fixture(scope="module")
def batch(labelled: pd.DataFrame, study: Study) -> pd.DataFrame:
    return labelled.drop(columns=study.target.name)


@pytest.fixture
def take_in(con: Connection, study: Study) -> TakeIn:
    """Ingest a file, and hold what is said about it against what stands in the warehouse."""

    def and_count(kind: Kind, path: Path) -> Ingested:
        result = ingest(con, study, kind, path)
        assert result.rows_read == result.rows_kept + result.rows_quarantined
        counted = account(con, study, kind, result.name, None)
        assert (counted.kept, counted.quarantined) == (result.rows_kept, result.rows_quarantined)
        return result

    return and_count


def parquet(folder: Path, frame: pd.DataFrame, name: str = "drop") -> Path:
    path = folder / f"{name}.parquet"
    frame.to_parquet(path, index=False)
    return path


def csv(folder: Path, frame: pd.DataFrame, name: str = "drop", **options: str) -> Path:
    path = folder / f"{name}.csv"
    frame.to_csv(path, index=False, **options)  # type: ignore[call-overload]
    return path


def refusal(con: Connection, study: Study, kind: Kind, path: Path) -> str:
    """Return why a file is refused, having seen that nothing at all was written."""
    before = table_counts(con)
    with pytest.raises(FileRefused) as caught:
        ingest(con, study, kind, path)
    assert table_counts(con) == before
    return str(caught.value)


def stored(con: Connection, table: str) -> pd.DataFrame:
    return con.execute(f"SELECT * FROM {table} ORDER BY row_number").df()


def quarantine(con: Connection) -> list[tuple[str, int, str, str]]:
    return con.execute(
        "SELECT source, row_number, column_name, reason FROM quarantine ORDER BY row_number"
    ).fetchall()


# What is taken in


def test_every_row_of_a_sound_file_is_kept(tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame):
    path = parquet(tmp_path, batch)
    assert take_in("batches", path) == Ingested("drop", content_hash(path), 100, 100, 0, ())


def test_answers_are_stored_as_they_were_given(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    take_in("batches", parquet(tmp_path, batch))
    rows = stored(con, "batch_rows")
    assert rows["row_number"].tolist() == list(range(1, 101))
    for name in batch.columns:
        assert rows[name].astype(str).tolist() == batch[name].astype(str).tolist(), name


def test_integers_and_text_and_csv_give_the_same_stored_rows(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    ints = batch.astype(dict.fromkeys(study.feature_names, "int64"))
    for path in (
        parquet(tmp_path, ints, "ints"),
        parquet(tmp_path, batch.astype(str), "text"),
        csv(tmp_path, batch, "commas"),
        csv(tmp_path, batch, "semicolons", sep=";"),
    ):
        take_in("batches", path)
        con.execute("DELETE FROM ingested_files")  # or the others would be the same rows again
    rows = stored(con, "batch_rows")
    first, *others = (part.drop(columns="batch").reset_index(drop=True) for _, part in rows.groupby("batch"))
    assert len(others) == 3
    for other in others:
        pd.testing.assert_frame_equal(other, first)


def test_columns_in_another_order_are_stored_under_their_names(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    take_in("batches", parquet(tmp_path, batch[batch.columns[::-1]]))
    assert stored(con, "batch_rows")["religion"].tolist() == batch["religion"].astype(int).tolist()


def test_extra_columns_are_ignored_and_named(tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame):
    path = parquet(tmp_path, batch.assign(weight=1.5, notes="x"))
    assert take_in("batches", path).ignored_columns == ("weight", "notes")


def test_a_column_named_like_one_of_ours_does_no_harm(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    take_in("batches", parquet(tmp_path, batch.assign(batch="other", row_number=7)))
    rows = stored(con, "batch_rows")
    assert set(rows["batch"]) == {"drop"}
    assert rows["row_number"].tolist() == list(range(1, 101))


def test_an_unknown_country_is_kept(tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame):
    assert take_in("batches", parquet(tmp_path, batch.assign(country="999"))).rows_kept == 100
    assert set(stored(con, "batch_rows")["country"]) == {999}


def test_missing_answers_are_kept_as_missing(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    take_in("batches", parquet(tmp_path, batch.assign(education=None, religion=None)))
    assert stored(con, "batch_rows")[["education", "religion"]].isna().all(axis=None)


def test_an_empty_cell_of_a_csv_is_a_missing_answer(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    take_in("batches", csv(tmp_path, batch.assign(education=None)))
    assert stored(con, "batch_rows")["education"].isna().all()


def test_a_csv_with_a_byte_order_mark_is_read(tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame):
    path = csv(tmp_path, batch, encoding="utf-8-sig")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert take_in("batches", path).rows_kept == 100


def test_a_csv_of_another_operating_system_is_read(tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame):
    path = csv(tmp_path, batch)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert take_in("batches", path).rows_kept == 100


def test_a_csv_of_one_respondent_is_read(tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame):
    assert take_in("batches", csv(tmp_path, batch.iloc[:1])).rows_kept == 1


def test_ids_of_a_csv_keep_their_leading_zeros(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    ids = [f"{number:05}" for number in range(100)]
    take_in("batches", csv(tmp_path, batch.assign(**{study.id: ids})))
    assert stored(con, "batch_rows")[study.id].tolist() == ids


@pytest.mark.parametrize("sign", list("#%;'~=@/"))
def test_no_row_of_a_csv_is_lost_because_of_how_its_id_begins(
    tmp_path: Path, con: Connection, take_in: TakeIn, labelled: pd.DataFrame, study: Study, sign: str
):
    ids = [f"{sign if number % 7 == 3 else ''}{number}" for number in range(100)]
    outcomes = labelled[[study.target.name]].assign(**{study.id: ids})[[study.id, study.target.name]]
    assert take_in("outcomes", csv(tmp_path, outcomes)).rows_read == 100
    assert stored(con, "outcomes")[study.id].tolist() == ids


def test_ids_of_integers_are_stored_as_their_digits(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    take_in("batches", parquet(tmp_path, batch.assign(**{study.id: range(100)})))
    assert stored(con, "batch_rows")[study.id].tolist() == [str(number) for number in range(100)]


def test_a_file_larger_than_one_chunk_is_taken_in_whole(
    tmp_path: Path,
    con: Connection,
    take_in: TakeIn,
    people: pd.DataFrame,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
):
    for module in (parquet_file, delimited_text):
        monkeypatch.setattr(module, "CHUNK", 2_048)
    broken_at = [10, 2_500, 4_400]
    batch = people.drop(columns=study.target.name)
    batch.loc[[row - 1 for row in broken_at], "education"] = 77
    assert take_in("batches", parquet(tmp_path, batch)).rows_kept == len(people) - 3
    assert [row for _, row, _, _ in quarantine(con)] == broken_at
    expected = [number for number in range(1, len(people) + 1) if number not in broken_at]
    assert stored(con, "batch_rows")["row_number"].tolist() == expected


def parts_by_id(con: Connection, study: Study, name: str = "drop") -> pd.Series:
    """Return the part of each respondent of a field study, by id."""
    rows = con.execute("SELECT * FROM field_study_rows WHERE field_study = ?", [name]).df()
    return rows.set_index(study.id)["part"].sort_index()


def test_the_holdout_of_a_field_study_has_the_mix_of_the_whole(
    tmp_path: Path, con: Connection, take_in: TakeIn, people: pd.DataFrame, study: Study
):
    take_in("field_studies", parquet(tmp_path, people))
    rows, training = stored(con, "field_study_rows"), study.policies.training
    target, held = rows[study.target.name].astype(int), rows["part"] == "holdout"
    assert set(rows["part"]) == {"train", "holdout"}
    # A few of the synthetic people are twins by chance, and follow each other.
    assert target[held].mean() == pytest.approx(target[~held].mean(), abs=0.01)
    for name, tolerance in [(study.target.name, 4), (training.varies_by, 5)]:
        counts = held.groupby(rows[name]).agg(["sum", "count"])
        assert (counts["sum"] - training.holdout_share * counts["count"]).abs().max() < tolerance


def test_parts_do_not_depend_on_the_order_of_rows_or_on_the_chunks_of_a_file(
    tmp_path: Path,
    con: Connection,
    take_in: TakeIn,
    people: pd.DataFrame,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
):
    take_in("field_studies", parquet(tmp_path, people))
    first = parts_by_id(con, study)
    con.execute("DELETE FROM field_study_rows; DELETE FROM ingested_files")
    for module in (parquet_file, delimited_text):
        monkeypatch.setattr(module, "CHUNK", 2_048)
    take_in("field_studies", csv(tmp_path, people.sample(frac=1, random_state=3)))
    pd.testing.assert_series_equal(parts_by_id(con, study), first)


def test_rows_that_go_to_quarantine_have_no_say_in_the_draw(
    tmp_path: Path, con: Connection, take_in: TakeIn, people: pd.DataFrame, study: Study
):
    sound = people.iloc[:1_000]
    take_in("field_studies", parquet(tmp_path, sound))
    expected = parts_by_id(con, study)
    con.execute("DELETE FROM field_study_rows; DELETE FROM ingested_files")
    repeated = people.iloc[1_000:1_020].assign(**{study.id: sound[study.id].iloc[:20].to_numpy()})
    off_the_scale = people.iloc[1_020:1_040].assign(education=77)
    result = take_in("field_studies", parquet(tmp_path, pd.concat([sound, repeated, off_the_scale])))
    assert result.rows_quarantined == 40
    pd.testing.assert_series_equal(parts_by_id(con, study), expected)


def test_a_respondent_of_two_field_studies_is_on_the_same_side_in_both(
    tmp_path: Path, con: Connection, take_in: TakeIn, labelled: pd.DataFrame, study: Study
):
    take_in("field_studies", parquet(tmp_path, labelled, "founding"))
    other_target = labelled.assign(**{study.target.name: 1 - labelled[study.target.name].astype(int)})
    take_in("field_studies", parquet(tmp_path, other_target.iloc[::-1], "later"))
    sides = con.execute(
        f'SELECT "{study.id}", count(*), count(DISTINCT part) FROM field_study_rows GROUP BY 1'
    ).fetchall()
    assert {(rows, parts) for _, rows, parts in sides} == {(2, 1)}


def test_a_respondent_who_answers_otherwise_in_a_later_study_keeps_the_part_of_the_earlier_one(
    tmp_path: Path, con: Connection, take_in: TakeIn, people: pd.DataFrame, study: Study
):
    ids = people[study.id].iloc[:1_000].to_numpy()
    changed = people.iloc[2_000:3_000].assign(**{study.id: ids})
    take_in("field_studies", parquet(tmp_path, changed, "later"))
    drawn = parts_by_id(con, study, "later")
    con.execute("DELETE FROM field_study_rows; DELETE FROM ingested_files")
    take_in("field_studies", parquet(tmp_path, people.iloc[:1_000], "founding"))
    founding = stored(con, "field_study_rows")
    take_in("field_studies", parquet(tmp_path, changed, "later"))
    frozen, later = (parts_by_id(con, study, name) for name in ("founding", "later"))
    aside = later == "set_aside"  # who now answers like somebody on the other side, by chance
    assert aside.sum() < 10
    assert later[~aside].equals(frozen[~aside])
    # It is not that the same would be drawn again.
    assert (drawn[~aside] != frozen[~aside]).sum() > 100
    after = con.execute("SELECT * FROM field_study_rows WHERE field_study = 'founding' ORDER BY row_number")
    pd.testing.assert_frame_equal(after.df(), founding)


def twins_of(study: Study, of: pd.DataFrame) -> pd.DataFrame:
    """Return other people who answer as these do, and not about the target."""
    twins = of.assign(**{study.id: [f"twin of {one}" for one in of[study.id]]})
    twins[study.target.name] = 1 - of[study.target.name].astype(int)
    return twins


def test_people_who_answer_alike_do_not_straddle_the_split_wherever_they_stand_in_the_file(
    tmp_path: Path,
    con: Connection,
    take_in: TakeIn,
    people: pd.DataFrame,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
):
    for module in (parquet_file, delimited_text):
        monkeypatch.setattr(module, "CHUNK", 2_048)  # twins come in another chunk
    together = pd.concat([people, twins_of(study, people.iloc[:400])], ignore_index=True)
    take_in("field_studies", parquet(tmp_path, together))
    rows = stored(con, "field_study_rows")
    alike = rows.groupby(study.feature_names, dropna=False)["part"].agg(["count", "nunique", "first"])
    alike = alike[alike["count"] > 1]
    assert len(alike) >= 390
    assert set(alike["nunique"]) == {1}
    # A quarter of the pairs would be torn apart by a draw that does not know of them.
    held = (alike["first"] == "holdout").mean()
    share = study.policies.training.holdout_share
    assert held == pytest.approx(share, abs=4 * (share * (1 - share) / len(alike)) ** 0.5)


def test_people_who_answer_like_somebody_of_an_earlier_field_study_follow_them(
    tmp_path: Path, con: Connection, take_in: TakeIn, labelled: pd.DataFrame, study: Study
):
    take_in("field_studies", parquet(tmp_path, labelled, "founding"))
    before = stored(con, "field_study_rows")
    take_in("field_studies", parquet(tmp_path, twins_of(study, labelled), "later"))
    after = con.execute("SELECT * FROM field_study_rows ORDER BY field_study, row_number").df()
    assert set(before["part"]) == {"train", "holdout"}
    assert after.loc[after["field_study"] == "later", "part"].tolist() == before["part"].tolist()
    pd.testing.assert_frame_equal(after[after["field_study"] == "founding"], before)


def test_a_respondent_who_now_answers_like_somebody_on_the_other_side_is_set_aside(
    tmp_path: Path, con: Connection, take_in: TakeIn, labelled: pd.DataFrame, study: Study
):
    take_in("field_studies", parquet(tmp_path, labelled, "founding"))
    part = stored(con, "field_study_rows")["part"]
    held, trained = labelled[part == "holdout"], labelled[part == "train"]
    copied = held.assign(**{study.id: trained[study.id].iloc[: len(held)].to_numpy()})
    result = take_in("field_studies", parquet(tmp_path, copied, "later"))
    assert result.rows_kept == len(held) > 0
    parts = con.execute("SELECT DISTINCT part FROM field_study_rows WHERE field_study = 'later'").fetchall()
    assert parts == [("set_aside",)]


def test_a_field_study_gives_the_same_parts_in_another_order_and_after_a_run_that_died(
    tmp_path: Path,
    con: Connection,
    study: Study,
    people: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
):
    twins = twins_of(study, people.iloc[:200])
    together = pd.concat([people.iloc[:1_000], twins], ignore_index=True)
    parts = []
    for number, frame in enumerate([together, together.sample(frac=1, random_state=4)]):
        path = parquet(tmp_path, frame, f"study_{number}")
        with monkeypatch.context() as patch:
            patch.setattr(ingestion, "add_file", lambda *_: 1 / 0)  # dies just before its commit
            with pytest.raises(ZeroDivisionError):
                ingest(con, study, "field_studies", path)
        assert con.execute("SELECT count(*) FROM field_study_rows").fetchall() == [(0,)]
        ingest(con, study, "field_studies", path)
        parts.append(stored(con, "field_study_rows").set_index(study.id)["part"].sort_index())
        con.execute("DELETE FROM field_study_rows; DELETE FROM ingested_files")
    pd.testing.assert_series_equal(parts[0], parts[1])


def test_what_was_taken_in_is_written_down(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    path = parquet(tmp_path, batch.assign(weight=1))
    take_in("batches", path)
    found = con.execute("SELECT * EXCLUDE (ingested_at, rows_fingerprint) FROM ingested_files").fetchall()
    assert found == [("batches", "drop", content_hash(path), 100, 100, 0, "weight", 0, None, None, None)]


# Quarantine


def test_an_answer_off_the_scale_goes_to_quarantine_with_its_row_number(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    broken = batch.copy()
    broken.loc[41, "education"] = 77
    result = take_in("batches", parquet(tmp_path, broken))
    assert (result.rows_kept, result.rows_quarantined) == (99, 1)
    assert quarantine(con) == [("batches/drop", 42, "education", "77 is not among the codes of the study")]
    assert batch[study.id][41] not in stored(con, "batch_rows")[study.id].tolist()


def test_a_quarantined_row_keeps_all_its_answers(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    broken = batch.copy()
    broken.loc[41, "education"] = 77
    take_in("batches", parquet(tmp_path, broken))
    payload = con.execute("SELECT payload FROM quarantine").fetchall()[0][0]
    assert json.loads(payload) == json.loads(broken.loc[41].to_json())


def test_a_row_with_two_faults_counts_once(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    broken = batch.copy()
    broken.loc[41, ["education", "generation"]] = 77
    assert take_in("batches", parquet(tmp_path, broken)).rows_quarantined == 1
    assert len(quarantine(con)) == 2


def test_of_an_id_that_stands_twice_the_first_row_is_kept(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    twice = batch.copy()
    twice.loc[[50, 60], study.id] = batch[study.id][5]
    assert take_in("batches", parquet(tmp_path, twice)).rows_quarantined == 2
    assert [(row, column, why) for _, row, column, why in quarantine(con)] == [
        (51, study.id, "the id stands in an earlier row"),
        (61, study.id, "the id stands in an earlier row"),
    ]
    kept = stored(con, "batch_rows").set_index(study.id)["row_number"]
    assert kept[batch[study.id][5]] == 6


def test_a_repeated_row_keeps_its_answers_in_quarantine(
    tmp_path: Path, con: Connection, take_in: TakeIn, labelled: pd.DataFrame, study: Study
):
    twice = labelled.copy()
    twice.loc[50, study.id] = labelled[study.id][5]
    take_in("field_studies", parquet(tmp_path, twice))
    payload = json.loads(con.execute("SELECT payload FROM quarantine").fetchall()[0][0])
    codes = {name: int(twice[name][50]) for name in [*study.feature_names, study.target.name]}
    assert payload == {study.id: labelled[study.id][5], **codes}


def test_a_sound_row_after_a_broken_one_of_the_same_id_is_kept(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    twice = batch.copy()
    twice.loc[5, "education"] = 77
    twice.loc[50, study.id] = batch[study.id][5]
    assert take_in("batches", parquet(tmp_path, twice)).rows_quarantined == 1
    assert stored(con, "batch_rows").set_index(study.id)["row_number"][batch[study.id][5]] == 51


def test_the_same_person_may_stand_in_two_files(tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame):
    take_in("batches", parquet(tmp_path, batch, "first"))
    assert take_in("batches", parquet(tmp_path, batch.iloc[:0:-1], "second")).rows_kept == 99


def test_as_many_broken_rows_as_are_tolerated_are_taken_in(
    tmp_path: Path, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    assert study.policies.ingestion.max_quarantined_share == 0.05
    broken = batch.copy()
    broken.loc[:4, "education"] = 77
    assert take_in("batches", parquet(tmp_path, broken)).rows_quarantined == 5


def test_a_record_with_a_wrong_number_of_fields_goes_to_quarantine_with_its_text(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    path = csv(tmp_path, batch)
    lines = path.read_text().splitlines()
    lines[8] = "so,short"  # row 8
    path.write_text("\n\n".join(lines) + "\n")
    result = take_in("batches", path)
    assert (result.rows_read, result.rows_kept, result.rows_quarantined) == (100, 99, 1)
    assert quarantine(con) == [("batches/drop", 8, "*", "has 2 fields, the header has 33")]
    assert con.execute("SELECT payload FROM quarantine").fetchall() == [('{"line": "so,short"}',)]
    assert stored(con, "batch_rows")["row_number"].tolist() == [n for n in range(1, 101) if n != 8]


def test_a_delimiter_at_the_end_of_every_line_changes_nothing(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    path = csv(tmp_path, batch, sep=";")
    path.write_text(path.read_text().replace("\n", ";;\n"))
    result = take_in("batches", path)
    assert (result.rows_kept, result.ignored_columns) == (100, ())


def test_a_packed_file_is_taken_in_under_its_name_without_the_whole_suffix(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    path = tmp_path / "march.csv.gz"
    batch.to_csv(path, index=False)
    assert take_in("batches", path).name == "march"
    con.execute("DELETE FROM ingested_files")  # or it would be the same rows again
    assert take_in("batches", csv(tmp_path, batch)).name == "drop"
    march, drop = (part.drop(columns="batch") for _, part in stored(con, "batch_rows").groupby("batch"))
    pd.testing.assert_frame_equal(march.reset_index(drop=True), drop.reset_index(drop=True))


def test_in_a_file_of_a_guessed_encoding_only_ids_of_ascii_are_kept(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    broken = batch.assign(note="ü")
    broken.loc[41, study.id] = "Jürgen"
    assert take_in("batches", csv(tmp_path, broken, encoding="cp1252")).rows_kept == 99
    ((_, row, column, why),) = quarantine(con)
    assert (row, column) == (42, study.id)
    assert "save the file as UTF-8" in why


# What is refused


def test_reading_stops_when_too_many_rows_are_broken_already(
    tmp_path: Path, con: Connection, study: Study, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    for module in (parquet_file, delimited_text):
        monkeypatch.setattr(module, "CHUNK", 500)
    batch = people.drop(columns=study.target.name)
    batch.loc[:299, "education"] = 77
    for write in (parquet, csv):
        said = refusal(con, study, "batches", write(tmp_path, batch))
        assert said.startswith("300 of the first 500 rows break the contract, 5% are tolerated: education: ")


def test_a_file_that_holds_more_than_the_study_allows_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    small = with_policies(study, ingestion={"max_expanded_megabytes": 1})
    path = tmp_path / "bomb.csv.gz"
    batch.assign(note="x" * 20_000).to_csv(path, index=False)
    assert path.stat().st_size < 100_000
    assert "holds more than 1 MB when it is unpacked" in refusal(con, small, "batches", path)


def test_a_column_of_dates_is_refused(tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame):
    path = parquet(tmp_path, batch.assign(education=pd.Timestamp("2024-01-01")))
    assert "the column education holds timestamp" in refusal(con, study, "batches", path)


def test_too_many_broken_rows_refuse_the_file(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    broken = batch.copy()
    broken.loc[:5, "education"] = 77
    said = refusal(con, study, "batches", parquet(tmp_path, broken))
    assert said.startswith("6 of 100 rows break the contract, 5% are tolerated: education: ")
    assert "(6 rows, first 1)" in said


def test_repeated_ids_count_as_broken_rows(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    said = refusal(con, study, "batches", parquet(tmp_path, batch.assign(**{study.id: "same"})))
    assert "99 of 100 rows break the contract" in said


def test_a_file_without_a_column_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    path = parquet(tmp_path, batch.drop(columns="religion"))
    assert "1 column is missing: religion" in refusal(con, study, "batches", path)


def test_a_field_study_without_its_target_is_refused_as_a_batch(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    said = refusal(con, study, "field_studies", parquet(tmp_path, batch))
    assert f"{study.target.name} (the target: a file without it is a batch" in said


@pytest.mark.parametrize("write", [parquet, csv])
def test_a_file_without_rows_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame, write: Callable[..., Path]
):
    assert refusal(con, study, "batches", write(tmp_path, batch.iloc[:0])) == "the file has no rows"


@pytest.mark.parametrize("name", ["nothing.parquet", "nothing.csv"])
def test_a_file_of_zero_bytes_is_refused(tmp_path: Path, con: Connection, study: Study, name: str):
    path = tmp_path / name
    path.touch()
    assert refusal(con, study, "batches", path).startswith(f"{name} is empty")


def test_a_truncated_parquet_file_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    path = parquet(tmp_path, batch)
    path.write_bytes(path.read_bytes()[:-100])
    assert "drop.parquet cannot be read as parquet: " in refusal(con, study, "batches", path)


def test_a_parquet_file_with_a_damaged_middle_is_refused(
    tmp_path: Path, con: Connection, study: Study, people: pd.DataFrame
):
    path = parquet(tmp_path, people.drop(columns=study.target.name))
    content = bytearray(path.read_bytes())
    content[2_000:40_000] = b"\x00" * 38_000
    path.write_bytes(content)
    assert "cannot be read as parquet" in refusal(con, study, "batches", path)


def test_text_that_calls_itself_parquet_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    path = csv(tmp_path, batch).rename(tmp_path / "text.parquet")
    assert "text.parquet cannot be read as parquet: " in refusal(con, study, "batches", path)


def test_a_csv_whose_ids_cannot_be_decoded_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    path = csv(tmp_path, batch.assign(**{study.id: [f"é{i}" for i in range(100)]}), encoding="latin-1")
    said = refusal(con, study, "batches", path)
    assert f"{study.id}: holds a character whose encoding is not known: save the file as UTF-8 (100" in said


def test_a_csv_with_a_torn_last_line_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    path = csv(tmp_path, batch)
    path.write_bytes(path.read_bytes()[:-20])
    assert "breaks off within its last row" in refusal(con, study, "batches", path)


def test_a_file_of_another_format_is_refused(tmp_path: Path, con: Connection, study: Study):
    path = tmp_path / "people.xlsx"
    path.write_bytes(b"PK")
    assert "none of .parquet, .csv, .csv.gz, .csv.bz2, .csv.zst" in refusal(con, study, "batches", path)


def test_a_parquet_column_of_lists_is_refused(
    tmp_path: Path, con: Connection, study: Study, batch: pd.DataFrame
):
    table = as_table(batch)
    table = table.set_column(table.column_names.index("education"), "education", pa.array([[1]] * 100))
    pq.write_table(table, tmp_path / "nested.parquet")
    assert "education" in refusal(con, study, "batches", tmp_path / "nested.parquet")


def test_a_warehouse_takes_in_the_next_file_after_a_refusal(
    tmp_path: Path, con: Connection, study: Study, take_in: TakeIn, batch: pd.DataFrame
):
    refusal(con, study, "batches", parquet(tmp_path, batch.assign(education=77), "bad"))
    assert take_in("batches", parquet(tmp_path, batch, "good")).rows_kept == 100


# Taken in before


def test_the_same_file_again_changes_nothing_and_says_so(
    tmp_path: Path, con: Connection, study: Study, take_in: TakeIn, batch: pd.DataFrame
):
    broken = batch.assign(weight=1)
    broken.loc[0, "education"] = 77
    path = parquet(tmp_path, broken)
    first = take_in("batches", path)
    before = table_counts(con)
    again = ingest(con, study, "batches", path)
    assert again == Ingested("drop", content_hash(path), 100, 99, 1, ("weight",), already=True)
    assert (first.already, table_counts(con)) == (False, before)


def test_the_same_content_under_another_name_is_refused(
    tmp_path: Path, con: Connection, study: Study, take_in: TakeIn, batch: pd.DataFrame
):
    first = parquet(tmp_path, batch, "first")
    take_in("batches", first)
    copy = first.with_name("copy.parquet")
    copy.write_bytes(first.read_bytes())
    said = refusal(con, study, "batches", copy)
    assert said.startswith("the same content was ingested as 'first' on ")


def test_other_content_under_the_same_name_is_a_new_version_and_the_old_one_is_kept(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    take_in("batches", parquet(tmp_path, batch))
    before = stored(con, "batch_rows")
    second = take_in("batches", parquet(tmp_path, batch.iloc[:50]))
    third = take_in("batches", csv(tmp_path, batch.iloc[:99]))
    assert (second.name, second.rows_kept, third.name, third.rows_kept) == ("drop@2", 50, "drop@3", 99)
    rows = stored(con, "batch_rows")
    pd.testing.assert_frame_equal(rows[rows["batch"] == "drop"].reset_index(drop=True), before)


def test_the_content_of_any_version_is_recognised_under_its_name(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame
):
    for rows in (100, 50):
        take_in("batches", parquet(tmp_path, batch.iloc[:rows]))
    before = table_counts(con)
    again = [take_in("batches", parquet(tmp_path, batch.iloc[:rows])) for rows in (50, 100)]
    assert [(one.name, one.already) for one in again] == [("drop@2", True), ("drop", True)]
    assert table_counts(con) == before


def test_a_version_of_another_file_is_refused_like_any_copy(
    tmp_path: Path, con: Connection, study: Study, take_in: TakeIn, batch: pd.DataFrame
):
    for rows in (100, 50):
        take_in("batches", parquet(tmp_path, batch.iloc[:rows]))
    copy = parquet(tmp_path, batch.iloc[:50], "copy")
    assert "the same content was ingested as 'drop@2'" in refusal(con, study, "batches", copy)


def test_an_archived_file_that_was_rewritten_since_is_not_taken_in_again(
    tmp_path: Path, con: Connection, study: Study, take_in: TakeIn, batch: pd.DataFrame
):
    take_in("batches", parquet(tmp_path, batch))
    rewritten = parquet(tmp_path, batch.iloc[1:])
    before = table_counts(con)
    again = ingest(con, study, "batches", rewritten, "drop")
    assert again.already
    assert table_counts(con) == before


def test_a_person_may_stand_in_many_batches(
    tmp_path: Path, con: Connection, take_in: TakeIn, batch: pd.DataFrame, study: Study
):
    take_in("batches", parquet(tmp_path, batch, "march"))
    take_in("batches", parquet(tmp_path, batch.iloc[:10], "april"))
    counted = con.execute(
        f'SELECT n, count(*) FROM (SELECT count(*) AS n FROM batch_rows GROUP BY "{study.id}") GROUP BY n'
    ).fetchall()
    assert sorted(counted) == [(1, 90), (2, 10)]


def test_a_refusal_is_written_down_once_for_each_content(
    tmp_path: Path, con: Connection, batch: pd.DataFrame
):
    path = parquet(tmp_path, batch)
    for reason in ("first", "again"):
        record_refusal(con, "batches", path, 100, reason)
    record_refusal(con, "batches", parquet(tmp_path, batch.iloc[1:]), None, "other")
    kept = con.execute("SELECT kind, file, rows, reason FROM refused_files ORDER BY reason").fetchall()
    assert kept == [("batches", "drop.parquet", 100, "again"), ("batches", "drop.parquet", None, "other")]


def test_a_batch_and_a_field_study_may_share_a_name_and_content(
    tmp_path: Path, take_in: TakeIn, labelled: pd.DataFrame
):
    path = parquet(tmp_path, labelled)
    take_in("field_studies", path)
    assert take_in("batches", path).ignored_columns == (labelled.columns[-1],)


# Outcomes


def test_outcomes_find_the_batch_of_their_respondents_whatever_their_file_is_called(
    tmp_path: Path,
    con: Connection,
    take_in: TakeIn,
    labelled: pd.DataFrame,
    batch: pd.DataFrame,
    study: Study,
):
    take_in("batches", parquet(tmp_path, batch.iloc[:60], "spring"))
    take_in("batches", parquet(tmp_path, batch.iloc[60:], "autumn"))
    take_in("outcomes", parquet(tmp_path, labelled[[study.id, study.target.name]], "answers"))
    assert stored(con, "outcomes")["batch"].tolist() == ["spring"] * 60 + ["autumn"] * 40


def test_outcomes_named_like_a_batch_belong_to_it_even_if_another_batch_has_the_same_people(
    tmp_path: Path,
    con: Connection,
    take_in: TakeIn,
    labelled: pd.DataFrame,
    batch: pd.DataFrame,
    study: Study,
):
    take_in("batches", parquet(tmp_path, batch, "spring"))
    more = pd.concat([batch, batch.head(1).assign(**{study.id: "one more"})])
    take_in("batches", parquet(tmp_path, more, "autumn"))
    take_in("outcomes", parquet(tmp_path, labelled[[study.id, study.target.name]], "autumn"))
    assert set(stored(con, "outcomes")["batch"]) == {"autumn"}


def test_outcomes_of_people_in_several_batches_belong_to_the_newest(
    tmp_path: Path,
    con: Connection,
    take_in: TakeIn,
    labelled: pd.DataFrame,
    batch: pd.DataFrame,
    study: Study,
):
    take_in("batches", parquet(tmp_path, batch, "winter"))
    more = pd.concat([batch, batch.head(1).assign(**{study.id: "one more"})])
    take_in("batches", parquet(tmp_path, more, "autumn"))
    take_in("batches", parquet(tmp_path, batch.iloc[:30], "spring"))
    take_in("outcomes", parquet(tmp_path, labelled[[study.id, study.target.name]], "answers"))
    assert stored(con, "outcomes")["batch"].tolist() == ["spring"] * 30 + ["autumn"] * 70


def test_outcomes_of_people_in_no_batch_are_kept_under_their_file_name(
    tmp_path: Path, con: Connection, take_in: TakeIn, labelled: pd.DataFrame, study: Study
):
    take_in("outcomes", parquet(tmp_path, labelled[[study.id, study.target.name]], "early"))
    assert set(stored(con, "outcomes")["batch"]) == {"early"}


def test_a_content_hash_changes_with_one_byte(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"abd")
    assert content_hash(one) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_hash(other) != content_hash(one)
