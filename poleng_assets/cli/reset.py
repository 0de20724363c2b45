"""``poleng reset``: empty a home."""

from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, instance_without_daemon, open_home


@click.command()
@click.option("--confirm", metavar="NAME", help="Name of the home's folder; asked for if missing.")
@click.option("--yes", is_flag=True, hidden=True)  # of earlier releases; no longer a sufficient confirmation
@home_option
def reset(confirm: str | None, yes: bool, home_folder: Path | None) -> None:
    """Empty the home folder: files, warehouse, models, lists, reports and history.

    You must type the name of the home's folder, as a protection against emptying the wrong one.
    """
    from poleng_assets.operations.reset import ResetRefused, check_confirmation, reset_data, reset_history

    home = open_home(home_folder)
    with instance_without_daemon(home):
        if confirm is None and not yes:
            console.print(f"This deletes all data of the project in {home.root}.")
            confirm = click.prompt(f"Type the name of that folder ({home.root.name}) to continue", default="")
        try:
            check_confirmation(home, confirm or "")
        except ResetRefused as refusal:
            raise click.ClickException(str(refusal)) from refusal
        reset_data(home)
        reset_history(home)
        home.create()
    console.print(f"{home.root} is empty now.")
