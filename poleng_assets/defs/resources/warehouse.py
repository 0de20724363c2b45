"""The warehouse as a resource of Dagster; what it does stands in ``warehouse/connection.py``.

Every asset that opens it sits in the pool ``WAREHOUSE_POOL``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg

from poleng_assets.defs.continuity import guard
from poleng_assets.defs.instance import history_kept_open
from poleng_assets.defs.resources.fixed import refuse_environment
from poleng_assets.defs.run_history import mark_process
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse

WAREHOUSE_POOL = "warehouse"
# A run may outlast somebody's look into the file: nothing is lost by waiting, the others queue behind it.
RUN_PATIENCE_SECONDS = 900.0


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """The DuckDB file of the home folder."""

    path: str
    patience_seconds: float = RUN_PATIENCE_SECONDS

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Warehouse]:
        """Give the plain warehouse that assets and the command line use alike.

        Every job of the project uses it, so this is where a run says which process executes it, keeps its
        history open until its end, and is refused when it wants to read secrets.
        """
        say = context.log.warning if context.log is not None else Warehouse.say
        warehouse = Warehouse(Path(self.path), load_study(), self.patience_seconds, say)
        if context.run is None or context.instance is None:
            yield warehouse
            return
        refuse_environment(context.run.run_config)
        warehouse = replace(warehouse, guard=guard(context.instance, Home(Path(self.path).parent)))
        with history_kept_open(context.instance, context.run.run_id):
            mark_process(context.instance, context.run.run_id)
            yield warehouse
