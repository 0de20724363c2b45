"""The processes of ``poleng dev``: a code server, Dagster's daemon, and its web server behind a guard.

This replaces ``dagster dev``, whose web server would respond to any web page open in a browser. It replaces
the process of ``poleng dev`` and finds the home by ``DAGSTER_HOME``.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import dagster as dg
import yaml
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_shared.ipc import get_ipc_shutdown_pipe, open_ipc_subprocess, send_ipc_shutdown_message

from poleng_assets.storage.home import CHECKOUT

LOOK_SECONDS = 1.0
GOODBYE_SECONDS = 60.0
log = logging.getLogger("dagster")


@dataclass(frozen=True)
class Service:
    """A process that is stopped by a message on a pipe."""

    name: str
    process: subprocess.Popen[bytes]
    pipe: int

    def request_stop(self) -> None:
        """Request its end; a process that has ended does not read the pipe."""
        with suppress(BrokenPipeError):
            send_ipc_shutdown_message(self.pipe)

    def wait_for_end(self) -> None:
        """Wait for its end, and kill it after the timeout."""
        try:
            self.process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("The %s does not stop and is killed", self.name)
            self.process.kill()
            self.process.wait()


@click.command()
@click.option("--socket", "descriptor", type=int, required=True, help="Descriptor of the bound port.")
@click.option("--host", required=True)
@click.option("--allow-host", "allow_hosts", multiple=True)
def main(descriptor: int, host: str, allow_hosts: Sequence[str]) -> None:
    """Run the processes until this one is interrupted or one of them ends."""
    os.environ["DAGSTER_IS_DEV_CLI"] = "1"
    configure_loggers(formatter="colored", log_level="INFO")
    setup_interrupt_handlers()
    names = [argument for name in allow_hosts for argument in ("--allow-host", name)]
    web = ["poleng_assets.serving.dagster_ui", "--socket", str(descriptor), "--host", host, *names]
    failed = ""
    with suppress(KeyboardInterrupt), _code_server() as workspace:
        services: list[Service] = []
        try:
            services.append(_start("web server", [*web, "--workspace", workspace], descriptor))
            os.close(descriptor)  # only the web server uses the port
            daemon = ["dagster._daemon", "run", "--log-level", "info", "--code-server-log-level", "warning"]
            services.append(_start("daemon", [*daemon, "--workspace", workspace]))
            while not (failed := _ended(services)):
                time.sleep(LOOK_SECONDS)
        finally:
            for service in services:
                service.request_stop()
            for service in services:
                service.wait_for_end()
    if failed:
        log.error("%s All processes were stopped. Start `poleng dev` again", failed)
        sys.exit(1)


@contextmanager
def _code_server() -> Iterator[str]:
    """Start the code server with the definitions; yield a workspace file that points to it."""
    target = WorkspaceFileTarget(paths=[str(CHECKOUT / "workspace.yaml")])
    with (
        dg.DagsterInstance.get() as instance,
        ProxyServerManager(instance, target, code_server_log_level="warning") as servers,
        tempfile.TemporaryDirectory() as folder,
    ):
        workspace = Path(folder) / "workspace.yaml"
        workspace.write_text(yaml.dump({"load_from": servers.get_code_server_specs()}), encoding="utf-8")
        yield str(workspace)


def _start(name: str, module: Sequence[str], *descriptors: int) -> Service:
    reads, writes = get_ipc_shutdown_pipe()
    command = [sys.executable, "-m", *module, "--shutdown-pipe", str(reads)]
    process = open_ipc_subprocess(command, pass_fds=[reads, *descriptors])
    os.close(reads)
    return Service(name, process, writes)


def _ended(services: Sequence[Service]) -> str:
    codes = {service.name: service.process.poll() for service in services}
    return next((f"The {name} ended with {code}." for name, code in codes.items() if code is not None), "")


if __name__ == "__main__":
    main()
