"""Scoring a batch outside of the graph, as its asset does it, for tools that measure."""

from __future__ import annotations

from poleng_assets.core.modeling.batch_scoring import score_blocks, stored_blocks
from poleng_assets.core.modeling.model import Model
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.predictions import count_scored, last_row, replace_predictions
from poleng_assets.warehouse.writes import transaction


def score_batch(warehouse: Warehouse, model: Model, batch: str, version: int) -> tuple[int, int]:
    """Score a batch and write it; return how many people it has, and how many are to be contacted."""
    with warehouse.read() as con:
        last = last_row(con, batch)
    blocks = score_blocks(stored_blocks(warehouse, batch, last), model, warehouse.study)
    with warehouse.connect() as con:
        with transaction(con):
            replace_predictions(con, warehouse.study, batch, version, blocks, model.rule.capacity)
        return count_scored(con, batch, version)
