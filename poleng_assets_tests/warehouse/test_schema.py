"""Writing to the warehouse: by name, one partition, one transaction."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from poleng_assets.core.ingestion.contract import required_columns
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse import schema
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.schema import create_tables, storage_types
from poleng_assets.warehouse.writes import insert, now, replace_partition, transaction
from poleng_assets_tests.conftest import table_counts

Connection = duckdb.DuckDBPyConnection


def figures(**columns: Any) -> pd.DataFrame:
    rows = {
        "batch": "b1",
        "model_version": 1,
        "kind": "estimated",
        "metric": ["auc", "recall"],
        "value": [0.7, 0.4],
        "lower": [0.6, 0.3],
        "upper": [0.8, 0.5],
    }
    return pd.DataFrame({**rows, **columns})


def stored(con: Connection) -> list[tuple[Any, ...]]:
    return con.execute(
        "SELECT batch, model_version, metric, value, lower, upper FROM performance ORDER BY ALL"
    ).fetchall()


OLD = [("b1", 1, "auc", 0.7, 0.6, 0.8), ("b1", 1, "recall", 0.4, 0.3, 0.5)]


@pytest.fixture
def filled(con: Connection) -> Connection:
    """A warehouse with the figures of one batch."""
    insert(con, "performance", figures())
    assert stored(con) == OLD
    return con


# The tables

CONTRACT = {
    "predictions": ["batch", "subject_id", "model_version", "score", "contact", "scored_at", "audit"],
    "contact_lists": ["batch", "subject_id", "model_version", "score", "created_at"],
    "drift_reports": ["batch", "model_version", "verdict", "rows", "drifted_columns", "reported_at"],
    "drift_metrics": [
        "batch",
        "model_version",
        "column_name",
        "method",
        "value",
        "lower_threshold",
        "upper_threshold",
        "alert",
    ],
    "performance": ["batch", "model_version", "kind", "metric", "value", "lower", "upper"],
    "quarantine": ["source", "row_number", "column_name", "reason", "payload"],
    "decisions": [
        "decided_at",
        "kind",
        "champion_version",
        "challenger_version",
        "reason",
        "evidence",
        "training_data_hash",
    ],
}


@pytest.mark.parametrize("table", list(CONTRACT))
def test_a_table_has_the_columns_that_are_relied_on_from_outside(con: Connection, table: str):
    columns = con.table(table).columns
    assert [name for name in CONTRACT[table] if name not in columns] == []


@pytest.mark.parametrize(
    ("table", "key", "kind"),
    [
        ("field_study_rows", "field_study", "field_studies"),
        ("batch_rows", "batch", "batches"),
        ("outcomes", "batch", "outcomes"),
    ],
)
def test_a_row_table_has_the_columns_of_the_study(
    con: Connection, study: Study, table: str, key: str, kind: Kind
):
    columns = con.table(table).columns
    assert columns[0] == key
    assert columns[-len(required_columns(study, kind)) :] == required_columns(study, kind)


def test_making_the_tables_again_keeps_what_is_in_them(filled: Connection, study: Study):
    create_tables(filled, study)
    assert stored(filled) == OLD


def kept_as_text(path: Path, study: Study) -> pd.DataFrame:
    """Make a warehouse as earlier releases did: nominal and binary codes are text; return its people."""
    names = {f.name: "INTEGER" if f.is_ordinal else "VARCHAR" for f in study.features}
    answers = ", ".join(f'"{name}" {type_}' for name, type_ in names.items())
    person, target = f'"{study.id}" VARCHAR NOT NULL', f'"{study.target.name}" INTEGER NOT NULL'
    codes = {f.name: [min(f.codes), None, max(f.codes)] * 1_000 for f in study.features}
    people = pd.DataFrame({study.id: [f"p{n}" for n in range(3_000)], **codes}).astype(
        dict.fromkeys(study.feature_names, "Int64")
    )
    with duckdb.connect(path) as con:
        con.execute(
            f"""CREATE TABLE batch_rows (batch VARCHAR NOT NULL, row_number BIGINT NOT NULL,
            {person}, {answers})"""
        )
        con.execute(
            f"""CREATE TABLE field_study_rows (field_study VARCHAR NOT NULL, row_number BIGINT NOT NULL,
            part VARCHAR NOT NULL, {person}, {answers}, {target})"""
        )
        for table, key in (
            ("batch_rows", {"batch": "b"}),
            ("field_study_rows", {"field_study": "f", "part": "train", study.target.name: 1}),
        ):
            insert(con, table, people.assign(row_number=people.index + 1, **key))
    return people


def types_of_answers(con: Connection, study: Study) -> set[tuple[str, str]]:
    return set(
        con.execute(
            "SELECT table_name, data_type FROM duckdb_columns() WHERE list_contains(?, column_name)",
            [study.feature_names],
        ).fetchall()
    )


NUMBERS = {("batch_rows", "INTEGER"), ("field_study_rows", "INTEGER")}


def test_codes_that_were_kept_as_text_become_numbers(tmp_path: Path, study: Study):
    path = tmp_path / "warehouse.duckdb"
    people = kept_as_text(path, study)
    for _ in range(2):
        with Warehouse(path, study).connect() as con:
            assert types_of_answers(con, study) == NUMBERS
            for table in ("batch_rows", "field_study_rows"):
                found = con.execute(f"SELECT * FROM {table} ORDER BY row_number").df()[people.columns]
                pd.testing.assert_frame_equal(found.astype(people.dtypes.to_dict()), people)


def test_codes_become_numbers_all_or_none(tmp_path: Path, study: Study):
    path = tmp_path / "warehouse.duckdb"
    people = kept_as_text(path, study)
    nominal = [f.name for f in study.features if not f.is_ordinal]
    with duckdb.connect(path) as con:
        before = types_of_answers(con, study)
        # The last one to be looked at: those before it are numbers by then.
        con.execute(f"""UPDATE field_study_rows SET "{nominal[-1]}" = 'huh' WHERE row_number = 2000""")
    with pytest.raises(duckdb.ConversionException, match="huh"), Warehouse(path, study).connect():
        pass
    with duckdb.connect(path) as con:
        assert types_of_answers(con, study) == before
        assert con.table("batch_rows").count("*").fetchall() == [(len(people),)]


def test_a_process_that_is_killed_while_codes_become_numbers_leaves_them_as_they_were(
    tmp_path: Path, study: Study
):
    path = tmp_path / "warehouse.duckdb"
    people = kept_as_text(path, study)
    killing = """import os, sys
