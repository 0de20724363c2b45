"""Answers as the survey words them, where figures are told by group."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from poleng_assets.core.statistics.metrics import NO_ANSWER
from poleng_assets.study.schema import Study


def groups_in_words(study: Study, rows: pa.Table, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the answers to some questions in words, by the question's title, each of shape (rows,).

    Args:
        study: titles and labels.
        rows: the features as codes.
        names: of the features.
    """
    return {study.feature(name).title: _in_words(study, rows, name) for name in names}


def _in_words(study: Study, rows: pa.Table, name: str) -> np.ndarray:
    answers, feature = rows[name].to_pandas().astype(object), study.feature(name)
    words = {code: feature.label(code) for code in answers.dropna().unique()}
    return answers.map(words).fillna(NO_ANSWER).to_numpy()
