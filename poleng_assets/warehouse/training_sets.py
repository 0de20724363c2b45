"""The table ``training_sets``: what a model is trained on, and its rows in ``field_study_rows``.

A training set is known by the hash of the contents of its field studies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.writes import monotonic_timestamp, replace_partition

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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


def latest_training_set(con: Connection) -> TrainingSet:
    """Return the training set that was named last.

    Raises:
        LookupError: none was ever named.
    """
    rows = con.execute(
        """SELECT DISTINCT training_data_hash, field_study, content_hash FROM training_sets
        WHERE training_data_hash = (SELECT arg_max(training_data_hash, created_at) FROM training_sets)
        ORDER BY field_study"""
    ).fetchall()
    if not rows:
        raise LookupError("no training set was named yet: materialise training_data first")
    return TrainingSet(rows[0][0], {study: content for _, study, content in rows})


def record_training_set(con: Connection, chosen: TrainingSet) -> None:
    """Name a training set, in the place of the same one named before: the one named last is learned from.

    Args:
        con: of the warehouse, within a transaction.
    """
    import pandas as pd

    named_at = monotonic_timestamp(con, "training_sets", "created_at")
    named = pd.DataFrame(sorted(chosen.studies.items()), columns=["field_study", "content_hash"])
    replace_partition(
        con, "training_sets", {"training_data_hash": chosen.hash}, named.assign(created_at=named_at)
    )


def rows_of_each_study(con: Connection, study: Study, field_studies: Iterable[str]) -> pd.DataFrame:
    """Return training, holdout and set-aside rows of each field study, and its target rate."""
    return con.execute(
        f"""SELECT field_study, count(*) FILTER (part = 'train') AS training_rows,
        count(*) FILTER (part = 'holdout') AS holdout_rows,
        count(*) FILTER (part = 'set_aside') AS set_aside_rows,
        avg("{study.target.name}") AS target_rate
        FROM field_study_rows WHERE list_contains(?::VARCHAR[], field_study)
        GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        [list(field_studies)],
    ).df()


def labelled_rows(con: Connection, study: Study, field_studies: Collection[str], part: str) -> pa.Table:
    """Return id, field study, features and target of one part of field studies, in the same order each time.

    Args:
        field_studies: their ids.
        part: ``train`` or ``holdout``.
    """
    columns = ", ".join(f'"{name}"' for name in [study.id, *study.feature_names, study.target.name])
    return con.sql(
        f"""SELECT field_study, {columns} FROM field_study_rows
        WHERE part = ? AND field_study IN (SELECT unnest(?)) ORDER BY field_study, row_number""",  # noqa: S608
        params=[part, list(field_studies)],
    ).to_arrow_table()