from pathlib import Path
from poleng_assets.warehouse import schema as tables
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.study.loading import load_study

follow = tables.sync_columns

def follow_and_die(con, study, table, columns):
    follow(con, study, table, columns)
    if table == "field_study_rows":  # the codes are numbers, and nothing is committed
        os.kill(os.getpid(), 9)

tables.sync_columns = follow_and_die
with Warehouse(Path(sys.argv[1]), load_study()).connect():
    pass
"""
    killed = subprocess.run([sys.executable, "-c", killing, path], check=False)
    assert killed.returncode == -9
    with duckdb.connect(path) as con:
        assert ("batch_rows", "VARCHAR") in types_of_answers(con, study)
        assert con.table("batch_rows").count("*").fetchall() == [(len(people),)]
    with Warehouse(path, study).connect() as con:
        assert types_of_answers(con, study) == NUMBERS


def test_a_study_with_another_id_column_has_it_in_every_table(study: Study):
    with duckdb.connect() as con:
        create_tables(con, study.model_copy(update={"id": "person"}))
        found = con.execute(
            "SELECT DISTINCT table_name FROM duckdb_columns() WHERE column_name = 'person' ORDER BY 1"
        ).fetchall()
    assert [name for (name,) in found] == [
        "batch_rows",
        "contact_lists",
        "current_predictions",
        "field_study_requests",
        "field_study_rows",
        "outcomes",
        "predictions",
    ]


def test_a_warehouse_is_asked_for_its_columns_only_when_the_study_asks_for_others(
    con: Connection, study: Study, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    follow = schema.sync_columns

    def counted(con: Connection, study: Study, table: str, columns: Mapping[str, str]) -> None:
        asked.append(table)
        follow(con, study, table, columns)

    monkeypatch.setattr(schema, "sync_columns", counted)
    create_tables(con, study)
    assert asked == []
    anew = study.features[0].model_copy(update={"name": "asked_anew"})
    create_tables(con, study.model_copy(update={"features": (*study.features, anew)}))
    assert set(asked) == {"batch_rows", "field_study_rows", "outcomes"}
    assert "asked_anew" in con.table("batch_rows").columns
    # Back again: what was asked anew is kept, and nothing else is lacking.
    create_tables(con, study)
    assert "asked_anew" in con.table("batch_rows").columns


def test_a_warehouse_of_an_earlier_release_gets_the_columns_that_it_lacks(con: Connection, study: Study):
    con.execute("DROP MACRO warehouse_layout")  # they did not say what they have
    con.execute("DROP VIEW current_predictions; ALTER TABLE predictions DROP COLUMN audit")
    con.execute("INSERT INTO predictions VALUES ('b1', '7', 1, 0.4, false, now())")
    for _ in range(2):
        create_tables(con, study)
    found = con.execute("SELECT subject_id, audit FROM current_predictions").fetchall()
    assert found == [("7", False)]
    con.execute("INSERT INTO predictions VALUES ('b1', '8', 1, 0.6, true, now(), true)")


# Transactions


def test_what_happens_in_a_transaction_is_kept(con: Connection):
    with transaction(con):
        insert(con, "performance", figures())
    assert stored(con) == OLD


def test_a_transaction_that_fails_leaves_everything_as_it_was(filled: Connection):
    before = table_counts(filled)

    def write_and_die() -> None:
        with transaction(filled):
            insert(filled, "performance", figures(batch="b2"))
            record_decision(filled, "hold", "x", evidence={})
            filled.execute("DELETE FROM performance WHERE batch = 'b1'")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_die()
    assert (stored(filled), table_counts(filled)) == (OLD, before)


def test_after_a_failed_transaction_the_next_one_works(filled: Connection):
    with pytest.raises(duckdb.Error), transaction(filled):
        filled.execute("SELECT * FROM nowhere")
    with transaction(filled):
        insert(filled, "performance", figures(batch="b2"))
    assert len(stored(filled)) == 4


# Inserting


def test_columns_in_another_order_are_inserted_under_their_names(con: Connection):
    insert(
        con, "performance", figures()[["upper", "metric", "lower", "value", "kind", "model_version", "batch"]]
    )
    assert stored(con) == OLD


def test_a_column_that_may_be_empty_can_be_left_out(con: Connection):
    insert(con, "performance", figures().drop(columns=["lower", "upper"]))
    assert [row[4:] for row in stored(con)] == [(None, None)] * 2


def test_a_figure_that_is_no_number_is_stored_as_none(con: Connection):
    insert(con, "performance", figures(value=[None, float("nan")]))
    assert [row[3] for row in stored(con)] == [None, None]


def test_the_frame_is_not_left_behind_in_the_warehouse(filled: Connection):
    with pytest.raises(duckdb.CatalogException):
        filled.execute("SELECT * FROM incoming")


WRONG = {
    "an unknown column": (lambda: figures(colour="red"), "colour"),
    "a missing column that must be there": (lambda: figures().drop(columns="metric"), "metric"),
    "nothing where something must be": (lambda: figures(metric=[None, "auc"]), "metric"),
    "words for a number": (lambda: figures(value=["high", "low"]), "high"),
}


@pytest.mark.parametrize(("rows", "named"), WRONG.values(), ids=WRONG.keys())
def test_rows_that_do_not_fit_raise_say_why_and_the_old_rows_survive(
    filled: Connection, rows: Any, named: str
):
    with pytest.raises(duckdb.Error, match=named), transaction(filled):
        replace_partition(filled, "performance", {"batch": "b1"}, rows().drop(columns="batch"))
    assert stored(filled) == OLD


@pytest.mark.parametrize(("rows", "named"), WRONG.values(), ids=WRONG.keys())
def test_after_rows_that_do_not_fit_the_right_ones_can_be_written(filled: Connection, rows: Any, named: str):
    with pytest.raises(duckdb.Error), transaction(filled):
        insert(filled, "performance", rows())
    with transaction(filled):
        insert(filled, "performance", figures(batch="b2"))
    assert len(stored(filled)) == 4


# Replacing


def test_replacing_puts_new_rows_in_the_place_of_the_old(filled: Connection):
    replace_partition(filled, "performance", {"batch": "b1", "model_version": 1}, figures(value=0.9).iloc[:1])
    assert stored(filled) == [("b1", 1, "auc", 0.9, 0.6, 0.8)]


def test_replacing_touches_its_own_partition_only(filled: Connection):
    insert(filled, "performance", figures(batch="b2"))
    insert(filled, "performance", figures(model_version=2))
    others = [row for row in stored(filled) if row[:2] != ("b1", 1)]
    replace_partition(filled, "performance", {"batch": "b1", "model_version": 1}, figures(value=0.9))
    assert [row for row in stored(filled) if row[:2] != ("b1", 1)] == others
    assert [row[3] for row in stored(filled) if row[:2] == ("b1", 1)] == [0.9, 0.9]


def test_replaced_rows_belong_to_the_partition_whatever_they_say(filled: Connection):
    replace_partition(filled, "performance", {"batch": "b1"}, figures(batch="elsewhere"))
    assert stored(filled) == OLD


def test_replacing_twice_is_the_same_as_once(filled: Connection):
    for _ in range(2):
        replace_partition(filled, "performance", {"batch": "b1"}, figures())
    assert stored(filled) == OLD


def test_replacing_by_nothing_empties_the_partition(filled: Connection):
    replace_partition(filled, "performance", {"batch": "b1"}, pd.DataFrame())
    assert stored(filled) == []


def test_a_hostile_partition_name_is_a_name(filled: Connection):
    name = "x'; DELETE FROM performance; --"
    replace_partition(filled, "performance", {"batch": name}, figures())
    assert {row[0] for row in stored(filled)} == {"b1", name}


# The ledger


def test_a_decision_is_kept_with_its_evidence(con: Connection):
    record_decision(
        con,
        "promote",
        "better log-loss",
        evidence={"gates": ["ä", 0.5], "auc": None},
        champion_version=1,
        challenger_version=2,
        training_data_hash="abc",
        batch="b1",
        dagster_run_id="run",
        mlflow_run_id="tracked",
    )
    kept = con.execute("SELECT * EXCLUDE (decided_at, evidence) FROM decisions").fetchall()
    assert kept == [("promote", 1, 2, "better log-loss", "abc", "b1", "run", "tracked")]
    evidence = con.execute("SELECT evidence FROM decisions").fetchall()[0][0]
    assert json.loads(evidence) == {"gates": ["ä", 0.5], "auc": None}


def test_a_decision_is_dated_with_the_present_instant(con: Connection):
    before = datetime.now(UTC)
    record_decision(con, "skip", "why", evidence={})
    seconds = con.execute("SELECT epoch(decided_at) FROM decisions").fetchall()[0][0]
    assert before.timestamp() - 0.001 <= seconds <= datetime.now(UTC).timestamp()


def test_decisions_are_added_and_nothing_is_replaced(con: Connection):
    for _ in range(2):
        record_decision(con, "hold", "the same", evidence={})
    assert table_counts(con)["decisions"] == 2


def test_now_has_a_zone():
    assert now().utcoffset() is not None


def test_storage_keeps_ids_as_text_and_codes_as_integers(study: Study):
    types = storage_types(study, "field_studies")
    assert list(types) == required_columns(study, "field_studies")
    assert (types[study.id], types[study.target.name]) == ("VARCHAR NOT NULL", "INTEGER NOT NULL")
    assert {types[name] for name in study.feature_names} == {"INTEGER"}


def test_outcomes_are_stored_as_id_and_target(study: Study):
    assert list(storage_types(study, "outcomes")) == [study.id, study.target.name]
