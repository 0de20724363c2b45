"""Who is held out is decided by ids and by who answered the same; it never changes."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.holdout import keep_duplicates_together, part_of
from poleng_assets.core.tables import insert, transaction
from poleng_assets.study import Study

Connection = duckdb.DuckDBPyConnection
SHARE = 0.15
TRAIN = [str(number) for number in range(2_000) if part_of([str(number)], SHARE)[0] == "train"]
HELD = [str(number) for number in range(2_000) if part_of([str(number)], SHARE)[0] == "holdout"]


def test_known_ids_fall_where_they_always_fell():
    # Pinned: another answer would put people whom a model learned from into its holdout.
    ids = ["1", "7", "007", "a1f0", "person-42", "äöü", ""]
    assert part_of(ids, 0.15).tolist() == ["train", "holdout", "train", "train", "train", "train", "train"]
    held = [number for number in range(60) if part_of([str(number)], 0.15)[0] == "holdout"]
    assert held == [4, 7, 8, 17, 24, 33, 40, 41, 44, 59]


def test_the_same_id_has_the_same_part_whatever_stands_around_it():
    ids = [f"person {number}" for number in range(500)]
    alone = [part_of([one], 0.15)[0] for one in ids]
    assert part_of(ids, 0.15).tolist() == alone
    assert part_of(ids[::-1], 0.15).tolist() == alone[::-1]


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.89])
def test_the_share_held_out_is_the_share_asked_for(share: float):
    held = part_of([f"id-{number}" for number in range(20_000)], share) == "holdout"
    assert held.mean() == pytest.approx(share, abs=0.012)  # more than three standard errors


def test_ids_that_follow_each_other_are_not_held_out_together():
    held = part_of([str(number) for number in range(20_000)], 0.15) == "holdout"
    both = (held[1:] & held[:-1]).mean()
    assert both == pytest.approx(0.15**2, abs=0.005)


def test_a_larger_share_only_adds_people():
    ids = [str(number) for number in range(2_000)]
    small = set(pd.Series(ids)[part_of(ids, 0.1) == "holdout"])
    large = set(pd.Series(ids)[part_of(ids, 0.3) == "holdout"])
    assert small < large


def test_every_respondent_is_on_one_of_two_sides(people: pd.DataFrame, study):
    assert set(part_of(people[study.id], 0.15)) == {"train", "holdout"}


def test_nobody_has_no_part():
    assert part_of([], 0.15).tolist() == []


# People who gave the same answers

# Of each field study: the id of a person, and the number of the pattern of that person's answers.
People = list[tuple[str, int]]


@pytest.fixture
def settle(con: Connection, study: Study, people: pd.DataFrame) -> Callable[..., dict[str, str]]:
    """Take in a field study of people with given answers; return the part of each by id."""
    patterns = people[study.feature_names].drop_duplicates().reset_index(drop=True)

    def take_in(name: str, who: People, hide: list[str] | None = None) -> dict[str, str]:
        ids = [one for one, _ in who]
        rows = patterns.loc[[pattern for _, pattern in who]].reset_index(drop=True)
        rows = rows.assign(**dict.fromkeys(hide or [], None))
        rows[study.id] = ids
        rows[study.target.name] = np.arange(len(rows)) % 2  # the target is no reason to be another person
        rows["field_study"], rows["row_number"] = name, np.arange(len(rows)) + 1
        rows["part"] = part_of(ids, SHARE)
        with transaction(con):
            insert(con, "field_study_rows", rows)
            keep_duplicates_together(con, study, name)
        found = con.execute(
            f'SELECT "{study.id}", part FROM field_study_rows WHERE field_study = ?', [name]
        ).fetchall()
        assert len(found) == len(who)
        return dict(found)

    return take_in


def everything(con: Connection, study: Study, name: str) -> list[tuple[object, ...]]:
    return con.execute(
        f'SELECT * FROM field_study_rows WHERE field_study = ? ORDER BY "{study.id}"', [name]
    ).fetchall()


def straddling(con: Connection, columns: list[str]) -> int:
    """Count the values of these columns that stand on both sides."""
    listed = ", ".join(f'"{column}"' for column in columns)
    return len(
        con.execute(
            f"""SELECT count(*) FROM field_study_rows WHERE part <> 'set_aside' GROUP BY {listed}
            HAVING count(DISTINCT part) > 1"""
        ).fetchall()
    )


def test_people_unlike_anybody_keep_the_part_of_their_id(settle):
    ids = [*TRAIN[:50], *HELD[:50]]
    assert settle("one", [(one, i) for i, one in enumerate(ids)]) == dict(
        zip(ids, part_of(ids, SHARE), strict=True)
    )


def test_people_with_the_same_answers_follow_the_one_whose_id_sorts_first(settle):
    parts = settle("one", [("1", 0), ("7", 0), ("24", 1), ("240", 1), ("2400", 1), ("3", 2)])
    assert part_of(["1", "7", "24", "240", "3"], SHARE).tolist() == [
        "train",
        "holdout",
        "holdout",
        "train",
        "train",
    ]
    assert (parts["1"], parts["7"]) == ("train", "train")
    assert {parts["24"], parts["240"], parts["2400"]} == {"holdout"}
    assert parts["3"] == "train"


def test_missing_answers_are_the_same_as_missing_answers(settle, study):
    some = study.feature_names[3:6]
    parts = settle("one", [("1", 0), ("7", 0)], hide=some)
    assert parts == {"1": "train", "7": "train"}
    # Somebody who did answer is somebody else.
    assert settle("two", [("8", 0)]) == {"8": "holdout"}


def test_nobody_moves_because_of_all_but_one_answer(con, study, settle):
    settle("one", [("1", 0)])
    assert settle("two", [("7", 0)], hide=study.feature_names[-1:]) == {"7": "holdout"}


@pytest.mark.parametrize(("earlier", "later"), [("1", "7"), ("7", "1")])
def test_later_people_follow_those_with_the_same_answers_who_are_frozen(settle, earlier: str, later: str):
    frozen = settle("one", [(earlier, 0)])[earlier]
    assert part_of([later], SHARE)[0] != frozen
    assert settle("two", [(later, 0)]) == {later: frozen}


def test_an_id_whose_answers_moved_it_stays_where_it_was_moved(settle):
    assert settle("one", [("1", 0), ("7", 0)])["7"] == "train"
    assert settle("two", [("7", 1)]) == {"7": "train"}
    # And takes along those who answer as it does now.
    assert settle("three", [("8", 1), ("5", 2)]) == {"8": "train", "5": "train"}


def test_of_people_with_the_same_answers_one_who_is_frozen_is_followed_first(settle):
    settle("one", [("8", 0)])
    assert settle("two", [("1", 1), ("8", 1), ("2", 1)]) == dict.fromkeys(["1", "8", "2"], "holdout")


def test_somebody_whose_id_and_answers_ask_for_different_parts_is_set_aside(settle):
    settle("one", [("1", 0), ("7", 1)])
    assert settle("two", [("1", 1), ("7", 0), ("24", 2)]) == {
        "1": "set_aside",
        "7": "set_aside",
        "24": "holdout",
    }


def test_two_who_are_frozen_on_different_sides_do_not_stand_together(settle):
    settle("one", [("1", 0), ("7", 1)])
    assert settle("two", [("1", 2), ("7", 2), ("8", 2)]) == {"1": "train", "7": "set_aside", "8": "train"}


def test_somebody_set_aside_asks_for_nothing_later(settle):
    settle("one", [("1", 0), ("7", 1)])
    assert settle("two", [("1", 1)]) == {"1": "set_aside"}
    assert settle("three", [("1", 2)]) == {"1": "train"}
    assert settle("four", [("2", 1)]) == {"2": "holdout"}


def test_answers_that_an_old_warehouse_has_on_both_sides_are_set_aside_from_now_on(con, study, settle):
    settle("one", [("1", 0), ("7", 1)])
    pattern = ", ".join(f'"{name}" = one."{name}"' for name in study.feature_names)
    con.execute(
        f"""UPDATE field_study_rows SET {pattern} FROM field_study_rows one
        WHERE one."{study.id}" = '1' AND field_study_rows."{study.id}" = '7'"""
    )
    assert straddling(con, study.feature_names) == 1
    assert settle("two", [("2", 0), ("8", 0)]) == {"2": "set_aside", "8": "set_aside"}


def crowd(seed: int, rows: int = 400) -> People:
    """People of whom many stand in more than one study and many answer alike."""
    random = np.random.default_rng(seed)
    ids = random.permutation(np.array([*TRAIN[:300], *HELD[:300]]))[:rows].tolist()
    return list(zip(ids, random.integers(0, 300, rows).tolist(), strict=True))


def test_no_id_and_no_answers_are_ever_on_both_sides_and_nothing_frozen_moves(con, study, settle):
    aside = 0
    for seed in range(6):
        name = f"study_{seed}"
        earlier = {f"study_{other}": everything(con, study, f"study_{other}") for other in range(seed)}
        parts = list(settle(name, crowd(seed)).values())
        aside += parts.count("set_aside")
        assert straddling(con, [study.id]) == 0
        assert straddling(con, study.feature_names) == 0
        assert {other: everything(con, study, other) for other in earlier} == earlier
        assert min(parts.count("train"), parts.count("holdout")) > 20
    assert aside > 0


def test_parts_do_not_depend_on_the_order_of_rows(con, study, settle):
    settle("one", crowd(1))
    first = settle("two", crowd(2))
    con.execute("DELETE FROM field_study_rows WHERE field_study = 'two'")
    shuffled = [crowd(2)[i] for i in np.random.default_rng(5).permutation(400)]
    assert settle("two", shuffled) == first


def test_answers_that_many_share_are_not_held_out_more_often(settle):
    many = [str(number) for number in range(20_000, 24_000)]
    random = np.random.default_rng(3)
    held = []
    for number in range(4):
        ids = random.permutation([f"{number}-{one}" for one in many]).tolist()
        parts = settle(f"study_{number}", [(one, number * 400 + i % 400) for i, one in enumerate(ids)])
        held += [parts[one] == "holdout" for one in ids]
    # 1,600 sets of answers of ten people each: four standard errors.
    assert np.mean(held) == pytest.approx(SHARE, abs=4 * (SHARE * (1 - SHARE) / 1_600) ** 0.5)
