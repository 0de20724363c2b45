"""One page over all batches: how each was judged, how good the model was, and when the champion changed.

What belongs here reads the warehouse's figures of batches and puts them into pictures, words and links.
It tells shares and counts of whole batches, and nothing of a person.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import duckdb
import pandas as pd

from poleng_assets.core.drift_plots import HERE, PALETTE, QUIET_AXIS, THERE, TRUTH, as_div, plotly_js, short
from poleng_assets.core.figures import (
    COMPOSITION,
    DOMAIN_CLASSIFIER,
    JENSEN_SHANNON,
    L_INFINITY,
    MISSING,
    OUT_OF_RANGE,
    QUARANTINED,
    RECONSTRUCTION,
    UNSEEN,
)
from poleng_assets.core.report import column_titles
from poleng_assets.study import Study

# From the least to the gravest: symbol and colour of each, so that neither alone has to tell.
VERDICTS = {
    "insufficient": ("diamond", "#64748b"),
    "clear": ("circle", "#16a34a"),
    "drifted": ("triangle-up", "#d97706"),
    "untrusted": ("x", "#dc2626"),
}
METHODS = {
    JENSEN_SHANNON: "Jensen-Shannon distance",
    L_INFINITY: "largest difference of a share",
    COMPOSITION: "another mix of people",
    MISSING: "missing answers",
    UNSEEN: "answers never seen in training",
    OUT_OF_RANGE: "answers out of range",
    QUARANTINED: "rows left out",
    RECONSTRUCTION: "how the answers go together",
    DOMAIN_CLASSIFIER: "told apart from the reference",
}
CHAMPION_COLOUR = "#a855f7"
# Symbol in a picture's key, its colour, and what it stands for: in HTML, where a key fits every width.
ALARM_KEY = (("◯", HERE, "raised an alarm"),)
PERFORMANCE_KEY = (
    ("●", HERE, "estimated"),
    ("○", HERE, "estimated, not to be trusted"),
    ("■", TRUTH, "realised"),
    ("╌", THERE, "on the reference"),
)
# With more reports than this, markers are small and intervals pale.
DENSE = 150
FEW = 4
NAMED_TICKS = 12
DATED_TICKS = 6
ALARMS_NAMED = 10
LINES_SHOWN = 50
REPORTS_SQL = """
SELECT r.batch, r.model_version, r.verdict, r.rows, r.reported_at, r.estimated_auc, r.reference_auc,
    r.outside_support, r.flagged_share, coalesce(r.reasons, '') AS reasons,
    coalesce(r.held, r.verdict IN ('drifted', 'untrusted')) AS held, coalesce(r.alarm, false) AS alarm,
    coalesce(r.trusted, false) AS trusted, c.batch IS NOT NULL AS current
FROM drift_reports r
LEFT JOIN (SELECT DISTINCT batch, model_version FROM current_predictions) c USING (batch, model_version)
ORDER BY r.reported_at, r.batch
"""
PERFORMANCE_SQL = """
SELECT batch, model_version, kind, metric, value, lower, upper FROM performance ORDER BY ALL
"""
ALERTS_SQL = """
SELECT batch, model_version, column_name, method FROM drift_metrics WHERE alert ORDER BY ALL
"""
# A promotion names the new champion as its challenger, a rollback the old one as the champion again.
PROMOTIONS_SQL = """
SELECT decided_at, kind, reason,
    CASE kind WHEN 'promote' THEN challenger_version ELSE champion_version END AS version
