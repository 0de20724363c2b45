"""Champion against challenger: each gate from both sides of its limit."""

from __future__ import annotations

import pytest

from poleng_assets.core.promotion import Gate, contest_gates, promoted, reason, sanity_gates
from poleng_assets.study import PromotionPolicy

# Limits that binary fractions hold exactly, so that "just at the limit" means it.
POLICY = PromotionPolicy(
    min_auc=0.625,
    flagged_share=(0.125, 0.5),
    min_log_loss_gain=0.0625,
    max_auc_loss=0.03125,
    max_known_auc_loss=0.125,
)
A_BIT = 2**-20
CHAMPION = {"log_loss": 0.5, "auc": 0.75}
BETTER = {"log_loss": 0.25, "auc": 0.875}


def failed(gates: list[Gate]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


def contest(
    challenger: dict[str, float] = BETTER,
    champion: dict[str, float] = CHAMPION,
    challenger_known: dict[str, float] = BETTER,
    champion_known: dict[str, float] = CHAMPION,
) -> list[Gate]:
    return contest_gates(challenger, champion, challenger_known, champion_known, POLICY)


# Sanity


@pytest.mark.parametrize(
    ("auc", "flagged", "stopped_by"),
    [
        (0.75, 0.25, []),
        (0.625, 0.25, []),
        (0.625 - A_BIT, 0.25, ["ranks people"]),
        (float("nan"), 0.25, ["ranks people"]),
        (0.75, 0.125, []),
        (0.75, 0.125 - A_BIT, ["flags a sensible share"]),
        (0.75, 0.5, []),
        (0.75, 0.5 + A_BIT, ["flags a sensible share"]),
        (0.75, float("nan"), ["flags a sensible share"]),
        (0.5, 0.99, ["ranks people", "flags a sensible share"]),
    ],
)
def test_a_model_is_sane_within_its_limits_only(auc: float, flagged: float, stopped_by: list[str]):
    assert failed(sanity_gates({"auc": auc, "flagged_share": flagged}, POLICY)) == stopped_by


def test_a_model_whose_ranking_is_unknown_is_not_sane():
    gates = sanity_gates({"flagged_share": 0.25}, POLICY)
    assert failed(gates) == ["ranks people"]
    assert gates[0].words == "AUC on the holdout unknown, at least 0.625 is needed"


def test_a_sanity_gate_speaks_in_figures():
    gates = sanity_gates({"auc": 0.71234, "flagged_share": 0.2468}, POLICY)
    assert [gate.words for gate in gates] == [
        "AUC on the holdout 0.7123, at least 0.625 is needed",
        "flags 24.7% of the holdout, between 12% and 50% is sensible",
    ]


# The contest


def test_a_challenger_that_is_better_everywhere_passes():
    assert failed(contest()) == []


@pytest.mark.parametrize(
    ("log_loss", "stopped_by"),
    [
        (0.5 - 0.0625, []),
        (0.5 - 0.0625 + A_BIT, ["better log-loss"]),
        (0.5, ["better log-loss"]),
        (0.75, ["better log-loss"]),
        (float("nan"), ["better log-loss"]),
    ],
)
def test_log_loss_must_gain_as_much_as_the_policy_asks(log_loss: float, stopped_by: list[str]):
    assert failed(contest({**BETTER, "log_loss": log_loss})) == stopped_by


@pytest.mark.parametrize(
    ("auc", "stopped_by"),
    [
        (0.75, []),
        (0.75 - 0.03125, []),
        (0.75 - 0.03125 - A_BIT, ["no worse ranking"]),
        (float("nan"), ["no worse ranking"]),
    ],
)
def test_ranking_may_lose_as_much_as_the_policy_allows(auc: float, stopped_by: list[str]):
    assert failed(contest({**BETTER, "auc": auc})) == stopped_by


@pytest.mark.parametrize(
    ("auc", "stopped_by"),
    [
        (0.75, []),
        (0.75 - 0.125, []),
        (0.75 - 0.125 - A_BIT, ["keeps what was known"]),
        (float("nan"), ["keeps what was known"]),
    ],
)
def test_known_populations_may_lose_as_much_as_the_policy_allows(auc: float, stopped_by: list[str]):
    assert failed(contest(challenger_known={"log_loss": 0.5, "auc": auc})) == stopped_by


def test_a_challenger_without_a_ranking_does_not_beat_one_with():
    assert failed(contest({"log_loss": 0.25}, challenger_known={"log_loss": 0.25})) == [
        "no worse ranking",
        "keeps what was known",
    ]


def test_the_same_model_again_is_not_better():
    assert failed(contest(CHAMPION, CHAMPION, CHAMPION, CHAMPION)) == ["better log-loss"]


def test_the_shipped_policy_stops_a_model_that_forgets_what_was_known(study):
    gates = contest_gates(
        {"log_loss": 0.55, "auc": 0.75},
        {"log_loss": 0.60, "auc": 0.70},
        {"log_loss": 0.55, "auc": 0.70},
        {"log_loss": 0.50, "auc": 0.76},
        study.policies.promotion,
    )
    assert failed(gates) == ["keeps what was known"]


def test_a_contest_gate_speaks_in_figures():
    worse = contest({"log_loss": 0.45, "auc": 0.71234}, challenger_known={"auc": 0.5, "log_loss": 1.0})
    assert [gate.words for gate in worse] == [
        "log-loss 0.4500 against 0.5000: gain +0.0500, at least 0.0625 is needed",
        "AUC 0.7123 against 0.7500",
        "AUC on the populations that the champion knew 0.5000 against 0.7500, a loss of 0.125 is tolerated",
    ]


# The decision

PASSED, FAILED, ALSO_FAILED = Gate("a", True, "good"), Gate("b", False, "bad"), Gate("c", False, "worse")


@pytest.mark.parametrize(
    ("gates", "so"),
    [
        ([], False),
        ([PASSED], True),
        ([FAILED], False),
        ([PASSED, FAILED], False),
        ([PASSED, PASSED], True),
    ],
)
def test_a_challenger_is_promoted_when_it_passed_every_gate_there_is(gates: list[Gate], so: bool):
    assert promoted(gates) is so


@pytest.mark.parametrize(
    ("gates", "why"),
    [
        ([PASSED, FAILED, ALSO_FAILED], "bad; worse"),
        ([PASSED, Gate("d", True, "also good")], "good"),
        ([], ""),
    ],
)
def test_the_reason_is_all_that_failed_or_the_first_that_passed(gates: list[Gate], why: str):
    assert reason(gates) == why
