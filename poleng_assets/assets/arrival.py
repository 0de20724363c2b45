"""What the three assets that take files in have in common: from a landing file to its partition."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import dagster as dg
from pydantic import Field

from poleng_assets.core.contract import FileRefused
from poleng_assets.core.ingestion import SUFFIXES, Ingested, count_rows, ingest
from poleng_assets.home import Kind
from poleng_assets.partitions import PARTITIONS
from poleng_assets.resources.landing import Landing
from poleng_assets.resources.warehouse import Warehouse

ROWS_ACCOUNTED_FOR = "every_row_is_kept_or_in_quarantine"


class ArrivalConfig(dg.Config):
    """Which file to take in."""

    file: str = Field(
        default="",
        description="Name of the file in landing. Leave it empty to take the one named like the partition.",
    )


def rows_check(kind: Kind) -> dg.AssetCheckSpec:
    """Declare the check that no row of a file got lost on the way in."""
    return dg.AssetCheckSpec(
        ROWS_ACCOUNTED_FOR,
        asset=kind,
        description="Rows in the file = rows in the warehouse + rows in quarantine.",
    )


def take_in(
    context: dg.AssetExecutionContext,
    kind: Kind,
    config: ArrivalConfig,
    landing: Landing,
    warehouse: Warehouse,
) -> dg.MaterializeResult:
    """Ingest a landing file into the warehouse, then archive it; or refuse it, with the reason.

    Raises:
        dagster.Failure: the file was refused and stands in ``rejected`` with its reason.
    """
    path = _landing_file(landing, kind, config.file, context.partition_key)
    with warehouse.connect() as con:
        try:
            result = ingest(con, warehouse.study, kind, path)
        except FileRefused as refusal:
            reason = str(refusal)
        else:
            counted = count_rows(con, kind, result.name)
            return _taken_in(context, kind, result, counted, landing.archive(kind, path))
    _refuse(context, kind, path, reason, landing)


def _landing_file(landing: Landing, kind: Kind, file: str, partition: str) -> Path:
    folder = landing.home.landing(kind)
    names = [file] if file else [f"{partition}{suffix}" for suffix in SUFFIXES]
    for place in (folder, landing.home.archive(kind)):
        for name in names:
            path = place / Path(name).name
            if path.is_file() and path.stem == partition:
                return path
    raise dg.Failure(
        f"There is no file {' or '.join(names)} in {folder}: nothing to take in.", allow_retries=False
    )


def _taken_in(
    context: dg.AssetExecutionContext,
    kind: Kind,
    result: Ingested,
    counted: tuple[int, int],
    archived: Path | None,
) -> dg.MaterializeResult:
    if result.ignored_columns:
        context.log.warning(
            f"{result.name}: columns that the study does not use were left out: "
            f"{', '.join(result.ignored_columns)}"
        )
    if result.rows_quarantined:
        context.log.warning(
            f"{result.name}: {result.rows_quarantined} of {result.rows_read} rows break the contract and "
            f"are in quarantine (table quarantine, source {kind}/{result.name})"
        )
    if result.already:
        context.log.info(f"{result.name} was taken in before; nothing was written again")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.content_hash),
        metadata={
            "dagster/row_count": result.rows_kept,
            "rows_read": result.rows_read,
            "rows_quarantined": result.rows_quarantined,
            "ignored_columns": ", ".join(result.ignored_columns) or "none",
            "content_hash": result.content_hash,
            "file": dg.MetadataValue.path(str(archived or "archived earlier")),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=sum(counted) == result.rows_read,
                check_name=ROWS_ACCOUNTED_FOR,
                metadata={"kept": counted[0], "in_quarantine": counted[1], "read": result.rows_read},
            )
        ],
    )


def _refuse(
    context: dg.AssetExecutionContext, kind: Kind, path: Path, reason: str, landing: Landing
) -> NoReturn:
    """Set the file aside and forget its partition, unless an accepted file has that name."""
    rejected = landing.reject(kind, path, reason)
    asset = dg.AssetKey(kind)
    accepted = context.instance.get_materialized_partitions(asset)
    if context.partition_key not in accepted:
        context.instance.delete_dynamic_partition(PARTITIONS[kind].name or "", context.partition_key)
    raise dg.Failure(
        f"{path.name} was refused: {reason}",
        metadata={"file": dg.MetadataValue.path(str(rejected)), "reason": reason},
        allow_retries=False,
    )
