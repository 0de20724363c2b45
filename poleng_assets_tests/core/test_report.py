"""The drift report: opens offline, speaks in words first, and runs nothing that a file name brings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from poleng_assets.core.drift import JENSEN_SHANNON, MISSING, SCORE, BatchFigures, Estimate, Figure
from poleng_assets.core.overseer import Judgement
from poleng_assets.core.report import MEANINGS, render_report
from poleng_assets.study import Study

Render = Callable[..., str]


def distance(column: str, value: float | None, alert: bool = False) -> Figure:
    return Figure(column, JENSEN_SHANNON, value, None, 0.1, alert)


FIGURES = BatchFigures(
    rows=12_345,
    rows_measured=1_500,
    outside_support=0.123,
    flagged_share=0.34,
    figures=(
        distance("country", 0.5, alert=True),
        distance("education", 0.0),
        distance("sex", None, alert=True),
        distance(SCORE, 0.2, alert=True),
        Figure("religion", MISSING, 0.25, None, 0.1, True),
        Figure("savings", MISSING, None, None, 0.1, True),
        Figure("mode", MISSING, 0.0, None, 0.1, False),
    ),
    estimates=(Estimate("auc", 0.7123, 0.68, 0.74, 0.7512),),
)
DRIFTED = Judgement("drifted", ("the model is expected to rank people worse",), ("country",))


@pytest.fixture(scope="module")
def render(study: Study, reference: pd.DataFrame) -> Render:
    def page(
        figures: BatchFigures = FIGURES,
        judgement: Judgement = DRIFTED,
        batch: str = "spring_2024",
        scored: pd.DataFrame = reference,
    ) -> str:
        return render_report(study, batch, 3, figures, judgement, reference, scored)

    return page


@pytest.fixture(scope="module")
def page(render: Render) -> str:
    return render()


class Text(HTMLParser):
    """Collects what a reader sees, and every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.words.append(" ".join(data.split()))


def cells(page: str, first: str) -> list[list[str]]:
    """Return the rows of the tables whose first cell holds these words."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    split = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [row for row in split if row and row[0] == first]


def test_a_page_needs_nothing_from_elsewhere(page: str):
    assert "http://" not in page
    assert "https://" not in page
    tags = Text(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "iframe", "img", "object"})
    assert [attributes for _, attributes in tags if attributes.keys() & {"src", "href"}] == []
    assert "@import" not in page
    assert "url(" not in page


def test_every_tag_is_closed(page: str):
    assert Text(page).open == []


@pytest.mark.parametrize("verdict", list(MEANINGS))
def test_the_verdict_is_said_and_explained_in_words(render: Render, verdict: Any):
    words = Text(render(judgement=Judgement(verdict, ("because",), ()))).words
    assert verdict.capitalize() in words
    assert MEANINGS[verdict] in words


def test_the_verdict_stands_before_any_figure(page: str):
    words = Text(page).words
    assert words.index("Drifted") < words.index("Why") < words.index("12,345")


def test_reasons_are_sentences_in_their_order(render: Render):
    words = Text(render(judgement=replace(DRIFTED, reasons=("first reason", "second reason")))).words
    at = words.index("First reason.")
    assert words[at + 1] == "Second reason."


def test_the_facts_of_the_batch_are_on_the_page(page: str):
    words = Text(page).words
    for fact in ("spring_2024", "12,345", "34%", "12.3%", "0.712", "0.751", "version 3"):
        assert fact in words


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_a_hostile_batch_name_is_text_and_nothing_else(render: Render, name: str):
    page = render(batch=name)
    assert name not in page
    parsed = Text(page)
    assert name in parsed.words
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img"})


def test_a_hostile_reason_is_text_and_nothing_else(render: Render):
    page = render(judgement=replace(DRIFTED, reasons=("<b onclick=x>why</b>",)))
    assert "<B ONCLICK" not in page.upper()
    assert "<b onclick=x>why</b>." in Text(page).words


def test_questions_are_titles_and_never_column_names(page: str, study: Study):
    words = set(Text(page).words)
    assert {"Country of the interview", "Sex", "Score of the model"} <= words
    assert words.isdisjoint({"country", "sex", SCORE})


def test_answers_are_labels(page: str):
    assert "Argentina" in Text(page).words


def test_distances_come_farthest_first_with_unknown_before_all_and_zero_last(page: str):
    table = page[page.index("How far each answer moved") : page.index("The answers that moved most")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    assert [row[:2] for row in rows if row] == [
        ["Sex", "unknown"],
        ["Country of the interview", "0.500"],
        ["Score of the model", "0.200"],
        ["Highest level of education", "0.000"],
    ]


def test_only_alerting_distances_are_marked(page: str):
    assert 'alert">0.500' in page
    assert 'alert">0.000' not in page


def test_missing_answers_are_listed_where_there_are_any(page: str):
    assert cells(page, "Religious denomination") == [["Religious denomination", "25.0%", "10.0%"]]
    assert cells(page, "Family savings in the past year") == [
        ["Family savings in the past year", "all", "10.0%"]
    ]
    assert "How the interview was held" not in page[page.index("Missing answers") :]


def test_bars_show_the_shares_of_the_reference_and_of_the_batch(render: Render, reference: pd.DataFrame):
    page = render(scored=reference.assign(sex="2"))
    share = (reference["sex"] == "2").mean()
    assert cells(page, "Female")[0][2:] == [f"{share:.1%}", "100.0%"]
    assert cells(page, "Male")[0][2:] == [f"{1 - share:.1%}", "0.0%"]


def test_the_shares_of_scores_add_up(page: str):
    rows = [cells(page, f"{n / 10:.1f} to {n / 10 + 0.1:.1f}")[0] for n in range(10)]
    for side in (2, 3):
        assert sum(float(row[side].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.5)


def test_a_code_that_the_study_does_not_know_is_shown_as_unknown(render: Render, reference: pd.DataFrame):
    assert "unknown (999)" in Text(render(scored=reference.assign(country="999"))).words


def test_no_answer_is_a_bar_of_its_own(render: Render, reference: pd.DataFrame):
    assert cells(render(scored=reference.assign(sex=None)), "no answer")[0][2:] == ["0.0%", "100.0%"]


def test_an_untrusted_batch_warns_at_its_estimates(render: Render):
    warned = render(judgement=Judgement("untrusted", ("outside",), ()))
    assert "not to be trusted" in warned
    assert "do not rely on these figures" in warned


def test_a_trusted_batch_does_not_warn_at_its_estimates(page: str):
    assert "not to be trusted" not in page
    assert "do not rely on these figures" not in page


@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_too_small_to_measure_has_a_page_too(render: Render, reference: pd.DataFrame, rows: int):
    small = BatchFigures(rows=rows, rows_measured=rows, outside_support=0.0, flagged_share=0.0)
    page = render(
        figures=small, judgement=Judgement("insufficient", ("too few",), ()), scored=reference.iloc[:rows]
    )
    assert "Insufficient" in Text(page).words
    assert "How far each answer moved" not in page
    assert "the batch is too small to measure" in page
