"""``poleng backup`` and ``poleng restore``."""

from __future__ import annotations

import shlex
import sqlite3
import time
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, named_home, styled
from poleng_assets.storage.home_study import study_of

WAIT_SECONDS = 300.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Write over FILE if it is there already.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    help="How many seconds to wait for a run that holds the warehouse.",
)
@home_option
def backup(file: Path, force: bool, wait_seconds: float, home_folder: Path | None) -> None:
    """Write the whole home into FILE, while the daemon goes on, and check that it can be restored.

    FILE holds the answers of everybody in the home: keep it as safe as the home itself.
    """
    from poleng_assets.operations.backup.make import make_backup
    from poleng_assets.operations.backup.snapshot import BackupRefused
    from poleng_assets.warehouse.connection import Warehouse, WarehouseBusy, WarehouseUnusable

    started = time.monotonic()
    home = named_home(home_folder)
    warehouse = Warehouse(home.warehouse, study_of(home), patience_seconds=wait_seconds, say=console.print)
    try:
        made = make_backup(home, warehouse, file.expanduser(), force=force)
    except (BackupRefused, WarehouseBusy, WarehouseUnusable) as error:
        raise click.ClickException(f"No backup was made: {error}.") from error
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(
            f"No backup was made, something cannot be read or written: {error}. "
            f"Look at the disks of {home.root} and of {file}."
        ) from error
    for remark in made.remarks:
        console.print(styled("yellow", "Mind:"), f"{remark}.")
    console.print(
        f"{made.path}: {len(made.manifest.hashes):,} files of {home.root}, {_megabytes(made.size)} "
        f"({_megabytes(made.manifest.size)} unpacked), in {time.monotonic() - started:.1f} s. It was read "
        f"back and is whole. Runs had to wait {made.held_seconds:.1f} s."
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
def restore(file: Path, home_folder: Path | None) -> None:
    """Make an empty home what FILE holds; it goes on where the backup was made.

    Restore only files that you made yourself: a home holds models, and models are code.
    """
    from poleng_assets.headless.dagster_processes import daemons
    from poleng_assets.operations.backup.archive import ArchiveBroken
    from poleng_assets.operations.backup.snapshot import BackupRefused
    from poleng_assets.operations.restore import HomeNotEmpty, restore_backup

    started = time.monotonic()
    home = named_home(home_folder)
    if processes := daemons(home):
        raise click.ClickException(
            f"Nothing was restored: a Dagster daemon works on {home.root} (process "
            f"{', '.join(map(str, processes))}). Stop it first."
        )
    try:
        restored = restore_backup(file, home)
    except (ArchiveBroken, BackupRefused, HomeNotEmpty) as error:
        raise click.ClickException(f"Nothing was restored: {error}.") from error
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"Nothing was restored into {home.root}: {error}.") from error
    manifest = restored.manifest
    for words in restored.other_versions:
        console.print(styled("yellow", "Mind:"), f"{words}.")
    if restored.failed_runs:
        console.print(f"{restored.failed_runs} runs were under way then; their work is done again.")
    console.print(
        f"{home.root} is what {manifest.home} was on {manifest.made_at}: {len(manifest.hashes):,} files, "
        f"in {time.monotonic() - started:.1f} s. Go on: poleng settle --home {shlex.quote(str(home.root))}"
    )
    console.print("Whoever was erased since must be erased again: poleng forget.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
