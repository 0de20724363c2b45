"""Whether a process still writes to a file, and whether the file looks complete."""

import errno
import fcntl
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from poleng_assets.storage.dropped_files import known_suffix

# On network file systems the kernel does not know the writers on other machines: a refused lease means
# nothing.
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "afs", "lustre", "glusterfs")
_BLOCK = 1 << 16
_MOUNTS = Path("/proc/self/mountinfo")


def is_open_for_writing(handle: int) -> bool:
    """Return whether any process of this machine has a file open for writing.

    The kernel grants a read lease only if there is no writer
    (https://man7.org/linux/man-pages/man2/F_GETLEASE.2const.html). Where it grants none (a network disk, a
    file of another user), the accessible processes are inspected. Writers on other machines are not found.

    Args:
        handle: of the file, opened for reading only.
    """
    status = os.fstat(handle)
    answer = None if _on_network(status.st_dev) else _lease_refused(handle)
    return answer if answer is not None else next(_writers(status), None) is not None


def name_writers(path: Path) -> str:
    """Return the names of the processes that have a file open for writing, as far as accessible."""
    try:
        named = [f"{_program(process)} ({process})" for process in _writers(path.stat())]
    except OSError:
        named = []
    return ", ".join(named) or "another process"


def ends_early(path: Path) -> bool:
    """Return whether a file looks incomplete: no line end at its end, or a Parquet without footer.

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
    # UTF-16 and UTF-32 have NULs around a line end; old programs write Ctrl-Z at the end.
    has_lines = b"\n" in begin or b"\r" in begin
    return has_lines and not end.rstrip(b"\0\x1a").endswith((b"\n", b"\r"))


def mount_points() -> frozenset[str]:
    """Return the mount points, including bound files; empty if unknown."""
    return frozenset(path for _, path, _ in _mounts())


def _lease_refused(handle: int) -> bool | None:
    """Return whether a read lease is refused because of a writer; None if leases are unavailable."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        # A process that opens the file now is not delayed. The kernel sends a signal: not SIGIO, which would
        # end the process.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _writers(status: os.stat_result) -> Iterator[int]:
    """Yield the accessible processes that have a file open for writing."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            handles = list((process / "fd").iterdir())
        except OSError:
            continue  # of another user, or ended
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
    """Yield device, path and file system type of each mount, in the format of proc(5)."""
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        path = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n")
        yield fields[2], path.replace("\\134", "\\"), after.split(" ")[0]
