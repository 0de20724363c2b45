"""``poleng reset``: an empty home."""

from __future__ import annotations

from pathlib import Path

import click

from poleng_assets.cli.console import (
    console,
    home_option,
    instance_without_daemon,
    open_home,
)


@click.command()
@click.option("--confirm", metavar="NAME", help="Name of the home's folder; without it you are asked for it.")
@click.option("--yes", is_flag=True, hidden=True)  # of earlier releases; it says too little now
@home_option
def reset(confirm: str | None, yes: bool, home_folder: Path | None) -> None:
    """Empty the home folder: files, warehouse, models, lists, reports and history.

    It wants the name of the home's folder typed, so that nobody empties another one than they mean.
    """
    from poleng_assets.operations.reset import (
        ResetRefused,
        check_confirmation,
        reset_data,
        reset_history,
    )

    home = open_home(home_folder)
    with instance_without_daemon(home):
        if confirm is None and not yes:
            console.print(f"This removes everything that the project keeps in {home.root}.")
            confirm = click.prompt(f"Type the name of that folder ({home.root.name}) to go on", default="")
        try:
            check_confirmation(home, confirm or "")
        except ResetRefused as refusal:
            raise click.ClickException(str(refusal)) from refusal
        reset_data(home)
        reset_history(home)
        home.create()
    console.print(f"{home.root} is empty again.")
