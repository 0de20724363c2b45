"""Withdrawal: the job by which a field study is learned from no more, or counts again.

It marks the study in the warehouse, writes the ledger, and tells the graph by an event of the asset
``field_studies``. The overseer trains without the study when the champion learned from it.
"""

import dagster as dg
from pydantic import Field

from poleng_assets.core.data.asset_events import FileTakenIn
from poleng_assets.core.ingestion.withdrawal import WithdrawalRefused, field_study_records, set_withdrawn
from poleng_assets.defs.events import newest_first
from poleng_assets.defs.jobs import RETRAIN_JOB
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.files import FileRecord

WITHDRAW_JOB = "withdraw_field_study"


class WithdrawConfig(dg.Config):
    """Which field study is withdrawn, and why."""

    study: str = Field(
        description="Id of the field study: a name for all its versions, name@2 for one version."
    )
    reason: str = Field(default="requested manually", description="Reason, recorded in the ledger.")
    undo: bool = Field(default=False, description="Restore a withdrawn study.")


@dg.op(pool=WAREHOUSE_POOL, description="Marks a field study as withdrawn.")
def mark_as_withdrawn(
    context: dg.OpExecutionContext,
    config: WithdrawConfig,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> None:
    """Withdraw a field study, or take that back."""
    running_jobs = [
        run.job_name for run in runs_in_progress(context.instance) if run.run_id != context.run_id
    ]
    if RETRAIN_JOB in running_jobs:
        raise dg.Failure(
            "Nothing was withdrawn: a model is being trained; try again when it has finished.",
            allow_retries=False,
        )
    champion = registry.alias(CHAMPION)
    try:
        with warehouse.connect() as con:
            marked = set_withdrawn(
                con,
                config.study,
                reason=config.reason,
                undo=config.undo,
                learned={version.version: version.field_studies for version in registry.versions()},
                serving=champion.version if champion else None,
                dagster_run_id=context.run_id,
            )
            left = [record.name for record in field_study_records(con) if record.withdrawn_at is None]
    except WithdrawalRefused as refusal:
        raise dg.Failure(f"Nothing was withdrawn: {refusal}.", allow_retries=False) from refusal
    for event in untold_withdrawals(marked, context.instance):
        context.log_event(event)
    context.log.info(
        f"{', '.join(record.name for record in marked)} {'is restored' if config.undo else 'is withdrawn'}; "
        f"left to train on: {', '.join(left) or 'none'}"
    )


def untold_withdrawals(
    known: list[FileRecord], instance: dg.DagsterInstance
) -> list[dg.AssetMaterialization]:
    """Return the events of studies that the graph takes for counting, or for withdrawn, and that are not.

    A process may be killed between the warehouse and the event: the next run that looks tells of it.
    """
    return [
        _event(record)
        for record in known
        if _told_withdrawn(instance, record) != (record.withdrawn_at is not None)
    ]


def _told_withdrawn(instance: dg.DagsterInstance, study: FileRecord) -> bool:
    """Return whether the newest event that speaks of it says that a study is withdrawn."""
    for recorded in newest_first(instance, FileTakenIn, "field_studies", partition=study.name, limit=100):
        if recorded.event.withdrawn is not None:
            return recorded.event.withdrawn
    return False


def _event(study: FileRecord) -> dg.AssetMaterialization:
    event = FileTakenIn(
        rows=study.rows_kept,
        content_hash=study.content_hash,
        data_hash=study.data_hash,
        withdrawn=study.withdrawn_at is not None,
    )
    return dg.AssetMaterialization(
        "field_studies",
        partition=study.name,
        metadata=event.metadata(),
        tags={"dagster/data_version": study.data_hash},
    )


@dg.job(name=WITHDRAW_JOB, description="Withdraw a field study from training, or restore a withdrawn one.")
def withdraw_field_study() -> None:
    """Withdraw a field study."""
    mark_as_withdrawn()
