"""``poleng report``: render the report of a batch again."""

from dataclasses import replace
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, reading
from poleng_assets.storage.home_study import study_of


@click.command()
@click.argument("batch")
@click.option("--version", type=int, help="Model version; by default the one of the current scores.")
@home_option
def report(batch: str, version: int | None, home_folder: Path | None) -> None:
    """Render the report of BATCH again from the warehouse, with all outcomes known by now.

    Any version that scored the batch can be chosen, even one that was rolled back. The verdict does not
    change.
    """
    from poleng_assets.core.monitoring.batch_report import load_report
    from poleng_assets.core.monitoring.realised_performance import measure_realised
    from poleng_assets.core.reports.drift_report import render_report
    from poleng_assets.models.registry import Registry
    from poleng_assets.storage.files import write_atomically
    from poleng_assets.warehouse.erasures import newest_erasures
    from poleng_assets.warehouse.predictions import outcomes_of_scored, scoring_version

    home = open_home(home_folder)
    study = study_of(home)
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: no batch was scored.")
    with reading(home) as con:
        version_number = version or scoring_version(con, batch)
        erased = newest_erasures(con, "predictions").get(batch)
        if version_number is None and erased:
            raise click.ClickException(f"The scores of {batch} were {erased.in_words()}.")
        if version_number is None:
            raise click.ClickException(f"{batch} is not scored in {home.root}.")
        try:
            registry = Registry(home, study)
            reference = registry.reference(registry.version(version_number))
            outcomes = outcomes_of_scored(con, study, batch, version_number)
            batch_report = load_report(con, study, batch, version_number, reference)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
    batch_report = replace(batch_report, realised=measure_realised(outcomes, study, reference))
    path = write_atomically(home.report(batch, version_number), render_report(study, batch_report))
    console.print(f"{batch}, version {version_number}: {batch_report.judgement.verdict}. See {path}")
