"""``poleng backup`` and ``poleng restore``."""

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
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for a run that has the warehouse locked.",
)
@home_option
def backup(file: Path, force: bool, wait_seconds: float, home_folder: Path | None) -> None:
    """Write the complete home to FILE while the daemon keeps running, and verify that it can be restored.

    FILE contains the answers of everyone in the home: protect it like the home itself.
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
            f"No backup was made because a file cannot be read or written: {error}. "
            f"Check the disks of {home.root} and of {file}."
        ) from error
    for remark in made.remarks:
        console.print(styled("yellow", "Note:"), f"{remark}.")
    console.print(
        f"{made.path}: {len(made.manifest.hashes):,} files of {home.root}, {_megabytes(made.size)} "
        f"({_megabytes(made.manifest.size)} unpacked), in {time.monotonic() - started:.1f} s. It was read "
        f"back and is complete. Runs waited {made.held_seconds:.1f} s."
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
def restore(file: Path, home_folder: Path | None) -> None:
    """Restore FILE into an empty home, which continues from the moment of the backup.

    Restore only files that you made yourself: a home contains models, and models are code.
    """
    from poleng_assets.headless.dagster_processes import daemons
    from poleng_assets.operations.backup.archive import ArchiveBroken
    from poleng_assets.operations.backup.snapshot import BackupRefused
    from poleng_assets.operations.restore import HomeNotEmpty, restore_backup

    started = time.monotonic()
    home = named_home(home_folder)
    if processes := daemons(home):
        raise click.ClickException(
            f"Nothing was restored: a Dagster daemon runs on {home.root} (process "
            f"{', '.join(map(str, processes))}). Stop it first."
        )
    try:
        restored = restore_backup(file, home)
    except (ArchiveBroken, BackupRefused, HomeNotEmpty) as error:
        raise click.ClickException(f"Nothing was restored: {error}.") from error
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"Nothing was restored into {home.root}: {error}.") from error
    manifest = restored.manifest
    for difference in restored.other_versions:
        console.print(styled("yellow", "Note:"), f"{difference}.")
    if restored.failed_runs:
        console.print(
            f"{restored.failed_runs} runs were in progress at the time of the backup; they will run again."
        )
    console.print(
        f"{home.root} is restored to the state of {manifest.home} on {manifest.made_at}: "
        f"{len(manifest.hashes):,} files, in {time.monotonic() - started:.1f} s. Continue with: "
        f"poleng run-pending --home {shlex.quote(str(home.root))}"
    )
    console.print("Erase again everyone who was erased after the backup: poleng forget.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
