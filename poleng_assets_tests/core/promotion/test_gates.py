"""Champion against challenger: each gate from both sides of its limit."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from poleng_assets.core.promotion.gates import (
    Gate,
    Holdout,
    contest,
    contest_gates,
    promoted,
    reason,
    sanity_gates,
)
from poleng_assets.study.policies import PromotionPolicy

POLICY = PromotionPolicy(
    min_auc=0.6,
    max_auc=0.95,
    flagged_share=(0.05, 0.6),
    min_score_spread=0.02,
    min_distinct_scores=20,
    calibration_bins=10,
    max_calibration_error=0.05,
    fine_calibration_error=0.02,
    max_calibration_loss=0.01,
    min_log_loss_gain=0.002,
    max_auc_loss=0.0,
    max_population_log_loss_loss=0.005,
    max_group_log_loss_loss=0.01,
    min_group_rows=100,
    confidence=0.95,
    resamples=200,
    seed=1,
    shadow_batches=0,
)
ROWS = 4_000
RANDOM = np.random.default_rng(7)
TRUTH = RANDOM.normal(-0.6, 1.3, ROWS)  # the log-odds of each person
TARGET = (RANDOM.random(ROWS) < 1 / (1 + np.exp(-TRUTH))).astype(int)
BLUR, OTHER_BLUR = RANDOM.normal(0, 1, (2, ROWS))
HOLDOUT = Holdout(
    TARGET,
    np.where(np.arange(ROWS) < ROWS * 0.6, "old", "new").astype(object),
    {"Colour": np.array(["red", "blue"], dtype=object)[np.arange(ROWS) % 2]},
)
OLD = HOLDOUT.population == "old"
RED = HOLDOUT.groups["Colour"] == "red"


def probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def blurred(by: float, noise: np.ndarray = BLUR) -> np.ndarray:
    """The best estimate of somebody who sees each person's log-odds through noise."""
    trust = 1.3**2 / (1.3**2 + by**2)
    return probability(-0.6 + trust * (TRUTH + by * noise + 0.6))


CHAMPION, BETTER = blurred(0.8), blurred(0.3)


def policy(**changes: Any) -> PromotionPolicy:
    return POLICY.model_copy(update=changes)


