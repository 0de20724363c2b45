"""What NannyML's figures say about a batch, with the traps that it lays."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import nannyml
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.monitoring import drift
from poleng_assets.core.monitoring.drift import measure_batch
from poleng_assets.core.monitoring.measurements import (
    ALL_COLUMNS,
    COMPOSITION,
    CONTACT,
    DISTANCES,
    DOMAIN_CLASSIFIER,
    JENSEN_SHANNON,
    L_INFINITY,
    MISSING,
    OUT_OF_RANGE,
    QUARANTINED,
    RECONSTRUCTION,
    SCORE,
    UNSEEN,
    BatchMeasurements,
    DriftMetric,
    Estimate,
    Trust,
)
from poleng_assets.core.monitoring.verdict import Judgement, judge
from poleng_assets.core.statistics.intervals import wilson_interval
from poleng_assets.simulation.population import synthesise
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import scored_by, with_policies

ALL = (*DISTANCES, COMPOSITION, MISSING, UNSEEN, OUT_OF_RANGE)


class Measure:
    """Measures frames against the reference, as the drift report does."""

    def __init__(self, reference: pd.DataFrame, encoder: Encoder, study: Study) -> None:
        self.reference, self.encoder, self.study = reference, encoder, study

    def __call__(
        self, batch: pd.DataFrame, reference: pd.DataFrame | None = None, **more: Any
    ) -> BatchMeasurements:
        rows = more.pop("rows", len(batch))
        return measure_batch(
            self.reference if reference is None else reference,
            batch,
            self.encoder.unseen(batch),
            self.study,
            rows=rows,
            contacts=more.pop("contacts", int(batch["contact"].sum())),
            **more,
        )

    def under(self, **policies: Any) -> Measure:
        return Measure(self.reference, self.encoder, with_policies(self.study, overseer=policies))


@pytest.fixture(scope="module")
def measure(reference: pd.DataFrame, model: Model, study: Study) -> Measure:
    return Measure(reference, model.encoder, with_policies(study, overseer={"resamples": 200}))


@pytest.fixture(scope="module")
def batch(reference: pd.DataFrame, study: Study) -> pd.DataFrame:
    """A batch like the reference: 900 of its people, without their target."""
    return reference.sample(900, random_state=5).drop(columns=study.target.name).reset_index(drop=True)


@pytest.fixture(scope="module")
def usual(measure: Measure, batch: pd.DataFrame) -> BatchMeasurements:
    return measure(batch)


@pytest.fixture(scope="module")
def fresh(model: Model, study: Study) -> pd.DataFrame:
    """3,000 people of the founding population whom neither the model nor the reference has."""
    rows = synthesise(study, rows=3_000, seed=99, part="clean")
    return scored_by(model, rows.drop(columns=[study.id, study.target.name]))


@pytest.fixture(scope="module")
def drifted_batch(model: Model, newcomers: pd.DataFrame, study: Study) -> pd.DataFrame:
    return scored_by(model, newcomers.drop(columns=[study.id, study.target.name]))


@pytest.fixture(scope="module")
def drifted(measure: Measure, drifted_batch: pd.DataFrame) -> BatchMeasurements:
    return measure(drifted_batch)


def figure(measured: BatchMeasurements, column: str, method: str) -> DriftMetric:
    found = [f for f in measured.metrics if (f.column_name, f.method) == (column, method)]
    assert len(found) == 1, found
    assert measured.metric(column, method) is found[0]
    return found[0]


def of(measured: BatchMeasurements, method: str) -> dict[str, DriftMetric]:
    return {f.column_name: f for f in measured.metrics if f.method == method}


def shifted(measured: BatchMeasurements) -> set[str]:
    return {f.column_name for f in measured.alerts(*DISTANCES)}


# Like the reference


def test_a_batch_like_the_reference_raises_no_alert(usual: BatchMeasurements):
    assert usual.alerts(*ALL) == []


def test_the_reference_itself_is_at_no_distance(measure: Measure, reference: pd.DataFrame, study: Study):
    # Rounding makes a distance of nothing slightly negative, and its root no number.
    measured = measure(reference.drop(columns=study.target.name))
    distances = [f.value for f in measured.metrics if f.method in (*DISTANCES, COMPOSITION)]
    assert len(distances) == 2 * 33 + 1
    assert distances == pytest.approx([0.0] * len(distances), abs=0.01)
    assert measured.alerts(*ALL) == []


@pytest.mark.parametrize("method", DISTANCES)
def test_every_feature_the_score_and_the_decision_have_a_distance(
    usual: BatchMeasurements, study: Study, method: str
):
    measured = {name for name, f in of(usual, method).items() if f.value is not None}
    # The two are weighed to be equal in the country; it has its composition.
    assert measured == {*study.feature_names, SCORE, CONTACT} - {"country"}
    assert set(of(usual, COMPOSITION)) == {"country"}


def test_no_figure_stands_twice(usual: BatchMeasurements):
    counts = Counter((f.column_name, f.method) for f in usual.metrics)
    assert [key for key, count in counts.items() if count > 1] == []


def test_every_feature_has_a_share_of_missing_answers(usual: BatchMeasurements, study: Study):
    missing = {name: f.value for name, f in of(usual, MISSING).items()}
    assert missing == dict.fromkeys(study.feature_names, 0.0)


def test_every_feature_with_categories_has_a_share_of_unseen_codes(usual: BatchMeasurements, study: Study):
    unseen = {name: f.value for name, f in of(usual, UNSEEN).items()}
    assert unseen == {f.name: 0.0 for f in study.features if not f.is_ordinal}


def test_every_feature_with_an_order_has_a_share_out_of_range(usual: BatchMeasurements, study: Study):
    beyond = {name: f.value for name, f in of(usual, OUT_OF_RANGE).items()}
    assert beyond == {f.name: 0.0 for f in study.features if f.is_ordinal}


def test_limits_of_distances_lie_above_the_studys_least_one_and_the_others_are_the_studys(
    measure: Measure, batch: pd.DataFrame
):
    policies = {"min_distance": 0.11, "max_outside_support": 0.23, "max_missing_rise": 0.24}
    measured = measure.under(**policies)(batch)
    assert all(f.upper_threshold >= 0.11 for m in DISTANCES for f in of(measured, m).values())  # type: ignore[operator]
    assert 0.11 in {f.upper_threshold for f in of(measured, JENSEN_SHANNON).values()}
    for method, limit in ((UNSEEN, 0.23), (OUT_OF_RANGE, 0.23), (MISSING, 0.24)):
        assert {f.upper_threshold for f in of(measured, method).values()} == {limit}


def test_a_smaller_batch_has_wider_limits(measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements):
    small = measure(batch.iloc[:150])
    for method in DISTANCES:
        for name, found in of(usual, method).items():
            assert figure(small, name, method).upper_threshold > found.upper_threshold  # type: ignore[operator]


def test_a_smaller_reference_has_wider_limits(
    measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements, reference: pd.DataFrame
):
    small = measure.under(compare_within=None)(batch, reference.iloc[:300])
    large = measure.under(compare_within=None)(batch, reference)
    for name, found in of(large, JENSEN_SHANNON).items():
        assert figure(small, name, JENSEN_SHANNON).upper_threshold > found.upper_threshold  # type: ignore[operator]


def test_the_order_of_the_rows_and_their_index_do_not_matter(
    measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements
):
    again = measure(batch.iloc[::-1].set_axis([7] * len(batch)))
    for one, other in zip(again.metrics, usual.metrics, strict=True):
        assert (one.column_name, one.method, one.alert) == (other.column_name, other.method, other.alert)
        assert one.value == pytest.approx(other.value, abs=1e-9)
        assert one.upper_threshold == pytest.approx(other.upper_threshold, rel=1e-6)
    assert [e.value for e in again.estimates] == pytest.approx([e.value for e in usual.estimates], abs=1e-5)


def test_the_index_of_the_reference_does_not_matter(
    measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements, reference: pd.DataFrame
):
    assert measure(batch, reference.set_axis([3] * len(reference))) == usual


def test_the_same_batch_has_the_same_figures_every_time(
    measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements
):
    assert measure(batch) == usual


def test_a_sample_says_how_many_it_measured(measure: Measure, batch: pd.DataFrame):
    measured = measure(batch, rows=70_000, contacts=21_000)
    assert (measured.rows, measured.rows_measured) == (70_000, len(batch))
    assert measured.flagged_share == 0.3
    assert measured.flagged_interval == pytest.approx(wilson_interval(21_000, 70_000))


def test_a_sample_of_few_rows_of_a_large_batch_is_measured(measure: Measure, batch: pd.DataFrame):
    assert measure(batch.iloc[:120], rows=5_000).loss is not None


def test_the_frames_are_left_as_they_are(measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame):
    before = batch.copy(), reference.copy()
    measure(batch)
    pd.testing.assert_frame_equal(batch, before[0])
    pd.testing.assert_frame_equal(reference, before[1])


# How columns are typed


TYPINGS = {
    "nullable integers": lambda f, names: f.astype(dict.fromkeys(names, "Int64")),
    "floats": lambda f, names: f.astype(dict.fromkeys(names, "float64")),
    "text": lambda f, names: f.astype(dict.fromkeys(names, str)),
    "pandas strings": lambda f, names: f.astype(dict.fromkeys(names, "string")),
    "categories": lambda f, names: f.astype(dict.fromkeys(names, "category")),
}


@pytest.mark.parametrize("retype", TYPINGS.values(), ids=TYPINGS.keys())
def test_how_a_batch_is_typed_does_not_change_its_figures(
    measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements, study: Study, retype: Any
):
    assert measure(retype(batch, study.feature_names)) == usual


@pytest.mark.parametrize("typing", ["nullable integers", "text"])
def test_how_the_reference_is_typed_loses_no_column(
    measure: Measure,
    batch: pd.DataFrame,
    reference: pd.DataFrame,
    usual: BatchMeasurements,
    study: Study,
    typing: str,
):
    assert measure(batch, TYPINGS[typing](reference, study.feature_names)) == usual


# Unknown people


def test_a_batch_of_new_countries_is_as_far_away_as_can_be(drifted: BatchMeasurements):
    country = figure(drifted, "country", JENSEN_SHANNON)
    assert country.value == pytest.approx(1.0)
    assert country.alert
    # There are none to compare them with: the whole reference it is.
    assert of(drifted, COMPOSITION) == {}


def test_everybody_of_a_new_country_is_outside_support(drifted: BatchMeasurements, study: Study):
    assert drifted.outside_support == 1.0
    assert figure(drifted, "country", UNSEEN) == DriftMetric("country", UNSEEN, 1.0, None, 0.05, alert=True)
    assert not drifted.trust.trusted
    assert judge(drifted, study).verdict == "untrusted"


@pytest.mark.parametrize("method", DISTANCES)
def test_alerts_come_farthest_beyond_their_limit_first(drifted: BatchMeasurements, method: str):
    excess = [f.value / f.upper_threshold for f in drifted.alerts(method)]  # type: ignore[operator]
    assert len(excess) > 2
    assert excess == sorted(excess, reverse=True)


def test_outside_support_counts_people_and_not_answers(measure: Measure, batch: pd.DataFrame):
    strange = batch.copy()
    strange.loc[:8, "country"] = "999"
    strange.loc[4:17, "religion"] = "77"
    assert measure(strange).outside_support == pytest.approx(18 / 900)


def test_a_few_people_of_a_new_country_are_left_out_of_the_comparison(
    measure: Measure, fresh: pd.DataFrame, drifted_batch: pd.DataFrame, study: Study
):
    mixed = pd.concat([fresh.iloc[:1_500], drifted_batch.iloc[:60]], ignore_index=True)
    measured = measure(mixed)
    assert measured.outside_support == pytest.approx(60 / 1_560)
    assert shifted(measured) == set()
    assert judge(measured, study).verdict == "clear"


# Another mix of known people


@pytest.fixture(scope="module")
def other_mix(fresh: pd.DataFrame) -> pd.DataFrame:
    """People of the reference's countries in other shares: the eight most frequent ones, reversed."""
    frequent = fresh["country"].value_counts().index[:8]
    parts = [fresh[fresh["country"] == name].iloc[: 15 + 12 * place] for place, name in enumerate(frequent)]
    return pd.concat(parts, ignore_index=True)


