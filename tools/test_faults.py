"""Inject every fault for real, and print what came of it.

    PYTHONPATH=. python tools/test_faults.py [--only files,kills,together,crowd,seclusion] [--kills 100]
        [--batches 100] [--keep DIR]

``files``: the corpus of bad files goes through the door. ``kills``: runs and the daemon are killed at seeded
moments and injected points, and the end state is compared with that of an undisturbed run. ``together``: 40
more kills where a field study and batches were dropped at once. ``crowd``: many batches at once beside a
training and a person's shell. ``seclusion``: the demo in a network namespace without a route (as root, or
where users may make namespaces). At the end every row that came in anywhere is accounted for. On two cores it
takes about an hour and a half. The exit code is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from poleng_assets.core.ingestion.row_accounting import Balance, balance
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.faults.corpus import run_corpus, summary
from poleng_assets_tests.faults.crowd import run_crowd
from poleng_assets_tests.faults.killing import TOGETHER, run_kills
from poleng_assets_tests.faults.seclusion import cannot_seclude, run_secluded

SEED = 5
# One place a batch takes about eight seconds of the daemon; then something is wrong.
PATIENCE_PER_BATCH = 30.0
HELD_SECONDS = 90.0
KILLS_TOGETHER = 40


def files(folder: Path, arguments: argparse.Namespace) -> tuple[bool, str]:
    """Put every bad and every odd file through the door."""
    outcomes = run_corpus(Home(folder / "home"))
    return all(outcome.as_expected for outcome in outcomes), summary(outcomes)


def kills(folder: Path, arguments: argparse.Namespace) -> tuple[bool, str]:
    """Kill runs and the daemon."""
    result = run_kills(arguments.kills, SEED, None, folder)
    return len(result.ended) == arguments.kills and not result.unequal, result.summary()


def together(folder: Path, arguments: argparse.Namespace) -> tuple[bool, str]:
    """Kill while a field study and batches that were dropped at once are worked on."""
    result = run_kills(KILLS_TOGETHER, SEED, None, folder, daemon=0, chapters=(TOGETHER,))
    good = len(result.ended) == KILLS_TOGETHER and not result.unequal
    return good, f"dropped together: {result.summary()}"


def crowd(folder: Path, arguments: argparse.Namespace) -> tuple[bool, str]:
    """Drop many batches at once."""
    result = run_crowd(
        folder,
        batches=arguments.batches,
        held_seconds=HELD_SECONDS,
        patience=arguments.batches * PATIENCE_PER_BATCH,
    )
    return not result.faults, result.summary()


def seclusion(folder: Path, arguments: argparse.Namespace) -> tuple[bool, str]:
    """Play the demo where nothing can leave."""
    if why := cannot_seclude():
        return False, f"without a network: no namespace can be made here: {why}"
    demo = ["make", "--silent", "demo"]
    result = run_secluded(demo, folder / "watched", POLENG_HOME=str(folder / "home"))
    return result.secluded, result.summary()


PARTS: dict[str, Callable[[Path, argparse.Namespace], tuple[bool, str]]] = {
    "files": files,
    "kills": kills,
    "together": together,
    "crowd": crowd,
    "seclusion": seclusion,
}


def main() -> None:
    """Run the parts, each in a process of its own; exit with 1 when a bar is missed."""
    arguments = _arguments()
    os.chdir(Path(__file__).resolve().parent.parent)
    with contextlib.ExitStack() as stack:
        root = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        told = [_in_its_own_process(part, root / part, arguments) for part in arguments.only]
        lost, words = _all_rows(root)
    print("\n".join(["", *(words for _, words in told), words]), flush=True)
    sys.exit(0 if all(good for good, _ in told) and not lost else 1)


def _in_its_own_process(part: str, folder: Path, arguments: argparse.Namespace) -> tuple[bool, str]:
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(1) as one:
        good, words = one.apply(PARTS[part], (folder, arguments))
    told = f"{words} [{time.monotonic() - started:.0f} s]"
    print(told, flush=True)
    return good, told


def _all_rows(root: Path) -> tuple[int, str]:
    """Add up the rows of every home that was worked on."""
    study = load_study()
    homes = sorted(root.rglob("warehouse.duckdb"))
    found: list[Balance] = []
    for home in homes:
        with Warehouse(home, study).connect() as con:
            found.append(balance(con))
    whole = Balance(*(sum(figures) for figures in zip(*(vars(one).values() for one in found), strict=True)))
    return whole.lost, f"in {len(homes)} homes: {whole.in_words()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="Folder to work in; it is kept.")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    main()
