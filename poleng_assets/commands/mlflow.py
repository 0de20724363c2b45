"""``poleng mlflow``: MLflow's own UI on the models of a home, where the links of Dagster's UI lead."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from poleng_assets.mlflow_pages import ADDRESS, PORT, mlflow_address
from poleng_assets.terminal import console, home_option, open_home

HOST = "127.0.0.1"  # it has no password


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True)
@home_option
def mlflow(port: int, home_folder: Path | None) -> None:
    """Open MLflow's UI on this home: versions, runs and trials.

    It can be reached from this machine only, and changes nothing by itself. The links to it in Dagster's UI
    lead to POLENG_MLFLOW_URL, by default http://127.0.0.1:5001.
    """
    from poleng_assets.resources.registry import create_store

    home = open_home(home_folder)
    create_store(home.root / "mlflow.db")
    address = f"http://{HOST}:{port}"
    console.print(f"Home {home.root}\nMLflow's UI opens on {address}. Ctrl-C ends it.")
    if mlflow_address() != address:
        console.print(
            f"The links in Dagster's UI lead to {mlflow_address()}. Set {ADDRESS}={address} "
            "for `poleng dev`, and those of later trainings lead here."
        )
    # Its workers for language models are nothing to a survey.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    program = str(Path(sys.executable).with_name("mlflow"))
    command = [program, "server", "--backend-store-uri", home.mlflow_uri, "--default-artifact-root",
               home.artifacts.as_uri(), "--no-serve-artifacts", "--workers", "1", "--host", HOST, "--port",
               str(port)]  # fmt: skip
    # Whatever it writes beside its store stays in the home.
    os.chdir(home.root)
    os.execve(program, command, environment)  # noqa: S606
