"""Whether somebody still writes to a file, and whether its content ends where a whole one would."""

import errno
import fcntl
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from poleng_assets.storage.dropped_files import known_suffix

# There the kernel answers for itself, not for the server and the other machines: a lease that is refused
# says nothing.
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "afs", "lustre", "glusterfs")
_BLOCK = 1 << 16
_MOUNTS = Path("/proc/self/mountinfo")


def is_open_for_writing(handle: int) -> bool:
    """Return whether a process of this machine has a file open for writing, whoever it belongs to.

    The kernel is asked for a read lease, which it grants only when nobody has
    (https://man7.org/linux/man-pages/man2/F_GETLEASE.2const.html). Where it gives none (a network disk, a
    file of somebody else), the processes that may be looked into are. Writers on other machines are not seen.

    Args:
        handle: of the file, opened for reading only.
    """
    status = os.fstat(handle)
    answer = None if _on_network(status.st_dev) else _lease_refused(handle)
    return answer if answer is not None else next(_writers(status), None) is not None


def writers_in_words(path: Path) -> str:
    """Name the processes that have a file open for writing, as far as they may be looked into."""
    try:
        named = [f"{_program(process)} ({process})" for process in _writers(path.stat())]
    except OSError:
        named = []
    return ", ".join(named) or "another process"


def ends_early(path: Path) -> bool:
    """Return whether a file ends where a whole one seldom does: no end of the last line, half a Parquet.

    Raises:
        OSError: the file cannot be read.
    """
    suffix = known_suffix(path.name)
    if suffix not in (".csv", ".parquet"):
        return False
    with path.open("rb") as file:
        begin = file.read(_BLOCK)
        file.seek(-min(8, file.seek(0, io.SEEK_END)), io.SEEK_END)
        end = file.read()
    if suffix == ".parquet":
        return begin.startswith(b"PAR1") and not end.endswith(b"PAR1")
    # UTF-16 and UTF-32 put NULs around a line end; old programs write Ctrl-Z behind the last one.
    has_lines = b"\n" in begin or b"\r" in begin
    return has_lines and not end.rstrip(b"\0\x1a").endswith((b"\n", b"\r"))


def mount_points() -> frozenset[str]:
    """Return what is mounted where, bound files too; nothing where the system does not tell."""
    return frozenset(path for _, path, _ in _mounts())


def _lease_refused(handle: int) -> bool | None:
    """Return whether the kernel refuses a read lease because of a writer; None when it gives none to us."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        # Who opens the file in this very moment is let in at once. The kernel tells us by a signal: not by
        # SIGIO, which would end the process.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _writers(status: os.stat_result) -> Iterator[int]:
    """Yield the processes that have a file open for writing, of those that may be looked into."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            handles = list((process / "fd").iterdir())
        except OSError:
            continue  # of somebody else, or ended
        if any(_writes(process, handle, status) for handle in handles):
            yield int(process.name)


def _writes(process: Path, handle: Path, status: os.stat_result) -> bool:
    try:
        other = handle.stat()
        if (other.st_dev, other.st_ino) != (status.st_dev, status.st_ino):
            return False
        lines = (process / "fdinfo" / handle.name).read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split()[1] for line in lines if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def _program(process: int) -> str:
    return (Path("/proc") / str(process) / "comm").read_text().strip()


def _on_network(device: int) -> bool:
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(kind.startswith(_NETWORK) for other, _, kind in _mounts() if other == number)


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Yield the device, the place and the file system of each mount; proc(5) tells how they are written."""
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        path = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n")
        yield fields[2], path.replace("\\134", "\\"), after.split(" ")[0]