def test_another_mix_of_known_countries_is_no_shift_and_is_told(
    measure: Measure, other_mix: pd.DataFrame, study: Study
):
    measured = measure(other_mix)
    assert shifted(measured) == set()
    found = figure(measured, "country", COMPOSITION)
    assert found.alert
    assert found.value > found.upper_threshold > 0  # type: ignore[operator]
    judgement = judge(measured, study)
    assert (judgement.verdict, judgement.held) == ("clear", False)
    assert any(words.startswith("composition shift") for words in judgement.words)


def test_compared_with_everybody_another_mix_would_be_a_shift(measure: Measure, other_mix: pd.DataFrame):
    measured = measure.under(compare_within=None)(other_mix)
    assert {"country", "religion"} <= shifted(measured)
    assert of(measured, COMPOSITION) == {}


def test_one_country_alone_is_compared_with_its_own_people(
    measure: Measure, fresh: pd.DataFrame, reference: pd.DataFrame, study: Study
):
    largest = reference["country"].value_counts().index[0]
    one = fresh[fresh["country"] == largest].iloc[:200].reset_index(drop=True)
    assert len(one) >= 100
    measured = measure(one)
    assert figure(measured, "country", COMPOSITION).alert
    assert shifted(measured) == set()
    assert judge(measured, study).verdict == "clear"
    auc = measured.estimate("auc")
    assert auc is not None
    from sklearn.metrics import roc_auc_score

    like = reference[reference["country"] == largest]
    realised = roc_auc_score(like[study.target.name], like["score"])
    assert auc.reference == pytest.approx(realised, abs=0.002)


