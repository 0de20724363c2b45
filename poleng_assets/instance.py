"""The Dagster instance of a home folder: the same settings for ``dagster dev`` and the command line."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg

from poleng_assets.files import write_whole
from poleng_assets.home import CHECKOUT, Home

SETTINGS = CHECKOUT / "dagster.yaml"
RELATIVE_HISTORY = "data/dagster"
HEARTBEAT_SECONDS = 60


def dagster_home(home: Home) -> Path:
    """Write the settings into the home and return the folder that ``DAGSTER_HOME`` must name.

    Raises:
        FileNotFoundError: the checkout's ``dagster.yaml`` is gone.
    """
    home.create()
    settings = SETTINGS.read_text(encoding="utf-8").replace(RELATIVE_HISTORY, str(home.dagster))
    target = home.dagster / "dagster.yaml"
    write_whole(target, settings)
    return home.dagster


def open_instance(home: Home) -> dg.DagsterInstance:
    """Open the instance of a home; use it as a context manager."""
    return dg.DagsterInstance.from_config(str(dagster_home(home)))


def daemon_is_running(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon drives the sensors of this home now: its heartbeat is fresh.

    It beats every 30 s. A heartbeat from the future was written before the clock went back: a daemon that
    lives writes over it.
    """
    heartbeat = instance.get_daemon_heartbeats().get("SENSOR")
    return heartbeat is not None and abs(time.time() - heartbeat.timestamp) < HEARTBEAT_SECONDS
