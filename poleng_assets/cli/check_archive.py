"""``poleng check-archive``: verify the files in the archive."""

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, reading
from poleng_assets.storage.home import KINDS
from poleng_assets.storage.home_study import study_of


@click.command("check-archive")
@home_option
def check_archive(home_folder: Path | None) -> None:
    """Compare each archived file with the hash it had when it was ingested.

    The exit code is 1 if a file has changed or is missing. A daemon runs this check every night.
    """
    from poleng_assets.core.ingestion.archive_check import compare_archive
    from poleng_assets.warehouse.writes import now

    home = open_home(home_folder)
    keep_days = study_of(home).policies.retention.archive
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: nothing was ingested.")
    intact = True
    with reading(home) as con:
        for kind in KINDS:
            comparison = compare_archive(con, kind, home.archive(kind), now(), keep_days)
            intact = intact and comparison.sound
            console.print(f"{kind}: {comparison.in_words()}")
    if not intact:
        console.print(
            "Get those files from a backup (`poleng restore` into another home), or ask their sender."
        )
        sys.exit(1)
