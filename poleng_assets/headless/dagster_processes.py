"""Dagster's processes of a home on this machine, including orphans of a killed ``poleng dev``."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

from poleng_assets.storage.home import Home

# Of a plain `dagster dev` and of `poleng dev`.
_WEB_SERVERS = (["-m", "dagster_webserver"], ["-m", "poleng_assets.serving.dagster_ui"])


def daemons(home: Home) -> list[int]:
    """Return the process ids of the Dagster daemons of a home on this machine, including orphans.

    Processes of other users cannot be inspected, and are not found.
    """
    return [process.pid for process in _services(home) if _is_daemon(process.cmdline())]


def end_orphans(home: Home, patience_seconds: float = 20.0) -> list[int]:
    """Stop the daemon and web server left by a killed ``poleng dev`` or ``dagster dev``; return their ids.

    The process that would have stopped them was killed. They would run in parallel to the new ones, with old
    code, and block the port.
    """
    orphans = [process for process in _services(home) if _is_orphan(process)]
    for process in orphans:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=patience_seconds)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=patience_seconds)
    return [process.pid for process in orphans]


def _services(home: Home) -> list[psutil.Process]:
    services = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            is_service = _is_daemon(command) or command[1:3] in _WEB_SERVERS
            if is_service and process.status() != psutil.STATUS_ZOMBIE and _serves(process, home):
                services.append(process)
    return services


def _is_daemon(command: list[str]) -> bool:
    named = any(Path(part).name == "dagster-daemon" for part in command[:2])
    return named or command[1:3] == ["-m", "dagster._daemon"]


def _is_orphan(process: psutil.Process) -> bool:
    """Whether a process was started by ``poleng dev`` or ``dagster dev``, which has ended."""
    parent = process.parent()
    return "--shutdown-pipe" in process.cmdline() and (
        parent is None or not {"dev", "poleng_assets.serving.dev"} & set(parent.cmdline())
    )


def _serves(process: psutil.Process, home: Home) -> bool:
    """Whether a process uses the history of a home, by its environment or its settings."""
    named = process.environ().get("DAGSTER_HOME")
    if named and Path(named).resolve() == home.dagster:
        return True
    # ``dagster dev`` passes its settings as JSON; relative paths start at its working directory.
    settings = " ".join(process.cmdline())
    folders = (home.dagster, os.path.relpath(home.dagster, process.cwd()))
    return any(f"base_dir: {folder}\\n" in settings for folder in folders)
