"""Notifications: the sensor that reads events, writes messages to the outbox, and delivers them.

Delivery is part of the tick and not a run: a failed run would be an event itself, and runs would fill the
history. A tick delivers for ``TICK_BUDGET`` seconds at most; the other messages stay in the outbox.

The outbox has the position in the event log, not Dagster's cursor: the daemon and the command line use the
same home in turns, with different cursors. The digest is sent by the first tick after its hour of the day:
the command line runs no schedule, and a daemon that is off at that hour would miss it.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from poleng_assets.defs.clock import clock_in_doubt
from poleng_assets.defs.events import Recorded, events, recorded, records, serving_version
from poleng_assets.defs.run_history import PARTITION_TAG, words_of
from poleng_assets.notifications.addresses import VARIABLE, read_addresses
from poleng_assets.notifications.messages import (
    REPORTED_ASSETS,
    Day,
    Failure,
    about,
    about_clock,
    about_earlier,
    about_failure,
    about_refusal,
    digest,
)
from poleng_assets.notifications.outbox import DAY, HOUR, Outbox, OutboxBroken, open_outbox
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.storage.home_study import study_of
from poleng_assets.storage.landing import Landing
from poleng_assets.warehouse.outbox import Message

TICK_SECONDS = 10
TICK_BUDGET = 20.0
EVENTS_AT_ONCE = 200
EARLIER_DAYS = 14
NOTE = ".reason.txt"


@dg.sensor(
    name="notifications",
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Sends notifications about events, and a daily digest, to the addresses in {VARIABLE}.",
)
def notifications(context: dg.SensorEvaluationContext, landing: dg.ResourceParam[Landing]) -> dg.SkipReason:
    """Send notifications about events since the last tick."""
    addresses = read_addresses()
    if not addresses:
        return dg.SkipReason(f"No recipients: {VARIABLE} is not set")
    home, policy = landing.home, study_of(landing.home).policies.notifications
    try:
        with open_outbox(home.outbox, policy) as outbox:
            if outbox is None:
                return dg.SkipReason("Another process delivers the messages of this home")
            outbox.register(addresses)
            new = collect(context.instance, landing, outbox, time.time(), context.log.error)
            remarks = outbox.deliver(addresses, TICK_BUDGET)
    except (OSError, OutboxBroken) as error:
        # An exception would end `poleng run-pending`, which evaluates all sensors itself.
        context.log.error(f"No messages are sent: {error}")
        return dg.SkipReason(f"No messages are sent: {error}")
    for remark in remarks:
        context.log.warning(remark)
    return dg.SkipReason("; ".join(remarks) or (f"{new} new messages" if new else "No new messages"))


def collect(
    instance: dg.DagsterInstance,
    landing: Landing,
    outbox: Outbox,
    now: float,
    complain: Callable[[str], object],
) -> int:
    """Add messages about events since the last tick to the outbox; return how many are new.

    The messages are stored before the position in the event log: a process that is killed in between reads
    the events again, and their messages have the same keys.

    Args:
        now: seconds since 1970.
        complain: called for events without a message because of an error.
    """
    home, state = landing.home, outbox.state
    before = deepcopy(state)
    messages = _new_events(instance, outbox, str(home.root), now, complain)
    messages += _refusals(home, outbox, now - outbox.policy.told_within_hours * HOUR)
    if doubt := clock_in_doubt(instance, home):
        messages.append(about_clock(doubt, str(home.root), now))
    messages += _digest_if_due(instance, landing, outbox, now)
    kept = outbox.keep(messages, now)
    if state != before:
        outbox.save()
    return kept


def _new_events(
    instance: dg.DagsterInstance, outbox: Outbox, home: str, now: float, complain: Callable[[str], object]
) -> list[Message]:
    """Return the messages about events since the last tick, and one message for all old events."""
    state = outbox.state
    newest = instance.event_log_storage.get_maximum_record_id() or 0
    begins = state.position is None or newest < state.position  # or another log, restored from a backup
    if not begins and newest == state.position:
        return []
    # Reading the complete history would exceed the time of a tick.
    since = {"after_timestamp": now - EARLIER_DAYS * DAY} if begins else {"after_storage_id": state.position}
    within: dict[str, Any] = {"before_storage_id": newest + 1, **since}
    reported = [
        message
        for message in _messages_about(instance, within, home, complain)
        if not begins or message.happened_at > state.read_until
    ]
    horizon = now - outbox.policy.told_within_hours * HOUR
    messages = [message for message in reported if message.happened_at > horizon]
    if earlier := len(reported) - len(messages):
        messages.append(about_earlier(earlier, EARLIER_DAYS, horizon, home, now))
    state.read_until = max([state.read_until, *(message.happened_at for message in reported)])
    state.position = newest
    return messages


def _digest_if_due(
    instance: dg.DagsterInstance, landing: Landing, outbox: Outbox, now: float
) -> list[Message]:
    state, due = outbox.state, _digest_due(outbox.policy.digest_hour, now)
    # A wrong clock may have set it years ahead: there would be no digest until then.
    last = None if state.digest_at is None else min(state.digest_at, now)
    state.digest_at = now if last is None or last < due else last
    if last is None or last >= due:
        return []
    return [digest(_day(instance, landing, last, now), str(landing.home.root), f"digest/{due:.0f}")]


def _messages_about(
    instance: dg.DagsterInstance, within: Mapping[str, Any], home: str, complain: Callable[[str], object]
) -> Iterator[Message]:
    """Yield the messages about some events; an event with unexpected content is left out."""
    for asset in REPORTED_ASSETS:
        for record in records(instance, asset, **within):
            try:
                message = about(recorded(asset, record), home)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                complain(f"No message about event {record.storage_id} of {asset}: {error!r}")
                continue
            if message:
                yield message
    for failure in _failures(instance, within):
        yield about_failure(failure, home)


def _failures(instance: dg.DagsterInstance, within: Mapping[str, Any]) -> Iterator[Failure]:
    """Yield the failed runs, except those that refused a file, which has a note in ``rejected``."""
    cursor = None
    while True:
        page = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, **within),
            EVENTS_AT_ONCE,
            cursor=cursor,
            ascending=True,
        )
        for record in page.records:
            failure = _failure(instance, record)
            if failure:
                yield failure
        if not page.has_more:
            return
        cursor = page.cursor


def _failure(instance: dg.DagsterInstance, record: dg.EventLogRecord) -> Failure | None:
    """Return the error of a failed run: that of its first failed step, or of its end from outside."""
    run = instance.get_run_by_id(record.run_id)
    steps = instance.get_records_for_run(record.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1)
    error, meant = record.event_log_entry.message or "it failed before its first step", False
    for step in steps.records:
        event = step.event_log_entry.dagster_event
        data = event.step_failure_data if event else None
        if data is None:
            continue
        user_failure = data.user_failure_data
        if user_failure and {"file", "reason"} <= set(user_failure.metadata):
            return None
        if user_failure and user_failure.description:
            error, meant = user_failure.description, True
        elif data.error is not None:
            error = words_of(data.error)
    job, tags = (run.job_name, run.tags) if run else (record.event_log_entry.job_name or "unknown", {})
    return Failure(record.run_id, job, tags.get(PARTITION_TAG, ""), error, meant, record.timestamp)


def _refusals(home: Home, outbox: Outbox, horizon: float) -> list[Message]:
    """Return the messages about files refused since ``horizon``, if a folder has changed."""
    messages = []
    for kind in KINDS:
        folder = home.rejected(kind)
        changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
        if changed == outbox.state.rejected.get(kind):
            continue
        complete = True
        for note, at in _notes(folder):
            if at <= horizon:
                continue
            text = note.read_text(encoding="utf-8", errors="replace")
            message = about_refusal(kind, note.name, text, str(home.root), at)
            # A note that is still being written is read again.
            complete = complete and (message is not None or time.time() - at > HOUR)
            messages += [message] if message else []
        if complete:
            outbox.state.rejected[kind] = changed
    return messages


def _notes(folder: Path) -> list[tuple[Path, float]]:
    """Return the notes beside refused files, with their times in seconds since 1970."""
    notes = folder.glob(f"*{NOTE}") if folder.is_dir() else []
    return [(note, note.stat().st_mtime) for note in notes]


def _digest_due(hour: int, now: float) -> float:
    """Return the due time of the last digest, seconds since 1970."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=hour, minute=0, second=0, microsecond=0)
    return (today if today.timestamp() <= now else today - timedelta(days=1)).timestamp()


