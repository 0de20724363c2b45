"""``poleng check-archive``: whether the archive still holds what was taken in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, reading
from poleng_assets.storage.home import KINDS
from poleng_assets.storage.home_study import study_of


@click.command("check-archive")
@home_option
def check_archive(home_folder: Path | None) -> None:
    """Compare each archived file with the hash that it had when it was taken in.

    The exit code is 1 when one holds something else or is gone. A daemon does it every night.
    """
    from poleng_assets.core.ingestion.archive_check import compare_archive
    from poleng_assets.warehouse.writes import now

    home = open_home(home_folder)
    keep_days = study_of(home).policies.retention.archive
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: nothing was taken in.")
    sound = True
    with reading(home) as con:
        for kind in KINDS:
            found = compare_archive(con, kind, home.archive(kind), now(), keep_days)
            sound = sound and found.sound
            console.print(f"{kind}: {found.in_words()}")
    if not sound:
        console.print(
            "Take those files from a backup (`poleng restore` into another home), or ask who sent them."
        )
        sys.exit(1)
