"""Every file of the corpus becomes what it must: rows kept, rows in quarantine, or a file refused."""

from __future__ import annotations

from collections import Counter

import pytest

from poleng_assets.home import Home
from poleng_assets.study import load_study
from poleng_assets_tests.faults.corpus import Outcome, Refused, Taken, corpus, run_corpus, summary

pytestmark = pytest.mark.slow

CASES = corpus(load_study())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The whole corpus, dropped into one home, one file after the other."""
    home = Home(tmp_path_factory.mktemp("corpus") / "home")
    return {outcome.case.name: outcome for outcome in run_corpus(home)}


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_dropped_file_becomes_what_it_must(outcomes: dict[str, Outcome], name: str):
    assert outcomes[name].problems == ()


def test_the_corpus_holds_good_files_and_bad_ones():
    kinds = Counter(type(case.expected) for case in CASES)
    assert kinds[Refused] >= 75
    assert kinds[Taken] >= 75
    assert sum(bool(case.expected.quarantined) for case in CASES if isinstance(case.expected, Taken)) >= 30


def test_cases_are_told_apart_by_their_names():
    assert max(Counter(case.name for case in CASES).values()) == 1


def test_the_summary_counts_and_names_what_came_out_otherwise(outcomes: dict[str, Outcome]):
    good, other = list(outcomes.values())[:2]
    bad = Outcome(other.case, ("it was taken in",), 0.1)
    told = summary([Outcome(good.case, (), 0.1), bad])
    assert told.startswith("bad files: 1 of 2 as expected\n")
    assert other.case.name in told
    assert "it was taken in" in told
    assert good.case.name not in told
