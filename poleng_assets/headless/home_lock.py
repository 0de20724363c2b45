"""The lock of a home: one process at a time starts runs in it, a daemon or a command line.

The lock is the kernel's (``flock``): it ends with the process that holds it, however that ends, and
nothing is left to be cleaned up. Who holds it is written into the file, for the one that has to wait.
The children of ``poleng dev`` do not inherit it: a daemon that outlives its killed parent is found by
``headless/dagster_processes.py``.
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
    """A process that drives a home.

    Attributes:
        command: what was asked for, such as ``settle`` or ``dev``.
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
    """Another process drives the home; the message names it, and ``holder`` is it, if it said so."""

    def __init__(self, home: Home, holder: LockHolder | None) -> None:
        who = holder.in_words() if holder else "another process"
        super().__init__(f"{home.root} is worked on by {who}: both would do the same work twice.")
        self.holder = holder


@contextmanager
def hold_home(home: Home, command: str | None = None) -> Iterator[None]:
    """Be the one that drives a home, until the end of the block.

    Args:
        command: what to tell others; by default the command of this process.

    Raises:
        HomeTaken: at once, when another process drives it.
    """
    descriptor = acquire(home, command or _this_command())
    try:
        yield
    finally:
        os.close(descriptor)


def acquire(home: Home, command: str, *, inherited: bool = False) -> int:
    """Take the lock of a home; return its descriptor, which holds it until it is closed.

    Args:
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
    holder = LockHolder(command, os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(asdict(holder)).encode())
    os.set_inheritable(descriptor, inherited)
    return descriptor


def _written(lock: Path) -> LockHolder | None:
    try:
        return LockHolder(**json.loads(lock.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None


def _this_command() -> str:
    """Return the command of this process, without what was said to it: a reason may name people."""
    command = "".join(sys.argv[1:2])
    return command if command and not command.startswith("-") else Path(sys.argv[0]).name
