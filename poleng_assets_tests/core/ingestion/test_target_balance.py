"""A field study that teaches nothing is refused when it comes, in words."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.ingest import ingest
from poleng_assets.core.ingestion.target_balance import refuse_what_teaches_nothing, remark_on_balance
from poleng_assets.simulation.population import synthesise
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse

STUDY = load_study()


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return synthesise(STUDY, rows=2_000, seed=5)


def take_in(con: duckdb.DuckDBPyConnection, folder: Path, name: str, people: pd.DataFrame, ones: int) -> None:
    """Take in a field study with so many people of class 1."""
    target = np.zeros(len(people), dtype=int)
    target[:ones] = 1
    path = folder / f"{name}.parquet"
    people.assign(**{STUDY.target.name: target}).to_parquet(path, index=False)
    confirm = partial(refuse_what_teaches_nothing, con, STUDY, name)
    ingest(con, STUDY, "field_studies", path, name, confirm=confirm)


@pytest.mark.parametrize(
    ("rows", "ones"), [(300, 0), (300, 300), (2, 1), (1, 1), (2_000, 2), (2_000, 1_998), (300, 19)]
)
def test_a_study_with_too_few_of_a_class_is_refused_and_leaves_nothing(
    tmp_path: Path, people: pd.DataFrame, rows: int, ones: int
):
    with Warehouse(tmp_path / "w.duckdb", STUDY).connect() as con:
        with pytest.raises(FileRefused) as caught:
            take_in(con, tmp_path, "lopsided", people.head(rows), ones)
        said = str(caught.value)
        assert said.startswith("it cannot be used for training: it has ")
        assert f"{rows - ones:,} of {STUDY.target.codes[0]!r} (0) and {ones:,} of" in said
        assert "min_of_each_class" in said
        for table in ("field_study_rows", "ingested_files"):
            assert con.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]


def test_a_one_sided_study_beside_enough_others_is_taken_and_remarked_on(
    tmp_path: Path, people: pd.DataFrame
):
    with Warehouse(tmp_path / "w.duckdb", STUDY).connect() as con:
        take_in(con, tmp_path, "founding", people.head(300), 60)
        assert remark_on_balance(con, STUDY, "founding") == ""
        take_in(con, tmp_path, "one_sided", people.tail(50), 0)
        assert remark_on_balance(con, STUDY, "one_sided").startswith("one-sided: it has 50 of")


def test_a_large_study_nearly_all_of_one_class_is_taken_and_remarked_on(tmp_path: Path, people: pd.DataFrame):
    with Warehouse(tmp_path / "w.duckdb", STUDY).connect() as con:
        large = pd.concat([people.assign(**{STUDY.id: people[STUDY.id] + f"-{copy}"}) for copy in range(11)])
        take_in(con, tmp_path, "lopsided", large, 22)
        assert remark_on_balance(con, STUDY, "lopsided").startswith("one-sided: it has 21,978 of")


def test_just_enough_of_a_class_is_taken(tmp_path: Path, people: pd.DataFrame):
    with Warehouse(tmp_path / "w.duckdb", STUDY).connect() as con:
        take_in(con, tmp_path, "small", people.head(300), 20)
        assert con.execute("SELECT count(*) FROM field_study_rows").fetchall() == [(300,)]
