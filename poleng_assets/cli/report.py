"""``poleng report``: the report of a batch, made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from poleng_assets.cli.console import (
    console,
    home_option,
    open_home,
    reading,
)
from poleng_assets.storage.home_study import study_of


@click.command()
@click.argument("batch")
@click.option("--version", type=int, help="Of the model; by default the one whose scores are current.")
@home_option
def report(batch: str, version: int | None, home_folder: Path | None) -> None:
    """Make the report of BATCH again from the warehouse, with the outcomes that are known by now.

    Any version that scored the batch can be asked for, one that was rolled back as well. The verdict is
    the one that was acted upon.
    """
    from poleng_assets.core.monitoring.batch_report import load_report
    from poleng_assets.core.monitoring.realised_performance import measure_realised
    from poleng_assets.core.reports.drift_report import render_report
    from poleng_assets.models.registry import Registry
    from poleng_assets.storage.files import write_whole
    from poleng_assets.warehouse.erasures import newest_erasures
    from poleng_assets.warehouse.predictions import outcomes_of_scored, scoring_version

    home = open_home(home_folder)
    study = study_of(home)
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: no batch was scored.")
    with reading(home) as con:
        number = version or scoring_version(con, batch)
        erased = newest_erasures(con, "predictions").get(batch)
        if number is None and erased:
            raise click.ClickException(f"The scores of {batch} were {erased.in_words()}.")
        if number is None:
            raise click.ClickException(f"{batch} is not scored in {home.root}.")
        try:
            registry = Registry(home, study)
            reference = registry.reference(registry.version(number))
            outcomes = outcomes_of_scored(con, study, batch, number)
            seen = load_report(con, study, batch, number, reference)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
    seen = replace(seen, realised=measure_realised(outcomes, study, reference))
    path = write_whole(home.report(batch, number), render_report(study, seen))
    console.print(f"{batch}, version {number}: {seen.judgement.verdict}. See {path}")
