"""The one place that knows how a row of the survey becomes numbers.

Training, scoring, reference and serving call the same encoder; it travels with the model as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from poleng_assets.core.features.codes import to_codes, to_table
from poleng_assets.study.schema import Study


class EncodingError(ValueError):
    """Rows that the encoder cannot read; the message names the column and the reason."""


@dataclass(frozen=True)
class Encoder:
    """Fixed vocabularies, learned once from training rows.

    Attributes:
        features: the columns, in the order of the matrix.
        vocabularies: for each feature that is not ordinal, the codes seen in training, sorted. The
            position in this list is the category: XGBoost knows categories by position only.
    """

    features: tuple[str, ...]
    vocabularies: dict[str, tuple[int, ...]]

    @classmethod
    def fit(cls, rows: pa.Table, study: Study) -> Encoder:
        """Learn the vocabularies of the features that are not ordinal from training rows."""
        vocabularies = {
            feature.name: tuple(sorted(pc.unique(to_codes(rows[feature.name])[0].drop_null()).to_pylist()))
            for feature in study.features
            if not feature.is_ordinal
        }
        return cls(tuple(study.feature_names), vocabularies)

    def encode(self, rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> np.ndarray:
        """Return a float32 matrix of shape (rows, features); missing and unseen are NaN.

        Raises:
            EncodingError: a feature is absent, or holds a value that is no survey code.
        """
        table = self.table(rows)
        matrix = np.empty((table.num_rows, len(self.features)), dtype=np.float32)
        for position, name in enumerate(self.features):
            codes = self._codes(table, name)
            if name in self.vocabularies:
                codes = pc.index_in(codes, value_set=self._vocabulary(name))
            # Unsafe, because Arrow refuses integers that a float32 has to round.
            matrix[:, position] = codes.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        return matrix

    @staticmethod
    def table(rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> pa.Table:
        """Return rows as the table that they are encoded from; what is one already costs nothing.

        Raises:
            EncodingError: a frame's column holds what no table does, or stands twice.
        """
        try:
            return to_table(rows)
        except pa.ArrowInvalid as error:
            raise EncodingError(str(error)) from error

    def unseen(self, rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> dict[str, np.ndarray]:
        """Return, for each categorical feature, a mask of the rows whose code training never saw."""
        table = self.table(rows)
        masks = {}
        for name in self.vocabularies:
            codes = self._codes(table, name)
            known = pc.is_in(codes, value_set=self._vocabulary(name))
            masks[name] = pc.and_(codes.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
        return masks

    def to_json(self) -> str:
        """Return the encoder as JSON."""
        return json.dumps(
            {"features": self.features, "vocabularies": self.vocabularies}, indent=1, sort_keys=True
        )

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Read what :meth:`to_json` wrote."""
        content = json.loads(text)
        return cls(
            tuple(content["features"]),
            {name: tuple(codes) for name, codes in content["vocabularies"].items()},
        )

    def _vocabulary(self, name: str) -> pa.Array:
        return pa.array(self.vocabularies[name], pa.int64())

    def _codes(self, table: pa.Table, name: str) -> pa.Array:
        count = table.column_names.count(name)
        if count != 1:
            raise EncodingError(f"column {name!r} {'stands twice' if count else 'is missing'}")
        try:
            codes, broken = to_codes(table[name])
        except pa.ArrowException as error:
            raise EncodingError(
                f"column {name!r} holds {table[name].type}, which are no survey codes: {error}"
            ) from error
        if pc.any(broken).as_py():
            example = table[name].filter(broken)[0].as_py()
            raise EncodingError(f"column {name!r} holds {example!r}, which is no survey code")
        return codes


def outside_support(unseen: dict[str, np.ndarray]) -> np.ndarray:
    """Return a mask of the rows with at least one unseen code: no estimate holds for them."""
    masks: Sequence[np.ndarray] = list(unseen.values())
    return np.logical_or.reduce(masks) if masks else np.zeros(0, dtype=bool)
