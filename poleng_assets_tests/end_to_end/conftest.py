"""The project as its users run it: processes, a port, files dropped into folders."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.models.registry import Registry
from poleng_assets.storage.home import CHECKOUT, Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.homes import new_home

POLENG = Path(sys.executable).with_name("poleng")
REAL_SURVEY = Path(os.environ.get("POLENG_REAL_DATA", CHECKOUT.parent / "shared" / "data" / "wvs"))


@pytest.fixture(scope="session")
def real_survey() -> Path:
    if not (REAL_SURVEY / "field_studies").is_dir():
        pytest.skip(f"the real survey data are not at {REAL_SURVEY} (set POLENG_REAL_DATA)")
    return REAL_SURVEY


@pytest.fixture(scope="module")
def small_survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The quick study is in force for a module, and for the processes that it starts; its survey's folder."""
    with quick_survey(tmp_path_factory.mktemp("small_survey")) as data:
        yield data


def poleng(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would; its output is text as a pipe gets it."""
    return subprocess.run(
        [str(POLENG), *map(str, arguments)], capture_output=True, text=True, timeout=570, check=False
    )


def wait_until(what: str, happened: Callable[[], bool], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if happened():
            return
        time.sleep(0.5)
    pytest.fail(f"after {seconds:.0f} s still not: {what}")


@dataclass
class Served:
    """A running ``poleng dev``: web server, daemon and code server of one home."""

    home: Home
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def landing(self) -> Landing:
        return Landing(self.home)

    def champion(self) -> int | None:
        version = Registry(self.home, load_study()).alias("champion")
        return version.version if version else None

    def has_list(self, batch: str) -> bool:
        return (self.home.contact_lists / f"{batch}.csv").exists()

    def running(self, job: str) -> list[dg.DagsterRun]:
        with open_instance(self.home) as instance:
            return runs_in_progress(instance, job)

    def press_ctrl_c(self) -> None:
        """Interrupt every process of the terminal, as a keyboard does, and wait for the end."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=90)

    def ask_to_end(self) -> None:
        """Ask the one process that was started to end, as ``kill`` and service managers do, and wait."""
        self.process.terminate()
        self.process.wait(timeout=90)


@contextmanager
def serve(home: Home) -> Iterator[Served]:
    """Start ``poleng dev`` in a process group of its own; nothing of it is left afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = new_home(home.root).root / "dev.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(POLENG), "dev", "--home", str(home.root), "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=CHECKOUT,
            # As what a script starts in the background has it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509
        )
    served = Served(home, f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(f"the UI answers, see {log}", lambda: _answers(served.url), 120)
        yield served
    finally:
        if process.poll() is None:
            served.ask_to_end()
        _kill_group(process.pid)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
