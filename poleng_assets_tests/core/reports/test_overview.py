"""The page over all batches: how things stand in words first, then one time line, then every report."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import duckdb
import pandas as pd
import pytest

from poleng_assets.core.monitoring.measurements import JENSEN_SHANNON, L_INFINITY, SCORE, DriftMetric
from poleng_assets.core.reports.charts import Chart
from poleng_assets.core.reports.overview import (
    ALARMS_NAMED,
    LINES_SHOWN,
    LISTED,
    PICTURED,
    VERDICTS,
    Overview,
    load_overview,
    render_overview,
)
from poleng_assets.core.reports.pages import template
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.writes import insert
from poleng_assets_tests.core.reports.pages import Page, section

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
        "released": False,
        "list_erased": "",
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
    return render_overview(study, found, NOW)


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return render(study)


@pytest.fixture
def charts(study: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Chart]]:
    """Return what is handed to the template to be drawn, by name."""
    given: dict[str, Any] = {}

    def drawn(found: Overview = STORY) -> dict[str, Chart]:
        whole = template("overview.html")
        monkeypatch.setattr(
            "poleng_assets.core.reports.overview.template",
            lambda name: SimpleNamespace(render=lambda **said: given.update(said) or whole.render(**said)),
        )
        render(study, found)
        return {name: given[name] for name in ("timeline", "performance", "flagged", "columns")}

    return drawn


def lines(page: str) -> list[str]:
    """Return the rows of the tables as text, without their head."""
    rows = re.findall(r"<tr[^>]*>(<th scope=\"row\">.*?)</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


# The page


def test_a_page_needs_nothing_but_the_reports_beside_it_and_runs_no_script(page: str):
    tags = Page(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"link", "iframe", "img", "object", "script"})
    assert all(attributes["href"].startswith(("./", "#")) for tag, attributes in tags if tag == "a")
    assert not re.search(r"https?://|@import|url\(", page, re.IGNORECASE)
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
    assert "Model version 1 has served since 2025-03-01 12:00 UTC." in page.words
    assert "There is no batch yet." in page.words


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a<b>c</b>"])
def test_a_hostile_batch_name_is_text_and_nothing_else(study: Study, name: str):
    found = overview([report(name, 1, alarm=True, reasons=name)], [performance(name, 1, "estimated")],
                     [(name, 1, "sex", JENSEN_SHANNON)])  # fmt: skip
    page = render(study, found)
    assert name not in page
    parsed = Page(page)
    assert name in parsed.words
    assert [
        tag for tag, attributes in parsed.tags if "onerror" in attributes or tag in ("img", "script")
    ] == []


# Summary


def test_the_state_is_said_before_anything_is_drawn(page: str):
    body = page[page.index("<body>") :]
    assert body.index("Summary") < body.index('role="img"')


def test_the_champion_the_verdicts_and_the_newest_batch_are_said(page: str):
    text = Page(page).text
    assert "Model version 2 has served since 2025-03-05 12:00 UTC." in text
    assert "3 batches have been judged: 2 clear, 1 drifted." in text
    assert "The newest batch, odd name/ü, is drifted: its contact list was issued immediately." in text


def test_a_rollback_is_said(study: Study):
    found = overview(promotions=[(0, "promote", 1), (2, "promote", 2), (3, "rollback", 1)])
    assert (
        "Model version 1 has served since 2025-03-04 12:00 UTC, after a rollback."
        in Page(render(study, found)).text
    )


def test_an_alarm_of_a_report_that_counts_no_more_is_closed(page: str):
    assert "There is no open alarm." in Page(page).words


def test_open_alarms_are_named_with_their_reports_newest_first(study: Study):
    many = [report(f"b{n}", n, "untrusted", alarm=True) for n in range(ALARMS_NAMED + 2)]
    page = render(study, overview(many))
    assert f"{ALARMS_NAMED + 2} open alarms:" in Page(page).words
    assert "And 2 more, in the table below." in Page(page).text
    assert page.index(">b11</a>") < page.index(">b10</a>")
    assert "The newest batch, b11, is untrusted: its contact list is held." in Page(page).text


def test_a_list_that_was_held_and_then_made_is_not_called_held(study: Study):
    page = render(study, overview([report("b", 1, "untrusted", released=True)]))
    assert "its contact list was held, then released with this version." in Page(page).text
    assert "list held, then released" in lines(page)[0]


def test_a_batch_whose_newest_scores_have_no_report_counts_by_its_last_one(study: Study):
    found = overview([report("b", 1, "untrusted", current=False), report("b", 2, current=False)])
    assert "One batch has been judged: 1 clear." in Page(render(study, found)).text


# Pictures


def test_verdicts_differ_by_place_by_sign_and_by_colour(charts: Callable[..., dict[str, Chart]]):
    assert len(set(VERDICTS.values())) == len(VERDICTS)
    timeline = charts()["timeline"]
    places = {row.text: row.at for row in timeline.rows}
    assert list(places) == ["untrusted", "drifted", "clear", "insufficient"]
    found = [(mark.sign, mark.look, mark.y) for mark in timeline.marks]
    assert found == [
        ("circle", "clear", places["clear"]),
        ("ring", "alarm", places["untrusted"]),
        ("cross", "untrusted pale", places["untrusted"]),
        ("circle", "clear", places["clear"]),
        ("triangle", "drifted", places["drifted"]),
    ]
    assert [mark.x for mark in timeline.marks] == sorted(mark.x for mark in timeline.marks)


def test_each_sign_says_which_report_it_is(charts: Callable[..., dict[str, Chart]]):
    words = [mark.text for mark in charts()["timeline"].marks if mark.text]
    assert words[1] == "foreign, version 1, 2025-03-04 12:00 UTC: untrusted, list held"


@pytest.mark.parametrize("name", ["timeline", "performance", "flagged", "columns"])
def test_each_change_of_the_champion_is_marked_in_each_picture(
    charts: Callable[..., dict[str, Chart]], name: str
):
    chart = charts()[name]
    assert [note.text for note in chart.notes] == ["v1", "v2"]
    assert [line.x1 for line in chart.segments if line.look == "champion"] == [n.at for n in chart.notes]
    first, second = (mark.x for mark in charts()["timeline"].marks if mark.look.startswith("clear"))
    assert chart.notes[0].at < first < chart.notes[1].at < second


def test_every_picture_has_the_same_time_line(charts: Callable[..., dict[str, Chart]]):
    found = charts().values()
    assert len({(chart.columns, chart.gutter) for chart in found}) == 1


def test_performance_is_drawn_with_intervals_and_hollow_where_it_cannot_be_trusted(
    charts: Callable[..., dict[str, Chart]],
):
    chart = charts()["performance"]
    told = {mark.text.split(": ")[1]: mark for mark in chart.marks}
    assert set(told) == {"AUC estimated", "AUC realised", "AUC estimated, not trusted"}
    assert told["AUC estimated"].look == "here"
    assert told["AUC estimated, not trusted"].look == "here hollow"
    assert told["AUC realised"].sign == "square"
    # The better, the higher: less percent from the top.
    assert told["AUC estimated"].y < told["AUC realised"].y < told["AUC estimated, not trusted"].y
    interval = next(line for line in chart.segments if line.x1 == told["AUC estimated"].x)
    assert interval.y2 < told["AUC estimated"].y < interval.y1
    assert len([line for line in chart.segments if line.look == "there dashed"]) == 1


def test_the_share_to_contact_has_a_bar_for_each_report(charts: Callable[..., dict[str, Chart]]):
    boxes = charts()["flagged"].boxes
    assert [box.text.split(": ")[1] for box in boxes] == [
        "25.0% to contact", "25.0% to contact", "25.0% to contact", "31.0% to contact",
    ]  # fmt: skip
    assert boxes[3].height / boxes[0].height == pytest.approx(0.31 / 0.25)
    assert [box.y + box.height for box in boxes] == pytest.approx([100] * 4)


def test_alarms_stand_by_title_and_batch_the_most_frequent_on_top(charts: Callable[..., dict[str, Chart]]):
    again = STORY._replace(
        alerts=pd.concat([STORY.alerts, STORY.alerts.iloc[:1].assign(batch="first", model_version=1)])
    )
    chart = charts(again)["columns"]
    titles = [row.text for row in chart.rows]
    assert titles[0] == "Country of the interview"
    assert set(titles) == {"Country of the interview", "Highest level of education", "Score of the model"}
    top = [box for box in chart.boxes if box.y < 100 / 3]
    assert [box.look for box in top] == ["once", "often"]
    assert "Country of the interview: Jensen-Shannon distance; L-infinity" in top[1].text
    assert "Country of the interview (2)" in chart.says


def test_pictures_that_would_be_empty_are_sentences(study: Study):
    bare = overview([report("b", 1, estimated_auc=None, reference_auc=None, flagged_share=None)])
    text = Page(render(study, bare)).text
    assert "No estimates yet." in text
    assert "No question exceeded a threshold." in text
    assert "Share of people to contact" not in text
    assert "Share to contact" not in text


# All batches


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
    for words in ("scored again later", "untrusted", "list held", "▲ alarm", "not trusted"):
        assert words in line


def test_links_lead_to_the_report_of_the_version_whatever_the_name(page: str):
    links = [attributes["href"] for tag, attributes in Page(page).tags if tag == "a"]
    assert [link for link in links if not link.startswith("#")] == [
        "./batches/odd%20name%2F%C3%BC/version_2.html",
        "./batches/foreign/version_2.html",
        "./batches/foreign/version_1.html",
        "./batches/first/version_1.html",
    ]


def test_a_thousand_batches_fit_on_a_page(study: Study):
    many = [report(f"week_{n:04}", n, model_version=1 + n // 300) for n in range(1_000)]
    figures = [performance(one["batch"], one["model_version"], "estimated") for one in many]
    alerts = [(one["batch"], one["model_version"], "sex", JENSEN_SHANNON) for one in many[::7]]
    promotions = [(300 * n, "promote", n + 1) for n in range(4)]
    page = render(study, overview(many, figures, alerts, promotions))
    assert len(lines(page)) == LISTED
    assert f"The newest {LISTED} of 1,000 reports" in Page(page).text
    assert f"And {LISTED - LINES_SHOWN} earlier reports" in Page(page).text
    assert f"The plots show the newest {PICTURED} of 1,000 reports" in Page(page).text
    drawn = section(page, "Verdicts")
    assert len(re.findall("<use[^>]*>\\s*<title>", drawn)) == PICTURED
    assert len(re.findall(r"\d{4}-\d\d-\d\d</span>", drawn)) < 10
    assert len(page.encode()) < 700_000


# From the warehouse


def test_the_warehouse_tells_all_that_the_page_needs(con: duckdb.DuckDBPyConnection, study: Study):
    scored = pd.DataFrame(
        [("b", "p", 1, 0.4, False, START), ("b", "p", 2, 0.6, True, START + timedelta(days=1))],
        columns=["batch", study.id, "model_version", "score", "contact", "scored_at"],
    )
    insert(con, "predictions", scored)
    reports = [report("b", 1, "untrusted", held=True, alarm=True), report("b", 2, model_version=2)]
    kept = (
        pd.DataFrame(reports)
        .drop(columns=["current", "released", "list_erased"])
        .assign(drifted_columns=0, rows_measured=1)
    )
    insert(con, "drift_reports", kept)
    insert(con, "performance", pd.DataFrame([performance("b", 2, "estimated")]))
    measured = [("sex", 0.2), ("sex", 0.05), ("asked_no_longer", 0.9)]
    metrics = pd.DataFrame([vars(DriftMetric.compared(name, JENSEN_SHANNON, v, 0.1)) for name, v in measured])
    insert(con, "drift_metrics", metrics.assign(batch="b", model_version=1))
    for kind, version in (("hold", 1), ("skip", 1), ("hold", 2)):
        record_decision(con, kind, "why", evidence={}, champion_version=version, batch="b")
    record_decision(con, "promote", "better", evidence={}, champion_version=1, challenger_version=2)
    record_decision(con, "reject", "worse", evidence={}, champion_version=2, challenger_version=3)
    record_decision(con, "rollback", "by hand", evidence={}, champion_version=1, challenger_version=2)
    found = load_overview(con, study)
    assert found.reports["current"].tolist() == [False, True]
    assert found.reports["released"].tolist() == [True, False]
    assert found.reports["alarm"].tolist() == [True, False]
    assert found.performance["value"].tolist() == [0.77]
    assert found.alerts.to_numpy().tolist() == [["b", 1, "sex", JENSEN_SHANNON]]
    assert found.promotions[["kind", "version"]].to_numpy().tolist() == [["promote", 2], ["rollback", 1]]
    assert "after a rollback" in Page(render(study, found)).text


def test_reports_of_an_earlier_release_are_read_too(con: duckdb.DuckDBPyConnection, study: Study):
    old = pd.DataFrame([report("b", 1, "drifted"), report("c", 2)])
    new = ["held", "alarm", "trusted", "current", "released", "list_erased", "reasons"]
    insert(con, "drift_reports", old.drop(columns=new).assign(drifted_columns=0))
    found = load_overview(con, study).reports
    assert found["held"].tolist() == [True, False]
    assert found["alarm"].tolist() == found["trusted"].tolist() == [False, False]
    assert found["reasons"].tolist() == ["", ""]


def test_an_empty_warehouse_has_a_page(con: duckdb.DuckDBPyConnection, study: Study):
    assert "There is no batch yet." in Page(render(study, load_overview(con, study))).words
