"""Rollback: the job that lets an earlier version serve again, in one step.

It moves the champion's alias, writes the ledger, and tells the graph by an event of the asset
``champion``. The version brings its own reference; the overseer scores batches again if asked to.
"""

from typing import Any

import dagster as dg
import duckdb
from pydantic import Field

from poleng_assets.core.ingestion.withdrawal import in_doubt
from poleng_assets.core.promotion.rollback import RollbackRefused, rollback_target
from poleng_assets.defs.assets.promotion import WHOEVER_SERVES
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.models.mlflow_links import version_page
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import promoted_versions, record_decision, serving_decision
from poleng_assets.warehouse.predictions import batches_scored_by

ROLLBACK_JOB = "rollback"


class RollbackConfig(dg.Config):
    """Which version to put back, and what of its successor's work to do again."""

    to: int = Field(
        default=0, description="Version that is to serve. 0: the one that was promoted before the champion."
    )
    reason: str = Field(default="asked for by hand", description="Why; it goes into the ledger of decisions.")
    score_again: bool = Field(
        default=False,
        description="Score the batches again whose current scores come from the version that is taken back.",
    )


@dg.op(pool=WAREHOUSE_POOL, description="Lets an earlier version serve again.")
def put_back(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> None:
    """Move the alias back, and record it."""
    alias = registry.alias(CHAMPION)
    with warehouse.connect() as con:
        told = serving_decision(con)
        serving = told.version if told else (alias.version if alias else None)
        pointed = alias.version if alias else None
        try:
            if told is not None and config.to == told.version != pointed:
                # The alias was moved by hand: it is put back.
                target, serving = told.version, pointed
            else:
                target = rollback_target(
                    serving, _that_may_serve(con, registry, config.to), config.to or None
                )
            _see_that_it_can_serve(registry, target, pointed)
        except RollbackRefused as refusal:
            raise dg.Failure(f"Not rolled back: {refusal}.", allow_retries=False) from refusal
        taken_back = serving or 0
        again = batches_scored_by(con, taken_back) if config.score_again else []
        reason = f"version {taken_back} is taken back, version {target} serves: {config.reason}"
        record_decision(
            con,
            "rollback",
            reason,
            evidence={"taken_back": taken_back, "score_again": again},
            champion_version=target,
            challenger_version=taken_back,
            dagster_run_id=context.run_id,
        )
        # After the ledger: a version that serves has its reason there, at every moment.
        if lost := registry.appoint(target):
            context.log.warning(f"Version {target} serves from its files, as the ledger says. {lost}")
    context.log.info(reason)
    context.log_event(_event(context.instance, registry.model_name, target, taken_back, reason, again))


def _that_may_serve(con: duckdb.DuckDBPyConnection, registry: Registry, wanted: int) -> set[int]:
    """Return the promoted versions that learned from nothing that was withdrawn since.

    Raises:
        RollbackRefused: the wanted one did.
    """
    learned = {one.version: one.field_studies for one in registry.versions()}
    promoted = promoted_versions(con)
    doubts = {one: in_doubt(con, one, learned.get(one, ())) for one in promoted}
    if doubt := doubts.get(wanted):
        raise RollbackRefused(f"{doubt}; `poleng withdraw STUDY --undo` lets a study count again")
    return {one for one in promoted if not doubts[one]}


def _see_that_it_can_serve(registry: Registry, target: int, pointed: int | None) -> None:
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
            f"version {target} cannot serve, and nothing was changed: the alias 'champion' still points to "
            f"{f'version {pointed}' if pointed else 'none'}. Why: {fault}"
        )


def untold_rollback(
    con: duckdb.DuckDBPyConnection, instance: dg.DagsterInstance, model_name: str
) -> dg.AssetMaterialization | None:
    """Return the event of a rollback that stands in the ledger and was never told of; None when all is told.

    Its process was killed in between. Sensors know the champion by its events, and would take scores of
    the version that serves for those of another.
    """
    decision = serving_decision(con)
    if decision is None or decision.score_again is None:
        return None
    if _newest_event(instance).get("serving_version") == decision.version:
        return None
    again = list(decision.score_again)
    return _event(instance, model_name, decision.version, decision.before or 0, decision.why, again)


def _event(
    instance: dg.DagsterInstance, model_name: str, target: int, taken_back: int, reason: str, again: list[str]
) -> dg.AssetMaterialization:
    judged = _newest_event(instance).get("judged_field_studies", {})
    return dg.AssetMaterialization(
        "champion",
        metadata={
            "promoted": True,
            "serving_version": target,
            "challenger_version": taken_back,
            "reason": reason,
            "mlflow_version": dg.MetadataValue.url(version_page(model_name, target)),
            "score_again": dg.MetadataValue.json(again),
            # Field studies that were judged stay judged: the same data are not trained on twice.
            "judged_field_studies": dg.MetadataValue.json(judged),
        },
        tags={"dagster/data_version": WHOEVER_SERVES},
    )


def _newest_event(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return what the newest event of the champion tells."""
    event = instance.get_latest_materialization_event(dg.AssetKey("champion"))
    materialization = event.asset_materialization if event else None
    return {name: found.value for name, found in materialization.metadata.items()} if materialization else {}


@dg.job(name=ROLLBACK_JOB, description="Let an earlier version serve again, with its own reference.")
def rollback() -> None:
    """Put an earlier champion back."""
    put_back()
