"""The overview page: verdicts, model performance and champion changes over all batches.

This module reads the metrics of batches from the warehouse and turns them into plots, text and links.
It shows aggregates of whole batches and no data of a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.monitoring import measurements
from poleng_assets.core.reports.charts import Box, Chart, Mark, Scale, Segment, Tick, short
from poleng_assets.core.reports.drift_report import column_titles
from poleng_assets.core.reports.pages import template
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import champion_changes
from poleng_assets.warehouse.drift_reports import all_alerts, all_reports
from poleng_assets.warehouse.erasures import newest_erasures
from poleng_assets.warehouse.performance import all_performance

# From least to most severe, each with its own sign, so that colour is not the only difference.
VERDICTS = {"insufficient": "diamond", "clear": "circle", "drifted": "triangle", "untrusted": "cross"}
METHODS = {
    measurements.JENSEN_SHANNON: "Jensen-Shannon distance",
    measurements.L_INFINITY: "L-infinity distance",
    measurements.COMPOSITION: "composition shift",
    measurements.MISSING: "missing answers",
    measurements.UNSEEN: "unseen answers",
    measurements.OUT_OF_RANGE: "answers out of range",
    measurements.QUARANTINED: "quarantined rows",
    measurements.RECONSTRUCTION: "multivariate drift",
    measurements.DOMAIN_CLASSIFIER: "domain classifier",
}
# Legend entries: sign, look and label.
ALARM_KEY = (("ring", "alarm", "raised an alarm"),)
PERFORMANCE_KEY = (
    ("circle", "here", "estimated"),
    ("circle", "here hollow", "estimated, not trusted"),
    ("square", "truth", "realised"),
    ("dash", "there", "reference"),
)
COLUMNS_KEY = (("square", "once", "one metric beyond its threshold"), ("square", "often", "two or more"))
# Most reports in the plots and in the table, so that the page stays small with any number of batches.
PICTURED = 250
LISTED = 500
# With more reports than this, signs are small and intervals have no ends.
DENSE = 80
FEW = 4
# Room for the titles of questions, in rem; the same in all plots, so that batches line up.
GUTTER = 13.0
NAMED_TICKS = 12
DATED_TICKS = 6
ALARMS_NAMED = 10
LINES_SHOWN = 50


class Overview(NamedTuple):
    """The data of the page.

    Attributes:
        reports: one row for each batch and version, oldest first: ``batch``, ``model_version``, ``verdict``,
            ``held``, ``alarm``, ``rows``, ``reported_at``, ``estimated_auc``, ``reference_auc``,
            ``outside_support``, ``flagged_share``, ``trusted``, ``reasons``, ``current``: whether the
            scores of this version are the ones that count, and ``released``: whether the list of a held
            batch was made after all, with this version. ``list_erased``: when and by
            which rule the list was erased, empty when it was not.
        performance: as the table of that name.
        alerts: ``batch``, ``model_version``, ``column_name`` and ``method`` of each alert;
            columns of the study, or those that ``core/monitoring/measurements.py`` names.
        promotions: ``decided_at``, ``kind``, ``version`` and ``reason`` of each change of the champion.
    """

    reports: pd.DataFrame
    performance: pd.DataFrame
    alerts: pd.DataFrame
    promotions: pd.DataFrame


@dataclass(frozen=True)
class Line:
    """One batch under one version, as a row of the table of all batches."""

    batch: str
    address: str
    version: int
    verdict: str
    list_made: str
    alarm: bool
    current: bool
    rows: str
    flagged: str
    estimated: tuple[str, str]
    trusted: bool
    realised: tuple[str, str]
    reported_at: datetime
    reason: str


def load_overview(con: Connection, study: Study) -> Overview:
    """Read the data of the page from the warehouse.

    Alerts of questions that the study no longer asks are left out.
    """
    reports, alerts, lists = all_reports(con), all_alerts(con), newest_erasures(con, "contact_lists")
    erased = [lists.get(row.batch) for row in _records(reports)]
    reports["list_erased"] = [erasure.in_words() if erasure else "" for erasure in erased]
    asked = alerts["column_name"].isin(column_titles(study))
    return Overview(
        reports, all_performance(con), alerts[asked].reset_index(drop=True), champion_changes(con)
    )


def report_address(batch: str, version: int) -> str:
    """Return the address of a batch's report, relative to the folder of all reports."""
    return f"./batches/{quote(batch, safe='')}/version_{version}.html"


