"""Who is held out is decided by the id alone, and never changes."""

from __future__ import annotations

import pandas as pd
import pytest

from poleng_assets.core.holdout import part_of


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
