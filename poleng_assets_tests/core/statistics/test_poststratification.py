"""Whom a batch is compared with: people of its kind, in its mix, and what chance makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.statistics.poststratification import (
    MAX_EXPANDED_ROWS,
    WeightedReference,
    poststratify,
    systematic_sample,
)

MIN_ROWS, MIN_COMPARABLE, SMOOTHING_ROWS = 20, 0.5, 3.0
REFERENCE = pd.Series(["1"] * 400 + ["2"] * 300 + ["3"] * 200 + ["4"] * 100).sample(
    frac=1, random_state=1, ignore_index=True
)
BATCH = pd.Series(["3"] * 500 + ["1"] * 300 + ["4"] * 100 + ["2"] * 10).sample(
    frac=1, random_state=2, ignore_index=True
)


def matched(reference: pd.Series, batch: pd.Series, min_rows: int = MIN_ROWS) -> WeightedReference:
    return poststratify(reference, batch, (len(reference), len(batch)), min_rows, MIN_COMPARABLE)


def weighted_mix(found: WeightedReference, reference: pd.Series) -> dict[Any, float]:
    return pd.Series(found.weights).groupby(reference.to_numpy()).sum().to_dict()


def is_everybody(found: WeightedReference, reference: pd.Series, batch: pd.Series) -> bool:
    (stratum,) = found.strata
    return (
        not found.within
        and bool(found.comparable.all())
        and np.array_equal(stratum[0], np.arange(len(reference)))
        and np.array_equal(stratum[1], np.arange(len(batch)))
        and np.allclose(found.weights, 1 / len(reference))
    )


# Weights


def test_the_weighted_reference_has_the_mix_of_the_batch():
    found = matched(REFERENCE, BATCH)
    assert found.within
    assert found.comparable.all()
    assert found.weights.sum() == pytest.approx(1)
    assert weighted_mix(found, REFERENCE) == pytest.approx(BATCH.value_counts(normalize=True).to_dict())


def test_people_of_a_kind_weigh_the_same():
    found = matched(REFERENCE, BATCH)
    assert (pd.Series(found.weights).groupby(REFERENCE).nunique() == 1).all()


def test_a_batch_of_the_references_own_mix_weighs_everybody_alike():
    found = matched(REFERENCE, REFERENCE.sample(frac=1, random_state=3))
    np.testing.assert_allclose(found.weights, 1 / len(REFERENCE))


def test_those_whom_nobody_in_the_batch_is_like_weigh_nothing():
    found = matched(REFERENCE, pd.Series(["2"] * 50))
    assert set(REFERENCE[found.weights > 0]) == {"2"}
    assert found.weights.sum() == pytest.approx(1)


def test_the_strata_hold_each_comparable_row_once():
    found = matched(REFERENCE, pd.concat([BATCH, pd.Series(["9"] * 50)], ignore_index=True))
    here = np.concatenate([of_batch for _, of_batch in found.strata])
    assert sorted(here) == list(np.flatnonzero(found.comparable)) == list(range(len(BATCH)))
    for of_reference, of_batch in found.strata:
        assert set(REFERENCE.iloc[of_reference]) == set(BATCH.iloc[of_batch])


@pytest.mark.parametrize(("known", "comparable"), [(MIN_ROWS - 1, False), (MIN_ROWS, True)])
def test_people_whose_like_are_too_few_are_not_comparable(known: int, comparable: bool):
    reference = pd.Series(["1"] * 400 + ["7"] * known)
    batch = pd.Series(["1"] * 60 + ["7"] * 40)
    found = matched(reference, batch)
    assert found.within
    assert list(found.comparable) == [True] * 60 + [comparable] * 40
    mix = {"1": 0.6, "7": 0.4} if comparable else {"1": 1.0, "7": 0.0}
    assert weighted_mix(found, reference) == pytest.approx(mix)


@pytest.mark.parametrize(("strangers", "within"), [(50, True), (51, False), (100, False)])
def test_when_fewer_than_half_are_comparable_everybody_is_compared_with_everybody(
    strangers: int, within: bool
):
    batch = pd.Series(["1"] * (100 - strangers) + ["9"] * strangers)
    found = matched(REFERENCE, batch)
    assert found.within is within
    assert is_everybody(found, REFERENCE, batch) is not within


def test_without_a_feature_to_compare_within_everybody_is_compared_with_everybody():
    assert is_everybody(poststratify(None, None, (1000, 910), MIN_ROWS, MIN_COMPARABLE), REFERENCE, BATCH)


def test_an_empty_batch_is_compared_with_everybody():
    found = poststratify(REFERENCE, BATCH.iloc[:0], (1000, 0), MIN_ROWS, MIN_COMPARABLE)
    assert is_everybody(found, REFERENCE, BATCH.iloc[:0])


def test_a_missing_answer_is_an_answer_like_any_other():
    reference = pd.Series(["1"] * 60 + [None] * 30 + ["2"] * 10)
    batch = pd.Series([None] * 80 + ["1"] * 20)
    found = matched(reference, batch)
    assert found.comparable.all()
    assert found.weights[reference.isna()].sum() == pytest.approx(0.8)
    assert found.weights[reference == "1"].sum() == pytest.approx(0.2)


def test_missing_answers_that_the_reference_does_not_have_are_not_comparable():
    batch = pd.Series(["1"] * 60 + [None] * 40)
    assert list(matched(REFERENCE, batch).comparable) == [True] * 60 + [False] * 40


@pytest.mark.parametrize("none", [None, np.nan, pd.NA, ""], ids=repr)
def test_every_way_to_give_no_answer_is_the_same(none: Any):
    reference = pd.Series([None] * 50 + ["1"] * 50, dtype=object)
    batch = pd.Series([none] * 75 + ["1"] * 25, dtype=object)
    assert matched(reference, batch).weights[:50].sum() == pytest.approx(0.75)


TYPINGS: dict[str, Any] = {
    "integers": lambda codes: codes.astype("int64"),
    "nullable integers": lambda codes: codes.astype("Int64"),
    "floats": lambda codes: codes.astype("float64"),
    "text": lambda codes: codes.astype(str),
    "text of floats": lambda codes: codes.astype("float64").astype(str),
    "padded text": lambda codes: " " + codes.astype(str) + " ",
    "categories": lambda codes: codes.astype("category"),
}


@pytest.mark.parametrize("typed", TYPINGS.values(), ids=TYPINGS.keys())
def test_codes_match_however_they_are_typed(typed: Any):
    plain = matched(REFERENCE, BATCH)
    for found in (matched(REFERENCE, typed(BATCH)), matched(typed(REFERENCE), BATCH)):
        np.testing.assert_array_equal(found.weights, plain.weights)
        np.testing.assert_array_equal(found.comparable, plain.comparable)


def test_the_index_of_the_rows_does_not_matter():
    plain = matched(REFERENCE, BATCH)
    found = matched(REFERENCE.set_axis([7] * len(REFERENCE)), BATCH.set_axis(range(len(BATCH), 0, -1)))
    np.testing.assert_array_equal(found.weights, plain.weights)
    np.testing.assert_array_equal(found.comparable, plain.comparable)


# How many they are


def test_equal_weights_are_as_many_as_they_are():
    assert poststratify(None, None, (1000, 10), MIN_ROWS, MIN_COMPARABLE).effective_rows == pytest.approx(
        1000
    )


def test_unequal_weights_are_worth_fewer_people():
    # Kish: the square of the sum over the sum of squares.
    found = matched(pd.Series(["1"] * 100 + ["2"] * 100), pd.Series(["1"] * 75 + ["2"] * 25))
    assert found.effective_rows == pytest.approx(200**2 / (100 * 1.5**2 + 100 * 0.5**2))


def test_only_those_who_count_are_counted():
    assert matched(REFERENCE, pd.Series(["4"] * 50)).effective_rows == pytest.approx(100)


# Repeated rows


@pytest.mark.parametrize("seed", range(20))
def test_a_systematic_draw_is_never_off_by_one(seed: int):
    random = np.random.default_rng(seed)
    weights = random.gamma(random.choice([0.05, 0.5, 5]), size=random.integers(1, 400))
    rows = int(random.integers(1, 3_000))
    positions = systematic_sample(weights, rows)
    assert len(positions) == rows
    counts = np.bincount(positions, minlength=len(weights))
    assert np.abs(counts - rows * weights / weights.sum()).max() < 1


def test_a_systematic_draw_keeps_the_order_of_the_rows():
    positions = systematic_sample(np.random.default_rng(1).random(300), 1_000)
    assert (np.diff(positions) >= 0).all()
    np.testing.assert_array_equal(
        positions, systematic_sample(np.random.default_rng(1).random(300) * 17, 1_000)
    )


def test_a_systematic_draw_of_equal_weights_takes_each_equally_often():
    np.testing.assert_array_equal(systematic_sample(np.ones(50), 150), np.repeat(np.arange(50), 3))


def test_a_systematic_draw_takes_nobody_without_weight():
    weights = np.array([0.0, 0.3, 0.0, 0.0, 0.7, 0.0])
    assert set(systematic_sample(weights, 999)) == {1, 4}


@pytest.mark.parametrize("seed", range(5))
def test_repeated_rows_have_the_weighted_shares(seed: int):
    random = np.random.default_rng(seed)
    reference = pd.Series(random.choice(list("1234567"), 800, p=random.dirichlet(np.ones(7) * 3)))
    batch = pd.Series(random.choice(list("1234567"), 500, p=random.dirichlet(np.ones(7) * 3)))
    found = matched(reference, batch, min_rows=2)
    positions = found.expand_rows()
    counts = np.bincount(positions, minlength=len(reference))
    assert np.abs(counts / len(positions) - found.weights).max() < 1 / len(positions)
    shares = reference.iloc[positions].value_counts(normalize=True)
    mix = batch[found.comparable].value_counts(normalize=True)
    assert (shares - mix).abs().max() <= 1.001 / len(positions)


@pytest.mark.parametrize("rows", [1_000, 6_000, MAX_EXPANDED_ROWS])
@pytest.mark.parametrize("share", [0.7, 0.75, 0.9])
def test_repeated_rows_have_the_mix_of_the_batch_when_kinds_take_turns_in_the_reference(
    rows: int, share: float
):
    # A systematic draw along such rows meets the same places of each pair again and again.
    reference = pd.Series(np.arange(rows) % 2)
    found = matched(reference, pd.Series([0] * round(share * 100) + [1] * round((1 - share) * 100)))
    positions = found.expand_rows()
    assert reference.iloc[positions].mean() == pytest.approx(1 - share, abs=1.001 / len(positions))


def test_rows_are_repeated_at_most_so_often():
    reference = pd.Series(np.repeat([0, 1], MAX_EXPANDED_ROWS // 2))
    found = matched(reference, pd.Series([0] * 30 + [1] * 10))
    assert len(found.expand_rows()) == MAX_EXPANDED_ROWS
    assert reference.iloc[found.expand_rows()].mean() == pytest.approx(0.25, abs=0.001)


def test_without_strata_every_row_is_taken_once():
    np.testing.assert_array_equal(
        poststratify(None, None, (30, 7), MIN_ROWS, MIN_COMPARABLE).expand_rows(), np.arange(30)
    )


# Rows of different people


@pytest.mark.parametrize("seed", range(5))
def test_distinct_rows_take_nobody_twice_and_have_the_mix_of_the_batch(seed: int):
    random = np.random.default_rng(seed)
    reference = pd.Series(random.choice(list("1234567"), 800, p=random.dirichlet(np.ones(7) * 3)))
    batch = pd.Series(random.choice(list("1234567"), 500, p=random.dirichlet(np.ones(7) * 3)))
    found = matched(reference, batch, min_rows=2)
    positions = found.distinct()
    assert len(set(positions)) == len(positions) == int(1 / found.weights.max())
    shares = reference.iloc[positions].value_counts(normalize=True)
    mix = batch[found.comparable].value_counts(normalize=True)
    assert shares.sub(mix, fill_value=0).abs().max() < 0.05


@pytest.mark.parametrize("rows", [1, 30, 49, 1_500, 4_321])
def test_without_strata_every_row_is_a_different_one(rows: int):
    np.testing.assert_array_equal(
        poststratify(None, None, (rows, 7), MIN_ROWS, MIN_COMPARABLE).distinct(), np.arange(rows)
    )


# Resamples

RESAMPLES = 800


@pytest.fixture(scope="module")
def found() -> WeightedReference:
    return matched(REFERENCE, pd.concat([BATCH, pd.Series(["9"] * 90)], ignore_index=True))


@pytest.fixture(scope="module")
def drawn(found: WeightedReference) -> tuple[np.ndarray, np.ndarray]:
    return found.bootstrap_weights(RESAMPLES, 23, SMOOTHING_ROWS)


@pytest.mark.parametrize("within", [True, False])
def test_each_resample_weighs_every_row_of_the_reference(found: WeightedReference, within: bool):
    chosen = found if within else poststratify(None, None, (len(REFERENCE), 640), MIN_ROWS, MIN_COMPARABLE)
    reference, batch = chosen.bootstrap_weights(50, 23, SMOOTHING_ROWS)
    assert reference.shape == batch.shape == (50, len(REFERENCE))
    assert reference.min() >= 0
    assert batch.min() >= 0
    np.testing.assert_allclose(reference.sum(axis=1), 1, rtol=1e-4)
    # The batch is drawn as large as its comparable part is.
    np.testing.assert_array_equal(batch.sum(axis=1), int(chosen.comparable.sum()))


def test_resamples_are_on_average_what_they_are_drawn_from(
    found: WeightedReference, drawn: tuple[np.ndarray, np.ndarray]
):
    reference, batch = drawn
    for mean in (reference.mean(axis=0), batch.mean(axis=0) / found.comparable.sum()):
        mix = pd.Series(mean).groupby(REFERENCE).sum()
        # A few are borrowed from the other strata, more of them in the small ones.
        expected = pd.Series(found.weights).groupby(REFERENCE).sum()
        assert (mix - expected).abs().max() < 0.015
        assert np.corrcoef(mean, found.weights)[0, 1] > 0.98


def test_resamples_of_everybody_are_plain_bootstraps():
    reference, batch = poststratify(None, None, (200, 60), MIN_ROWS, MIN_COMPARABLE).bootstrap_weights(
        2_000, 1, SMOOTHING_ROWS
    )
    counts = reference * 200
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    assert counts.var() == pytest.approx(1, abs=0.05)
    assert batch.mean() == pytest.approx(60 / 200)
    assert batch.var() == pytest.approx(60 / 200, abs=0.02)


def test_the_reference_and_the_batch_are_drawn_independently(drawn: tuple[np.ndarray, np.ndarray]):
    reference, batch = (one - one.mean(axis=0) for one in drawn)
    assert abs(np.corrcoef(reference.ravel(), batch.ravel())[0, 1]) < 0.01


def test_a_small_stratum_can_be_drawn_with_answers_that_it_lacks():
    # Twenty people of one kind, all alike; the answers of others are rare among them, not impossible.
    reference = pd.Series(["1"] * 480 + ["2"] * 20)
    (of_reference, of_batch) = matched(reference, pd.Series(["2"] * 100)).bootstrap_weights(
        300, 5, SMOOTHING_ROWS
    )
    for weights in (of_reference, of_batch):
        lent = weights[:, :480].sum() / weights.sum()
        assert lent == pytest.approx(3 / 23 * 480 / 500, abs=0.02)


def test_the_same_seed_draws_the_same_people(found: WeightedReference, drawn: tuple[np.ndarray, np.ndarray]):
    for again, first in zip(found.bootstrap_weights(RESAMPLES, 23, SMOOTHING_ROWS), drawn, strict=True):
        np.testing.assert_array_equal(again, first)
    other, _ = found.bootstrap_weights(RESAMPLES, 24, SMOOTHING_ROWS)
    assert not np.array_equal(other, drawn[0])
