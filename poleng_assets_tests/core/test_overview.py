"""The page over all batches: how things stand in words first, then one time line, then every report."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from poleng_assets.core.drift_plots import plotly_js
from poleng_assets.core.figures import JENSEN_SHANNON, L_INFINITY, SCORE, BatchFigures, Figure
from poleng_assets.core.overview import (
    ALARMS_NAMED,
    LINES_SHOWN,
    Overview,
    load_overview,
    render_overview,
    report_address,
)
from poleng_assets.core.report import render_report
from poleng_assets.core.tables import insert, record_decision
from poleng_assets.core.verdict import Judgement, Reason
from poleng_assets.study import Study
from poleng_assets_tests.core.pages import Page, without_library

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(days=400)


def report(batch: str, day: int, verdict: str = "clear", **changes: Any) -> dict[str, Any]:
    usual = {
        "batch": batch,
        "model_version": 1,
        "verdict": verdict,
        "rows": 1_234,
        "reported_at": START + timedelta(days=day),
        "estimated_auc": 0.78,
        "reference_auc": 0.79,
        "outside_support": 0.0,
        "flagged_share": 0.25,
        "reasons": "the first reason\nthe second reason",
        "held": verdict == "untrusted",
        "alarm": False,
        "trusted": verdict == "clear",
        "current": True,
    }
    return usual | changes


def performance(batch: str, version: int, kind: str, value: float | None = 0.77) -> dict[str, Any]:
    lower, upper = (None, None) if value is None else (value - 0.02, value + 0.03)
    return {
        "batch": batch, "model_version": version, "kind": kind, "metric": "auc", "value": value,
        "lower": lower, "upper": upper,
    }  # fmt: skip


def overview(
    reports: list[dict[str, Any]] | None = None,
    figures: list[dict[str, Any]] | None = None,
    alerts: list[tuple[str, int, str, str]] | None = None,
    promotions: list[tuple[int, str, int]] | None = None,
) -> Overview:
    return Overview(
        pd.DataFrame(reports or [], columns=list(report("", 0))),
        pd.DataFrame(figures or [], columns=list(performance("", 1, ""))),
        pd.DataFrame(alerts or [], columns=["batch", "model_version", "column_name", "method"]),
        pd.DataFrame(
            [(START + timedelta(days=day), kind, version, "why") for day, kind, version in promotions or []],
            columns=["decided_at", "kind", "version", "reason"],
        ),
    )


STORY = overview(
    [
        report("first", 1),
        report("foreign", 3, "untrusted", alarm=True, current=False),
        report("foreign", 5, model_version=2),
        report("odd name/ü", 6, "drifted", model_version=2, flagged_share=0.31),
    ],
    [
        performance("first", 1, "estimated", 0.781), performance("first", 1, "realised", 0.772),
        performance("foreign", 1, "estimated", 0.71), performance("foreign", 2, "estimated", None),
    ],
    [
        ("foreign", 1, "country", JENSEN_SHANNON), ("foreign", 1, "country", L_INFINITY),
        ("odd name/ü", 2, "education", JENSEN_SHANNON), ("foreign", 1, SCORE, JENSEN_SHANNON),
    ],
    [(0, "promote", 1), (4, "promote", 2)],
)  # fmt: skip


def render(study: Study, found: Overview = STORY) -> str:
    return render_overview(study, *found, NOW)


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return render(study)


def drawing(page: str, name: str) -> dict[str, Any]:
    """Return the data and the layout of one picture."""
    start = page.index("[", page.index(f'"{name}"', page.index(f'id="{name}"')))
    data, end = json.JSONDecoder().raw_decode(page, start)
    layout, _ = json.JSONDecoder().raw_decode(page, page.index("{", end))
    return {"data": data, "layout": layout}


def lines(page: str) -> list[str]:
    """Return the rows of the tables as text, without their head."""
    rows = re.findall(r"<tr[^>]*>(<th scope=\"row\">.*?)</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


# The page


def test_a_page_needs_nothing_but_the_reports_beside_it(page: str):
    tags = Page(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"link", "iframe", "img", "object"})
    assert all(attributes["href"].startswith("./") for tag, attributes in tags if tag == "a")
    assert not re.search(
        r"https?://|@import|url\(|mathjax", without_library(page, plotly_js()), re.IGNORECASE
    )
    assert [a["content"][:18] for _, a in tags if "http-equiv" in a] == ["default-src 'none'"]


def test_every_tag_is_closed(page: str):
    assert Page(page).open == []


def test_an_empty_home_has_a_page_that_says_so(study: Study):
    empty = Page(render(study, overview()))
    assert "There is no batch yet." in empty.words
    assert "No model serves yet." in empty.words
    assert len(render(study, overview())) < 20_000


def test_a_model_without_a_batch_is_told(study: Study):
    page = Page(render(study, overview(promotions=[(0, "promote", 1)])))
    assert "Model version 1 serves, since 2025-03-01 12:00 UTC." in page.words
    assert "There is no batch yet." in page.words


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a<b>c</b>"])
def test_a_hostile_batch_name_is_text_and_nothing_else(study: Study, name: str):
    found = overview([report(name, 1, alarm=True, reasons=name)], [performance(name, 1, "estimated")],
                     [(name, 1, "sex", JENSEN_SHANNON)])  # fmt: skip
    page = render(study, found)
    assert name not in page
    parsed = Page(page)
    assert name in parsed.words
    assert {tag for tag, attributes in parsed.tags if "onerror" in attributes or tag == "img"} == set()
    # Plotly takes markup in its texts for markup.
    hovers = drawing(page, "timeline")["data"][1]["customdata"]
    assert "&lt;" in hovers[0]


# How things stand


def test_the_state_is_said_before_anything_is_drawn(page: str):
    body = page[page.index("<body>") :]
    assert body.index("How things stand") < body.index("Plotly.newPlot(")


def test_the_champion_the_verdicts_and_the_newest_batch_are_said(page: str):
    text = Page(page).text
    assert "Model version 2 serves, since 2025-03-05 12:00 UTC." in text
    assert "3 batches have been judged: 2 clear, 1 drifted." in text
    assert "The newest, odd name/ü, is drifted: its contact list was made at once." in text


def test_a_rollback_is_said(study: Study):
    found = overview(promotions=[(0, "promote", 1), (2, "promote", 2), (3, "rollback", 1)])
    assert "Model version 1 serves again, after a rollback, since" in Page(render(study, found)).text


def test_an_alarm_of_a_report_that_counts_no_more_is_closed(page: str):
    assert "There is no open alarm." in Page(page).words


def test_open_alarms_are_named_with_their_reports_newest_first(study: Study):
    many = [report(f"b{n}", n, "untrusted", alarm=True) for n in range(ALARMS_NAMED + 2)]
    page = render(study, overview(many))
    assert f"{ALARMS_NAMED + 2} open alarms:" in Page(page).words
    assert "And 2 more, in the table below." in Page(page).text
    assert page.index(">b11</a>") < page.index(">b10</a>")
    assert "The newest, b11, is untrusted: its contact list was held back." in Page(page).text


def test_a_batch_whose_newest_scores_have_no_report_counts_by_its_last_one(study: Study):
    found = overview([report("b", 1, "untrusted", current=False), report("b", 2, current=False)])
    assert "One batch has been judged: 1 clear." in Page(render(study, found)).text


# Pictures


def test_verdicts_differ_by_place_by_sign_and_by_colour(page: str):
    traces = {trace["name"]: trace for trace in drawing(page, "timeline")["data"]}
    verdicts = [traces[name] for name in ("insufficient", "clear", "drifted", "untrusted")]
    for what in ("symbol", "color"):
        assert len({trace["marker"][what] for trace in verdicts}) == 4
    assert [trace["x"] for trace in verdicts] == [[], [0, 2], [3], [1]]
    assert traces["raised an alarm"]["x"] == [1]


def test_a_report_that_counts_no_more_is_pale(page: str):
    traces = {trace["name"]: trace for trace in drawing(page, "timeline")["data"]}
    assert traces["untrusted"]["marker"]["opacity"][0] < traces["clear"]["marker"]["opacity"][0] == 1


@pytest.mark.parametrize("name", ["timeline", "performance", "flagged", "columns"])
def test_each_change_of_the_champion_is_marked_in_each_picture(page: str, name: str):
    layout = drawing(page, name)["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == [-0.5, 1.5]
    assert [note["text"] for note in layout["annotations"]] == ["v1", "v2"]


def test_performance_is_drawn_with_intervals_and_hollow_where_it_cannot_be_trusted(page: str):
    traces = {trace["name"]: trace for trace in drawing(page, "performance")["data"]}
    assert traces["estimated"]["y"] == [0.781]
    assert traces["estimated"]["error_y"]["array"] == pytest.approx([0.03])
    assert traces["estimated"]["error_y"]["arrayminus"] == pytest.approx([0.02])
    assert traces["realised"]["y"] == [0.772]
    assert traces["estimated, not to be trusted"]["y"] == [0.71]
    assert traces["estimated, not to be trusted"]["marker"]["symbol"] == "circle-open"
    assert traces["on the reference"]["y"] == [0.79] * 4


def test_the_share_to_contact_has_a_bar_for_each_report(page: str):
    assert drawing(page, "flagged")["data"][0]["y"] == [0.25, 0.25, 0.25, 0.31]


def test_alarms_stand_by_title_and_batch_the_most_frequent_on_top(study: Study):
    again = STORY._replace(
        alerts=pd.concat([STORY.alerts, STORY.alerts.iloc[:1].assign(batch="first", model_version=1)])
    )
    found = drawing(render(study, again), "columns")
    titles = found["layout"]["yaxis"]["ticktext"]
    assert titles[-1] == "Country of the interview"
    assert set(titles) == {"Country of the interview", "Highest level of education", "Score of the model"}
    heat = found["data"][0]
    assert heat["z"][-1] == [1, 2, None, None]
    assert "Country of the interview: Jensen-Shannon distance; largest diff" in heat["customdata"][-1][1]


def test_pictures_that_would_be_empty_are_sentences(study: Study):
    bare = overview([report("b", 1, estimated_auc=None, reference_auc=None, flagged_share=None)])
    text = Page(render(study, bare)).text
    assert "Nothing has been estimated yet." in text
    assert "No figure of any question was beyond its limit." in text
    assert "Share of the people to contact" not in text


# Every batch


def test_every_report_has_a_line_newest_first(page: str):
    assert [line.split(" version")[0] for line in lines(page)] == [
        "odd name/ü", "foreign", "foreign", "first",
    ]  # fmt: skip
    assert lines(page)[3] == (
        "first version 1 clear 1,234 25.0% 0.781 0.761 to 0.811 0.772 0.752 to 0.802 2025-03-02 12:00 "
        "the first reason"
    )


def test_a_line_says_what_was_held_what_alarmed_and_what_counts_no_more(page: str):
    line = lines(page)[2]
    for words in ("scored again later", "untrusted", "list held back", "▲ alarm", "not to be trusted"):
        assert words in line


def test_links_lead_to_the_report_of_the_version_whatever_the_name(page: str):
    links = [attributes["href"] for tag, attributes in Page(page).tags if tag == "a"]
    assert links == [
        "./odd%20name%2F%C3%BC/version_2.html",
        "./foreign/version_2.html",
        "./foreign/version_1.html",
        "./first/version_1.html",
    ]


def test_a_thousand_batches_fit_on_a_page(study: Study):
    many = [report(f"week_{n:04}", n, model_version=1 + n // 300) for n in range(1_000)]
    figures = [performance(one["batch"], one["model_version"], "estimated") for one in many]
    alerts = [(one["batch"], one["model_version"], "sex", JENSEN_SHANNON) for one in many[::7]]
    promotions = [(300 * n, "promote", n + 1) for n in range(4)]
    page = render(study, overview(many, figures, alerts, promotions))
    assert len(lines(page)) == 1_000
    assert f"And {1_000 - LINES_SHOWN} earlier reports" in Page(page).text
    assert len(drawing(page, "timeline")["layout"]["xaxis"]["tickvals"]) < 10
    assert len(page) < len(plotly_js()) + 3_000_000


# From the warehouse


def test_the_warehouse_tells_all_that_the_page_needs(con: duckdb.DuckDBPyConnection, study: Study):
    scored = pd.DataFrame(
        [("b", "p", 1, 0.4, False, START), ("b", "p", 2, 0.6, True, START + timedelta(days=1))],
        columns=["batch", study.id, "model_version", "score", "contact", "scored_at"],
    )
    insert(con, "predictions", scored)
    reports = [report("b", 1, "untrusted", held=True, alarm=True), report("b", 2, model_version=2)]
    kept = pd.DataFrame(reports).drop(columns="current").assign(drifted_columns=0, rows_measured=1)
    insert(con, "drift_reports", kept)
    insert(con, "performance", pd.DataFrame([performance("b", 2, "estimated")]))
    measured = [("sex", 0.2), ("sex", 0.05), ("asked_no_longer", 0.9)]
    metrics = pd.DataFrame([vars(Figure.compared(name, JENSEN_SHANNON, v, 0.1)) for name, v in measured])
    insert(con, "drift_metrics", metrics.assign(batch="b", model_version=1))
    record_decision(con, "promote", "better", evidence={}, champion_version=1, challenger_version=2)
    record_decision(con, "reject", "worse", evidence={}, champion_version=2, challenger_version=3)
    record_decision(con, "rollback", "by hand", evidence={}, champion_version=1, challenger_version=2)
    found = load_overview(con, study)
    assert found.reports["current"].tolist() == [False, True]
    assert found.reports["alarm"].tolist() == [True, False]
    assert found.performance["value"].tolist() == [0.77]
    assert found.alerts.to_numpy().tolist() == [["b", 1, "sex", JENSEN_SHANNON]]
    assert found.promotions[["kind", "version"]].to_numpy().tolist() == [["promote", 2], ["rollback", 1]]
    assert "Model version 1 serves again" in Page(render(study, found)).text


def test_reports_of_an_earlier_release_are_read_too(con: duckdb.DuckDBPyConnection, study: Study):
    old = pd.DataFrame([report("b", 1, "drifted"), report("c", 2)])
    new = ["held", "alarm", "trusted", "current", "reasons"]
    insert(con, "drift_reports", old.drop(columns=new).assign(drifted_columns=0))
    found = load_overview(con, study).reports
    assert found["held"].tolist() == [True, False]
    assert found["alarm"].tolist() == found["trusted"].tolist() == [False, False]
    assert found["reasons"].tolist() == ["", ""]


def test_an_empty_warehouse_has_a_page(con: duckdb.DuckDBPyConnection, study: Study):
    assert "There is no batch yet." in Page(render(study, load_overview(con, study))).words


# In a browser


def test_both_pages_open_without_a_network_and_draw_everything(
    study: Study, reference: pd.DataFrame, page: str, tmp_path: Path
):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    from playwright.sync_api import expect, sync_playwright

    figures = BatchFigures(1_500, 1_500, 0.0, 0.2, figures=tuple(
        Figure.compared(name, JENSEN_SHANNON, 0.3, 0.1) for name in ("country", "sex")
    ))  # fmt: skip
    drifted = Judgement("drifted", (Reason("shift:sex", "it shifted"),))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    (tmp_path / report_address("foreign", 2)).write_text(
        render_report(study, "foreign", 2, figures, drifted, reference, reference), encoding="utf-8"
    )
    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        opened = browser.new_context(viewport={"width": 390, "height": 800}, offline=True).new_page()
        complaints: list[str] = []
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda said: complaints.append(said.text))
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((tmp_path / "index.html").as_uri())
        expect(opened.locator(".js-plotly-plot .cartesianlayer .subplot.xy")).to_have_count(4)
        opened.get_by_role("link", name="foreign").first.click()
        expect(opened.get_by_role("heading", name="What drifted")).to_be_visible()
        expect(opened.locator(".js-plotly-plot .cartesianlayer .subplot.xy")).to_have_count(2)
        assert opened.locator(".js-plotly-plot .bars .point").count() > 20
        wider = opened.evaluate("document.documentElement.scrollWidth - innerWidth")
        browser.close()
    assert complaints == []
    assert [address for address in asked if not address.startswith("file:")] == []
    assert wider <= 0
