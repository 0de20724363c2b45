"""``poleng dev``: run Dagster's UI and its daemon on a home."""

import os
import signal
import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, open_warehouse, study_option, styled
from poleng_assets.cli.listening import address_of, allow_host_option, is_loopback, listen


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", default=3000, show_default=True, help="0: any free port.")
@allow_host_option
@study_option
@home_option
def dev(
    host: str, port: int, allow_hosts: tuple[str, ...], study_file: Path | None, home_folder: Path | None
) -> None:
    """Run the Dagster UI and its daemon on this home folder.

    Other web pages open in a browser cannot use it: it answers only under its own host names, to its own
    pages and to programs. It has no password.
    """
    from poleng_assets.defs.continuity import refuse_at_start
    from poleng_assets.defs.instance import dagster_home, open_instance
    from poleng_assets.headless.dagster_processes import daemons, end_orphans
    from poleng_assets.headless.home_lock import DAEMON, HomeTaken, acquire

    home = open_home(home_folder, study_file)
    try:
        # The lock is inherited by the process that replaces this one.
        acquire(home, DAEMON, inherited=True)
    except HomeTaken as error:
        raise click.ClickException(f"{error} Stop it first, or choose another --home.") from error
    for process in end_orphans(home):
        console.print(f"Stopped process {process}, left over from a killed `poleng dev`.")
    if others := daemons(home):
        raise click.ClickException(
            f"A Dagster daemon already runs on {home.root} (process {', '.join(map(str, others))}). "
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
        # Deprecation warnings of Dagster are of no use to users of this project.
        "PYTHONWARNINGS": "ignore",
    }
    if not is_loopback(host):
        warning = f"{host} can be reached from other machines, and this UI has no password."
        console.print(styled("yellow", warning))
    console.print(f"Home {home.root}\nDagster's UI: {address_of(listening)}. Stop it with Ctrl-C.")
    # A background process of a script ignores Ctrl-C, and Dagster would then ignore SIGTERM as well:
    # neither `kill` nor a service manager could stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.flush()
    command = [sys.executable, "-m", "poleng_assets.serving.dev", "--socket", str(listening.fileno())]
    command += ["--host", host, *(word for name in allow_hosts for word in ("--allow-host", name))]
    os.execve(command[0], command, environment)  # noqa: S606
