"""Records of files that were taken in: the newest first, found by name, changed column by column."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import pytest

from poleng_assets.warehouse.files import (
    add_file,
    earlier_files,
    file_record,
    file_records,
    names_of_files,
    update_file,
)

Connection = duckdb.DuckDBPyConnection


@pytest.fixture
def three(con: Connection) -> Connection:
    """A warehouse into which three batches and a field study were taken."""
    for kind, name in (
        ("batches", "march"),
        ("batches", "april"),
        ("field_studies", "founding"),
        ("batches", "may"),
    ):
        counts = {"rows_read": 3, "rows_kept": 2, "rows_quarantined": 1, "ignored_columns": ""}
        add_file(con, kind, {"name": name, "content_hash": f"hash of {name}", **counts})  # type: ignore[arg-type]
    return con


def test_files_come_the_newest_first_and_by_kind(three: Connection):
    assert names_of_files(three, "batches") == ["may", "april", "march"]
    assert names_of_files(three, "outcomes") == []


def test_the_data_are_what_the_file_is_until_that_is_written_otherwise(three: Connection):
    assert file_record(three, "batches", "march").data_hash == "hash of march"
    update_file(three, "batches", "march", data_hash="another")
    assert file_record(three, "batches", "march").data_hash == "another"


def test_only_what_is_named_of_one_file_is_changed(three: Connection):
    before = {record.name: record for record in file_records(three, "batches")}
    moment = datetime(2026, 11, 28, tzinfo=UTC)
    update_file(three, "batches", "april", rows_kept=3, withdrawn_at=moment)
    after = {record.name: record for record in file_records(three, "batches")}
    assert after == before | {"april": replace(before["april"], rows_kept=3, withdrawn_at=moment)}


def test_earlier_files_are_those_before_it_or_all_when_it_is_to_come(three: Connection):
    def earlier(name: str) -> list[str]:
        return [record.name for record in earlier_files(three, "batches", name)]

    assert earlier("april") == ["march"]
    assert earlier("march") == []
    assert earlier("june") == ["may", "april", "march"]


def test_a_file_that_was_never_taken_in_is_said_to_be_none(three: Connection):
    with pytest.raises(LookupError, match="no file june was taken in as batches"):
        file_record(three, "batches", "june")
