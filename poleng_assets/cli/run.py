"""``poleng run-pending``, ``retry`` and ``retrain``: start runs by hand."""

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


@click.command("run-pending")
@study_option
@home_option
def run_pending(study_file: Path | None, home_folder: Path | None) -> None:
    """Run all pending work without a daemon: ingest files, score, retrain, make contact lists."""
    from poleng_assets.defs.run_history import reset_failures

    with open_runner(open_home(home_folder, study_file)) as runner:
        # A run by hand means that the cause is fixed, or that the error is to be shown.
        reset_failures(runner.instance)
        reports = runner.run_until_idle()
        for name, reason in runner.skips.items():
            console.print(styled("dim", f"{name}: {reason}"))
    if not all(report.success for report in reports):
        sys.exit(1)


# The name of the command in earlier releases.
settle = click.Command(
    "settle", callback=run_pending.callback, params=run_pending.params, hidden=True, help=run_pending.help
)


@click.command()
@home_option
def retry(home_folder: Path | None) -> None:
    """Retry failed work now, after its cause is fixed, without waiting for the pause to end."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.defs.run_history import reset_failures

    home = open_home(home_folder)
    with open_instance(home) as instance:
        reset_failures(instance)
        watched = daemon_is_running(instance)
    console.print("The daemon retries now." if watched else f"No daemon runs. Start it: {dev_hint(home)}")


@click.command()
@click.option("--mode", type=click.Choice(["quick", "full"]), help="Length of the search; see the study.")
@click.option("--reason", default="asked for on the command line", show_default=True)
@home_option
def retrain(mode: str | None, reason: str, home_folder: Path | None) -> None:
    """Train a challenger on all field studies, and promote it if it is significantly better.

    A full search shows its expected duration. It can be interrupted: the next retraining on the same data
    resumes it.
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
