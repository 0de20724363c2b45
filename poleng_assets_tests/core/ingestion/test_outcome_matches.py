"""Outcomes say whom they met, what they changed, and why they met nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.ingest import Ingested, ingest
from poleng_assets.core.ingestion.outcome_matches import (
    outcomes_met,
    waiting_in_another_spelling,
)
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.quarantine import LATER_ROW

Connection = duckdb.DuckDBPyConnection
Send = Callable[..., Ingested]
IDS = [f"{number:06d}" for number in range(123, 163)]


@pytest.fixture
def march(tmp_path: Path, con: Connection, study: Study, people: pd.DataFrame) -> None:
    """A batch of forty people with numbered ids."""
    path = tmp_path / "march.parquet"
    people.iloc[:40].drop(columns=study.target.name).assign(**{study.id: IDS}).to_parquet(path)
    ingest(con, study, "batches", path)


@pytest.fixture
def send(tmp_path: Path, con: Connection, study: Study) -> Send:
    """Send outcomes of these ids as CSV."""

    def take_in(name: str, ids: list[str], labels: list[int] | None = None) -> Ingested:
        path = tmp_path / f"{name}.csv"
        told = labels or [number % 2 for number in range(len(ids))]
        pd.DataFrame({study.id: ids, study.target.name: told}).to_csv(path, index=False)
        return ingest(con, study, "outcomes", path)

    return take_in


def refused(send: Send, con: Connection, name: str, ids: list[str]) -> str:
    with pytest.raises(FileRefused) as caught:
        send(name, ids)
    assert con.table("outcomes").count("*").fetchall() == [(0,)]
    return str(caught.value)


def stored(con: Connection, study: Study) -> dict[str, int]:
    found = con.execute(f'SELECT "{study.id}", "{study.target.name}" FROM outcomes').fetchall()
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.usefixtures("march")
def test_outcomes_of_everybody_are_in_order(con: Connection, study: Study, send: Send):
    send("answers", IDS)
    met = outcomes_met(con, study, "answers")
    assert (met.read, met.people, met.matched, met.unknown, met.batches) == (40, 40, 40, 0, ("march",))
    assert (met.corrected, met.conflicting, met.repeated, met.in_several_batches) == (0, 0, 0, 0)
    assert met.in_order
    assert met.in_words() == "40 rows read, 40 of 40 people matched"


@pytest.mark.parametrize(
    ("spell", "why"),
    [
        (lambda one: str(int(one)), "leading zeros"),
        (lambda one: f"{int(one)}.0", "a decimal point"),
        (lambda one: f"\u200b{one}", "invisible"),
        (lambda one: f"{one[:3]} {one[3:]}", "blanks"),
        (lambda one: f"{one[:4]}-{one[4:]}", "dashes"),
    ],
)
@pytest.mark.usefixtures("march")
def test_outcomes_of_nobody_in_another_spelling_are_refused_with_both(
    con: Connection, send: Send, spell: Callable[[str], str], why: str
):
    said = refused(send, con, "answers", [spell(one) for one in IDS])
    assert said.startswith("none of the 40 people is in a batch with these ids: 40 of 40 are known")
    assert ascii(spell("000123")).strip("'") in said
    assert "'000123' there" in said
    assert why in said


@pytest.mark.parametrize("name", ["march", "march_outcomes", "outcomes-march", "MARCH.labels"])
@pytest.mark.usefixtures("march")
def test_outcomes_named_after_a_batch_that_has_none_of_their_people_are_refused(
    con: Connection, send: Send, name: str
):
    said = refused(send, con, name, ["x1", "x2"])
    assert said.startswith("none of the 2 people is in march, which the file is named after")
    assert "like 'x1', 'x2', in the batch like '000123'" in said


@pytest.mark.usefixtures("march")
def test_outcomes_that_may_come_before_their_batch_wait_and_say_so(con: Connection, study: Study, send: Send):
    assert send("april_outcomes", ["x1", "x2"]).rows_kept == 2
    met = outcomes_met(con, study, "april_outcomes")
    assert (met.matched, met.unknown, met.in_order) == (0, 2, False)
    assert "NONE of 2 people is in a batch so far" in met.in_words()


def test_outcomes_wait_when_there_is_no_batch_at_all(con: Connection, study: Study, send: Send):
    send("march", IDS)
    assert outcomes_met(con, study, "march").unknown == 40


def test_a_batch_that_comes_later_in_another_spelling_tells_of_the_outcomes_that_wait(
    tmp_path: Path, con: Connection, study: Study, send: Send, people: pd.DataFrame
):
    send("early", [str(int(one)) for one in IDS])
    path = tmp_path / "march.parquet"
    people.iloc[:40].drop(columns=study.target.name).assign(**{study.id: IDS}).to_parquet(path)
    ingest(con, study, "batches", path)
    found = waiting_in_another_spelling(con, study, "march")
    assert (found.ids, found.alike) == (40, 40)
    assert "'123' here, '000123' there" in found.in_words()


@pytest.mark.usefixtures("march")
def test_some_unknown_people_in_another_spelling_are_told_with_examples(
    con: Connection, study: Study, send: Send
):
    send("answers", [*IDS[:10], *(str(int(one)) for one in IDS[10:30]), "stranger"])
    met = outcomes_met(con, study, "answers")
    assert (met.matched, met.unknown, met.strangers.alike, met.in_order) == (10, 21, 20, False)
    assert "10 of 31 people matched, 21 unknown" in met.in_words()
    assert "20 of 21 are known in another spelling: '133' here, '000133' there" in met.in_words()


@pytest.mark.usefixtures("march")
def test_the_last_row_of_a_person_counts_and_the_others_are_kept_apart(
    con: Connection, study: Study, send: Send
):
    result = send("answers", [*IDS[:6], *IDS[:3], IDS[5]], [0] * 6 + [1] * 3 + [0])
    assert (result.rows_read, result.rows_kept, result.rows_quarantined) == (10, 6, 4)
    assert stored(con, study) == dict(zip(IDS[:6], [1, 1, 1, 0, 0, 0], strict=True))
    met = outcomes_met(con, study, "answers")
    assert (met.corrected, met.conflicting, met.repeated, met.matched) == (3, 3, 4, 6)
    apart = con.execute("SELECT row_number, reason FROM quarantine ORDER BY row_number").fetchall()
    assert apart == [(1, LATER_ROW), (2, LATER_ROW), (3, LATER_ROW), (6, LATER_ROW)]


@pytest.mark.usefixtures("march")
def test_what_a_later_file_changes_is_counted(con: Connection, study: Study, send: Send):
    send("first", IDS[:10], [0] * 10)
    send("second", IDS[:4], [1, 1, 0, 0])
    send("third", IDS[:5], [0, 1, 0, 0, 0])
    second, third = (outcomes_met(con, study, name) for name in ("second", "third"))
    assert (second.corrected, second.known_before, second.conflicting) == (2, 2, 0)
    assert (third.corrected, third.known_before) == (1, 4)
    assert outcomes_met(con, study, "first").corrected == 0


def test_people_of_several_batches_are_counted_once(
    tmp_path: Path, con: Connection, study: Study, send: Send, people: pd.DataFrame
):
    rows = people.iloc[:40].drop(columns=study.target.name).assign(**{study.id: IDS})
    for name, some in (("march", rows), ("april", rows.iloc[:7])):
        some.to_parquet(tmp_path / f"{name}.parquet")
        ingest(con, study, "batches", tmp_path / f"{name}.parquet")
    send("answers", IDS[:20])
    met = outcomes_met(con, study, "answers")
    assert (met.people, met.matched, met.in_several_batches) == (20, 20, 7)
    assert met.batches == ("april", "march")
