"""Intervals from a formula, held against tables."""

from __future__ import annotations

import math

import pytest

from poleng_assets.core.statistics.intervals import wilson_interval


@pytest.mark.parametrize(
    ("hits", "rows", "by_hand"),
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_wilson_intervals_are_those_of_the_tables(hits: int, rows: int, by_hand: tuple[float, float]):
    assert wilson_interval(hits, rows) == pytest.approx(by_hand, abs=1e-4)


def test_a_share_of_nobody_has_no_interval():
    assert all(math.isnan(end) for end in wilson_interval(0, 0))
