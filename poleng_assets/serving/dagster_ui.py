"""Dagster's web server behind the guard, as a process of ``poleng dev``.

It is ``dagster_webserver`` itself (see its ``cli/main.py``), with ``guard.py`` around it.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress

import click
import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_shared.ipc import interrupt_on_ipc_shutdown_message
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from poleng_assets.serving.guard import Guard, Rules, allowed_hosts

STATEMENT_MILLISECONDS, CONNECTION_SECONDS, CONNECTIONS = 15_000, 3_600, 20  # as dagster-webserver has them
LIVE_DATA_MILLISECONDS = 2_000
GOODBYE_SECONDS = 10
# All other paths return the page of the UI, which reads the path itself.
DATA = (
    "graphql",
    "logs",
    "notebook",
    "dagit",
    "download_debug",
    "report_asset_materialization",
    "report_asset_check",
    "report_asset_observation",
    "server_info",
    "dagit_info",
)


def rules(port: int, host: str, others: Sequence[str]) -> Rules:
    """Return the rules for Dagster's web server; see :func:`allowed_hosts`."""
    return Rules(allowed_hosts(port, host, others), data=DATA, name="Dagster's UI")


@click.command()
@click.option("--socket", "descriptor", type=int, required=True)
@click.option("--host", required=True)
@click.option("--allow-host", "allow_hosts", multiple=True)
@click.option("--workspace", required=True)
@click.option("--shutdown-pipe", type=int, required=True)
def main(descriptor: int, host: str, allow_hosts: Sequence[str], workspace: str, shutdown_pipe: int) -> None:
    """Serve Dagster's UI on an already bound port, until the pipe signals the end."""
    configure_loggers(formatter="colored", log_level="INFO")
    setup_interrupt_handlers()
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        stack.enter_context(interrupt_on_ipc_shutdown_message(shutdown_pipe))
        listening = stack.enter_context(socket.socket(fileno=descriptor))
        instance = stack.enter_context(dg.DagsterInstance.get())
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, CONNECTION_SECONDS, CONNECTIONS)
        context = stack.enter_context(
            WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace]), version=__version__)
        )
        app = create_app_from_workspace_process_context(context, live_data_poll_rate=LIVE_DATA_MILLISECONDS)
        guarded = Guard(app, rules(listening.getsockname()[1], host, allow_hosts))
        config = uvicorn.Config(
            guarded,
            log_level="warning",
            proxy_headers=False,  # the client address is that of the connection
            server_header=False,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
        )
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
