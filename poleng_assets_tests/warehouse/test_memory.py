"""Rows of a large file are let go of, chunk after chunk: memory does not grow with the file."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.ingestion.contract import check_rows
from poleng_assets.core.modeling import batch_scoring
from poleng_assets.core.modeling.batch_scoring import score_blocks, stored_blocks
from poleng_assets.core.modeling.model import Model
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.writes import _bytes, insert, limited_memory, transaction
from poleng_assets_tests.conftest import as_table

CHUNKS = 6


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Whoever holds rows in a circle of references is not helped out."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def batch(people: pd.DataFrame, study: Study) -> pa.Table:
    return as_table(people.drop(columns=study.target.name))


@pytest.mark.usefixtures("_no_collector")
def test_rows_that_are_checked_and_inserted_are_let_go_of_within_the_transaction(
    con: duckdb.DuckDBPyConnection, batch: pa.Table, study: Study
):
    held = []
    with transaction(con):
        for number in range(CHUNKS):
            rows = check_rows(batch, study, "batches").rows
            insert(con, "batch_rows", rows.append_column("batch", pa.array([f"b{number}"] * rows.num_rows)))
            held.append(pa.total_allocated_bytes())
    assert con.table("batch_rows").count("*").fetchall()[0][0] == CHUNKS * batch.num_rows
    # Not one chunk more after the last than after the first ones.
    assert held[-1] - held[1] < rows.nbytes / 2


@pytest.mark.usefixtures("_no_collector")
def test_rows_that_are_scored_are_let_go_of_block_after_block(
    warehouse: Warehouse,
    batch: pa.Table,
    model: Model,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
):
    rows = check_rows(batch, study, "batches").rows
    with warehouse.connect() as con:
        insert(con, "batch_rows", rows.append_column("batch", pa.array(["spring"] * rows.num_rows)))
    monkeypatch.setattr(batch_scoring, "BLOCK_ROWS", 200)
    given: list[weakref.ref[pa.Table]] = []
    held = []

    def watched(blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block in blocks:
            given.append(weakref.ref(block))
            held.append(sum(one() is not None for one in given))
            yield block

    blocks = watched(stored_blocks(warehouse, "spring", rows.num_rows))
    scores = score_blocks(blocks, model, study)
    assert sum(one.num_rows for one in scores) == batch.num_rows
    assert len(held) > 10
    assert max(held) <= 3  # the one that is scored, the one scored before, and the one read ahead


@pytest.mark.parametrize(("columns", "megabytes"), [(33, 106), (150, 340), (1_000, 500)])
def test_duckdb_has_little_memory_while_rows_stream_and_what_it_had_afterwards(
    con: duckdb.DuckDBPyConnection, columns: int, megabytes: int
):
    def limit() -> float:
        return _bytes(con.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]) / 1e6

    con.execute("SET memory_limit = '500MB'; SET threads = 2")
    with limited_memory(con, columns):
        assert limit() == pytest.approx(megabytes, rel=0.01)
    assert limit() == pytest.approx(500, rel=0.01)


def test_rows_of_many_columns_have_the_memory_that_they_need(tmp_path: Path):
    columns = 150
    names = [f"c{number}" for number in range(columns)]
    answers = pa.array(np.random.default_rng(1).integers(1, 9, 100_000).astype(str))
    incoming = pa.table(dict.fromkeys(names, answers))
    settings: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "500MB", "threads": 2}
    with duckdb.connect(tmp_path / "wide.duckdb", config=settings) as con:
        con.execute(f"CREATE TABLE wide ({', '.join(f'{name} VARCHAR' for name in names)})")
        with transaction(con), limited_memory(con, columns):
            for _ in range(4):
                insert(con, "wide", incoming)
        assert con.table("wide").count("*").fetchall()[0][0] == 400_000
