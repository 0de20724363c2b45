"""``poleng simulate``: play a scenario and show its result."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from poleng_assets.cli.batch_table import batch_facts, batch_table
from poleng_assets.cli.console import (
    console,
    dev_hint,
    home_option,
    open_home,
    open_landing,
    open_runner,
    open_warehouse,
    study_option,
    styled,
)
from poleng_assets.storage.home_study import study_of
from poleng_assets.text.plain_text import in_one_line

if TYPE_CHECKING:
    from poleng_assets.simulation.player import Ending


@click.command()
@click.argument("scenario", type=click.Choice(["clean", "drift", "full"]), default="full")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with field_studies, batches and outcomes; by default a synthetic population.",
)
@study_option
@home_option
def simulate(scenario: Any, data: Path | None, study_file: Path | None, home_folder: Path | None) -> None:
    """Play a scenario: submit its files one by one, run the sensors after each, and show the result."""
    from poleng_assets.simulation.player import play_scenario, scenario_data
    from poleng_assets.storage.synthetic import OtherPeople

    started = time.monotonic()
    home = open_home(home_folder, study_file)
    with open_runner(home) as runner:
        try:
            folder = scenario_data(home, study_of(home), data)
        except OtherPeople as error:
            raise click.ClickException(str(error)) from error
        landing, warehouse = open_landing(home), open_warehouse(home)
        console.print("Scenario", styled("bold", scenario), f"with {folder}, home {home.root}\n")

        def run_pending(drop: Any) -> None:
            console.print(styled("bold", in_one_line(drop.path.name)), f"submitted to landing/{drop.kind}")
            runner.run_until_idle()

        try:
            ending = play_scenario(scenario, folder, landing, warehouse, run_pending)
        except (FileNotFoundError, FileExistsError, OtherPeople) as error:
            raise click.ClickException(str(error)) from error
        waiting = [f"{name}: {reason}" for name, reason in runner.skips.items() if "Waiting" in reason]
    _show_ending(ending, waiting)
    console.print(f"\n{time.monotonic() - started:.0f} s. See the details in the UI: {dev_hint(home)}")
    sys.exit(1 if ending.faults else 0)


def _show_ending(ending: Ending, waiting: list[str]) -> None:
    if not ending.dropped:
        console.print("Nothing new: every file of this scenario was already ingested.")
    console.print()
    console.print(batch_table([batch_facts(row) for row in ending.rows]))
    for problem in [*waiting, *ending.faults]:
        console.print(styled("red", "Problem:"), problem)
    if not ending.faults:
        console.print("The scenario ended as expected.")
