"""Rows of a large file are let go of, chunk after chunk: memory does not grow with the file."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core import scoring
from poleng_assets.core.contract import check_rows
from poleng_assets.core.model import Model
from poleng_assets.core.scoring import score_batch
from poleng_assets.core.tables import MEGABYTES_PER_THREAD_OF_A_STREAM, in_little_memory, insert, transaction
from poleng_assets.study import Study
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
def test_scores_that_are_kept_are_let_go_of_within_the_transaction(
    con: duckdb.DuckDBPyConnection,
    batch: pa.Table,
    model: Model,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
):
    rows = check_rows(batch, study, "batches").rows
    insert(con, "batch_rows", rows.append_column("batch", pa.array(["spring"] * rows.num_rows)))
    monkeypatch.setattr(scoring, "CHUNK", 200)
    given: list[weakref.ref[pa.Table]] = []
    held = []

    def watched(chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for chunk in chunks:
            given.append(weakref.ref(chunk))
            yield chunk
            held.append(sum(one() is not None for one in given))

    monkeypatch.setattr(scoring, "one_ahead", watched)
    respondents, _ = score_batch(con, model, study, "spring", 1)
    assert respondents == batch.num_rows
    assert len(held) > 10
    assert max(held) <= 2  # the one in hand, and the one that the last statement read


def test_duckdb_has_little_memory_while_rows_stream_and_what_it_had_when_they_ended_badly(
    con: duckdb.DuckDBPyConnection,
):
    def limit() -> float:
        size = con.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
        number, unit = size.split()
        return float(number) * {"MiB": 2**20, "GiB": 2**30}[unit]

    before = limit()
    threads = con.execute("SELECT current_setting('threads')").fetchall()[0][0]
    with pytest.raises(KeyError), in_little_memory(con):
        while_streaming = limit()
        raise KeyError
    assert while_streaming == pytest.approx(MEGABYTES_PER_THREAD_OF_A_STREAM * threads * 1e6, rel=0.01)
    assert while_streaming < before
    assert limit() == pytest.approx(before, rel=0.01)
