"""Field studies: labelled respondents to learn from, one partition for each file."""

from collections.abc import Iterator

import dagster as dg

from poleng_assets.defs.assets.arrivals import ArrivalConfig, nobody_before_check, rows_check, take_in
from poleng_assets.defs.partitions import field_study_partitions
from poleng_assets.defs.resources.landing import Landing
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.warehouse.connection import Warehouse


@dg.asset(
    partitions_def=field_study_partitions,
    group_name="arrivals",
    kinds={"duckdb"},
    owners=["team:survey"],
    pool=WAREHOUSE_POOL,
    check_specs=[rows_check("field_studies"), nobody_before_check("field_studies")],
)
def field_studies(
    context: dg.AssetExecutionContext,
    config: ArrivalConfig,
    landing: dg.ResourceParam[Landing],
    warehouse: dg.ResourceParam[Warehouse],
) -> Iterator[dg.MaterializeResult]:
    """Labelled respondents of one field study, each in the training part or in the frozen holdout."""
    yield from take_in(context, "field_studies", config, landing, warehouse)
