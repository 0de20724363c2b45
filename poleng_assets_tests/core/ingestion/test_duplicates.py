"""The same answers that come again, by whatever name, format or order, are known by their rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.duplicates import Share, shared_with_earlier
from poleng_assets.core.ingestion.ingest import Ingested, ingest
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.writes import insert, now

Connection = duckdb.DuckDBPyConnection
Drop = Callable[..., Ingested]


@pytest.fixture(scope="module")
def labelled(people: pd.DataFrame) -> pd.DataFrame:
    return people.iloc[:200].reset_index(drop=True)


@pytest.fixture(scope="module")
def batch(labelled: pd.DataFrame, study: Study) -> pd.DataFrame:
    return labelled.drop(columns=study.target.name)


@pytest.fixture
def drop(tmp_path: Path, con: Connection, study: Study) -> Drop:
    """Write rows to a file of a name, by whose ending, and take it in."""

    def take_in(kind: Kind, name: str, rows: pd.DataFrame, **options: str) -> Ingested:
        path = tmp_path / name
        if name.endswith(".parquet"):
            rows.to_parquet(path, index=False)
        else:
            rows.to_csv(path, index=False, **options)  # type: ignore[call-overload]
        return ingest(con, study, kind, path)

    return take_in


def rows_of(con: Connection) -> int:
    tables = ("batch_rows", "field_study_rows", "outcomes", "quarantine")
    return sum(con.table(table).count("*").fetchall()[0][0] for table in tables)


def refused(drop: Drop, con: Connection, kind: Kind, name: str, rows: pd.DataFrame, **options: str) -> str:
    before = rows_of(con)
    with pytest.raises(FileRefused) as caught:
        drop(kind, name, rows, **options)
    assert rows_of(con) == before
    return str(caught.value)


def spelled(batch: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The same answers, each code with a zero before it."""
    return batch.assign(**{name: batch[name].map(lambda code: f"0{code}") for name in study.feature_names})


EXPORTS: dict[str, tuple[str, Callable[[pd.DataFrame, Study], pd.DataFrame], dict[str, str]]] = {
    "as text": ("april.csv", lambda rows, study: rows, {}),
    "with semicolons": ("april.csv", lambda rows, study: rows, {"sep": ";"}),
    "packed": ("april.csv.gz", lambda rows, study: rows, {}),
    "in another order of rows": ("april.parquet", lambda rows, study: rows.iloc[::-1], {}),
    "in another order of columns": ("april.parquet", lambda rows, study: rows[rows.columns[::-1]], {}),
    "with a column more": ("april.parquet", lambda rows, study: rows.assign(weight=1.5), {}),
    "with codes spelled otherwise": ("april.csv", spelled, {}),
    "under the same name": ("march.csv", lambda rows, study: rows, {}),
}


@pytest.mark.parametrize("kind", ["batches", "field_studies", "outcomes"])
@pytest.mark.parametrize("export", EXPORTS)
def test_the_same_rows_again_are_refused_and_the_earlier_file_is_named(
    con: Connection, drop: Drop, labelled: pd.DataFrame, study: Study, kind: Kind, export: str
):
    columns = {"outcomes": [study.id, study.target.name]}.get(kind, list(labelled))
    drop(kind, "march.parquet", labelled[columns])
    name, change, options = EXPORTS[export]
    if kind == "outcomes" and export == "with codes spelled otherwise":
        change = lambda rows, study: rows  # noqa: E731 - outcomes have no codes of features
    said = refused(drop, con, kind, name, change(labelled[columns], study), **options)
    assert said.startswith("the same 200 rows were ingested as 'march' on ")


def test_one_other_answer_makes_other_rows(drop: Drop, con: Connection, batch: pd.DataFrame, study: Study):
    drop("batches", "march.parquet", batch)
    changed = batch.copy()
    binary = next(feature.name for feature in study.features if feature.kind == "binary")
    changed.loc[7, binary] = batch[binary][batch[binary] != batch.loc[7, binary]].iloc[0]
    assert drop("batches", "april.parquet", changed).rows_kept == 200
    shared = shared_with_earlier(con, study, "batches", "april")
    assert shared.files == (Share("march", 200, 199),)
    assert "200 of 200 people are in march too (199 of them with the same answers)" in shared.in_words()
    assert shared.repeats