def test_a_shift_within_countries_is_seen_behind_another_mix(measure: Measure, other_mix: pd.DataFrame):
    moved = other_mix.assign(income_scale=np.where(other_mix.index % 3 == 0, 0, other_mix["income_scale"]))
    assert "income_scale" in shifted(measure(moved))


def test_a_new_single_answer_is_seen_by_the_largest_difference(measure: Measure, fresh: pd.DataFrame):
    few = fresh.iloc[:1_500].reset_index(drop=True)
    moved = few.assign(mode=np.where(few.index % 7 == 0, "2", few["mode"].astype(str)))
    found = figure(measure(moved), "mode", L_INFINITY)
    assert found.alert
    more = (moved["mode"] == "2").mean() - (few["mode"].astype(str) == "2").mean()
    assert found.value == pytest.approx(more, abs=0.04)


# What the model says


def test_moved_scores_alert(measure: Measure, batch: pd.DataFrame):
    moved = batch.assign(score=batch["score"] * 0.5, contact=0)
    assert shifted(measure(moved)) == {SCORE, CONTACT}


def test_moved_decisions_alert_by_themselves(measure: Measure, batch: pd.DataFrame):
    moved = batch.assign(contact=np.where(batch.index % 3 == 0, 1, batch["contact"]))
    assert shifted(measure(moved)) == {CONTACT}


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_the_ends_of_the_scale_have_their_bands(measure: Measure, batch: pd.DataFrame, score: float):
    found = figure(measure(batch.assign(score=score)), SCORE, JENSEN_SHANNON)
    assert found.alert
    assert found.value is not None


