"""``poleng retention``: erase expired data."""

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import home_option, open_home, open_runner


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be erased.")
@click.option(
    "--trust-clock", is_flag=True, help="The clock is right, although nothing was recorded for a long time."
)
@home_option
def retention(dry_run: bool, trust_clock: bool, home_folder: Path | None) -> None:
    """Erase data that has expired by policies.retention of the study. A daemon does it every night."""
    from poleng_assets.operations.retention import RETENTION_JOB

    settings = {"dry_run": dry_run, "trust_clock": trust_clock}
    with open_runner(open_home(home_folder)) as runner:
        report = runner.run(
            RETENTION_JOB, run_config={"ops": {"erase_what_expired": {"config": settings}}}, log=True
        )
    sys.exit(0 if report.success else 1)
