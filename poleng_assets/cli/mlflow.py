"""``poleng mlflow``: run MLflow's UI on the models of a home."""

import os
import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home
from poleng_assets.cli.listening import address_of, allow_host_option, listen
from poleng_assets.models.mlflow_links import ADDRESS, PORT, mlflow_address

# Variables of the shell that would open another store; the other settings of the server are kept.
OF_ANOTHER = ("MLFLOW_TRACKING", "MLFLOW_REGISTRY", "MLFLOW_BACKEND", "MLFLOW_DEFAULT", "MLFLOW_ARTIFACT",
              "MLFLOW_SERVE_", "MLFLOW_HOST", "MLFLOW_PORT", "_MLFLOW")  # fmt: skip
HOST = "127.0.0.1"  # it has no password


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True)
@allow_host_option
@home_option
def mlflow(port: int, allow_hosts: tuple[str, ...], home_folder: Path | None) -> None:
    """Run MLflow's UI on this home: model versions, runs and trials.

    It can be reached from this machine only, and not by other web pages open in a browser. The links to it in
    Dagster's UI use POLENG_MLFLOW_URL, by default http://127.0.0.1:5001.
    """
    from poleng_assets.models.store import create_store

    home = open_home(home_folder)
    create_store(home.root / "mlflow.db")
    listening = listen(HOST, port)
    address = address_of(listening)
    console.print(f"Home {home.root}\nMLflow's UI: {address}. Stop it with Ctrl-C.")
    if mlflow_address() != address:
        console.print(
            f"The links in Dagster's UI point to {mlflow_address()}. Set {ADDRESS}={address} "
            "for `poleng dev`; new links will then point here."
        )
    # Its workers for language models are not needed.
    settings = {name: value for name, value in os.environ.items() if not name.startswith(OF_ANOTHER)}
    environment = {**settings, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    listening.set_inheritable(True)
    command = [sys.executable, "-m", "poleng_assets.serving.mlflow_ui", "--socket", str(listening.fileno())]
    command += ["--store", home.mlflow_uri, "--artifacts", home.artifacts.as_uri()]
    command += [word for name in allow_hosts for word in ("--allow-host", name)]
    sys.stdout.flush()
    # Files that it writes to the working directory stay in the home.
    os.chdir(home.root)
    os.execve(command[0], command, environment)  # noqa: S606
