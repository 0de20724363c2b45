"""Who drives a home: one process at a time starts runs in it, a daemon or a command line.

The lock is the kernel's (``flock``): it ends with the process that holds it, however that ends, and
nothing is left to be cleaned up. Who holds it is written into the file, for the one that has to wait.
The children of ``poleng dev`` do not inherit it. A daemon that outlives its killed parent, and one that
was started by a plain ``dagster dev``, are found among the processes of this machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from poleng_assets.storage.home import Home

DAEMON = "dev"
# Of a plain `dagster dev` and of `poleng dev`.
_WEB_SERVERS = (["-m", "dagster_webserver"], ["-m", "poleng_assets.serving.dagster_ui"])


@dataclass(frozen=True)
class Driver:
    """A process that drives a home.

    Attributes:
        command: what was asked for, such as ``settle`` or ``dev``.
        pid: of the process.
        since: when it began, in words; empty when it is not known.
    """

    command: str
    pid: int
    since: str = ""

    @property
    def is_daemon(self) -> bool:
        """Whether it drives the home until it is stopped."""
        return self.command == DAEMON

    def in_words(self) -> str:
        """Return who it is, for the one that has to wait."""
        what = "the UI with its daemon (`poleng dev`)" if self.is_daemon else f"`poleng {self.command}`"
        return f"{what}, process {self.pid}{f', since {self.since}' if self.since else ''}"


class HomeTaken(RuntimeError):
    """Another process drives the home; the message names it, and ``driver`` is it, if it said so."""

    def __init__(self, home: Home, driver: Driver | None) -> None:
        who = driver.in_words() if driver else "another process"
        super().__init__(f"{home.root} is worked on by {who}: both would do the same work twice.")
        self.driver = driver


@contextmanager
def driving(home: Home, command: str | None = None) -> Iterator[None]:
    """Be the one that drives a home, until the end of the block.

    Args:
        home: which exists.
        command: what to tell others; by default the command of this process.

    Raises:
        HomeTaken: at once, when another process drives it.
    """
    descriptor = take(home, command or _this_command())
    try:
        yield
    finally:
        os.close(descriptor)


def take(home: Home, command: str, *, inherited: bool = False) -> int:
    """Take the lock of a home; return its descriptor, which holds it until it is closed.

    Args:
        home: which exists.
        command: what to tell others.
        inherited: the lock outlives ``os.exec*``, which keeps the process and its number.

    Raises:
        HomeTaken: another process has it.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise HomeTaken(home, _written(home.lock)) from None
    except BaseException:
        os.close(descriptor)
        raise
    driver = Driver(command, os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(asdict(driver)).encode())
    os.set_inheritable(descriptor, inherited)
    return descriptor


def daemons(home: Home) -> list[int]:
    """Return the processes of this machine that are a Dagster daemon of a home, orphans too.

    Processes of other users cannot be looked into, and are not seen.
    """
    return [process.pid for process in _services(home) if _is_daemon(process.cmdline())]


def end_orphans(home: Home, patience_seconds: float = 20.0) -> list[int]:
    """End the daemon and web server that a killed ``poleng dev`` or ``dagster dev`` has left; return them.

    They were started by a process that would have ended them, and is gone. Left alone they would go on
    beside the next ones, with the code of then, and keep the port.
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
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            wanted = _is_daemon(words) or words[1:3] in _WEB_SERVERS
            if wanted and process.status() != psutil.STATUS_ZOMBIE and _serves(process, home):
                found.append(process)
    return found


def _is_daemon(words: list[str]) -> bool:
    named = any(Path(word).name == "dagster-daemon" for word in words[:2])
    return named or words[1:3] == ["-m", "dagster._daemon"]


def _is_orphan(process: psutil.Process) -> bool:
    """Whether ``poleng dev`` or ``dagster dev`` started a process, which alone say this, and is gone."""
    parent = process.parent()
    return "--shutdown-pipe" in process.cmdline() and (
        parent is None or not {"dev", "poleng_assets.serving.dev"} & set(parent.cmdline())
    )


def _serves(process: psutil.Process, home: Home) -> bool:
    """Whether the history of a process is that of a home: its surroundings or its settings name it."""
    named = process.environ().get("DAGSTER_HOME")
    if named and Path(named).resolve() == home.dagster:
        return True
    # ``dagster dev`` hands its settings on as JSON; a relative place in them is one of its folder.
    settings = " ".join(process.cmdline())
    places = (home.dagster, os.path.relpath(home.dagster, process.cwd()))
    return any(f"base_dir: {place}\\n" in settings for place in places)


def _written(lock: Path) -> Driver | None:
    """Return who wrote into the lock, None when it has not done so yet."""
    try:
        return Driver(**json.loads(lock.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None


def _this_command() -> str:
    """Return the command of this process, without what was said to it: a reason may name people."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return " ".join(words) or Path(sys.argv[0]).name
