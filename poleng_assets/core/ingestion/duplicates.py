"""Overlaps of a file with earlier files: duplicate rows and the same people.

Bytes tell little: another name, format, order of rows or columns, another spelling of codes, a column more
make other bytes of the same people. So rows are compared as the warehouse has them. A file whose rows all
stand in an earlier one is no news and is refused; of one that shares some, it is said which and how many.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.subject_ids import plain_id
from poleng_assets.core.data.versions import name_and_number
from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse import overlaps
from poleng_assets.warehouse.files import FileRecord, earlier_files, file_records, update_file
from poleng_assets.warehouse.holdout import count_set_aside
from poleng_assets.warehouse.outcomes import count_contradicted_since
from poleng_assets.warehouse.people import count_rows
from poleng_assets.warehouse.quarantine import broken_payloads, source_of

# Rows of earlier files, the newest first, whose answers are compared with those of a new one. Ids are
# compared with all of them: they take a thirtieth of the time.
ROWS_LOOKED_BACK = 2_000_000
_FILES_NAMED = 3


@dataclass(frozen=True)
class Share:
    """What a file has in common with one earlier file.

    Attributes:
        people: whose id stands in both.
        same_answers: of them, those who gave the same answers (of outcomes, have the same label).
        under_other_ids: people who gave the very answers of somebody of the earlier file, under another id;
            0 where answers do not tell people apart, unless all of them are the same.
    """

    name: str
    people: int
    same_answers: int
    under_other_ids: int = 0

    def in_words(self, rows: int) -> str:
        """Describe it for a file of so many rows."""
        parts = []
        if self.people:
            parts.append(
                f"{self.people:,} of {rows:,} people are in {self.name} too "
                f"({_as_many(self.same_answers, self.people)} the same answers)"
            )
        if self.under_other_ids:
            parts.append(
                f"{self.under_other_ids:,} of {rows:,} people answer the same as people of {self.name}, "
                "under different ids"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class Shared:
    """What a file has in common with all earlier files of its kind.

    Attributes:
        rows: of the file that are kept.
        people: who stand in any earlier file, each counted once.
        same_answers: who stand in one with the same answers, each counted once.
        listed: who stand on a contact list that was issued for an earlier batch.
        set_aside: rows of a field study that no model learns from or is judged by: they stand in an earlier
            one, or their likes stand on both sides.
        files: earlier files that share something, those that share most first.
    """

    rows: int
    people: int
    same_answers: int
    listed: int
    set_aside: int
    files: tuple[Share, ...]

    @property
    def under_other_ids(self) -> int:
        """The most people whose answers stand in one earlier file under other ids."""
        return max((share.under_other_ids for share in self.files), default=0)

    @property
    def repeats(self) -> bool:
        """Return whether answers came again, or somebody is listed already: then a person should know."""
        return bool(self.same_answers or self.under_other_ids or self.listed)

    def in_words(self) -> str:
        """Describe it in one line; empty when all is new."""
        parts = [share.in_words(self.rows) for share in self.files[:_FILES_NAMED]]
        if len(self.files) > _FILES_NAMED:
            parts.append(f"{len(self.files) - _FILES_NAMED:,} more files share people with it")
        if self.listed:
            parts.append(f"{self.listed:,} of its people are on a contact list already")
        if self.set_aside:
            parts.append(f"{self.set_aside:,} rows are skipped: neither trained on nor held out")
        return "; ".join(parts)


def refuse_if_known(con: Connection, study: Study, kind: Kind, name: str) -> str:
    """Refuse a file whose rows all came with an earlier one; else return the fingerprint to keep.

    To be called inside the transaction that inserted the rows, once those that are not kept are gone.

    Returns:
        A text that is the same for the same rows in any order, see :func:`fingerprint`.

    Raises:
        FileRefused: an earlier file has the same rows; of field studies, also the same under other ids.
    """
    own = fingerprint(con, study, kind, name)
    if not own.rows:
        return own.text
    for record in file_records(con, kind):
        other, when = record.name, record.ingested_at
        if record.rows_kept != own.rows or other == name:
            continue
        earlier = Fingerprint.parse(record.rows_fingerprint, study, own.rows, record.rows_erased)
        if earlier is None:
            # Of an earlier release, or rows were released or erased since.
            earlier = fingerprint(con, study, kind, other)
            update_file(con, kind, other, rows_fingerprint=earlier.text)
        if earlier.by_id == own.by_id and not _news_in_quarantine(
            con, study, kind, name, other, record.rows_erased
        ):
            raise FileRefused(_known_words(con, study, kind, name, other, when, own.rows))
        alike = earlier.by_answers == own.by_answers and own.rows >= study.policies.ingestion.min_same_rows
        if kind == "field_studies" and alike and name_and_number(other)[0] != name_and_number(name)[0]:
            raise FileRefused(
                f"its {own.rows:,} rows are those of the field study {other!r}, ingested on "
                f"{when:%Y-%m-%d %H:%M} UTC, with the same answers and targets under different ids. "
                "Nobody is used for training twice. To correct the ids, drop this file under the name "
                f"of the first ({name_and_number(other)[0]}): it then replaces it"
            )
    return own.text


@dataclass(frozen=True)
class Fingerprint:
    """Sums of the hashes of rows: the same for the same rows in any order.

    Attributes:
        by_id: of ids and answers.
        by_answers: of the answers alone.
        text: all of it, with what it was made by: kept in ``ingested_files.rows_fingerprint``.
    """

    rows: int
    by_id: str
    by_answers: str
    text: str

    @classmethod
    def parse(cls, text: str | None, study: Study, rows: int, erased: int) -> Fingerprint | None:
        """Return one that was kept; None when it is of other rows, or was made in another way."""
        made, _, sums = (text or "").partition(" ")
        if made != _made_by(study, rows, erased):
            return None
        by_id, by_answers = sums.split()
        return cls(rows, by_id, by_answers, str(text))


def _made_by(study: Study, rows: int, erased: int) -> str:
    """Name what a fingerprint hangs on besides the rows: DuckDB's hash, the questions, who was erased."""
    return f"{duckdb.__version__}/{len(study.features)}/{rows}/{erased}"


