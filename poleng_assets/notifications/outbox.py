"""The outbox: messages that wait, which of them went where, and when to try again.

Each message is a file, written before anybody delivers it. One more file, ``state.json``, remembers how far
events were read and what each address has got; it is written whole after each delivery. A process that is
killed loses nothing, and repeats at most the one message that it was about to tick off. No address stands
here, only a few digits of its hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from poleng_assets.notifications.addresses import Delivery
from poleng_assets.notifications.messages import DIGEST, Message, summary
from poleng_assets.storage.files import write_whole
from poleng_assets.study.policies import NotificationsPolicy

HOUR, DAY = 3600.0, 86400.0
DELIVERY_SECONDS = 8.0
SHORTEST_PAUSE, LONGEST_PAUSE = 20.0, HOUR
# Of one message. The next one then shows whether it is the message or the address that does not work.
STUBBORN_AFTER = 3
KEPT_DAYS = 14


class OutboxBroken(ValueError):
    """A file of the outbox cannot be read; the message says which, and what to do."""


class Recipient(Protocol):
    """Where messages go: :class:`poleng_assets.notifications.addresses.Address`."""

    @property
    def id(self) -> str:
        """What its deliveries are remembered by."""

    @property
    def name(self) -> str:
        """How people are told which one it is."""

    def deliver(self, title: str, text: str, seconds: float) -> Delivery:
        """Deliver one message in so many seconds at most."""


@dataclass
class Ledger:
    """What one address has got, and how it fares.

    Attributes:
        sent: by message: when (seconds since 1970, 0 when it was not meant for this address or was given
            up), and under which name it counts for the limit of an hour, empty when it does not.
        tries: by message, how often it could not be delivered.
        failures: in a row, of any message.
        retry_at: when to try again, seconds since 1970.
    """

    sent: dict[str, tuple[float, str]] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    retry_at: float = 0.0


@dataclass
class State:
    """What the outbox remembers between two looks.

    Attributes:
        position: storage id of the newest event that was read, None before the first look.
        read_until: when that event happened, seconds since 1970.
        rejected: when each folder of refused files last changed, nanoseconds since 1970.
        digest_at: when the last digest was made, None before the first look.
        ledgers: by the id of the address.
    """

    position: int | None = None
    read_until: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    digest_at: float | None = None
    ledgers: dict[str, Ledger] = field(default_factory=dict)


@dataclass
class Outbox:
    """The messages of a home. Open it with :func:`open_outbox`: only one process works on it at a time."""

    folder: Path
    policy: NotificationsPolicy
    state: State

    def save(self) -> None:
        """Write the state down."""
        write_whole(self._state_file, json.dumps(asdict(self.state)))

    def register(self, recipients: Sequence[Recipient]) -> None:
        """Make the addresses known. A new one gets what nobody has got yet, and nothing older."""
        told = {key for one in self.state.ledgers.values() for key, (at, _) in one.sent.items() if at}
        for one in recipients:
            if one.id not in self.state.ledgers:
                self.state.ledgers[one.id] = Ledger(sent=dict.fromkeys(told, (0.0, "")))

    def keep(self, messages: Sequence[Message], now: float | None = None) -> int:
        """Keep messages until they are delivered; return how many are new.

        A message that is kept already is no new one, nor is one whose cause was told within
        ``repeat_after_hours``.
        """
        if not messages:
            return 0
        now = time.time() if now is None else now
        self._forget_old(now)
        names = self._names()
        told: dict[str, list[float]] = {}
        for message in map(self._read, names):
            told.setdefault(message.cause, []).append(message.happened_at)
        kept = 0
        for message in sorted(messages, key=lambda one: one.happened_at):
            name = _name(message)
            again = self.policy.repeat_after_hours * HOUR
            recent = [at for at in told.get(message.cause, []) if abs(message.happened_at - at) < again]
            if name in names or recent:
                continue
            write_whole(self._file(name), json.dumps(asdict(message) | {"kept_at": now}, ensure_ascii=False))
            names.add(name)
            told.setdefault(message.cause, []).append(message.happened_at)
            kept += 1
        return kept

    def deliver(self, recipients: Sequence[Recipient], seconds: float) -> list[str]:
        """Deliver what waits, in so many seconds at most; return in words what did not go well.

        One address that does not answer keeps no other one waiting longer than one delivery.
        """
        names = self._names()
        until = time.monotonic() + seconds
        said: list[str] = []
        for one in recipients:
            ledger = self.state.ledgers[one.id]
            waiting = names - set(ledger.sent)
            if not waiting:
                continue
            self._give_up(one, waiting, said)
            # Never longer than the longest pause: a wrong clock may have dated it years ahead.
            if not 0 < ledger.retry_at - time.time() <= LONGEST_PAUSE:
                self._deliver_to(one, waiting, until, said)
        return said

    def _deliver_to(self, one: Recipient, waiting: set[str], until: float, said: list[str]) -> None:
        ledger = self.state.ledgers[one.id]
        messages = sorted(
            ((name, self._read(name)) for name in waiting - set(ledger.sent)),
            key=lambda pair: (pair[1].happened_at, pair[0]),
        )
        missed = 0
        for unit in _units(messages, self._allowance(ledger)):
            left = until - time.monotonic()
            if left <= 0:
                return
            name, first = unit[0]
            title, text = (first.title, first.text) if len(unit) == 1 else summary([m for _, m in unit])
            delivery = one.deliver(title, text, min(left, DELIVERY_SECONDS))
            if delivery.done:
                counts = "" if first.kind == DIGEST else name
                ledger.sent |= {each: (time.time(), counts) for each, _ in unit}
                for each, _ in unit:
                    ledger.tries.pop(each, None)
                ledger.failures, ledger.retry_at = 0, 0.0
                self.save()
                continue
            missed += 1
            ledger.tries[name] = ledger.tries.get(name, 0) + 1
            pause = min(SHORTEST_PAUSE * 2.0 ** min(ledger.failures, 20), LONGEST_PAUSE)
            ledger.failures += 1
            ledger.retry_at = time.time() + pause
            self.save()
            said.append(f"{delivery.words}; {len(waiting)} waiting, tried again in {pause:.0f} seconds")
            if missed > 1 or ledger.tries[name] < STUBBORN_AFTER:
                return

    def _allowance(self, ledger: Ledger) -> int:
        recent = {counts for at, counts in ledger.sent.values() if counts and at > time.time() - HOUR}
        return max(self.policy.max_per_hour - len(recent), 0)

    def _give_up(self, one: Recipient, waiting: set[str], said: list[str]) -> None:
        ledger, days = self.state.ledgers[one.id], self.policy.give_up_after_days
        old = {name for name in waiting if self._kept_at(name) < time.time() - days * DAY}
        if old:
            ledger.sent |= dict.fromkeys(old, (0.0, ""))
            self.save()
            said.append(f"{one.name}: {len(old)} not delivered in {days} days, given up")

    def _forget_old(self, now: float) -> None:
        days = max(KEPT_DAYS, self.policy.give_up_after_days + 1, self.policy.repeat_after_hours / 24 + 1)
        gone = {name for name in self._names() if self._kept_at(name) < now - days * DAY}
        for name in gone:
            self._file(name).unlink()
        left = self._names()
        for ledger in self.state.ledgers.values():
            ledger.sent = {name: sent for name, sent in ledger.sent.items() if name in left}
            ledger.tries = {name: tries for name, tries in ledger.tries.items() if name in left}

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    def _file(self, name: str) -> Path:
        return self.folder / "messages" / f"{name}.json"

    def _names(self) -> set[str]:
        folder = self.folder / "messages"
        return {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()

    def _kept_at(self, name: str) -> float:
        return self._open(name)[1]

    def _read(self, name: str) -> Message:
        return self._open(name)[0]

    def _open(self, name: str) -> tuple[Message, float]:
        """Return a message and when it was kept."""
        path = self._file(name)
        try:
            content = _load(path)
            return Message(**{part.name: content[part.name] for part in fields(Message)}), float(
                content["kept_at"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise OutboxBroken(
                f"{path} cannot be read: remove it, the others are told all the same"
            ) from error


@contextmanager
def open_outbox(folder: Path, policy: NotificationsPolicy) -> Iterator[Outbox | None]:
    """Open the outbox for this process alone; None while another one works on it.

    Raises:
        OutboxBroken: a file of it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield Outbox(folder, policy, _load_state(folder / "state.json"))
    finally:
        os.close(lock)


def _units(messages: Sequence[tuple[str, Message]], allowance: int) -> list[list[tuple[str, Message]]]:
    """Return what is delivered together: each by itself, or the last ones as one when they are too many.

    A digest does not count: there is one a day.
    """
    counted = [pair for pair in messages if pair[1].kind != DIGEST]
    if len(counted) <= allowance:
        return [[pair] for pair in messages]
    alone = counted[: max(allowance - 1, 0)]
    rest = counted[len(alone) :] if allowance else []
    singles = [[pair] for pair in messages if pair[1].kind == DIGEST or pair in alone]
    return [*singles, rest] if rest else singles


def _name(message: Message) -> str:
    return hashlib.sha256(message.key.encode()).hexdigest()[:20]


def _load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _load_state(path: Path) -> State:
    if not path.exists():
        return State()
    try:
        content = _load(path)
        ledgers = {
            key: Ledger(
                **one | {"sent": {name: (float(at), str(by)) for name, (at, by) in one["sent"].items()}}
            )
            for key, one in content.pop("ledgers").items()
        }
        return State(**content, ledgers=ledgers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutboxBroken(
            f"{path} cannot be read: remove it. What is kept is told all the same, perhaps a second time"
        ) from error
