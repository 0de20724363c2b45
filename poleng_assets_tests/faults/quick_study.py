"""The shipped study made small: policies that take seconds, and half of the features.

Faults are injected into the same code, many times.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from poleng_assets.operations.study_change import change_study, plan_change
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import STUDIES, load_study, study_file
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse

SHIPPED = STUDIES / "political_engagement.yaml"


@contextmanager
def quick_survey(folder: Path, *, every_feature: bool = False) -> Iterator[Path]:
    """Put the quick study in force, as ``quick.yaml`` of a folder; yield the folder of its made-up data."""
    study = write_quick_study(folder / "quick.yaml", every_feature=every_feature)
    with _in_force(study, 0.05) as data:
        yield data


@contextmanager
def half_survey(folder: Path, scale: float) -> Iterator[Path]:
    """Put the policies as they ship in force on half of the features; yield the folder of made-up data."""
    study = write_study(_on_half_of_the_features(shipped()), folder / "half.yaml")
    with _in_force(study, scale) as data:
        yield data


@contextmanager
def _in_force(study: Path, scale: float) -> Iterator[Path]:
    data = study.parent / "data"
    with patch.dict(os.environ, POLENG_STUDY=str(study)):
        write_scenario_data(load_study(), data, scale=scale)
        yield data


def write_quick_study(path: Path, *, every_feature: bool = False) -> Path:
    """Write the study to ``path``, which ``POLENG_STUDY`` may name; return the path.

    One candidate, few trees, few resamples; gates so wide that a model of a few hundred people passes
    them. Half of the features, unless every one is asked for; their codes and labels are the shipped ones.
    """
    content = shipped() if every_feature else _on_half_of_the_features(shipped())
    policies = content["policies"]
    policies["training"] |= {
        "candidates": ["xgboost"],
        "max_blended": 1,
        "folds": 2,
        "quick": {"trials": 1, "minutes": 1},
    }
    policies["training"]["xgboost"] |= {"rounds": 15, "learning_rate": 0.3, "max_depth": 3}
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
    return write_study(content, path)


def half_of_the_features(study: Study) -> Study:
    """Return the study with a third of the features of each kind, and all that it speaks of elsewhere."""
    policies = study.policies
    named = {
        *study.contact_list,
        *study.protected,
        *(policies.contact.shown_reasons or ()),
        *policies.training.masked,
        policies.training.varies_by,
        policies.overseer.compare_within,
    }
    others: Counter[str] = Counter()
    kept = []
    for feature in study.features:
        if feature.name not in named:
            others[feature.kind] += 1
        if feature.name in named or others[feature.kind] % 3 == 1:
            kept.append(feature)
    return study.model_copy(update={"features": tuple(kept)})


def _on_half_of_the_features(content: dict[str, Any]) -> dict[str, Any]:
    names = half_of_the_features(load_study(SHIPPED)).feature_names
    return content | {"features": [one for one in content["features"] if one["name"] in names]}


def shipped() -> dict[str, Any]:
    """Return the content of the study file that ships, to be changed."""
    return yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))


def write_study(content: dict[str, Any], path: Path) -> Path:
    """Write the content of a study to ``path``, which ``POLENG_STUDY`` may name; return the path."""
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def ask_for_a_long_training(path: Path, rounds: int) -> None:
    """Change a study so that something can happen while it is trained: thousands of rounds take minutes."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    training = content["policies"]["training"]
    training["folds"] = 3
    training["xgboost"] |= {"rounds": rounds, "learning_rate": 0.003, "max_depth": 6}
    write_study(content, path)


def give_study(home: Home) -> None:
    """Give a home the study that is in force now, as ``poleng study change`` does."""
    change = plan_change(home, study_file())
    change_study(home, change, Warehouse(home.warehouse, change.after))
