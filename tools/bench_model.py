"""Measure the model and its promotion against their bars, on a real survey, and print the table.

    PYTHONPATH=. python tools/bench_model.py --data DIR [--home HOME] [--only quality,promotion,kills]

``quality`` plays the full scenario through ``poleng simulate`` and scores every batch with outcomes by
the versions that it ends with; ``promotion`` is ``bench_promotion.py --full``, ``kills`` kills retrainings at
random moments (with a quick study). All three take about 40 minutes on two cores. The exit code is 1 when
a bar is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
from bench_promotion import contests, read_ground

from poleng_assets.core.modeling.model import Model
from poleng_assets.core.statistics.metrics import calibration_error, evaluate
from poleng_assets.defs.instance import open_instance
from poleng_assets.models.registry import Registry
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.killing import TOGETHER, run_kills

PARTS = ("quality", "promotion", "kills")
KILLS = 20


@dataclass(frozen=True)
class Row:
    """One bar: what it is about, what was measured, what was asked for, and whether it is met."""

    what: str
    measured: str
    bar: str
    met: bool


def quality(data: Path, home: Home) -> list[Row]:
    """Play the full scenario, and measure the founding champion and the one after the follow-up study."""
    command = [sys.executable, "-m", "poleng_assets.cli", "simulate", "full"]
    subprocess.run([*command, "--data", str(data), "--home", str(home.root)], check=True)
    registry = Registry(home, load_study())
    first, second = (registry.model(registry.version(number)) for number in (1, 2))
    clean, drift = (_labelled(data, kind) for kind in ("clean", "drift"))

    def measured(model: Model, rows: pd.DataFrame) -> dict[str, float]:
        score = model.score(rows)
        return evaluate(rows[registry.study.target.name].to_numpy(), score, model.rule.decide(score))

    founding_clean, founding_drift = measured(first, clean), measured(first, drift)
    later_clean, later_drift = measured(second, clean), measured(second, drift)
    rows = [
        _at_least("founding champion, clean batches: AUC", founding_clean["auc"], 0.778),
        _at_most("founding champion, clean batches: log-loss", founding_clean["log_loss"], 0.509),
        _at_least("founding champion, unseen countries: AUC", founding_drift["auc"], 0.709),
        _at_most("founding champion, unseen countries: log-loss", founding_drift["log_loss"], 0.588),
        Row(
            "founding champion, unseen countries: flagged",
            f"{founding_drift['flagged_share']:.3f}",
            "0.10 to 0.45",
            0.10 <= founding_drift["flagged_share"] <= 0.45,
        ),
        _at_least("after the follow-up study, drift batches: AUC", later_drift["auc"], 0.785),
        _at_least("after the follow-up study, clean batches: AUC", later_clean["auc"], 0.778),
    ]
    for number in (1, 2):
        reference = registry.reference(registry.version(number))
        target = reference[registry.study.target.name].to_numpy()
        error, chance = calibration_error(target, reference["score"].to_numpy())
        rows.append(_at_most(f"calibration error on the holdout, version {number}", error, 0.015))
        _, half = calibration_error(target, reference["score"].to_numpy(), confidence=0.501)
        print(
            f"version {number}: {len(target)} holdout rows; true probabilities would show a calibration "
            f"error of {half:.4f} in the mean, up to {chance:.4f} in 95 of 100 draws"
        )
    seconds, trained = _training_seconds(home)
    rows.append(_at_most(f"training in quick mode, {trained:,} rows: seconds", seconds, 60))
    return rows


def promotion(data: Path) -> list[Row]:
    """Put bad, equal and better challengers to the gates."""
    bars = contests(read_ground(data, load_study()), bad=100, same=50, better=20, others=1, tuned=True)
    return [Row(f"promoted, {name}", f"{won} of {judged}", bar, met) for name, won, judged, bar, met in bars]


def kills(data: Path) -> list[Row]:
    """Kill a retraining and what came with its study; ``make test-faults`` kills everything else as well."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_kills(KILLS, 23, data, Path(folder), daemon=0, chapters=(TOGETHER,))
    print(done.summary())
    equal = len(done.ended) - len(done.unequal)
    return [
        Row(
            "kills in a retraining with batches: equal ends",
            f"{equal} of {len(done.ended)}",
            f"{KILLS} of {KILLS}",
            equal == KILLS,
        )
    ]


def main() -> None:
    """Print the table; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="laid out as poleng simulate wants it")
    parser.add_argument(
        "--home", type=Path, help="an empty home for the scenario; by default a temporary one"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[Row] = []
        if "quality" in wanted:
            rows += quality(arguments.data, Home(arguments.home or Path(folder) / "home"))
        if "promotion" in wanted:
            rows += promotion(arguments.data)
        if "kills" in wanted:
            rows += kills(arguments.data)
    print(f"\n{'what':<52} {'measured':<42} {'bar':<14}")
    for row in rows:
        print(f"{row.what:<52} {row.measured:<42} {row.bar:<14} {'' if row.met else 'MISSED'}")
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(row.met for row in rows) else 1)


def _labelled(data: Path, kind: str) -> pd.DataFrame:
    study = load_study()
    joined = [
        _read(path).merge(_read(next((data / "outcomes").glob(f"{path.stem}.*"))), on=study.id)
        for path in sorted((data / "batches").glob(f"{kind}_*"))
    ]
    return pd.concat(joined, ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def _training_seconds(home: Home) -> tuple[float, int]:
    """Return how long the newest challenger took, from its own step, and how many rows were read for it."""
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("challenger"))
        if event is None or event.asset_materialization is None:
            raise RuntimeError(f"{home.root} has no challenger")
        (step,) = instance.get_run_step_stats(event.run_id, ["challenger"])
        found = event.asset_materialization.metadata
    rows = [int(found[name].value) for name in ("training_rows", "holdout_rows")]
    return float(np.subtract(step.end_time, step.start_time)), sum(rows)


def _at_least(what: str, value: float, bar: float) -> Row:
    return Row(what, f"{value:.4f}", f">= {bar}", value >= bar)


def _at_most(what: str, value: float, bar: float) -> Row:
    return Row(what, f"{value:.4f}", f"<= {bar}", value <= bar)


if __name__ == "__main__":
    main()
