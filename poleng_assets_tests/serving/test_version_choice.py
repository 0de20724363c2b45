"""Whom to answer with, when the graph, the registry and the ledger do not say the same."""

from __future__ import annotations

from poleng_assets.serving.version_choice import NO_CHAMPION, Choice, LedgerClosed, choose
from poleng_assets.warehouse.decisions import ServingDecision


def never() -> ServingDecision | None:
    raise AssertionError("the ledger must not be asked")


def closed() -> ServingDecision | None:
    raise LedgerClosed("a batch is being scored")


def says(version: int) -> ServingDecision:
    return ServingDecision(version, version - 1, "it won", frozenset({1, 2}))


def test_without_a_champion_nobody_answers_and_the_ledger_is_left_alone():
    assert choose(None, None, None, never) == Choice(None, NO_CHAMPION)


def test_when_graph_and_registry_agree_the_ledger_is_left_alone():
    assert choose(2, 2, 1, never) == Choice(2)


def test_a_promotion_that_was_not_told_yet_is_no_doubt():
    assert choose(1, 2, 1, lambda: says(2)) == Choice(2)


def test_an_alias_moved_by_hand_is_not_followed_and_is_told():
    choice = choose(1, 2, 1, lambda: says(1))
    assert choice.version == 1
    assert "points to version 2, without a decision" in choice.doubt
    assert "poleng rollback --to 1" in choice.doubt


def test_an_alias_that_is_gone_changes_nothing_and_is_told():
    choice = choose(1, None, 1, lambda: says(1))
    assert choice.version == 1
    assert "is missing" in choice.doubt


def test_while_the_ledger_cannot_be_read_the_one_who_answers_goes_on():
    choice = choose(1, 2, 1, closed)
    assert choice.version == 1
    assert "a batch is being scored" in choice.doubt
    assert choose(1, 2, None, closed).version is None


def test_a_ledger_that_knows_of_no_champion_is_told():
    choice = choose(1, 2, 1, lambda: None)
    assert choice.version == 1
    assert "the ledger has no champion" in choice.doubt
