"""Which version may serve instead of the champion."""

from __future__ import annotations

import pytest

from poleng_assets.core.promotion.rollback import RollbackRefused, rollback_target


@pytest.mark.parametrize(
    ("serving", "served", "wanted", "target"),
    [
        (2, {1, 2}, None, 1),
        (4, {1, 2, 4}, None, 2),  # 3 was rejected
        (2, {1, 2, 4}, None, 1),  # 4 was taken back already
        (2, {1, 2, 4}, 4, 4),
        (4, {1, 2, 4}, 1, 1),
    ],
)
def test_the_version_promoted_before_comes_back_unless_another_is_named(serving, served, wanted, target):
    assert rollback_target(serving, served, wanted) == target


@pytest.mark.parametrize(
    ("serving", "served", "wanted", "why"),
    [
        (None, set(), None, "no model serves yet"),
        (1, {1}, None, "no version was promoted before version 1"),
        (2, {1, 2}, 2, "version 2 serves already"),
        (2, {1, 2}, 3, "version 3 was never promoted; versions that were: 1"),
    ],
)
def test_a_version_that_may_not_serve_is_refused_in_words(serving, served, wanted, why):
    with pytest.raises(RollbackRefused, match=why):
        rollback_target(serving, served, wanted)
