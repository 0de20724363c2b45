"""How the people of an outcomes file match the batches, and what the file changes.

A file that meets nobody is the commonest accident: a spreadsheet has made ``123`` of ``000123``. It is
refused where that can be told; where the batch may only come later it is kept, and that is said loudly.
"""

import re
from dataclasses import dataclass

import pyarrow as pa
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.subject_ids import EXAMPLES, Strangers, near_spellings, shown
from poleng_assets.core.data.versions import name_and_number
from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.study.schema import Study
from poleng_assets.warehouse import outcomes
from poleng_assets.warehouse.files import file_records
from poleng_assets.warehouse.people import first_ids, known_ids


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
        """Return whether somebody was met, and nobody seems to be spelled otherwise."""
        return self.matched > 0 and not self.strangers.alike

    def in_words(self) -> str:
        """Describe it in one line, what is wrong first."""
        parts = [f"{self.read:,} rows read", f"{self.matched:,} of {self.people:,} people matched"]
        if not self.matched:
            parts[1] = f"NONE of {self.people:,} people is in a batch so far, so nothing is measured"
        elif self.unknown:
            parts.append(f"{self.unknown:,} unknown (in no batch)")
        if self.corrected:
            parts.append(f"{self.corrected:,} corrected")
        if self.conflicting:
            parts.append(f"{self.conflicting:,} conflicting within the file (the last row counts)")
        if self.known_before:
            parts.append(f"{self.known_before:,} known before")
        if self.in_several_batches:
            parts.append(f"{self.in_several_batches:,} in several batches")
        return ", ".join(parts) + (f". Of the unknown, {near}" if (near := self.strangers.in_words()) else "")


def outcomes_met(con: Connection, study: Study, name: str) -> Met:
    """Return what a file of outcomes met that was taken in."""
    matches = outcomes.count_matches(con, study, name)
    earlier = outcomes.compare_with_earlier(con, study, name)
    unknown = _strangers(con, study, name) if matches.people > matches.matched else Strangers(0, 0, ())
    records = (record for record in file_records(con, "outcomes") if record.name == name)
    return Met(
        read=max((record.rows_read for record in records), default=0),
        **matches._asdict(),
        **earlier._asdict(),
        batches=tuple(outcomes.batches_of(con, study, name)),
        strangers=unknown,
    )


def refuse_if_nobody_is_met(con: Connection, study: Study, name: str) -> None:
    """Refuse a file of outcomes none of whose people stands in a batch, unless its batch may come later.

    That is so when the file is not named after a batch that is there, and its ids are not known in another
    spelling. To be called inside the transaction that inserted the rows.

    Raises:
        FileRefused: with examples of how ids are spelled here, and in the batches.
    """
    people, matched, _ = outcomes.count_matches(con, study, name)
    if matched or not people:
        return
    strangers = _strangers(con, study, name)
    if strangers.alike >= study.policies.ingestion.other_spelling_share * strangers.ids:
        raise FileRefused(
            f"none of the {people:,} people is in a batch with these ids: {strangers.in_words()}"
        )
    namesake = _namesake(con, name)
    if namesake:
        in_file, in_batch = (
            ", ".join(shown(text) for text in ids)
            for ids in (
                first_ids(con, study, "outcomes", name, EXAMPLES),
                first_ids(con, study, "batches", namesake, EXAMPLES),
            )
        )
        raise FileRefused(
            f"none of the {people:,} people is in {namesake}, which the file is named after, or in any "
            f"other batch: ids in this file look like {in_file}, in the batch like {in_batch}. Use "
            "the ids of the batch. If these people come in a later batch of their own, give the file "
            "another name"
        )


def _strangers(con: Connection, study: Study, name: str) -> Strangers:
    """Return who of a file of outcomes stands in no batch, and which of them do in another spelling."""
    unknown = pa.array(outcomes.unmatched_ids(con, study, name), pa.string())
    return near_spellings(unknown, known_ids(con, study, ("batch_rows",)))


def _namesake(con: Connection, name: str) -> str:
    """Return the newest batch that a file of outcomes is named after (``march_outcomes``), or nothing."""
    plain = name_and_number(name)[0].lower()
    for record in file_records(con, "batches"):
        batch = record.name
        of = re.escape(name_and_number(batch)[0].lower())
        if re.search(rf"(^|[_.-]){of}($|[_.-])", plain):
            return batch
    return ""


def waiting_in_another_spelling(con: Connection, study: Study, batch: str) -> Strangers:
    """Return outcomes that wait for their people, and whose ids a new batch has in another spelling."""
    waiting = outcomes.waiting_ids(con, study)
    if not waiting:
        return Strangers(0, 0, ())
    people = pa.array(first_ids(con, study, "batches", batch), pa.string())
    return near_spellings(pa.array(waiting, pa.string()), [people])