FROM decisions WHERE kind IN ('promote', 'rollback') ORDER BY decided_at
"""


class Overview(NamedTuple):
    """What the page is made of.

    Attributes:
        reports: one row for each batch and version, oldest first: ``batch``, ``model_version``, ``verdict``,
            ``held``, ``alarm``, ``rows``, ``reported_at``, ``estimated_auc``, ``reference_auc``,
            ``outside_support``, ``flagged_share``, ``trusted``, ``reasons`` and ``current``: whether the
            scores of this version are the ones that count.
        performance: as the table of that name.
        alerts: ``batch``, ``model_version``, ``column_name`` and ``method`` of each figure that alerts;
            columns of the study, or those that ``core/figures.py`` names.
        promotions: ``decided_at``, ``kind``, ``version`` and ``reason`` of each change of the champion.
    """

    reports: pd.DataFrame
    performance: pd.DataFrame
    alerts: pd.DataFrame
    promotions: pd.DataFrame


@dataclass(frozen=True)
class Line:
    """One batch under one version, as the table of all batches tells it."""

    batch: str
    address: str
    version: int
    verdict: str
    held: bool
    alarm: bool
    current: bool
    rows: str
    flagged: str
    estimated: tuple[str, str]
    trusted: bool
    realised: tuple[str, str]
    reported_at: datetime
    reason: str


def load_overview(con: duckdb.DuckDBPyConnection, study: Study) -> Overview:
    """Read all that the page tells from the warehouse.

    Alerts of questions that the study asks no longer are left out.
    """
    reports, performance, alerts, promotions = (
        con.execute(sql).df() for sql in (REPORTS_SQL, PERFORMANCE_SQL, ALERTS_SQL, PROMOTIONS_SQL)
    )
    asked = alerts["column_name"].isin(column_titles(study))
    return Overview(reports, performance, alerts[asked].reset_index(drop=True), promotions)


def report_address(batch: str, version: int) -> str:
    """Return where the report of a batch is, seen from the folder of all reports."""
    return f"./{quote(batch, safe='')}/version_{version}.html"


def render_overview(
    study: Study,
    reports: pd.DataFrame,
    performance: pd.DataFrame,
    alerts: pd.DataFrame,
    promotions: pd.DataFrame,
    made_at: datetime,
) -> str:
    """Return the page as HTML that opens offline: it links to the reports beside it, and to nothing else.

    Args:
        study: titles.
        reports: as :class:`Overview` says, like the three that follow.
        performance: estimated and realised.
        alerts: of figures.
        promotions: of champions.
        made_at: with a time zone.
    """
    import jinja2

    reports = reports.assign(reported_at=pd.to_datetime(reports["reported_at"], utc=True))
    reports = reports.sort_values(["reported_at", "batch"], kind="stable").reset_index(drop=True)
    promotions = promotions.assign(decided_at=pd.to_datetime(promotions["decided_at"], utc=True))
    promotions = promotions.sort_values("decided_at").reset_index(drop=True)
    performance = performance[performance["metric"].eq("auc") & performance["value"].notna()]
    latest = _latest(reports)
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("poleng_assets"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return templates.get_template("overview.html").render(
        study=study,
        state=_state(latest, promotions),
        open_alarms=_lines(latest[latest["alarm"].astype(bool)], performance)[:ALARMS_NAMED],
        alarms=int(latest["alarm"].astype(bool).sum()),
        lines=_lines(reports, performance),
        lines_shown=LINES_SHOWN,
        timeline=_timeline(reports, promotions) if len(reports) else "",
        performance=_performance(reports, performance, promotions),
        alarm_key=ALARM_KEY if reports["alarm"].any() else (),
        performance_key=PERFORMANCE_KEY,
        outcomes=bool(performance["kind"].eq("realised").any()),
        flagged=_flagged(reports, promotions) if reports["flagged_share"].notna().any() else "",
        columns=_columns(study, reports, alerts, promotions),
        plotly_js=plotly_js() if len(reports) else "",
        made_at=made_at.astimezone(UTC),
    )


def _latest(reports: pd.DataFrame) -> pd.DataFrame:
    """Return one report for each batch, the one that counts; the newest where the scores have no report."""
    ordered = reports.sort_values(["current", "reported_at"], kind="stable")
    return ordered.drop_duplicates("batch", keep="last").sort_values("reported_at", kind="stable")


def _state(latest: pd.DataFrame, promotions: pd.DataFrame) -> list[str]:
    """Say in sentences how things stand now."""
    sentences = []
    if len(promotions):
        champion = promotions.iloc[-1]
        again = " again, after a rollback" if champion["kind"] == "rollback" else ""
        since = _time(champion["decided_at"])
        sentences.append(f"Model version {int(champion['version'])} serves{again}, since {since}.")
    else:
        sentences.append("No model serves yet.")
    if latest.empty:
        return sentences
    counts = latest["verdict"].value_counts()
    told = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if verdict in counts)
    count = "One batch has been judged" if len(latest) == 1 else f"{len(latest):,} batches have been judged"
    sentences.append(f"{count}: {told}.")
    newest = latest.iloc[-1]
    what = "its contact list was held back" if newest["held"] else "its contact list was made at once"
    sentences.append(f"The newest, {newest['batch']}, is {newest['verdict']}: {what}.")
    return sentences


def _lines(reports: pd.DataFrame, performance: pd.DataFrame) -> list[Line]:
    """Return the rows of the table, newest first."""
    figures = {(row.kind, row.batch, row.model_version): _figure(row) for row in _records(performance)}
    return [
        Line(
            batch=row.batch,
            address=report_address(row.batch, int(row.model_version)),
            version=int(row.model_version),
            verdict=row.verdict,
            held=bool(row.held),
            alarm=bool(row.alarm),
            current=bool(row.current),
            rows=f"{int(row.rows):,}",
            flagged="" if pd.isna(row.flagged_share) else f"{row.flagged_share:.1%}",
            estimated=figures.get(("estimated", row.batch, row.model_version), ("", "")),
            trusted=bool(row.trusted),
            realised=figures.get(("realised", row.batch, row.model_version), ("", "")),
            reported_at=row.reported_at,
            reason=str(row.reasons or "").split("\n")[0],
        )
        for row in _records(reports.iloc[::-1])
    ]


def _figure(row: Any) -> tuple[str, str]:
    """Return a figure and its interval; the interval is empty where there is none."""
    reach = "" if pd.isna(row.lower) or pd.isna(row.upper) else f"{row.lower:.3f} to {row.upper:.3f}"
    return f"{row.value:.3f}", reach


def _timeline(reports: pd.DataFrame, promotions: pd.DataFrame) -> str:
    """Draw each verdict in a lane of its own, in the order of the reports."""
    figure = _canvas(reports, promotions)
    lanes = list(VERDICTS)
    for verdict, (symbol, colour) in VERDICTS.items():
        rows = reports[reports["verdict"] == verdict]
        figure.add_scatter(
            name=verdict,
            x=rows.index.tolist(),
            y=[lanes.index(verdict)] * len(rows),
            mode="markers",
            marker={
                "symbol": symbol,
                "color": colour,
                "size": 12 if len(reports) < DENSE else 8,
                "opacity": [1.0 if current else 0.4 for current in rows["current"]],
            },
            customdata=_hovers(rows, rows["verdict"] + rows["held"].map({True: ", list held", False: ""})),
            hovertemplate="%{customdata}<extra></extra>",
        )
    alarms = reports[reports["alarm"].astype(bool)]
    figure.add_scatter(
        name="raised an alarm",
        x=alarms.index.tolist(),
        y=[lanes.index(verdict) for verdict in alarms["verdict"]],
        mode="markers",
        marker={"symbol": "circle-open", "color": HERE, "size": 22, "line": {"width": 2}},
        hoverinfo="skip",
    )
    figure.update_yaxes(
        **QUIET_AXIS | {"showgrid": True, "gridcolor": "#cbd5e1"},
        tickvals=list(range(len(lanes))),
        ticktext=lanes,
        range=[-0.6, len(lanes) - 0.3],
        fixedrange=True,
    )
    return as_div(figure, "timeline", 290)


def _performance(reports: pd.DataFrame, performance: pd.DataFrame, promotions: pd.DataFrame) -> str:
    """Draw AUC as estimated and as realised, with 95 % intervals; empty without any."""
    places = reports.reset_index(names="place")[["place", "batch", "model_version", "trusted", "reported_at"]]
    found = performance.merge(places, on=["batch", "model_version"]).sort_values("place")
    if found.empty:
        return ""
    figure = _canvas(reports, promotions)
    estimated, trusted = found["kind"].eq("estimated"), found["trusted"].astype(bool)
    for name, mask, symbol, colour, shift in (
        ("estimated", estimated & trusted, "circle", HERE, -0.1),
        ("estimated, not to be trusted", estimated & ~trusted, "circle-open", HERE, -0.1),
        ("realised", found["kind"].eq("realised"), "square", TRUTH, 0.1),
    ):
        rows = found[mask]
        if rows.empty:
            continue
        figure.add_scatter(
            name=name,
            x=(rows["place"] + shift).tolist(),
            y=rows["value"].tolist(),
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 9 if len(reports) < DENSE else 4},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (rows["upper"] - rows["value"]).fillna(0).tolist(),
                "arrayminus": (rows["value"] - rows["lower"]).fillna(0).tolist(),
                "color": colour if len(reports) < DENSE else _pale(colour),
                "thickness": 1.2,
                "width": 3 if len(reports) < DENSE else 0,
            },
            customdata=_hovers(rows, [f"AUC {name}: {', '.join(_figure(row))}" for row in _records(rows)]),
            hovertemplate="%{customdata}<extra></extra>",
        )
    known = reports[reports["reference_auc"].notna()]
    figure.add_scatter(
        name="on the reference",
        x=known.index.tolist(),
        y=known["reference_auc"].tolist(),
        mode="lines" if len(known) > 1 else "markers",
        line={"color": THERE, "dash": "dash", "shape": "hvh"},
        marker={"symbol": "line-ew-open", "color": THERE, "size": 14},
        customdata=_hovers(known, [f"{value:.3f} on the reference" for value in known["reference_auc"]]),
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.update_yaxes(gridcolor="#cbd5e1", zeroline=False, tickformat=".3~f", fixedrange=True)
    return as_div(figure, "performance", 340)


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"


def _flagged(reports: pd.DataFrame, promotions: pd.DataFrame) -> str:
    figure = _canvas(reports, promotions)
    shown = reports[reports["flagged_share"].notna()]
    figure.add_bar(
        x=shown.index.tolist(),
        y=shown["flagged_share"].tolist(),
        width=0.7 if len(reports) < DENSE else 1.0,
        marker={"color": PALETTE[4], "opacity": [1.0 if current else 0.4 for current in shown["current"]]},
        customdata=_hovers(shown, [f"{share:.1%} to contact" for share in shown["flagged_share"]]),
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.update_yaxes(
        gridcolor="#cbd5e1", zeroline=False, tickformat=".0%", rangemode="tozero", fixedrange=True
    )
    return as_div(figure, "flagged", 260)


def _columns(study: Study, reports: pd.DataFrame, alerts: pd.DataFrame, promotions: pd.DataFrame) -> str:
    """Draw which question raised an alert in which batch; empty when none did."""
    places = reports.reset_index(names="place")[["place", "batch", "model_version"]]
    found = alerts.merge(places, on=["batch", "model_version"])
    if found.empty:
        return ""
    titles = column_titles(study)
    found["title"] = found["column_name"].map(titles)
    found["words"] = found["method"].map(METHODS)
    cells = found.groupby(["title", "place"])["words"].agg(["size", "; ".join]).reset_index()
    order = cells.groupby("title")["place"].nunique().sort_values(kind="stable").index.tolist()
    width = len(reports)
    counts: list[list[int | None]] = [[None] * width for _ in order]
    words: list[list[str]] = [[""] * width for _ in order]
    hovers = _hovers(reports, [""] * width)
    for row in _records(cells):
        line = order.index(row.title)
        counts[line][row.place] = int(row[2])
        words[line][row.place] = f"{hovers[row.place]}{html.escape(row.title)}: {html.escape(row[3])}"
    figure = _canvas(reports, promotions)
    figure.add_heatmap(
        z=counts,
        x=list(range(width)),
        y=list(range(len(order))),
        customdata=words,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        zmin=0,
        zmax=max(2, int(cells["size"].max())),
        colorscale=[[0, "#fed7aa"], [1, "#c2410c"]],
        showscale=False,
        xgap=1 if width < DENSE else 0,
        ygap=1,
    )
    figure.update_yaxes(
        **QUIET_AXIS,
        tickvals=list(range(len(order))),
        ticktext=[short(title, 26) for title in order],
        ticks="",
        automargin=True,
        range=[-0.5, len(order) - 0.5],
        fixedrange=True,
    )
    return as_div(figure, "columns", 110 + 20 * len(order))


def _canvas(reports: pd.DataFrame, promotions: pd.DataFrame) -> Any:
    """Return a figure with the time line that all pictures share, and the changes of the champion on it."""
    import plotly.graph_objects as go

    figure, count = go.Figure(), len(reports)
    if count <= NAMED_TICKS:
        places = list(range(count))
        labels = [
            f"{short(batch, 14)} v{version}"
            for batch, version in zip(reports["batch"], reports["model_version"], strict=True)
        ]
    else:
        places = [round(at * (count - 1) / (DATED_TICKS - 1)) for at in range(DATED_TICKS)]
        labels = [f"{reports['reported_at'].iloc[place]:%Y-%m-%d}" for place in places]
    figure.update_xaxes(
        **QUIET_AXIS,
        tickvals=places,
        ticktext=labels,
        tickfont={"size": 11},
        ticks="",
        tickangle=-40 if FEW < count <= NAMED_TICKS else 0,
        automargin=True,
        range=[-0.7, max(count, FEW) - 0.3],
        fixedrange=True,
    )
    changes: dict[int, list[str]] = {}
    for row in _records(promotions):
        before = int((reports["reported_at"] < row.decided_at).sum())
        changes.setdefault(before, []).append(f"{'↩ ' if row.kind == 'rollback' else ''}v{int(row.version)}")
    for before, names in changes.items():
        place = before - 0.5
        figure.add_vline(x=place, line={"color": CHAMPION_COLOUR, "width": 2, "dash": "dot"})
        figure.add_annotation(
            x=place, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=", ".join(names if len(names) < 4 else [*names[:1], "…", *names[-1:]]),
        )  # fmt: skip
    figure.update_layout(
        margin={"l": 84, "r": 16, "t": 24, "b": 36},
        showlegend=False,
        hovermode="closest",
    )
    return figure


def _records(rows: pd.DataFrame) -> Iterator[Any]:
    return rows.itertuples(index=False)


def _hovers(rows: pd.DataFrame, words: Sequence[str] | pd.Series) -> list[str]:
    """Return what to say about each report: which it is, and some words."""
    return [
        f"<b>{short(row.batch)}</b>, version {row.model_version}<br>{_time(row.reported_at)}<br>{said}"
        for row, said in zip(_records(rows), words, strict=True)
    ]


def _time(when: Any) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
