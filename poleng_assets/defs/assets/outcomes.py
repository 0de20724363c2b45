"""What outcomes say about the scores that were given."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data import asset_events
from poleng_assets.defs.assets.arrivals import outcomes
from poleng_assets.defs.partitions import outcomes_partitions
from poleng_assets.models.registry import Registry
from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.text.markdown import frame_as_table
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.drift_reports import read_report
from poleng_assets.warehouse.outcomes import (
    affected_batches,
    count_contradictory_respondents,
    count_unknown_respondents,
)
from poleng_assets.warehouse.performance import estimated_auc
from poleng_assets.warehouse.predictions import current_versions, outcomes_of_scored, outcomes_state

if TYPE_CHECKING:
    import pandas as pd

    from poleng_assets.core.monitoring.batch_report import BatchReport
    from poleng_assets.core.monitoring.realised_performance import RealisedPerformance

PERFORMANCE_HOLDS = "performance_holds"


@dg.asset(
    partitions_def=outcomes_partitions,
    deps=[outcomes, dg.AssetDep("predictions", partition_mapping=dg.AllPartitionMapping())],
    group_name="performance",
    kinds={"duckdb", "scikitlearn"},
    owners=["team:ml"],
    check_specs=[
        dg.AssetCheckSpec(
            PERFORMANCE_HOLDS,
            asset="realised_performance",
            description="No version performs significantly worse on these people than on its reference.",
        )
    ],
)
def realised_performance(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    landing: dg.ResourceParam[Landing],
) -> dg.MaterializeResult:
    """Realised performance of earlier scores, from outcomes. The drift reports show it too."""
    study, source = warehouse.study, context.partition_key
    versions = {version.version: version for version in registry.versions()}
    performance: dict[tuple[str, int], RealisedPerformance] = {}
    with warehouse.read() as con:
        affected = affected_batches(con, study, source)
    for batch, version in affected:
        known = versions.get(version)
        if known is None:
            context.log.warning(f"version {version} is not registered: {batch} has no reference")
        reference = registry.reference(known) if known else None
        if measured := _measure(warehouse, landing.home, batch, version, reference):
            performance[(batch, version)] = measured
    with warehouse.read() as con:
        people = {
            "unknown_respondents": count_unknown_respondents(con, study, source),
            "contradictory": count_contradictory_respondents(con, study, source),
        }
        estimated, current = estimated_auc(con), current_versions(con)
    for (batch, version), realised in performance.items():
        if realised.missing_because:
            context.log.info(f"{batch}, version {version}: {realised.missing_because}")
    return _result(performance, people, estimated, current, warehouse.study.policies.overseer.confidence)


def _measure(
    warehouse: Warehouse, home: Home, batch: str, version: int, reference: "pd.DataFrame | None"
) -> "RealisedPerformance | None":
    """Measure the scores of a batch by a version, and keep it and the batch's page; None without outcomes."""
    from poleng_assets.core.monitoring.batch_report import load_report
    from poleng_assets.core.monitoring.realised_performance import measure_realised, save_realised
    from poleng_assets.core.reports.drift_report import render_report

    study = warehouse.study

    def state(con: Connection) -> object:
        return outcomes_state(con, study, batch), read_report(con, batch, version)

    def read(con: Connection) -> tuple["pd.DataFrame", "BatchReport | None"]:
        report = None
        if reference is not None and read_report(con, batch, version) is not None:
            report = load_report(con, study, batch, version, reference)
        return outcomes_of_scored(con, study, batch, version), report

    def compute(
        inputs: tuple["pd.DataFrame", "BatchReport | None"],
    ) -> tuple["RealisedPerformance | None", str | None]:
        people, report = inputs
        measured = measure_realised(people, study, reference)
        page = render_report(study, replace(report, realised=measured)) if measured and report else None
        return measured, page

    def write(con: Connection, computed: tuple["RealisedPerformance | None", str | None]) -> None:
        measured, page = computed
        if page is not None:
            # While the warehouse is locked: another run may write the same page.
            write_atomically(home.report(batch, version), page)
        if measured is not None:
            save_realised(con, batch, version, measured)

    return warehouse.read_compute_write(state, read, compute, write)[0]


def _result(
    measured: "dict[tuple[str, int], RealisedPerformance]",
    people: dict[str, int],
    estimated: dict[tuple[str, int], float],
    current: dict[str, int],
    sure: float,
) -> dg.MaterializeResult:
    """Return the materialisation of the measurements.

    Args:
        people: how many respondents are unknown, and about how many files disagree.
        sure: confidence in a loss that is reported.
    """
    lost = {
        key: "; ".join(loss.description() for loss in losses)
        for key, realised in measured.items()
        if (losses := realised.significant_losses(sure))
    }
    plotted = {
        batch: realised for (batch, version), realised in measured.items() if current[batch] == version
    }
    event = asset_events.RealisedPerformance(
        batches=len({batch for batch, _ in measured}), losses=_by_version(list(lost))
    )
    return dg.MaterializeResult(
        metadata={
            **event.metadata(),
            "performance": dg.MetadataValue.md(_table(measured, estimated, lost)),
            **people,
            **_plotted(plotted),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not lost,
                check_name=PERFORMANCE_HOLDS,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={
                    "batches_lost": len(lost),
                    "batches_measured": len(measured),
                    **{f"{batch}, version {version}": losses for (batch, version), losses in lost.items()},
                },
            )
        ],
    )


def _by_version(lost: list[tuple[str, int]]) -> dict[str, list[str]]:
    """Return the batches with a significant loss, by version: JSON keys are text."""
    return {
        str(version): [batch for batch, other in lost if other == version]
        for version in sorted({version for _, version in lost})
    }


def _plotted(current: "dict[str, RealisedPerformance]") -> dict[str, Any]:
    """Return the metrics of each batch under its current version, for plots in the UI."""
    return {
        f"{batch}_{metric}": round(estimate.value, 4)
        for batch, realised in current.items()
        for metric in ("auc", "recall", "log_loss")
        if (estimate := realised.estimate(metric))
    } | {f"{batch}_coverage": round(realised.coverage, 4) for batch, realised in current.items()}


def _table(
    measured: "dict[tuple[str, int], RealisedPerformance]",
    estimated: dict[tuple[str, int], float],
    lost: dict[tuple[str, int], str],
) -> str:
    import pandas as pd

    rows = [
        {
            "batch": batch,
            "version": version,
            "outcomes known": f"{realised.respondents} of {realised.scored} ({realised.coverage:.0%})",
            "estimated AUC": f"{estimated[(batch, version)]:.4f}" if (batch, version) in estimated else "",
            "realised AUC": _cell(realised, "auc"),
            "log-loss": _cell(realised, "log_loss"),
            "recall": _cell(realised, "recall"),
            "precision": _cell(realised, "precision"),
            "lost": lost.get((batch, version)) or realised.missing_because or "no",
        }
        for (batch, version), realised in measured.items()
    ]
    return frame_as_table(pd.DataFrame(rows))


def _cell(performance: "RealisedPerformance", metric: str) -> str:
    estimate = performance.estimate(metric)
    if estimate is None:
        return ""
    return f"{estimate.value:.3f} ({estimate.lower:.3f} to {estimate.upper:.3f})"