def test_answers_that_change_hands_are_other_rows(drop: Drop, batch: pd.DataFrame, study: Study):
    """The same ids and the same answers, but each of somebody else."""
    drop("batches", "march.parquet", batch)
    assert drop("batches", "april.parquet", batch.assign(**{study.id: batch[study.id].to_numpy()[::-1]}))


def broken(batch: pd.DataFrame, study: Study, rows: list[int]) -> pd.DataFrame:
    ordinal = next(feature.name for feature in study.features if feature.is_ordinal)
    changed = batch.astype({ordinal: object})
    changed.loc[rows, ordinal] = 77
    return changed


def test_a_file_with_broken_rows_is_known_in_another_format(
    drop: Drop, con: Connection, batch: pd.DataFrame, study: Study
):
    drop("batches", "march.csv", broken(batch, study, [3, 9]))
    said = refused(drop, con, "batches", "april.parquet", broken(batch, study, [3, 9]).sample(frac=1))
    assert "the same 198 rows were ingested as 'march'" in said


def test_the_same_sound_rows_with_other_broken_ones_are_taken_in(
    drop: Drop, con: Connection, batch: pd.DataFrame, study: Study
):
    drop("batches", "march.csv", broken(batch.iloc[:199], study, [3]))
    other = broken(batch, study, [3, 199]).drop(index=3)
    assert drop("batches", "april.csv", other).rows_quarantined == 1
    assert shared_with_earlier(con, study, "batches", "april").same_answers == 198


def test_a_mended_export_is_a_new_version_and_then_known(
    drop: Drop, con: Connection, batch: pd.DataFrame, study: Study
):
    drop("batches", "march.csv", broken(batch, study, [3]))
    assert drop("batches", "march.csv", batch).name == "march@2"
    assert "as 'march@2'" in refused(drop, con, "batches", "march.parquet", batch)


def test_a_file_of_an_earlier_release_is_known_too(drop: Drop, con: Connection, batch: pd.DataFrame):
    drop("batches", "march.parquet", batch)
    con.execute("UPDATE ingested_files SET rows_fingerprint = NULL")
    assert "as 'march'" in refused(drop, con, "batches", "april.csv", batch)


def test_a_file_is_known_by_the_rows_that_are_left_of_it(
    drop: Drop, con: Connection, batch: pd.DataFrame, study: Study
):
    drop("batches", "march.parquet", batch)
    con.execute(f'DELETE FROM batch_rows WHERE "{study.id}" = ?', [str(batch[study.id].iloc[0])])
    con.execute("UPDATE ingested_files SET rows_kept = rows_kept - 1, rows_erased = 1")
    assert "as 'march'" in refused(drop, con, "batches", "april.csv", batch.iloc[1:])


def test_parts_of_earlier_files_are_told_with_their_numbers(
    drop: Drop, con: Connection, batch: pd.DataFrame, study: Study
):
    drop("batches", "march.parquet", batch.iloc[:100])
    drop("batches", "april.parquet", batch.iloc[50:150])
    assert not shared_with_earlier(con, study, "batches", "march").files
    listed = batch.iloc[[0, 1, 2]][[study.id]].assign(
        batch="march", model_version=1, score=0.9, created_at=now(), remark="", reasons=""
    )
    insert(con, "contact_lists", listed.astype({study.id: str}))
    drop("batches", "may.parquet", batch)
    shared = shared_with_earlier(con, study, "batches", "may")
    assert {one.name: (one.people, one.same_answers) for one in shared.files} == {
        "march": (100, 100),
        "april": (100, 100),
    }
    assert (shared.people, shared.same_answers, shared.listed) == (150, 150, 3)
    assert "3 of its people are on a contact list already" in shared.in_words()


