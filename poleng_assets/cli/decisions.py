"""``poleng decisions``: the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table

from poleng_assets.cli.batch_table import cell
from poleng_assets.cli.console import (
    console,
    home_option,
    open_home,
)
from poleng_assets.cli.status import query


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all evidence, for machines.")
@home_option
def decisions(as_json: bool, home_folder: Path | None) -> None:
    """Show the ledger: every retraining, promotion, hold, rejection and skip, oldest first."""
    columns = ["decided_at", "kind", "champion_version", "challenger_version", "batch", "reason", "evidence"]
    rows = query(open_home(home_folder), f"SELECT {', '.join(columns)} FROM decisions ORDER BY decided_at")  # noqa: S608
    if as_json:
        listed = [dict(zip(columns, row, strict=True)) for row in rows]
        for one in listed:
            one["evidence"] = json.loads(one["evidence"])
        click.echo(json.dumps(listed, indent=2, default=str))
        return
    table = Table("when (UTC)", "decision", "champion", "challenger", "batch", "why")
    for when, kind, champion, challenger, batch, why, _ in rows:
        table.add_row(f"{when:%Y-%m-%d %H:%M:%S}", kind, cell(champion), cell(challenger), cell(batch), why)
    console.print(table)
