"""Print a finished run in one line, from the metadata of its assets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from poleng_assets.cli.console import console, styled
from poleng_assets.core.data import asset_events
from poleng_assets.text.plain_text import in_one_line

if TYPE_CHECKING:
    from poleng_assets.headless.runner import RunReport


def show_run(report: RunReport) -> None:
    """Print the result of a run in one line."""
    title = f"  {report.job} {in_one_line(report.partition)}".rstrip()
    if not report.success:
        console.print(styled("red", f"{title} failed"), f": {report.message}", sep="")
        return
    lines = [
        line(asset_events.event_of(asset, report.metadata[asset]))
        for asset, line in _LINES.items()
        if asset in report.metadata
    ]
    console.print(f"{title}: {'; '.join(lines)}", styled("dim", f"({report.seconds:.1f} s)"))


def _about_champion(event: asset_events.Champion) -> str:
    if event.is_rollback:
        return event.reason
    outcome = "promoted" if event.promoted else "not promoted"
    if not event.figures:
        outcome = f"was already {outcome}"
    return f"version {event.challenger_version} {outcome}: {event.reason}"


def _about_challenger(event: asset_events.Challenger) -> str:
    return f"version {event.version} {f'was {event.taken_over}' if event.taken_over else 'trained'}"


def _about_list(event: asset_events.ContactList) -> str:
    if event.share_flagged is None:
        return str(event.what_happened)
    list_name = f", in list {event.list_number}" if event.list_number > 1 else ""
    return f"{event.contacts or 0:,} contacts{'' if event.remark == 'none' else ', marked'}{list_name}"


def _about_study(event: asset_events.FileTakenIn) -> str:
    if event.withdrawn is not None:
        return "withdrawn" if event.withdrawn else "no longer withdrawn"
    remark = f", {event.remark}" if event.remark is not None else ""
    return f"{_rows_kept(event, 'labelled rows')} ingested{_earlier(event)}{remark}"


def _rows_kept(event: asset_events.FileTakenIn, noun: str) -> str:
    kept = f"{event.rows or 0:,} {noun}"
    return f"{kept} ({event.rows_quarantined:,} more in quarantine)" if event.rows_quarantined else kept


def _earlier(event: asset_events.FileTakenIn) -> str:
    """Return what the file has in common with earlier ones."""
    return "" if event.what_came_before in (None, "nothing") else f"; {event.what_came_before}"


def _about_outcomes(event: asset_events.FileTakenIn) -> str:
    return event.what_they_met or f"{event.rows or 0:,} outcomes"


def _about_performance(event: asset_events.RealisedPerformance) -> str:
    if not event.batches:
        return "no scores to compare with yet"
    return f"compared with the scores of {event.batches:,} batch{'' if event.batches == 1 else 'es'}"


_LINES: dict[str, Callable[[Any], str]] = {
    "field_studies": _about_study,
    "training_data": lambda event: event.reason,
    "challenger": _about_challenger,
    "champion": _about_champion,
    "batches": lambda event: f"{_rows_kept(event, 'respondents')}{_earlier(event)}",
    "predictions": lambda event: f"scored by version {event.model_version}",
    "drift_report": lambda event: f"{event.verdict}{', held' if event.held else ''}",
    "field_study_request": lambda event: f"{event.interviews:,} interviews asked for",
    "contact_list": _about_list,
    "outcomes": _about_outcomes,
    "realised_performance": _about_performance,
}
