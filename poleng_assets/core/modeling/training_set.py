"""What a model is trained on, as one name: the field studies and the hash of their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class TrainingSet:
    """Field studies to learn from: content hash by id, and the hash of all of them."""

    hash: str
    studies: Mapping[str, str]


def training_data_hash(studies: Mapping[str, str]) -> str:
    """Return one hash for a set of field studies, whatever their order.

    Args:
        studies: content hash of each field study, by its id.
    """
    listed = "\n".join(f"{name} {studies[name]}" for name in sorted(studies))
    return hashlib.sha256(listed.encode()).hexdigest()


def latest_training_set(con: duckdb.DuckDBPyConnection) -> TrainingSet:
    """Return the training set that was named last.

    Raises:
        LookupError: none was ever named.
    """
    found = con.execute(
        """SELECT DISTINCT training_data_hash, field_study, content_hash FROM training_sets
        WHERE training_data_hash = (SELECT arg_max(training_data_hash, created_at) FROM training_sets)
        ORDER BY field_study"""
    ).fetchall()
    if not found:
        raise LookupError("no training set was named yet: materialise training_data first")
    return TrainingSet(found[0][0], {study: content for _, study, content in found})
