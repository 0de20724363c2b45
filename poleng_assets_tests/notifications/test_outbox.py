"""The outbox: what is kept, delivered once, put together, tried again and given up."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from poleng_assets.notifications import outbox as outbox_module
from poleng_assets.notifications.addresses import Address, Delivery
from poleng_assets.notifications.messages import DIGEST
from poleng_assets.notifications.outbox import DAY, HOUR, Outbox, OutboxBroken, Recipient, State, open_outbox
from poleng_assets.study.policies import NotificationsPolicy
from poleng_assets.warehouse.outbox import Message
from poleng_assets_tests.sinks import WebSink, mail_sink, web_sink

POLICY = NotificationsPolicy()


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with web_sink() as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Try again at once; what the pauses are is a test of its own."""
    monkeypatch.setattr(outbox_module, "SHORTEST_PAUSE", 0.0)


def message(number: int, *, cause: str = "", kind: str = "failed", at: float | None = None) -> Message:
    when = time.time() - 100 + number if at is None else at
    return Message(
        f"key/{number}", cause or f"cause/{number}", kind, f"Title {number}", f"Text {number}", when
    )


@contextmanager
def opened(folder: Path, policy: NotificationsPolicy = POLICY) -> Iterator[Outbox]:
    with open_outbox(folder / "outbox.db", policy) as outbox:
        assert outbox is not None
        yield outbox


def send(folder: Path, addresses: Sequence[Recipient], messages: list[Message], policy=POLICY) -> list[str]:
    """One tick: keep and deliver."""
    with opened(folder, policy) as outbox:
        outbox.register(addresses)
        outbox.keep(messages)
        outbox.save()
        return outbox.deliver(addresses, 20.0)


def at(sink: WebSink, number: int = 1) -> Address:
    return Address(number, sink.url())


def test_messages_are_delivered_once_and_in_order(tmp_path, sink):
    for _ in range(3):
        assert send(tmp_path, [at(sink)], [message(2), message(1), message(3)]) == []
    assert sink.titles == ["Title 1", "Title 2", "Title 3"]
    assert sink.got[0]["message"] == "Text 1"


def test_a_mail_is_delivered(tmp_path):
    with mail_sink() as mails:
        assert send(tmp_path, [Address(1, mails.url)], [message(1)]) == []
        ((subject, text),) = mails.got
    assert "Title 1" in subject
    assert "Text 1" in text


def test_the_same_cause_is_told_once_in_its_hours(tmp_path, sink):
    now = time.time()
    policy = NotificationsPolicy(repeat_after_hours=2)
    times = [now - 3 * HOUR, now - 2.5 * HOUR, now - 1.5 * HOUR, now - 0.9 * HOUR, now]
    for number, when in enumerate(times):
        again = message(number, cause="the same run fails", at=when)
        send(tmp_path, [at(sink)], [again], policy)
    assert sink.titles == ["Title 0", "Title 3"]


def test_forty_events_at_once_are_told_as_a_few_messages_and_a_summary(tmp_path, sink):
    policy = NotificationsPolicy(max_per_hour=5)
    send(tmp_path, [at(sink)], [message(number) for number in range(40)], policy)
    assert sink.titles == ["Title 0", "Title 1", "Title 2", "Title 3", "36 more"]
    summary = sink.got[-1]["message"]
    assert summary.startswith("36 more:\n- Title 4\n- Title 5\n")
    assert summary.endswith("- and 11 others")


def test_what_comes_after_the_limit_waits_until_the_hour_has_passed(tmp_path, sink, monkeypatch):
    policy = NotificationsPolicy(max_per_hour=2)
    send(tmp_path, [at(sink)], [message(number) for number in range(4)], policy)
    assert sink.titles == ["Title 0", "3 more"]
    send(tmp_path, [at(sink)], [message(4), message(5), message(6)], policy)
    assert len(sink.got) == 2
    later = time.time() + HOUR + 1
    monkeypatch.setattr(outbox_module.time, "time", lambda: later)
    send(tmp_path, [at(sink)], [], policy)
    assert sink.titles[2:] == ["Title 4", "2 more"]


def test_a_digest_is_sent_whole_and_does_not_count(tmp_path, sink):
    policy = NotificationsPolicy(max_per_hour=1)
    send(tmp_path, [at(sink)], [message(1, kind=DIGEST), message(2), message(3)], policy)
    send(tmp_path, [at(sink)], [message(4, kind=DIGEST)], policy)
    assert sink.titles == ["Title 1", "2 more", "Title 4"]


def test_a_sink_that_was_down_gets_everything_later_in_order(tmp_path):
    with web_sink() as closed:
        address = at(closed)
    for number in range(5):
        (words,) = send(tmp_path, [address], [message(number)])[:1]
        assert "could not be reached" in words
    with web_sink(closed.port) as opened_later:
        assert send(tmp_path, [address], []) == []
        assert opened_later.titles == [f"Title {number}" for number in range(5)]


