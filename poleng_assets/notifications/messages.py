"""The texts of notifications: a title and a few sentences for each event, without personal data.

``notifications/sensor.py`` reads the events, ``outbox.py`` stores the messages, ``addresses.py`` delivers
them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from poleng_assets.core.data import asset_events
from poleng_assets.defs.events import Recorded
from poleng_assets.text.markdown import unescaped
from poleng_assets.warehouse.outbox import Message

TOP_REASONS = 3
LISTED = 10
SUMMARISED = 25
TEXT_LENGTH = 1500
DIGEST = "digest"

# Quoted text and examples of invalid rows may be answers; long numbers and mixed words may be ids.
_QUOTED = re.compile(r"(?<!\w)(?:'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`)(?!\w)")
_EXAMPLES = re.compile(r"(?<=% are tolerated): .*")
_ANSWER = re.compile(r"\S+(?= is (?:not among the codes|no survey code))")
_ID = re.compile(r"(?<![\w.])(?:\w*\d{4,}\w*|(?=\w*\d)(?=\w*[^\W\d])\w{6,})(?!\w)")
_REFUSED = re.compile(
    r"(?P<file>.+?) was refused\.\n\nWhy: (?P<why>.*?)(?:\n\nWhat to do: (?P<do>.*))?\s*", re.S
)


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Attributes:
        partition: its partition, may be empty.
        error: message of the innermost error, with the name of its class.
        meant: whether it was written for people (``dagster.Failure``); others may contain values.
        happened_at: seconds since 1970, UTC.
    """

    run_id: str
    job: str
    partition: str
    error: str
    meant: bool
    happened_at: float

    @property
    def name(self) -> str:
        """The job and its partition."""
        return f"{self.job}{f' of {self.partition}' if self.partition else ''}"


@dataclass(frozen=True)
class Day:
    """The content of the digest: all events since the last one, and pending files.

    Attributes:
        since, until: seconds since 1970, UTC.
        champion: version that serves, None if there is none.
        batches: name, verdict, model version and whether it was held, of each report, oldest first.
        events: titles of the other messages.
        waiting: names of the pending files, by kind.
        refused: names of the refused files.
        quarantined: number of quarantined rows, by file.
        failed: job and partition of each failed run.
        backup_at: time of the last backup (ISO 8601), empty if unknown.
    """

    since: float
    until: float
    champion: int | None = None
    batches: Sequence[tuple[str, str, int, bool]] = ()
    events: Sequence[str] = ()
    waiting: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refused: Sequence[str] = ()
    quarantined: Mapping[str, int] = field(default_factory=dict)
    failed: Sequence[str] = ()
    backup_at: str = ""


def about(recorded: Recorded[Any], home: str) -> Message | None:
    """Return the message about an event, None if it needs none.

    Args:
        home: its folder, named in each message.
    """
    content_of = _DESCRIPTIONS.get(recorded.asset)
    content = content_of(recorded) if content_of else None
    if content is None:
        return None
    kind, cause, title, text = content
    return Message(recorded.key, cause, kind, title, _signed(text, home, recorded.at), recorded.at)


def about_failure(failure: Failure, home: str) -> Message:
    """Return the message about a failed run, without the values in unexpected errors."""
    error = failure.error if failure.meant else without_values(failure.error)
    text = f"{_full_stop(error)}\nThe complete error is in the UI, run {failure.run_id[:8]}."
    return Message(
        f"failed/{failure.run_id}",
        f"failed/{failure.job}/{failure.partition}",
        "failed",
        f"The run {failure.name} failed",
        _signed(text, home, failure.happened_at),
        failure.happened_at,
    )


def about_refusal(kind: str, note_name: str, note: str, home: str, happened_at: float) -> Message | None:
    """Return the message about a refused file, None if its note is incomplete.

    Args:
        note_name: name of the note beside the file, in ``rejected/<kind>``.
        home: its folder.
        happened_at: when the note was written, seconds since 1970.
    """
    refusal = _REFUSED.fullmatch(note)
    if refusal is None:
        return None
    file, why = refusal["file"], without_values(refusal["why"], ids=False)
    advice = f"\n{refusal['do'].strip()}" if refusal["do"] else ""
    text = f"Why: {_full_stop(why)}{advice}\nThe complete reason: rejected/{kind}/{note_name}"
    return Message(
        f"refused/{kind}/{note_name}/{happened_at:.3f}",
        f"refused/{kind}/{file}/{why}",
        "refused",
        f"The file {file} was refused",
        _signed(text, home, happened_at),
        happened_at,
    )


