"""What a file shares with those that came before: the same rows exported again, and the same people.

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

from poleng_assets.core.data.subject_ids import plain_id
from poleng_assets.core.data.versions import name_and_number
from poleng_assets.core.ingestion.contract import FileRefused, required_columns
from poleng_assets.core.ingestion.outcome_matches import EARLIER_ROW, LATER_ROW
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES

# Rows of earlier files, the newest first, whose answers are compared with those of a new one. Ids are
# compared with all of them: they take a thirtieth of the time.
ROWS_LOOKED_BACK = 2_000_000
_FILES_NAMED = 3


@dataclass(frozen=True)
class Share:
    """What a file has in common with one earlier file.

    Attributes:
        name: of the earlier one.
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
        """Tell it of a file of so many rows."""
        words = []
        if self.people:
            words.append(
                f"{self.people:,} of {rows:,} people stand in {self.name} as well "
                f"({_as_many(self.same_answers, self.people)} the same answers)"
            )
        if self.under_other_ids:
            words.append(
                f"{self.under_other_ids:,} of {rows:,} people answer exactly as people of {self.name} do, "
                "under other ids"
            )
        return "; ".join(words)


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
        return max((one.under_other_ids for one in self.files), default=0)

    @property
    def repeats(self) -> bool:
        """Whether answers came again, or somebody is listed already: then a person should know."""
        return bool(self.same_answers or self.under_other_ids or self.listed)

    def in_words(self) -> str:
        """Tell it in one line; empty when all is new."""
        words = [one.in_words(self.rows) for one in self.files[:_FILES_NAMED]]
        if len(self.files) > _FILES_NAMED:
            words.append(f"{len(self.files) - _FILES_NAMED:,} more files share people with it")
        if self.listed:
            words.append(f"{self.listed:,} of its people are on a contact list already")
        if self.set_aside:
            words.append(f"{self.set_aside:,} rows are set aside: neither learned from nor held out")
        return "; ".join(words)


