"""Who is held out is drawn evenly from each study, follows who is frozen, and never changes."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.holdout import draw_holdout, keep_duplicates_together
from poleng_assets.warehouse.schema import create_tables
from poleng_assets.warehouse.writes import transaction
from poleng_assets_tests.conftest import with_policies
from poleng_assets_tests.parts import SHARE, Connection, parts_of, put, straddling

# The draw


@pytest.fixture
def empty(study: Study) -> Iterator[Connection]:
    """A warehouse in memory."""
    with duckdb.connect() as con:
        create_tables(con, study)
        yield con


@pytest.fixture
def draw(empty: Connection, study: Study) -> Callable[..., pd.Series]:
    """Draw the holdout of these people, and of nobody else; return who is held out, in their order."""

    def of(rows: pd.DataFrame, share: float = SHARE, **training: object) -> pd.Series:
        changed = with_policies(study, training={"holdout_share": share, **training})
        with transaction(empty):
            empty.execute("DELETE FROM field_study_rows")
            put(empty, "one", rows)
            draw_holdout(empty, changed, "one")
        return rows[study.id].map(parts_of(empty, study, "one")) == "holdout"

    return of


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.89])
def test_each_class_and_each_country_within_it_gives_its_share_to_within_one_person(
    draw, study: Study, people: pd.DataFrame, share: float
):
    by, target = str(study.policies.training.varies_by), study.target.name
    held = draw(people, share)
    assert abs(held.sum() - share * len(people)) <= 0.5 + 1e-6
    for strata in ([target], [target, by]):
        counts = held.groupby([people[name] for name in strata]).agg(["sum", "count"])
        assert len(counts) >= 2
        assert (counts["sum"] - share * counts["count"]).abs().max() < 1 + 1e-6
    # A country is one stratum of each class.
    countries = held.groupby(people[by]).agg(["sum", "count"])
    assert (countries["sum"] - share * countries["count"]).abs().max() < 2


def test_both_parts_have_the_same_target_rate(draw, study: Study, people: pd.DataFrame):
    held, target = draw(people), people[study.target.name].astype(int)
    one_person = 1 / held.sum()
    assert target[held].mean() == pytest.approx(target[~held].mean(), abs=2 * one_person)


def test_without_a_feature_that_effects_vary_by_each_class_gives_its_share(
    draw, study: Study, people: pd.DataFrame
):
    counts = draw(people, varies_by=None).groupby(people[study.target.name]).agg(["sum", "count"])
    assert (counts["sum"] - SHARE * counts["count"]).abs().max() < 1


def test_who_did_not_say_the_country_is_drawn_like_a_country(draw, study: Study, people: pd.DataFrame):
    by = str(study.policies.training.varies_by)
    silent = np.arange(len(people)) % 3 == 0
    some = people.assign(**{by: people[by].astype(object).mask(silent)})
    held = draw(some)
    counts = held[silent].groupby(people[study.target.name]).agg(["sum", "count"])
    assert (counts["sum"] - SHARE * counts["count"]).abs().max() < 1
    order = np.random.default_rng(2).permutation(len(some))
    assert draw(some.iloc[order]).sort_index().equals(held)


@pytest.mark.parametrize("rows", range(1, 15))
def test_a_study_of_few_people_holds_out_its_share_rounded(
    draw, study: Study, people: pd.DataFrame, rows: int
):
    assert draw(people.iloc[:rows]).sum() == math.floor(rows * SHARE + 0.5)


def test_within_a_stratum_the_hash_of_the_id_decides(draw, study: Study, people: pd.DataFrame):
    # Written down once more in another language: another order would be another holdout, for instance
    # after an ingestion that died and is run again by a later release.
    by, target = str(study.policies.training.varies_by), study.target.name
    odd = ["äöü", "007", "7", "a'b", " x "]
    some = people.iloc[:700].assign(**{study.id: [*odd, *people[study.id].iloc[len(odd) : 700]]})

    def key(row: pd.Series) -> tuple[int, str, str]:
        return int(row[target]), str(row[by]), hashlib.sha256(f"holdout:{row[study.id]}".encode()).hexdigest()

    ordered = sorted((key(row), row[study.id]) for _, row in some.iterrows())
    steps = [math.floor(place * SHARE + 0.5) for place in range(len(ordered) + 1)]
    expected = {ordered[i][1] for i in range(len(ordered)) if steps[i + 1] > steps[i]}
    assert set(some[study.id][draw(some)]) == expected


def test_people_who_stand_next_to_each_other_in_a_file_are_not_drawn_together(draw, people: pd.DataFrame):
    held = draw(people).to_numpy()
    both = (held[1:] & held[:-1]).mean()
    assert both == pytest.approx(SHARE**2, abs=4 * (SHARE**2 * (1 - SHARE**2) / len(held)) ** 0.5)


def test_the_draw_does_not_depend_on_the_order_of_rows(draw, people: pd.DataFrame):
    held = draw(people)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(people))
        assert draw(people.iloc[order]).sort_index().equals(held)


def test_the_draw_neither_sees_nor_touches_other_studies(
    empty: Connection, draw, study: Study, people: pd.DataFrame, newcomers: pd.DataFrame
):
    alone = draw(people)
    before = parts_of(empty, study, "one")
    put(empty, "two", pd.concat([newcomers, people]))
    draw_holdout(empty, study, "two")
    assert parts_of(empty, study, "one") == before
    other = parts_of(empty, study, "two")
    empty.execute("DELETE FROM field_study_rows")
    put(empty, "two", pd.concat([newcomers, people]))
    draw_holdout(empty, study, "two")
    assert parts_of(empty, study, "two") == other
    # The same people in other company: this is why frozen ids are followed and not drawn again.
    assert (people[study.id].map(other) == "holdout").ne(alone).any()


# People who gave the same answers, and people who come again

# Of each field study: the id of a person, and the number of the pattern of that person's answers. The
# last letter of the id says what is drawn for it: t for training, h for holdout.
People = list[tuple[str, int]]


@pytest.fixture
def answers(study: Study, people: pd.DataFrame) -> Callable[..., pd.DataFrame]:
    """Make rows of people with given answers, and with targets that are no reason to be another person."""
    patterns = people[study.feature_names].drop_duplicates().reset_index(drop=True)

    def of(who: People, hide: list[str] | None = None) -> pd.DataFrame:
        rows = patterns.loc[[pattern for _, pattern in who]].reset_index(drop=True)
        rows[study.id] = [one for one, _ in who]
        rows[study.target.name] = [zlib.crc32(one.encode()) % 2 for one, _ in who]
        return rows.assign(**dict.fromkeys(hide or [], None))

    return of


@pytest.fixture
def settle(
    con: Connection, study: Study, answers: Callable[..., pd.DataFrame]
) -> Callable[..., dict[str, str]]:
    """Take in a field study of people with given answers; return the part of each by id.

    With a share the holdout is truly drawn, and the last letters of the ids say nothing.
    """

    def take_in(
        name: str, who: People, hide: list[str] | None = None, share: float | None = None
    ) -> dict[str, str]:
        with transaction(con):
            put(con, name, answers(who, hide))
            if share is None:
                con.execute(
                    f"""UPDATE field_study_rows SET part = 'holdout'
                    WHERE field_study = ? AND "{study.id}" LIKE '%h'""",
                    [name],
                )
            else:
                draw_holdout(con, with_policies(study, training={"holdout_share": share}), name)
            keep_duplicates_together(con, study, name)
        found = parts_of(con, study, name)
        assert len(found) == len(who)
        return found

    return take_in


def everything(con: Connection, study: Study, name: str) -> list[tuple[object, ...]]:
    return con.execute(
        f'SELECT * FROM field_study_rows WHERE field_study = ? ORDER BY "{study.id}"', [name]
    ).fetchall()


def test_people_unlike_anybody_keep_the_part_that_was_drawn(settle):
    parts = settle("one", [(f"{i}{'th'[i % 2]}", i) for i in range(100)])
    assert parts == {f"{i}{'th'[i % 2]}": ["train", "holdout"][i % 2] for i in range(100)}


def test_people_with_the_same_answers_follow_the_one_whose_id_sorts_first(settle):
    parts = settle("one", [("1t", 0), ("7h", 0), ("2h", 1), ("3t", 1), ("4t", 1), ("5t", 2)])
    assert (parts["1t"], parts["7h"]) == ("train", "train")
    assert {parts["2h"], parts["3t"], parts["4t"]} == {"holdout"}
    assert parts["5t"] == "train"


@pytest.mark.parametrize(("drawn", "again"), [("t", "h"), ("h", "t")])
def test_an_id_that_comes_again_keeps_its_part_whatever_is_drawn_for_it_now(
    con, study, answers, drawn: str, again: str
):
    part = {"t": "train", "h": "holdout"}
    for name, letter, pattern in [("one", drawn, 0), ("two", again, 1), ("three", again, 2)]:
        put(con, name, answers([("7", pattern)]))
        con.execute("UPDATE field_study_rows SET part = ? WHERE field_study = ?", [part[letter], name])
        keep_duplicates_together(con, study, name)
        assert parts_of(con, study, name) == {"7": part[drawn]}


def test_missing_answers_are_the_same_as_missing_answers(settle, study):
    some = study.feature_names[3:6]
    parts = settle("one", [("1t", 0), ("7h", 0)], hide=some)
    assert parts == {"1t": "train", "7h": "train"}
    # Somebody who did answer is somebody else.
    assert settle("two", [("8h", 0)]) == {"8h": "holdout"}


def test_nobody_moves_because_of_all_but_one_answer(con, study, settle):
    settle("one", [("1t", 0)])
    assert settle("two", [("7h", 0)], hide=study.feature_names[-1:]) == {"7h": "holdout"}


@pytest.mark.parametrize(("earlier", "later"), [("1t", "7h"), ("7h", "1t")])
def test_later_people_follow_those_with_the_same_answers_who_are_frozen(settle, earlier: str, later: str):
    frozen = settle("one", [(earlier, 0)])[earlier]
    assert settle("two", [(later, 0)]) == {later: frozen}


def test_an_id_whose_answers_moved_it_stays_where_it_was_moved(settle):
    assert settle("one", [("1t", 0), ("7h", 0)])["7h"] == "train"
    assert settle("two", [("7h", 1)]) == {"7h": "train"}
    # And takes along those who answer as it does now.
    assert settle("three", [("8h", 1), ("5t", 2)]) == {"8h": "train", "5t": "train"}


def test_of_people_with_the_same_answers_one_who_is_frozen_is_followed_first(settle):
    settle("one", [("8h", 0)])
    assert settle("two", [("1t", 1), ("8h", 1), ("2t", 1)]) == dict.fromkeys(["1t", "8h", "2t"], "holdout")


def test_somebody_whose_id_and_answers_ask_for_different_parts_is_set_aside(settle):
    settle("one", [("1t", 0), ("7h", 1)])
    assert settle("two", [("1t", 1), ("7h", 0), ("24h", 2)]) == {
        "1t": "set_aside",
        "7h": "set_aside",
        "24h": "holdout",
    }


def test_two_who_are_frozen_on_different_sides_do_not_stand_together(settle):
    settle("one", [("1t", 0), ("7h", 1)])
    assert settle("two", [("1t", 2), ("7h", 2), ("8h", 2)]) == {
        "1t": "train",
        "7h": "set_aside",
        "8h": "train",
    }


def test_somebody_set_aside_asks_for_nothing_later(settle):
    settle("one", [("1t", 0), ("7h", 1)])
    assert settle("two", [("1t", 1)]) == {"1t": "set_aside"}
    assert settle("three", [("1t", 2)]) == {"1t": "train"}
    assert settle("four", [("2t", 1)]) == {"2t": "holdout"}


def test_answers_that_an_old_warehouse_has_on_both_sides_are_set_aside_from_now_on(con, study, settle):
    settle("one", [("1t", 0), ("7h", 1)])
    pattern = ", ".join(f'"{name}" = one."{name}"' for name in study.feature_names)
    con.execute(
        f"""UPDATE field_study_rows SET {pattern} FROM field_study_rows one
        WHERE one."{study.id}" = '1t' AND field_study_rows."{study.id}" = '7h'"""
    )
    assert straddling(con, study.feature_names) == 1
    assert settle("two", [("2t", 0), ("8h", 0)]) == {"2t": "set_aside", "8h": "set_aside"}


def crowd(seed: int, rows: int = 400) -> People:
    """People of whom many stand in more than one study and many answer alike."""
    random = np.random.default_rng(seed)
    ids = random.permutation(600)[:rows].astype(str).tolist()
    return list(zip(ids, random.integers(0, 300, rows).tolist(), strict=True))


def test_no_id_and_no_answers_are_ever_on_both_sides_and_nothing_frozen_moves(con, study, settle):
    aside = 0
    for seed in range(6):
        name = f"study_{seed}"
        earlier = {f"study_{other}": everything(con, study, f"study_{other}") for other in range(seed)}
        parts = list(settle(name, crowd(seed), share=0.5).values())
        aside += parts.count("set_aside")
        assert straddling(con, [study.id]) == 0
        assert straddling(con, study.feature_names) == 0
        assert {other: everything(con, study, other) for other in earlier} == earlier
        assert min(parts.count("train"), parts.count("holdout")) > 20
    assert aside > 0


def test_parts_do_not_depend_on_the_order_of_rows(con, study, settle):
    settle("one", crowd(1), share=0.5)
    first = settle("two", crowd(2), share=0.5)
    con.execute("DELETE FROM field_study_rows WHERE field_study = 'two'")
    shuffled = [crowd(2)[i] for i in np.random.default_rng(5).permutation(400)]
    assert settle("two", shuffled, share=0.5) == first


def test_answers_that_many_share_are_not_held_out_more_often(settle):
    many = [str(number) for number in range(20_000, 24_000)]
    random = np.random.default_rng(3)
    held = []
    for number in range(4):
        ids = random.permutation([f"{number}-{one}" for one in many]).tolist()
        who = [(one, number * 400 + i % 400) for i, one in enumerate(ids)]
        parts = settle(f"study_{number}", who, share=SHARE)
        held += [parts[one] == "holdout" for one in ids]
    # 1,600 sets of answers of ten people each: four standard errors.
    assert np.mean(held) == pytest.approx(SHARE, abs=4 * (SHARE * (1 - SHARE) / 1_600) ** 0.5)
