"""``poleng rollback``: make an earlier version the champion again."""

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, instance_beside_daemon, open_home
from poleng_assets.cli.run_lines import show_run


@click.command()
@click.option("--to", "version", type=int, default=0, help="Version to serve; by default the previous one.")
@click.option("--reason", default="asked for on the command line", show_default=True)
@click.option("--score-again", is_flag=True, help="Score the batches of the replaced version again.")
@home_option
def rollback(version: int, reason: str, score_again: bool, home_folder: Path | None) -> None:
    """Make an earlier version the champion again, with its own reference."""
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import daemon_is_running
    from poleng_assets.defs.rollback import ROLLBACK_JOB
    from poleng_assets.headless.runner import HeadlessRunner

    home = open_home(home_folder)
    with instance_beside_daemon(home) as instance:
        runner = HeadlessRunner(build_defs(home=home), instance, show_run)
        settings = {"to": version, "reason": reason, "score_again": score_again}
        report = runner.run(ROLLBACK_JOB, run_config={"ops": {"put_back": {"config": settings}}})
        if not report.success:
            sys.exit(1)
        if score_again and daemon_is_running(instance):
            console.print("The daemon will score the batches again.")
        elif score_again:
            runner.run_until_idle()
