"""Kill a retraining at random moments, and see whether anything is lost.

    python tools/kill_retraining.py --data DIR [--kills 20] [--rows 4000] [--seed 23]

DIR is laid out as ``poleng simulate --data`` wants it; of each file only the first ``--rows`` rows are
used. A home with a champion, a new field study and a batch that drifts is made once. For each kill it is
put back, ``poleng settle`` is started, and its whole process group gets ``kill -9`` at a random moment
between the batch being held and the end of ``retrain_and_promote``. What must hold then, and after the
next ``poleng settle``, is listed in :func:`left_behind` and :func:`not_recovered`. The exit code is 1
when something did not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import duckdb
import mlflow
import numpy as np
import pandas as pd

from poleng_assets.core.model import Model
from poleng_assets.home import Home
from poleng_assets.resources.registry import CHAMPION, Registry
from poleng_assets.study import load_study

POLENG = [sys.executable, "-m", "poleng_assets.cli"]
BATCH = "drift_batch_1"
FOUNDING = "founding_study"


def prepare(data: Path, home: Home, rows: int) -> None:
    """Make a home with a first champion, and drop a new field study and a drifting batch into it."""
    with tempfile.TemporaryDirectory() as folder:
        studies = sorted((data / "field_studies").iterdir(), key=lambda path: path.stem != FOUNDING)
        first, *later = [_first_rows(path, Path(folder) / "studies", rows) for path in studies]
        batch = next((data / "batches").glob(f"{BATCH}.*"))
        poleng("submit", "study", str(first), home=home)
        poleng("settle", home=home)
        for study in later:
            poleng("submit", "study", str(study), home=home)
        poleng("submit", "batch", str(_first_rows(batch, Path(folder) / "batches", rows)), home=home)


def poleng(*arguments: str, home: Home) -> str:
    """Run the command line to its end and return what it prints; raises when it fails."""
    done = subprocess.run(
        [*POLENG, *arguments, "--home", str(home.root)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"poleng {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def retraining(home: Home, kill_after: float | None) -> float | None:
    """Start ``poleng settle``; return how long its retraining took, None when it was killed in it.

    Args:
        home: with a batch and a field study in landing.
        kill_after: seconds from the moment that the batch is held; None to let it go on to its end.
    """
    process = subprocess.Popen(
        [*POLENG, "settle", "--home", str(home.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    began = took = 0.0
    for line in process.stdout or []:
        if BATCH in line and "held" in line:
            began = time.monotonic()
            if kill_after is not None:
                time.sleep(kill_after)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None
        if line.strip().startswith("retrain_and_promote"):
            took = time.monotonic() - began
    if process.wait():
        raise RuntimeError(f"poleng settle ended with {process.returncode}")
    return took


def left_behind(home: Home) -> list[str]:
    """Return what a killed retraining has left in a state that it must not be in."""
    registry = Registry(home, load_study())
    faults = []
    serving = registry.alias(CHAMPION)
    with duckdb.connect(home.warehouse, read_only=True) as con:
        promoted = con.sql(
            "SELECT champion_version FROM decisions WHERE kind = 'promote' ORDER BY decided_at"
        ).fetchall()
        parts = con.sql("SELECT part, count(*) FROM field_study_rows GROUP BY 1 ORDER BY 1").fetchall()
    if serving is None:
        return ["no version serves"]
    if (serving.version,) not in promoted:
        faults.append(f"version {serving.version} serves and the ledger does not say why")
    reference = registry.reference(serving)
    model: Model = registry.model(serving)
    if not np.array_equal(model.score(reference), reference["score"].to_numpy()):
        faults.append(f"version {serving.version} does not give the scores of its own reference")
    if {part for part, _ in parts} - {"set_aside"} != {"train", "holdout"}:
        faults.append(f"field data are not what they were: {parts}")
    return faults


def not_recovered(home: Home) -> list[str]:
    """Return what is not as it should be when the next ``poleng settle`` has ended."""
    faults = left_behind(home)
    registry = Registry(home, load_study())
    serving = registry.champion()
    with duckdb.connect(home.warehouse, read_only=True) as con:
        promoted = con.sql("SELECT challenger_version FROM decisions WHERE kind = 'promote'").fetchall()
        scored = con.sql(
            f"SELECT DISTINCT model_version FROM current_predictions WHERE batch = '{BATCH}'"  # noqa: S608
        ).fetchall()
    if serving.version == 1:
        faults.append("the follow-up study was not learned from")
    if sorted(promoted) != [(1,), (serving.version,)]:
        faults.append(f"the ledger promotes {promoted}, version {serving.version} serves")
    if scored != [(serving.version,)]:
        faults.append(f"{BATCH} is scored by {scored}, version {serving.version} serves")
    if not (home.contact_lists / f"{BATCH}.csv").exists():
        faults.append(f"{BATCH} has no contact list")
    client = mlflow.MlflowClient(home.mlflow_uri, home.mlflow_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'")
    if running:
        faults.append(f"{len(running)} MLflow runs are still RUNNING")
    if len(list(home.tuning.iterdir())) > 1:
        faults.append("a search on other data was left behind")
    return faults


def found_by(check: Callable[[Home], list[str]], home: Home) -> list[str]:
    """Run a check in a process of its own: MLflow keeps the store open that was put back since."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
        return one.submit(check, home).result()


def main() -> None:
    """Print how each kill went; exit with 1 when one of them lost something."""
    arguments = _arguments()
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        home, kept = Home(Path(folder) / "home"), Path(folder) / "kept"
        prepare(arguments.data, home, arguments.rows)
        shutil.copytree(home.root, kept)
        whole = retraining(home, None) or 0.0
        faults = found_by(not_recovered, home)
        print(f"an undisturbed retraining takes {whole:.1f} s; faults: {faults or 'none'}", flush=True)
        consistent = recovered = 0
        for number in range(1, arguments.kills + 1):
            # MLflow's artifacts name their place: the copy goes back to where it came from.
            shutil.rmtree(home.root)
            shutil.copytree(kept, home.root)
            moment = dice.uniform(0, whole)
            killed = retraining(home, moment) is None
            lost = found_by(left_behind, home)
            poleng("settle", home=home)
            missed = found_by(not_recovered, home)
            consistent += not lost
            recovered += not missed
            state = "killed" if killed else "was over before"
            told = "; ".join([*lost, *missed]) or "nothing lost, recovered"
            print(f"{number}: {state} after {moment:.1f} s: {told}", flush=True)
    print(f"consistent {consistent} of {arguments.kills}, recovered {recovered} of {arguments.kills}")
    sys.exit(0 if consistent == recovered == arguments.kills else 1)


def _first_rows(path: Path, folder: Path, rows: int) -> Path:
    folder.mkdir(exist_ok=True)
    target = folder / f"{path.stem}.parquet"
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    frame.head(rows).to_parquet(target, index=False)
    return target


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with field_studies/ and batches/")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=4_000, help="of each file")
    parser.add_argument("--seed", type=int, default=23, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
