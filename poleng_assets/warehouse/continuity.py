"""Whether the warehouse has all rows that Dagster's event log reports.

DuckDB takes a log whose end is damaged for one that ends there: the last commits are gone without a word, as
they are when an older copy of the file is put in its place. Dagster's events are written after the commits
that they tell of, into other files. How they are read is in ``poleng_assets/defs/continuity.py``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.erasures import newest_erasures

NAMED = 10


@dataclass(frozen=True)
class ReportedWrite:
    """What one event says that the warehouse was given.

    Attributes:
        partition: of the batch, study or file; empty for the champion.
        number: its storage id.
        version: that scored, was reported on or was judged; after a rollback, the one that serves.
        contacts: on a list.
        rolled_back: whether this was a rollback.
        promoted: whether the version that was judged serves since.
        reason: of the decision.
    """

    asset: str
    partition: str
    at: datetime
    number: int
    content_hash: str = ""
    version: int = 0
    contacts: int = 0
    rolled_back: bool = False
    promoted: bool = False
    reason: str = ""

    def in_words(self) -> str:
        """Name what was written down, and when."""
        what = {
            "batches": f"batch {self.partition}",
            "field_studies": f"field study {self.partition}",
            "outcomes": f"outcomes {self.partition}",
            "predictions": f"scores of {self.partition} by version {self.version}",
            "drift_report": f"report of {self.partition} under version {self.version}",
            "contact_list": f"contact list of {self.partition}",
            "champion": f"decision on version {self.version}",
        }[self.asset]
        return f"{what} ({self.at:%Y-%m-%d %H:%M} UTC)"


def settled_until(con: Connection) -> int:
    """Return the storage id up to which a loss is known and was dealt with, 0 when there was none."""
    ((number,),) = con.execute(
        "SELECT max((evidence ->> 'history_until')::BIGINT) FROM decisions WHERE kind = 'recover'"
    ).fetchall()
    return int(number or 0)


def missing(con: Connection, writes: Iterable[ReportedWrite]) -> list[ReportedWrite]:
    """Return the events whose rows the warehouse lacks, oldest first.

    Rows that were erased, by retention or on request, are not missing: only what is kept about a whole file,
    batch or decision is asked for.
    """
    settled = settled_until(con)
    lost = [write for write in writes if write.number > settled and not _IS_THERE[write.asset](con, write)]
    return sorted(lost, key=lambda write: write.number)


def record_loss(con: Connection, lost: Sequence[ReportedWrite], until: int) -> None:
    """Write down that a loss is known, and the promotions among it again; within a transaction.

    Args:
        until: storage id of the newest event that was looked at.
    """
    for write in lost:
        if write.promoted:
            record_decision(
                con,
                "promote",
                f"written down again from Dagster's history: {write.reason}",
                evidence={"lost_event": write.number},
                champion_version=write.version,
                challenger_version=write.version,
            )
    record_decision(
        con,
        "recover",
        f"the warehouse lacked {len(lost)} things that Dagster's history tells of: made again from "
        "the archive, as far as their files are kept",
        evidence={"history_until": until, "lost": [write.in_words() for write in lost]},
    )


def in_words(lost: Iterable[ReportedWrite]) -> str:
    """Name what is missing, the oldest first."""
    names = [write.in_words() for write in lost]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _any(con: Connection, sql: str, *values: object) -> bool:
    return bool(con.execute(f"SELECT 1 WHERE EXISTS ({sql})", list(values)).fetchall())


def _file(con: Connection, write: ReportedWrite) -> bool:
    taken_in = "FROM ingested_files WHERE kind = ? AND name = ? AND content_hash = ?"
    withdrawn = "FROM decisions WHERE kind = 'withdraw' AND contains(reason || evidence::VARCHAR, ?)"
    return _any(con, taken_in, write.asset, write.partition, write.content_hash) or _any(
        con, withdrawn, write.partition
    )


def _scores(con: Connection, write: ReportedWrite) -> bool:
    scored = "FROM predictions WHERE batch = ? AND model_version = ?"
    # Without answers there is nobody to score: they were erased, or the batch itself is missing.
    return (
        _any(con, scored, write.partition, write.version)
        or not _any(con, "FROM batch_rows WHERE batch = ?", write.partition)
        or _erased(con, "predictions", write.partition)
    )


def _report(con: Connection, write: ReportedWrite) -> bool:
    reported = "FROM drift_reports WHERE batch = ? AND model_version = ?"
    return _any(con, reported, write.partition, write.version) or _erased(
        con, "drift_reports", write.partition
    )


def _list(con: Connection, write: ReportedWrite) -> bool:
    return (
        not write.contacts
        or _any(con, "FROM issued_lists WHERE batch = ?", write.partition)
        or _erased(con, "contact_lists", write.partition)
    )


def _decision(con: Connection, write: ReportedWrite) -> bool:
    if write.rolled_back:
        taken_back = "FROM decisions WHERE kind = 'rollback' AND champion_version = ?"
        return _any(con, taken_back, write.version)
    judged = "FROM decisions WHERE kind IN ('promote', 'reject') AND challenger_version = ?"
    return _any(con, judged, write.version)


def _erased(con: Connection, table: str, name: str) -> bool:
    return name in newest_erasures(con, table)


_IS_THERE = {
    "batches": _file,
    "field_studies": _file,
    "outcomes": _file,
    "predictions": _scores,
    "drift_report": _report,
    "contact_list": _list,
    "champion": _decision,
}
ASSETS = tuple(_IS_THERE)
