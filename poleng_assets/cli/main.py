"""``poleng``: the command line on the same definitions, sensors and instance as the UI."""

import logging
import os
import warnings
from typing import Any

import click

from poleng_assets.cli.backup import backup, restore
from poleng_assets.cli.check_archive import check_archive
from poleng_assets.cli.clock import clock
from poleng_assets.cli.console import explain_fault
from poleng_assets.cli.decisions import decisions
from poleng_assets.cli.dev import dev
from poleng_assets.cli.forget import forget
from poleng_assets.cli.init import init
from poleng_assets.cli.mlflow import mlflow
from poleng_assets.cli.notify import notify
from poleng_assets.cli.quarantine import quarantine
from poleng_assets.cli.recover import recover
from poleng_assets.cli.report import report
from poleng_assets.cli.reset import reset
from poleng_assets.cli.retention import retention
from poleng_assets.cli.rollback import rollback
from poleng_assets.cli.run import retrain, retry, run_pending, settle
from poleng_assets.cli.serve import serve
from poleng_assets.cli.simulate import simulate
from poleng_assets.cli.status import status
from poleng_assets.cli.study import study
from poleng_assets.cli.submit import submit
from poleng_assets.cli.why import why
from poleng_assets.cli.withdraw import withdraw
from poleng_assets.storage.home import HomeRefused
from poleng_assets.study.schema import StudyError
from poleng_assets.text.plain_text import visible


class _Boundary(click.Group):
    """Reports an error of the study file or the machine without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (StudyError, HomeRefused) as error:
            raise click.ClickException(visible(str(error))) from error
        except click.ClickException as error:
            vars(error)["message"] = visible(error.message)
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            explanation = explain_fault(error)
            if not explanation:
                raise
            raise click.ClickException(visible(explanation)) from error


@click.group(cls=_Boundary, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Find politically disengaged people, and monitor the model that finds them."""
    os.umask(0o077)  # new files are readable by their owner only
    warnings.simplefilter("ignore")
    for name in ("alembic", "mlflow", "dagster"):
        logging.getLogger(name).setLevel(logging.ERROR)


for command in (
    backup,
    check_archive,
    clock,
    decisions,
    dev,
    forget,
    init,
    mlflow,
    notify,
    quarantine,
    recover,
    report,
    reset,
    restore,
    retention,
    retrain,
    retry,
    rollback,
    run_pending,
    serve,
    settle,
    simulate,
    status,
    study,
    submit,
    why,
    withdraw,
):
    main.add_command(command)
