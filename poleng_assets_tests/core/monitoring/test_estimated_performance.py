"""Performance without labels: the value, its interval, what was lost, and whether it can be trusted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from poleng_assets.core.monitoring.drift import quiet
from poleng_assets.core.monitoring.estimated_performance import METRICS, Estimation, estimate, trust
from poleng_assets.core.monitoring.measurements import Estimate, Loss, Trust
from poleng_assets.core.statistics.calibration import fit
from poleng_assets.core.statistics.poststratification import WeightedReference, poststratify
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies

TARGET = "political_engagement"
PER_PERSON = ("log_loss", "brier")
MIN_ROWS, MIN_COMPARABLE, SMOOTHING_ROWS, RESAMPLES = 20, 0.5, 3.0, 300
KINDS = np.array(["1", "2", "3"])


def draw(seed: int, rows: int, spread: float = 1.2) -> pd.DataFrame:
    """Draw people whose scores are their true probabilities, with their target."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, rows)
    score = expit(random.normal(-0.7 + 0.4 * kind, spread))
    return pd.DataFrame(
        {
            "kind": KINDS[kind],
            "score": score,
            "contact": (score >= 0.5).astype(int),
            TARGET: (random.random(rows) < score).astype(int),
        }
    )


def estimated(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study, *, within: bool = False
) -> Estimation:
    there, here = (reference["kind"], batch["kind"]) if within else (None, None)
    found = poststratify(there, here, (len(reference), len(batch)), MIN_ROWS, MIN_COMPARABLE)
    return estimated_of(found, reference, batch, study)


def estimated_of(
    found: WeightedReference,
    reference: pd.DataFrame,
    batch: pd.DataFrame,
    study: Study,
    resamples: int = RESAMPLES,
) -> Estimation:
    with quiet(), ThreadPoolExecutor(1) as beside:
        drawing = beside.submit(found.bootstrap_weights, resamples, 23, SMOOTHING_ROWS)
        return estimate(reference, batch.drop(columns=TARGET), found, drawing, study, beside)


def get(estimation: Estimation, metric: str = "auc") -> Estimate:
    (found,) = (one for one in estimation.estimates if one.metric == metric)
    return found


def loss_of(estimation: Estimation) -> Loss:
    assert estimation.loss is not None
    return estimation.loss


def log_odds(scores: pd.Series) -> np.ndarray:
    return np.asarray(logit(scores.to_numpy()))


def expected_auc(probability: np.ndarray) -> float:
    """Return the AUC that is expected when these probabilities are true, over all pairs of people."""
    above = (probability[:, None] > probability) + (probability[:, None] == probability) / 2
    pairs = probability[:, None] * (1 - probability)
    return float((pairs * above).sum() / pairs.sum())


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return draw(1, 1_500)


@pytest.fixture(scope="module")
def batch() -> pd.DataFrame:
    return draw(2, 800)


@pytest.fixture(scope="module")
def usual(reference: pd.DataFrame, batch: pd.DataFrame, study: Study) -> Estimation:
    return estimated(reference, batch, study)


# Values


def test_the_estimated_auc_is_the_one_expected_of_calibrated_scores(
    usual: Estimation, reference: pd.DataFrame, batch: pd.DataFrame
):
    line = fit(log_odds(reference["score"]), reference[TARGET].to_numpy())
    assert get(usual).value == pytest.approx(
        expected_auc(line.probability(log_odds(batch["score"]))), abs=0.002
    )


def test_the_other_estimates_are_those_expected_of_calibrated_scores(
    usual: Estimation, reference: pd.DataFrame, batch: pd.DataFrame
):
    line = fit(log_odds(reference["score"]), reference[TARGET].to_numpy())
    p, contact = line.probability(log_odds(batch["score"])), batch["contact"].to_numpy() == 1
    s = batch["score"].to_numpy()
    by_hand = {
        "precision": p[contact].mean(),
        "recall": p[contact].sum() / p.sum(),
        "accuracy": np.where(contact, p, 1 - p).mean(),
        "log_loss": -(p * np.log(s) + (1 - p) * np.log(1 - s)).mean(),
        "brier": (p * (1 - s) ** 2 + (1 - p) * s**2).mean(),
    }
    assert {metric: get(usual, metric).value for metric in by_hand} == pytest.approx(by_hand, abs=1e-4)


def test_every_metric_is_estimated_within_its_interval(usual: Estimation):
    assert {one.metric for one in usual.estimates} == {*METRICS.values(), *PER_PERSON}
    assert [one for one in usual.estimates if not 0 <= one.lower < one.value < one.upper] == []
    assert [one for one in usual.estimates if one.metric not in PER_PERSON and one.upper > 1] == []


