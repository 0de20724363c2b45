"""MLflow's server behind the guard, as the process of ``poleng mlflow``.

MLflow checks ``Host`` and ``Origin`` itself, but allows pages of all other ports of this machine and names
that start like a private address (``10.evil.example``), and checks the origin for its REST API only.
"""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import click
import uvicorn

from poleng_assets.serving.guard import Guard, Rules, allowed_hosts

GOODBYE_SECONDS = 5


def rules(port: int, others: Sequence[str]) -> Rules:
    """Return the rules for MLflow's server; all its pages are at ``/``, after a ``#``."""
    return Rules(allowed_hosts(port, others=others), pages=("",), name="MLflow's UI")


@click.command()
@click.option("--socket", "descriptor", type=int, required=True, help="Descriptor of the bound port.")
@click.option("--store", required=True, help="Address of the database.")
@click.option("--artifacts", required=True, help="Address of the folder of models.")
@click.option("--allow-host", "allow_hosts", multiple=True)
def main(descriptor: int, store: str, artifacts: str, allow_hosts: Sequence[str]) -> None:
    """Serve MLflow's UI on an already bound port, until it is interrupted."""
    listening = socket.socket(fileno=descriptor)
    hosts = rules(listening.getsockname()[1], allow_hosts)
    # MLflow reads these when it loads, as the workers of `mlflow server` do.
    from mlflow.server import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR, REGISTRY_STORE_URI_ENV_VAR

    os.environ.update(
        {
            BACKEND_STORE_URI_ENV_VAR: store,
            REGISTRY_STORE_URI_ENV_VAR: store,
            ARTIFACT_ROOT_ENV_VAR: artifacts,
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(hosts.hosts)),
        }
    )
    from mlflow.server.fastapi_app import app

    config = uvicorn.Config(
        Guard(app, hosts),
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    with suppress(KeyboardInterrupt), listening:
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
