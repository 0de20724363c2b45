"""The warehouse as a resource of Dagster; what it does is in ``warehouse/connection.py``.

Steps that take files in, decide, issue lists or erase sit in the pool ``WAREHOUSE_POOL``, one at a time.
Reports and outcomes are measured outside of it: they write only if what they rest on is still so.
"""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg

from poleng_assets.defs.continuity import guard
from poleng_assets.defs.instance import history_kept_open
from poleng_assets.defs.resources.run_config import refuse_environment
from poleng_assets.defs.run_history import mark_process
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import StudySource, open_home
from poleng_assets.warehouse.connection import Warehouse

WAREHOUSE_POOL = "warehouse"
# A run may outlast somebody's look into the file: nothing is lost by waiting, the others queue behind it.
RUN_PATIENCE_SECONDS = 900.0


def warehouse_resource(
    home: Home, study: StudySource = None, patience_seconds: float = RUN_PATIENCE_SECONDS
) -> dg.ResourceDefinition:
    """Return the resource that gives the plain warehouse which assets and the command line use alike.

    Every job of the project uses it, so this is where a run says which process executes it, keeps its
    history open until its end, and is refused when it wants to read secrets.
    """

    @dg.resource(config_schema={}, description="The DuckDB file of the home folder.")
    def warehouse(context: dg.InitResourceContext) -> Iterator[Warehouse]:
        say = context.log.warning if context.log is not None else Warehouse.say
        plain = Warehouse(home.warehouse, open_home(home, study), patience_seconds, say)
        if context.run is None or context.instance is None:
            yield plain
            return
        refuse_environment(context.run.run_config)
        with history_kept_open(context.instance, context.run.run_id):
            mark_process(context.instance, context.run.run_id)
            guarded = replace(plain, guard=guard(context.instance, home))
            if not home.warehouse.exists():
                with guarded.connect():
                    pass  # steps read before they write
            yield guarded

    return warehouse