def test_a_server_error_is_named_and_tried_again(tmp_path, sink):
    sink.status = 500
    (words,) = send(tmp_path, [at(sink)], [message(1)])
    assert words.startswith("address 1 of POLENG_NOTIFY (JSON) responded with error 500; 1 pending")
    sink.status = 200
    send(tmp_path, [at(sink)], [])
    assert sink.titles == ["Title 1"]


def test_one_address_that_fails_repeats_nothing_to_the_others(tmp_path, sink):
    with web_sink() as broken:
        broken.status = 503
        addresses = [at(broken), at(sink, 2)]
        for _ in range(3):
            assert len(send(tmp_path, addresses, [message(1)])) == 1
        assert sink.titles == ["Title 1"]
        broken.status = 200
        send(tmp_path, addresses, [])
        assert broken.titles == sink.titles == ["Title 1"]


def test_a_message_that_is_never_accepted_does_not_keep_the_others(tmp_path, sink):
    sink.never = ("Title 1",)
    for _ in range(4):
        send(tmp_path, [at(sink)], [message(1), message(2), message(3)])
    assert sink.titles == ["Title 2", "Title 3"]


@dataclass
class Scripted:
    """An address that answers as it is told, and keeps no socket."""

    answers: list[bool]
    id: str = "scripted"
    name: str = "address 1"
    asked_at: list[float] = field(default_factory=list)

    def deliver(self, title: str, text: str, seconds: float) -> Delivery:
        self.asked_at.append(time.time())
        return Delivery(self.answers.pop(0), "it is down")


def test_pauses_grow_up_to_an_hour(tmp_path, monkeypatch):
    monkeypatch.setattr(outbox_module, "SHORTEST_PAUSE", 20.0)
    clock = [1_800_000_000.0]
    monkeypatch.setattr(outbox_module.time, "time", lambda: clock[0])
    address = Scripted([False] * 200)
    while clock[0] < 1_800_000_000 + 5 * HOUR:
        send(tmp_path, [address], [message(1, at=1_800_000_000)])
        clock[0] += 20
    between = [b - a for a, b in zip(address.asked_at, address.asked_at[1:], strict=False)]
    assert between[:4] == [20, 40, 80, 160]
    assert between == sorted(between)
    assert between[-1] == HOUR


def test_a_message_is_given_up_after_some_days_in_words(tmp_path, monkeypatch):
    address = Scripted([False] * 9)
    send(tmp_path, [address], [message(1)])
    later = time.time() + POLICY.give_up_after_days * DAY + 1
    monkeypatch.setattr(outbox_module.time, "time", lambda: later)
    assert send(tmp_path, [address], []) == ["address 1: 1 messages not delivered within 3.0 days, given up"]
    assert send(tmp_path, [address], []) == []
    assert len(address.asked_at) == 1


def test_old_messages_are_forgotten(tmp_path, sink, monkeypatch):
    send(tmp_path, [at(sink)], [message(1)])
    later = time.time() + 20 * DAY
    monkeypatch.setattr(outbox_module.time, "time", lambda: later)
    send(tmp_path, [at(sink)], [message(2, at=later)])
    assert rows_of(tmp_path, "SELECT title FROM messages") == [("Title 2",)]
    assert rows_of(tmp_path, "SELECT key FROM deliveries") == [("key/2",)]


def test_a_new_address_gets_what_nobody_got_and_nothing_older(tmp_path, sink):
    send(tmp_path, [at(sink)], [message(1)])
    with web_sink() as closed:
        wrong = at(closed)
    send(tmp_path, [at(sink), wrong], [message(2)])
    with web_sink() as second:
        send(tmp_path, [at(sink), at(second, 2)], [])
        assert second.titles == []
    sink.status = 500
    send(tmp_path, [at(sink)], [message(3)])
    with web_sink() as mended:
        send(tmp_path, [at(mended)], [])
        assert mended.titles == ["Title 3"]


def test_a_sink_that_answers_for_ever_is_left_alone_in_time(tmp_path, sink, monkeypatch):
    monkeypatch.setattr(outbox_module, "DELIVERY_SECONDS", 1.0)
    sink.drip_seconds = 20.0
    started = time.monotonic()
    (words,) = send(tmp_path, [at(sink)], [message(1), message(2)])
    assert time.monotonic() - started < 5
    assert "did not respond within 1 seconds" in words


def test_two_processes_do_not_deliver_at_the_same_time(tmp_path):
    with opened(tmp_path), open_outbox(tmp_path / "outbox.db", POLICY) as second:
        assert second is None
    with opened(tmp_path):
        pass


