"""The shipped study with policies that take seconds: faults are injected into the same code, many times."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.study import STUDIES, load_study


@contextmanager
def quick_survey(folder: Path, *, every_feature: bool = False) -> Iterator[Path]:
    """Put the quick study in force, as ``quick.yaml`` of a folder; yield the folder of its made-up data."""
    study = write_quick_study(folder / "quick.yaml", every_feature=every_feature)
    with patch.dict(os.environ, POLENG_STUDY=str(study)):
        write_scenario_data(load_study(), folder / "data", scale=0.05)
        yield folder / "data"


def write_quick_study(path: Path, *, every_feature: bool = False) -> Path:
    """Write the study to ``path``, which ``POLENG_STUDY`` may name; return the path.

    One candidate, few trees, few resamples; gates so wide that a model of a few hundred people passes
    them. Half of the features, unless every one is asked for; their codes and labels are the shipped ones.
    """
    content = yaml.safe_load((STUDIES / "political_engagement.yaml").read_text(encoding="utf-8"))
    policies = content["policies"]
    if not every_feature:
        content["features"] = _fewer(content)
    policies["training"] |= {
        "candidates": ["xgboost"],
        "max_blended": 1,
        "folds": 2,
        "quick": {"trials": 1, "minutes": 1},
        "rounds": 15,
        "learning_rate": 0.3,
        "max_depth": 3,
    }
    policies["promotion"] |= {
        "min_auc": 0.5,
        "flagged_share": [0.0, 1.0],
        "min_score_spread": 0.0,
        "max_calibration_error": 1.0,
        "min_log_loss_gain": 0.0,
        "max_auc_loss": 1.0,
        "max_population_log_loss_loss": 10.0,
        "max_group_log_loss_loss": 10.0,
        "max_calibration_loss": 1.0,
        "fine_calibration_error": 1.0,
        "confidence": 0.51,
        "resamples": 100,
        "shadow_batches": 1,
    }
    policies["overseer"] |= {"resamples": 100, "min_rows": 50}
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _fewer(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the features that the study speaks of elsewhere, and a third of the others of each kind."""
    training, overseer = study["policies"]["training"], study["policies"]["overseer"]
    named = {
        *study["contact_list"],
        *study["protected"],
        *study["policies"]["contact"]["withheld_reasons"],
        *training["masked"],
        training["varies_by"],
        overseer["compare_within"],
    }
    seen: Counter[str] = Counter()
    kept = []
    for feature in study["features"]:
        if feature["name"] in named:
            kept.append(feature)
        else:
            if seen[feature["kind"]] % 3 == 0:
                kept.append(feature)
            seen[feature["kind"]] += 1
    return kept


def ask_for_a_long_training(path: Path, rounds: int) -> None:
    """Change a study so that something can happen while it is trained: thousands of rounds take minutes."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["policies"]["training"] |= {
        "rounds": rounds,
        "learning_rate": 0.003,
        "max_depth": 6,
        "folds": 3,
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
