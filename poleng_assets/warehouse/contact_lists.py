"""Tables ``issued_lists`` and ``contact_lists``: which lists were issued, and who stands on them.

Somebody may have called those people, so no list is ever replaced: one that is made again for a batch gets
the next number, and files of its own beside the earlier ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.writes import insert, monotonic_timestamp

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class IssuedList:
    """One list that was issued.

    Attributes:
        batch: whose people it names.
        number: 1 for the first list of the batch.
        contacts: how many people it named when it was issued.
        remark: of the whole list; empty when there is none.
        file: name of its files, without the suffix; None when they were replaced by an earlier release.
    """

    batch: str
    number: int
    model_version: int
    issued_at: datetime
    contacts: int
    remark: str
    file: str | None

    @property
    def stem(self) -> str:
        """The name of its files, without the suffix."""
        return self.file or file_stem(self.batch, self.number)

    def in_words(self) -> str:
        """Name it: which list of which batch, by which version, how many people, when."""
        return (
            f"list {self.number} of {self.batch} (model version {self.model_version}, {self.contacts} "
            f"contacts, issued {self.issued_at:%Y-%m-%d %H:%M} UTC)"
        )


@dataclass(frozen=True)
class Difference:
    """How the present scores differ from an issued list: people it lacks, and people it has too many."""

    added: int
    dropped: int

    def in_words(self) -> str:
        """Describe it in numbers."""
        return f"{self.added} people more and {self.dropped} fewer"


def file_stem(batch: str, number: int) -> str:
    """Return the name of a list's files without the suffix: ``march``, then ``march (list 2)``."""
    # Blanks and brackets stand in no batch's name, and every file system takes them.
    return batch if number == 1 else f"{batch} (list {number})"


_COLUMNS = "batch, list_number, model_version, issued_at, contacts, remark, file"


