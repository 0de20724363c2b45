"""The outbox: pending messages, their delivery to each address, and retries.

A message is stored before its delivery, and marked as delivered afterwards. A killed process loses nothing,
and repeats at most one message. ``warehouse/outbox.py`` is its store.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from poleng_assets.notifications.addresses import Delivery
from poleng_assets.notifications.messages import DIGEST, summary
from poleng_assets.study.policies import NotificationsPolicy
from poleng_assets.warehouse.outbox import Message, OutboxStore, Waiting, open_store

HOUR, DAY = 3600.0, 86400.0
DELIVERY_SECONDS = 8.0
SHORTEST_PAUSE, LONGEST_PAUSE = 20.0, HOUR
# Failed attempts of one message; the next one then shows whether the message or the address fails.
STUBBORN_AFTER = 3
KEPT_DAYS = 14


class OutboxBroken(ValueError):
    """The outbox cannot be read or written; the message says why and what to do."""


class Recipient(Protocol):
    """A recipient of messages: :class:`poleng_assets.notifications.addresses.Address`."""

    @property
    def id(self) -> str:
        """The key of its deliveries."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def deliver(self, title: str, text: str, seconds: float) -> Delivery:
        """Deliver one message within a time limit in seconds."""


@dataclass
class State:
    """The state of the outbox between two ticks.

    Attributes:
        position: storage id of the newest event that was read, None before the first tick.
        read_until: time of that event, seconds since 1970.
        rejected: last change of each folder of refused files, nanoseconds since 1970.
        digest_at: time of the last digest, None before the first tick.
    """

    position: int | None = None
    read_until: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    digest_at: float | None = None


@dataclass
class Outbox:
    """The messages of a home. Open it with :func:`open_outbox`: one process at a time can use it."""

    store: OutboxStore
    policy: NotificationsPolicy
    state: State

    def save(self) -> None:
        """Save the state."""
        self.store.save_state(asdict(self.state))

    def register(self, recipients: Sequence[Recipient]) -> None:
        """Register the addresses. A new one gets undelivered messages, but no older ones."""
        for recipient in recipients:
            self.store.register(recipient.id)

    def keep(self, messages: Sequence[Message], now: float | None = None) -> int:
        """Store messages until they are delivered; return how many are new.

        A message is not new if it is already stored, or if its cause was reported within
        ``repeat_after_hours``.
        """
        if not messages:
            return 0
        now = time.time() if now is None else now
        policy = self.policy
        days = max(KEPT_DAYS, policy.give_up_after_days + 1, policy.repeat_after_hours / 24 + 1)
        self.store.remove_older(now - days * DAY)
        ordered = sorted(messages, key=lambda message: message.happened_at)
        return sum(self.store.add(message, now, policy.repeat_after_hours * HOUR) for message in ordered)

    def deliver(self, recipients: Sequence[Recipient], seconds: float) -> list[str]:
        """Deliver pending messages within a time limit in seconds; return a remark for each problem.

        An address that does not respond delays the others by one delivery at most.
        """
        until = time.monotonic() + seconds
        remarks: list[str] = []
        for recipient in recipients:
            waiting = self.store.waiting(recipient.id)
            old = time.time() - self.policy.give_up_after_days * DAY
            if given_up := [each.message.key for each in waiting if each.kept_at < old]:
                self.store.mark_delivered(recipient.id, given_up, 0.0)
                remarks.append(
                    f"{recipient.name}: {len(given_up)} messages not delivered within "
                    f"{self.policy.give_up_after_days} days, given up"
                )
            waiting = [each for each in waiting if each.kept_at >= old]
            _, retry_at = self.store.failures(recipient.id)
            # Never longer than the longest pause: a wrong clock may have set it years ahead.
            if waiting and not 0 < retry_at - time.time() <= LONGEST_PAUSE:
                remarks += self._deliver_to(recipient, waiting, until)
        return remarks

    def _deliver_to(self, recipient: Recipient, waiting: list[Waiting], until: float) -> list[str]:
        remarks: list[str] = []
        recent = self.store.count_delivered(recipient.id, time.time() - HOUR)
        for unit in _units(waiting, max(self.policy.max_per_hour - recent, 0)):
            left = until - time.monotonic()
            if left <= 0:
                break
            first = unit[0].message
            title, text = first.title, first.text
            if len(unit) > 1:
                title, text = summary([each.message for each in unit])
            delivery = recipient.deliver(title, text, min(left, DELIVERY_SECONDS))
            if delivery.done:
                keys = [each.message.key for each in unit]
                counts_as = "" if first.kind == DIGEST else first.key
                self.store.mark_delivered(recipient.id, keys, time.time(), counts_as)
                continue
            failures, _ = self.store.failures(recipient.id)
            pause = min(SHORTEST_PAUSE * 2.0 ** min(failures, 20), LONGEST_PAUSE)
            self.store.mark_failed(recipient.id, first.key, time.time() + pause)
            remarks.append(f"{delivery.error}; {len(waiting)} pending, next attempt in {pause:.0f} seconds")
            if len(remarks) > 1 or unit[0].tries + 1 < STUBBORN_AFTER:
                break
        return remarks


