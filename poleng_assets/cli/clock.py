"""``poleng clock``: whether the clock can be believed, and the word of a person who has looked at it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import (
    console,
    home_option,
    instance_beside_daemon,
    open_home,
    open_warehouse,
    styled,
)


@click.command()
@click.option("--trust", is_flag=True, help="You have looked at the clock, and it is right.")
@home_option
def clock(trust: bool, home_folder: Path | None) -> None:
    """Tell whether the clock is in doubt. While it is, nothing is taken in, scored or erased.

    It is when what was written down here is dated ahead of it, or when so long nothing was written down that
    it may have jumped (max_gap of policies.retention). --trust goes into the ledger, and dates to now what a
    wrong clock dated ahead. The exit code is 1 while the clock is in doubt.
    """
    from poleng_assets.defs.clock import clock_in_doubt, newest_run, now, trust_clock

    home = open_home(home_folder)
    warehouse = open_warehouse(home)
    with instance_beside_daemon(home) as instance:
        if home.warehouse.exists():
            with warehouse.connect() as con:
                doubt = clock_in_doubt(instance, home, con)
        else:
            doubt = clock_in_doubt(instance, home)
        moment = now()
        console.print(f"The clock says {moment:%Y-%m-%d %H:%M:%S} UTC.")
        if not doubt:
            console.print("It fits all that was written down here.")
            return
        if not trust:
            console.print(styled("red", "It is in doubt:"), f"{doubt}.")
            sys.exit(1)
        dated = trust_clock(home, warehouse, moment, doubt, newest_run(instance))
    told = ", ".join(f"{rows:,} rows of {table}" for table, rows in dated.items())
    console.print(
        "It is trusted from now on, and the ledger says so." + (f" Dated to now: {told}." if told else "")
    )
