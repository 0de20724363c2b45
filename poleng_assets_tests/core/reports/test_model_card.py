"""The model card: opens offline, speaks in words first, tells about groups and about no person."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.data.library_versions import library_version
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.training_configuration import Member, TrainingConfiguration
from poleng_assets.core.promotion.holdout_evaluation import HoldoutEvaluation
from poleng_assets.core.reports.holdout_charts import CAPTIONS
from poleng_assets.core.reports.model_card import (
    CANDIDATES_SHOWN,
    LIBRARIES,
    ModelCard,
    how_good,
    render_model_card,
    worst_groups,
)
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.core.statistics.groups import OTHERS, evaluate_groups
from poleng_assets.core.statistics.metrics import evaluate
from poleng_assets.core.statistics.resampling import bootstrap_intervals
from poleng_assets.study.schema import Study
from poleng_assets_tests.core.reports.pages import Page, row_of

FIGURES = {"recall": 0.6, "auc": 0.75}


@pytest.fixture(scope="module")
def card(study: Study) -> ModelCard:
    random = np.random.default_rng(6)
    score = random.random(900)
    target, contact = (random.random(900) < score).astype(int), score >= 0.5
    groups = {
        name: random.choice(["these", "those", "few"], 900, p=[0.6, 0.38, 0.02]) for name in study.protected
    }
    questions = study.feature_names
    return ModelCard(
        study=study,
        version=7,
        trained_at=datetime(2025, 3, 1, 9, 30, tzinfo=UTC),
        training_data_hash="f00d" * 16,
        evaluation=HoldoutEvaluation(
            reference=pd.DataFrame({study.target.name: target, "score": score, "contact": contact}),
            figures=evaluate(target, score, contact),
            intervals=bootstrap_intervals(target, score, contact, repeats=20),
            on_training={},
            groups=evaluate_groups(target, score, contact, groups, 100),
            populations=evaluate_groups(target, score, contact, {"country": groups[study.protected[0]]}, 5),
            importance={questions[0]: 0.5, questions[1]: 0.25},
            rows={"spring": (5_000, 800), "autumn": (700, 100)},
        ),
        candidates=pd.DataFrame(
            {"candidate": ["chosen", "forest 2"], "log_loss": [0.55123, None], "trials_run": [3, 12]}
        ),
        configuration=TrainingConfiguration(
            (Member("xgboost", {"max_depth": 4}),), Calibration(), ContactRule(0.5, 100)
        ),
        dagster_run_id="run-of-dagster",
        mlflow_run_id="run-of-mlflow",
    )


def with_evaluation(card: ModelCard, **changes: Any) -> ModelCard:
    return replace(card, evaluation=replace(card.evaluation, **changes))


@pytest.fixture(scope="module")
def page(card: ModelCard) -> str:
    return render_model_card(card)


def test_a_card_needs_nothing_from_elsewhere(page: str):
    tags = Page(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert all(attributes["href"].startswith("#") for tag, attributes in tags if tag == "a")
    assert [a["content"][:18] for _, a in tags if "http-equiv" in a] == ["default-src 'none'"]
    assert [attributes for _, attributes in tags if "src" in attributes] == []
    assert not re.search(r"https?://|@import|url\(", page)


def test_every_tag_is_closed(page: str):
    assert Page(page).open == []


def test_every_chart_is_drawn_and_is_told_to_those_who_do_not_see_it(card: ModelCard, page: str):
    parsed = Page(page)
    named = [attributes["aria-label"] for _, attributes in parsed.tags if attributes.get("role") == "img"]
    assert named == [chart.says for chart in card.plots.values()]
    assert all(CAPTIONS[title] in parsed.text for title in card.plots)
    curves = [attributes["points"] for tag, attributes in parsed.tags if tag == "polyline"]
    assert len(curves) == sum(len(chart.lines) for chart in card.plots.values()) == 10


def test_every_head_of_a_table_says_what_it_is_the_head_of(page: str):
    heads = [attributes for tag, attributes in Page(page).tags if tag == "th"]
    assert len(heads) > 40
    assert {attributes.get("scope") for attributes in heads} == {"col", "row", "rowgroup"}


def test_words_come_before_tables_and_pictures(page: str):
    body = page[page.index("<body>") :]
    heads = ["Intended use", "Population", "Training data", "Performance", "Worst groups"]
    parts = [f"<h3>{head}</h3>" for head in [*heads, "Out-of-scope uses"]]
    places = [
        body.index(part)
        for part in [*parts, "<table", "<polyline", "Training and reproducibility</h2>", "f00d"]
    ]
    assert places == sorted(places)


def test_a_card_says_what_is_decided_and_about_whom(page: str, study: Study):
    text = Page(page).text
    assert study.target.definition in text
    assert f"“{study.target.codes[1]}”" in text
    assert "contact the 100 highest scores of each batch" in text
    assert "trained on: spring, autumn" in text


def test_a_card_says_what_the_data_are(page: str, study: Study):
    text = Page(page).text
    assert f"The answers of 5,700 people to {len(study.features)} questions" in text
    assert "About 15% of each field study, 900 people, were held out" in text
    assert row_of(page, "spring") == ["5,000", "800"]


def test_a_card_says_that_the_data_are_special_category(page: str):
    assert "Answers about political life are special-category personal data" in Page(page).text


def test_questions_are_titles_and_never_column_names(page: str, study: Study):
    text = Page(page).text
    used = (*study.protected, *study.policies.training.masked, *(study.policies.contact.shown_reasons or ()))
    for name in used:
        assert study.feature(name).title in text, name
    assert [name for name in study.feature_names if "_" in name and name in text] == []


def test_figures_stand_with_their_intervals(card: ModelCard, page: str):
    low, high = card.evaluation.intervals["auc"]
    assert row_of(page, "Ranking (AUC)")[:2] == [
        f"{card.evaluation.figures['auc']:.3f}",
        f"{low:.3f} to {high:.3f}",
    ]
    low, high = card.evaluation.intervals["recall"]
    assert row_of(page, "Recall")[:2] == [
        f"{card.evaluation.figures['recall']:.1%}",
        f"{low:.1%} to {high:.1%}",
    ]


def test_a_figure_without_an_interval_stands_alone(card: ModelCard):
    assert row_of(render_model_card(with_evaluation(card, intervals={})), "Ranking (AUC)")[1] == ""


def test_contacts_and_truth_are_counted(card: ModelCard, page: str, study: Study):
    figures = card.evaluation.figures
    hit, missed = int(figures["true_positives"]), int(figures["false_negatives"])
    assert row_of(page, study.target.codes[1]) == [f"{hit:,}", f"{missed:,}"]
    assert sum(int(cell) for code in (0, 1) for cell in row_of(page, study.target.codes[code])) == 900


def test_groups_too_small_are_counted_without_any_figure(card: ModelCard, page: str):
    left_out = int(card.evaluation.groups.loc[card.evaluation.groups["value"] == OTHERS, "rows"].iloc[0])
    assert row_of(page, OTHERS) == [str(left_out), "", "", "", "", "", "", "not shown: too few people"]


def test_a_group_has_its_figures_with_intervals(card: ModelCard, page: str):
    first = card.evaluation.groups.iloc[0]
    cells = row_of(page, "these")
    assert cells[:3] == [f"{first['rows']:,}", f"{first['target_rate']:.1%}", f"{first['flagged_share']:.1%}"]
    assert cells[3] == f"{first['recall']:.1%} ({first['recall_lower']:.1%} to {first['recall_upper']:.1%})"


def test_what_cannot_be_said_about_a_group_is_left_empty(card: ModelCard):
    silent = card.evaluation.populations.assign(
        recall=np.nan, recall_lower=np.nan, recall_upper=np.nan, auc=np.nan
    )
    page = render_model_card(with_evaluation(card, populations=silent, groups=silent))
    assert "nan" not in Page(page).text.split()
    assert row_of(page, "these")[3:6:2] == ["", ""]


def test_what_was_tried_is_compared_with_free_columns(page: str):
    assert row_of(page, "chosen") == ["0.5512", "3"]
    assert row_of(page, "forest 2") == ["", "12"]
    assert "trials run" in Page(page).words


def test_of_many_candidates_the_best_are_shown_and_the_others_counted(card: ModelCard):
    many = pd.DataFrame({"candidate": [f"try {n}" for n in range(40)], "log_loss": 0.5})
    page = render_model_card(replace(card, candidates=many))
    assert [f"try {n}" in Page(page).words for n in (0, CANDIDATES_SHOWN - 1, CANDIDATES_SHOWN)] == [
        True,
        True,
        False,
    ]
    assert f"And {40 - CANDIDATES_SHOWN} worse" in Page(page).text


def test_what_it_takes_to_make_it_again_is_there(card: ModelCard, page: str):
    assert row_of(page, "training data hash") == ["f00d" * 16]
    assert row_of(page, "seed: training") == [str(card.study.policies.training.seed)]
    assert all(row_of(page, name) == [library_version(name)] for name in LIBRARIES)
    assert row_of(page, "Dagster run") == ["run-of-dagster"]
    assert row_of(page, "MLflow run") == ["run-of-mlflow"]


def test_the_most_moving_question_has_the_longest_bar(page: str):
    widths = re.findall(r'<div class="bar here" style="width: ([0-9.]+)%">', page)
    assert widths == ["100.0", "50.0"]


def test_the_time_of_training_is_told_in_utc(card: ModelCard):
    east = datetime(2025, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert "Trained 2025-02-28 23:30 UTC" in Page(render_model_card(replace(card, trained_at=east))).text


def test_a_model_of_which_little_is_known_has_a_card_too(card: ModelCard):
    evaluation = card.evaluation
    bare = with_evaluation(
        replace(card, candidates=pd.DataFrame()),
        intervals={},
        figures={name: value for name, value in evaluation.figures.items() if name.endswith("tives")},
        groups=evaluation.groups.iloc[:0],
        populations=evaluation.populations.iloc[:1],
        importance={},
    )
    page = render_model_card(bare)
    text = Page(page).text
    assert "fewer than two are large enough" in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_hostile_names_are_text_and_nothing_else(card: ModelCard, name: str):
    feature = card.study.features[0]
    study = card.study.model_copy(
        update={"features": (feature.model_copy(update={"title": name}), *card.study.features[1:])}
    )
    hostile = with_evaluation(
        replace(
            card,
            study=study,
            candidates=pd.DataFrame({name: [name]}),
            configuration=replace(card.configuration, members=(Member(name, {name: name}),)),
            dagster_run_id=name,
        ),
        rows={name: (1, 1)},
        groups=card.evaluation.groups.assign(value=name, property=name),
    )
    page = render_model_card(hostile)
    assert name not in page
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert [attributes for _, attributes in parsed.tags if "onerror" in attributes] == []


# For whom it is worse


def groups(**rows: dict[str, float]) -> pd.DataFrame:
    """Return a table of groups that differ from the whole in what is named only."""
    usual = {
        "property": "sex",
        "rows": 500,
        "target_rate": 0.4,
        "flagged_share": 0.4,
        "recall": 0.6,
        "recall_lower": 0.55,
        "recall_upper": 0.65,
        "auc": 0.75,
        "calibration_gap": 0.0,
        "calibration_gap_lower": -0.04,
        "calibration_gap_upper": 0.04,
    }
    return pd.DataFrame([{**usual, "value": value, **changes} for value, changes in rows.items()])


def worst(table: pd.DataFrame) -> str:
    return " ".join(worst_groups(table, FIGURES, {"sex": "Sex"}))


def test_the_group_of_whom_fewest_are_found_is_named():
    table = groups(a={}, b={"recall": 0.3, "recall_lower": 0.25, "recall_upper": 0.35}, c={"recall": 0.59})
    assert (
        "Recall is lowest for “b” (Sex, 500 people): 30.0% (25.0% to 35.0%), 60.0% overall. "
        "The difference is significant" in worst(table)
    )


def test_the_worst_of_many_groups_is_not_blamed_for_chance():
    bad = {"recall": 0.52, "recall_lower": 0.46, "recall_upper": 0.58}
    assert "is significant, even for the worst of 2 groups" in worst(groups(a={}, b=bad))
    among_many = worst(groups(b=bad, **{f"g{n}": {} for n in range(40)}))
    assert "lowest for “b”" in among_many
    assert "For the worst of 41 groups, the difference may be chance." in among_many


def test_groups_that_are_said_to_be_what_they_are_not_are_named():
    text = worst(
        groups(
            a={"calibration_gap": 0.1, "calibration_gap_lower": 0.06, "calibration_gap_upper": 0.14},
            b={"calibration_gap": -0.02, "calibration_gap_lower": -0.06, "calibration_gap_upper": 0.02},
        )
    )
    assert (
        "too high most of all for “a” (Sex, 500 people): calibration bias +10.0 (+6.0 to +14.0) "
        "percentage points. The difference is significant" in text
    )
    assert (
        "too low most of all for “b” (Sex, 500 people): calibration bias -2.0 (-6.0 to +2.0) "
        "percentage points. For the worst" in text
    )


def test_a_group_that_is_ranked_worse_is_named():
    assert "AUC is lowest for “b” (Sex, 500 people): 0.610, 0.750 overall" in worst(
        groups(a={}, b={"auc": 0.61}, c={"auc": float("nan")})
    )


def test_who_is_contacted_most_and_least_is_told_beside_how_many_are_sought():
    text = worst(groups(a={"flagged_share": 0.7}, b={"flagged_share": 0.1, "target_rate": 0.2}))
    assert "contact rate is highest for “a” (Sex, 500 people): 70.0%, with a target rate of 40.0%." in text
    assert "It is lowest for “b” (Sex, 500 people): 10.0%, with a target rate of 20.0%." in text


def test_groups_that_are_alike_are_called_worse_in_nothing():
    text = worst(groups(a={}, b={}))
    assert not any(words in text for words in ("Fewest", "too high", "too low", "ranks worst"))


@pytest.mark.parametrize("table", [groups(a={}), groups(a={}, **{OTHERS: {"recall": float("nan")}})])
def test_one_group_alone_is_worse_than_nobody(table: pd.DataFrame):
    assert worst_groups(table, FIGURES, {}) == []


def test_a_gap_of_nearly_zero_has_no_sign_of_its_own():
    table = groups(
        a={"calibration_gap": -0.05, "calibration_gap_lower": -0.1, "calibration_gap_upper": -0.0001}, b={}
    )
    assert "-5.0 (-10.0 to +0.0)" in worst(table)


def test_how_good_it_is_is_told_from_the_figures_there_are():
    assert how_good({"auc": 0.75}, {"auc": (0.7, 0.8)}) == [
        "A person of the target group scores higher than another person in "
        "75.0% (70.0% to 80.0%) of all pairs (AUC); 50% is random."
    ]
    assert how_good({"log_loss": 0.4}, {}) == []
