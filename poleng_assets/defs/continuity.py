"""Reading from Dagster's history what the warehouse was given, and stopping where it lacks something.

Every run looks at the newest events before it first uses the warehouse, and so do the commands that drive a
home and `poleng dev`. What follows is a person's to decide: a backup, or `poleng recover`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data import asset_events
from poleng_assets.defs.events import newest_first
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.warehouse.connection import Warehouse, WarehouseUnusable
from poleng_assets.warehouse.continuity import ASSETS, ReportedWrite, in_words, missing
from poleng_assets.warehouse.files import names_of_files

# Commits are lost from the end: the newest events tell. Of these, some may be of rows that are gone for good.
LOOKED_AT_BY_A_RUN = 5
LOOKED_AT_AT_START = 200
_PARTITIONS = {
    **{kind: partitions.name or "" for kind, partitions in PARTITIONS.items()},
    **dict.fromkeys(("predictions", "drift_report", "contact_list"), PARTITIONS["batches"].name or ""),
}


class WarehouseBehind(WarehouseUnusable):
    """The warehouse lacks what Dagster's history says that it was given; nothing was changed."""


def reported_writes(instance: dg.DagsterInstance, newest: int) -> list[ReportedWrite]:
    """Return what the newest events of each asset say that the warehouse was given; without wiped partitions.

    Args:
        newest: how many events of each asset.
    """
    writes = []
    for asset in ASSETS:
        for recorded in newest_first(instance, asset_events.EVENTS[asset], asset, limit=newest):
            partition = recorded.partition
            if partition and not instance.has_dynamic_partition(_PARTITIONS[asset], partition):
                continue
            if (given := _given(recorded.event)) is not None:
                at = datetime.fromtimestamp(recorded.at, UTC)
                writes.append(ReportedWrite(asset, partition, at, recorded.storage_id, **given))
    return writes


def _given(event: asset_events.AssetEvent) -> dict[str, Any] | None:
    """Return what an event says that the warehouse was given; None of a list that was held back."""
    match event:
        case asset_events.FileTakenIn(content_hash=str(content_hash)):
            return {"content_hash": content_hash}
        case (
            asset_events.Predictions(model_version=int(version))
            | asset_events.DriftReport(model_version=int(version))
        ):
            return {"version": version}
        case asset_events.ContactList(contacts=int(contacts)):
            return {"contacts": contacts}
        case asset_events.Champion(is_rollback=True, serving_version=version):
            return {"version": version, "rolled_back": True}
        case asset_events.Champion(challenger_version=int(version), promoted=promoted, reason=reason):
            return {"version": version, "promoted": bool(promoted), "reason": reason}
    return None


def files_without_event(instance: dg.DagsterInstance, con: Connection) -> list[str]:
    """Return kind and name of the files in the warehouse that no event tells of yet."""
    unknown = []
    for kind in KINDS:
        names = names_of_files(con, kind)
        known = instance.get_materialized_partitions(dg.AssetKey(kind)) if names else set()
        unknown += [f"{kind}/{name}" for name in names if name not in known]
    return unknown


def guard(instance: dg.DagsterInstance, home: Home) -> Callable[[Connection], None]:
    """Return what looks, at the first use of a warehouse, whether it has what the history tells of.

    The history is read now: an event follows its commit, so what it tells of stands in the warehouse
    whenever that is opened later.
    """
    newest = reported_writes(instance, LOOKED_AT_BY_A_RUN)
    _refuse_if_gone(newest, home)
    looked = False

    def look(con: Connection) -> None:
        nonlocal looked
        if not looked:
            refuse_if_behind(con, newest, home)
        looked = True

    return look


def refuse_at_start(instance: dg.DagsterInstance, warehouse: Warehouse, home: Home) -> None:
    """Look, before a home is driven, whether its warehouse has what the history tells of.

    Raises:
        WarehouseBehind: it lacks something; the message names it and says what to do.
        WarehouseBusy, WarehouseUnusable: it cannot be opened.
    """
    writes = reported_writes(instance, LOOKED_AT_AT_START)
    _refuse_if_gone(writes, home)
    if writes:
        with warehouse.read() as con:
            refuse_if_behind(con, writes, home)


def refuse_if_behind(con: Connection, writes: list[ReportedWrite], home: Home) -> None:
    """Raise :class:`WarehouseBehind` when rows are missing that events tell of."""
    if lost := missing(con, writes):
        raise WarehouseBehind(_words(home, in_words(lost)))


def _refuse_if_gone(writes: list[ReportedWrite], home: Home) -> None:
    """Raise before an empty file is made in the place of a warehouse that the history tells of."""
    if writes and not home.warehouse.exists():
        raise WarehouseBehind(_words(home, in_words(sorted(writes, key=lambda write: write.number))))


def _words(home: Home, lost: str) -> str:
    return (
        f"the warehouse {home.warehouse} lacks data that Dagster's history reports: {lost}. A "
        "damaged log (the file beside it, ending in .wal) or an older copy can cause this. Nothing "
        "was changed. Restore the newest backup (`poleng restore`), or rebuild the missing data from "
        f"{home.root / 'archive'} by `poleng recover`"
    )
