"""The outbox's SQLite file: messages, what was delivered to which address, and how far events were read.

One process at a time has it open (``locking_mode``). Each write is on the disk when it returns, so that a
killed process loses nothing. No address stands here, only a few digits of its hash.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    key TEXT PRIMARY KEY, cause TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
    happened_at REAL NOT NULL, kept_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    address TEXT NOT NULL, key TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    sent_at REAL,              -- NULL while it waits, 0 when it was not meant for the address or given up
    counts_as TEXT DEFAULT '', -- the delivery it went with, for the limit of an hour; '' if it does not count
    PRIMARY KEY (address, key));
CREATE TABLE IF NOT EXISTS addresses (
    id TEXT PRIMARY KEY, failures INTEGER NOT NULL DEFAULT 0, retry_at REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Message:
    """One thing that people are notified of.

    Attributes:
        key: what happened, the same however often it is read; a message of that key is kept once.
        cause: what happened, the same when it happens again: the same batch, the same failing job.
        kind: ``drift``, ``training``, ``champion``, ``loss``, ``request``, ``refused``, ``failed``,
            ``skipped``, ``clock`` or ``digest``.
        happened_at: seconds since 1970, UTC.
    """

    key: str
    cause: str
    kind: str
    title: str
    text: str
    happened_at: float


@dataclass(frozen=True)
class Waiting:
    """A message that an address has not got yet, when it was kept, and how often its delivery failed."""

    message: Message
    kept_at: float
    tries: int


class OutboxStore:
    """Reads and writes an open outbox; every method that writes is one transaction."""

    def __init__(self, con: sqlite3.Connection) -> None:
        self._con = con

    def state(self) -> dict[str, Any]:
        """Return what is remembered between two looks, by name."""
        rows = self._con.execute("SELECT name, value FROM state").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def save_state(self, values: dict[str, Any]) -> None:
        """Remember some values by name, instead of those of the same name."""
        with self._con:
            self._con.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in values.items()],
            )

    def add(self, message: Message, kept_at: float, repeat_after: float) -> bool:
        """Keep a message; return whether it is new.

        It is not when it is kept already, nor when one of the same cause happened less than ``repeat_after``
        seconds before or after it.
        """
        with self._con:
            return bool(
                self._con.execute(
                    """INSERT INTO messages SELECT $key, $cause, $kind, $title, $text, $happened_at, $kept_at
                    WHERE NOT EXISTS (SELECT 1 FROM messages WHERE key = $key
                        OR (cause = $cause AND abs(happened_at - $happened_at) < $repeat_after))""",
                    vars(message) | {"kept_at": kept_at, "repeat_after": repeat_after},
                ).rowcount
            )

    def remove_older(self, kept_before: float) -> None:
        """Remove the messages that were kept before a moment, and their deliveries."""
        with self._con:
            self._con.execute("DELETE FROM messages WHERE kept_at < ?", [kept_before])
            self._con.execute("DELETE FROM deliveries WHERE key NOT IN (SELECT key FROM messages)")

    def register(self, address: str) -> None:
        """Make an address known. A new one gets what nobody has got yet, and nothing older."""
        with self._con:
            if self._con.execute("INSERT OR IGNORE INTO addresses (id) VALUES (?)", [address]).rowcount:
                self._con.execute(
                    """INSERT OR IGNORE INTO deliveries (address, key, sent_at)
                    SELECT DISTINCT ?, key, 0 FROM deliveries WHERE sent_at > 0""",
                    [address],
                )

    def waiting(self, address: str) -> list[Waiting]:
        """Return what an address has not got yet, in the order in which it happened."""
        rows = self._con.execute(
            """SELECT m.key, cause, kind, title, text, happened_at, kept_at, coalesce(tries, 0)
            FROM messages m LEFT JOIN deliveries d ON d.key = m.key AND d.address = ?
            WHERE sent_at IS NULL ORDER BY happened_at, m.key""",
            [address],
        ).fetchall()
        return [Waiting(Message(*row[:6]), *row[6:]) for row in rows]

    def failures(self, address: str) -> tuple[int, float]:
        """Return how often deliveries to an address failed in a row, and when to try again."""
        query = "SELECT failures, retry_at FROM addresses WHERE id = ?"
        ((failures, retry_at),) = self._con.execute(query, [address]).fetchall()
        return failures, retry_at

    def count_delivered(self, address: str, since: float) -> int:
        """Return how many deliveries to an address count for the limit since a moment."""
        ((number,),) = self._con.execute(
            "SELECT count(DISTINCT counts_as) FROM deliveries WHERE address = ? AND counts_as <> '' "
            "AND sent_at > ?",
            [address, since],
        ).fetchall()
        return int(number)

    def mark_delivered(self, address: str, keys: Iterable[str], sent_at: float, counts_as: str = "") -> None:
        """Write down that messages went to an address together; 0 as the moment: that they never will."""
        with self._con:
            self._con.executemany(
                "INSERT OR REPLACE INTO deliveries (address, key, sent_at, counts_as) VALUES (?, ?, ?, ?)",
                [(address, key, sent_at, counts_as) for key in keys],
            )
            if sent_at:
                self._con.execute("UPDATE addresses SET failures = 0, retry_at = 0 WHERE id = ?", [address])

    def mark_failed(self, address: str, key: str, retry_at: float) -> None:
        """Write down that a message could not be delivered to an address, and when to try again."""
        with self._con:
            self._con.execute(
                """INSERT INTO deliveries (address, key, tries) VALUES (?, ?, 1)
                ON CONFLICT DO UPDATE SET tries = tries + 1""",
                [address, key],
            )
            self._con.execute(
                "UPDATE addresses SET failures = failures + 1, retry_at = ? WHERE id = ?", [retry_at, address]
            )


@contextmanager
def open_store(path: Path) -> Iterator[OutboxStore | None]:
    """Open an outbox for this process alone, and make it when it is missing; None when another has it.

    Raises:
        sqlite3.Error: it is damaged, or the disk is full.
    """
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, timeout=0)) as con:
        try:
            # From the first write on the lock is held until the end.
            con.execute("PRAGMA locking_mode = EXCLUSIVE")
            con.executescript(f"BEGIN EXCLUSIVE; {_TABLES} COMMIT;")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            yield None
            return
        yield OutboxStore(con)
