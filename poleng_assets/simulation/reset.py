"""Forgetting everything: the empty home that a scenario starts from."""

from __future__ import annotations

import shutil

import dagster as dg

from poleng_assets.home import Home
from poleng_assets.partitions import PARTITIONS


def reset_data(home: Home) -> None:
    """Remove files, warehouse, models, lists and reports of a home; Dagster's history stays."""
    folders = ["landing", "archive", "rejected", "contact_lists", "reports", "mlartifacts", "simulation"]
    for name in folders:
        shutil.rmtree(home.root / name, ignore_errors=True)
    for name in ("warehouse.duckdb", "warehouse.duckdb.wal", "mlflow.db"):
        (home.root / name).unlink(missing_ok=True)
    home.create()


def reset_events(instance: dg.DagsterInstance, assets: list[dg.AssetKey]) -> None:
    """Make Dagster forget what was materialised, and all partitions; the list of runs stays."""
    instance.wipe_assets([key for key in assets if instance.has_asset_key(key)])
    for partitions in PARTITIONS.values():
        name = partitions.name or ""
        for key in instance.get_dynamic_partitions(name):
            instance.delete_dynamic_partition(name, key)


def reset_history(home: Home) -> None:
    """Remove Dagster's own history too; only when no daemon uses it."""
    shutil.rmtree(home.dagster, ignore_errors=True)