def refuse_if_known(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> str:
    """Refuse a file whose rows all came with an earlier one; else return the fingerprint to keep.

    To be called inside the transaction that inserted the rows, once those that are not kept are gone.

    Args:
        con: of the warehouse.
        study: names the columns.
        kind: of the file.
        name: the id that it was inserted under.

    Returns:
        A text that is the same for the same rows in any order, see :func:`fingerprint`.

    Raises:
        FileRefused: an earlier file has the same rows; of field studies, also the same under other ids.
    """
    mine = fingerprint(con, study, kind, name)
    if not mine.rows:
        return mine.text
    earlier = con.execute(
        """SELECT name, ingested_at, rows_fingerprint, coalesce(rows_erased, 0) FROM ingested_files
        WHERE kind = ? AND rows_kept = ? AND name <> ? ORDER BY ingested_at DESC, name""",
        [kind, mine.rows, name],
    ).fetchall()
    for other, when, kept, erased in earlier:
        theirs = _Fingerprint.parse(kept, study, mine.rows, erased)
        if theirs is None:
            # Of an earlier release, or rows were put back or erased since.
            theirs = fingerprint(con, study, kind, other)
            con.execute(
                "UPDATE ingested_files SET rows_fingerprint = ? WHERE kind = ? AND name = ?",
                [theirs.text, kind, other],
            )
        if theirs.by_id == mine.by_id and not _news_in_quarantine(con, study, kind, name, other, erased):
            raise FileRefused(_known_words(con, study, kind, name, other, when, mine.rows))
        alike = theirs.by_answers == mine.by_answers and mine.rows >= study.policies.ingestion.min_same_rows
        if kind == "field_studies" and alike and name_and_number(other)[0] != name_and_number(name)[0]:
            raise FileRefused(
                f"its {mine.rows:,} rows are those of the field study {other!r}, taken in on "
                f"{when:%Y-%m-%d %H:%M} UTC, under other ids: the same answers and targets, each as often. "
                "Nobody is learned from twice. If the ids were wrong before, drop this file under the name "
                f"of the first ({name_and_number(other)[0]}): it then takes its place"
            )
    return mine.text


@dataclass(frozen=True)
class _Fingerprint:
    """Sums of the hashes of rows: the same for the same rows in any order.

    Attributes:
        rows: how many there are.
        by_id: of ids and answers.
        by_answers: of the answers alone.
        text: all of it, with what it was made by: kept in ``ingested_files.rows_fingerprint``.
    """

    rows: int
    by_id: str
    by_answers: str
    text: str

    @classmethod
    def parse(cls, text: str | None, study: Study, rows: int, erased: int) -> _Fingerprint | None:
        """Return one that was kept; None when it is of other rows, or was made in another way."""
        made, _, sums = (text or "").partition(" ")
        if made != _made_by(study, rows, erased):
            return None
        by_id, by_answers = sums.split()
        return cls(rows, by_id, by_answers, str(text))


def _made_by(study: Study, rows: int, erased: int) -> str:
    """Name what a fingerprint hangs on besides the rows: DuckDB's hash, the questions, who was erased."""
    return f"{duckdb.__version__}/{len(study.features)}/{rows}/{erased}"


def fingerprint(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> _Fingerprint:
    """Return the fingerprint of the rows that the warehouse has of a file.

    A row is its id and its answers (of outcomes, its label), as the warehouse has them. Sums and exclusive
    ors of 64-bit hashes of all rows are equal for the same rows, and for others as good as never.
    """
    table, key = ROW_TABLES[kind]
    answers = _listed(_answers(study, kind))
    found = con.execute(
        f"""WITH _hashed AS (
            SELECT hash("{study.id}", {answers}) AS _row, hash({answers}) AS _said
            FROM {table} WHERE {key} = ?
        ) SELECT count(*), sum(_row::HUGEINT), bit_xor(_row), sum(_said::HUGEINT), bit_xor(_said)
        FROM _hashed""",  # noqa: S608
        [name],
    ).fetchall()
    rows, *sums = found[0]
    erased = con.execute(
        "SELECT coalesce(rows_erased, 0) FROM ingested_files WHERE kind = ? AND name = ?", [kind, name]
    ).fetchall()
    by_id, by_answers = (f"{sums[i] or 0:x}-{sums[i + 1] or 0:x}" for i in (0, 2))
    made = _made_by(study, rows, erased[0][0] if erased else 0)
    return _Fingerprint(rows, by_id, by_answers, f"{made} {by_id} {by_answers}")


def _answers(study: Study, kind: Kind) -> list[str]:
    return [column for column in required_columns(study, kind) if column != study.id]


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _known_words(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    kind: Kind,
    name: str,
    other: str,
    when: datetime,
    rows: int,
) -> str:
    same_name = name_and_number(name)[0] == name_and_number(other)[0]
    words = (
        f"the same {rows:,} row{'s' if rows > 1 else ''} were taken in as {other!r} on {when:%Y-%m-%d %H:%M} "
        f"UTC, {'' if same_name else 'under another name, '}perhaps in another order or format; "
        "they are not taken in twice"
    )
    if kind == "outcomes":
        changed = con.execute(
            f"""SELECT count(*) FROM outcomes mine WHERE mine.source = $name AND EXISTS (
                SELECT 1 FROM outcomes newer
                JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = newer.source
                WHERE newer."{study.id}" = mine."{study.id}" AND f.ingested_at > $when
                AND newer."{study.target.name}" <> mine."{study.target.name}")""",  # noqa: S608
            {"name": name, "when": when},
        ).fetchall()[0][0]
        if changed:
            words += (
                f". Later files say otherwise of {changed:,} of these people: if this one is right "
                "after all, drop a file with those people alone"
            )
    return words


def _news_in_quarantine(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, other: str, erased: int
) -> bool:
    """Whether a file has broken rows that the earlier one has not.

    When rows of the earlier one were erased since, nobody can say, and the rows that are kept decide.
    """
    mine, theirs = (_broken_rows(con, study, kind, one) for one in (name, other))
    return bool(mine - theirs) and not erased


def _broken_rows(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> Counter[str]:
    """Count the rows of a file in quarantine by what they hold, however its format writes that.

    Rows that stand there because another one of the same person counts are no news.
    """
    found = con.execute(
        f"""SELECT any_value(payload) FROM quarantine WHERE source = ?
        AND reason NOT IN ('{EARLIER_ROW}', '{LATER_ROW}') GROUP BY row_number""",  # noqa: S608
        [f"{kind}/{name}"],
    ).fetchall()
    return Counter(
        json.dumps({column: _plain(value, column == study.id) for column, value in sorted(cells.items())})
        for (payload,) in found
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


def set_aside_repeats(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> int:
    """Set the rows of a field study aside that an earlier one has: nobody is learned from or held out twice.

    These are rows of the same id, answers and target; and, where answers tell people apart and many of the
    file come again so, rows of the same answers and target under another id. A field study whose place
    another version of this one takes is not asked: its rows are learned from here.
    To be called inside the transaction that inserted the rows, before the holdout is drawn.

    Args:
        con: of the warehouse.
        study: names the id and the columns.
        name: of the field study that was inserted last.

    Returns:
        How many rows were set aside.
    """
    others = [other for other in _earlier(con, "field_studies", name) if not _same_name(other, name)]
    superseded = {
        other for other in others if any(_same_name(other, one) and _older(other, one) for one in others)
    }
    asked = [other for other in others if other not in superseded]
    if not asked:
        return 0
    answers = _listed(_answers(study, "field_studies"))
    parameters: dict[str, Any] = {"name": name, "asked": asked}
    told = {one.name: one for one in _shares(con, study, "field_studies", name, asked)}
    ((rows,),) = con.execute("SELECT count(*) FROM field_study_rows WHERE field_study = ?", [name]).fetchall()
    renamed = study.policies.ingestion.renamed_share
    by_answers = [other for other, one in told.items() if one.under_other_ids >= renamed * rows]
    conditions = [
        f"""hash("{study.id}", {answers}) IN (SELECT hash("{study.id}", {answers}) FROM field_study_rows
            WHERE field_study IN (SELECT unnest($asked::VARCHAR[])) AND part <> 'set_aside')"""  # noqa: S608
    ]
    if by_answers:
        parameters["by_answers"] = by_answers
        conditions.append(
            f"""hash({answers}) IN (SELECT hash({answers}) FROM field_study_rows
            WHERE field_study IN (SELECT unnest($by_answers::VARCHAR[])) AND part <> 'set_aside')"""  # noqa: S608
        )
    ((aside,),) = con.execute(
        f"""UPDATE field_study_rows SET part = 'set_aside'
        WHERE field_study = $name AND ({" OR ".join(conditions)})""",  # noqa: S608
        parameters,
    ).fetchall()
    return int(aside)


def shared_with_earlier(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> Shared:
    """Return what a file that was taken in shares with those that were taken in before it.

    Args:
        con: of the warehouse.
        study: names the columns.
        kind: of the file.
        name: the id that it was taken in under.
    """
    table, key = ROW_TABLES[kind]
    earlier = _earlier(con, kind, name)
    shares = _shares(con, study, kind, name, earlier) if earlier else []
    answers = _listed(_answers(study, kind))
    ((rows,),) = con.execute(f"SELECT count(*) FROM {table} WHERE {key} = ?", [name]).fetchall()  # noqa: S608
    people = same = listed = aside = 0
    if with_people := [one.name for one in shares if one.people]:
        among = f"{key} IN (SELECT unnest($earlier::VARCHAR[]))"
        ((people, same),) = con.execute(
            f"""SELECT count(*) FILTER (hash("{study.id}") IN (
                    SELECT hash("{study.id}") FROM {table} WHERE {among})),
                count(*) FILTER (hash("{study.id}", {answers}) IN (
                    SELECT hash("{study.id}", {answers}) FROM {table} WHERE {among}))
            FROM {table} WHERE {key} = $name""",  # noqa: S608
            {"name": name, "earlier": with_people},
        ).fetchall()
    if kind == "batches":
        ((listed,),) = con.execute(
            f"""SELECT count(DISTINCT l."{study.id}") FROM contact_lists l
            WHERE l.batch IN (SELECT unnest($earlier::VARCHAR[]))
            AND l."{study.id}" IN (SELECT "{study.id}" FROM batch_rows WHERE batch = $name)""",  # noqa: S608
            {"name": name, "earlier": earlier},
        ).fetchall()
    if kind == "field_studies":
        ((aside,),) = con.execute(
            "SELECT count(*) FROM field_study_rows WHERE field_study = ? AND part = 'set_aside'", [name]
        ).fetchall()
    return Shared(rows, people, same, listed, aside, tuple(shares))


def _earlier(con: duckdb.DuckDBPyConnection, kind: Kind, name: str) -> list[str]:
    """Return the files of a kind that were taken in before one, or before now, the newest first."""
    found = con.execute(
        """SELECT name FROM ingested_files WHERE kind = $kind AND name <> $name AND ingested_at < coalesce(
            (SELECT ingested_at FROM ingested_files WHERE kind = $kind AND name = $name),
            'infinity'::TIMESTAMPTZ)
        ORDER BY ingested_at DESC, name""",
        {"kind": kind, "name": name},
    ).fetchall()
    return [other for (other,) in found]


def _same_name(one: str, other: str) -> bool:
    return name_and_number(one)[0] == name_and_number(other)[0]


def _older(one: str, other: str) -> bool:
    return name_and_number(one)[1] < name_and_number(other)[1]


def _shares(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, earlier: Sequence[str]
) -> list[Share]:
    """Return the earlier files that share people or answers with a file, those that share most first."""
    people = _in_both(con, kind, name, earlier, f'hash("{study.id}")')
    answered = f'hash("{study.id}", {_listed(_answers(study, kind))})'
    same = _in_both(con, kind, name, list(people), answered) if people else {}
    alike = {} if kind == "outcomes" else _under_other_ids(con, study, kind, name, earlier)
    shares = [
        Share(other, people.get(other, 0), same.get(other, 0), alike.get(other, 0))
        for other in earlier
        if other in people or other in alike
    ]
    return sorted(shares, key=lambda one: -(one.people + one.under_other_ids))


def _in_both(
    con: duckdb.DuckDBPyConnection, kind: Kind, name: str, earlier: Sequence[str], hashed: str
) -> dict[str, int]:
    """Count for each earlier file its rows whose hash is that of a row of a file."""
    table, key = ROW_TABLES[kind]
    counted = con.execute(
        f"""SELECT {key}, count(*) FROM {table} WHERE {key} IN (SELECT unnest($earlier::VARCHAR[]))
        AND {hashed} IN (SELECT {hashed} FROM {table} WHERE {key} = $name) GROUP BY {key}""",  # noqa: S608
        {"name": name, "earlier": list(earlier)},
    ).fetchall()
    return dict(counted)


def _under_other_ids(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, earlier: Sequence[str]
) -> dict[str, int]:
    """Count for earlier files the people of a file who answer exactly as somebody else there does.

    Where many people answer alike, that says nothing; only a file whose answers are all the same, each as
    often, is one that was exported with other ids.
    """
    table, key = ROW_TABLES[kind]
    said = f"hash({_listed(_answers(study, kind))})"
    ((rows, different),) = con.execute(
        f"SELECT count(*), count(DISTINCT {said}) FROM {table} WHERE {key} = ?",  # noqa: S608
        [name],
    ).fetchall()
    policy = study.policies.ingestion
    if rows < policy.min_alike:
        return {}
    sizes = con.execute(
        """SELECT name, rows_kept, rows_fingerprint, coalesce(rows_erased, 0) FROM ingested_files
        WHERE kind = ? AND name IN (SELECT unnest(?::VARCHAR[])) ORDER BY ingested_at DESC, name""",
        [kind, list(earlier)],
    ).fetchall()
    if different < policy.telling_share * rows:
        mine = fingerprint(con, study, kind, name)
        same = {
            other: rows
            for other, kept, text, erased in sizes
            if kept == rows
            and (theirs := _Fingerprint.parse(text, study, kept, erased)) is not None
            and theirs.by_answers == mine.by_answers
            and theirs.by_id != mine.by_id
        }
        return same if rows >= policy.min_same_rows else {}
    looked_at: list[str] = []
    total = 0
    for other, kept, _, _ in sizes:
        total += kept
        if looked_at and total > ROWS_LOOKED_BACK:
            break
        looked_at.append(other)
    found = con.execute(
        f"""WITH _mine AS (SELECT {said} AS _said, "{study.id}" AS _id FROM {table} WHERE {key} = $name)
        SELECT _file, count(DISTINCT _id) FROM (
            SELECT _mine._id AS _id, theirs.{key} AS _file, theirs."{study.id}" AS _other
            FROM {table} theirs JOIN _mine ON _mine._said = {said}
            WHERE theirs.{key} IN (SELECT unnest($looked_at::VARCHAR[]))
        ) WHERE _id <> _other GROUP BY _file""",  # noqa: S608
        {"name": name, "looked_at": looked_at},
    ).fetchall()
    least = max(policy.min_alike, policy.min_alike_share * rows)
    return {other: count for other, count in found if count >= least}


def _as_many(some: int, all_: int) -> str:
    if some == all_:
        return "with"
    return f"{some:,} of them with" if some else "none with"
