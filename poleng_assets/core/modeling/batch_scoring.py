"""Scoring a batch: rows go block by block from the warehouse through the model; only the scores stay."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from poleng_assets.core.data.parallel import prefetch
from poleng_assets.core.modeling.model import Model
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.predictions import people_between

BLOCK_ROWS = 100_000


def stored_blocks(warehouse: Warehouse, batch: str, last_row: int) -> Iterator[pa.Table]:
    """Read the people of a batch, so many row numbers at a time; the file is let go after each block.

    Args:
        last_row: its greatest row number; below 0 when it has no rows.
    """
    for first in range(0, last_row + 1, BLOCK_ROWS):
        with warehouse.read() as con:
            block = people_between(con, warehouse.study, batch, first, first + BLOCK_ROWS)
        yield block


def score_blocks(blocks: Iterable[pa.Table], model: Model, study: Study) -> list[pa.Table]:
    """Score everybody in blocks of rows; the next block is read meanwhile, and none is kept.

    Args:
        blocks: the id and the features.

    Returns:
        A table for each block: ``id``, ``score`` (a probability) and ``contact`` (by the model's rule,
        without its capacity).
    """
    scores = []
    for block in prefetch(block for block in blocks if block.num_rows):
        score = model.score(block)
        scores.append(pa.table({"id": block[study.id], "score": score, "contact": model.rule.decide(score)}))
    return scores