def about_earlier(count: int, days: int, before: float, home: str, now: float) -> Message:
    """Return one message for all events that are too old for messages of their own."""
    noun = "event" if count == 1 else "events"
    text = (
        f"In the last {days} days, {count} {noun} happened before {_time(before)} and were not sent one by "
        "one: see the UI."
    )
    return Message(
        f"skipped/{before:.0f}/{count}",
        "skipped",
        "skipped",
        f"{count} earlier {noun} not sent one by one",
        _signed(text, home, now),
        now,
    )


def digest(day: Day, home: str, key: str) -> Message:
    """Return the digest, even without events: its arrival shows that the system is running."""
    serves = f"Model version {day.champion} serves." if day.champion else "No model serves yet."
    lines = [serves, *_batch_lines(day.batches)]
    lines += [f"{title}." for title in day.events[:LISTED]] + _more(len(day.events))
    for kind, names in day.waiting.items():
        if names:
            lines.append(f"Pending in landing/{kind}: {_names(names)}.")
    if day.refused:
        lines.append(f"Refused files: {_names(day.refused)}.")
    if day.quarantined:
        rows = sum(day.quarantined.values())
        lines.append(f"Rows in quarantine: {rows}, from {_names(list(day.quarantined))}.")
    if day.failed:
        lines.append(f"Failed runs: {len(day.failed)}: {_names(_counted(day.failed))}.")
    if not (day.batches or day.events or day.refused or day.failed or day.quarantined):
        lines.append("Nothing else happened.")
    lines.append(f"Last backup: {day.backup_at}." if day.backup_at else "No backup is known.")
    return Message(
        key,
        key,
        DIGEST,
        f"{_time(day.since)} to {_time(day.until)}: {_count(len(day.batches), 'report')}, "
        f"{len(day.refused)} refused, {len(day.failed)} failed",
        _signed("\n".join(lines), home, day.until),
        day.until,
    )


def summary(messages: Sequence[Message]) -> tuple[str, str]:
    """Return title and text of one message that replaces many."""
    lines = [f"- {title}" for title in _counted(message.title for message in messages)]
    if len(lines) > SUMMARISED:
        lines = [*lines[:SUMMARISED], f"- and {len(lines) - SUMMARISED} others"]
    return f"{len(messages)} more", "\n".join([f"{len(messages)} more:", *lines])


def _counted(names: Iterable[str]) -> list[str]:
    """Return each distinct name with its count."""
    return [f"{name} ({times} times)" if times > 1 else name for name, times in Counter(names).items()]


def without_values(error: str, *, ids: bool = True) -> str:
    """Return the first line of an error without possible answers or ids of people.

    Libraries quote invalid values. Quoted text is removed and, if ``ids``, also long numbers and words of
    letters and digits.
    """
    line = error.strip().partition("\n")[0]
    line = _ANSWER.sub("…", _QUOTED.sub("…", _EXAMPLES.sub("", line)))
    return _ID.sub("…", line) if ids else line


# Kind, cause, title and text of a message.
_Description = tuple[str, str, str, str]


def _of_report(recorded: Recorded[asset_events.DriftReport]) -> _Description | None:
    batch, event = recorded.partition, recorded.event
    if not event.alarm:
        return None
    reasons = [
        re.sub(r"^\*\*[^*]+:\*\* ", "", line.removeprefix("- "))
        for line in unescaped(str(event.reasons)).splitlines()
        if line.startswith("- ")
    ]
    top = "\n".join(f"- {_full_stop(reason)}" for reason in reasons[:TOP_REASONS])
    text = (
        f"Batch {batch} is {event.verdict} under model version {event.model_version}. Its contact list is "
        f"on hold until a challenger was trained and evaluated.\n{top}\nReport: {event.report}"
    )
    cause = f"drift/{batch}/{event.model_version}"
    return "drift", cause, f"Alarm: batch {batch} is {event.verdict}", text


