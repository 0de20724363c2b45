"""Which respondents are held out: settled when a field study is taken in, and never changed after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import duckdb
import numpy as np

from poleng_assets.study import Study

# Set aside: neither learned from nor judged by, because either would let the other side look over.
Part = Literal["train", "holdout", "set_aside"]


def part_of(ids: Iterable[str], holdout_share: float) -> np.ndarray:
    """Return ``"holdout"`` or ``"train"`` for each id: the part of somebody who resembles nobody.

    The id's hash is read as a number in [0, 1): the same respondent falls on the same side for
    every later model version and for both contestants, whatever else is in the data. Where other
    people gave the very same answers, :func:`keep_duplicates_together` has the last word.

    Args:
        ids: respondent ids, length n.
        holdout_share: share that falls into the holdout, in (0, 1).

    Returns:
        Shape (n,), of type object.
    """
    limit = int(holdout_share * 2**64)
    held = [
        int.from_bytes(hashlib.sha256(f"holdout:{one}".encode()).digest()[:8], "big") < limit for one in ids
    ]
    return np.where(np.asarray(held, dtype=bool), "holdout", "train").astype(object)


def keep_duplicates_together(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> None:
    """Settle the parts of a field study so that no id and no set of answers is on both sides.

    The study's rows stand in the warehouse with the parts of :func:`part_of`; rows of other field
    studies are frozen and stay as they are. Answers are the same when all features are, whatever the
    target; two missing answers are the same. Then

    - rows with the answers of a frozen row follow it;
    - other rows with the same answers follow the one among them whose id is frozen, or else the one
      whose id sorts first (not the one with the smallest hash: that would hold out nearly every
      set of answers that many people share);
    - a row whose id is frozen on another side than the one its answers ask for is set aside, and so is
      one whose frozen likes are on both sides already.

    The outcome depends on ids and answers alone, not on the order of rows. Rows that were set aside
    earlier ask for nothing. To be called inside the transaction that inserted the rows.

    Args:
        con: of the warehouse.
        study: names the id and the features.
        name: of the field study that was inserted last.
    """
    answers = ", ".join(f'"{column}"' for column in study.feature_names)
    # Names with a leading underscore cannot be those of a survey column.
    con.execute(
        f"""UPDATE field_study_rows SET part = settled._part FROM (
            WITH _rows AS (
                SELECT *, field_study <> $name AND part <> 'set_aside' AS _frozen FROM field_study_rows
            ), _asked AS (
                SELECT *,
                    min(part) FILTER (_frozen) OVER _same_id AS _by_id,
                    max(part) FILTER (_frozen) OVER _same_id AS _by_id_too,
                    min(part) FILTER (_frozen) OVER _same_answers AS _by_answers,
                    max(part) FILTER (_frozen) OVER _same_answers AS _by_answers_too
                FROM _rows
                WINDOW _same_id AS (PARTITION BY "{study.id}"), _same_answers AS (PARTITION BY {answers})
            ), _together AS (
                SELECT *, coalesce(_by_answers, first_value(coalesce(_by_id, part)) OVER (
                    PARTITION BY {answers} ORDER BY _by_id IS NULL, "{study.id}")) AS _common
                FROM _asked WHERE field_study = $name
            )
            SELECT row_number AS _row, CASE
                WHEN _by_id <> _common OR _by_id <> _by_id_too OR _by_answers <> _by_answers_too
                THEN 'set_aside' ELSE _common END AS _part
            FROM _together
        ) settled
        WHERE field_study = $name AND row_number = settled._row AND part <> settled._part""",  # noqa: S608
        {"name": name},
    )
