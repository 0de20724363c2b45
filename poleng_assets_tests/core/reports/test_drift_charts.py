"""What a report draws: the answers of the batch beside those of the reference, and nobody in particular."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from poleng_assets.core.monitoring.comparison import Comparison
from poleng_assets.core.monitoring.measurements import (
    COMPOSITION,
    CONTACT,
    JENSEN_SHANNON,
    L_INFINITY,
    MISSING,
    SCORE,
    UNSEEN,
    BatchMeasurements,
    DriftMetric,
    Estimate,
)
from poleng_assets.core.reports.charts import Chart
from poleng_assets.core.reports.drift_charts import (
    ANSWERS_SHOWN,
    NEW_ANSWERS,
    OTHER_ANSWERS,
    PLOTS_SHOWN,
    PLOTS_WHEN_QUIET,
    Bar,
    Distribution,
    _compared_in,
    answers,
    columns_to_plot,
    distributions,
    performance_chart,
    score_bars,
)
from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.core.statistics.intervals import Z_95
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies


def measured(*found: DriftMetric, importance: dict[str, float] | None = None) -> BatchMeasurements:
    return BatchMeasurements(500, 500, 0.0, 0.3, metrics=found, importance=importance or {})


def shifted(column: str, value: float | None = 0.3, method: str = JENSEN_SHANNON) -> DriftMetric:
    return DriftMetric.compared(column, method, value, 0.1)


def with_everybody(study: Study, reference: pd.DataFrame, batch: pd.DataFrame) -> Comparison:
    return Comparison.of(with_policies(study, overseer={"compare_within": None}), reference, batch)


def drawn(
    study: Study, column: str, reference: pd.DataFrame, batch: pd.DataFrame, *found: DriftMetric
) -> Distribution:
    (one,) = distributions(measured(*(found or [shifted(column)])), with_everybody(study, reference, batch))
    assert one.title == study.feature(column).title
    return one


def shares(drawn: Distribution) -> dict[str, tuple[float, float]]:
    """Return the share of each answer in the reference and in the batch."""
    return {bar.label: (bar.reference, bar.batch) for bar in drawn.bars}


# Which columns


def test_unseen_answers_come_before_missing_ones_before_shifts_before_another_mix(study: Study):
    found = measured(
        shifted("country", 0.4, COMPOSITION), shifted("sex"), shifted("mode", 0.2, MISSING),
        shifted("religion", 0.2, UNSEEN), shifted("education", 0.05),
    )  # fmt: skip
    assert columns_to_plot(found, study) == ["religion", "mode", "sex", "country"]


def test_shifts_come_in_the_order_of_what_they_are_worth_to_the_model(study: Study):
    weight = {"sex": 0.1, "education": 0.9}
    found = measured(shifted("sex", 0.6), shifted("education", 0.2), importance=weight)
    assert columns_to_plot(found, study) == ["education", "sex"]
    assert columns_to_plot(replace(found, importance={}), study) == ["sex", "education"]


def test_a_column_that_cannot_be_compared_is_worth_most(study: Study):
    assert columns_to_plot(measured(shifted("sex", 0.9), shifted("mode", None)), study) == ["mode", "sex"]


def test_of_many_drifted_columns_only_some_are_drawn_and_each_once(study: Study):
    methods = (JENSEN_SHANNON, L_INFINITY)
    found = measured(*(shifted(name, 0.5, method) for name in study.feature_names for method in methods))
    assert len(columns_to_plot(found, study)) == len(set(columns_to_plot(found, study))) == PLOTS_SHOWN


def test_when_nothing_drifted_the_farthest_are_drawn(study: Study):
    quiet = measured(*(shifted(n, v) for n, v in (("sex", 0.01), ("mode", 0.09), ("religion", 0.05))))
    assert columns_to_plot(quiet, study) == ["mode", "religion"]
    assert PLOTS_WHEN_QUIET == 2


def test_the_score_and_the_decision_are_no_questions(study: Study):
    assert columns_to_plot(measured(shifted(SCORE), shifted(CONTACT)), study) == []


# Answers


@pytest.mark.parametrize(
    "codes",
    [
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1.0, 2.0, None]),
        pd.Series(["1", " 2 ", ""], dtype=object),
        pd.Series(["1", "2", None], dtype="category"),
    ],
)
def test_answers_are_words_however_the_codes_come(study: Study, codes: pd.Series):
    feature = study.feature("sex")
    assert answers(feature, codes.to_frame("sex")).tolist() == ["Male", "Female", NO_ANSWER]


def test_a_code_that_the_study_does_not_know_is_told_as_unknown(study: Study):
    assert answers(study.feature("sex"), pd.DataFrame({"sex": ["7"]})).tolist() == ["unknown (7)"]


# Distributions


def test_each_bar_tells_the_share_of_its_people(study: Study, reference: pd.DataFrame):
    batch = reference.iloc[:400].assign(sex=["1"] * 100 + ["2"] * 300)
    share = (reference["sex"].astype(str) == "1").mean()
    found = shares(drawn(study, "sex", reference, batch))
    assert found == {"Male": pytest.approx((share, 0.25)), "Female": pytest.approx((1 - share, 0.75))}


def test_answers_that_changed_most_come_first_and_the_rest_is_told_together(
    study: Study, people: pd.DataFrame
):
    found = drawn(study, "country", people.iloc[:3_000], people.iloc[3_000:])
    moved = [abs(bar.reference - bar.batch) for bar in found.bars[:-1]]
    assert moved == sorted(moved, reverse=True)
    assert len(moved) == ANSWERS_SHOWN
    assert found.bars[-1].label == OTHER_ANSWERS
    for side in (0, 1):
        assert sum(pair[side] for pair in shares(found).values()) == pytest.approx(1.0)


def test_answers_of_a_scale_stand_in_its_order(study: Study, people: pd.DataFrame):
    feature = study.feature("subjective_social_class")
    found = drawn(study, feature.name, people.iloc[:3_000], people.iloc[3_000:])
    labels = [bar.label for bar in found.bars]
    known = [label for label in feature.codes.values() if label in labels]
    assert len(known) > 3
    assert [label for label in labels if label in known] == known


def test_answers_that_the_reference_does_not_have_are_told_together(
    study: Study, people: pd.DataFrame, newcomers: pd.DataFrame
):
    found = drawn(study, "country", people, newcomers, shifted("country", 1.0, UNSEEN))
    assert shares(found)[NEW_ANSWERS] == (0.0, 1.0)
    assert {here for label, (_, here) in shares(found).items() if label != NEW_ANSWERS} == {0.0}
    assert NEW_ANSWERS in found.caption


def test_the_answer_that_changed_most_is_told_in_words(study: Study, reference: pd.DataFrame):
    share = (reference["sex"].astype(str) == "1").mean()
    found = drawn(study, "sex", reference, reference.assign(sex="2"))
    assert f"“Male”, from {share:.1%} of the reference to 0.0% of this batch" in found.caption


def test_an_alert_is_known(study: Study, reference: pd.DataFrame):
    quiet = drawn(study, "sex", reference, reference, shifted("sex", 0.01))
    assert [drawn(study, "sex", reference, reference).alert, quiet.alert] == [True, False]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(None, NO_ANSWER), ("2", "Female"), (pd.NA, NO_ANSWER), (float("nan"), NO_ANSWER)],
    ids=["missing", "constant", "nullable", "not a number"],
)
def test_a_column_of_one_answer_is_drawn(study: Study, reference: pd.DataFrame, answer: Any, expected: str):
    same = reference.assign(sex=answer)
    assert drawn(study, "sex", same, same).bars == (Bar(expected, 1.0, 1.0, 1.0, 1.0),)


@pytest.mark.parametrize(("there", "here"), [(1, 1), (2, 2), (6, 1), (1, 30), (1_500, 1_500)])
def test_few_rows_are_drawn(study: Study, reference: pd.DataFrame, there: int, here: int):
    found = drawn(study, "sex", reference.iloc[:there], reference.iloc[:here])
    assert sum(bar.batch for bar in found.bars) == pytest.approx(1.0)
    assert all(0 <= bar.low <= bar.reference <= bar.high <= 1 for bar in found.bars)


@pytest.mark.parametrize("side", ["reference", "batch"])
def test_without_people_there_is_nothing_to_draw(study: Study, reference: pd.DataFrame, side: str):
    there, here = (reference.iloc[:0] if side == one else reference for one in ("reference", "batch"))
    assert distributions(measured(shifted("sex")), Comparison.of(study, there, here)) == []
    assert score_bars(there, here) == ()


def test_scores_are_counted_in_ten_bins(reference: pd.DataFrame):
    bars = score_bars(reference.assign(score=0.0), reference.assign(score=[1.0] * 500 + [0.35] * 1_000))
    assert [bar.label for bar in bars][::9] == ["0.0 to 0.1", "0.9 to 1.0"]
    assert [round(bar.batch, 3) for bar in bars] == [0, 0, 0, 0.667, 0, 0, 0, 0, 0, 0.333]
    assert bars[0].reference == 1.0


# Chance


def test_chance_puts_a_batch_of_the_same_people_in_its_range_19_times_of_20(
    study: Study, people: pd.DataFrame
):
    reference = people.iloc[:3_000]
    inside = []
    for seed in range(200):
        batch = people.sample(600, replace=True, random_state=seed)
        inside += [bar.low <= bar.batch <= bar.high for bar in drawn(study, "sex", reference, batch).bars[:1]]
    assert 0.9 <= sum(inside) / len(inside) <= 0.99


def test_chance_has_the_width_of_the_difference_of_two_shares(study: Study, reference: pd.DataFrame):
    half = reference.iloc[:1_000].assign(sex=["1", "2"] * 500)
    bar = drawn(study, "sex", half, half.iloc[:400]).bars[0]
    assert bar.high - bar.reference == pytest.approx(Z_95 * math.sqrt(0.25 * (1 / 1_000 + 1 / 400)))


def test_a_person_who_stands_for_several_is_not_several_people(study: Study, reference: pd.DataFrame):
    half = reference.iloc[:1_000].assign(sex=["1", "2"] * 500)
    repeated = pd.concat([half] * 5)
    found, once = (drawn(study, "sex", one, half.iloc[:400]).bars for one in (repeated, half))
    assert found == once


# Nobody


def test_nobody_is_in_a_picture(study: Study, people: pd.DataFrame, reference: pd.DataFrame):
    batch = people.iloc[:700].assign(score=0.123456, contact=1)
    found = measured(*(shifted(name) for name in ("country", "sex", "education", "religion")))
    told = str(distributions(found, with_everybody(study, reference, batch)))
    assert [subject for subject in batch[study.id].astype(str) if f"'{subject}'" in told] == []
    assert "0.123456" not in told


def test_the_same_people_make_the_same_pictures(study: Study, reference: pd.DataFrame):
    comparison = with_everybody(study, reference, reference)
    found = measured(shifted("sex"), shifted("mode"))
    assert distributions(found, comparison) == distributions(found, comparison)


# Whom they compare


def test_people_are_compared_with_people_of_their_kind(study: Study, reference: pd.DataFrame):
    common = reference["country"].value_counts()
    batch = reference[reference["country"] == common.index[0]]
    comparison = Comparison.of(with_policies(study, overseer={"min_stratum": 2}), reference, batch)
    assert comparison.within == "country"
    assert set(comparison.like["country"]) == {common.index[0]}
    assert len(comparison.comparable) == len(batch)


def test_people_without_their_like_are_compared_with_everybody(
    study: Study, reference: pd.DataFrame, newcomers: pd.DataFrame
):
    comparison = Comparison.of(study, reference, newcomers)
    assert comparison.within is None
    assert comparison.like is reference
    assert comparison.comparable is newcomers


def test_a_study_may_compare_with_everybody(study: Study, reference: pd.DataFrame):
    assert with_everybody(study, reference, reference).within is None


def test_the_mix_of_people_is_compared_among_all(study: Study, reference: pd.DataFrame):
    stranger = reference.iloc[:1].assign(country=999)
    comparison = Comparison.of(study, reference, pd.concat([reference.iloc[:500], stranger]))
    assert len(comparison.comparable) < 501
    found = measured(shifted("country", 0.01, COMPOSITION), shifted("sex"), shifted("mode", 0.0, UNSEEN))
    everybody, alike = (comparison.reference, comparison.batch), (comparison.like, comparison.comparable)
    for column, expected in (("country", everybody), ("sex", alike), ("mode", alike)):
        compared = _compared_in(column, found, comparison)
        assert all(rows is other for rows, other in zip(compared, expected, strict=True))


# Performance

TITLES = {"auc": "Ranking", "recall": "Recall"}
AUC = Estimate("auc", 0.72, 0.70, 0.75, 0.78)


def performance(estimates: list[Estimate], realised: list[Estimate], trusted: bool) -> Chart:
    chart = performance_chart(estimates, realised, trusted, TITLES)
    assert chart is not None
    return chart


def test_estimated_and_realised_stand_beside_the_reference():
    chart = performance([AUC], [replace(AUC, value=0.7)], True)
    assert [(mark.sign, mark.text) for mark in chart.marks] == [
        ("diamond", "Ranking, reference: 0.780"),
        ("circle", "Ranking, estimated: 0.720 (0.700 to 0.750)"),
        ("square", "Ranking, realised: 0.700 (0.700 to 0.750)"),
    ]
    reference, estimated, realised = (mark.x for mark in chart.marks)
    assert realised < estimated < reference
    assert [(line.look, line.x1 < line.x2) for line in chart.segments] == [("here", True), ("truth", True)]
    assert chart.segments[0].x1 < estimated < chart.segments[0].x2


def test_metrics_have_a_row_each_in_the_order_of_their_titles():
    chart = performance([Estimate("recall", 0.4, 0.3, 0.5), AUC], [], True)
    assert [row.text for row in chart.rows] == ["Ranking", "Recall"]
    marks = {mark.text.split(",")[0]: mark.y for mark in chart.marks}
    assert marks["Ranking"] < 50 < marks["Recall"]


def test_an_estimate_that_cannot_be_trusted_is_hollow_and_says_so():
    hollow = [mark.text for mark in performance([AUC], [], False).marks if "hollow" in mark.look]
    assert hollow == ["Ranking, estimated, not trusted: 0.720 (0.700 to 0.750)"]


@pytest.mark.parametrize("found", [[], [Estimate("log_loss", 0.5, 0.4, 0.6)]])
def test_without_figures_to_draw_there_is_no_picture(found: list[Estimate]):
    assert performance_chart(found, [], True, TITLES) is None


def test_a_metric_without_a_reference_is_drawn():
    assert [m.sign for m in performance([], [replace(AUC, reference=None)], True).marks] == ["square"]
