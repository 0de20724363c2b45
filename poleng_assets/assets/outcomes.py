"""Outcomes: labels that arrive later, and what they say about the scores that were given."""

import dagster as dg

from poleng_assets.assets.arrival import ArrivalConfig, rows_check, take_in
from poleng_assets.core.performance import record_realised_performance
from poleng_assets.partitions import outcomes_partitions
from poleng_assets.resources.landing import Landing
from poleng_assets.resources.warehouse import WAREHOUSE_POOL, Warehouse


@dg.asset(
    partitions_def=outcomes_partitions,
    group_name="arrivals",
    kinds={"duckdb"},
    owners=["team:survey"],
    pool=WAREHOUSE_POOL,
    check_specs=[rows_check("outcomes")],
)
def outcomes(
    context: dg.AssetExecutionContext,
    config: ArrivalConfig,
    landing: dg.ResourceParam[Landing],
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.MaterializeResult:
    """What respondents of earlier batches turned out to be, joined to them by id."""
    return take_in(context, "outcomes", config, landing, warehouse)


@dg.asset(
    partitions_def=outcomes_partitions,
    deps=[
        outcomes,
        dg.AssetDep("predictions", partition_mapping=dg.AllPartitionMapping()),
    ],
    group_name="performance",
    kinds={"duckdb", "scikitlearn"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
)
def realised_performance(
    context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> dg.MaterializeResult:
    """How good the scores were, now that the labels are known, for every version that scored."""
    with warehouse.connect() as con:
        measured = record_realised_performance(con, warehouse.study, context.partition_key)
    current = {f"{batch}_auc": round(row["auc"], 4) for (batch, _), row in measured.items() if "auc" in row}
    table = "| batch | version | respondents | AUC | log-loss | recall |\n|---|---|---|---|---|---|\n"
    for (batch, version), row in sorted(measured.items()):
        table += (
            f"| {batch} | {version} | {row['respondents']:.0f} | {row.get('auc', float('nan')):.4f} "
            f"| {row['log_loss']:.4f} | {row['recall']:.3f} |\n"
        )
    return dg.MaterializeResult(
        metadata={
            "batches": len({batch for batch, _ in measured}),
            "performance": dg.MetadataValue.md(table),
            **current,
        }
    )
