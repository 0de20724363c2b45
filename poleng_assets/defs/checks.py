"""Asset checks that run apart from their asset. Checks of a materialisation are defined with the asset."""

import csv
import warnings

import dagster as dg

from poleng_assets.defs.jobs import ARCHIVE_CHECK
from poleng_assets.defs.partitions import batch_partitions
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.storage.home import KINDS, Kind
from poleng_assets.storage.landing import Landing
from poleng_assets.warehouse.connection import Warehouse

# Partitioned checks are a preview in Dagster, which would warn at every load of the definitions.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)

    @dg.asset_check(
        asset="contact_list",
        partitions_def=batch_partitions,
        pool=WAREHOUSE_POOL,
        description="The newest list file has exactly the people whom its scores flag.",
    )
    def every_contact_stands_in_the_list(
        context: dg.AssetCheckExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        landing: dg.ResourceParam[Landing],
    ) -> dg.AssetCheckResult:
        """Compare the list file with the warehouse."""
        missing, too_many = list_differences(warehouse, landing, context.partition_key)
        return dg.AssetCheckResult(
            passed=not missing and not too_many, metadata={"missing": len(missing), "too_many": len(too_many)}
        )


def _archive_check(kind: Kind) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=kind,
        name=ARCHIVE_CHECK,
        pool=WAREHOUSE_POOL,
        description="Each archived file has the recorded hash, and none is missing before the end of its "
        "retention.",
    )
    def check(
        warehouse: dg.ResourceParam[Warehouse], landing: dg.ResourceParam[Landing]
    ) -> dg.AssetCheckResult:
        from poleng_assets.core.ingestion.archive_check import compare_archive
        from poleng_assets.warehouse.writes import now

        keep_days = warehouse.study.policies.retention.archive
        with warehouse.read() as con:
            findings = compare_archive(con, kind, landing.home.archive(kind), now(), keep_days)
        return dg.AssetCheckResult(
            passed=findings.sound,
            metadata={
                "compared": findings.compared,
                "differ": ", ".join(findings.differ) or "none",
                "gone": ", ".join(findings.gone) or "none",
                "cannot_be_compared": ", ".join(findings.unknown) or "none",
            },
        )

    return check


archive_checks = [_archive_check(kind) for kind in KINDS]


def list_differences(warehouse: Warehouse, landing: Landing, batch: str) -> tuple[set[str], set[str]]:
    """Return the flagged ids missing from the newest list file, and the ids in the file that are not flagged.

    The scores are those of the list's model version: the batch may have been scored again since.
    """
    from poleng_assets.core.data.spreadsheet_safety import escape_formula
    from poleng_assets.warehouse.contact_lists import flagged_or_listed, newest_list

    study = warehouse.study
    with warehouse.read() as con:
        issued = newest_list(con, batch)
        if issued is None:
            return set(), set()
        flagged = flagged_or_listed(con, study, issued)
    if issued.contacts and not flagged:
        return set(), set()  # erased at the end of their retention
    wanted = {escape_formula(subject) for subject in flagged}
    path = landing.home.contact_lists / f"{issued.stem}.csv"
    if not path.exists():
        return wanted, set()
    with path.open(newline="", encoding="utf-8") as file:
        listed = {row[study.id] for row in csv.DictReader(file)}
    return wanted - listed, listed - wanted