@contextmanager
def open_outbox(path: Path, policy: NotificationsPolicy) -> Iterator[Outbox | None]:
    """Open the outbox of a home exclusively; None if another process uses it.

    Args:
        path: of its file; a folder of that name from earlier releases is migrated.

    Raises:
        OutboxBroken: it cannot be read or written.
    """
    try:
        with open_store(path) as store:
            if store is None:
                yield None
                return
            _migrate_files(path.with_suffix(""), store)
            yield Outbox(store, policy, State(**store.state()))
    except sqlite3.Error as error:
        raise OutboxBroken(
            f"{path} cannot be read or written ({error}). If it is damaged, delete it: recent events are "
            "reported again"
        ) from error


def _units(waiting: Sequence[Waiting], allowance: int) -> list[list[Waiting]]:
    """Return groups of messages: single ones, and one group of the last ones if there are too many.

    A digest does not count: there is one per day.
    """
    counted = [each for each in waiting if each.message.kind != DIGEST]
    if len(counted) <= allowance:
        return [[each] for each in waiting]
    alone = counted[: max(allowance - 1, 0)]
    rest = counted[len(alone) :] if allowance else []
    singles = [[each] for each in waiting if each.message.kind == DIGEST or each in alone]
    return [*singles, rest] if rest else singles


def _migrate_files(folder: Path, store: OutboxStore) -> None:
    """Migrate an outbox that was a folder of JSON files, and delete them; it can be interrupted."""
    if not folder.is_dir():
        return
    files = {path.stem: path for path in (folder / "messages").glob("*.json")}
    keys: dict[str, str] = {}
    for name, path in files.items():
        content = _read_json(path, {part.name for part in fields(Message)} | {"kept_at"})
        kept_at = content.pop("kept_at")
        store.add(Message(**content), kept_at, repeat_after=0.0)
        keys[name] = content["key"]
    old = folder / "state.json"
    if old.exists():
        state = _read_json(old, {"ledgers", *(part.name for part in fields(State))})
        ledgers: dict[str, dict[str, Any]] = state.pop("ledgers")
        for address in ledgers:
            store.register(address)
        for address, ledger in ledgers.items():
            for name, (sent_at, counts_as) in ledger["sent"].items():
                if name in keys:
                    store.mark_delivered(address, [keys[name]], sent_at, counts_as)
        store.save_state(state)
    for path in (*files.values(), old, folder / ".lock"):
        path.unlink(missing_ok=True)
    for emptied in (folder / "messages", folder):
        with suppress(OSError):  # it contains other files
            emptied.rmdir()


def _read_json(path: Path, names: set[str]) -> dict[str, Any]:
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        if set(content) != names:
            raise ValueError(f"it has {', '.join(sorted(content))}")
    except (TypeError, ValueError) as error:
        raise OutboxBroken(f"{path} cannot be read ({error}): delete it") from error
    return content