def newest_list(con: Connection, batch: str) -> IssuedList | None:
    """Return the newest list of a batch, the one that stands; None when none was issued."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM issued_lists WHERE batch = ? ORDER BY list_number DESC LIMIT 1",  # noqa: S608
        [batch],
    ).fetchall()
    return IssuedList(*rows[0]) if rows else None


def list_in_file(con: Connection, stem: str) -> IssuedList | None:
    """Return the list whose files have this name; None when none was issued under it."""
    # The second: what a release without this table has written since it was made.
    for sql in (
        f"SELECT {_COLUMNS} FROM issued_lists WHERE file = ?",  # noqa: S608
        """SELECT batch, list_number, model_version, created_at, count(*), min(remark), batch
        FROM contact_lists WHERE batch = ? GROUP BY ALL ORDER BY created_at DESC LIMIT 1""",
    ):
        if rows := con.execute(sql, [stem]).fetchall():
            return IssuedList(*rows[0])
    return None


def why_another(con: Connection, issued: IssuedList) -> str:
    """Return what the ledger says that asks for another list of the batch; empty when nothing does.

    That is a rollback which had the batch scored again, or rows that were released into it, since the list
    was issued.
    """
    asked = con.execute(
        """SELECT kind, batch, reason, evidence FROM decisions
        WHERE kind IN ('rollback', 'release') AND decided_at > ? ORDER BY decided_at DESC""",
        [issued.issued_at],
    ).fetchall()
    for kind, batch, reason, evidence in asked:
        if kind == "release" and batch == issued.batch:
            return str(reason)
        if kind == "rollback" and issued.batch in json.loads(evidence).get("score_again", []):
            return str(reason)
    return ""


def list_stands(con: Connection, batch: str) -> bool:
    """Return whether a list of the batch was issued, and nothing in the ledger asks for another one."""
    issued = newest_list(con, batch)
    return issued is not None and not why_another(con, issued)


def difference(con: Connection, study: Study, issued: IssuedList) -> Difference:
    """Compare the people whom the current scores flag with those of an issued list."""
    added, dropped = con.execute(
        f"""WITH flagged AS (
            SELECT "{study.id}" AS person FROM current_predictions WHERE batch = $batch AND contact
        ), listed AS (
            SELECT "{study.id}" AS person FROM contact_lists WHERE batch = $batch AND list_number = $number
        )
        SELECT (SELECT count(*) FROM flagged ANTI JOIN listed USING (person)),
            (SELECT count(*) FROM listed ANTI JOIN flagged USING (person))""",  # noqa: S608
        {"batch": issued.batch, "number": issued.number},
    ).fetchall()[0]
    return Difference(added, dropped)


def is_the_same(con: Connection, study: Study, issued: IssuedList, version: int, remark: str) -> bool:
    """Return whether a list made now, by the current scores, would be the issued one."""
    if (issued.model_version, issued.remark) != (version, remark):
        return False
    ((others,),) = con.execute(
        f"""SELECT count(*) FROM (
            SELECT "{study.id}", score FROM current_predictions WHERE batch = $batch AND contact
        ) made FULL JOIN (
            SELECT "{study.id}", score FROM contact_lists WHERE batch = $batch AND list_number = $number
        ) issued USING ("{study.id}", score)
        WHERE made.score IS NULL OR issued.score IS NULL""",  # noqa: S608
        {"batch": issued.batch, "number": issued.number},
    ).fetchall()
    return others == 0


def issue(con: Connection, new: IssuedList, rows: pd.DataFrame, run_id: str | None = None) -> None:
    """Write down a list and who stands on it; to be called inside a transaction.

    Args:
        new: the list, with a number that no list of the batch has.
        rows: its people: id, ``score``, ``reasons`` (words).
    """
    listed = rows.assign(
        batch=new.batch,
        model_version=new.model_version,
        created_at=new.issued_at,
        remark=new.remark,
        list_number=new.number,
    )
    if len(listed):
        insert(con, "contact_lists", listed)
    con.execute(
        f"INSERT INTO issued_lists ({_COLUMNS}, dagster_run_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [new.batch, new.number, new.model_version, new.issued_at, new.contacts, new.remark, new.file, run_id],
    )


def people_of_list(con: Connection, study: Study, issued: IssuedList) -> pd.DataFrame | None:
    """Return everybody who was scored when a list was issued, to write its files again.

    Returns:
        The id, ``score``, ``contact`` (whether the person stands on the list), ``reasons`` and the features,
        in the order of the batch's file; None when rows of people on the list are not kept any more.
    """
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    people = con.execute(
        f"""SELECT p."{study.id}", p.score, l."{study.id}" IS NOT NULL AS contact,
            coalesce(l.reasons, '') AS reasons, {columns}
        FROM predictions p JOIN batch_rows b USING (batch, "{study.id}")
        LEFT JOIN contact_lists l ON l.batch = p.batch AND l."{study.id}" = p."{study.id}"
            AND l.list_number = $number
        WHERE p.batch = $batch AND p.model_version = $version ORDER BY b.row_number""",  # noqa: S608
        {"batch": issued.batch, "number": issued.number, "version": issued.model_version},
    ).df()
    ((kept,),) = con.execute(
        "SELECT count(*) FROM contact_lists WHERE batch = ? AND list_number = ?",
        [issued.batch, issued.number],
    ).fetchall()
    return people if len(people) and int(people["contact"].sum()) == kept else None


def flagged_or_listed(con: Connection, study: Study, issued: IssuedList) -> set[str]:
    """Return the ids of those whom the version of a list flags, and of those on the list."""
    rows = con.execute(
        f"""SELECT "{study.id}" FROM predictions
        WHERE batch = $batch AND model_version = $version AND contact
        UNION SELECT "{study.id}" FROM contact_lists
        WHERE batch = $batch AND list_number = $number""",  # noqa: S608
        {"batch": issued.batch, "version": issued.model_version, "number": issued.number},
    ).fetchall()
    return {person for (person,) in rows}


def moment_of_issue(con: Connection) -> datetime:
    """Return the moment of a list that is issued now: after every decision and list before it."""
    return max(
        monotonic_timestamp(con, "issued_lists", "issued_at"),
        monotonic_timestamp(con, "decisions", "decided_at"),
    )
