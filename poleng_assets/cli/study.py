"""``poleng study``: the study of a home, and another one for it."""

from __future__ import annotations

from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, instance_beside_daemon, named_home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study.loading import named_study
from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable


@click.group()
def study() -> None:
    """Show the study of a home, or change it."""


@study.command()
@home_option
def show(home_folder: Path | None) -> None:
    """Tell which study a home has, and where its file is."""
    home = named_home(home_folder)
    has_file = home.study_file.exists()
    own = study_of(home, home.study_file if has_file else None)
    console.print(f"{own.title} ({own.name}): {len(own.features)} questions, target {own.target.name}")
    console.print(f"Study file: {home.study_file if has_file else 'none yet, the first run makes it'}")


@study.command()
@click.argument("study", metavar="STUDY")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def change(study: str, yes: bool, home_folder: Path | None) -> None:
    """Give a home another STUDY, after telling what that changes: a file, or the name of one that ships.

    The name of the study, its id and its target keep their names once the home holds rows or models. The
    ledger tells of the change. A daemon goes on with it; start `poleng serve` again.
    """
    from poleng_assets.operations.study_change import change_study, plan_change
    from poleng_assets.warehouse.connection import Warehouse

    home, file = named_home(home_folder), named_study(study)
    planned = plan_change(home, file)
    if not planned.differences:
        console.print(f"{home.study_file} says the same as {file}: nothing is changed.")
        return
    for line in planned.in_words():
        console.print(line)
    if not yes:
        click.confirm(f"Give {home.root} this study?", abort=True)
    with instance_beside_daemon(home):
        try:
            change_study(home, planned, Warehouse(home.warehouse, planned.after, say=console.print))
        except (WarehouseBusy, WarehouseUnusable) as error:
            raise click.ClickException(str(error)) from error
    console.print(f"{home.study_file} is the study of {file} from now on.")