def test_the_reference_value_is_what_was_realised_there(usual: Estimation, reference: pd.DataFrame):
    from sklearn.metrics import (
        brier_score_loss,
        log_loss,
        precision_score,
        recall_score,
    )

    target, score, contact = reference[TARGET], reference["score"], reference["contact"]
    realised = {
        "auc": roc_auc_score(target, score),
        "precision": precision_score(target, contact),
        "recall": recall_score(target, contact),
        "accuracy": (target == contact).mean(),
        "log_loss": log_loss(target, score),
        "brier": brier_score_loss(target, score),
    }
    assert {one.metric: one.reference for one in usual.estimates} == pytest.approx(realised)


def test_the_reference_value_is_that_of_people_of_the_batchs_kinds(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    of_one_kind = batch[batch["kind"] == "2"].reset_index(drop=True)
    found = estimated(reference, of_one_kind, study, within=True)
    like = reference[reference["kind"] == "2"]
    assert get(found).reference == pytest.approx(roc_auc_score(like[TARGET], like["score"]), abs=0.002)
    brier = np.square(like["score"] - like[TARGET]).mean()
    assert get(found, "brier").reference == pytest.approx(brier)


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 0.0), (0.5, 1.0)])
def test_scores_that_are_no_probabilities_are_put_right_first(
    usual: Estimation,
    reference: pd.DataFrame,
    batch: pd.DataFrame,
    study: Study,
    slope: float,
    intercept: float,
):
    there, here = (
        f.assign(score=expit(intercept + slope * log_odds(f["score"]))) for f in (reference, batch)
    )
    found = estimated(there, here, study)
    assert get(found).value == pytest.approx(get(usual).value, abs=1e-4)
    assert get(found, "precision").value == pytest.approx(get(usual, "precision").value, abs=1e-4)
    assert loss_of(found).value == pytest.approx(loss_of(usual).value, abs=1e-4)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_of_exactly_nothing_or_one_are_no_obstacle(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study, score: float
):
    here, there = batch.copy(), reference.copy()
    here.loc[:3, "score"] = score
    there.loc[:3, "score"] = score
    found = estimated(there, here, study)
    assert 0.5 < get(found).value < 1
    assert all(np.isfinite([one.value, one.lower, one.upper]).all() for one in found.estimates)


