"""The drift report: opens offline, speaks in words first, and runs nothing that a file name brings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest

from poleng_assets.core.monitoring.batch_report import BatchReport
from poleng_assets.core.monitoring.measurements import (
    ALL_COLUMNS,
    COMPOSITION,
    CONTACT,
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
from poleng_assets.core.monitoring.realised_performance import RealisedPerformance
from poleng_assets.core.monitoring.verdict import QUIET, Judgement, Reason
from poleng_assets.core.reports.drift_report import (
    DRIFTED_AND_HELD,
    HELD,
    LISTED,
    MEANINGS,
    REASONS_SHOWN,
    meaning,
    render_report,
)
from poleng_assets.study.schema import Study
from poleng_assets_tests.core.reports.pages import Page, row_of, section

Render = Callable[..., str]


def distance(column: str, value: float | None, method: str = JENSEN_SHANNON) -> DriftMetric:
    return DriftMetric.compared(column, method, value, 0.1 if method == JENSEN_SHANNON else 0.05)


FIGURES = BatchMeasurements(
    rows=12_345,
    rows_measured=1_500,
    outside_support=0.123,
    flagged_share=0.34,
    flagged_interval=(0.31, 0.37),
    metrics=(
        distance("country", 0.5),
        distance("country", 0.04, L_INFINITY),
        distance("education", 0.0),
        distance("education", 0.0, L_INFINITY),
        distance("sex", None),
        distance("sex", None, L_INFINITY),
        distance(SCORE, 0.2),
        distance(CONTACT, 0.01),
        DriftMetric.compared("religion", MISSING, 0.25, 0.1),
        DriftMetric.compared("savings", MISSING, None, 0.1),
        DriftMetric.compared("mode", MISSING, 0.0, 0.1),
        DriftMetric.compared("citizenship", UNSEEN, 0.0001, 0.05),
        DriftMetric.compared("household_size", OUT_OF_RANGE, 0.02, 0.05),
        DriftMetric.compared(ALL_COLUMNS, QUARANTINED, 0.004, None),
        DriftMetric.compared(ALL_COLUMNS, RECONSTRUCTION, 1.5, 1.2, 1.1),
    ),
    estimates=(Estimate("auc", 0.7123, 0.68, 0.74, 0.7512), Estimate("recall", 0.4, 0.35, 0.45, None)),
    trust=Trust(True),
    importance={"country": 0.4, "education": 0.05},
)
WORSE = Reason("estimated_loss", "the model is expected to rank people worse", acts=True)
SHIFT = Reason("shift:country", "the answers to Country of the interview shifted", worth=0.2)
DRIFTED = Judgement("drifted", (WORSE, SHIFT), ("country",))
CLEAR = Judgement("clear", (Reason(QUIET, "nothing was found"),))


@pytest.fixture(scope="module")
def render(study: Study, reference: pd.DataFrame) -> Render:
    def page(
        measured: BatchMeasurements = FIGURES,
        judgement: Judgement = DRIFTED,
        batch: str = "spring_2024",
        scored: pd.DataFrame = reference,
        realised: RealisedPerformance | None = None,
        made_at: datetime | None = None,
    ) -> str:
        report = BatchReport(batch, 3, reference, scored, measured, judgement, realised)
        return render_report(study, report, made_at)

    return page


@pytest.fixture(scope="module")
def page(render: Render) -> str:
    return render()


def cells(page: str, first: str) -> list[str]:
    """Return the cells of the row with this head, without the markup in them."""
    return [re.sub(r"<[^>]+>", " ", cell).strip() for cell in row_of(page, first)]


# The page


def test_a_page_needs_nothing_from_elsewhere_and_runs_no_script(page: str):
    tags = Page(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"link", "iframe", "img", "object", "script"})
    assert [attributes for _, attributes in tags if "src" in attributes] == []
    assert all(attributes["href"].startswith("#") for _, attributes in tags if "href" in attributes)
    assert not re.search(r"https?://|@import|url\(", page, re.IGNORECASE)


def test_the_browser_itself_forbids_a_page_to_fetch_anything(page: str):
    policies = [attributes["content"] for tag, attributes in Page(page).tags if "http-equiv" in attributes]
    assert policies[0].startswith("default-src 'none'")


def test_a_page_is_small_enough_to_be_mailed(page: str):
    assert len(page.encode()) < 100_000


def test_what_the_page_links_to_is_on_it(page: str):
    tags = Page(page).tags
    places = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {attributes["href"][1:] for _, attributes in tags if "href" in attributes} <= places


def test_every_tag_is_closed(page: str):
    assert Page(page).open == []


def test_every_head_of_a_table_says_what_it_is_the_head_of(page: str):
    heads = [attributes for tag, attributes in Page(page).tags if tag == "th"]
    assert {attributes.get("scope") for attributes in heads} == {"col", "row", "colgroup"}


def test_every_picture_is_told_to_those_who_do_not_see_it(page: str):
    pictures = [attributes for tag, attributes in Page(page).tags if attributes.get("role") == "img"]
    assert pictures
    assert all(attributes["aria-label"] for attributes in pictures)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_a_hostile_batch_name_is_text_and_nothing_else(render: Render, name: str):
    page = render(batch=name)
    assert name not in page
    parsed = Page(page)
    assert name in parsed.words
    assert {"img", "script"}.isdisjoint({tag for tag, _ in parsed.tags})


def test_a_hostile_reason_is_text_and_nothing_else(render: Render):
    page = render(judgement=Judgement("drifted", (Reason("x", "<b onclick=x>why</b>", acts=True),)))
    assert "<B ONCLICK" not in page.upper()
    assert "<b onclick=x>why</b>." in Page(page).words


def test_nobody_is_on_a_page(render: Render, people: pd.DataFrame, study: Study):
    rows = people.iloc[:800].assign(score=0.123456789, contact=1)
    page = render(scored=rows)
    assert [subject for subject in rows[study.id].astype(str) if subject in page] == []
    assert "0.123456" not in page


# Verdict and reasons


@pytest.mark.parametrize("verdict", list(MEANINGS))
@pytest.mark.parametrize("acts", [True, False])
def test_the_verdict_is_said_and_explained_in_words(render: Render, verdict: Any, acts: bool):
    judgement = Judgement(verdict, (Reason("a", "because", acts),))
    words = Page(render(judgement=judgement)).words
    assert verdict.capitalize() in words
    assert meaning(judgement) in words
    assert meaning(judgement).endswith(HELD if acts else LISTED)


def test_a_drifted_batch_that_is_not_held_is_not_called_a_worse_one():
    assert meaning(DRIFTED) == f"{DRIFTED_AND_HELD} {HELD}"
    named = meaning(Judgement("drifted", (SHIFT,)))
    assert "no sign that the model performs worse" in named
    assert named.endswith(LISTED)


def test_the_verdict_and_its_reasons_stand_before_any_figure(page: str):
    words = Page(page).words
    places = [words.index(one) for one in ("Drifted", "Why", f"{WORSE.words.capitalize()}.", "12,345")]
    assert places == sorted(places)


def test_what_was_acted_upon_is_told_apart_from_what_is_only_named(page: str):
    why = section(page, "Why")
    assert why.index("Why it is on hold") < why.index("The model is expected to rank people worse.")
    assert why.index("Detected, no action") < why.index("The answers to Country of the interview shifted.")


def test_a_clear_batch_has_nothing_acted_upon_and_nothing_named(render: Render):
    assert "Why it is on hold Nothing. Detected, no action Nothing." in Page(render(judgement=CLEAR)).text


def test_of_many_reasons_the_last_are_folded_away(render: Render):
    many = tuple(Reason(str(n), f"shift {n}") for n in range(REASONS_SHOWN + 3))
    why = section(render(judgement=Judgement("drifted", many)), "Why")
    assert "And 3 more" in why
    assert why.index("Shift 5.") < why.index("<details>") < why.index("Shift 6.")


def test_an_alarm_is_said_in_words(render: Render):
    assert "Alarm." in Page(render(judgement=replace(DRIFTED, alarm=True))).words
    known = Page(render(judgement=DRIFTED)).text
    assert "Alarm." not in known
    assert "No new alarm: earlier batches were held for the same reason." in known
    assert "larm" not in Page(render(judgement=CLEAR)).text


def test_the_facts_of_the_batch_are_on_the_page(render: Render):
    made = datetime(2025, 4, 1, 10, 5, tzinfo=timezone(timedelta(hours=2)))
    page = Page(render(made_at=made))
    for fact in ("spring_2024", "12,345", "34.0%", "12.3%", "0.712", "version 3"):
        assert fact in page.words
    assert "31.0% to 37.0%" in page.words
    assert "0.680 to 0.740; 0.751 on the reference" in page.words
    assert "Made 2025-04-01 08:05 UTC" in page.text


# Performance


def test_estimates_stand_with_interval_and_reference(page: str):
    assert [" ".join(cell.split()) for cell in cells(page, "Ranking (AUC)")][:3] == [
        "0.712 0.680 to 0.740", "", "0.751",
    ]  # fmt: skip
    assert cells(page, "Recall")[2] == ""


def test_realised_figures_stand_beside_the_estimates(render: Render):
    realised = (Estimate("auc", 0.7, 0.69, 0.71, 0.75), Estimate("log_loss", 0.55, 0.5, 0.6))
    page = render(realised=RealisedPerformance(realised, 4_000, 12_345))
    assert " ".join(cells(page, "Ranking (AUC)")[1].split()) == "0.700 0.690 to 0.710"
    assert cells(page, "Log-loss")[0] == ""
    assert "Outcomes have arrived for 4,000 people" in Page(page).text
    assert "outcomes of 4,000 people" in Page(page).text


def test_before_outcomes_it_is_said_that_nobody_knows(page: str):
    assert "No outcomes have arrived yet" in Page(page).text


def test_realised_figures_need_no_estimate(render: Render):
    text = Page(
        render(
            replace(FIGURES, estimates=()),
            realised=RealisedPerformance((Estimate("auc", 0.7, 0.69, 0.71),), 4_000, 12_345),
        )
    ).text
    assert "Outcomes have arrived" in text
    assert "Do not trust" not in text


def test_an_estimate_that_cannot_be_trusted_says_why(render: Render, page: str):
    warned = Page(render(replace(FIGURES, trust=Trust(False, "too few people to trust it")))).text
    assert "not trusted" in warned
    assert "Do not trust the estimate: too few people to trust it." in warned
    trusted = Page(page).text
    assert "not trusted" not in trusted
    assert "The estimate can be trusted" in trusted


# Data quality


def test_faults_of_the_data_are_listed_where_there_are_any(page: str):
    quality = section(page, "Data quality")
    assert cells(quality, "Religious denomination") == ["▲ 25.0%", "10.0%", "missing answers"]
    assert cells(quality, "Family savings in the past year") == ["▲ all", "10.0%", "missing answers"]
    assert cells(quality, "Citizen of the country")[:2] == ["under 0.1%", "5.0%"]
    assert cells(quality, "People in the household")[:2] == ["2.0%", "5.0%"]
    assert cells(quality, "All questions together")[:2] == ["0.4%", ""]
    assert "How the interview was held" not in quality


def test_data_without_a_fault_are_called_so(render: Render):
    page = render(replace(FIGURES, metrics=(distance("sex", 0.01),)))
    assert "No issues: no missing, unseen or out-of-range answers" in section(page, "Data quality")


# Drift by question


def test_what_shifted_comes_first_by_its_worth_and_then_the_farthest(page: str):
    moved = section(page, "Drift by question")
    heads = re.findall(r'<th scope="row">(?:<b>)?([^<]+)', moved)
    assert heads == [
        "Country of the interview", "Sex", "Score of the model", "Whether to contact",
        "Highest level of education",
    ]  # fmt: skip


def test_each_distance_stands_with_its_own_limit_and_is_marked_by_a_sign(page: str):
    moved = section(page, "Drift by question")
    found = cells(moved, "<b>Country of the interview</b>")
    assert found == ["▲ 0.500", "0.100", "0.040", "0.050", "40.0%", "0.200"]
    assert cells(moved, "<b>Sex</b>")[:4] == ["▲ unknown", "0.100", "▲ unknown", "0.050"]
    assert cells(moved, "Highest level of education") == ["0.000", "0.100", "0.000", "0.050", "5.0%", ""]
    assert cells(moved, "Whether to contact")[2:4] == ["", ""]


def test_how_the_answers_go_together_is_a_sentence(render: Render, page: str):
    assert "Multivariate drift" in Page(page).text
    assert "reconstruction error is 1.500 (thresholds 1.100 to 1.200)" in Page(page).text
    usual = replace(
        FIGURES,
        metrics=(distance("sex", 0.0), DriftMetric.compared(ALL_COLUMNS, RECONSTRUCTION, 1.15, 1.2, 1.1)),
    )
    assert "No multivariate drift" in Page(render(usual)).text


def test_a_domain_classifier_is_a_sentence(render: Render):
    found = (distance("sex", 0.0), DriftMetric.compared(ALL_COLUMNS, DOMAIN_CLASSIFIER, 0.83, 0.65))
    assert "has an AUC of 0.83" in Page(render(replace(FIGURES, metrics=found))).text


@pytest.mark.parametrize(("value", "shift"), [(0.4, "Composition shift"), (0.01, "No composition shift")])
def test_a_composition_shift_is_shown_and_does_not_count_as_drift(render: Render, value: float, shift: str):
    found = (distance("sex", 0.0), DriftMetric.compared("country", COMPOSITION, value, 0.1))
    text = Page(render(replace(FIGURES, metrics=found))).text
    assert f"{shift} by Country of the interview: " in text
    assert f"distance {value:.3f} (threshold 0.100). Other questions are compared within its strata" in text


# Pictures


def test_questions_are_titles_and_never_column_names(page: str):
    words = set(Page(page).words)
    assert {"Country of the interview", "Sex", "Score of the model"} <= words
    assert words.isdisjoint({"country", "sex", SCORE, CONTACT, ALL_COLUMNS})


def test_what_drifted_is_drawn_with_what_changed_most_in_words(render: Render, reference: pd.DataFrame):
    drifted = section(render(scored=reference.assign(sex="2")), "What drifted")
    assert "Largest change: “Male”" in drifted
    assert "▲ beyond the threshold" in drifted


def test_of_a_batch_without_drift_the_farthest_is_drawn(render: Render):
    page = render(replace(FIGURES, metrics=(distance("sex", 0.01), distance("mode", 0.02))), CLEAR)
    farthest = section(page, "Largest differences")
    assert "No question drifted" in farthest
    assert re.findall(r"<h3>([^<]+)</h3>", farthest) == ["How the interview was held", "Sex"]


def test_answers_are_labels(page: str):
    assert "Argentina" in Page(page).words


def test_bars_show_the_shares_of_the_reference_and_of_the_batch(render: Render, reference: pd.DataFrame):
    page = render(scored=reference.assign(sex="2"))
    share = (reference["sex"] == "2").mean()
    for label, there, here in (("Female", share, "100.0%"), ("Male", 1 - share, "0.0%")):
        _, reference_cell, batch_cell = cells(page, label)
        assert reference_cell.startswith(f"{there:.1%}")
        assert batch_cell == here


def test_the_longest_bar_of_a_question_fills_its_place(render: Render, reference: pd.DataFrame):
    page = render(scored=reference.assign(sex="2"))
    assert 'class="bar here" style="width: 100.0%"' in row_of(page, "Female")[0]
    assert 'class="bar here" style="width: 0.0%"' in row_of(page, "Male")[0]


def test_the_shares_of_scores_add_up(page: str):
    rows = [cells(page, f"{n / 10:.1f} to {n / 10 + 0.1:.1f}") for n in range(10)]
    for side in (1, 2):
        assert sum(float(row[side].split("%")[0]) for row in rows) == pytest.approx(100, abs=0.5)


def test_a_code_that_the_study_does_not_know_is_shown_as_unknown(render: Render, reference: pd.DataFrame):
    assert "unknown (999)" in Page(render(scored=reference.assign(country="999"))).words


def test_no_answer_is_a_bar_of_its_own(render: Render, reference: pd.DataFrame):
    _, there, here = cells(render(scored=reference.assign(sex=None)), "no answer")
    assert (there.split()[0], here) == ("0.0%", "100.0%")


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_batch_too_small_to_measure_has_a_page_without_pictures(
    render: Render, reference: pd.DataFrame, rows: int
):
    small = BatchMeasurements(rows=rows, rows_measured=rows, outside_support=0.0, flagged_share=0.0)
    few = Judgement("insufficient", (Reason("too_few", "too few"),))
    page = render(measured=small, judgement=few, scored=reference.iloc[:rows])
    assert "Insufficient" in Page(page).words
    assert "Drift by question" not in page
    assert "the batch is too small to measure" in page
    assert len(page) < 30_000
