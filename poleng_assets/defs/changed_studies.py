"""Reporting to the graph that the data of a field study are others since rows of people were erased."""

import dagster as dg

from poleng_assets.core.data.asset_events import FileTakenIn
from poleng_assets.defs.events import newest_of
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.erasures import changed_studies


def report_changed_studies(instance: dg.DagsterInstance, warehouse: Warehouse) -> list[str]:
    """Report the field studies whose data are others since rows were erased; return their names.

    The overseer learns from it that there is something to train on again, and a retraining is not mistaken
    for one of the same data. Reported once for each change, whatever was killed in between.
    """
    with warehouse.connect() as con:
        changed = changed_studies(con)
    reported = []
    for study in changed:
        known = newest_of(instance, FileTakenIn, "field_studies", partition=study.name)
        if known is not None and known.data_hash == study.data_hash:
            continue
        event = FileTakenIn(rows=study.rows, content_hash=study.content_hash, data_hash=study.data_hash)
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "field_studies",
                partition=study.name,
                metadata=event.metadata(),
                tags={"dagster/data_version": study.data_hash},
            )
        )
        reported.append(study.name)
    return reported
