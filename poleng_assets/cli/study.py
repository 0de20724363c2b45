"""``poleng study``: show or change the study of a home."""

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
    """Show which study a home has, and where its file is."""
    home = named_home(home_folder)
    has_file = home.study_file.exists()
    own = study_of(home, home.study_file if has_file else None)
    console.print(f"{own.title} ({own.name}): {len(own.features)} questions, target {own.target.name}")
    console.print(f"Study file: {home.study_file if has_file else 'none yet, the first run creates it'}")


@study.command()
@click.argument("study", metavar="STUDY")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def change(study: str, yes: bool, home_folder: Path | None) -> None:
    """Change the study of a home to STUDY, a file or the name of a built-in study.

    The differences are shown first. The names of the study, its id and its target cannot change once the home
    has rows or models. The ledger records the change. A daemon uses it at once; restart `poleng serve`.
    """
    from poleng_assets.operations.study_change import change_study, plan_change
    from poleng_assets.warehouse.connection import Warehouse

    home, file = named_home(home_folder), named_study(study)
    planned = plan_change(home, file)
    if not planned.differences:
        console.print(f"{home.study_file} and {file} are equal: nothing was changed.")
        return
    for line in planned.in_words():
        console.print(line)
    if not yes:
        click.confirm(f"Change the study of {home.root}?", abort=True)
    with instance_beside_daemon(home):
        try:
            change_study(home, planned, Warehouse(home.warehouse, planned.after, say=console.print))
        except (WarehouseBusy, WarehouseUnusable) as error:
            raise click.ClickException(str(error)) from error
    console.print(f"{home.study_file} now has the study of {file}.")
