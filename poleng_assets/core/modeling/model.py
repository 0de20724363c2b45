"""The model: one encoder and the candidates that belong to it, how they are trained and kept.

A folder with ``encoder.json``, ``model.json`` and a folder ``blend`` is a model; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.data.parallel import map_blocks, parallel_map
from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.modeling.candidates.base import Columns, with_masked_copies
from poleng_assets.core.modeling.candidates.blend import KINDS, Blend
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.training_configuration import TrainingConfiguration
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.study.schema import Study

# Rows that one thread works on at a time. Explaining a row takes a hundred times as long as scoring it.
BLOCK = 12_500
EXPLAINED_BLOCK = 128

Rows: TypeAlias = pa.Table | pa.RecordBatch | pd.DataFrame


@dataclass(frozen=True)
class Model:
    """An encoder, the candidates trained on its matrices, their calibration, and the contact rule.

    ``proxies`` are the questions that stood for a protected one among the rows it learned from, with the
    words for why (``core/statistics/proxies.py``); None when nobody measured it.
    """

    encoder: Encoder
    blend: Blend
    calibration: Calibration
    rule: ContactRule
    proxies: Mapping[str, str] | None = None

    def score(self, rows: Rows) -> np.ndarray:
        """Return the probability of the positive class for each row: float64, shape (rows,).

        Raises:
            EncodingError: a feature is absent or holds a value that is no survey code.
        """
        table = self.encoder.table(rows)

        def of_block(start: int, end: int) -> np.ndarray:
            matrix = self.encoder.encode(table.slice(start, end - start))
            return self.calibration.probability(self.blend.log_odds(matrix))

        return map_blocks(of_block, table.num_rows, BLOCK)

    def contributions(self, rows: Rows) -> np.ndarray:
        """Return how much each answer moves each score: log-odds, float64, shape (rows, features).

        Together with a constant they add up to the log-odds of :meth:`score`, unless a forest is in
        the blend.
        """
        matrix = self.encoder.encode(rows)

        def of_block(start: int, end: int) -> np.ndarray:
            return self.calibration.slope * self.blend.contributions(matrix[start:end])

        return map_blocks(of_block, len(matrix), EXPLAINED_BLOCK) if len(matrix) else np.empty(matrix.shape)

    def importance(self, rows: Rows) -> dict[str, float]:
        """Return how much each feature moves the scores of these rows: mean log-odds, largest first.

        Args:
            rows: at least one.
        """
        moved = np.abs(self.contributions(rows)).mean(axis=0)
        importance = dict(zip(self.encoder.features, moved.tolist(), strict=True))
        return dict(sorted(importance.items(), key=lambda item: -item[1]))

    def save(self, folder: Path) -> None:
        """Write the model into a folder, which is made if it is missing and must be empty."""
        (folder / "blend").mkdir(parents=True)
        (folder / "encoder.json").write_text(self.encoder.to_json(), encoding="utf-8")
        settings: dict[str, object] = {"calibration": asdict(self.calibration), "rule": asdict(self.rule)}
        if self.proxies is not None:
            settings["proxies"] = dict(self.proxies)
        (folder / "model.json").write_text(json.dumps(settings), encoding="utf-8")
        self.blend.save(folder / "blend")

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Read what :meth:`save` wrote."""
        settings = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return cls(
            Encoder.from_json((folder / "encoder.json").read_text(encoding="utf-8")),
            Blend.load(folder / "blend"),
            Calibration(**settings["calibration"]),
            ContactRule(**settings["rule"]),
            settings.get("proxies"),
        )


def train(rows: pa.Table, study: Study, configuration: TrainingConfiguration | None = None) -> Model:
    """Train a model on labelled rows.

    The same rows, study and configuration give the same model, bit for bit.

    Args:
        rows: features and target in canonical codes; holdout rows must not be among them.
        configuration: of ``core/modeling/tuning.py``; by default the study's own boosted trees, untuned.

    Raises:
        ValueError: there are no rows, or the target has one class only.
    """
    policy = study.policies.training
    configuration = configuration or TrainingConfiguration.untuned(study)
    target = rows[study.target.name].to_numpy().astype(np.float32)
    if len(np.unique(target)) < 2:
        raise ValueError(
            f"a model needs both classes of {study.target.name}; the {len(target)} training rows have "
            f"{sorted(set(target.tolist()))}"
        )
    encoder = Encoder.fit(rows, study)
    columns = Columns.of(encoder, study)
    matrix, target = with_masked_copies(
        encoder.encode(rows), target, columns.masked, policy.masked_share, policy.seed
    )
    fitted = parallel_map(
        lambda member: KINDS[member.kind].fit(matrix, target, columns, member.parameters, policy.seed),
        configuration.members,
    )
    blend = Blend(fitted, [member.weight for member in configuration.members])
    return Model(encoder, blend, configuration.calibration, configuration.rule)
