"""Plots for pages: one colour is one answer, the batch stands beside the reference, and nobody is in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.drift_plots import (
    ANSWERS_SHOWN,
    APART,
    NEW_ANSWERS,
    OTHER_ANSWERS,
    PARTS,
    PLOTS_SHOWN,
    PLOTS_WHEN_QUIET,
    REST,
    Sides,
    answers,
    columns_to_plot,
    drift_plots,
    performance_plot,
    plotly_js,
    short,
)
from poleng_assets.core.evaluation import NO_ANSWER
from poleng_assets.core.figures import (
    COMPOSITION,
    CONTACT,
    JENSEN_SHANNON,
    L_INFINITY,
    MISSING,
    SCORE,
    UNSEEN,
    BatchFigures,
    Estimate,
    Figure,
)
from poleng_assets.study import Study
from poleng_assets_tests.conftest import with_policies

BATCH = PARTS + APART


def figures(*found: Figure, importance: dict[str, float] | None = None) -> BatchFigures:
    return BatchFigures(500, 500, 0.0, 0.3, figures=found, importance=importance or {})


def shifted(column: str, value: float | None = 0.3, method: str = JENSEN_SHANNON) -> Figure:
    return Figure.compared(column, method, value, 0.1)


def drawing(div: str) -> dict[str, Any]:
    """Return the data and the layout that a piece of a page hands to Plotly."""
    start = div.index("[", div.index("Plotly.newPlot("))
    data, end = json.JSONDecoder().raw_decode(div, start)
    layout, _ = json.JSONDecoder().raw_decode(div, div.index("{", end))
    return {"data": data, "layout": layout}


def lists(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [found for inner in value.values() for found in lists(inner)]
    if isinstance(value, list):
        return [value, *(found for inner in value for found in lists(inner))]
    return []


def drawn(
    study: Study, column: str, reference: pd.DataFrame, batch: pd.DataFrame, *found: Figure
) -> dict[str, Any]:
    sides = Sides(reference, batch, reference, batch)
    plots = drift_plots(study, figures(*(found or [shifted(column)])), sides)
    assert [plot.title for plot in plots] == [study.feature(column).title]
    return drawing(plots[0].div)


def bars(drawing: dict[str, Any], x: float) -> dict[str, float]:
    """Return the share of each answer in the bar at this place."""
    return {
        trace["name"]: y
        for trace in drawing["data"]
        for place, y in zip(trace["x"], trace["y"], strict=True)
        if place == x
    }


# Which columns


def test_unseen_answers_come_before_missing_ones_before_shifts_before_another_mix(study: Study):
    found = figures(
        shifted("country", 0.4, COMPOSITION), shifted("sex"), shifted("mode", 0.2, MISSING),
        shifted("religion", 0.2, UNSEEN), shifted("education", 0.05),
    )  # fmt: skip
    assert columns_to_plot(found, study) == ["religion", "mode", "sex", "country"]


def test_shifts_come_in_the_order_of_what_they_are_worth_to_the_model(study: Study):
    weight = {"sex": 0.1, "education": 0.9}
    found = figures(shifted("sex", 0.6), shifted("education", 0.2), importance=weight)
    assert columns_to_plot(found, study) == ["education", "sex"]
    assert columns_to_plot(replace(found, importance={}), study) == ["sex", "education"]


def test_a_column_that_cannot_be_compared_is_worth_most(study: Study):
    assert columns_to_plot(figures(shifted("sex", 0.9), shifted("mode", None)), study) == ["mode", "sex"]


def test_of_many_drifted_columns_only_some_are_drawn_and_each_once(study: Study):
    methods = (JENSEN_SHANNON, L_INFINITY)
    found = figures(*(shifted(name, 0.5, method) for name in study.feature_names for method in methods))
    assert len(columns_to_plot(found, study)) == len(set(columns_to_plot(found, study))) == PLOTS_SHOWN


def test_when_nothing_drifted_the_farthest_are_drawn(study: Study):
    quiet = figures(*(shifted(n, v) for n, v in (("sex", 0.01), ("mode", 0.09), ("religion", 0.05))))
    assert columns_to_plot(quiet, study) == ["mode", "religion"]
    assert PLOTS_WHEN_QUIET == 2


def test_the_score_and_the_decision_are_no_questions(study: Study):
    assert columns_to_plot(figures(shifted(SCORE), shifted(CONTACT)), study) == []


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


def test_long_labels_are_cut_and_markup_in_them_is_text():
    assert short("a" * 50, 10) == "a" * 9 + "…"
    assert short("<b>&") == "&lt;b&gt;&amp;"


# NannyML's distributions


def test_each_bar_tells_the_shares_of_its_people(study: Study, reference: pd.DataFrame):
    batch = reference.iloc[:400].assign(sex=["1"] * 100 + ["2"] * 300)
    found = drawn(study, "sex", reference, batch)
    assert bars(found, BATCH) == {"Male": 0.25, "Female": 0.75}
    parts = [bars(found, part) for part in range(PARTS)]
    assert [sum(part.values()) for part in parts] == pytest.approx([1.0] * PARTS)
    share = (reference["sex"].astype(str) == "1").mean()
    assert np.mean([part["Male"] for part in parts]) == pytest.approx(share)


def test_the_parts_of_the_reference_are_drawn_by_lot(study: Study, reference: pd.DataFrame):
    ordered = reference.sort_values("sex")
    shares = [bars(drawn(study, "sex", ordered, reference), part)["Male"] for part in range(PARTS)]
    assert max(shares) - min(shares) < 0.2


def test_an_answer_has_one_colour_and_stands_once_in_the_legend(study: Study, people: pd.DataFrame):
    found = drawn(study, "country", people.iloc[:3_000], people.iloc[3_000:])
    colours = {(trace["name"], trace["marker"]["color"]) for trace in found["data"]}
    assert len({name for name, _ in colours}) == len(colours) == ANSWERS_SHOWN + 1
    assert (OTHER_ANSWERS, REST) in colours
    named = [trace["name"] for trace in found["data"] if trace["showlegend"]]
    assert sorted(named) == sorted({name for name, _ in colours})


def test_answers_of_a_scale_are_stacked_in_its_order(study: Study, people: pd.DataFrame):
    feature = study.feature("subjective_social_class")
    found = drawn(study, feature.name, people.iloc[:3_000], people.iloc[3_000:])
    names = list(dict.fromkeys(trace["name"] for trace in found["data"]))
    assert names == [short(label) for label in feature.codes.values() if short(label) in names]


def test_answers_that_the_reference_does_not_have_are_told_together(
    study: Study, people: pd.DataFrame, newcomers: pd.DataFrame
):
    found = drawn(study, "country", people, newcomers, shifted("country", 1.0, UNSEEN))
    assert bars(found, BATCH) == {NEW_ANSWERS: 1.0}


def test_the_answer_that_changed_most_is_told_in_words(study: Study, reference: pd.DataFrame):
    batch = reference.assign(sex="2")
    plot = drift_plots(study, figures(shifted("sex")), Sides(reference, batch, reference, batch))[0]
    share = (reference["sex"].astype(str) == "1").mean()
    assert f"“Male”, from {share:.1%} of the reference to 0.0% of this batch" in plot.caption


def test_an_answer_called_other_or_missing_is_drawn_too(study: Study, reference: pd.DataFrame):
    named = study.feature("sex").model_copy(update={"codes": {1: "Other", 2: "Missing"}})
    odd = study.model_copy(
        update={"features": tuple(named if f.name == "sex" else f for f in study.features)}
    )
    found = drawn(odd, "sex", reference, reference.iloc[:300])
    assert set(bars(found, BATCH)) == {"Other", "Missing"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(None, NO_ANSWER), ("2", "Female"), (pd.NA, NO_ANSWER), (float("nan"), NO_ANSWER)],
    ids=["missing", "constant", "nullable", "not a number"],
)
def test_a_column_of_one_answer_is_drawn(study: Study, reference: pd.DataFrame, answer: Any, expected: str):
    same = reference.assign(sex=answer)
    assert bars(drawn(study, "sex", same, same), BATCH) == {expected: 1.0}


@pytest.mark.parametrize(("there", "here"), [(1, 1), (2, 2), (5, 5), (6, 1), (1, 30), (1_500, 1_500)])
def test_few_rows_and_as_many_rows_on_both_sides_are_drawn(
    study: Study, reference: pd.DataFrame, there: int, here: int
):
    found = drawn(study, "sex", reference.iloc[:there], reference.iloc[:here])
    last = max(place for trace in found["data"] for place in trace["x"])
    assert sum(bars(found, last).values()) == pytest.approx(1.0)


@pytest.mark.parametrize("side", ["reference", "batch"])
def test_without_people_there_is_nothing_to_draw(study: Study, reference: pd.DataFrame, side: str):
    there, here = (reference.iloc[:0] if side == one else reference for one in ("reference", "batch"))
    assert drift_plots(study, figures(shifted("sex")), Sides.of(study, there, here)) == []


def test_an_alert_is_said_and_not_only_coloured(study: Study, reference: pd.DataFrame):
    loud = drawn(study, "sex", reference, reference)
    quiet = drawn(study, "sex", reference, reference, shifted("sex", 0.01))
    texts = [[note["text"] for note in found["layout"]["annotations"]] for found in (loud, quiet)]
    assert ["alert" in " ".join(found) for found in texts] == [True, False]


def test_nobody_is_in_a_plot(study: Study, people: pd.DataFrame, reference: pd.DataFrame):
    batch = people.iloc[:700].assign(score=0.123456, contact=1)
    found = figures(*(shifted(name) for name in ("country", "sex", "education", "religion")))
    plots = drift_plots(study, found, Sides(reference, batch, reference, batch))
    page = "".join(plot.div for plot in plots)
    assert [subject for subject in batch[study.id].astype(str) if f'"{subject}"' in page] == []
    assert "0.123456" not in page
    longest = max(len(found) for plot in plots for found in lists(drawing(plot.div)))
    assert longest <= 2 * (ANSWERS_SHOWN + 1)


def test_a_plot_fetches_nothing(study: Study, reference: pd.DataFrame):
    sides = Sides(reference, reference, reference, reference)
    div = drift_plots(study, figures(shifted("sex")), sides)[0].div
    assert "http" not in div
    assert " src=" not in div
    assert len(plotly_js()) > 1_000_000
    assert plotly_js() not in div


def test_the_same_people_make_the_same_plots(study: Study, reference: pd.DataFrame):
    sides = Sides(reference, reference, reference, reference)
    found = figures(shifted("sex"), shifted("mode"))
    assert drift_plots(study, found, sides) == drift_plots(study, found, sides)


# Whom they compare


def test_people_are_compared_with_people_of_their_kind(study: Study, reference: pd.DataFrame):
    common = reference["country"].value_counts()
    batch = reference[reference["country"] == common.index[0]]
    sides = Sides.of(with_policies(study, overseer={"min_stratum": 2}), reference, batch)
    assert sides.within == study.feature("country").title
    assert set(sides.like["country"]) == {common.index[0]}
    assert len(sides.comparable) == len(batch)


def test_people_without_their_like_are_compared_with_everybody(
    study: Study, reference: pd.DataFrame, newcomers: pd.DataFrame
):
    sides = Sides.of(study, reference, newcomers)
    assert sides.within == ""
    assert sides.like is reference
    assert sides.comparable is newcomers


def test_a_study_may_compare_with_everybody(study: Study, reference: pd.DataFrame):
    assert (
        Sides.of(with_policies(study, overseer={"compare_within": None}), reference, reference).within == ""
    )


def test_the_mix_of_people_is_compared_among_all(study: Study, reference: pd.DataFrame):
    sides = Sides(reference, reference, reference.iloc[:10], reference.iloc[:20])
    found = figures(shifted("country", 0.01, COMPOSITION), shifted("sex"), shifted("mode", 0.0, UNSEEN))
    assert len(sides.compared_in("country", found)[0]) == len(reference)
    assert [len(rows) for rows in sides.compared_in("sex", found)] == [10, 20]
    assert [len(rows) for rows in sides.compared_in("mode", found)] == [10, 20]


# Performance

TITLES = {"auc": "Ranking", "recall": "Recall"}
AUC = Estimate("auc", 0.72, 0.70, 0.75, 0.78)


def test_estimated_and_realised_stand_beside_the_reference():
    plot = performance_plot([AUC], [replace(AUC, value=0.7)], True, TITLES)
    assert plot is not None
    data = drawing(plot.div)["data"]
    assert {trace["name"]: trace["x"] for trace in data} == {
        "reference": [0.78], "estimated": [0.72], "realised": [0.7],
    }  # fmt: skip
    estimated = next(trace for trace in data if trace["name"] == "estimated")
    assert estimated["error_x"]["array"] == pytest.approx([0.03])
    assert estimated["error_x"]["arrayminus"] == pytest.approx([0.02])
    assert estimated["customdata"] == ["Ranking, estimated: 0.720 (0.700 to 0.750)"]


def test_an_estimate_that_cannot_be_trusted_is_hollow_and_says_so():
    plot = performance_plot([AUC], [], False, TITLES)
    assert plot is not None
    symbols = {trace["name"]: trace["marker"]["symbol"] for trace in drawing(plot.div)["data"]}
    assert symbols["estimated, not to be trusted"] == "circle-open"


@pytest.mark.parametrize("found", [[], [Estimate("log_loss", 0.5, 0.4, 0.6)]])
def test_without_figures_to_draw_there_is_no_picture(found: list[Estimate]):
    assert performance_plot(found, [], True, TITLES) is None


def test_a_metric_without_a_reference_is_drawn():
    plot = performance_plot([], [replace(AUC, reference=None)], True, TITLES)
    assert plot is not None
    assert [trace["name"] for trace in drawing(plot.div)["data"]] == ["realised"]
