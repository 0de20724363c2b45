"""Nobody is told, nothing strange is loaded: a whole scenario without a network, under watch.

The scenario runs in a network namespace that has loopback and no route. The kernel counts each packet that
found no way out (``OutNoRoutes`` of ``/proc/net/snmp`` and ``snmp6``), name look-ups included. Beside it,
every Python process writes down what its audit hooks tell of connections to anywhere but this machine, and
of classes that a pickle asked for (https://docs.python.org/3/library/audit_events.html).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Loaded by every Python process that starts with its folder on the path.
WATCHMAN = """
import os, sys

_told = os.environ["POLENG_WATCHED"]
_here = (None, "127.0.0.1", "::1", "localhost", "0.0.0.0")

def _tell(words):
    with open(_told, "a", encoding="utf-8") as file:
        file.write(words + "\\n")

def _from():
    frame, names = sys._getframe(2), []
    while frame is not None and len(names) < 12:
        names.append(frame.f_code.co_filename.rsplit("site-packages/", 1)[-1] + ":" + str(frame.f_lineno))
        frame = frame.f_back
    return " < ".join(names)

def _watch(event, arguments):
    if event == "pickle.find_class":
        _tell(f"pickle {arguments[0]}.{arguments[1]} {_from()}")
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in _here:
            _tell(f"connect {address} {_from()}")
    elif event == "socket.getaddrinfo" and arguments[0] not in _here:
        _tell(f"lookup {arguments[0]} {_from()}")

sys.addaudithook(_watch)
"""
_NAMESPACE = """
ip link set lo up
"$@"
code=$?
grep '^Ip:' /proc/net/snmp > "$POLENG_COUNTED"
grep Ip6OutNoRoutes /proc/net/snmp6 >> "$POLENG_COUNTED"
grep ':' /proc/net/dev >> "$POLENG_COUNTED"
exit $code
"""


@dataclass(frozen=True)
class Seclusion:
    """What came of a command that ran without a network.

    Attributes:
        exit_code: of the command.
        output: what it printed.
        no_routes: packets and look-ups that tried to leave.
        sent: bytes that left by any interface but loopback.
        reached_for: connections and look-ups that Python processes tried, with where in the code.
        unpickled: classes that a pickle asked for, with where in the code.
    """

    exit_code: int
    output: str
    no_routes: int
    sent: int
    reached_for: tuple[str, ...]
    unpickled: tuple[str, ...]

    @property
    def secluded(self) -> bool:
        """Whether it came to its end, sent nothing, tried nothing, and loaded no pickle."""
        return not (self.exit_code or self.no_routes or self.sent or self.reached_for or self.unpickled)

    def summary(self) -> str:
        """Tell it in a line."""
        return (
            f"without a network: exit code {self.exit_code}, {self.sent} bytes left the machine, "
            f"{self.no_routes + len(self.reached_for)} attempts to send some, "
            f"{len(self.unpickled)} classes asked for by a pickle"
        )


def cannot_seclude() -> str:
    """Say why no namespace can be made here; empty when one can."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "unshare and ip are needed (Debian packages util-linux and iproute2)"
    tried = subprocess.run(
        ["unshare", "-rn" if os.getuid() else "-n", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip()


def run_secluded(command: Sequence[str | Path], folder: Path, **environment: str) -> Seclusion:
    """Run a command without a network and under watch.

    Args:
        command: and its arguments.
        folder: an empty one for what is written down.
        environment: variables that the command gets besides those of this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(WATCHMAN, encoding="utf-8")
    told, counted = folder / "told.txt", folder / "counted.txt"
    told.touch()
    done = subprocess.run(
        ["unshare", "-rn" if os.getuid() else "-n", "bash", "-c", _NAMESPACE, "bash", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **environment,
            "PYTHONPATH": str(folder),
            "POLENG_WATCHED": str(told),
            "POLENG_COUNTED": str(counted),
        },
    )
    lines = counted.read_text(encoding="utf-8").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    no_routes = int(values[names.index("OutNoRoutes")])
    no_routes += sum(int(line.split()[1]) for line in lines if line.startswith("Ip6OutNoRoutes"))
    interfaces = [line.split(":") for line in lines if ":" in line and not line.startswith("Ip")]
    sent = sum(int(figures.split()[8]) for name, figures in interfaces if name.strip() != "lo")
    seen = told.read_text(encoding="utf-8").splitlines()
    return Seclusion(
        done.returncode,
        done.stdout + done.stderr,
        no_routes,
        sent,
        tuple(line for line in seen if not line.startswith("pickle")),
        tuple(line for line in seen if line.startswith("pickle")),
    )
