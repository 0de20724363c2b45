"""Checks that stand beside their asset because they must not run when it is not made.

Checks of what an asset has just done are part of the asset itself, and are found there.
"""

import csv

import dagster as dg

from poleng_assets.core.warehouse import Warehouse
from poleng_assets.partitions import batch_partitions
from poleng_assets.resources.landing import Landing
from poleng_assets.resources.warehouse import WAREHOUSE_POOL


@dg.asset_check(
    asset="contact_list",
    partitions_def=batch_partitions,
    pool=WAREHOUSE_POOL,
    description="The file holds every person of the batch whom the current scores flag, and nobody else.",
)
def every_contact_stands_in_the_list(
    context: dg.AssetCheckExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    landing: dg.ResourceParam[Landing],
) -> dg.AssetCheckResult:
    """Compare the file, as a contact centre opens it, with the warehouse."""
    missing, too_many = list_differences(warehouse, landing, context.partition_key)
    return dg.AssetCheckResult(
        passed=not missing and not too_many,
        metadata={"missing": len(missing), "too_many": len(too_many)},
    )


def list_differences(warehouse: Warehouse, landing: Landing, batch: str) -> tuple[set[str], set[str]]:
    """Return the ids that are flagged and not in the file, and those in the file and not flagged."""
    from poleng_assets.core.contact_list import harmless

    study = warehouse.study
    with warehouse.connect() as con:
        flagged = con.execute(
            f'SELECT "{study.id}" FROM current_predictions WHERE batch = ? AND contact',  # noqa: S608
            [batch],
        ).fetchall()
    with (landing.home.contact_lists / f"{batch}.csv").open(newline="", encoding="utf-8") as file:
        listed = {row[study.id] for row in csv.DictReader(file)}
    wanted = {harmless(one) for (one,) in flagged}
    return wanted - listed, listed - wanted
