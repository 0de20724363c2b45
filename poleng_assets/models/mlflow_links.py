"""Where MLflow's own UI shows a run and a version: the links that Dagster's UI has to them.

The store is a file of the home, and nobody serves it until ``poleng mlflow`` is said.
"""

import os
from urllib.parse import quote

ADDRESS = "POLENG_MLFLOW_URL"
PORT = 5001


def mlflow_address() -> str:
    """Return where MLflow's UI is: as ``POLENG_MLFLOW_URL`` says, else where ``poleng mlflow`` opens it."""
    return (os.environ.get(ADDRESS) or f"http://127.0.0.1:{PORT}").rstrip("/")


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the address of the page of a training: parameters, metrics, trials and artifacts."""
    return f"{mlflow_address()}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"


def version_page(model: str, version: int) -> str:
    """Return the address of the page of a registered version: its tags and aliases."""
    return f"{mlflow_address()}/#/models/{quote(model)}/versions/{version}"
