"""Batches: unlabelled respondents to score, one partition for each file."""

from collections.abc import Iterator

import dagster as dg

from poleng_assets.defs.assets.arrivals import ArrivalConfig, nobody_before_check, rows_check, take_in
from poleng_assets.defs.partitions import batch_partitions
from poleng_assets.defs.resources.landing import Landing
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.warehouse.connection import Warehouse


@dg.asset(
    partitions_def=batch_partitions,
    group_name="arrivals",
    kinds={"duckdb"},
    owners=["team:survey"],
    pool=WAREHOUSE_POOL,
    check_specs=[rows_check("batches"), nobody_before_check("batches")],
)
def batches(
    context: dg.AssetExecutionContext,
    config: ArrivalConfig,
    landing: dg.ResourceParam[Landing],
    warehouse: dg.ResourceParam[Warehouse],
) -> Iterator[dg.MaterializeResult]:
    """Respondents of one batch, checked against the study and kept in the warehouse."""
    yield from take_in(context, "batches", config, landing, warehouse)
