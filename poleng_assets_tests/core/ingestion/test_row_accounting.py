import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from poleng_assets.core.ingestion.ingest import ingest, record_refusal
from poleng_assets.core.ingestion.row_accounting import Account, account, balance, rows_in
from poleng_assets.core.modeling.model import Model
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import score_batch
from poleng_assets_tests.long_history import write_rows

Connection = duckdb.DuckDBPyConnection


@pytest.fixture
def march(tmp_path: Path, con: Connection, study: Study, people: pd.DataFrame, model: Model) -> Path:
    """A batch of 100 rows, two of them broken, scored by version 1."""
    ordinal = next(feature.name for feature in study.features if feature.is_ordinal)
    rows = people.drop(columns=study.target.name).iloc[:100].copy()
    rows[ordinal] = rows[ordinal].astype(object)
    rows.loc[rows.index[[3, 7]], ordinal] = 999
    path = tmp_path / "march.parquet"
    rows.to_parquet(path, index=False)
    ingest(con, study, "batches", path)
    score_batch(con, model, study, "march", 1)
    return path


@pytest.fixture
def march_account(con: Connection, study: Study, march: Path) -> Callable[[], Account]:
    return lambda: account(con, study, "batches", "march", rows_in(march, study, "batches"))


def test_every_row_of_a_scored_batch_is_accounted_for(march_account: Callable[[], Account]):
    counted = march_account()
    assert counted == Account(read=100, in_file=100, kept=98, scored=98, quarantined=2, erased=0)
    assert counted.balanced
    assert "98 scored + 2 in quarantine + 0 erased + 0 lost" in counted.in_words()


def test_a_row_without_a_score_is_missed(con: Connection, march_account: Callable[[], Account]):
    con.execute("DELETE FROM predictions WHERE rowid = (SELECT min(rowid) FROM predictions)")
    assert not march_account().balanced
    assert "1 lost" in march_account().in_words()


@pytest.mark.parametrize("table", ["batch_rows", "quarantine"])
def test_a_row_that_vanished_is_missed(con: Connection, march_account: Callable[[], Account], table: str):
    con.execute(f"DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})")
    assert not march_account().balanced


def test_a_file_that_holds_more_than_was_read_is_missed(
    con: Connection, study: Study, march: Path, march_account: Callable[[], Account]
):
    rows = pd.read_parquet(march)
    pd.concat([rows, rows.head(1)]).to_parquet(march, index=False)
    assert march_account().in_file == 101
    assert not march_account().balanced


def test_a_person_who_was_erased_is_not_missed(
    con: Connection, study: Study, march: Path, march_account: Callable[[], Account]
):
    rows = pd.read_parquet(march)
    gone = rows[study.id].iloc[0]
    rows.iloc[1:].to_parquet(march, index=False)
    for table in ("batch_rows", "predictions"):
        con.execute(f'DELETE FROM {table} WHERE "{study.id}" = ?', [gone])
    con.execute("UPDATE ingested_files SET rows_erased = 1, rows_kept = rows_kept - 1")
    assert march_account() == Account(read=100, in_file=99, kept=97, scored=97, quarantined=2, erased=1)
    assert march_account().balanced


def test_a_file_that_is_not_kept_any_more_cannot_be_counted(
    study: Study, march: Path, march_account: Callable[[], Account]
):
    march.unlink()
    assert march_account().in_file is None
    assert march_account().balanced
    assert rows_in(None, study, "batches") is None


def test_an_unknown_file_has_no_account(con: Connection, study: Study):
    with pytest.raises(LookupError, match="april"):
        account(con, study, "batches", "april", None)


def test_all_batches_together_are_balanced(con: Connection, study: Study, march: Path):
    other = march.with_name("april.parquet")
    pd.read_parquet(march).iloc[10:40].to_parquet(other, index=False)
    ingest(con, study, "batches", other)
    record_refusal(con, "batches", march, 25, "too broken")
    record_refusal(con, "batches", other, None, "cannot be read")
    whole = balance(con)
    assert (whole.came_in, whole.scored, whole.waiting, whole.quarantined, whole.refused, whole.lost) == (
        155,
        98,
        30,
        2,
        25,
        0,
    )
    con.execute("DELETE FROM batch_rows WHERE batch = 'april' AND row_number = 1")
    assert balance(con).lost == 1
    assert "1 lost" in balance(con).in_words()


def test_a_batch_that_was_scored_twice_counts_once(con: Connection, study: Study, march: Path, model: Model):
    score_batch(con, model, study, "march", 2)
    assert (balance(con).scored, balance(con).waiting, balance(con).lost) == (98, 0, 0)
    con.execute("DELETE FROM predictions WHERE model_version = 2 AND NOT contact")
    assert balance(con).waiting > 0
    assert balance(con).scored + balance(con).waiting == 98


def test_a_person_who_came_back_from_quarantine_waits_for_a_score(con: Connection, study: Study, march: Path):
    con.execute(
        f"""INSERT INTO batch_rows BY NAME SELECT 'march' AS batch, 3 AS row_number, 'back' AS "{study.id}";
        DELETE FROM quarantine WHERE row_number = (SELECT min(row_number) FROM quarantine)"""
    )
    assert (balance(con).waiting, balance(con).quarantined, balance(con).lost) == (1, 1, 0)


def test_years_of_batches_are_counted_faster_than_their_people_are_looked_up(con: Connection, study: Study):
    """With every batch all are counted anew; a join of all people takes longer with each of them."""
    write_rows(con, study, batches=2_000, rows=200)
    join = f'SELECT count(*) FROM batch_rows SEMI JOIN current_predictions USING (batch, "{study.id}")'

    def seconds(count: Callable[[], object]) -> float:
        started = time.process_time()
        count()
        return time.process_time() - started

    by_person = min(seconds(lambda: con.execute(join).fetchall()) for _ in range(3))
    assert min(seconds(lambda: balance(con)) for _ in range(3)) < by_person
    whole = balance(con)
    assert (whole.read, whole.scored, whole.waiting, whole.lost) == (400_000, 400_000, 0, 0)
    con.execute("DELETE FROM batch_rows WHERE batch = 'week_00077' AND row_number = 5")
    assert balance(con).lost == 1


def test_an_empty_warehouse_is_balanced(con: Connection, study: Study):
    assert (balance(con).came_in, balance(con).lost) == (0, 0)
