"""The lock of a home: one process at a time starts runs in it, a daemon or a command line.

The lock is a kernel lock (``flock``): it is released when its process ends for any reason, and needs no
cleanup. The file contains the holder, for the error message of other processes. The children of
``poleng dev`` do not inherit it: ``headless/dagster_processes.py`` finds a daemon that outlives its killed
parent.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from poleng_assets.storage.home import Home

DAEMON = "dev"


@dataclass(frozen=True)
class LockHolder:
    """A process that runs a home.

    Attributes:
        command: its command, such as ``run-pending`` or ``dev``.
        since: its start as text; empty if unknown.
    """

    command: str
    pid: int
    since: str = ""

    @property
    def is_daemon(self) -> bool:
        """Whether it is ``poleng dev``, which runs until it is stopped."""
        return self.command == DAEMON

    def in_words(self) -> str:
        """Return a description for error messages."""
        name = "the UI with its daemon (`poleng dev`)" if self.is_daemon else f"`poleng {self.command}`"
        return f"{name}, process {self.pid}{f', since {self.since}' if self.since else ''}"


class HomeTaken(RuntimeError):
    """Another process runs the home; the message names it, ``holder`` describes it if known."""

    def __init__(self, home: Home, holder: LockHolder | None) -> None:
        process = holder.in_words() if holder else "another process"
        super().__init__(f"{home.root} is in use by {process}, and both would do the same work.")
        self.holder = holder


@contextmanager
def hold_home(home: Home, command: str | None = None) -> Iterator[None]:
    """Hold the lock of a home until the end of the block.

    Args:
        command: shown to other processes; by default the command of this process.

    Raises:
        HomeTaken: another process holds it; raised at once.
    """
    descriptor = acquire(home, command or _this_command())
    try:
        yield
    finally:
        os.close(descriptor)


def acquire(home: Home, command: str, *, inherited: bool = False) -> int:
    """Acquire the lock of a home; return its descriptor, which holds it until it is closed.

    Args:
        inherited: keep the lock through ``os.exec*``, which keeps the process id.

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
    holder = LockHolder(command, os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(asdict(holder)).encode())
    os.set_inheritable(descriptor, inherited)
    return descriptor


def _written(lock: Path) -> LockHolder | None:
    """Return the holder in the lock file, None if it is not written yet."""
    try:
        return LockHolder(**json.loads(lock.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None


def _this_command() -> str:
    """Return the command of this process without its arguments: a reason may name people."""
    command = "".join(sys.argv[1:2])
    return command if command and not command.startswith("-") else Path(sys.argv[0]).name
