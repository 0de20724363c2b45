"""The audit sample: a random share of everybody, the same people always."""

from __future__ import annotations

import hashlib

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.audit_sample import in_audit
from poleng_assets_tests.conftest import with_policies

IDS = [f"person {number}" for number in range(40_000)]


def drawn(study: Study, ids: list[str] = IDS, **policy: float) -> np.ndarray:
    """Return who is in the sample, in the order of the ids."""
    with duckdb.connect() as con:
        con.register("people", pd.DataFrame({"id": ids}))
        condition = in_audit(with_policies(study, outcomes=policy), "id")
        found = con.execute(f"SELECT id, {condition} FROM people").fetchall()
    by_id = dict(found)
    return np.array([by_id[one] for one in ids])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_share_drawn_is_the_policys_within_four_standard_errors(study: Study, share: float):
    error = (share * (1 - share) / len(IDS)) ** 0.5
    assert drawn(study, audit_share=share).mean() == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize(("share", "everybody"), [(0.0, False), (1.0, True)])
def test_a_share_of_nothing_is_nobody_and_of_one_is_everybody(study: Study, share: float, everybody: bool):
    assert set(drawn(study, audit_share=share)) == {everybody}


def test_a_larger_share_keeps_those_who_were_drawn_for_a_smaller_one(study: Study):
    few, many = drawn(study, audit_share=0.02), drawn(study, audit_share=0.05)
    assert not (few & ~many).any()


def test_the_same_people_are_drawn_whoever_else_is_there(study: Study):
    everybody = drawn(study, audit_share=0.2)
    np.testing.assert_array_equal(drawn(study, IDS[::-7], audit_share=0.2), everybody[::-7])


def test_another_seed_draws_others(study: Study):
    one, other = drawn(study, audit_share=0.5, audit_seed=1), drawn(study, audit_share=0.5, audit_seed=2)
    assert (one == other).mean() == pytest.approx(0.5, abs=0.01)


def test_the_draw_tells_nothing_about_the_holdouts_draw(study: Study):
    # The holdout puts people in the order of this hash (core/ingestion/holdout.py).
    places = np.argsort(np.argsort([hashlib.sha256(f"holdout:{one}".encode()).hexdigest() for one in IDS]))
    audit = drawn(study, audit_share=0.5)
    assert abs(np.corrcoef(places, audit)[0, 1]) < 4 / len(IDS) ** 0.5


def test_who_is_drawn_is_decided_by_the_hash_of_seed_and_id(study: Study):
    # Written down once more in another language: were it to change, the sample would be another one.
    ids = ["äöü", "007", "7", "a'b", " x ", *IDS[:500]]
    limit = 0.25 * 16**12
    expected = [int(hashlib.sha256(f"audit:23:{one}".encode()).hexdigest()[:12], 16) < limit for one in ids]
    assert drawn(study, ids, audit_share=0.25, audit_seed=23).tolist() == expected