def fingerprint(con: Connection, study: Study, kind: Kind, name: str) -> Fingerprint:
    """Return the fingerprint of the rows that the warehouse has of a file."""
    rows, *sums = overlaps.sum_row_hashes(con, study, kind, name)
    erased = sum(record.rows_erased for record in file_records(con, kind) if record.name == name)
    by_id, by_answers = (f"{total:x}-{parity:x}" for total, parity in sums)
    return Fingerprint(rows, by_id, by_answers, f"{_made_by(study, rows, erased)} {by_id} {by_answers}")


def _known_words(
    con: Connection, study: Study, kind: Kind, name: str, other: str, when: datetime, rows: int
) -> str:
    same_name = name_and_number(name)[0] == name_and_number(other)[0]
    message = (
        f"the same {rows:,} row{'s' if rows > 1 else ''} were ingested as {other!r} on {when:%Y-%m-%d %H:%M} "
        f"UTC, {'' if same_name else 'under another name, '}perhaps in another order or format; "
        "they are not ingested twice"
    )
    if kind == "outcomes":
        changed = count_contradicted_since(con, study, name, when)
        if changed:
            message += (
                f". Later files have different outcomes for {changed:,} of them: if this file is right, "
                "drop a file with those people only"
            )
    return message


def _news_in_quarantine(
    con: Connection, study: Study, kind: Kind, name: str, other: str, erased: int
) -> bool:
    """Return whether a file has broken rows that the earlier one has not.

    When rows of the earlier one were erased since, nobody can say, and the rows that are kept decide.
    """
    own, earlier = (_broken_rows(con, study, kind, file) for file in (name, other))
    return bool(own - earlier) and not erased


def _broken_rows(con: Connection, study: Study, kind: Kind, name: str) -> Counter[str]:
    """Count the rows of a file in quarantine by what they hold, however its format writes that.

    Rows that stand there because another one of the same person counts are no news.
    """
    return Counter(
        json.dumps({column: _plain(value, column == study.id) for column, value in sorted(cells.items())})
        for payload in broken_payloads(con, source_of(kind, name))
        for cells in [dict(json.loads(payload))]
    )


