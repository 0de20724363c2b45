"""Each measurement is a process of its own: its whole time, the peak of its memory, and what it found.

The process that starts them imports nothing large: a child begins with the peak of its parent on its
account (Linux keeps ``ru_maxrss`` over ``exec``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HOURS = 3600.0
WORDS_SHOWN = 300


class MeasurementFailed(RuntimeError):
    """A measured process ended with an error, or did not end in time; the message says which and why."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: that it and its children computed, on all cores together.
        peak_gb: the most memory that it, or one of its children, held at a time.
        found: what it measured by itself.
    """

    seconds: float
    cpu_seconds: float
    peak_gb: float
    found: Mapping[str, Any]


def run_command(
    command: Sequence[object],
    *,
    folder: Path = CHECKOUT,
    environment: Mapping[str, str] | None = None,
    at_most: float = HOURS,
    what: str = "",
) -> Finished:
    """Run a command to its end.

    Args:
        command: and its arguments: text, or paths.
        folder: to run it in.
        environment: variables besides those of this process.
        at_most: seconds, after which it is killed.
        what: to call it when it fails; by default the command itself.

    Raises:
        MeasurementFailed: its exit code is not 0, or it took too long.
    """
    # Nobody is to be told of what happens in a measurement.
    variables = {**os.environ, "POLENG_NOTIFY": "", "PYTHONWARNINGS": "ignore", **(environment or {})}
    words = [str(part) for part in command]
    with tempfile.TemporaryFile() as told:
        started = time.perf_counter()
        process = subprocess.Popen(words, cwd=folder, env=variables, stdout=told, stderr=subprocess.STDOUT)
        late = threading.Timer(at_most, process.kill)
        late.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            late.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            told.seek(0)
            last = told.read().decode(errors="replace").strip()[-WORDS_SHOWN:]
            raise MeasurementFailed(
                f"{what or _short(words)}: exit code {process.returncode} after {seconds:.0f} s: {last}"
            )
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e9, {})


def run_task(task: str, *, at_most: float = HOURS, **arguments: Any) -> Finished:
    """Run a function of ``tasks.py`` in a process of its own.

    Args:
        task: its name.
        at_most: seconds, after which it is killed.
        arguments: of the function: plain values, and paths as text.

    Raises:
        MeasurementFailed: as for :func:`run_command`.
    """
    with tempfile.TemporaryDirectory(prefix="bench_") as folder:
        result = Path(folder) / "found.json"
        given = json.dumps(arguments, default=str)
        command = [sys.executable, "-m", "tools.bench.tasks", task, given, result]
        ended = run_command(command, at_most=at_most, what=task)
        found = json.loads(result.read_text(encoding="utf-8"))
    return dataclasses.replace(ended, found=found)


def repeated(times: int, once: Callable[[], Finished]) -> list[Finished]:
    """Measure so many times, one after the other."""
    return [once() for _ in range(times)]


def alternated(
    times: int, once: Callable[[], Finished], other: Callable[[], Finished]
) -> tuple[list[Finished], list[Finished]]:
    """Measure two things so many times in turns: what else the machine does hits both alike."""
    pairs = [(once(), other()) for _ in range(times)]
    return [one for one, _ in pairs], [two for _, two in pairs]


def middle_ratio(runs: Sequence[Finished], others: Sequence[Finished]) -> float:
    """Return the median of how long the ones took, each beside the other of its turn."""
    return float(
        median(one.found["seconds"] / other.found["seconds"] for one, other in zip(runs, others, strict=True))
    )


def middle_cpu_ratio(runs: Sequence[Finished], others: Sequence[Finished]) -> float:
    """Return the median of how much the ones computed, whole processes, each beside the other of its turn."""
    return float(median(one.cpu_seconds / other.cpu_seconds for one, other in zip(runs, others, strict=True)))


def middle(runs: Sequence[Finished], name: str = "seconds") -> float:
    """Return the median of what the processes found under a name."""
    return float(median(float(run.found[name]) for run in runs))


def middle_whole(runs: Sequence[Finished]) -> float:
    """Return the median seconds of whole processes."""
    return float(median(run.seconds for run in runs))


def middle_cpu(runs: Sequence[Finished]) -> float:
    """Return the median seconds that whole processes computed."""
    return float(median(run.cpu_seconds for run in runs))


def highest_peak(runs: Sequence[Finished]) -> float:
    """Return the highest peak of memory in GB: a memory that is too small once is too small."""
    return max(run.peak_gb for run in runs)


def _short(words: Sequence[str]) -> str:
    return " ".join([Path(words[0]).name, *words[1:3]])
