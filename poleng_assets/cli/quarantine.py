"""``poleng quarantine``: list quarantined rows, and release the fixed ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from poleng_assets.cli.console import (
    console,
    home_option,
    instance_beside_daemon,
    named_home,
    open_home,
    reading,
)
from poleng_assets.cli.run_lines import show_run
from poleng_assets.core.data.asset_events import FileTakenIn
from poleng_assets.storage.home_study import study_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection


@click.group()
def quarantine() -> None:
    """List quarantined rows, fix them, and release them."""


@quarantine.command("list")
@click.option("--source", help="Only the rows of one file, such as batches/march.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the rows of --source to this CSV, to be fixed in a spreadsheet. It contains personal data.",
)
@home_option
def list_(source: str | None, as_json: bool, out: Path | None, home_folder: Path | None) -> None:
    """Show which rows are in quarantine, and why."""
    if source is not None:
        _list_rows(source, as_json, out, home_folder)
    elif out:
        raise click.ClickException("--out needs --source: a sheet contains the rows of one file")
    else:
        _list_files(as_json, home_folder)


def _list_files(as_json: bool, home_folder: Path | None) -> None:
    from poleng_assets.core.ingestion.quarantine.listing import list_sources

    with _warehouse(home_folder) as con:
        files = list_sources(con)
    if as_json:
        click.echo(json.dumps([vars(file) for file in files], indent=2))
        return
    table = Table("source", "rows", "most common reasons")
    for file in files:
        reasons = [f"{column}: {reason} ({count:,})" for column, reason, count in file.commonest]
        table.add_row(file.source, f"{file.rows:,}", "\n".join(reasons))
    console.print(table if files else "No row is in quarantine.")


def _list_rows(source: str, as_json: bool, out: Path | None, home_folder: Path | None) -> None:
    from poleng_assets.core.ingestion.quarantine.listing import list_faults, parse_source
    from poleng_assets.core.ingestion.quarantine.sheet import mending_sheet
    from poleng_assets.storage.files import write_atomically

    with _warehouse(home_folder) as con:
        kind, name = parse_source(source)
        faults = list_faults(con, kind, name)
        sheet = mending_sheet(con, study_of(named_home(home_folder)), kind, name) if out else ""
    if out:
        write_atomically(out, sheet)
    if as_json:
        click.echo(json.dumps([vars(fault) for fault in faults], indent=2))
    elif out:
        console.print(
            f"{len({fault.row_number for fault in faults}):,} rows of {source} written to {out}. Fix them, "
            f"then run: poleng quarantine release {source} {out}"
        )
    else:
        table = Table("row", "column", "reason")
        for fault in faults:
            table.add_row(f"{fault.row_number}", fault.column, fault.reason)
        console.print(table if faults else f"No row of {source} is in quarantine.")


@quarantine.command("release")
@click.argument("source")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--reason", default="asked for on the command line", show_default=True)
@home_option
def release_(source: str, file: Path, reason: str, home_folder: Path | None) -> None:
    """Release the fixed rows of FILE into SOURCE, such as batches/march.

    Each row is validated again; invalid rows stay in quarantine. A batch is scored again with its released
    rows, and gets a new contact list.
    """
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import daemon_is_running
    from poleng_assets.defs.quarantine_release import RELEASE_JOB
    from poleng_assets.headless.runner import HeadlessRunner

    home = open_home(home_folder)
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: nothing was ingested.")
    with instance_beside_daemon(home) as instance:
        runner = HeadlessRunner(build_defs(home=home), instance, show_run)
        settings = {"source": source, "file": str(file.resolve()), "reason": reason}
        report = runner.run(RELEASE_JOB, run_config={"ops": {"put_rows_back": {"config": settings}}})
        if not report.success:
            sys.exit(1)
        files = [FileTakenIn.from_metadata(metadata) for metadata in report.metadata.values()]
        if not files:
            console.print("No row of this sheet could be released.")
            return
        console.print(str(files[0].in_words))
        if daemon_is_running(instance):
            console.print("The daemon runs the next steps.")
        elif not all(run.success for run in runner.run_until_idle()):
            sys.exit(1)


@contextmanager
def _warehouse(home_folder: Path | None) -> Iterator[Connection]:
    """Open the warehouse for reading; an unknown source becomes an error of the command line."""
    home = open_home(home_folder)
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: nothing was ingested.")
    with reading(home) as con:
        try:
            yield con
        except LookupError as error:
            raise click.ClickException(str(error.args[0])) from error