def test_people_who_come_again_with_other_answers_are_told_and_are_no_repetition(
    drop: Drop, con: Connection, people: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    drop("batches", "wave_1.parquet", batch)
    later = people.iloc[1_000:1_200].drop(columns=study.target.name)
    drop("batches", "wave_2.parquet", later.assign(**{study.id: batch[study.id].to_numpy()}))
    shared = shared_with_earlier(con, study, "batches", "wave_2")
    assert (shared.people, shared.same_answers, shared.repeats) == (200, 0, False)
    assert "200 of 200 people are in wave_1 too (none with the same answers)" in shared.in_words()


def test_the_same_answers_under_other_ids_are_told(
    drop: Drop, con: Connection, batch: pd.DataFrame, study: Study
):
    drop("batches", "march.parquet", batch)
    renamed = batch.iloc[:120].assign(**{study.id: [f"new {number}" for number in range(120)]})
    drop("batches", "april.parquet", renamed)
    shared = shared_with_earlier(con, study, "batches", "april")
    assert (shared.people, shared.under_other_ids) == (0, 120)
    assert "120 of 120 people answer the same as people of march, under different ids" in shared.in_words()


def parts(con: Connection, study: Study, name: str) -> dict[str, str]:
    found = con.execute(f'SELECT "{study.id}", part FROM field_study_rows WHERE field_study = ?', [name])
    return dict(found.fetchall())


def test_nobody_is_learned_from_or_held_out_twice(
    drop: Drop, con: Connection, people: pd.DataFrame, study: Study
):
    drop("field_studies", "founding.parquet", people.iloc[:400])
    first = parts(con, study, "founding")
    drop("field_studies", "later.parquet", people.iloc[300:700])
    later = parts(con, study, "later")
    assert {later[one] for one in people[study.id].iloc[300:400].astype(str)} == {"set_aside"}
    fresh = [later[one] for one in people[study.id].iloc[400:700].astype(str)]
    assert fresh.count("set_aside") == 0
    assert fresh.count("holdout") == pytest.approx(45, abs=1)
    assert parts(con, study, "founding") == first
    shared = shared_with_earlier(con, study, "field_studies", "later")
    assert (shared.same_answers, shared.set_aside) == (100, 100)


def test_nobody_is_learned_from_twice_under_another_id(
    drop: Drop, con: Connection, people: pd.DataFrame, study: Study
):
    drop("field_studies", "founding.parquet", people.iloc[:400])
    renamed = people.iloc[300:700].assign(**{study.id: [f"new {number}" for number in range(400)]})
    drop("field_studies", "later.parquet", renamed)
    later = parts(con, study, "later")
    assert {part for one, part in later.items() if int(one.split()[1]) < 100} == {"set_aside"}
    assert sum(part == "set_aside" for part in later.values()) == 100
    said = refused(
        drop, con, "field_studies", "again.csv", people.iloc[:400].assign(**{study.id: np.arange(400)})
    )
    assert "are those of the field study 'founding'" in said
    assert "under different ids" in said


def test_a_corrected_study_is_learned_from_in_the_place_of_the_first(
    drop: Drop, con: Connection, people: pd.DataFrame, study: Study
):
    drop("field_studies", "founding.parquet", people.iloc[:400])
    assert drop("field_studies", "founding.parquet", people.iloc[:399]).name == "founding@2"
    first, second = parts(con, study, "founding"), parts(con, study, "founding@2")
    assert second == {one: first[one] for one in second}


def test_in_a_survey_of_few_questions_like_answers_are_other_people(
    tmp_path: Path, people: pd.DataFrame, study: Study
):
    from poleng_assets.warehouse.schema import create_tables

    few = study.model_copy(update={"features": study.features[:2], "contact_list": (), "protected": ()})
    columns = [few.id, *few.feature_names, few.target.name]
    with duckdb.connect() as con:
        create_tables(con, few)
        for name, rows in (("one", people.iloc[:500]), ("two", people.iloc[500:1_000])):
            rows[columns].to_parquet(tmp_path / f"{name}.parquet")
            ingest(con, few, "field_studies", tmp_path / f"{name}.parquet")
        shared = shared_with_earlier(con, few, "field_studies", "two")
        assert (shared.people, shared.under_other_ids) == (0, 0)


def test_outcomes_that_newer_ones_changed_are_refused_in_words(
    drop: Drop, con: Connection, labelled: pd.DataFrame, study: Study
):
    told = labelled[[study.id, study.target.name]].astype({study.target.name: int})
    drop("outcomes", "first.csv", told)
    drop("outcomes", "second.csv", told.iloc[:7].assign(**{study.target.name: 1 - told[study.target.name]}))
    said = refused(drop, con, "outcomes", "again.parquet", told)
    assert "Later files have different outcomes for 7 of them" in said
