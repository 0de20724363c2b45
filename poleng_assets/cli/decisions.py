"""``poleng decisions``: show the ledger."""

import json
from pathlib import Path

import click
from rich.table import Table

from poleng_assets.cli.batch_table import cell
from poleng_assets.cli.console import console, home_option, open_home, read_warehouse


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all evidence, for machines.")
@home_option
def decisions(as_json: bool, home_folder: Path | None) -> None:
    """Show the ledger: every retraining, promotion, hold, rejection and skip, oldest first."""
    from poleng_assets.warehouse.decisions import all_decisions

    ledger = read_warehouse(open_home(home_folder), all_decisions) or []
    if as_json:
        click.echo(json.dumps(ledger, indent=2, default=str))
        return
    table = Table("when (UTC)", "decision", "champion", "challenger", "batch", "why")
    for decision in ledger:
        when, *others, why, _ = decision.values()
        table.add_row(f"{when:%Y-%m-%d %H:%M:%S}", *map(cell, others), why)
    console.print(table)
