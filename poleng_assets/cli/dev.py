"""``poleng dev``: Dagster's UI and its daemon on a home, until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, open_warehouse, study_option, styled
from poleng_assets.cli.listening import address_of, allow_host_option, is_loopback, listen


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", default=3000, show_default=True, help="0: any that is free.")
@allow_host_option
@study_option
@home_option
def dev(
    host: str, port: int, allow_hosts: tuple[str, ...], study_file: Path | None, home_folder: Path | None
) -> None:
    """Open the Dagster UI with its daemon on this home folder.

    Other web pages that a browser has open cannot use it: it answers under its own names only, to its own
    pages and to programs. It has no password.
    """
    from poleng_assets.defs.continuity import refuse_at_start
    from poleng_assets.defs.instance import dagster_home, open_instance
    from poleng_assets.headless.dagster_processes import daemons, end_orphans
    from poleng_assets.headless.home_lock import DAEMON, HomeTaken, acquire

    home = open_home(home_folder, study_file)
    try:
        # Kept by the process that this one becomes, to its end.
        acquire(home, DAEMON, inherited=True)
    except HomeTaken as error:
        raise click.ClickException(f"{error} Stop it first, or choose another --home.") from error
    for process in end_orphans(home):
        console.print(f"Process {process} was left by a `poleng dev` that was killed. It is ended now.")
    if others := daemons(home):
        raise click.ClickException(
            f"A Dagster daemon runs on {home.root} already (process {', '.join(map(str, others))}). "
            "Stop it first, or choose another --home."
        )
    with open_instance(home) as instance:
        refuse_at_start(instance, open_warehouse(home), home)
    listening = listen(host, port)
    listening.set_inheritable(True)
    environment = {
        **os.environ,
        "POLENG_HOME": str(home.root),
        "DAGSTER_HOME": str(dagster_home(home)),
        # What Dagster will do otherwise some day is no news for who runs this project.
        "PYTHONWARNINGS": "ignore",
    }
    if not is_loopback(host):
        words = f"{host} can be reached by other machines, and this UI has no password."
        console.print(styled("yellow", words))
    console.print(f"Home {home.root}\nDagster's UI opens on {address_of(listening)}. Ctrl-C ends it.")
    # What a script starts in the background has Ctrl-C ignored, and Dagster would then ignore SIGTERM, too:
    # neither `kill` nor a service manager could end it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.flush()
    command = [sys.executable, "-m", "poleng_assets.serving.dev", "--socket", str(listening.fileno())]
    command += ["--host", host, *(word for name in allow_hosts for word in ("--allow-host", name))]
    os.execve(command[0], command, environment)  # noqa: S606