def test_no_address_stands_in_the_outbox_and_only_its_owner_reads_it(tmp_path, sink):
    address = Address(1, sink.url("hook/T0KEN", "s3cret"))
    send(tmp_path, [address], [message(1)])
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(word in path.read_bytes() for word in (b"127.0.0.1", b"T0KEN", b"s3cret", b"json://"))


def rows_of(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "outbox.db")) as con:
        return con.execute(query).fetchall()


def test_a_broken_outbox_is_refused_by_name(tmp_path):
    (tmp_path / "outbox.db").write_text("no database at all, and long enough to be taken for one" * 99)
    with pytest.raises(OutboxBroken, match=r"outbox\.db cannot be read"), opened(tmp_path):
        pass


def files_of_json(folder: Path, recipient: Recipient) -> None:
    """An outbox as it was before it became a database: two messages, the second of which was delivered."""
    (folder / "outbox" / "messages").mkdir(parents=True)
    for number in (1, 2):
        content = asdict(message(number)) | {"kept_at": time.time()}
        (folder / "outbox" / "messages" / f"name{number}.json").write_text(json.dumps(content))
    ledger = {"sent": {"name2": [time.time(), "name2"], "gone": [0.0, ""]}, "tries": {"name1": 1}}
    state = {"position": 7, "read_until": 5.0, "rejected": {"batches": 3}, "digest_at": 4.0}
    ledgers = {recipient.id: ledger | {"failures": 1, "retry_at": 0.0}}
    (folder / "outbox" / "state.json").write_text(json.dumps(state | {"ledgers": ledgers}))
    (folder / "outbox" / ".lock").touch()


def test_an_outbox_of_files_is_taken_over_once_and_nothing_of_it_is_told_twice(tmp_path, sink):
    files_of_json(tmp_path, at(sink))
    with opened(tmp_path) as outbox:
        assert outbox.state == State(7, 5.0, {"batches": 3}, 4.0)
        assert [each.message.title for each in outbox.store.waiting(at(sink).id)] == ["Title 1"]
    assert [path.name for path in tmp_path.iterdir()] == ["outbox.db"]
    send(tmp_path, [at(sink)], [message(1), message(2), message(3)])
    assert sink.titles == ["Title 1", "Title 3"]


def test_files_that_a_killed_process_had_taken_over_are_taken_over_again(tmp_path, sink, monkeypatch):
    files_of_json(tmp_path, at(sink))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **settings: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), opened(tmp_path):
            pass
    send(tmp_path, [at(sink)], [])
    assert sink.titles == ["Title 1"]
    assert [path.name for path in tmp_path.iterdir()] == ["outbox.db"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "k"}'])
@pytest.mark.parametrize("name", ["state.json", "messages/name1.json"])
def test_a_file_that_cannot_be_taken_over_is_named_and_all_are_left(tmp_path, sink, name, content):
    files_of_json(tmp_path, at(sink))
    (tmp_path / "outbox" / name).write_text(content)
    with pytest.raises(OutboxBroken, match=f"{name} cannot be read .*: delete it"), opened(tmp_path):
        pass
    assert (tmp_path / "outbox" / "messages" / "name2.json").exists()


DELIVER_AND_DIE = """
import os, sys, time
from pathlib import Path
from poleng_assets.notifications.addresses import Address
from poleng_assets.notifications.outbox import Outbox, open_outbox
from poleng_assets.study.policies import NotificationsPolicy
from poleng_assets.warehouse.outbox import Message, OutboxStore

folder, url, lives = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
saves = []

def dying(write):
    def dies(*args):
        if len(saves) == lives:
            os._exit(9)
        saves.append(1)
        write(*args)
    return dies

# The first write notes down what was read, each later one a delivery.
Outbox.save = dying(Outbox.save)
OutboxStore.mark_delivered = dying(OutboxStore.mark_delivered)
with open_outbox(folder / "outbox.db", NotificationsPolicy()) as outbox:
    address = Address(1, url)
    outbox.register([address])
    outbox.keep([Message(f"k{n}", f"c{n}", "failed", f"Title {n}", "Text", n) for n in range(4)])
    outbox.save()
    outbox.deliver([address], 20.0)
"""


@pytest.mark.parametrize("lives", [0, 1, 3])
def test_a_process_killed_before_it_ticks_off_loses_nothing_and_repeats_one_at_most(tmp_path, sink, lives):
    command = [sys.executable, "-c", DELIVER_AND_DIE, str(tmp_path), sink.url()]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    died = subprocess.run([*command, str(lives)], check=False, env=environment)
    assert died.returncode == 9
    subprocess.run([*command, "-1"], check=True, env=environment)
    once = [f"Title {number}" for number in range(4)]
    repeated = [] if lives == 0 else [f"Title {lives - 1}"]
    assert sorted(sink.titles) == sorted(once + repeated)
    subprocess.run([*command, "-1"], check=True, env=environment)
    assert len(sink.got) == 4 + len(repeated)
