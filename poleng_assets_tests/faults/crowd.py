"""A crowd at the door: many batches at once, beside a training and a person who holds the warehouse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pandas as pd

from poleng_assets.core.ingestion.row_accounting import Balance, balance
from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.jobs import RETRAIN_JOB
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.simulation.population import synthesise
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.end_to_end.conftest import Served, serve
from poleng_assets_tests.faults.quick_study import ask_for_a_long_training, give_study, quick_survey
from poleng_assets_tests.homes import founded_home

ROWS = 60
POLL_SECONDS = 0.5
# A person's shell: it opens the file as soon as it can, says so, and keeps it until told to let go.
HOLDER = """
import duckdb, sys, time
while True:
    try:
        con = duckdb.connect(sys.argv[1])
        break
    except duckdb.IOException:
        time.sleep(0.05)
print("held", flush=True)
sys.stdin.readline()
con.close()
"""


@dataclass(frozen=True)
class Crowd:
    """How it went.

    Attributes:
        dropped: names of the batches, in the order in which they were dropped.
        taken_in: names in the order in which they were taken in.
        listed: how many have a contact list.
        failed: jobs whose run failed, with the partition.
        slots: places of the pool still taken at the end.
        waited: what a run said while the person held the warehouse; empty when it said nothing.
        overlapped: batches that were taken in while the model was being trained.
        balance: of the rows of all batches.
        seconds: from the drop to the last list.
    """

    dropped: tuple[str, ...]
    taken_in: tuple[str, ...]
    listed: int
    failed: tuple[str, ...]
    slots: int
    waited: str
    overlapped: int
    balance: Balance
    seconds: float

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        found = []
        if self.listed < len(self.dropped):
            found.append(f"{len(self.dropped) - self.listed} batches have no list")
        if self.taken_in != self.dropped:
            found.append(f"they were not taken in in the order of their dropping: {self.taken_in}")
        if self.failed:
            found.append(f"runs failed: {', '.join(self.failed)}")
        if self.slots:
            found.append(f"{self.slots} places of the pool are still taken")
        if "locked by" not in self.waited:
            found.append("no run said that it waits for the warehouse, and for whom")
        if not self.overlapped:
            found.append("no batch was taken in while the model was being trained")
        if self.balance.lost or self.balance.waiting:
            found.append(self.balance.in_words())
        return found

    def summary(self) -> str:
        """Tell it in a line."""
        return (
            f"{len(self.dropped)} batches at once: {self.listed} lists in {self.seconds:.0f} s, "
            f"{self.overlapped} of them while a model was trained; {self.balance.lost} rows lost; "
            f"faults: {'; '.join(self.faults) or 'none'}"
        )


def run_crowd(
    folder: Path, *, batches: int, held_seconds: float, patience: float, rounds: int = 6000
) -> Crowd:
    """Start a daemon on a founded home, and let a crowd come, see :func:`let_a_crowd_come`.

    Args:
        folder: an empty one to work in.
        batches: how many.
        held_seconds: for which a person's shell keeps the warehouse open; longer when no run came to it yet.
        patience: seconds after which the missing lists are counted as missing.
        rounds: of boosting, in the training that goes on meanwhile.
    """
    with quick_survey(folder) as data:
        home = founded_home(folder / "home", data)
        with serve(home) as served:
            return let_a_crowd_come(
                served, data, batches=batches, held_seconds=held_seconds, patience=patience, rounds=rounds
            )


def let_a_crowd_come(
    served: Served, data: Path, *, batches: int, held_seconds: float, patience: float, rounds: int
) -> Crowd:
    """Give a daemon a batch that is held and a new field study, and drop the crowd once a training runs.

    Args:
        served: of a home with a champion.
        data: the survey of the quick study in force, which is asked to train for long from now on.
        batches: how many.
        held_seconds: for which a person's shell keeps the warehouse open; longer when no run came to it yet.
        patience: seconds after which the missing lists are counted as missing.
        rounds: of boosting, in the training that goes on meanwhile.
    """
    home, study, began = served.home, load_study(), time.time()
    dropped = _write_batches(study, data.parent / "crowd", batches)
    ask_for_a_long_training(Path(os.environ["POLENG_STUDY"]), rounds)
    give_study(home)
    for kind, name in (("field_studies", "followup_study"), ("batches", "drift_batch_1")):
        served.landing.submit(kind, data / kind / f"{name}.parquet")  # type: ignore[arg-type]
    _wait(lambda: bool(served.running(RETRAIN_JOB)), 180)
    came = time.time()
    # One rename each: they are all there within the same second, and their times tell the order.
    for name in dropped:
        file = data.parent / "crowd" / f"{name}.parquet"
        os.utime(file)
        shutil.move(file, home.landing("batches"))
        time.sleep(0.002)
    waited = _hold(home, held_seconds)
    _wait(lambda: _all_done(home, dropped), patience)
    return _look(home, study, dropped, waited, began, time.time() - came)


def _write_batches(study: Study, folder: Path, count: int) -> tuple[str, ...]:
    folder.mkdir(parents=True)
    people = synthesise(study, rows=count * ROWS, seed=91, part="clean").drop(columns=study.target.name)
    # Names in another order than the dropping: nothing may sort by name.
    names = [f"crowd_{(number * 37) % count:03d}" for number in range(count)]
    for number, name in enumerate(names):
        part: pd.DataFrame = people.iloc[number * ROWS : (number + 1) * ROWS]
        part.to_parquet(folder / f"{name}.parquet", index=False)
    return tuple(names)


def _hold(home: Home, seconds: float) -> str:
    """Keep the warehouse open as a person would; return what a run said meanwhile.

    On a busy machine a run may take longer to begin: it is waited for, four times as long at most.
    """
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.warehouse)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        began, said = time.monotonic(), ""
        while time.monotonic() < began + (seconds if said else 4 * seconds):
            time.sleep(POLL_SECONDS)
            said = said or _said_to_wait(home)
        shell.communicate("\n", timeout=30)
    return said


def _said_to_wait(home: Home) -> str:
    with open_instance(home) as instance:
        for run in runs_in_progress(instance):
            for record in instance.all_logs(run.run_id):
                if "locked by" in record.user_message:
                    return record.user_message
    return ""


def _all_done(home: Home, dropped: tuple[str, ...]) -> bool:
    if _listed(home, dropped) < len(dropped) or Landing(home).waiting("batches"):
        return False
    with open_instance(home) as instance:
        return not runs_in_progress(instance)


def _listed(home: Home, dropped: tuple[str, ...]) -> int:
    return sum((home.contact_lists / f"{name}.csv").exists() for name in dropped)


def _look(
    home: Home, study: Study, dropped: tuple[str, ...], waited: str, began: float, seconds: float
) -> Crowd:
    with open_instance(home) as instance:
        failures = instance.get_runs(
            dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.FAILURE], created_after=datetime.fromtimestamp(began, UTC)
            )
        )
        failed = tuple(f"{run.job_name} {run.tags.get('dagster/partition', '')}".strip() for run in failures)
        storage = instance.event_log_storage
        slots = sum(
            storage.get_concurrency_info(key).active_slot_count for key in storage.get_concurrency_keys()
        )
        trainings = [
            (training.start_time, training.end_time)
            for training in instance.get_run_records(dg.RunsFilter(job_name=RETRAIN_JOB))
            if training.start_time and training.end_time
        ]
    with Warehouse(home.warehouse, study).connect() as con:
        order = con.execute(
            "SELECT name, epoch(ingested_at) FROM ingested_files WHERE kind = 'batches' ORDER BY ingested_at"
        ).fetchall()
        counted = balance(con)
    taken_in = {name: when for name, when in order if name in dropped}
    return Crowd(
        dropped,
        tuple(taken_in),
        _listed(home, dropped),
        failed,
        slots,
        waited,
        sum(any(start < when < end for start, end in trainings) for when in taken_in.values()),
        counted,
        seconds,
    )


def _wait(happened: Callable[[], bool], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not happened() and time.monotonic() < give_up:
        time.sleep(POLL_SECONDS)
