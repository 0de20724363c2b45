"""What the command line says of a run that ended: one line, from what its assets tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poleng_assets.cli.console import console, styled
from poleng_assets.text.plain_text import in_one_line

if TYPE_CHECKING:
    from poleng_assets.headless.runner import RunReport


def show_run(report: RunReport) -> None:
    """Tell in one line how a run went."""
    told = f"  {report.job} {in_one_line(report.partition)}".rstrip()
    if not report.success:
        console.print(styled("red", f"{told} failed"), f": {report.message}", sep="")
        return
    words = [say(report.metadata[asset]) for asset, say in _SAYINGS.items() if asset in report.metadata]
    console.print(f"{told}: {'; '.join(words)}", styled("dim", f"({report.seconds:.1f} s)"))


def _about_champion(metadata: dict[str, Any]) -> str:
    if "score_again" in metadata:
        return str(metadata["reason"])
    outcome = "promoted" if metadata["promoted"] else "not promoted"
    if not metadata["figures"]:
        outcome = f"was {outcome} before"
    return f"version {metadata['challenger_version']} {outcome}: {metadata['reason']}"


def _about_challenger(metadata: dict[str, Any]) -> str:
    if "taken_over" in metadata:
        return f"version {metadata['version']} was {metadata['taken_over']}"
    return f"version {metadata['version']} trained"


def _about_list(metadata: dict[str, Any]) -> str:
    if "share_flagged" not in metadata:
        return str(metadata["what_happened"])
    number = metadata["list_number"]
    beside = f", in list {number}" if number > 1 else ""
    return f"{metadata['contacts']:,} contacts{'' if metadata['remark'] == 'none' else ', marked'}{beside}"


def _about_study(metadata: dict[str, Any]) -> str:
    if "withdrawn" in metadata:
        return "withdrawn" if metadata["withdrawn"] else "counts again"
    remark = f", {metadata['remark']}" if "remark" in metadata else ""
    return f"{_rows_kept(metadata, 'labelled rows')} taken in{_before(metadata)}{remark}"


def _rows_kept(metadata: dict[str, Any], whom: str) -> str:
    apart = metadata["rows_quarantined"]
    kept = f"{metadata['dagster/row_count']:,} {whom}"
    return f"{kept} ({apart:,} more in quarantine)" if apart else kept


def _before(metadata: dict[str, Any]) -> str:
    """Return what came before, to stand behind what came; events of earlier releases do not tell it."""
    before = metadata.get("what_came_before", "nothing")
    return "" if before == "nothing" else f"; {before}"


def _about_outcomes(metadata: dict[str, Any]) -> str:
    return str(metadata.get("what_they_met", f"{metadata['dagster/row_count']:,} outcomes"))


def _about_performance(metadata: dict[str, Any]) -> str:
    batches = metadata["batches"]
    if not batches:
        return "no score to compare them with yet"
    return f"compared with the scores of {batches:,} batch{'' if batches == 1 else 'es'}"


_SAYINGS: dict[str, Any] = {
    "field_studies": _about_study,
    "training_data": lambda m: m["reason"],
    "challenger": _about_challenger,
    "champion": _about_champion,
    "batches": lambda m: f"{_rows_kept(m, 'respondents')}{_before(m)}",
    "predictions": lambda m: f"scored by version {m['model_version']}",
    "drift_report": lambda m: f"{m['verdict']}{', held' if m['held'] else ''}",
    "field_study_request": lambda m: f"{m['interviews']:,} interviews asked for",
    "contact_list": _about_list,
    "outcomes": _about_outcomes,
    "realised_performance": _about_performance,
}