def test_the_share_of_contacts_is_told_with_its_interval(usual: BatchMeasurements, batch: pd.DataFrame):
    assert usual.flagged_share == batch["contact"].mean() > 0
    assert usual.flagged_interval == pytest.approx(wilson_interval(batch["contact"].sum(), 900))


def test_importance_is_told_in_shares(measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements):
    measured = measure(batch.iloc[:20], importance={"country": 3.0, "sex": 1.0})
    assert measured.importance == {"country": 0.75, "sex": 0.25}
    assert measure(batch.iloc[:20], importance={"country": 0.0}).importance == {}
    assert usual.importance == {}


# Missing answers


@pytest.mark.parametrize("column", ["education", "country", "sex"])
@pytest.mark.parametrize("nothing", [None, np.nan], ids=repr)
def test_a_column_without_any_answer_alerts(measure: Measure, batch: pd.DataFrame, column: str, nothing: Any):
    measured = measure(batch.assign(**{column: nothing}))
    assert figure(measured, column, MISSING) == DriftMetric(column, MISSING, 1.0, None, 0.1, alert=True)
    for method in DISTANCES:
        assert figure(measured, column, method).value is None
        assert figure(measured, column, method).alert
    assert measured.loss is not None
    judgement = judge(measured, measure.study)
    assert judgement.held
    assert f"missing:{column}" in judgement.causes


