"""The loaded champion: its model, prepared for single rows, and the facts of ``/model``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.explanations import strongest_reasons
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.modeling.training_configuration import TrainingConfiguration
from poleng_assets.core.statistics.metrics import METRICS
from poleng_assets.models.registry import ModelVersion, Registry
from poleng_assets.models.repair import has_run
from poleng_assets.serving.requests import Asked, Vocabulary
from poleng_assets.study.schema import Study


@dataclass(frozen=True)
class Champion:
    """A loaded version; immutable.

    Attributes:
        known: the codes of its vocabularies.
        trained_at: end of its training, None if the registry does not know it.
        facts: the response of ``/model``.
    """

    version: int
    model: Model
    known: Vocabulary
    study: Study
    trained_at: datetime | None
    loaded_at: datetime
    facts: Mapping[str, Any]

    def answer(self, asked: Asked) -> dict[str, Any]:
        """Score respondents with the encoder, calibration and contact rule of batches."""
        rows = asked.rows
        score = self.model.score(rows)
        contact = self.model.rule.decide(score)
        unknown = self._unknown(asked)
        why = self._reasons(asked) if asked.reasons else None
        predictions = []
        for row in range(len(score)):
            prediction: dict[str, Any] = {"row": row + 1}
            if asked.ids[row] is not None:
                prediction[self.study.id] = asked.ids[row]
            prediction |= {"score": float(score[row]), "contact": bool(contact[row])}
            if why is not None:
                prediction["reasons"] = why[row]
            prediction["unknown_answers"] = unknown.get(row, [])
            predictions.append(prediction)
        return {
            "model_version": self.version,
            "contact_rule": rule_facts(self.model.rule),
            "predictions": predictions,
        }

    def _unknown(self, asked: Asked) -> dict[int, list[str]]:
        """Return, by row, the questions with an answer unknown to the model, which it treats as missing."""
        unknown: dict[int, list[str]] = {}
        for feature, row in np.argwhere(self.known.lacks(asked.codes, asked.given)):
            unknown.setdefault(int(row), []).append(asked.features[feature])
        return unknown

    def _reasons(self, asked: Asked) -> Sequence[str]:
        answers = pd.DataFrame(
            {
                name: pd.arrays.IntegerArray(codes, ~given)
                for name, codes, given in zip(asked.features, asked.codes, asked.given, strict=True)
            }
        )
        return strongest_reasons(self.model, answers, self.study)


def load(registry: Registry, number: int) -> Champion:
    """Load a version and score one row, which imports all libraries before the first request.

    Raises:
        LookupError: it is not registered.
        ModelUnusable: its files cannot be used.
    """
    version = registry.version(number)
    model = registry.model(version)
    vocabularies, run = model.encoder.vocabularies, _run(registry, version)
    ended = run.info.end_time if run else None
    trained_at = datetime.fromtimestamp(ended / 1000, UTC) if ended else None
    champion = Champion(
        version=number,
        model=model,
        known=Vocabulary([vocabularies.get(name) for name in registry.study.feature_names]),
        study=registry.study,
        trained_at=trained_at,
        loaded_at=datetime.now(UTC),
        facts=_facts(registry.study, version, model, trained_at, run.data.metrics if run else {}),
    )
    names = registry.study.feature_names
    empty_row = np.zeros((len(names), 1), dtype=np.int64)
    champion.answer(Asked(empty_row, np.zeros(empty_row.shape, dtype=bool), [None], True, names))
    return champion


def rule_facts(rule: ContactRule) -> dict[str, Any]:
    """Return how ``contact`` is decided for people outside a batch."""
    description = f"contact if the probability is at least {rule.threshold:.3f}"
    if rule.capacity is not None:
        description += (
            f". In a batch, the {rule.capacity} people with the highest scores are contacted; outside a "
            "batch, this threshold selects the same share of people, and a batch may decide otherwise"
        )
    return {"threshold": rule.threshold, "capacity_of_a_batch": rule.capacity, "words": description}


def _run(registry: Registry, version: ModelVersion) -> Any:
    """Return the run that trained a version, None if it was deleted permanently."""
    import mlflow

    client = mlflow.MlflowClient(registry.home.mlflow_uri, registry.home.mlflow_uri)
    return client.get_run(version.run_id) if has_run(client, version.run_id) else None


def _facts(
    study: Study,
    version: ModelVersion,
    model: Model,
    trained_at: datetime | None,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Return facts about the model; none of them is about a person."""
    stored = version.tags.get("recipe")
    return {
        "version": version.version,
        "trained_at": trained_at.isoformat() if trained_at else None,
        "study": study.title,
        "predicts": f"the probability of: {study.target.codes[study.target.positive]}",
        "field_studies": version.field_studies,
        "training_data_hash": version.training_data_hash,
        "mlflow_run_id": version.run_id,
        "recipe": [
            member.in_words() for member in TrainingConfiguration.from_dict(json.loads(stored)).members
        ]
        if stored
        else [],
        "calibration": model.calibration.in_words(),
        "contact_rule": rule_facts(model.rule),
        "figures": _metrics(metrics),
        "vocabulary": _vocabulary(model.encoder, study),
    }


def _metrics(metrics: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return the metrics on the frozen holdout, with 95 % confidence intervals if available."""
    return {
        name: {
            "title": metric.title,
            "value": metrics[f"test_{name}"],
            "lower": metrics.get(f"test_{name}_lower"),
            "upper": metrics.get(f"test_{name}_upper"),
        }
        for name, metric in METRICS.items()
        if f"test_{name}" in metrics
    }


def _vocabulary(encoder: Encoder, study: Study) -> dict[str, dict[str, Any]]:
    """Return, for each nominal question, how many codes were learned and which were not."""
    summary = {}
    for name, learned in encoder.vocabularies.items():
        feature = study.feature(name)
        never = [code for code in sorted(feature.codes) if code not in learned]
        summary[name] = {
            "title": feature.title,
            "codes_learned": len(learned),
            "codes_of_the_study_never_learned": never,
        }
    return summary
