"""``poleng clock``: check the system clock, or confirm that it is right."""

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
@click.option("--trust", is_flag=True, help="You have checked the clock, and it is right.")
@home_option
def clock(trust: bool, home_folder: Path | None) -> None:
    """Show whether the clock is in doubt. While it is, nothing is ingested, scored or erased.

    The clock is in doubt if a record is dated in its future, or if nothing was recorded for so long that it
    may have jumped (max_gap of policies.retention). --trust writes a decision to the ledger and changes
    future dates to now. The exit code is 1 while the clock is in doubt.
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
            console.print("It agrees with all records of this home.")
            return
        if not trust:
            console.print(styled("red", "The clock is in doubt:"), f"{doubt}.")
            sys.exit(1)
        dated = trust_clock(home, warehouse, moment, doubt, newest_run(instance))
    changed = ", ".join(f"{rows:,} rows of {table}" for table, rows in dated.items())
    console.print(
        "The clock is trusted from now on; this is in the ledger."
        + (f" Dated to now: {changed}." if changed else "")
    )
