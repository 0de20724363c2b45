"""What is said about a model is measured on people it never saw, and is the same wherever it is said."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.data.library_versions import library_version
from poleng_assets.core.modeling.model import Model, train
from poleng_assets.core.modeling.tuning import TuningResult, tune
from poleng_assets.core.promotion import holdout_evaluation as module
from poleng_assets.core.promotion.holdout_evaluation import HoldoutEvaluation, evaluate_model
from poleng_assets.core.reports.holdout_charts import CAPTIONS
from poleng_assets.core.reports.model_card import LIBRARIES, ModelCard, render_model_card
from poleng_assets.core.statistics.groups import OTHERS
from poleng_assets.core.statistics.metrics import evaluate
from poleng_assets.study.policies import Budget
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table, with_policies

COUNTRY, SEX = "Country of the interview", "Sex"


@pytest.fixture(scope="module")
def learned(people: pd.DataFrame) -> pa.Table:
    """What the model of the session learned from, of two field studies."""
    return as_table(people.iloc[:3_000].assign(field_study=["spring"] * 2_900 + ["autumn"] * 100))


@pytest.fixture(scope="module")
def held(people: pd.DataFrame) -> pa.Table:
    return as_table(people.iloc[3_000:].assign(field_study=["spring"] * 1_450 + ["autumn"] * 50))


@pytest.fixture(scope="module")
def evaluation(model: Model, study: Study, learned: pa.Table, held: pa.Table) -> HoldoutEvaluation:
    return evaluate_model(model, study, learned, held)


@pytest.fixture(scope="module")
def tuned(study: Study, people: pd.DataFrame) -> TuningResult:
    few = with_policies(study, training={"candidates": ("logistic",), "varies_by": "settlement"})
    return tune(as_table(people.iloc[:600]), few, Budget(trials=2, minutes=5))


# Figures


def test_the_figures_are_those_of_the_reference(evaluation: HoldoutEvaluation, study: Study):
    reference = evaluation.reference
    target, score, contact = (reference[name].to_numpy() for name in (study.target.name, "score", "contact"))
    assert evaluation.figures == evaluate(target, score, contact.astype(bool))
    assert set(contact) == {0, 1}


def test_every_interval_has_its_value_inside(evaluation: HoldoutEvaluation):
    assert set(evaluation.intervals) == set(evaluation.figures)
    for name, (low, high) in evaluation.intervals.items():
        assert low <= evaluation.figures[name] <= high, name
    low, high = evaluation.intervals["auc"]
    assert low < evaluation.figures["auc"] < high


def test_the_intervals_are_the_same_every_time(
    evaluation: HoldoutEvaluation, model: Model, study: Study, learned: pa.Table, held: pa.Table
):
    again = evaluate_model(model, study, learned, held)
    assert again.intervals == evaluation.intervals
    reseeded = with_policies(study, promotion={"seed": 7})
    assert evaluate_model(model, reseeded, learned, held).intervals != evaluation.intervals


def test_the_model_knows_its_training_rows_better_than_the_holdout(evaluation: HoldoutEvaluation):
    assert set(evaluation.on_training) == {"auc", "log_loss", "rmse"}
    assert evaluation.on_training["auc"] > evaluation.figures["auc"]
    assert evaluation.on_training["log_loss"] < evaluation.figures["log_loss"]


def test_the_registry_gets_every_figure_under_a_name_of_its_own(evaluation: HoldoutEvaluation):
    metrics = evaluation.metrics()
    assert metrics["test_auc"] == evaluation.figures["auc"]
    assert metrics["train_auc"] == evaluation.on_training["auc"]
    assert (metrics["test_auc_lower"], metrics["test_auc_upper"]) == evaluation.intervals["auc"]
    assert len(metrics) == len(evaluation.on_training) + 3 * len(evaluation.figures)
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())


def test_the_table_has_a_line_for_each_figure_with_its_interval(evaluation: HoldoutEvaluation):
    head, rule, *lines = evaluation.metric_table().splitlines()
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1
    cells = {line.split(" | ")[0].lstrip("| "): line.strip("| ").split(" | ") for line in lines}
    assert list(cells) == sorted(evaluation.figures)
    low, high = evaluation.intervals["auc"]
    assert cells["auc"][1:] == [
        f"{evaluation.on_training['auc']:.4f}",
        f"{evaluation.figures['auc']:.4f}",
        f"{low:.4f} to {high:.4f}",
    ]


# The reference


def test_the_reference_is_the_holdout_with_its_scores_and_without_ids(
    evaluation: HoldoutEvaluation, model: Model, study: Study, held: pa.Table
):
    assert list(evaluation.reference.columns) == [
        *study.feature_names,
        study.target.name,
        "score",
        "contact",
    ]
    np.testing.assert_array_equal(evaluation.reference["score"], model.score(held))
    np.testing.assert_array_equal(
        evaluation.reference["contact"] == 1, model.rule.decide(evaluation.reference["score"].to_numpy())
    )
    ids = set(held[study.id].to_pylist())
    for column in evaluation.reference.columns:
        assert ids.isdisjoint(set(evaluation.reference[column].astype(str)))


def test_the_reference_has_the_same_scores_when_the_model_reads_it_itself(
    evaluation: HoldoutEvaluation, model: Model
):
    np.testing.assert_array_equal(model.score(evaluation.reference), evaluation.reference["score"])


# Groups


def test_only_groups_with_enough_people_are_shown_and_nobody_vanishes(
    evaluation: HoldoutEvaluation, study: Study
):
    least = study.policies.promotion.min_group_rows
    for table in (evaluation.groups, evaluation.populations):
        shown = table[table["value"] != OTHERS]
        assert (shown["rows"] >= least).all()
        assert table.groupby("property")["rows"].sum().eq(len(evaluation.reference)).all()
        figures = table.loc[table["value"] == OTHERS].drop(columns=["property", "value", "rows"])
        assert figures.isna().all(axis=None)
    assert OTHERS in set(evaluation.populations["value"])


def test_groups_are_the_protected_properties_in_words(evaluation: HoldoutEvaluation, study: Study):
    assert set(evaluation.groups["property"]) == {study.feature(name).title for name in study.protected}
    values = evaluation.groups.loc[evaluation.groups["property"] == SEX, "value"]
    assert set(values) == {"Male", "Female"}


def test_the_figures_of_a_group_are_those_of_its_people(evaluation: HoldoutEvaluation, study: Study):
    men = evaluation.reference[evaluation.reference["sex"].astype(str) == "1"]
    groups = evaluation.groups
    (figures,) = groups[(groups["property"] == SEX) & (groups["value"] == "Male")].to_dict("records")
    assert figures["rows"] == len(men)
    assert figures["target_rate"] == pytest.approx(men[study.target.name].mean())
    assert figures["flagged_share"] == pytest.approx(men["contact"].mean())
    assert figures["mean_score"] == pytest.approx(men["score"].mean())


def test_populations_are_field_studies_and_what_effects_vary_by(
    evaluation: HoldoutEvaluation, model: Model, study: Study, learned: pa.Table, held: pa.Table
):
    assert list(evaluation.populations["property"].unique()) == ["Field study", COUNTRY]
    studies = evaluation.populations[evaluation.populations["property"] == "Field study"]
    assert studies["value"].tolist() == ["spring", OTHERS]  # autumn is too small to speak of
    assert studies["rows"].tolist() == [1_450, 50]
    alike = with_policies(study, training={"varies_by": None}, overseer={"compare_within": None})
    assert set(evaluate_model(model, alike, learned, held).populations["property"]) == {"Field study"}


def test_rows_of_each_field_study_are_counted_on_both_sides(
    evaluation: HoldoutEvaluation, model: Model, study: Study, learned: pa.Table, held: pa.Table
):
    assert evaluation.rows == {"autumn": (100, 50), "spring": (2_900, 1_450)}
    spring = held.filter(pa.compute.equal(held["field_study"], "spring"))
    assert evaluate_model(model, study, learned, spring).rows["autumn"] == (100, 0)


# Importance


def test_importance_is_told_of_each_feature_the_largest_first(evaluation: HoldoutEvaluation, study: Study):
    values = list(evaluation.importance.values())
    assert values == sorted(values, reverse=True)
    assert set(evaluation.importance) == {feature.name for feature in study.features}


def test_of_few_people_all_are_explained(model: Model, study: Study, learned: pa.Table, held: pa.Table):
    few = held.slice(0, 200)
    assert evaluate_model(model, study, learned, few).importance == model.importance(few)


def test_of_many_people_a_sample_over_all_of_them_is_explained(
    model: Model, study: Study, learned: pa.Table, held: pa.Table, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "EXPLAINED_ROWS", 2)
    both_ends = pa.concat_tables([held.slice(0, 1), held.slice(held.num_rows - 1)])
    found = evaluate_model(model, study, learned, held).importance
    assert found == model.importance(both_ends)


# Little data


def test_a_holdout_of_one_class_is_told_about_without_a_ranking(
    model: Model, study: Study, learned: pa.Table, held: pa.Table
):
    nobody = held.filter(pa.compute.equal(held[study.target.name], 0))
    found = evaluate_model(model, study, learned, nobody)
    assert "auc" not in found.figures
    assert "auc" not in found.intervals
    assert "| auc |" not in found.metric_table()
    assert all(math.isfinite(value) for value in found.metrics().values())


def test_a_holdout_of_one_person_is_enough(model: Model, study: Study, learned: pa.Table, held: pa.Table):
    found = evaluate_model(model, study, learned, held.slice(0, 1))
    assert len(found.reference) == 1
    assert all(math.isfinite(value) for value in found.metrics().values())
    assert set(found.groups["value"]) == {OTHERS}


# The card


def test_the_card_tells_what_was_measured(evaluation: HoldoutEvaluation, study: Study, tuned: TuningResult):
    card = ModelCard(
        study,
        4,
        datetime(2026, 3, 1, tzinfo=UTC),
        "f00d" * 16,
        evaluation,
        tuned.table(),
        tuned.configuration,
        "run-of-dagster",
        "run-of-mlflow",
    )
    assert list(card.plots) == list(CAPTIONS)
    page = render_model_card(card)
    assert "Model version 4" in page
    assert f"{evaluation.figures['auc']:.3f}" in page
    assert all(member.in_words() in page for member in tuned.configuration.members)
    for words in ("run-of-dagster", "run-of-mlflow", "f00d" * 16, "logistic 0", "logistic 1", COUNTRY):
        assert words in page, words
    assert [title for title, _ in card.importance] == [study.feature(f).title for f in evaluation.importance]
    assert page.count("<polyline") >= len(CAPTIONS)
    for package in LIBRARIES:
        assert library_version(package) in page


def test_a_tuned_model_is_evaluated_like_any_other(
    study: Study, tuned: TuningResult, learned: pa.Table, held: pa.Table, evaluation: HoldoutEvaluation
):
    found = evaluate_model(train(learned, study, tuned.configuration), study, learned, held)
    assert set(found.figures) == set(evaluation.figures)
    assert found.figures["auc"] > 0.6
