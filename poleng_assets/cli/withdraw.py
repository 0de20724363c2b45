"""``poleng withdraw``: exclude a field study from training."""

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, instance_beside_daemon, open_home
from poleng_assets.cli.run_lines import show_run
from poleng_assets.cli.status import people_and_studies


@click.command()
@click.argument("study")
@click.option("--reason", default="asked for on the command line", show_default=True)
@click.option("--undo", is_flag=True, help="Restore a withdrawn study.")
@home_option
def withdraw(study: str, reason: str, undo: bool, home_folder: Path | None) -> None:
    """Exclude field study STUDY from training and evaluation.

    Its rows and its file are kept. If the champion was trained on it, a new model is trained without it. The
    name of a study means all its versions, NAME@2 only that one.
    """
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import daemon_is_running
    from poleng_assets.defs.withdrawal import WITHDRAW_JOB
    from poleng_assets.headless.runner import HeadlessRunner

    home = open_home(home_folder)
    with instance_beside_daemon(home) as instance:
        runner = HeadlessRunner(build_defs(home=home, settle_seconds=0.0), instance, show_run)
        settings = {"study": study, "reason": reason, "undo": undo}
        report = runner.run(WITHDRAW_JOB, run_config={"ops": {"mark_as_withdrawn": {"config": settings}}})
        if not report.success:
            sys.exit(1)
        watched = daemon_is_running(instance)
    facts = people_and_studies(home)
    console.print(
        f"{study} {'is no longer withdrawn' if undo else 'is withdrawn'}. Its rows and its file are kept."
    )
    if facts["champion_learned_from_withdrawn"]:
        how = "The daemon trains" if watched else "`poleng run-pending` (or `poleng retrain`) trains"
        console.print(f"{facts['champion_learned_from_withdrawn']}. {how} without it.")
