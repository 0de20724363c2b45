"""One driver for a home: seen with real processes, which are ended as people and machines end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dagster._daemon.types import DaemonHeartbeat

from poleng_assets.defs.instance import daemon_is_running, open_instance
from poleng_assets.headless.dagster_processes import daemons, end_orphans
from poleng_assets.headless.home_lock import HomeTaken, acquire, hold_home
from poleng_assets.storage.home import Home

POLENG = Path(sys.executable).with_name("poleng")
DRIVE = """
import os, sys, time
from pathlib import Path
from poleng_assets.storage.home import Home
from poleng_assets.headless.home_lock import acquire
acquire(Home(Path(sys.argv[1])), sys.argv[2], inherited=sys.argv[3] == "exec")
if sys.argv[3] == "child":
    import subprocess
    subprocess.Popen(["sleep", "60"])  # returns when the child is another program
print("driving", flush=True)
if sys.argv[3] == "exec":
    os.execv("/bin/sleep", ["sleep", "60"])
time.sleep(60)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    """Start a process that drives the home; nothing of it is left afterwards."""
    started = []

    def start_one(command: str = "run-pending", way: str = "wait") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVE, str(home.root), command, way],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "driving\n"
        return process

    yield start_one
    for process in started:
        end_group(process)


def end_group(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def poleng(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(POLENG), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


# The lock


def test_a_home_is_driven_by_one_at_a_time_and_by_the_next_afterwards(home: Home):
    named = rf"`poleng run-pending`, process {os.getpid()}, since \d{{4}}-"
    with hold_home(home, "run-pending"), pytest.raises(HomeTaken, match=named):
        acquire(home, "retrain")
    with hold_home(home, "retrain"):
        assert home.lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.timed
def test_another_process_is_named(home: Home, start: Start):
    other = start("simulate")
    started = time.monotonic()
    with pytest.raises(HomeTaken) as caught, hold_home(home, "run-pending"):
        pass
    assert time.monotonic() - started < 0.5
    assert f"{home.root} is in use by `poleng simulate`, process {other.pid}" in str(caught.value)


def test_a_process_that_was_killed_drives_no_longer(home: Home, start: Start):
    other = start()
    other.kill()
    other.wait()
    with hold_home(home, "run-pending"):
        assert f'"pid": {os.getpid()}' in home.lock.read_text()


def test_the_children_of_a_killed_process_do_not_drive_on(home: Home, start: Start):
    other = start(way="child")
    other.kill()
    other.wait()
    with hold_home(home, "run-pending"):
        assert f'"pid": {os.getpid()}' in home.lock.read_text()


def test_the_lock_goes_on_in_what_the_process_becomes(home: Home, start: Start):
    other = start("dev", way="exec")
    with pytest.raises(HomeTaken) as caught, hold_home(home):
        pass
    assert caught.value.holder is not None
    assert caught.value.holder.is_daemon
    assert caught.value.holder.pid == other.pid
    other.kill()
    other.wait()
    with hold_home(home, "run-pending"):
        assert "run-pending" in home.lock.read_text()


def test_a_lock_that_nobody_has_written_into_is_one_all_the_same(home: Home, start: Start):
    start()
    home.lock.write_text('{"command": "sett')
    with pytest.raises(HomeTaken, match="is in use by another process"), hold_home(home, "run-pending"):
        pass


# The command line


@pytest.mark.parametrize(
    "words",
    [["run-pending"], ["retrain"], ["reset", "--confirm", "home"], ["rollback"], ["simulate", "clean"]],
)
def test_a_second_command_line_says_who_works_and_ends_at_once(home: Home, start: Start, words: list[str]):
    other = start("simulate")
    done = poleng(*words, "--home", home.root)
    assert done.returncode == 1
    assert f"is in use by `poleng simulate`, process {other.pid}" in done.stderr
    assert "Traceback" not in done.stderr
    assert home.landing("batches").is_dir()
    assert not home.warehouse.exists()


def test_reading_needs_no_lock(home: Home, start: Start):
    start("simulate")
    assert poleng("status", "--home", home.root).returncode == 0
    assert poleng("decisions", "--home", home.root).returncode == 0


def test_a_command_line_beside_the_ui_is_told_what_to_do_instead(home: Home, start: Start):
    other = start("dev", way="exec")
    done = poleng("run-pending", "--home", home.root)
    assert done.returncode == 1
    assert f"A Dagster daemon runs on {home.root} (process {other.pid})" in done.stderr
    assert "use the simulate jobs in its UI" in done.stderr


def test_the_ui_does_not_start_where_a_command_line_works(home: Home, start: Start):
    other = start("retrain")
    done = poleng("dev", "--home", home.root)
    assert done.returncode == 1
    assert f"is in use by `poleng retrain`, process {other.pid}" in done.stderr


def test_a_home_can_be_emptied_while_its_lock_is_held(home: Home):
    (home.contact_lists / "march.csv").write_text("people")
    done = poleng("reset", "--confirm", home.root.name, "--home", home.root)
    assert done.returncode == 0, done.stderr
    assert list(home.contact_lists.iterdir()) == []
    assert poleng("run-pending", "--home", home.root).returncode == 0


# Daemons


@pytest.mark.parametrize(("seconds_ago", "runs"), [(5, True), (200, False), (-5, True), (-90_000, False)])
def test_a_heartbeat_counts_for_a_minute_also_when_the_clock_went_back(
    home: Home, seconds_ago: float, runs: bool
):
    with open_instance(home) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, "SENSOR", "one", []))
        assert daemon_is_running(instance) is runs


@pytest.fixture
def served(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """``poleng dev`` in a session of its own, until its daemon works; nothing of it is left afterwards."""
    with (home.root / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [str(POLENG), "dev", "--home", str(home.root), "--port", "0"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    give_up = time.monotonic() + 90
    while not daemons(home):
        assert time.monotonic() < give_up, (home.root / "dev.log").read_text()
        assert process.poll() is None, (home.root / "dev.log").read_text()
        time.sleep(0.2)
    yield process
    end_group(process)


def test_a_daemon_that_outlives_its_parent_is_seen_and_ended(home: Home, served: subprocess.Popen[bytes]):
    (daemon,) = daemons(home)
    assert daemons(Home(home.root.parent)) == []
    assert f"process {served.pid}" in poleng("dev", "--home", home.root).stderr
    assert end_orphans(home) == []  # it has its parent
    served.kill()
    served.wait()
    assert daemons(home) == [daemon]
    done = poleng("run-pending", "--home", home.root)
    assert done.returncode == 1
    assert f"A Dagster daemon runs on {home.root} (process {daemon})" in done.stderr
    with hold_home(home, "dev"):  # as the next `poleng dev` does
        assert daemon in end_orphans(home)
    assert daemons(home) == []


def test_a_plain_dagster_daemon_is_seen_too(tmp_path: Path):
    folder = tmp_path / "checkout"
    home = Home(folder / "data").create()
    with open_instance(home):
        pass
    process = subprocess.Popen(
        [str(POLENG.with_name("dagster-daemon")), "run", "--empty-workspace"],
        env={**os.environ, "DAGSTER_HOME": str(home.dagster)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        give_up = time.monotonic() + 20
        while not daemons(home) and time.monotonic() < give_up:
            time.sleep(0.1)
        assert daemons(home) == [process.pid]
        assert end_orphans(home) == []  # somebody meant it to run
    finally:
        end_group(process)
    assert daemons(home) == []
