"""What is said when the registry names another version than the ledger."""

from __future__ import annotations

import pytest

from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.warehouse.decisions import ServingDecision


@pytest.mark.parametrize(("decision", "alias"), [(None, None), (ServingDecision(2, 1, "better"), 2)])
def test_nothing_is_said_when_they_agree(decision: ServingDecision | None, alias: int | None):
    assert registry_conflict(decision, alias) == ""


def test_an_alias_of_which_an_empty_ledger_knows_nothing_is_named():
    words = registry_conflict(None, 3)
    assert "points to version 3, but the ledger has no promotion" in words
    assert "`poleng restore`" in words


def test_an_alias_that_points_elsewhere_is_named_with_both_ways_out():
    words = registry_conflict(ServingDecision(2, 1, "better", frozenset({1, 2})), 1)
    assert "the ledger says that version 2 serves (better)" in words
    assert "points to version 1, without a decision" in words
    assert "`poleng rollback --to 2` restores it" in words
    assert "`poleng rollback --to 1` lets version 1 serve" in words


def test_a_version_that_never_passed_the_gates_is_not_offered():
    assert "--to 3" not in registry_conflict(ServingDecision(2, 1, "better", frozenset({1, 2})), 3)


def test_an_alias_that_is_gone_is_named():
    words = registry_conflict(ServingDecision(2, 1, "better"), None)
    assert "'champion' is missing" in words
    assert words.endswith("`poleng rollback --to 2` restores it")
