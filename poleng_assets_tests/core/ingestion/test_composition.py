"""Who the people of a file are is told in words, and never of few of them."""

from __future__ import annotations

import pandas as pd

from poleng_assets.core.ingestion.composition import LONGEST, Group, composition, suppress_small_groups
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.schema import ROW_TABLES
from poleng_assets.warehouse.writes import insert

FEWEST = 10


def test_large_groups_are_told_as_they_are():
    groups = [Group("these", 30), Group("those", 10)]
    assert suppress_small_groups(groups, FEWEST) == groups


def test_a_small_group_hides_among_others_and_does_not_follow_from_the_total():
    assert suppress_small_groups([Group("these", 30), Group("those", 20), Group("few", 9)], FEWEST) == [
        Group("these", 30),
        Group("2 other answers", 29),
    ]


def test_small_groups_that_are_many_together_hide_nobody_else():
    assert suppress_small_groups([Group("these", 30), Group("few", 6), Group("fewer", 4)], FEWEST) == [
        Group("these", 30),
        Group("2 other answers", 10),
    ]


def test_of_few_people_nothing_is_suppress_small_groups():
    assert suppress_small_groups([Group("these", 5), Group("those", 4)], FEWEST) == []


def test_a_long_list_ends_in_others():
    groups = [Group(f"answer {n}", 100 - n) for n in range(LONGEST + 3)]
    assert suppress_small_groups(groups, FEWEST) == [
        *groups[:LONGEST],
        Group("3 other answers", sum(g.people for g in groups[LONGEST:])),
    ]


def test_a_batch_is_told_in_words_with_every_protected_question(warehouse: Warehouse, study: Study):
    rows = _people(study, 40)
    odd = study.feature(study.protected[0])
    rows.loc[:2, odd.name] = str(max(odd.codes))
    with warehouse.connect() as con:
        insert(con, ROW_TABLES["batches"][0], rows)
        words = composition(con, study, "batches", "spring")
    assert all(study.feature(name).title in words for name in study.protected)
    people = [int(cells[3]) for line in words.splitlines() if len(cells := line.split("|")) > 4
              and cells[3].strip().isdigit()]  # fmt: skip
    assert len(people) > len(study.protected) - 1
    assert min(people) >= FEWEST
    assert "2 other answers" in words


def test_of_a_tiny_batch_nothing_is_suppress_small_groups(warehouse: Warehouse, study: Study):
    with warehouse.connect() as con:
        insert(con, ROW_TABLES["batches"][0], _people(study, FEWEST - 1))
        assert composition(con, study, "batches", "spring").startswith("Fewer than 10 people")


def _people(study: Study, count: int) -> pd.DataFrame:
    answers = {f.name: min(f.codes) if f.is_ordinal else str(min(f.codes)) for f in study.features}
    rows = pd.DataFrame([answers] * count)
    return rows.assign(**{study.id: [f"p{n}" for n in range(count)]}, batch="spring", row_number=range(count))
