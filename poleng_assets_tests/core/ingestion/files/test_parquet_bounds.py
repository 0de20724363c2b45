"""A Parquet file that would unfold to more than its rows can need is refused before it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files import parquet_bounds
from poleng_assets.core.ingestion.files.open_file import open_file
from poleng_assets.core.ingestion.files.parquet_bounds import BUDGET, LONGEST_VALUE, rows_at_once

ROWS = 100_000
LONG = 120_000


def repeated(value: str | bytes, rows: int = ROWS) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([value]))


ONES = pa.array(np.ones(ROWS, dtype=np.int8))
BOMBS = {
    "ids": {"id": repeated("x" * LONG), "a": ONES},
    "answers": {"id": ONES, "a": repeated("x" * LONG)},
    "an answer and blanks": {"id": ONES, "a": repeated("1" + " " * LONG)},
    "bytes": {"id": repeated(b"x" * LONG), "a": ONES},
    "every column": {"id": repeated("y" * LONG), "a": repeated("x" * LONG)},
    "behind rows without an answer": {
        "id": ONES,
        "a": pa.DictionaryArray.from_arrays(
            pa.array([None] * 99 + [0] * (ROWS - 99), pa.int32()), ["x" * LONG]
        ),
    },
}


def read(path: Path, max_bytes: int = 20_000 * 2**20) -> int:
    with open_file(path, ["id", "a"], max_bytes=max_bytes) as file:
        return sum(chunk.rows.num_rows for chunk in file.chunks())


@pytest.mark.parametrize("groups", [None, 1_000], ids=["one row group", "many row groups"])
@pytest.mark.parametrize("columns", BOMBS.values(), ids=BOMBS.keys())
def test_a_long_text_that_stands_for_many_rows_is_refused_before_it_unfolds(
    tmp_path: Path, columns: dict[str, pa.Array], groups: int | None
):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=groups, store_schema=False)
    assert path.stat().st_size < 3_000_000
    before = pa.total_allocated_bytes()
    peak = pa.default_memory_pool().max_memory() or 0
    with pytest.raises(
        FileRefused, match=r"refused before it is unpacked: the column (id|a) holds a value of"
    ):
        read(path)
    after = pa.default_memory_pool().max_memory() or 0
    assert after <= max(peak, before + 64 * 2**20)


def test_a_page_that_unpacks_to_much_is_refused_by_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "bomb.parquet"
    many = pa.array(["x" * 900] * 4_000)
    columns = {"id": pa.array(np.ones(4_000, dtype=np.int8)), "a": many}
    pq.write_table(pa.table(columns), path, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet_bounds, "BUDGET", 2**20)
    monkeypatch.setattr(parquet_bounds, "MOST_PACKED", 100)
    with pytest.raises(FileRefused, match=r"unfolds from .* bytes to .*, which no survey does"):
        read(path)
    with pytest.raises(FileRefused, match="max_expanded_megabytes"):
        read(path, max_bytes=2**20)


def test_lists_are_refused_before_they_are_read(tmp_path: Path):
    path = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"id": ["1"], "a": [[1] * 100_000]}), path)
    with pytest.raises(FileRefused, match=r"the column a holds list<.*>, not answers"):
        read(path)


def test_a_column_that_nobody_needs_is_never_unfolded(tmp_path: Path):
    path = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"id": ONES, "a": ONES, "notes": repeated("x" * LONG)}), path, store_schema=False)
    assert read(path) == ROWS


def test_no_more_rows_are_read_at_once_than_the_budget_holds(tmp_path: Path):
    path = tmp_path / "wide.parquet"
    entry = LONGEST_VALUE - 10
    pq.write_table(pa.table({"id": ONES, "a": repeated("x" * entry)}), path, store_schema=False)
    at_once = rows_at_once(path, pq.read_metadata(path), ["id", "a"], ROWS)
    assert 1 <= at_once * entry <= BUDGET
    assert rows_at_once(path, pq.read_metadata(path), ["id"], ROWS) == ROWS
