"""``poleng why``: explain the scores of one person."""

import json
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, reading
from poleng_assets.storage.home_study import study_of


@click.command()
@click.argument("subject")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@home_option
def why(subject: str, as_json: bool, home_folder: Path | None) -> None:
    """Explain how SUBJECT was scored, on which contact lists they are, and why that model serves."""
    from poleng_assets.core.contacts.contact_history import history_of
    from poleng_assets.core.data.subject_ids import alike_in_warehouse, plain_id
    from poleng_assets.warehouse.erasures import erasures_of, summary

    home = open_home(home_folder)
    study = study_of(home)
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: no one was scored.")
    with reading(home) as con:
        history = history_of(con, study, subject)
        alike = "" if history else alike_in_warehouse(con, study, [plain_id(subject)]).in_words()
        erased = [] if history else summary(erasures_of(con, "predictions"))
    if not history:
        lines = [f"{subject} is in no batch of {home.root}.", *([f"{alike}."] if alike else [])]
        lines += [f"{erasure}: whether they included this person is no longer known." for erasure in erased]
        raise click.ClickException("\n".join(lines))
    if as_json:
        click.echo(json.dumps([vars(scoring) for scoring in history], indent=2, default=str))
        return
    for scoring in history:
        console.print(scoring.in_words())
