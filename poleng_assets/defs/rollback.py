"""Rollback: the job that lets an earlier version serve again, in one step.

It moves the champion's alias, writes the ledger, and tells the graph by an event of the asset
``champion``. The version brings its own reference; the overseer scores batches again if asked to.
"""

from typing import NamedTuple

import dagster as dg
from duckdb import DuckDBPyConnection as Connection
from pydantic import Field

from poleng_assets.core.data.asset_events import Champion
from poleng_assets.core.ingestion.withdrawal import in_doubt, withdrawn
from poleng_assets.core.promotion.rollback import RollbackRefused, rollback_target
from poleng_assets.defs.assets.promotion import WHOEVER_SERVES
from poleng_assets.defs.events import newest, serving_version
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.models.mlflow_links import version_page
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import promoted_versions, record_decision, serving_decision
from poleng_assets.warehouse.predictions import batches_scored_by, current_versions

ROLLBACK_JOB = "rollback"


class RollbackConfig(dg.Config):
    """Which version to roll back to, and what of its successor's work to do again."""

    to: int = Field(
        default=0, description="Version to roll back to. 0: the version promoted before the champion."
    )
    reason: str = Field(default="requested manually", description="Reason, recorded in the ledger.")
    score_again: bool = Field(
        default=False,
        description="Score batches again whose current scores come from the rolled-back version.",
    )


@dg.op(pool=WAREHOUSE_POOL, description="Rolls back to an earlier version.")
def put_back(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> None:
    """Move the alias back, and record it."""
    alias = registry.alias(CHAMPION)
    pointed = alias.version if alias else None

    def state(con: Connection) -> object:
        return serving_decision(con), withdrawn(con), current_versions(con)

    def read(con: Connection) -> _Change:
        return _change(con, registry, config, pointed)

    def compute(change: _Change) -> _Change:
        _require_usable(registry, change.target, pointed)
        return change

    def write(con: Connection, change: _Change) -> None:
        record_decision(
            con,
            "rollback",
            change.reason,
            evidence={"taken_back": change.taken_back, "score_again": change.score_again},
            champion_version=change.target,
            challenger_version=change.taken_back,
            dagster_run_id=context.run_id,
        )

    try:
        change = warehouse.read_compute_write(state, read, compute, write)
    except RollbackRefused as refusal:
        raise dg.Failure(f"Not rolled back: {refusal}.", allow_retries=False) from refusal
    # After the ledger: a version that serves has its reason there, at every moment.
    if lost := registry.appoint(change.target):
        context.log.warning(f"Version {change.target} serves from its files, according to the ledger. {lost}")
    context.log.info(change.reason)
    context.log_event(_event(context.instance, registry.model_name, change))


class _Change(NamedTuple):
    """A rollback: which version is to serve, which one is taken back (0: none), and why.

    ``score_again`` are the batches that are to be scored again.
    """

    target: int
    taken_back: int
    reason: str
    score_again: list[str]


def _change(con: Connection, registry: Registry, config: RollbackConfig, pointed: int | None) -> _Change:
    """Read what a rollback means; ``pointed``: the version that the alias points to.

    Raises:
        RollbackRefused: there is no such version, or it may not serve.
    """
    decision = serving_decision(con)
    serving = decision.version if decision else pointed
    if decision is not None and config.to == decision.version != pointed:
        # The alias was moved by hand: it is restored.
        target, serving = decision.version, pointed
    else:
        target = rollback_target(
            serving, _versions_that_may_serve(con, registry, config.to), config.to or None
        )
    taken_back = serving or 0
    reason = f"rolled back from version {taken_back} to version {target}: {config.reason}"
    again = batches_scored_by(con, taken_back) if config.score_again else []
    return _Change(target, taken_back, reason, again)


def _versions_that_may_serve(con: Connection, registry: Registry, wanted: int) -> set[int]:
    """Return the promoted versions that learned from nothing that was withdrawn since.

    Raises:
        RollbackRefused: the wanted one did.
    """
    learned = {version.version: version.field_studies for version in registry.versions()}
    promoted = promoted_versions(con)
    doubts = {version: in_doubt(con, version, learned.get(version, ())) for version in promoted}
    if doubt := doubts.get(wanted):
        raise RollbackRefused(f"{doubt}; `poleng withdraw STUDY --undo` restores a study")
    return {version for version in promoted if not doubts[version]}


def _require_usable(registry: Registry, target: int, pointed: int | None) -> None:
    """See that the files of a version can be used, before anything says that it serves.

    Raises:
        RollbackRefused: they cannot, or the version is not registered any more.
    """
    try:
        fault = registry.validation_error(registry.version(target))
    except LookupError as error:
        fault = str(error)
    if fault:
        raise RollbackRefused(
            f"version {target} cannot serve and nothing was changed: the alias 'champion' still points to "
            f"{f'version {pointed}' if pointed else 'none'}. Why: {fault}"
        )


def unreported_rollback(
    con: Connection, instance: dg.DagsterInstance, model_name: str
) -> dg.AssetMaterialization | None:
    """Return the event of a rollback that stands in the ledger and was never told of; None when all is told.

    Its process was killed in between. Sensors know the champion by its events, and would take scores of
    the version that serves for those of another.
    """
    decision = serving_decision(con)
    if decision is None or decision.score_again is None:
        return None
    if serving_version(instance) == decision.version:
        return None
    change = _Change(decision.version, decision.before or 0, decision.why, list(decision.score_again))
    return _event(instance, model_name, change)


def _event(instance: dg.DagsterInstance, model_name: str, change: _Change) -> dg.AssetMaterialization:
    before = newest(instance, Champion)
    # Field studies that were judged stay judged: the same data are not trained on twice.
    judged = before.event.judged_field_studies if before else None
    event = Champion(
        change.target,
        change.taken_back,
        promoted=True,
        reason=change.reason,
        judged_field_studies=judged or {},
        score_again=change.score_again,
    )
    return dg.AssetMaterialization(
        "champion",
        metadata={
            **event.metadata(),
            "mlflow_version": dg.MetadataValue.url(version_page(model_name, change.target)),
        },
        tags={"dagster/data_version": WHOEVER_SERVES},
    )


@dg.job(name=ROLLBACK_JOB, description="Roll back to an earlier version, with its own reference.")
def rollback() -> None:
    """Put an earlier champion back."""
    put_back()
