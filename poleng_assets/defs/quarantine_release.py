"""Release: the job that releases corrected rows, and the one that measures with them.

It puts the rows of a sheet into the warehouse (``core/ingestion/quarantine/release.py``), and tells the
graph by an event of the asset that they belong to. The overseer has a batch scored again, and outcomes
measured again, by that event; a field study is other data to learn from since.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from poleng_assets.core.data.asset_events import FileTakenIn
from poleng_assets.defs.events import newest_of
from poleng_assets.defs.jobs import RETRAIN_JOB
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import busy_partitions, runs_in_progress
from poleng_assets.storage.home import Kind
from poleng_assets.warehouse.connection import Warehouse

if TYPE_CHECKING:
    from poleng_assets.core.ingestion.quarantine.release import Released

RELEASE_JOB = "release_rows"
MEASURE_JOB = "measure_outcomes"


class ReleaseConfig(dg.Config):
    """Which rows to release."""

    source: str = Field(description="Source of the rows, such as batches/march.")
    file: str = Field(
        description="Path of the corrected sheet: what poleng quarantine list --source SOURCE --out FILE.csv "
        "wrote, with other answers. Rows that it does not hold stay in quarantine."
    )
    reason: str = Field(default="requested manually", description="Reason, recorded in the ledger.")


@dg.op(pool=WAREHOUSE_POOL, description="Releases corrected rows from quarantine into their source file.")
def put_rows_back(
    context: dg.OpExecutionContext, config: ReleaseConfig, warehouse: dg.ResourceParam[Warehouse]
) -> None:
    """Release the rows, and report them to the graph once."""
    from poleng_assets.core.ingestion.contract import FileRefused
    from poleng_assets.core.ingestion.quarantine.listing import parse_source
    from poleng_assets.core.ingestion.quarantine.release import release

    try:
        kind, name = parse_source(config.source)
        _refuse_while_busy(context, kind, name)
        with warehouse.connect() as con:
            released = release(
                con,
                warehouse.study,
                kind,
                name,
                Path(config.file),
                reason=config.reason,
                dagster_run_id=context.run_id,
            )
    except (LookupError, FileRefused) as refusal:
        raise dg.Failure(f"No rows were released: {refusal}.", allow_retries=False) from refusal
    context.log.info(released.in_words())
    # Not only when rows were released now: a run may have died between the warehouse and the event.
    known = newest_of(context.instance, FileTakenIn, kind, partition=name)
    # Events of earlier releases of this project, and of files that were taken in, know no other data.
    if known is None or (known.data_hash or known.content_hash) != released.file.data_hash:
        context.log_event(_event(released))


def _refuse_while_busy(context: dg.OpExecutionContext, kind: Kind, name: str) -> None:
    """Refuse while a run works with these rows; as long as this step has the pool, none can begin to.

    A batch whose scores were made before, and whose list after, would be done without the new rows. A
    model would be trained on data that have another hash by then.
    """
    from poleng_assets.core.ingestion.contract import FileRefused

    other_runs = [run for run in runs_in_progress(context.instance) if run.run_id != context.run_id]
    if name in busy_partitions(other_runs):
        raise FileRefused(f"a run is working on {name}; try again when it has finished")
    if kind == "field_studies" and any(run.job_name == RETRAIN_JOB for run in other_runs):
        raise FileRefused("a model is being trained; try again when it has finished")


def _event(released: "Released") -> dg.AssetMaterialization:
    file = released.file
    event = FileTakenIn(
        rows=file.rows_kept,
        rows_read=file.rows_read,
        rows_quarantined=file.rows_quarantined,
        content_hash=file.content_hash,
        data_hash=file.data_hash,
        released=True,
        rows_released=released.released,
        in_words=released.in_words(),
    )
    return dg.AssetMaterialization(
        released.kind,
        partition=file.name,
        metadata=event.metadata(),
        tags={"dagster/data_version": file.data_hash},
    )


@dg.job(name=RELEASE_JOB, description="Release corrected rows from quarantine into their source file.")
def release_rows() -> None:
    """Release corrected rows."""
    put_rows_back()


measure_outcomes = dg.define_asset_job(
    MEASURE_JOB,
    selection=["realised_performance", "overview"],
    description="Measure realised performance with outcomes released from quarantine.",
)