def _plain(value: Any, is_id: bool) -> str:
    """Return a cell as text, whatever its type was: 20.0, "20" and "020" are one code, no answer is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = plain_id(str(value))
    return str(int(text)) if not is_id and text.isascii() and text.isdigit() else text


def set_aside_repeats(con: Connection, study: Study, name: str) -> int:
    """Set the rows of a field study aside that an earlier one has: nobody is learned from or held out twice.

    These are rows of the same id, answers and target; and, where answers tell people apart and many of the
    file come again so, rows of the same answers and target under another id. A field study whose place
    another version of this one takes is not asked: its rows are learned from here.
    To be called inside the transaction that inserted the rows, before the holdout is drawn.

    Args:
        name: of the field study that was inserted last.

    Returns:
        How many rows were set aside.
    """
    others = [record.name for record in earlier_files(con, "field_studies", name)]
    others = [other for other in others if not _same_name(other, name)]
    superseded = {
        other
        for other in others
        if any(_same_name(other, newer) and _older(other, newer) for newer in others)
    }
    asked = [other for other in others if other not in superseded]
    if not asked:
        return 0
    renamed_share = study.policies.ingestion.renamed_share
    rows = count_rows(con, "field_studies", name)
    shares = _shares(con, study, "field_studies", name, asked)
    renamed = {share.name for share in shares if share.under_other_ids >= renamed_share * rows}
    return overlaps.set_common_rows_aside(
        con, study, name, asked, [other for other in asked if other in renamed]
    )


def shared_with_earlier(con: Connection, study: Study, kind: Kind, name: str) -> Shared:
    """Return what a file that was taken in shares with those that were taken in before it."""
    earlier = [record.name for record in earlier_files(con, kind, name)]
    shares = _shares(con, study, kind, name, earlier) if earlier else []
    with_people = [share.name for share in shares if share.people]
    people, same = overlaps.count_known_people(con, study, kind, name, with_people) if with_people else (0, 0)
    return Shared(
        rows=count_rows(con, kind, name),
        people=people,
        same_answers=same,
        listed=overlaps.count_listed_people(con, study, name, earlier) if kind == "batches" else 0,
        set_aside=count_set_aside(con, name) if kind == "field_studies" else 0,
        files=tuple(shares),
    )


def _same_name(name: str, other: str) -> bool:
    return name_and_number(name)[0] == name_and_number(other)[0]


def _older(name: str, other: str) -> bool:
    return name_and_number(name)[1] < name_and_number(other)[1]


def _shares(con: Connection, study: Study, kind: Kind, name: str, earlier: Sequence[str]) -> list[Share]:
    """Return the earlier files that share people or answers with a file, those that share most first."""
    people = overlaps.count_common_rows(con, study, kind, name, earlier, same_answers=False)
    same = (
        overlaps.count_common_rows(con, study, kind, name, list(people), same_answers=True) if people else {}
    )
    alike = {} if kind == "outcomes" else _under_other_ids(con, study, kind, name, earlier)
    shares = [
        Share(other, people.get(other, 0), same.get(other, 0), alike.get(other, 0))
        for other in earlier
        if other in people or other in alike
    ]
    return sorted(shares, key=lambda share: -(share.people + share.under_other_ids))


def _under_other_ids(
    con: Connection, study: Study, kind: Kind, name: str, earlier: Sequence[str]
) -> dict[str, int]:
    """Count for earlier files the people of a file who answer exactly as somebody else there does.

    Where many people answer alike, that says nothing; only a file whose answers are all the same, each as
    often, is one that was exported with other ids.
    """
    rows, different = overlaps.count_different_answers(con, study, kind, name)
    policy = study.policies.ingestion
    if rows < policy.min_alike:
        return {}
    records = [record for record in file_records(con, kind) if record.name in set(earlier)]
    if different < policy.distinct_share * rows:
        enough = rows >= policy.min_same_rows
        return dict.fromkeys(_renamed_copies(con, study, kind, name, records), rows) if enough else {}
    looked_at: list[str] = []
    total = 0
    for record in records:
        total += record.rows_kept
        if looked_at and total > ROWS_LOOKED_BACK:
            break
        looked_at.append(record.name)
    counts = overlaps.count_same_answers_under_other_ids(con, study, kind, name, looked_at)
    least = max(policy.min_alike, policy.min_alike_share * rows)
    return {other: count for other, count in counts.items() if count >= least}


def _renamed_copies(
    con: Connection, study: Study, kind: Kind, name: str, records: Sequence[FileRecord]
) -> list[str]:
    """Return the files whose answers are those of a file, each as often, under other ids."""
    own = fingerprint(con, study, kind, name)
    kept = {
        record.name: Fingerprint.parse(record.rows_fingerprint, study, own.rows, record.rows_erased)
        for record in records
        if record.rows_kept == own.rows
    }
    return [
        other
        for other, earlier in kept.items()
        if earlier is not None and earlier.by_answers == own.by_answers and earlier.by_id != own.by_id
    ]


def _as_many(some: int, all_: int) -> str:
    if some == all_:
        return "with"
    return f"{some:,} of them with" if some else "none with"
