"""What NannyML's figures say about a batch, with the traps that it lays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.drift import (
    ESTIMATED_METRICS,
    JENSEN_SHANNON,
    MISSING,
    SCORE,
    UNSEEN,
    BatchFigures,
    Estimate,
    Figure,
    measure_batch,
)
from poleng_assets.core.encoding import Encoder
from poleng_assets.core.model import Model
from poleng_assets.core.overseer import judge
from poleng_assets.simulation.population import synthesise
from poleng_assets.study import Study
from poleng_assets_tests.conftest import scored_by, with_policies

ALL = (JENSEN_SHANNON, MISSING, UNSEEN)


class Measure:
    """Measures frames against the reference, as the drift report does."""

    def __init__(self, reference: pd.DataFrame, encoder: Encoder, study: Study) -> None:
        self.reference, self.encoder, self.study = reference, encoder, study

    def __call__(
        self, batch: pd.DataFrame, reference: pd.DataFrame | None = None, **changes: Any
    ) -> BatchFigures:
        return measure_batch(
            self.reference if reference is None else reference,
            batch,
            self.encoder.unseen(batch),
            self.study,
            rows=changes.get("rows", len(batch)),
            flagged_share=float(batch["contact"].mean()) if len(batch) else 0.0,
        )


@pytest.fixture(scope="module")
def measure(reference: pd.DataFrame, model: Model, study: Study) -> Measure:
    return Measure(reference, model.encoder, study)


@pytest.fixture(scope="module")
def batch(reference: pd.DataFrame, study: Study) -> pd.DataFrame:
    """A batch like the reference: 900 of its people, without their target."""
    return reference.sample(900, random_state=5).drop(columns=study.target.name).reset_index(drop=True)


@pytest.fixture(scope="module")
def usual(measure: Measure, batch: pd.DataFrame) -> BatchFigures:
    return measure(batch)


@pytest.fixture(scope="module")
def drifted_batch(model: Model, newcomers: pd.DataFrame, study: Study) -> pd.DataFrame:
    return scored_by(model, newcomers.drop(columns=[study.id, study.target.name]))


@pytest.fixture(scope="module")
def drifted(measure: Measure, drifted_batch: pd.DataFrame) -> BatchFigures:
    return measure(drifted_batch)


def figure(figures: BatchFigures, column: str, method: str) -> Figure:
    found = [f for f in figures.figures if (f.column_name, f.method) == (column, method)]
    assert len(found) == 1, found
    return found[0]


# Like the reference


def test_a_batch_like_the_reference_raises_no_alert(usual: BatchFigures):
    assert usual.alerts(*ALL) == []


def test_the_reference_itself_is_at_no_distance(measure: Measure, reference: pd.DataFrame, study: Study):
    # Rounding makes a distance of nothing slightly negative, and its root no number.
    figures = measure(reference.drop(columns=study.target.name))
    distances = [f.value for f in figures.figures if f.method == JENSEN_SHANNON]
    assert distances == pytest.approx([0.0] * 33, abs=1e-6)
    assert figures.alerts(*ALL) == []


def test_every_feature_and_the_score_have_a_distance(usual: BatchFigures, study: Study):
    measured = [f.column_name for f in usual.figures if f.method == JENSEN_SHANNON and f.value is not None]
    assert sorted(measured) == sorted([*study.feature_names, SCORE])


def test_every_feature_has_a_share_of_missing_answers(usual: BatchFigures, study: Study):
    missing = {f.column_name: f.value for f in usual.figures if f.method == MISSING}
    assert missing == dict.fromkeys(study.feature_names, 0.0)


def test_every_feature_with_categories_has_a_share_of_unseen_codes(usual: BatchFigures, study: Study):
    unseen = {f.column_name: f.value for f in usual.figures if f.method == UNSEEN}
    assert unseen == {f.name: 0.0 for f in study.features if not f.is_ordinal}


def test_limits_are_the_studys(measure: Measure, batch: pd.DataFrame, model: Model, study: Study):
    policies = {
        "column_threshold": 0.21,
        "score_threshold": 0.22,
        "max_outside_support": 0.23,
        "max_missing_rise": 0.24,
    }
    changed = Measure(measure.reference, model.encoder, with_policies(study, overseer=policies))
    figures = changed(batch)
    limits = {(f.method, f.column_name == SCORE): f.upper_threshold for f in figures.figures}
    assert limits == {
        (JENSEN_SHANNON, False): 0.21,
        (JENSEN_SHANNON, True): 0.22,
        (UNSEEN, False): 0.23,
        (MISSING, False): 0.24,
    }


def test_the_order_of_the_rows_and_their_index_do_not_matter(
    measure: Measure, batch: pd.DataFrame, usual: BatchFigures
):
    again = measure(batch.iloc[::-1].set_axis([7] * len(batch)))
    assert [f.value for f in again.figures] == pytest.approx([f.value for f in usual.figures])


def test_a_sample_says_how_many_it_measured(measure: Measure, batch: pd.DataFrame):
    figures = measure(batch, rows=70_000)
    assert (figures.rows, figures.rows_measured) == (70_000, len(batch))


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
    measure: Measure, batch: pd.DataFrame, usual: BatchFigures, study: Study, retype: Any
):
    again = measure(retype(batch, study.feature_names))
    assert again.figures == usual.figures


def test_a_reference_of_nullable_integers_loses_no_column(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame, usual: BatchFigures, study: Study
):
    there = reference.astype(dict.fromkeys(study.feature_names, "Int64"))
    assert measure(batch, there).figures == usual.figures


# Drift


def test_a_batch_of_new_countries_is_as_far_away_as_can_be(drifted: BatchFigures):
    country = figure(drifted, "country", JENSEN_SHANNON)
    assert country.value == pytest.approx(1.0)
    assert country.alert


def test_everybody_of_a_new_country_is_outside_support(drifted: BatchFigures):
    assert drifted.outside_support == 1.0
    assert figure(drifted, "country", UNSEEN) == Figure("country", UNSEEN, 1.0, None, 0.05, alert=True)


def test_alerts_come_farthest_first(drifted: BatchFigures):
    values = [f.value for f in drifted.alerts(JENSEN_SHANNON)]
    assert len(values) > 2
    assert values == sorted(values, key=float, reverse=True)  # type: ignore[arg-type]


def test_outside_support_counts_people_and_not_answers(measure: Measure, batch: pd.DataFrame):
    strange = batch.copy()
    strange.loc[:8, "country"] = "999"
    strange.loc[4:17, "religion"] = "77"
    assert measure(strange).outside_support == pytest.approx(18 / 900)


def test_moved_scores_alert(measure: Measure, batch: pd.DataFrame):
    moved = batch.assign(score=batch["score"] * 0.5, contact=0)
    assert [f.column_name for f in measure(moved).alerts(JENSEN_SHANNON)] == [SCORE]


def test_the_share_of_contacts_is_passed_on(usual: BatchFigures, batch: pd.DataFrame):
    assert usual.flagged_share == batch["contact"].mean() > 0


# Missing answers


@pytest.mark.parametrize("column", ["education", "country", "sex"])
@pytest.mark.parametrize("nothing", [None, np.nan], ids=repr)
def test_a_column_without_any_answer_alerts(measure: Measure, batch: pd.DataFrame, column: str, nothing: Any):
    figures = measure(batch.assign(**{column: nothing}))
    assert figure(figures, column, MISSING) == Figure(column, MISSING, 1.0, None, 0.1, alert=True)
    assert figure(figures, column, JENSEN_SHANNON).value is None
    assert figure(figures, column, JENSEN_SHANNON).alert


def test_one_missing_answer_is_no_drift(measure: Measure, batch: pd.DataFrame, study: Study):
    # DuckDB and pandas turn a column of integers with one hole into floats: 3 must not become "3.0".
    gaps = batch.copy()
    for row, feature in enumerate(study.features):
        gaps[feature.name] = gaps[feature.name].astype("float64" if feature.is_ordinal else object)
        gaps.loc[row, feature.name] = np.nan
    figures = measure(gaps)
    assert figures.alerts(*ALL) == []
    assert {f.value for f in figures.figures if f.method == MISSING} == {1 / 900}


def test_a_reference_with_missing_answers_is_compared_by_the_answers_there_are(
    measure: Measure, batch: pd.DataFrame, reference: pd.DataFrame
):
    there = reference.astype({"education": "float64"})
    there.loc[::3, "education"] = np.nan
    distance = figure(measure(batch, there), "education", JENSEN_SHANNON).value
    assert distance is not None
    assert distance < 0.1


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


# Small batches


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_tiny_batch_is_insufficient_and_does_not_crash(
    measure: Measure, batch: pd.DataFrame, study: Study, rows: int
):
    figures = measure(batch.iloc[:rows])
    assert (figures.rows, figures.estimates) == (rows, ())
    assert {f.method for f in figures.figures} <= {UNSEEN}
    assert judge(figures, study).verdict == "insufficient"


def test_a_tiny_batch_still_says_who_is_outside_support(measure: Measure, batch: pd.DataFrame):
    assert measure(batch.iloc[:4].assign(country=["999", "36", "36", "999"])).outside_support == 0.5


def test_the_smallest_batch_that_is_judged_is_measured(measure: Measure, batch: pd.DataFrame, study: Study):
    enough = study.policies.overseer.min_rows
    assert measure(batch.iloc[: enough - 1]).estimates == ()
    assert len(measure(batch.iloc[:enough]).estimates) == 4


# Estimates


def test_each_estimate_lies_within_its_interval(usual: BatchFigures):
    assert [e.metric for e in usual.estimates] == list(ESTIMATED_METRICS.values())
    assert [e for e in usual.estimates if not 0 <= e.lower < e.value < e.upper <= 1] == []


def test_the_estimate_of_a_batch_like_the_reference_is_near_the_reference(usual: BatchFigures):
    auc = usual.estimate("auc")
    assert auc is not None
    assert auc.value == pytest.approx(auc.reference, abs=0.03)


def test_the_reference_value_is_what_was_realised_there(
    usual: BatchFigures, reference: pd.DataFrame, study: Study
):
    from sklearn.metrics import precision_score, recall_score, roc_auc_score

    target = reference[study.target.name]
    realised = {
        "auc": roc_auc_score(target, reference["score"]),
        "precision": precision_score(target, reference["contact"]),
        "recall": recall_score(target, reference["contact"]),
        "accuracy": (target == reference["contact"]).mean(),
    }
    assert {e.metric: e.reference for e in usual.estimates} == pytest.approx(realised)


def test_scores_that_tell_nobody_apart_are_expected_to_rank_like_chance(
    measure: Measure, batch: pd.DataFrame
):
    auc = measure(batch.assign(score=0.1, contact=0)).estimate("auc")
    assert auc is not None
    assert auc.value == pytest.approx(0.5, abs=0.01)


def test_an_estimate_that_was_not_made_is_none(usual: BatchFigures):
    assert usual.estimate("luck") is None


def test_estimates_are_found_by_their_metric():
    auc = Estimate("auc", 0.7, 0.6, 0.8, 0.71)
    recall = Estimate("recall", 0.4, 0.3, 0.5, 0.41)
    assert BatchFigures(1, 1, 0.0, 0.0, estimates=(auc, recall)).estimate("recall") is recall


# A study of other columns


def test_a_study_of_scales_only_has_nobody_outside_support(
    measure: Measure, reference: pd.DataFrame, batch: pd.DataFrame, study: Study
):
    scales = study.model_copy(update={"features": tuple(f for f in study.features if f.is_ordinal)})
    names = scales.feature_names
    encoder = Encoder(tuple(names), {})
    figures = Measure(reference[[*names, study.target.name, "score", "contact"]], encoder, scales)(batch)
    assert figures.outside_support == 0.0
    assert judge(figures, scales).verdict == "clear"


def test_a_fresh_sample_of_the_same_population_is_clear(measure: Measure, model: Model, study: Study):
    fresh = synthesise(study, rows=2_000, seed=99, part="clean")
    figures = measure(scored_by(model, fresh.drop(columns=[study.id, study.target.name])))
    assert judge(figures, study).verdict == "clear"
