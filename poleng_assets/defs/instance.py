"""The Dagster instance of a home folder: the same settings for ``dagster dev`` and the command line."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import yaml

from poleng_assets.storage.files import move, sync_tree, write_atomically
from poleng_assets.storage.home import CHECKOUT, Home
from poleng_assets.warehouse.dagster_store import history_files
from poleng_assets.warehouse.sqlite_files import kept_open

SETTINGS = CHECKOUT / "dagster.yaml"
HEARTBEAT_SECONDS = 60
# Where Dagster keeps its databases, in the order in which they are moved in.
_HISTORY = ("schedules", "history")

# What is made is named after its process: its threads take turns.
_MAKING = threading.Lock()

Instance = dg.DagsterInstance


def dagster_home(home: Home) -> Path:
    """Write the settings into the home and return the folder that ``DAGSTER_HOME`` must name.

    Raises:
        FileNotFoundError: the checkout's ``dagster.yaml`` is gone.
    """
    home.create()
    with _MAKING:
        for left in home.dagster.glob(".history.*.part"):
            if not psutil.pid_exists(int(left.name.split(".")[2])):
                shutil.rmtree(left)  # its process was killed
        if not (home.dagster / _HISTORY[-1]).exists():
            _make_history(home)
        return _write_settings(home.dagster)


def _write_settings(folder: Path) -> Path:
    """Write the settings that keep Dagster's history in a folder into that folder; return it."""
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    settings["storage"]["sqlite"]["base_dir"] = str(folder)
    settings["local_artifact_storage"]["config"]["base_dir"] = str(folder)
    settings["compute_logs"]["config"]["base_dir"] = str(folder / "storage")
    write_atomically(folder / "dagster.yaml", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
    return folder


def _make_history(home: Home) -> None:
    """Make Dagster's databases beside their place, and move them there whole.

    Dagster makes their tables one by one: killed in between, it would ask for a migration ever after.
    """
    # In the folder itself, which may be a disk of its own.
    made = home.dagster / f".history.{os.getpid()}.part"
    made.mkdir()
    with dg.DagsterInstance.from_config(str(_write_settings(made))):
        pass  # opened once, it has all its tables
    for name in _HISTORY:
        # Not when a killed process has moved it in before.
        if not (home.dagster / name).exists():
            sync_tree(made / name)
            move(made / name, home.dagster / name)
    shutil.rmtree(made)


def open_instance(home: Home) -> dg.DagsterInstance:
    """Open the instance of a home; use it as a context manager."""
    return dg.DagsterInstance.from_config(str(dagster_home(home)))


@contextmanager
def history_kept_open(instance: dg.DagsterInstance, run_id: str | None = None) -> Iterator[None]:
    """Hold the databases of an instance's history open, and the log of one run.

    Dagster opens a database for every event and closes it again. Who closes a write-ahead log as the last
    one writes all of it into the database and waits for the disk: 14 of the 20 ms that an event takes on a
    busy disk, 0.8 of 1.8 ms on a quiet one. An idle connection beside locks nothing and takes that work
    away; each event is committed as before. https://www.sqlite.org/wal.html

    Not while this process reads the same files other than by SQLite: closing them would drop the locks of
    its connections. https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_

    Raises:
        sqlite3.Error: a database cannot be read.
    """
    with kept_open(history_files(Path(instance.root_directory).absolute(), run_id)):
        yield


def daemon_is_running(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon drives the sensors of this home now: its heartbeat is fresh.

    It beats every 30 s. A heartbeat from the future was written before the clock went back: a daemon that
    lives writes over it.
    """
    heartbeat = instance.get_daemon_heartbeats().get("SENSOR")
    return heartbeat is not None and abs(time.time() - heartbeat.timestamp) < HEARTBEAT_SECONDS
