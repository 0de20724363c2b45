"""Ids are one thing at every door, and what nearly matches is reported, not guessed."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from poleng_assets.core.data.subject_ids import (
    BLANKS,
    as_stored,
    near_spellings,
    plain_id,
    shown,
    trimmed,
)
from poleng_assets.core.privacy.subject import Person
from poleng_assets.study.loading import load_study

SOMEBODY = uuid.UUID("6f9619ff-8b86-d011-b42d-00cf4fc964ff")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        (pa.array(["  000123\u00a0", "123", "123.0", "a", "A"]), ["000123", "123", "123.0", "a", "A"]),
        (pa.array(["x\u200b", "Zoe\u0308", " \t"]), ["x\u200b", "Zoe\u0308", None]),
        (pa.array([123, None], pa.int64()), ["123", None]),
        (pa.array([2**63], pa.uint64()), [str(2**63)]),
        (pa.array([123.0, 0.5, 2.0**53]), ["123", None, None]),
        (pa.array([Decimal("123.000"), Decimal("0.500")]), ["123", None]),
        (pa.array(["a ", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a ", "b"], pa.string_view()), ["a", "b"]),
        (pa.array(["a ", "b", "a "]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([SOMEBODY.bytes, None], pa.uuid()), [str(SOMEBODY), None]),
        (pa.array([SOMEBODY.bytes], pa.binary(16)), [str(SOMEBODY)]),
        (pa.array([True, False]), [None, None]),
        (pa.array([b"abc"]), [None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_column_of_ids_is_read_by_one_rule_whatever_its_type(written: pa.Array, stored: list[Any]):
    assert as_stored(written).to_pylist() == stored
    assert as_stored(pa.chunked_array([written, written])).to_pylist() == stored * 2


def test_one_id_and_a_column_of_them_lose_the_same_blanks():
    around = [f"{blank}7{blank}" for blank in BLANKS]
    assert trimmed(pa.array(around)).to_pylist() == list(map(plain_id, around)) == ["7"] * len(BLANKS)
    for kept in ("\u200b7", "\ufeff7", "\x1c7"):
        assert trimmed(pa.array([kept])).to_pylist() == [plain_id(kept)] == [kept]


@pytest.mark.parametrize(
    ("given", "known", "differ_by"),
    [
        ("123", "000123", ("leading zeros",)),
        ("123.0", "000123", ("a decimal point and zeros", "leading zeros")),
        ("P2-00001", "P02-00001", ("leading zeros",)),
        ("ab-1", "AB-1", ("capital letters",)),
        ("P02-00001\u200b", "P02-00001", ("invisible characters",)),
        ("P02-00001", "\u202dP02-00001\u202c", ("invisible characters",)),
        ("a  b", "a b", ("blanks",)),
        ("Zoe\u0308", "Zo\xeb", ("another Unicode form of the same letters",)),
        ("'12", "12", ("quotes around it",)),
        (SOMEBODY.hex, str(SOMEBODY), ("dashes or brackets",)),
        (f"{{{str(SOMEBODY).upper()}}}", str(SOMEBODY), ("capital letters", "dashes or brackets")),
    ],
)
def test_an_id_that_meets_nobody_is_shown_beside_its_other_spelling(
    given: str, known: str, differ_by: tuple[str, ...]
):
    others = [pa.array(["9", None]), pa.array([known, known, "8"])]
    met = near_spellings(pa.array([given, "somebody else", given]), others)
    assert (met.ids, met.alike) == (2, 1)
    (near,) = met.examples
    assert (near.given, near.known, near.differ_by) == (given, known, differ_by)
    assert met.in_words().startswith("1 of 2 are known in another spelling: ")
    for name in differ_by:
        assert name in met.in_words()


def test_both_spellings_can_be_told_apart_where_they_look_alike():
    for given, known in [("Zoe\u0308", "Zo\xeb"), ("ab\u200b", "ab"), ("a\xa0b", "a b")]:
        near = near_spellings(pa.array([given]), [pa.array([known])]).examples[0]
        words = near.in_words()
        assert words.isprintable()
        assert "\\" in words
    assert shown("\u202e7") == "'\\u202e7'"


def test_nothing_is_said_of_ids_that_are_like_nobodys():
    met = near_spellings(pa.array(["77", "x-12"]), [pa.array(["7", "x-1"])])
    assert (met.ids, met.alike, met.examples, met.in_words()) == (2, 0, (), "")


def test_a_person_is_recognised_by_the_id_that_the_door_stored():
    study = load_study()
    for given in ("  7\u3000", "7"):
        person = Person.of(given, study)
        assert person.id == "7"
        assert person.matches_id("\xa07 ")
        assert not person.matches_id("07")


def test_duckdb_stores_a_uuid_as_the_door_reads_it():
    ((text,),) = duckdb.connect().execute(f"SELECT '{str(SOMEBODY).upper()}'::UUID::VARCHAR").fetchall()
    assert as_stored(pa.array([SOMEBODY.bytes], pa.uuid())).to_pylist() == [text]