def render_overview(study: Study, overview: Overview, made_at: datetime) -> str:
    """Return the page as HTML that opens offline and links only to the reports beside it.

    Args:
        made_at: with a time zone.
    """
    reports, performance, alerts, promotions = overview
    reports = reports.assign(reported_at=pd.to_datetime(reports["reported_at"], utc=True))
    reports = reports.sort_values(["reported_at", "batch"], kind="stable").reset_index(drop=True)
    promotions = promotions.assign(decided_at=pd.to_datetime(promotions["decided_at"], utc=True))
    promotions = promotions.sort_values("decided_at").reset_index(drop=True)
    performance = performance[performance["metric"].eq("auc") & performance["value"].notna()]
    latest = _latest(reports)
    pictured = reports.iloc[-PICTURED:].reset_index(drop=True)
    lines = _lines(reports.iloc[-LISTED:], performance)
    return template("overview.html").render(
        study=study,
        state=_state(latest, promotions),
        open_alarms=_lines(latest[latest["alarm"].astype(bool)].iloc[-ALARMS_NAMED:], performance),
        alarms=int(latest["alarm"].astype(bool).sum()),
        reports=len(reports),
        pictured=len(pictured),
        lines=lines,
        lines_shown=LINES_SHOWN,
        timeline=_timeline(pictured, promotions) if len(reports) else None,
        performance=_performance(pictured, performance, promotions),
        alarm_key=ALARM_KEY if pictured["alarm"].any() else (),
        performance_key=PERFORMANCE_KEY,
        columns_key=COLUMNS_KEY,
        outcomes=bool(performance["kind"].eq("realised").any()),
        flagged=_flagged(pictured, promotions) if pictured["flagged_share"].notna().any() else None,
        columns=_columns(study, pictured, alerts, promotions),
        made_at=made_at.astimezone(UTC),
    )


def _latest(reports: pd.DataFrame) -> pd.DataFrame:
    """Return one report for each batch, the one that counts; the newest where the scores have no report."""
    ordered = reports.sort_values(["current", "reported_at"], kind="stable")
    return ordered.drop_duplicates("batch", keep="last").sort_values("reported_at", kind="stable")


def _state(latest: pd.DataFrame, promotions: pd.DataFrame) -> list[str]:
    sentences = []
    if len(promotions):
        champion = promotions.iloc[-1]
        rollback = ", after a rollback" if champion["kind"] == "rollback" else ""
        since = _time(champion["decided_at"])
        sentences.append(f"Model version {int(champion['version'])} has served since {since}{rollback}.")
    else:
        sentences.append("No model serves yet.")
    if latest.empty:
        return sentences
    counts = latest["verdict"].value_counts()
    verdicts = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if verdict in counts)
    count = "One batch has been judged" if len(latest) == 1 else f"{len(latest):,} batches have been judged"
    sentences.append(f"{count}: {verdicts}.")
    newest = latest.iloc[-1]
    sentences.append(f"The newest batch, {newest['batch']}, is {newest['verdict']}: {_fate(newest)}.")
    return sentences


def _fate(report: Any) -> str:
    """Describe the state of the contact list after one report."""
    if not report["held"]:
        return "its contact list was issued immediately"
    if report["released"]:
        return "its contact list was held, then released with this version"
    if not report["current"]:
        return "its contact list was held until the batch was scored again"
    return "its contact list is held"


