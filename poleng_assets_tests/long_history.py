"""A home with years behind it: thousands of batches in Dagster's history and in the warehouse, made cheaply.

What stands there afterwards is what as many runs would have left, as far as sensors and accounts look at it:
partitions, runs with their tags, materialisations with metadata of the usual size, a few rows of each batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock
from uuid import uuid4

import dagster as dg
import duckdb
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs import SqlRunStorage
from sqlalchemy import event as sql_events
from sqlalchemy.engine import Engine

from poleng_assets.runs import PARTITION_TAG, REQUEST_TAG
from poleng_assets.study import Study

STUDY, STUDY_HASH = "founding_study", "f" * 64
# Characters of pictures and tables that the events of a real home carry.
PICTURES = {"drift_report": 38_000, "contact_list": 2_000, "predictions": 700}
EVENTS_AT_ONCE = 500


def batch_names(batches: int) -> list[str]:
    return [f"week_{number:05}" for number in range(batches)]


def write_history(instance: dg.DagsterInstance, batches: int, *, pictures: bool = True) -> None:
    """Put a first champion and so many finished batches into Dagster's history.

    Args:
        instance: of an empty home.
        batches: how many; each has its partition, one successful run, and five materialisations.
        pictures: whether the events carry as much as real ones do (45 kB for each batch).
    """
    names = batch_names(batches)
    instance.add_dynamic_partitions("field_study", [STUDY])
    for begin in range(0, batches, EVENTS_AT_ONCE):
        instance.add_dynamic_partitions("batch", names[begin : begin + EVENTS_AT_ONCE])
    started = time.time() - 600 * batches
    events = [_event("field_studies", STUDY, str(uuid4()), started - 2, {"content_hash": STUDY_HASH})]
    events.append(
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
        )
    )
    runs = [
        dg.DagsterRun(
            "process_batch",
            run_id=str(uuid4()),
            status=dg.DagsterRunStatus.SUCCESS,
            tags={PARTITION_TAG: name, REQUEST_TAG: f"batches/{name}.parquet/{number}"},
        )
        for number, name in enumerate(names)
    ]
    _store_runs(instance, runs)
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        found: Mapping[str, Mapping[str, Any]] = {
            "batches": {"content_hash": f"{number:064}", "rows_quarantined": 0},
            "predictions": {"contacts": 1, "model_version": 1},
            "drift_report": {"verdict": "clear", "held": False, "alarm": False, "model_version": 1},
            "contact_list": {"contacts": 1, "model_version": 1},
            "overview": {"batches": number + 1},
        }
        for asset, metadata in found.items():
            size = PICTURES.get(asset, 0) if pictures else 0
            drawn = {"picture": dg.MetadataValue.md("x" * size)} if size else {}
            partition = None if asset == "overview" else name
            events.append(_event(asset, partition, run.run_id, started + 600 * number, {**metadata, **drawn}))
        if len(events) > EVENTS_AT_ONCE:
            _store(instance, events)
            events = []
    _store(instance, events)


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


def _store_runs(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
    """Store runs in one transaction, through one connection."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as con, mock.patch.object(storage, "connect", lambda: nullcontext(con)):
        for run in runs:
            storage.add_run(run)


def _store(instance: dg.DagsterInstance, events: Sequence[dg.EventLogEntry]) -> None:
    """Store events in one transaction; one by one, each would wait for the disk twice."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_transaction() as con:
        con.execute(storage.prepare_insert_event_batch(events))
    last = {each.get_dagster_event().asset_key: each for each in events}
    for entry in last.values():
        storage.store_asset_event(entry, storage.get_maximum_record_id() or 0)


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
