"""Links to runs and versions in MLflow's UI, for Dagster's UI.

``poleng mlflow`` runs MLflow's UI on the store of the home.
"""

import os
from urllib.parse import quote

ADDRESS = "POLENG_MLFLOW_URL"
PORT = 5001


def mlflow_address() -> str:
    """Return the URL of MLflow's UI: ``POLENG_MLFLOW_URL``, or the default of ``poleng mlflow``."""
    return (os.environ.get(ADDRESS) or f"http://127.0.0.1:{PORT}").rstrip("/")


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the URL of a training run: parameters, metrics, trials and artifacts."""
    return f"{mlflow_address()}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"


def version_page(model: str, version: int) -> str:
    """Return the URL of a registered version: its tags and aliases."""
    return f"{mlflow_address()}/#/models/{quote(model)}/versions/{version}"
