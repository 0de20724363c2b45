"""dagster-mlflow's resource, in surroundings that only the home decides on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from poleng_assets.defs.resources.registry import refusals_end_the_run
from poleng_assets.models.repair import restore_experiment
from poleng_assets.models.store import open_client, refusals_of_mlflow

_OF_MLFLOW = ("MLFLOW_", "_MLFLOW_")
# Set by this package when it is imported: no telemetry, no noise.
_OUR_OWN = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "MLFLOW_LOGGING_LEVEL")


@dg.resource(
    config_schema={"experiment_name": str, "mlflow_tracking_uri": str, "artifact_location": str},
    description="dagster-mlflow's resource: an MLflow run linked to the Dagster run by its id.",
)
def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
    """Hand out dagster-mlflow's resource, imported late because it loads MLflow.

    A step that ran to its end has closed its MLflow run itself; one that is still active here
    belongs to a step that failed before it got there.
    """
    from dagster_mlflow import mlflow_tracking

    settings = context.resource_config
    experiment = settings["experiment_name"]
    with _without_settings_of_the_shell():
        what = f"The training cannot be logged in MLflow's experiment {experiment!r}"
        with refusals_end_the_run(), refusals_of_mlflow(what):
            client = open_client(settings["mlflow_tracking_uri"], experiment, settings["artifact_location"])
            restore_experiment(client, experiment)
            opened = mlflow_tracking.resource_fn(context)
            run = next(opened)
        yield run
        next(opened, None)
        import mlflow

        if mlflow.active_run() is not None:
            mlflow.end_run("FAILED")


@contextmanager
def _without_settings_of_the_shell() -> Iterator[None]:
    """Keep MLflow's variables of whoever started this process out of a training, and put them back.

    ``MLFLOW_RUN_ID`` would write it into another run, ``MLFLOW_EXPERIMENT_ID`` into another experiment;
    https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html names some
    hundred of them. The home says all that a training needs.
    """

    def taken_out() -> dict[str, str]:
        settings = [name for name in os.environ if name.startswith(_OF_MLFLOW) and name not in _OUR_OWN]
        return {name: os.environ.pop(name) for name in settings}

    before = taken_out()
    try:
        yield
    finally:
        taken_out()  # MLflow sets some itself
        os.environ.update(before)
