"""What a model is trained on has one name, whatever the order in which it was listed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from poleng_assets.warehouse.training_sets import latest_training_set, training_data_hash

STUDIES = {"founding": "aa", "later": "bb"}
START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def name(con: duckdb.DuckDBPyConnection, studies: dict[str, str], minutes: int) -> str:
    """List a training set as the asset does: one row for each study, a little apart in time."""
    digest = training_data_hash(studies)
    for number, (study, content) in enumerate(studies.items()):
        when = START + timedelta(minutes=minutes, microseconds=number)
        con.execute("INSERT INTO training_sets VALUES (?, ?, ?, ?)", [digest, study, content, when])
    return digest


def test_the_order_of_the_studies_does_not_matter():
    assert training_data_hash(dict(reversed(STUDIES.items()))) == training_data_hash(STUDIES)


def test_the_hash_is_the_same_on_every_machine_and_day():
    assert training_data_hash(STUDIES) == "1ad6c613dea6a662ee6bc698e238d2b542210760a7589d6716d3eadcc4ca07c0"


@pytest.mark.parametrize(
    "other",
    [
        {"founding": "aa"},
        {"founding": "aa", "later": "cc"},
        {"founding": "aa", "latest": "bb"},
        {"founding": "bb", "later": "aa"},
        {**STUDIES, "more": "cc"},
        {},
    ],
    ids=repr,
)
def test_other_studies_or_other_contents_give_another_hash(other: dict[str, str]):
    assert training_data_hash(other) != training_data_hash(STUDIES)


def test_the_latest_training_set_has_all_its_studies(con: duckdb.DuckDBPyConnection):
    digest = name(con, STUDIES, 0)
    latest = latest_training_set(con)
    assert (latest.hash, latest.studies) == (digest, STUDIES)


def test_the_set_named_last_counts(con: duckdb.DuckDBPyConnection):
    name(con, STUDIES, 10)
    name(con, {"founding": "aa"}, 0)
    assert latest_training_set(con).studies == STUDIES


def test_a_set_named_again_is_the_latest_again_and_lists_each_study_once(con: duckdb.DuckDBPyConnection):
    name(con, STUDIES, 0)
    name(con, {"founding": "aa"}, 10)
    name(con, STUDIES, 20)
    assert latest_training_set(con).studies == STUDIES


def test_before_any_set_was_named_there_is_none(con: duckdb.DuckDBPyConnection):
    with pytest.raises(LookupError, match="materialise training_data first"):
        latest_training_set(con)
