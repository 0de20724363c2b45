"""Every file of the corpus becomes what it must: rows kept, rows in quarantine, or a file refused."""

from __future__ import annotations

from collections import Counter

import pytest

from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.corpus import (
    Outcome,
    Refused,
    Taken,
    corpus,
    rows_refused,
    rows_somewhere,
    run_corpus,
    summary,
)

pytestmark = pytest.mark.slow

CASES = corpus(load_study())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("corpus") / "home")


@pytest.fixture(scope="module")
def outcomes(home: Home) -> dict[str, Outcome]:
    """The whole corpus, dropped into one home, one file after the other."""
    return {outcome.case.name: outcome for outcome in run_corpus(home)}


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_dropped_file_becomes_what_it_must(outcomes: dict[str, Outcome], name: str):
    assert outcomes[name].problems == ()


def test_rows_in_are_rows_kept_in_quarantine_or_refused(outcomes: dict[str, Outcome], home: Home):
    """By a counter that shares no code with the project's readers."""
    study = load_study()
    came_in = sum(outcome.rows_in or 0 for outcome in outcomes.values())
    refused = sum(
        outcome.rows_in or 0 for outcome in outcomes.values() if isinstance(outcome.case.expected, Refused)
    )
    assert came_in > 20_000
    assert rows_refused(home, study) == refused > 5_000
    assert came_in == rows_somewhere(home, study) + refused


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