def _day(instance: dg.DagsterInstance, landing: Landing, since: float, until: float) -> Day:
    home = landing.home
    within = {"after_timestamp": since, "before_timestamp": until}
    notes = [noted for kind in KINDS for noted in _notes(home.rejected(kind))]
    arrived: list[Recorded[Any]] = [event for kind in KINDS for event in events(instance, kind, **within)]
    return Day(
        since,
        until,
        champion=serving_version(instance),
        batches=_batches(instance, within),
        events=_titles(instance, within, str(home.root)),
        waiting={kind: [path.name for path in landing.waiting(kind)] for kind in KINDS},
        refused=[note.name.removesuffix(NOTE) for note, at in notes if since < at <= until],
        quarantined={
            file.partition: file.event.rows_quarantined for file in arrived if file.event.rows_quarantined
        },
        failed=[failure.name for failure in _failures(instance, within)],
        backup_at=_last_backup(home),
    )


def _batches(instance: dg.DagsterInstance, within: Mapping[str, Any]) -> list[tuple[str, str, int, bool]]:
    """Return name, verdict, version and hold of each drift report in a period, oldest first."""
    reports: list[Recorded[Any]] = sorted(
        events(instance, "drift_report", **within), key=lambda report: report.at
    )
    return [
        (report.partition, report.event.verdict, report.event.model_version or 0, report.event.held)
        for report in reports
    ]


def _titles(instance: dg.DagsterInstance, within: Mapping[str, Any], home: str) -> list[str]:
    """Return the titles of the messages in a period, except drift reports, oldest first."""
    messages = [
        message
        for asset in REPORTED_ASSETS
        for event in events(instance, asset, **within)
        if asset != "drift_report" and (message := about(event, home))
    ]
    return [message.title for message in sorted(messages, key=lambda message: message.happened_at)]


def _last_backup(home: Home) -> str:
    """Return the time of the last ``poleng backup``; empty if there is none."""
    note = home.root / "last_backup.json"
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["made_at"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        return f"unknown, {note} cannot be read"


NOTIFICATIONS = [notifications]