def test_a_reference_without_any_answer_in_a_column_does_not_crash(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame
):
    measured = measure(batch, reference.assign(education=np.nan, sex=None))
    for column in ("education", "sex"):
        assert figure(measured, column, JENSEN_SHANNON).value is None
        assert figure(measured, column, MISSING).value == 0.0
    assert "education" not in of(measured, OUT_OF_RANGE)


def test_a_column_that_nobody_ever_answers_does_not_crash(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame
):
    measured = measure(batch.assign(income_scale=np.nan), reference.assign(income_scale=np.nan))
    assert figure(measured, "income_scale", MISSING).alert is False


def test_one_missing_answer_is_no_drift(measure: Measure, batch: pd.DataFrame, study: Study):
    # DuckDB and pandas turn a column of integers with one hole into floats: 3 must not become "3.0".
    gaps = batch.copy()
    for row, feature in enumerate(study.features):
        gaps[feature.name] = gaps[feature.name].astype("float64" if feature.is_ordinal else object)
        gaps.loc[row, feature.name] = np.nan
    measured = measure(gaps)
    assert measured.alerts(*ALL) == []
    assert {f.value for f in of(measured, MISSING).values()} == {1 / 900}


def test_a_reference_with_missing_answers_is_compared_by_the_answers_there_are(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame
):
    there = reference.astype({"education": "float64"})
    there.loc[::3, "education"] = np.nan
    found = figure(measure(batch, there), "education", JENSEN_SHANNON)
    assert found.value is not None
    assert not found.alert


@pytest.mark.parametrize(("share", "alert"), [(0.09, False), (0.11, True)])
def test_missing_answers_alert_above_the_reference_and_a_rise(
    measure: Measure, batch: pd.DataFrame, share: float, alert: bool
):
    gaps = batch.astype({"religion": object})
    gaps.loc[: round(share * 900) - 1, "religion"] = None
    found = figure(measure(gaps), "religion", MISSING)
    assert (found.value, found.alert) == (pytest.approx(share), alert)