def _lines(reports: pd.DataFrame, performance: pd.DataFrame) -> list[Line]:
    figures = {(row.kind, row.batch, row.model_version): _figure(row) for row in _records(performance)}
    return [
        Line(
            batch=row.batch,
            address=report_address(row.batch, int(row.model_version)),
            version=int(row.model_version),
            verdict=row.verdict,
            list_made=_list_in_short(row),
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


def _list_in_short(row: Any) -> str:
    parts = []
    if row.held:
        parts.append("list held, then released" if row.released else "list held")
    if row.list_erased:
        parts.append(f"list {row.list_erased}")
    return "; ".join(parts)


def _figure(row: Any) -> tuple[str, str]:
    """Return a value and its interval; the interval is empty where it is unknown."""
    reach = "" if pd.isna(row.lower) or pd.isna(row.upper) else f"{row.lower:.3f} to {row.upper:.3f}"
    return f"{row.value:.3f}", reach


def _timeline(reports: pd.DataFrame, promotions: pd.DataFrame) -> Chart:
    """Plot the verdicts in the order of the reports, one lane for each verdict."""
    line, lanes = _TimeLine.of(reports, promotions), list(reversed(VERDICTS))
    height = {verdict: 100 * (lane + 0.5) / len(lanes) for lane, verdict in enumerate(lanes)}
    marks = []
    for number, row in enumerate(_records(reports)):
        x, y = line.percent(number), height[row.verdict]
        fate = _list_in_short(row)
        tooltip = _tooltip(row, f"{row.verdict}, {fate}" if fate else row.verdict)
        if row.alarm:
            marks.append(Mark("ring", x, y, "alarm"))
        marks.append(Mark(VERDICTS[row.verdict], x, y, _pale(row, row.verdict), tooltip))
    return line.chart(
        "Verdict of each batch, oldest first. The table “All batches” has the same data.",
        9.5,
        tuple(Tick(height[verdict], verdict) for verdict in lanes),
        marks=tuple(marks),
    )


def _performance(reports: pd.DataFrame, performance: pd.DataFrame, promotions: pd.DataFrame) -> Chart | None:
    """Plot estimated and realised AUC with 95 % intervals; None without any."""
    columns = ["number", "batch", "model_version", "trusted", "reported_at"]
    numbered = reports.reset_index(names="number")[columns]
    drawn = performance.merge(numbered, on=["batch", "model_version"]).sort_values("number", kind="stable")
    if drawn.empty:
        return None
    known = reports.loc[reports["reference_auc"].notna(), "reference_auc"]
    ends = drawn["lower"].fillna(drawn["value"]), drawn["upper"].fillna(drawn["value"]), known
    scale = Scale.of(pd.concat(ends).astype(float))
    line = _TimeLine.of(reports, promotions)
    marks, segments = [], _steps(line, reports["reference_auc"], scale)
    for row in _records(drawn):
        estimated = row.kind == "estimated"
        name = "realised" if not estimated else "estimated" if row.trusted else "estimated, not trusted"
        sign, look = ("circle", "here") if estimated else ("square", "truth")
        x = line.percent(row.number + (-0.12 if estimated else 0.12))
        if pd.notna(row.lower) and pd.notna(row.upper):
            low, high = (100 - scale.percent(end) for end in (row.lower, row.upper))
            segments.append(Segment(x, low, x, high, look))
        tooltip = _tooltip(row, f"AUC {name}: {', '.join(part for part in _figure(row) if part)}")
        hollow = " hollow" if estimated and not row.trusted else ""
        marks.append(Mark(sign, x, 100 - scale.percent(row.value), look + hollow, tooltip))
    return line.chart(
        "Estimated and realised AUC of each batch with 95 % intervals, oldest first. The table “All batches” "
        "has the same data.",
        16.0,
        _value_ticks(scale, ".3g"),
        marks=tuple(marks),
        segments=tuple(segments),
    )


def _steps(line: _TimeLine, values: pd.Series, scale: Scale) -> list[Segment]:
    """Return horizontal lines, one for each run of reports with the same value; missing values have none."""
    steps = []
    for _, run in values.groupby(values.ne(values.shift()).cumsum()):
        if pd.notna(run.iloc[0]):
            y = 100 - scale.percent(run.iloc[0])
            steps.append(
                Segment(
                    line.percent(run.index[0] - 0.5), y, line.percent(run.index[-1] + 0.5), y, "there dashed"
                )
            )
    return steps


def _flagged(reports: pd.DataFrame, promotions: pd.DataFrame) -> Chart:
    """Plot the share of people to contact, one bar for each report."""
    line = _TimeLine.of(reports, promotions)
    scale = Scale.of([0.0, *reports["flagged_share"].dropna().astype(float)])
    boxes = []
    for number, row in enumerate(_records(reports)):
        if pd.notna(row.flagged_share):
            high, left = scale.percent(row.flagged_share), line.percent(number - 0.35)
            width, flagged = line.percent(number + 0.35) - left, f"{row.flagged_share:.1%} to contact"
            boxes.append(Box(left, 100 - high, width, high, _pale(row, "share"), _tooltip(row, flagged)))
    return line.chart(
        "Share of people to contact in each batch, oldest first. The table “All batches” has the same data.",
        10.0,
        _value_ticks(scale, ".0%"),
        boxes=tuple(boxes),
    )


def _columns(
    study: Study, reports: pd.DataFrame, alerts: pd.DataFrame, promotions: pd.DataFrame
) -> Chart | None:
    """Plot which question raised an alert in which batch; None when none did."""
    numbered = reports.reset_index(names="number")[["number", "batch", "model_version"]]
    drawn = alerts.merge(numbered, on=["batch", "model_version"])
    if drawn.empty:
        return None
    drawn["title"] = drawn["column_name"].map(column_titles(study))
    drawn["what"] = drawn["method"].map(METHODS)
    cells = drawn.groupby(["title", "number"])["what"].agg(["size", "; ".join]).reset_index()
    often = cells.groupby("title")["number"].nunique().sort_values(ascending=False, kind="stable")
    titles, line, step = often.index.tolist(), _TimeLine.of(reports, promotions), 100 / len(often)
    boxes = []
    for title, number, count, what in cells.itertuples(index=False, name=None):
        left, top = line.percent(number - 0.46), step * (titles.index(title) + 0.06)
        width, look = line.percent(number + 0.46) - left, "once" if count == 1 else "often"
        tooltip = _tooltip(reports.iloc[number], f"{title}: {what}")
        boxes.append(Box(left, top, width, 0.88 * step, look, tooltip))
    most = ", ".join(f"{title} ({count})" for title, count in often.head(FEW).items())
    return line.chart(
        f"Questions with alerts by batch. Most frequent: {most}. The report of a batch lists all.",
        1.35 * len(titles),
        tuple(Tick(step * (row + 0.5), title) for row, title in enumerate(titles)),
        boxes=tuple(boxes),
        ruled="none",
    )


def _value_ticks(scale: Scale, form: str) -> tuple[Tick, ...]:
    return tuple(Tick(100 - scale.percent(step), format(step, form)) for step in scale.steps)


@dataclass(frozen=True)
class _TimeLine:
    """The time axis that all plots share, with the changes of the champion."""

    count: int
    columns: tuple[Tick, ...]
    notes: tuple[Tick, ...]
    slanted: bool

    @classmethod
    def of(cls, reports: pd.DataFrame, promotions: pd.DataFrame) -> _TimeLine:
        count = len(reports)
        bare = cls(count, (), (), FEW < count <= NAMED_TICKS)
        if count <= NAMED_TICKS:
            labels = [
                (number, f"{short(row.batch, 14)} v{row.model_version}", False)
                for number, row in enumerate(_records(reports))
            ]
        else:
            at = [round(tick * (count - 1) / (DATED_TICKS - 1)) for tick in range(DATED_TICKS)]
            labels = [
                (number, f"{reports['reported_at'].iloc[number]:%Y-%m-%d}", bool(tick % 2))
                for tick, number in enumerate(at)
            ]
        changes: dict[int, list[str]] = {}
        for row in _records(promotions):
            before = int((reports["reported_at"] < row.decided_at).sum())
            name = f"{'↩ ' if row.kind == 'rollback' else ''}v{int(row.version)}"
            changes.setdefault(before, []).append(name)
        return cls(
            count,
            tuple(Tick(bare.percent(number), label, minor) for number, label, minor in labels),
            tuple(
                Tick(bare.percent(before - 0.5), ", ".join(n if len(n) < 4 else [n[0], "…", n[-1]]))
                for before, n in changes.items()
            ),
            bare.slanted,
        )

    def percent(self, report: float) -> float:
        """Return the position of a report, in percent."""
        return 100 * (report + 0.7) / (max(self.count, FEW) + 0.4)

    def chart(
        self,
        says: str,
        height: float,
        rows: tuple[Tick, ...],
        *,
        segments: tuple[Segment, ...] = (),
        **drawn: Any,
    ) -> Chart:
        """Return a chart on this time axis."""
        changes = tuple(Segment(note.at, 0, note.at, 100, "champion") for note in self.notes)
        return Chart(
            says,
            height,
            rows,
            self.columns,
            self.notes,
            segments=(*changes, *segments),
            gutter=GUTTER,
            slanted=self.slanted,
            dense=self.count > DENSE,
            **drawn,
        )


def _pale(row: Any, look: str) -> str:
    return look if row.current else f"{look} pale"


def _records(rows: pd.DataFrame) -> Iterator[Any]:
    return rows.itertuples(index=False)


def _tooltip(row: Any, text: str) -> str:
    """Return the tooltip of a report: batch, version, time and a text."""
    return f"{row.batch}, version {row.model_version}, {_time(row.reported_at)}: {text}"


def _time(when: Any) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
