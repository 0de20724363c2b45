"""What a file of outcomes met: who of its people stands in a batch, who in none, and what it changed.

A file that meets nobody is the commonest accident: a spreadsheet has made ``123`` of ``000123``. It is
refused where that can be told; where the batch may only come later it is kept, and that is said loudly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from poleng_assets.core.data.subject_ids import EXAMPLES, Strangers, known_ids, near_spellings, shown
from poleng_assets.core.data.versions import name_and_number
from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.study.schema import Study

# Why a row is in quarantine beside which another one of the same person counts: of batches and field studies
# the first, of outcomes the last.
EARLIER_ROW = "the id stands in an earlier row"
LATER_ROW = "a later row of the same person counts"


@dataclass(frozen=True)
class Met:
    """What a file of outcomes met.

    Attributes:
        read: rows of the file.
        people: whose outcome is kept, each once.
        matched: of them, those who stand in a batch.
        corrected: people whose outcome is another one now than it was: in an earlier file, or in an earlier
            row of this one.
        conflicting: people of whom this one file says different things; the last row counts.
        repeated: rows that a later row of the same person replaced, whether it says the same or not.
        known_before: people of whom an earlier file says the same already.
        in_several_batches: people who stand in more than one batch: the outcome counts in each.
        batches: in which they stand, by name.
        strangers: those who stand in no batch, and which of them are known in another spelling.
    """

    read: int
    people: int
    matched: int
    corrected: int
    conflicting: int
    repeated: int
    known_before: int
    in_several_batches: int
    batches: tuple[str, ...]
    strangers: Strangers

    @property
    def unknown(self) -> int:
        """People who stand in no batch, or in none so far."""
        return self.people - self.matched

    @property
    def in_order(self) -> bool:
        """Whether somebody was met, and nobody seems to be spelled otherwise."""
        return self.matched > 0 and not self.strangers.alike

    def in_words(self) -> str:
        """Tell it in one line, what is wrong first."""
        words = [f"{self.read:,} rows read", f"{self.matched:,} of {self.people:,} people matched"]
        if not self.matched:
            words[1] = f"NONE of {self.people:,} people stands in a batch so far, so no score is compared"
        elif self.unknown:
            words.append(f"{self.unknown:,} unknown (in no batch)")
        if self.corrected:
            words.append(f"{self.corrected:,} corrected")
        if self.conflicting:
            words.append(f"{self.conflicting:,} conflicting within the file (the last row counts)")
        if self.known_before:
            words.append(f"{self.known_before:,} known before")
        if self.in_several_batches:
            words.append(f"{self.in_several_batches:,} stand in several batches")
        return ", ".join(words) + (f". Of the unknown, {near}" if (near := self.strangers.in_words()) else "")


def outcomes_met(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> Met:
    """Return what a file of outcomes met that was taken in.

    Args:
        con: of the warehouse.
        study: names the id and the target.
        name: the id that the file was taken in under.
    """
    id_, target = f'"{study.id}"', f'"{study.target.name}"'
    ((read,),) = con.execute(
        "SELECT coalesce(max(rows_read), 0) FROM ingested_files WHERE kind = 'outcomes' AND name = ?", [name]
    ).fetchall()
    ((people, matched, several),) = con.execute(
        f"""WITH {_IN_BATCHES.format(id=id_)}
        SELECT count(*), count(_batches), count(*) FILTER (_batches > 1)
        FROM outcomes o LEFT JOIN (SELECT _person, count(*) AS _batches FROM _seen GROUP BY _person) seen
            ON seen._person = o.{id_}
        WHERE source = $name""",  # noqa: S608
        {"name": name},
    ).fetchall()
    batches = con.execute(
        f"WITH {_IN_BATCHES.format(id=id_)} SELECT DISTINCT batch FROM _seen ORDER BY batch",  # noqa: S608
        {"name": name},
    ).fetchall()
    ((repeated, conflicting, corrected, known),) = con.execute(
        f"""WITH replaced AS (
            SELECT payload->>'$.{id_}' AS _person, (payload->>'$.{target}')::INTEGER AS _label
            FROM quarantine WHERE source = 'outcomes/' || $name AND reason = $later
        ), mine AS (SELECT {id_} AS _person, {target} AS _label FROM outcomes WHERE source = $name
        ), before AS (
            SELECT o.{id_} AS _person, arg_max(o.{target}, f.ingested_at) AS _label
            FROM outcomes o JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = o.source
            WHERE o.source <> $name AND f.ingested_at < coalesce(
                (SELECT ingested_at FROM ingested_files WHERE kind = 'outcomes' AND name = $name),
                'infinity'::TIMESTAMPTZ)
            GROUP BY o.{id_}
        ), within AS (
            SELECT DISTINCT _person FROM replaced JOIN mine USING (_person)
            WHERE replaced._label <> mine._label
        ), otherwise AS (
            SELECT _person FROM before JOIN mine USING (_person) WHERE before._label <> mine._label)
        SELECT (SELECT count(*) FROM replaced), (SELECT count(*) FROM within),
            (SELECT count(*) FROM (FROM within UNION FROM otherwise)),
            (SELECT count(*) FROM before JOIN mine USING (_person) WHERE before._label = mine._label)""",  # noqa: S608
        {"name": name, "later": LATER_ROW},
    ).fetchall()
    strangers = _strangers(con, study, name) if people > matched else Strangers(0, 0, ())
    return Met(
        read=int(read),
        people=int(people),
        matched=int(matched),
        corrected=int(corrected),
        conflicting=int(conflicting),
        repeated=int(repeated),
        known_before=int(known),
        in_several_batches=int(several),
        batches=tuple(batch for (batch,) in batches),
        strangers=strangers,
    )


# Scores are kept as long as answers at least: who was scored stood in a batch.
_IN_BATCHES = """_seen AS (
    SELECT {id} AS _person, batch FROM batch_rows WHERE {id} IN (
        SELECT {id} FROM outcomes WHERE source = $name)
    UNION SELECT {id}, batch FROM predictions WHERE {id} IN (
        SELECT {id} FROM outcomes WHERE source = $name))"""


def refuse_if_nobody_is_met(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> None:
    """Refuse a file of outcomes none of whose people stands in a batch, unless its batch may come later.

    That is so when the file is not named after a batch that is there, and its ids are not known in another
    spelling. To be called inside the transaction that inserted the rows.

    Raises:
        FileRefused: with examples of how ids are spelled here, and in the batches.
    """
    id_ = f'"{study.id}"'
    ((people, matched),) = con.execute(
        f"""WITH {_IN_BATCHES.format(id=id_)}
        SELECT count(*), count(*) FILTER (o.{id_} IN (SELECT _person FROM _seen))
        FROM outcomes o WHERE source = $name""",  # noqa: S608
        {"name": name},
    ).fetchall()
    if matched or not people:
        return
    strangers = _strangers(con, study, name)
    if strangers.alike >= study.policies.ingestion.other_spelling_share * strangers.ids:
        raise FileRefused(
            f"none of the {people:,} people stands in a batch as ids are written: {strangers.in_words()}"
        )
    namesake = _namesake(con, name)
    if namesake:
        first = "ORDER BY row_number LIMIT ?"
        here, there = (
            [shown(one) for (one,) in con.execute(sql, [of, EXAMPLES]).fetchall()]
            for sql, of in (
                (f"SELECT {id_} FROM outcomes WHERE source = ? {first}", name),  # noqa: S608
                (f"SELECT {id_} FROM batch_rows WHERE batch = ? {first}", namesake),  # noqa: S608
            )
        )
        raise FileRefused(
            f"none of the {people:,} people stands in {namesake}, which the file is named after, nor in any "
            f"other batch: here ids are written like {', '.join(here)}; there like {', '.join(there)}. Write "
            "the ids of the batch; or, if these people come in a batch of their own later, give the file "
            "another name"
        )


def _strangers(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> Strangers:
    """Return who of a file of outcomes stands in no batch, and which of them do in another spelling."""
    id_ = f'"{study.id}"'
    unknown = _texts(
        con,
        f"""WITH {_IN_BATCHES.format(id=id_)}
        SELECT {id_} FROM outcomes WHERE source = $name AND {id_} NOT IN (SELECT _person FROM _seen)
        ORDER BY row_number""",  # noqa: S608
        {"name": name},
    )
    return near_spellings(unknown, known_ids(con, study, ("batch_rows",)))


def _texts(con: duckdb.DuckDBPyConnection, sql: str, params: dict[str, str]) -> pa.Array:
    return pa.array([text for (text,) in con.execute(sql, params).fetchall()], pa.string())


def _namesake(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return the newest batch that a file of outcomes is named after (``march_outcomes``), or nothing."""
    plain = name_and_number(name)[0].lower()
    batches = con.execute(
        "SELECT name FROM ingested_files WHERE kind = 'batches' ORDER BY ingested_at DESC"
    ).fetchall()
    for (batch,) in batches:
        of = re.escape(name_and_number(batch)[0].lower())
        if re.search(rf"(^|[_.-]){of}($|[_.-])", plain):
            return str(batch)
    return ""


def waiting_in_another_spelling(con: duckdb.DuckDBPyConnection, study: Study, batch: str) -> Strangers:
    """Return outcomes that wait for their people, and whose ids a new batch has in another spelling.

    Args:
        con: of the warehouse.
        study: names the column of ids.
        batch: that was taken in.
    """
    id_ = f'"{study.id}"'
    waiting = _texts(
        con,
        f"""SELECT {id_} FROM outcomes WHERE batch = source
        AND {id_} NOT IN (SELECT {id_} FROM batch_rows) ORDER BY source, row_number""",  # noqa: S608
        {},
    )
    if not len(waiting):
        return Strangers(0, 0, ())
    people = _texts(
        con,
        f"SELECT {id_} FROM batch_rows WHERE batch = $batch ORDER BY row_number",  # noqa: S608
        {"batch": batch},
    )
    return near_spellings(waiting, [people])
