"""How each story is played, and in what an ending may disappoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from poleng_assets.simulation.scenarios import Drop, Scenario, drops, unmet_expectations
from poleng_assets.warehouse.batch_overview import BatchRow

FILES = {
    "field_studies": ["founding_study.csv", "later.csv"],
    "batches": ["clean_1.csv", "drift_1.csv"],
    "outcomes": ["clean_1.csv", "drift_1.csv"],
}
CLEAN = BatchRow("clean_1", 1, 100, "clear", 0, 0.7, None, 30, 30, current=True, issued=1)
FIRST = BatchRow("drift_1", 1, 100, "untrusted", 2, 0.6, None, 40, 0, current=False)
AGAIN = replace(FIRST, version=2, verdict="clear", listed=40, current=True, issued=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for kind, names in FILES.items():
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).touch()
    return tmp_path


def story(data: Path, scenario: Scenario) -> list[str]:
    return [f"{drop.kind}/{drop.name}" for drop in drops(data, scenario)]


def test_each_scenario_drops_its_files_in_order(data: Path):
    full = story(data, "full")
    assert full == [
        "field_studies/founding_study", "batches/clean_1", "field_studies/later", "batches/drift_1",
        "outcomes/clean_1", "outcomes/drift_1",
    ]  # fmt: skip
    assert story(data, "clean") == [full[0], full[1], full[4]]
    assert story(data, "drift") == [full[0], full[2], full[3], full[5]]


@pytest.mark.parametrize(
    ("missing", "said"), [("founding_study", "no founding_study"), ("clean_1", "no batch")]
)
def test_a_folder_that_lacks_what_a_scenario_needs_is_refused(data: Path, missing: str, said: str):
    for path in data.rglob(f"{missing}.csv"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=said):
        drops(data, "clean")


@pytest.mark.parametrize(
    ("rows", "promotions", "retrainings", "faults"),
    [
        ([CLEAN, FIRST, AGAIN], 2, 1, []),
        ([FIRST, AGAIN], 2, 1, ["clean_1 has no report"]),
        ([replace(CLEAN, listed=29), FIRST, AGAIN], 2, 1, ["clean_1: 30 people are flagged, 29 are on"]),
        ([replace(CLEAN, verdict="drifted"), FIRST, AGAIN], 2, 1, ["clean_1 should be clear"]),
        (
            [CLEAN, replace(AGAIN, version=1)], 1, 0,
            ["drift_1 should be drifted", "0 retrainings, 1", "no better model", "drift_1 was not scored"],
        ),
    ],
)  # fmt: skip
def test_an_ending_that_is_not_as_it_should_be_is_told(
    data: Path, rows: list[BatchRow], promotions: int, retrainings: int, faults: list[str]
):
    dropped: list[Drop] = drops(data, "full")
    unmet = unmet_expectations(dropped, rows, promotions, retrainings)
    assert len(unmet) == len(faults)
    assert all(fault.startswith(begin) for fault, begin in zip(unmet, faults, strict=True))
