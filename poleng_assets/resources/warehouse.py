"""The warehouse: one DuckDB file that one process at a time may open.

Connections are short, and every asset that opens one sits in the pool ``WAREHOUSE_POOL``. Which tables
there are, and how they are written, stands in ``core/tables.py``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb

from poleng_assets.core.tables import create_tables
from poleng_assets.runs import mark_process
from poleng_assets.study import Study, load_study

WAREHOUSE_POOL = "warehouse"
PATIENCE_SECONDS = 60.0


class WarehouseBusy(RuntimeError):
    """Another process holds the warehouse and did not let go in time."""


@dataclass(frozen=True)
class Warehouse:
    """Opens the DuckDB file; the tables are there when a connection is handed out."""

    path: Path
    study: Study
    patience_seconds: float = PATIENCE_SECONDS

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for reading and writing, and close it at the end, whatever happens.

        Raises:
            WarehouseBusy: another process held it for ``patience_seconds``; the message names it.
        """
        con = self._open(read_only=False)
        try:
            create_tables(con, self.study)
            yield con
        finally:
            con.close()

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open an existing file for reading only; raises ``FileNotFoundError`` when there is none."""
        if not self.path.exists():
            raise FileNotFoundError(self.path)
        con = self._open(read_only=True)
        try:
            yield con
        finally:
            con.close()

    def _open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        give_up = time.monotonic() + self.patience_seconds
        while True:
            try:
                return duckdb.connect(self.path, read_only=read_only)
            except duckdb.IOException as error:
                if "could not set lock" not in str(error).lower():
                    raise
                if time.monotonic() > give_up:
                    raise WarehouseBusy(_busy_words(self.path, error, self.patience_seconds)) from error
                time.sleep(0.2)


def _busy_words(path: Path, error: Exception, patience: float) -> str:
    holder = re.search(r"in (.+?\(PID \d+\))", str(error))
    who = holder.group(1) if holder else "another process"
    return (
        f"the warehouse {path} is held by {who}, and was not let go within {patience:.0f} s. "
        "Close that connection (a DuckDB shell, a notebook) and run this again; nothing was lost"
    )


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """The DuckDB file of the home folder."""

    path: str

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:
        """Return the plain warehouse that assets and the command line use alike.

        Every job of the project uses it, so this is where a run says which process executes it.
        """
        if context.run is not None and context.instance is not None:
            mark_process(context.instance, context.run.run_id)
        return Warehouse(Path(self.path), load_study())
