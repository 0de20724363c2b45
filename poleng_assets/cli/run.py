"""``poleng settle``, ``retry`` and ``retrain``: runs that a person asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import (
    console,
    dev_hint,
    home_option,
    open_home,
    open_runner,
    study_option,
    styled,
)


@click.command()
@study_option
@home_option
def settle(study_file: Path | None, home_folder: Path | None) -> None:
    """Do all that waits to be done, without a daemon: take files in, score, retrain, make lists."""
    from poleng_assets.defs.run_history import reset_failures

    with open_runner(open_home(home_folder, study_file)) as runner:
        # Who asks by hand has mended what was wrong, or wants to see it.
        reset_failures(runner.instance)
        reports = runner.run_until_idle()
        for name, words in runner.skips.items():
            console.print(styled("dim", f"{name}: {words}"))
    if not all(report.success for report in reports):
        sys.exit(1)


@click.command()
@home_option
def retry(home_folder: Path | None) -> None:
    """Say that what was wrong is mended: what failed again and again is tried anew, without the pause."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.defs.run_history import reset_failures

    home = open_home(home_folder)
    with open_instance(home) as instance:
        reset_failures(instance)
        watched = daemon_is_running(instance)
    console.print("The daemon tries it again." if watched else f"No daemon runs. Start it: {dev_hint(home)}")


@click.command()
@click.option("--mode", type=click.Choice(["quick", "full"]), help="How long to search; see the study.")
@click.option("--reason", default="asked for on the command line", show_default=True)
@home_option
def retrain(mode: str | None, reason: str, home_folder: Path | None) -> None:
    """Train a challenger on all field studies, and let it serve if it is truly better.

    A full search tells how long it will take. Interrupt it when you like: it is kept, and the next
    retraining on the same data goes on where it was.
    """
    from poleng_assets.defs.jobs import RETRAIN_JOB
    from poleng_assets.defs.run_history import fail_orphaned_runs

    with open_runner(open_home(home_folder)) as runner:
        fail_orphaned_runs(runner.instance)
        ops = {
            "training_data": {"config": {"reason": reason}},
            "challenger": {"config": {"mode": mode or ""}},
        }
        report = runner.run(RETRAIN_JOB, run_config={"ops": ops}, log=True)
    if not report.success:
        sys.exit(1)
