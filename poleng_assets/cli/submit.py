"""``poleng submit``: copy a file to landing."""

from pathlib import Path

import click

from poleng_assets.cli.console import console, dev_hint, home_option, open_home, open_landing
from poleng_assets.storage.home import Kind

KINDS: dict[str, Kind] = {"batch": "batches", "study": "field_studies", "outcomes": "outcomes"}


@click.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
def submit(kind: str, file: Path, home_folder: Path | None) -> None:
    """Copy a file to landing. A running daemon (`make dev`) ingests it."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.storage.synthetic import OtherPeople, refuse_other_people

    home = open_home(home_folder)
    try:
        refuse_other_people(home, file)
        target = open_landing(home).submit(KINDS[kind], file)
    except (FileExistsError, OtherPeople) as error:
        raise click.ClickException(str(error)) from error
    with open_instance(home) as instance:
        watched = daemon_is_running(instance)
    console.print(f"Submitted as {target}.")
    console.print("The daemon will ingest it." if watched else f"No daemon runs. Start it: {dev_hint(home)}")
