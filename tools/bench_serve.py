"""Measure ``poleng serve`` under load, and print the table.

    python tools/bench_serve.py [--data DIR] [--home HOME] [--seconds 10] [--keep FILE]

HOME is a home whose champion serves (it is read only); by default one is made of the founding study of
DIR, which is laid out as ``poleng simulate --data`` wants it, or of made-up people. A real server is
started on a free port of this machine. Each line is a closed loop: so many connections, each of which
asks again as soon as it has its answer, for so many seconds. Server and clients share the machine's cores.

The last lines leave HTTP out: what reading a body and answering it take in one thread of this process.
``--keep`` writes all figures to a file as JSON. Nothing here has a bar; the exit code is 1 when a request
was not answered. It takes two minutes when a home is given, four otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from poleng_assets.core.features.codes import to_table
from poleng_assets.serving.champion_watcher import Watch
from poleng_assets.serving.requests import Reader
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study

POLENG = Path(sys.executable).with_name("poleng")
FOUNDING, BATCH = "founding_study", "clean_batch_1"
WARM_UP_SECONDS = 1.0
ALONE_TIMES = 300


@dataclass(frozen=True)
class Load:
    """One kind of load: people in a request, connections, and whether reasons are wanted."""

    rows: int
    connections: int
    reasons: bool = False

    @property
    def name(self) -> str:
        """The load in words."""
        people = "1 person" if self.rows == 1 else f"{self.rows} people"
        several = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{people}{' with reasons' if self.reasons else ''}, {several}"


LOADS = (
    Load(1, 1),
    Load(1, 8),
    Load(100, 1),
    Load(100, 8),
    Load(1000, 1),
    Load(1, 1, reasons=True),
    Load(100, 1, reasons=True),
)


@dataclass(frozen=True)
class Figures:
    """What one load came to; times are in milliseconds."""

    load: str
    requests_per_second: float
    people_per_second: float
    p50: float
    p95: float
    p99: float
    refused: int


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="field_studies/ and batches/ of a survey")
    parser.add_argument("--home", type=Path, help="a home whose champion serves")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each load")
    parser.add_argument("--keep", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    with tempfile.TemporaryDirectory() as folder:
        data = asked.data or _made_up(Path(folder) / "data")
        home = Home(asked.home.resolve()) if asked.home else _founded(Path(folder) / "home", data, console)
        people = _people(data)
        with _served(home) as (url, ready_seconds):
            console.print(f"{url} was ready after {ready_seconds:.1f} s")
            found = [asyncio.run(_measure(url, load, people, asked.seconds)) for load in LOADS]
        alone = _without_http(home, people)
    console.print(_table([*found, *alone]))
    if asked.keep:
        content = {"ready_seconds": ready_seconds, "loads": [asdict(one) for one in [*found, *alone]]}
        asked.keep.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return 1 if any(one.refused for one in found) else 0


def _made_up(folder: Path) -> Path:
    write_scenario_data(load_study(), folder)
    return folder


def _founded(folder: Path, data: Path, console: Console) -> Home:
    """Make a home in which the founding study's model serves."""
    (study,) = (data / "field_studies").glob(f"{FOUNDING}.*")
    console.print(f"A champion is made of {study} ...")
    for command in (["submit", "study", str(study)], ["settle"]):
        subprocess.run([str(POLENG), *command, "--home", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return Home(folder)


def _people(data: Path) -> list[dict[str, Any]]:
    """Return people of a batch as a caller would send them: codes as numbers, null where there is none."""
    (path,) = (data / "batches").glob(f"{BATCH}.*")
    rows = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    study = load_study()
    table = to_table(rows[[study.id, *study.feature_names]])
    return [
        {name: _as_number(value) if name != study.id else str(value) for name, value in row.items()}
        for row in table.to_pylist()
    ]


def _as_number(value: Any) -> int | None:
    return None if pd.isna(value) or value == "" else int(float(value))


@contextmanager
def _served(home: Home) -> Iterator[tuple[str, float]]:
    """Start the server; yield its address and how long it took until somebody could be scored."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(POLENG), "serve", "--home", str(home.root), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "POLENG_SERVE_TOKEN"},
    )
    try:
        assert process.stdout is not None
        url = next(
            found[0] for line in process.stdout if (found := re.findall(r"http://[0-9.:]+[0-9]", line))
        )
        while httpx2.get(f"{url}/health").status_code != 200:
            if time.perf_counter() - started > 120:
                raise TimeoutError(f"nobody can be scored: {httpx2.get(f'{url}/health').text}")
            time.sleep(0.1)
        yield url, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


async def _measure(url: str, load: Load, people: list[dict[str, Any]], seconds: float) -> Figures:
    """Ask in a closed loop; what the first second brings is not counted."""
    bodies = _bodies(load, people)
    times: list[float] = []
    refused = 0
    begin = time.perf_counter() + WARM_UP_SECONDS
    end = begin + seconds

    async def keep_asking(asking: httpx2.AsyncClient, place: int) -> None:
        nonlocal refused
        while (started := time.perf_counter()) < end:
            answer = await asking.post(
                "/predict", content=bodies[place % len(bodies)], headers={"content-type": "application/json"}
            )
            if answer.status_code != 200:
                refused += 1
            if started >= begin:
                times.append(time.perf_counter() - started)
            place += 1

    limits = httpx2.Limits(max_connections=load.connections)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=60.0) as asking:
        await asyncio.gather(*(keep_asking(asking, place) for place in range(load.connections)))
    return _figures(load.name, load.rows, times, seconds, refused)


def _bodies(load: Load, people: list[dict[str, Any]]) -> list[bytes]:
    """Return some different requests: nobody asks for the same person all day."""
    while len(people) < load.rows:
        people = people + people
    starts = range(0, len(people) - load.rows + 1, load.rows)[:50]
    return [
        json.dumps({"respondents": people[start : start + load.rows], "reasons": load.reasons}).encode()
        for start in starts
    ]


def _without_http(home: Home, people: list[dict[str, Any]]) -> list[Figures]:
    """Measure what reading and answering take, in this process and one after the other."""
    study = load_study()
    watch = Watch(home, study)
    watch.look()
    champion = watch.seen.champion
    assert champion is not None, watch.seen.doubt
    reader = Reader(study, 1000)
    found = []
    for rows in (1, 100):
        bodies = _bodies(Load(rows, 1), people)
        asked = [reader.read(body) for body in bodies]
        for words, do in (
            ("a body read", lambda place, bodies=bodies: reader.read(bodies[place % len(bodies)])),
            ("answered", lambda place, asked=asked: champion.answer(asked[place % len(asked)])),
        ):
            times = _times(do)
            name = f"without HTTP: {words}, {'1 person' if rows == 1 else f'{rows} people'}"
            found.append(_figures(name, rows, times, sum(times), 0))
    watch.stop()
    return found


def _times(do: Callable[[int], object]) -> list[float]:
    times = []
    for place in range(ALONE_TIMES):
        started = time.perf_counter()
        do(place)
        times.append(time.perf_counter() - started)
    return times[ALONE_TIMES // 10 :]


def _figures(name: str, rows: int, times: list[float], seconds: float, refused: int) -> Figures:
    p50, p95, p99 = (float(one) * 1000 for one in np.percentile(times, [50, 95, 99]))
    per_second = len(times) / seconds
    return Figures(name, per_second, per_second * rows, p50, p95, p99, refused)


def _table(found: list[Figures]) -> Table:
    table = Table("load", "requests/s", "people/s", "p50 ms", "p95 ms", "p99 ms", "not answered")
    for one in found:
        table.add_row(
            one.load,
            f"{one.requests_per_second:,.1f}",
            f"{one.people_per_second:,.0f}",
            f"{one.p50:.1f}",
            f"{one.p95:.1f}",
            f"{one.p99:.1f}",
            str(one.refused),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