def test_scores_that_tell_nobody_apart_are_expected_to_rank_like_chance(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    found = estimated(reference, batch.assign(score=0.3, contact=0), study)
    assert get(found).value == pytest.approx(0.5, abs=0.01)


def test_a_decision_that_nobody_gets_has_no_precision_and_the_rest_is_estimated(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    found = estimated(reference, batch.assign(contact=0), study)
    assert {"auc", "accuracy"} <= {one.metric for one in found.estimates}
    assert all(np.isfinite(one.value) for one in found.estimates)


def test_a_figure_that_the_reference_does_not_have_is_none_and_no_nan(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    found = estimated(reference.assign(contact=0), batch, study)
    for one in found.estimates:
        assert one.reference is None or np.isfinite(one.reference), one
        # Nor is anything certain.
        assert one.lower < one.upper, one


# One class


@pytest.mark.parametrize("code", [0, 1])
def test_a_reference_of_one_class_gives_no_estimate(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study, code: int
):
    assert estimated(reference.assign(**{TARGET: code}), batch, study) == Estimation((), None, float("inf"))


def test_a_reference_with_one_class_among_the_batchs_kinds_gives_no_estimate(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    there = reference.assign(**{TARGET: reference[TARGET].where(reference["kind"] != "2", 0)})
    here = batch[batch["kind"] == "2"].reset_index(drop=True)
    assert estimated(there, here, study, within=True) == Estimation((), None, float("inf"))
    assert estimated(there, here, study).loss is not None


# Intervals


def test_a_smaller_reference_widens_the_interval(reference: pd.DataFrame, batch: pd.DataFrame, study: Study):
    large = estimated(draw(3, 6_000), batch, study).half_width
    small = estimated(draw(4, 300), batch, study).half_width
    expected = np.sqrt((1 + 800 / 300) / (1 + 800 / 6_000))
    assert small / large == pytest.approx(expected, rel=0.2)


def test_a_larger_batch_narrows_the_interval(reference: pd.DataFrame, study: Study):
    wide, narrow = (estimated(reference, draw(5, rows), study).half_width for rows in (200, 3_000))
    expected = np.sqrt((1 / 200 + 1 / 1_500) / (1 / 3_000 + 1 / 1_500))
    assert wide / narrow == pytest.approx(expected, rel=0.15)


def test_people_who_weigh_more_are_fewer(reference: pd.DataFrame, batch: pd.DataFrame, study: Study):
    even = estimated(reference, batch, study, within=True)
    of_one_kind = batch.assign(kind="2")
    assert estimated(reference, of_one_kind, study, within=True).half_width > 1.2 * even.half_width


def test_the_interval_is_as_wide_as_it_is_said_to_be(usual: Estimation):
    auc = get(usual)
    assert auc.upper - auc.value == pytest.approx(usual.half_width)
    assert auc.value - auc.lower == pytest.approx(usual.half_width)


def test_intervals_of_shares_stay_between_nothing_and_one(reference: pd.DataFrame, study: Study):
    there, here = (
        f.assign(score=np.where(f[TARGET] == 1, 0.97, 0.03), contact=f[TARGET])
        for f in (reference, draw(6, 60))
    )
    found = estimated(there, here, study)
    assert [one for one in found.estimates if one.lower < 0] == []
    assert [one for one in found.estimates if one.metric not in PER_PERSON and one.upper > 1] == []


# Fresh references and batches of one population


def realised(rows: pd.DataFrame) -> dict[str, float]:
    target, score, contact = rows[TARGET], rows["score"], rows["contact"] == 1
    return {
        "auc": roc_auc_score(target, score),
        "accuracy": (target == contact).mean(),
        "precision": target[contact].mean(),
        "recall": contact[target == 1].mean(),
        "log_loss": -np.log(np.where(target == 1, score, 1 - score)).mean(),
        "brier": np.square(score - target).mean(),
    }


DRAWS = 60


@pytest.fixture(scope="module")
def fresh(study: Study) -> list[tuple[Estimation, pd.DataFrame]]:
    pairs = [(draw(10_000 + seed, 800), draw(20_000 + seed, 400)) for seed in range(DRAWS)]
    return [(estimated(there, here, study), here) for there, here in pairs]


@pytest.mark.parametrize("metric", ["auc", "accuracy", "precision", "recall", "log_loss", "brier"])
def test_what_is_realised_lies_in_the_interval_nearly_always(
    fresh: list[tuple[Estimation, pd.DataFrame]], metric: str
):
    inside = sum(
        get(one, metric).lower <= realised(rows)[metric] <= get(one, metric).upper for one, rows in fresh
    )
    # Of 100 intervals 95 hold it; so few as this by chance once in a thousand times.
    assert inside >= binom.ppf(0.001, DRAWS, 0.95)


def test_intervals_are_not_so_wide_that_they_say_nothing(fresh: list[tuple[Estimation, pd.DataFrame]]):
    errors = [get(one).value - realised(rows)["auc"] for one, rows in fresh]
    assert np.mean([one.half_width for one, _ in fresh]) < 1.6 * 1.96 * np.std(errors)


def test_the_error_of_a_loss_is_how_much_losses_of_unchanged_batches_vary(
    fresh: list[tuple[Estimation, pd.DataFrame]],
):
    losses = [loss_of(one) for one, _ in fresh]
    said = np.mean([loss.error for loss in losses])
    found = np.std([loss.value for loss in losses])
    assert 1 / 1.4 < said / found < 1.4
    assert abs(np.mean([loss.value for loss in losses])) < 3 * found / np.sqrt(DRAWS)


def test_unchanged_batches_are_seldom_said_to_lose(fresh: list[tuple[Estimation, pd.DataFrame]]):
    likely = sum(loss_of(one).is_above(0.0, 0.95) for one, _ in fresh)
    assert likely <= binom.ppf(0.999, DRAWS, 0.05)
    assert not any(loss_of(one).is_above(0.0, 0.9999) for one, _ in fresh)


# Loss


def test_a_batch_like_the_reference_loses_nothing(usual: Estimation):
    loss = loss_of(usual)
    assert abs(loss.value) < 3 * loss.error
    assert 0 < loss.error < 0.02


def test_a_loss_compares_what_is_expected_on_both_sides(
    usual: Estimation, reference: pd.DataFrame, batch: pd.DataFrame
):
    # What was realised on the reference is more of an accident than what is expected of it.
    line = fit(log_odds(reference["score"]), reference[TARGET].to_numpy())
    there, here = (expected_auc(line.probability(log_odds(rows["score"]))) for rows in (reference, batch))
    assert loss_of(usual).value == pytest.approx(there - here, abs=3e-4)


def test_scores_squeezed_to_the_middle_lose(reference: pd.DataFrame, batch: pd.DataFrame, study: Study):
    squeezed = batch.assign(score=expit(-0.5 + 0.4 * log_odds(batch["score"])))
    loss = loss_of(estimated(reference, squeezed, study))
    assert loss.value > 0.05
    assert loss.is_above(0.03, 0.998)


def test_scores_spread_to_the_ends_are_expected_to_gain(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    spread = batch.assign(score=expit(2 * log_odds(batch["score"])))
    assert loss_of(estimated(reference, spread, study)).value < -0.03


def test_another_mix_of_known_kinds_loses_nothing_against_people_of_its_kinds(study: Study):
    # One kind is hard to tell apart, the others are easy.
    there, here = (
        rows.assign(score=score, **{TARGET: np.random.default_rng(seed).random(len(rows)) < score})
        for seed, rows in ((1, draw(31, 3_000)), (2, draw(32, 1_500)))
        for score in [expit(np.where(rows["kind"] == "2", 0.3, 1.5) * log_odds(rows["score"]))]
    )
    there[TARGET] = there[TARGET].astype(int)
    hard = here[here["kind"] == "2"].reset_index(drop=True)
    against_all, within = (loss_of(estimated(there, hard, study, within=w)) for w in (False, True))
    assert against_all.is_above(0.03, 0.998)
    assert abs(within.value) < 0.03
    assert not within.is_above(0.0, 0.998)


def test_the_same_people_give_the_same_estimate(
    reference: pd.DataFrame, batch: pd.DataFrame, usual: Estimation, study: Study
):
    assert estimated(reference, batch, study) == usual


def test_the_order_of_the_people_does_not_matter(
    reference: pd.DataFrame, batch: pd.DataFrame, usual: Estimation, study: Study
):
    shuffled = batch.sample(frac=1, random_state=1)
    again = estimated(reference, shuffled, study)
    assert get(again).value == pytest.approx(get(usual).value)
    assert loss_of(again).error == pytest.approx(loss_of(usual).error)


def test_the_target_may_be_called_otherwise(
    reference: pd.DataFrame, batch: pd.DataFrame, usual: Estimation, study: Study
):
    other = study.model_copy(update={"target": study.target.model_copy(update={"name": "turned_away"})})
    found = poststratify(None, None, (1_500, 800), MIN_ROWS, MIN_COMPARABLE)
    renamed = reference.rename(columns={TARGET: "turned_away"})
    again = estimated_of(found, renamed, batch, other)
    assert [one.value for one in again.estimates] == [one.value for one in usual.estimates]
    assert (again.loss, again.half_width) == (usual.loss, usual.half_width)


def test_weights_of_people_nobody_is_like_do_not_touch_the_calibration(
    reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    here = batch[batch["kind"] == "2"].reset_index(drop=True)
    # Whatever is wrong with the others.
    there = reference.assign(
        **{TARGET: reference[TARGET].where(reference["kind"] == "2", 1 - reference[TARGET])}
    )
    first, second = (estimated(rows, here, study, within=True) for rows in (reference, there))
    assert get(second).value == pytest.approx(get(first).value, abs=1e-9)


# Trust

# The first rule that fits says why the estimate is not trusted.
DOUBTS: list[tuple[dict[str, Any], str]] = [
    ({"outside": True}, "out of distribution"),
    ({"width": float("inf")}, "there is no estimate"),
    ({"width": 0.031}, "too few people: the AUC is known to ±0.031 only, ±0.030 is required"),
    ({"shifted": True}, "only outcomes can confirm it"),
    ({}, ""),
]


@pytest.mark.parametrize(
    "case",
    [
        dict(zip(("outside", "width", "shifted"), values, strict=True))
        for values in product((False, True), (0.01, 0.03, 0.031, float("inf")), (False, True))
    ],
    ids=str,
)
def test_an_estimate_is_trusted_when_there_is_no_reason_to_doubt_it(study: Study, case: dict[str, Any]):
    why = next(words for rule, words in DOUBTS if rule.items() <= case.items())
    estimation = Estimation((), Loss(0.0, 0.01), case["width"])
    said = trust(estimation, 0.051 if case["outside"] else 0.05, case["shifted"], study)
    assert said.trusted is (why == "")
    assert why in said.why_not
    assert bool(said.why_not) is not said.trusted


def test_how_near_an_estimate_has_to_be_is_the_studys(study: Study):
    estimation = Estimation((), Loss(0.0, 0.01), 0.05)
    under = with_policies(study, overseer={"trusted_within": 0.06})
    assert trust(estimation, 0.0, False, under) == Trust(True)
    assert not trust(estimation, 0.0, False, study).trusted


def test_a_match_of_many_strata_is_no_obstacle(reference: pd.DataFrame, study: Study):
    few = reference.iloc[:120].reset_index(drop=True)
    strata: WeightedReference = poststratify(few["kind"], few["kind"], (120, 120), MIN_ROWS, MIN_COMPARABLE)
    assert strata.within
    found = estimated_of(strata, few, few, study, resamples=100)
    assert get(found).lower < get(found).reference < get(found).upper  # type: ignore[operator]