def _of_training(recorded: Recorded[asset_events.TrainingData]) -> _Description:
    event = recorded.event
    text = (
        f"A challenger is being trained on all field studies. Reason: {_full_stop(event.reason)}\n"
        f"New field studies: {event.pending}."
    )
    return "training", f"training/{event.training_data_hash}", "Retraining started", text


def _of_champion(recorded: Recorded[asset_events.Champion]) -> _Description:
    event = recorded.event
    serving, challenger, why = event.serving, event.challenger_version, _full_stop(event.reason)
    if event.is_rollback:
        again = event.score_again
        batches = f"\nBatches to be scored again: {_names(again)}." if again else ""
        return (
            "champion",
            recorded.key,
            f"Rolled back: model version {serving} serves again",
            f"{why}{batches}",
        )
    if event.promoted:
        cause, text = f"promoted/{challenger}", f"Version {challenger} passed every gate: {why}"
        return "champion", cause, f"Promoted: model version {challenger} serves now", text
    stays = f"Version {serving} remains the champion." if serving else "No version serves yet."
    cause = f"rejected/{challenger}/{event.serving_version}"
    return (
        "champion",
        cause,
        f"Rejected: model version {challenger} is not promoted",
        f"{stays} Reason: {why}",
    )


def _of_request(recorded: Recorded[asset_events.LabelRequest]) -> _Description | None:
    event = recorded.event
    if not event.interviews:
        return None
    text = (
        f"There is no new field study to train on. {_full_stop(str(event.request))}\n"
        f"Model version {event.model_version} may be unreliable on: {event.batches}. Drifted columns: "
        f"{event.drifted}.\nThe people to interview are listed in {event.list}"
    )
    cause = f"request/{event.model_version}/{event.batches}"
    return "request", cause, f"Field study requested: {event.interviews} interviews", text


def _of_outcomes(recorded: Recorded[asset_events.RealisedPerformance]) -> _Description | None:
    event = recorded.event
    losses = {version: names for version, names in (event.losses or {}).items() if names}
    if not losses:
        return None
    lines = [f"Model version {version}: {_names(names)}." for version, names in losses.items()]
    text = "\n".join(["Its performance is significantly worse than tolerated on these batches:", *lines])
    cause = f"loss/{json.dumps(losses, sort_keys=True)}"
    return "loss", cause, "Outcomes show a loss of model performance", text


_DESCRIPTIONS: dict[str, Callable[[Recorded[Any]], _Description | None]] = {
    "drift_report": _of_report,
    "training_data": _of_training,
    "champion": _of_champion,
    "field_study_request": _of_request,
    "realised_performance": _of_outcomes,
}
REPORTED_ASSETS = tuple(_DESCRIPTIONS)


def about_clock(doubt: str, home: str, at: float) -> Message:
    """Return the message that the clock is in doubt, once a day by that clock."""
    text = _signed(_full_stop(doubt[:1].upper() + doubt[1:]), home, at)
    day = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
    return Message(f"clock/{day}", "clock", "clock", "The clock is in doubt: all work is paused", text, at)


def _batch_lines(batches: Sequence[tuple[str, str, int, bool]]) -> list[str]:
    if not batches:
        return []
    counted = Counter(verdict for _, verdict, _, _ in batches)
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in counted.most_common())
    notable = [batch for batch in batches if batch[1] != "clear"]
    shown = [
        f"- {name}: {verdict} under version {version}{', held' if held else ''}"
        for name, verdict, version, held in notable[:LISTED]
    ]
    return [f"Reports: {verdicts}.", *shown, *_more(len(notable))]


def _more(number: int) -> list[str]:
    return [f"- and {number - LISTED} more"] if number > LISTED else []


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _full_stop(sentence: str) -> str:
    sentence = sentence.strip()
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _signed(text: str, home: str, at: float) -> str:
    if len(text) > TEXT_LENGTH:
        text = f"{text[:TEXT_LENGTH]} …"
    return f"{text}\n\n{home}, {_time(at)}"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
