"""A home with years behind it: thousands of batches in Dagster's history and in the warehouse, made cheaply.

What stands there afterwards is what as many runs would have left, as far as sensors and accounts look at it:
partitions, runs with their tags, materialisations with metadata of the usual size, a few rows of each batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import dagster as dg
import duckdb
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs import SqlRunStorage
from sqlalchemy import event as sql_events
from sqlalchemy.engine import Connection, Engine

from poleng_assets.defs.run_history import PARTITION_TAG, REQUEST_TAG
from poleng_assets.study.schema import Study

STUDY, STUDY_HASH = "founding_study", "f" * 64
# Characters of pictures and tables that the events of a real home carry.
PICTURES = {"drift_report": 38_000, "contact_list": 2_000, "predictions": 700}
PARTITIONS_AT_ONCE = 500

# All that tells one batch from another, in whatever text it stands: the hash is made of the number.
_MADE = """CREATE TEMP TABLE made (
    number INTEGER PRIMARY KEY, name TEXT, file TEXT, hash TEXT, run_id TEXT, at TEXT, moment TEXT)"""
_BY_NUMBER = """JOIN made first USING (run_id), made other
    WHERE first.number = 0 AND other.number > 0 ORDER BY other.number"""


def _changed(column: str, *more: str) -> str:
    for what in ("run_id", *more, "name"):
        column = f"replace({column}, first.{what}, other.{what})"
    return column


_RUNS = f"""INSERT INTO runs (run_id, pipeline_name, status, run_body, partition)
    SELECT other.run_id, pipeline_name, status, {_changed("run_body", "file")}, other.name
    FROM runs {_BY_NUMBER}"""
_TAGS = f"""INSERT INTO run_tags (run_id, key, value)
    SELECT other.run_id, key, {_changed("value", "file")}
    FROM run_tags {_BY_NUMBER}, id"""
_EVENTS = f"""INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition)
    SELECT other.run_id, {_changed("event", "hash", "at")}, dagster_event_type, other.moment, asset_key,
        {_changed("partition")}
    FROM event_logs {_BY_NUMBER}, id"""


@dataclass(frozen=True)
class _Batch:
    """One finished batch: its number, when it was dealt with (seconds since 1970), and its run."""

    number: int
    at: float
    run_id: str

    @property
    def name(self) -> str:
        return f"week_{self.number:05}"

    @property
    def file(self) -> str:
        return f"batches/{self.name}.parquet/{self.number}"

    @property
    def content_hash(self) -> str:
        return f"{self.number:064}"

    def run(self) -> dg.DagsterRun:
        tags = {PARTITION_TAG: self.name, REQUEST_TAG: self.file}
        return dg.DagsterRun(
            "process_batch", run_id=self.run_id, status=dg.DagsterRunStatus.SUCCESS, tags=tags
        )

    def events(self, *, pictures: bool) -> Iterator[dg.EventLogEntry]:
        found: Mapping[str, Mapping[str, Any]] = {
            "batches": {"content_hash": self.content_hash, "rows_quarantined": 0},
            "predictions": {"contacts": 1, "model_version": 1},
            "drift_report": {"verdict": "clear", "held": False, "alarm": False, "model_version": 1},
            "contact_list": {"contacts": 1, "model_version": 1},
            "overview": {"contacts": 1},
        }
        for asset, metadata in found.items():
            size = PICTURES.get(asset, 0) if pictures else 0
            drawn = {"picture": dg.MetadataValue.md("x" * size)} if size else {}
            partition = None if asset == "overview" else self.name
            yield _event(asset, partition, self.run_id, self.at, {**metadata, **drawn})

    def row(self) -> tuple[int | str, ...]:
        moment = datetime.fromtimestamp(self.at, UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
        return self.number, self.name, self.file, self.content_hash, self.run_id, repr(self.at), moment


def batch_names(batches: int) -> list[str]:
    return [_Batch(number, 0.0, "").name for number in range(batches)]


def write_history(instance: dg.DagsterInstance, batches: int, *, pictures: bool = True) -> None:
    """Put a first champion and so many finished batches into Dagster's history.

    Dagster writes what there is of the first batch; of the others the same rows are written by SQL.

    Args:
        instance: of an empty home.
        batches: how many; each has its partition, one successful run, and five materialisations.
        pictures: whether the events carry as much as real ones do (45 kB for each batch).
    """
    names = batch_names(batches)
    instance.add_dynamic_partitions("field_study", [STUDY])
    for begin in range(0, batches, PARTITIONS_AT_ONCE):
        instance.add_dynamic_partitions("batch", names[begin : begin + PARTITIONS_AT_ONCE])
    started = time.time() - 600 * batches
    founding = [
        _event("field_studies", STUDY, str(uuid4()), started - 2, {"content_hash": STUDY_HASH}),
        _event(
            "champion",
            None,
            str(uuid4()),
            started - 1,
            {
                "promoted": True,
                "serving_version": 1,
                "judged_field_studies": dg.MetadataValue.json({STUDY: STUDY_HASH}),
            },
        ),
    ]
    made = [_Batch(number, started + 600 * number, str(uuid4())) for number in range(batches)]
    runs, events = instance.run_storage, instance.event_log_storage
    assert isinstance(runs, SqlRunStorage)
    assert isinstance(events, SqlEventLogStorage)
    runs.add_run(made[0].run())
    with runs.connect() as con:
        _repeat(con, made, _RUNS, _TAGS)
    with events.index_transaction() as con:
        con.execute(events.prepare_insert_event_batch([*founding, *made[0].events(pictures=pictures)]))
        _repeat(con, made, _EVENTS)
    for entry in (*founding, *made[-1].events(pictures=pictures)):
        events.store_asset_event(entry, events.get_maximum_record_id() or 0)


def _event(
    asset: str, partition: str | None, run_id: str, at: float, metadata: Mapping[str, Any]
) -> dg.EventLogEntry:
    made = dg.AssetMaterialization(asset, metadata=metadata, partition=partition)
    return dg.EventLogEntry(
        error_info=None,
        level=logging.DEBUG,
        user_message="",
        run_id=run_id,
        timestamp=at,
        job_name="process_batch",
        dagster_event=DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="process_batch",
            event_specific_data=StepMaterializationData(made),
        ),
    )


def _repeat(con: Connection, made: Sequence[_Batch], *statements: str) -> None:
    """Write of every batch what stands there of the first."""
    con.exec_driver_sql(_MADE)
    con.exec_driver_sql("INSERT INTO made VALUES (?, ?, ?, ?, ?, ?, ?)", [batch.row() for batch in made])
    for statement in statements:
        con.exec_driver_sql(statement)
    con.exec_driver_sql("DROP TABLE made")


def write_rows(con: duckdb.DuckDBPyConnection, study: Study, batches: int, rows: int) -> None:
    """Put the rows of so many scored batches into the warehouse: those of :func:`write_history`."""
    con.execute(
        f"""CREATE TEMP TABLE made AS
        SELECT format('week_{{:05d}}', b) AS batch, r AS row_number, format('p{{}}-{{}}', b, r) AS id,
            TIMESTAMPTZ '2020-01-01 00:00:00+00' + INTERVAL (b) HOUR AS moment
        FROM range({batches}) batches(b), range({rows}) people(r)"""
    )
    con.execute(
        f"""INSERT INTO ingested_files BY NAME
        SELECT 'batches' AS kind, batch AS name, md5(batch) AS content_hash, count(*) AS rows_read,
            count(*) AS rows_kept, 0 AS rows_quarantined, 'none' AS ignored_columns,
            min(moment) AS ingested_at
        FROM made GROUP BY batch ORDER BY batch;
        INSERT INTO batch_rows BY NAME SELECT batch, row_number, id AS "{study.id}" FROM made;
        INSERT INTO predictions BY NAME
        SELECT batch, id AS "{study.id}", 1 AS model_version, random() AS score, row_number = 0 AS contact,
            moment AS scored_at FROM made;
        DROP TABLE made"""
    )


@dataclass
class Effort:
    """What something cost, in a measure that does not depend on the machine."""

    statements: int = 0
    steps: int = 0  # thousands of SQLite's instructions


@contextmanager
def effort() -> Iterator[Effort]:
    """Count what is asked of Dagster's databases meanwhile."""
    spent = Effort()

    def connected(connection: Any, _: Any) -> None:
        def stepped() -> int:
            spent.steps += 1
            return 0

        connection.set_progress_handler(stepped, 1000)

    def executed(*_: Any) -> None:
        spent.statements += 1

    sql_events.listen(Engine, "connect", connected)
    sql_events.listen(Engine, "before_cursor_execute", executed)
    try:
        yield spent
    finally:
        sql_events.remove(Engine, "connect", connected)
        sql_events.remove(Engine, "before_cursor_execute", executed)