def test_answers_that_were_always_missing_do_not_alert(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame
):
    there, here = (f.astype({"religion": object}) for f in (reference, batch))
    there.loc[: len(there) // 2, "religion"] = None
    here.loc[: len(here) // 2, "religion"] = None
    found = figure(measure(here, there), "religion", MISSING)
    assert (found.upper_threshold, found.alert) == (pytest.approx(0.6, abs=0.01), False)


# Constant and odd columns


def test_a_column_that_is_the_same_for_everybody_is_no_obstacle(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame, study: Study
):
    still: dict[str, Any] = {"education": 3, "sex": "1"}
    measured = measure(batch.assign(**still), reference.assign(**still))
    for column in still:
        found = figure(measured, column, JENSEN_SHANNON)
        assert (found.value, found.alert) == (0.0, False)
        assert found.upper_threshold == study.policies.overseer.min_distance


def test_a_column_that_is_suddenly_the_same_for_everybody_alerts(measure: Measure, batch: pd.DataFrame):
    measured = measure(batch.assign(education=3))
    assert figure(measured, "education", JENSEN_SHANNON).alert
    assert figure(measured, "education", L_INFINITY).alert


def test_answers_beyond_those_of_the_reference_are_counted(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame
):
    high = reference[reference["education"] > 2].reset_index(drop=True)
    beyond = float((batch["education"] <= 2).mean())
    assert beyond > 0.05
    found = figure(measure(batch, high), "education", OUT_OF_RANGE)
    assert found == DriftMetric("education", OUT_OF_RANGE, found.value, None, 0.05, alert=True)
    assert found.value == pytest.approx(beyond)


@pytest.mark.parametrize(("quarantined", "share"), [(0, None), (100, 0.1), (900, 0.5)])
def test_the_share_of_quarantined_rows_is_told_and_never_alerts(
    measure: Measure, batch: pd.DataFrame, quarantined: int, share: float | None
):
    measured = measure(batch.iloc[:90], rows=900, contacts=0, quarantined=quarantined)
    found = measured.metric(ALL_COLUMNS, QUARANTINED)
    expected = (
        None if share is None else DriftMetric(ALL_COLUMNS, QUARANTINED, share, None, None, alert=False)
    )
    assert found == expected


# Structure


def test_answers_that_go_together_as_they_used_to_are_reconstructed_as_well(
    measure: Measure, fresh: pd.DataFrame
):
    found = figure(measure(fresh.iloc[:1_500]), ALL_COLUMNS, RECONSTRUCTION)
    assert not found.alert
    assert found.lower_threshold < found.value < found.upper_threshold  # type: ignore[operator]


def test_answers_that_no_longer_go_together_alert_though_each_is_as_frequent_as_before(
    measure: Measure, fresh: pd.DataFrame, study: Study
):
    random = np.random.default_rng(8)
    torn = fresh.iloc[:1_500].reset_index(drop=True)
    for name in study.feature_names:
        if name != "country":
            order = torn.groupby("country")[name].transform(lambda v: random.permutation(v.to_numpy()))
            torn[name] = order.to_numpy()
    measured = measure(torn)
    assert shifted(measured) == set()
    assert figure(measured, ALL_COLUMNS, RECONSTRUCTION).alert


# Small batches


@pytest.mark.parametrize("rows", [0, 1, 5, 50])
def test_a_tiny_batch_is_insufficient_and_does_not_crash(
    measure: Measure, batch: pd.DataFrame, study: Study, rows: int
):
    measured = measure(batch.iloc[:rows])
    assert (measured.rows, measured.estimates, measured.loss) == (rows, (), None)
    assert {f.method for f in measured.metrics} <= {UNSEEN}
    assert 0 <= measured.flagged_interval[0] <= measured.flagged_share <= measured.flagged_interval[1] <= 1
    assert not any(math.isnan(f.value) for f in measured.metrics if f.value is not None)
    assert measured.trust == Trust(False, "there is no estimate")
    assert judge(measured, study).verdict == "insufficient"


def test_a_tiny_batch_still_says_who_is_outside_support_and_how_many_were_quarantined(
    measure: Measure, batch: pd.DataFrame
):
    measured = measure(batch.iloc[:4].assign(country=["999", "36", "36", "999"]), quarantined=4)
    assert measured.outside_support == 0.5
    assert figure(measured, ALL_COLUMNS, QUARANTINED).value == 0.5


def test_the_smallest_batch_that_is_judged_is_measured(measure: Measure, batch: pd.DataFrame, study: Study):
    enough = study.policies.overseer.min_rows
    assert measure(batch.iloc[: enough - 1]).estimates == ()
    measured = measure(batch.iloc[:enough])
    assert measured.estimate("auc") is not None
    assert judge(measured, study).verdict != "insufficient"


# Estimates


def test_each_estimate_lies_within_its_interval(usual: BatchMeasurements):
    assert {"auc", "precision", "recall", "accuracy"} <= {e.metric for e in usual.estimates}
    assert [e for e in usual.estimates if not 0 <= e.lower < e.value < e.upper] == []


def test_the_estimate_of_a_batch_like_the_reference_is_near_the_reference(usual: BatchMeasurements):
    auc = usual.estimate("auc")
    assert auc is not None
    assert auc.value == pytest.approx(auc.reference, abs=0.03)
    assert usual.loss is not None
    assert abs(usual.loss.value) < 3 * usual.loss.error


def test_scores_that_tell_nobody_apart_are_a_loss(measure: Measure, batch: pd.DataFrame, study: Study):
    measured = measure(batch.assign(score=0.1, contact=0))
    auc = measured.estimate("auc")
    assert auc is not None
    assert auc.value == pytest.approx(0.5, abs=0.01)
    assert "estimated_loss" in judge(measured, study).causes


def test_an_estimate_that_was_not_made_is_none(usual: BatchMeasurements):
    assert usual.estimate("luck") is None
    assert usual.metric("luck", JENSEN_SHANNON) is None


def test_estimates_are_found_by_their_metric():
    auc = Estimate("auc", 0.7, 0.6, 0.8, 0.71)
    recall = Estimate("recall", 0.4, 0.3, 0.5, 0.41)
    assert BatchMeasurements(1, 1, 0.0, 0.0, estimates=(auc, recall)).estimate("recall") is recall


def test_a_reference_with_one_class_in_the_batchs_countries_estimates_nothing_and_judges_the_rest(
    measure: Measure, fresh: pd.DataFrame, reference: pd.DataFrame, study: Study
):
    largest = reference["country"].value_counts().index[0]
    one = fresh[fresh["country"] == largest].iloc[:150].reset_index(drop=True)
    target = reference[study.target.name].where(reference["country"] != largest, 0)
    measured = measure(one, reference.assign(**{study.target.name: target}))
    assert (measured.estimates, measured.loss) == ((), None)
    assert measured.trust == Trust(False, "there is no estimate")
    assert len(of(measured, JENSEN_SHANNON)) == 33
    assert judge(measured, study).verdict == "clear"


def test_the_estimate_is_doubted_where_answers_shifted(measure: Measure, batch: pd.DataFrame):
    generous = measure.under(trusted_within=0.5)
    assert generous(batch).trust == Trust(True)
    moved = generous(batch.assign(education=3))
    assert "only outcomes can confirm it" in moved.trust.why_not
    assert "too few people" in measure.under(trusted_within=0.001)(batch).trust.why_not


# The domain classifier


def test_the_domain_classifier_runs_on_request_only(
    measure: Measure, batch: pd.DataFrame, usual: BatchMeasurements, monkeypatch: pytest.MonkeyPatch
):
    assert of(usual, DOMAIN_CLASSIFIER) == {}

    def classify(*_: Any) -> list[DriftMetric]:
        return [DriftMetric.compared(ALL_COLUMNS, DOMAIN_CLASSIFIER, 0.7, 0.65)]

    monkeypatch.setattr(drift, "_domain_classifier", classify)
    assert of(measure(batch), DOMAIN_CLASSIFIER) == {}
    asked = measure.under(domain_classifier=True)(batch)
    assert figure(asked, ALL_COLUMNS, DOMAIN_CLASSIFIER).alert


def test_the_domain_classifier_tells_strangers_apart_and_nobody_else(
    measure: Measure, fresh: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    # Its own settings take a minute; what is asked of it is the same.
    calculator = nannyml.DomainClassifierCalculator

    def small(*args: Any, **named: Any) -> Any:
        few = {"n_estimators": 20, "num_leaves": 8, "min_child_samples": 40}
        return calculator(*args, **{**named, "hyperparameters": {**named.get("hyperparameters", {}), **few}})

    monkeypatch.setattr(nannyml, "DomainClassifierCalculator", small)
    asked = measure.under(domain_classifier=True)
    few = fresh.iloc[:500].reset_index(drop=True)
    like = figure(asked(few), ALL_COLUMNS, DOMAIN_CLASSIFIER)
    moved = figure(asked(few.assign(education=3, savings="1")), ALL_COLUMNS, DOMAIN_CLASSIFIER)
    assert (like.alert, moved.alert) == (False, True)
    assert like.value < 0.65 < moved.value  # type: ignore[operator]


# A study of other columns


def test_a_study_of_scales_only_has_nobody_outside_support(
    measure: Measure, reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    scales = with_policies(study, overseer={"compare_within": None}).model_copy(
        update={"features": tuple(f for f in study.features if f.is_ordinal)}
    )
    names = scales.feature_names
    encoder = Encoder(tuple(names), {})
    measured = Measure(reference[[*names, study.target.name, "score", "contact"]], encoder, scales)(batch)
    assert measured.outside_support == 0.0
    assert judge(measured, scales).verdict == "clear"


def test_a_study_of_names_only_has_nothing_out_of_range(
    measure: Measure, reference: pd.DataFrame, batch: pd.DataFrame, model: Model, study: Study
):
    named = study.model_copy(update={"features": tuple(f for f in study.features if not f.is_ordinal)})
    measured = Measure(reference, model.encoder, named)(batch)
    assert of(measured, OUT_OF_RANGE) == {}
    assert judge(measured, named).verdict == "clear"


def test_a_fresh_sample_of_the_same_population_is_clear(measure: Measure, fresh: pd.DataFrame, study: Study):
    judgement: Judgement = judge(measure(fresh.iloc[:2_000]), study)
    assert (judgement.verdict, judgement.drifted_columns) == ("clear", ())