def failed(gates: list[Gate]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


def gate(name: str, gates: list[Gate]) -> Gate:
    (found,) = [one for one in gates if one.name == name]
    return found


def flagged(score: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return score >= threshold


def sane(score: np.ndarray, threshold: float = 0.5, **changes: Any) -> list[Gate]:
    return sanity_gates(HOLDOUT, score, flagged(score, threshold), policy(**changes))


def against(challenger: np.ndarray, champion: np.ndarray = CHAMPION, **changes: Any) -> list[Gate]:
    return contest_gates(HOLDOUT, challenger, champion, policy(**changes))


def just_above(value: float) -> float:
    return math.nextafter(value, math.inf)


def just_below(value: float) -> float:
    return math.nextafter(value, -math.inf)


# Sanity


def test_an_honest_model_is_sane():
    assert failed(sane(BETTER)) == []


def test_ranking_may_be_as_low_as_the_policy_says_and_no_lower():
    auc = gate("ranks people", sane(BETTER)).figures["auc"]
    assert auc == pytest.approx(roc_auc_score(TARGET, BETTER))
    assert failed(sane(BETTER, min_auc=auc)) == []
    assert failed(sane(BETTER, min_auc=just_above(auc))) == ["ranks people"]


def test_ranking_may_be_as_high_as_the_policy_says_and_no_higher():
    auc = gate("ranks people", sane(BETTER)).figures["auc"]
    assert failed(sane(BETTER, max_auc=auc)) == []
    assert failed(sane(BETTER, max_auc=just_below(auc))) == ["is not too good to be true"]


def test_a_model_that_knows_the_answer_is_refused():
    leaked = np.clip(TARGET + RANDOM.normal(0, 0.02, ROWS), 0, 1)
    assert "is not too good to be true" in failed(sane(leaked))


def test_an_inverted_model_does_not_rank_people():
    assert "ranks people" in failed(sane(1 - BETTER))


def test_a_model_whose_ranking_is_unknown_is_not_sane():
    nobody = Holdout(np.zeros(ROWS, dtype=int), HOLDOUT.population)
    gates = sanity_gates(nobody, BETTER, flagged(BETTER), POLICY)
    assert {"ranks people", "is not too good to be true"} <= set(failed(gates))
    assert gates[0].words == "AUC on the holdout unknown, at least 0.600 is required"


def test_the_share_flagged_may_touch_both_ends_of_its_band():
    shares = [(BETTER >= 0.5)[rows].mean() for rows in (np.full(ROWS, True), OLD, ~OLD)]
    low, high = float(min(shares)), float(max(shares))
    assert failed(sane(BETTER, flagged_share=(low, high))) == []
    assert failed(sane(BETTER, flagged_share=(just_above(low), 1.0))) == ["flags a sensible share"]
    assert failed(sane(BETTER, flagged_share=(0.0, just_below(high)))) == ["flags a sensible share"]


def test_who_is_flagged_is_what_the_rule_says_and_not_what_a_threshold_would():
    few_at_the_top = np.zeros(ROWS, dtype=bool)
    few_at_the_top[np.argsort(-BETTER)[: ROWS // 50]] = True
    assert failed(sanity_gates(HOLDOUT, BETTER, few_at_the_top, POLICY)) == ["flags a sensible share"]
    assert "flags a sensible share" in failed(contest(HOLDOUT, BETTER, CHAMPION, few_at_the_top, POLICY))
    # Low scores are no fault when the rule contacts a sensible share of them all the same.
    assert gate("flags a sensible share", sanity_gates(HOLDOUT, BETTER / 10, BETTER >= 0.5, POLICY)).passed


def test_one_population_flagged_as_a_whole_does_not_hide_in_the_mean():
    flood = np.where(OLD, BETTER * 0.9, 0.5 + BETTER / 2)
    flagging = gate("flags a sensible share", sane(flood))
    assert flagging.figures["flagged_share"] < 0.6
    assert not flagging.passed
    assert "new 100.0%" in flagging.words


def test_scores_must_spread_as_much_as_the_policy_says():
    spread = float(BETTER.std())
    assert failed(sane(BETTER, min_score_spread=spread)) == []
    assert failed(sane(BETTER, min_score_spread=just_above(spread))) == ["is not constant"]


def test_scores_must_take_as_many_values_as_the_policy_says():
    coarse = np.round(BETTER * 20) / 20
    values = len(np.unique(coarse))
    assert failed(sane(coarse, min_distinct_scores=values)) == []
    assert failed(sane(coarse, min_distinct_scores=values + 1)) == ["is not constant"]


def test_a_constant_is_refused_by_ranking_and_by_spread():
    assert failed(sane(np.full(ROWS, TARGET.mean()), threshold=0.3)) == [
        "ranks people",
        "flags a sensible share",
        "is not constant",
    ]


def test_calibration_error_may_be_as_large_as_the_policy_says():
    shifted = probability(np.log(BETTER / (1 - BETTER)) + 0.5)
    figures = gate("means what it says", sane(shifted)).figures
    assert 0.05 < figures["calibration_error"] < 0.15
    limit = math.sqrt(figures["calibration_error"] ** 2 - figures["by_chance"] ** 2)
    assert failed(sane(shifted, max_calibration_error=limit + 1e-9)) == []
    assert failed(sane(shifted, max_calibration_error=limit - 1e-9)) == ["means what it says"]


def test_a_small_holdout_is_not_blamed_for_what_chance_makes_of_its_calibration():
    few = slice(0, 150)
    holdout, score = Holdout(TARGET[few], HOLDOUT.population[few]), BETTER[few]
    gates = sanity_gates(holdout, score, flagged(score), POLICY)
    calibration = gate("means what it says", gates)
    assert calibration.figures["calibration_error"] > POLICY.max_calibration_error
    assert calibration.passed


# The contest


def test_a_challenger_that_is_better_everywhere_passes():
    assert failed(against(BETTER)) == []
    assert promoted(contest(HOLDOUT, BETTER, CHAMPION, flagged(BETTER), POLICY))


def test_the_same_model_again_is_not_better():
    assert failed(against(CHAMPION)) == ["better log-loss"]


def test_a_worse_model_is_refused_for_its_log_loss_and_its_ranking():
    assert {"better log-loss", "no worse ranking"} <= set(failed(against(CHAMPION, BETTER)))


def test_log_loss_must_gain_as_much_as_the_policy_asks():
    gain = gate("better log-loss", against(BETTER)).figures["gain"]
    assert gain == pytest.approx(log_loss(TARGET, CHAMPION) - log_loss(TARGET, BETTER))
    assert failed(against(BETTER, min_log_loss_gain=gain)) == []
    assert failed(against(BETTER, min_log_loss_gain=just_above(gain))) == ["better log-loss"]


def test_a_gain_that_another_draw_of_people_could_undo_is_no_gain():
    few = slice(0, 60)
    holdout = Holdout(TARGET[few], HOLDOUT.population[few])
    gates = contest_gates(holdout, blurred(0.75, OTHER_BLUR)[few], CHAMPION[few], policy(min_log_loss_gain=0))
    found = gate("better log-loss", gates)
    assert found.figures["gain_at_least"] < 0
    assert not found.passed


def test_a_gain_is_sure_or_not_as_the_asked_confidence_says():
    nudge = np.zeros(ROWS)
    nudge[0], nudge[1:40] = 0.4, 0.002
    better = np.clip(np.where(TARGET == 1, CHAMPION + nudge, CHAMPION - nudge), 0.001, 0.999)
    few = slice(0, 40)
    holdout = Holdout(TARGET[few], HOLDOUT.population[few])
    assert "better log-loss" not in failed(contest_gates(holdout, better[few], CHAMPION[few], POLICY))
    assert "better log-loss" in failed(contest_gates(holdout, CHAMPION[few], better[few], POLICY))


def test_ranking_may_surely_lose_as_much_as_the_policy_allows():
    worse = blurred(1.2)
    at_most = gate("no worse ranking", against(worse)).figures["gain_at_most"]
    assert at_most < 0
    assert "no worse ranking" not in failed(against(worse, max_auc_loss=-at_most))
    assert "no worse ranking" in failed(against(worse, max_auc_loss=just_below(-at_most)))


def test_a_loss_of_ranking_that_may_be_chance_is_forgiven():
    other = blurred(0.8, OTHER_BLUR)
    one, two = sorted((other, CHAMPION), key=lambda score: roc_auc_score(TARGET, score))
    found = gate("no worse ranking", against(one, two))
    assert found.figures["gain"] < 0 < found.figures["gain_at_most"]
    assert found.passed


@pytest.mark.parametrize(
    ("part", "rows", "name", "limit"),
    [
        ("old", OLD, "keeps every population", "max_population_log_loss_loss"),
        ("Colour: red", RED, "keeps every protected group", "max_group_log_loss_loss"),
    ],
)
def test_a_part_may_surely_lose_as_much_as_the_policy_allows(
    part: str, rows: np.ndarray, name: str, limit: str
):
    forgetful = np.where(rows, blurred(1.3), blurred(0.01))
    found = gate(name, against(forgetful))
    surely = found.figures[f"{part}: loss_at_least"]
    assert 0.01 < surely < found.figures[f"{part}: loss"]
    assert found.figures[f"{part}: rows"] == rows.sum()
    assert not found.passed
    assert f"log-loss rises too much for {part} +0." in found.words
    assert gate(name, against(forgetful, CHAMPION, **{limit: surely})).passed
    assert not gate(name, against(forgetful, CHAMPION, **{limit: just_below(surely)})).passed


def test_a_model_that_forgets_the_old_population_is_refused_although_it_is_better_on_the_whole(study):
    champion = np.where(OLD, blurred(0.4), blurred(4.0))
    challenger = np.where(OLD, blurred(0.9), blurred(0.1))
    gates = contest(HOLDOUT, challenger, champion, flagged(challenger), study.policies.promotion)
    assert failed(gates) == ["keeps every population"]


def test_a_group_that_is_too_small_is_not_judged_on_its_own():
    small = np.where(np.arange(ROWS) < 99, "few", "many").astype(object)
    holdout = Holdout(TARGET, HOLDOUT.population, {"Colour": small})
    unfair = np.where(small == "few", 1 - BETTER, BETTER)
    name = "keeps every protected group"
    assert gate(name, contest_gates(holdout, unfair, CHAMPION, POLICY)).passed
    assert not gate(name, contest_gates(holdout, unfair, CHAMPION, policy(min_group_rows=99))).passed


def test_without_any_group_that_is_large_enough_the_gate_says_so():
    found = gate("keeps every protected group", against(BETTER, min_group_rows=ROWS))
    assert found.passed
    assert found.words == "no group has the required 4000 people"


@pytest.mark.parametrize("limit", ["max_calibration_loss", "fine_calibration_error"])
def test_calibration_may_be_lost_within_the_policy(limit: str):
    timid = probability(0.45 * np.log(BETTER / (1 - BETTER)) - 0.3)
    figures = gate("keeps calibration", against(timid)).figures
    mine = figures["challenger"]
    at_limit = {
        "max_calibration_loss": mine - figures["champion"],
        "fine_calibration_error": math.sqrt(mine**2 - figures["by_chance"] ** 2),
    }[limit]
    strict = {"max_calibration_loss": 0.0, "fine_calibration_error": 0.0}
    assert gate("keeps calibration", against(timid, CHAMPION, **strict | {limit: at_limit + 1e-9})).passed
    assert not gate("keeps calibration", against(timid, CHAMPION, **strict | {limit: at_limit - 1e-9})).passed


def test_probabilities_that_lie_are_refused_although_log_loss_and_ranking_gain():
    sure = probability(1.7 * np.log(blurred(0.05) / (1 - blurred(0.05))))
    assert failed(against(sure, blurred(1.5))) == ["keeps calibration"]


# The whole verdict


def test_the_first_champion_needs_the_sanity_gates_only():
    assert contest(HOLDOUT, BETTER, None, flagged(BETTER), POLICY) == sane(BETTER)


def test_a_contest_asks_ten_gates_and_the_weightiest_first():
    gates = contest(HOLDOUT, BETTER, CHAMPION, flagged(BETTER), POLICY)
    assert len({gate.name for gate in gates}) == 10
    assert gates[0].name == "better log-loss"
    assert reason(gates).startswith("log-loss 0.")


def test_the_same_scores_give_the_same_verdict():
    assert contest(HOLDOUT, BETTER, CHAMPION, flagged(BETTER), POLICY) == contest(
        HOLDOUT, BETTER, CHAMPION, flagged(BETTER), POLICY
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf, -0.01, 1.01])
def test_scores_that_are_no_probabilities_are_refused_at_once(broken: float):
    scores = BETTER.copy()
    scores[3] = broken
    (only,) = contest(HOLDOUT, scores, CHAMPION, flagged(scores), POLICY)
    assert not only.passed
    assert only.figures == {"unusable_share": pytest.approx(1 / ROWS)}


def test_nobody_is_promoted_by_an_empty_holdout():
    empty = Holdout(np.empty(0), np.empty(0, dtype=object))
    assert not promoted(contest(empty, np.empty(0), None, np.empty(0, dtype=bool), POLICY))


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="Colour has 1 rows, the target 2"):
        Holdout(np.array([0, 1]), np.array(["a", "a"]), {"Colour": np.array(["red"])})


@pytest.mark.parametrize("positives", [0, 1, 2, ROWS])
def test_the_verdict_is_valid_json_even_when_figures_are_undefined(positives: int):
    holdout = Holdout((np.arange(ROWS) < positives).astype(int), HOLDOUT.population, HOLDOUT.groups)
    gates = contest(holdout, BETTER, CHAMPION, flagged(BETTER), POLICY)
    json.dumps([vars(gate) for gate in gates], allow_nan=False)
    assert not promoted(gates)


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


@pytest.mark.parametrize("everybody", [True, False], ids=["everybody", "nobody"])
def test_no_gate_is_wide_enough_for_a_model_that_tells_nobody_apart(everybody: bool):
    wide = POLICY.model_copy(
        update={
            "min_auc": 0.0,
            "max_auc": 1.0,
            "flagged_share": (0.0, 1.0),
            "min_score_spread": 0.0,
            "min_distinct_scores": 2,
            "max_calibration_error": 1.0,
        }
    )
    flagged = np.full(len(BETTER), everybody)
    assert failed(contest(HOLDOUT, BETTER, None, flagged, wide)) == ["flags a sensible share"]
    assert failed(contest(HOLDOUT, BETTER, None, BETTER >= 0.5, wide)) == []
    constant = np.full(len(BETTER), 0.5)
    constant[0] += 1e-12
    assert "is not constant" in failed(contest(HOLDOUT, constant, None, BETTER >= 0.5, wide))
