"""The scenarios: their files in order, and their expected results.

``clean`` scores batches like the training data, ``drift`` has batches from unseen countries, ``full`` has
both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poleng_assets.storage.dropped_files import file_id, has_known_suffix
from poleng_assets.storage.home import Kind
from poleng_assets.warehouse.batch_overview import BatchRow

Scenario = Literal["clean", "drift", "full"]
SCENARIOS: tuple[Scenario, ...] = ("clean", "drift", "full")
FOUNDING_STUDY = "founding_study"
EXPECTED_CLEAN = ("clear", "insufficient")
EXPECTED_DRIFTED = ("drifted", "untrusted")


@dataclass(frozen=True)
class Drop:
    """A file to submit to landing."""

    kind: Kind
    path: Path

    @property
    def name(self) -> str:
        """The id in the file name."""
        return file_id(self.path.name)

    @property
    def is_drifted(self) -> bool:
        """Whether it is a batch from countries that are not in the founding study."""
        return self.kind == "batches" and self.name.startswith("drift_")

    @property
    def is_later_study(self) -> bool:
        """Whether it is a field study after the founding one."""
        return self.kind == "field_studies" and self.name != FOUNDING_STUDY


def drops(data: Path, scenario: Scenario) -> list[Drop]:
    """Return the files of a scenario in their order.

    The founding study is first, then clean batches, later field studies, drifted batches, and the outcomes
    of these batches.

    Raises:
        FileNotFoundError: the folder has no founding study, or no batch for the scenario.
    """
    later, founding = _partition(_files(data, "field_studies"), lambda drop: drop.is_later_study)
    if not founding:
        raise FileNotFoundError(f"{data / 'field_studies'} has no {FOUNDING_STUDY}.parquet or .csv")
    drifted, clean = _partition(_files(data, "batches"), lambda drop: drop.is_drifted)
    drifted, clean = drifted * (scenario != "clean"), clean * (scenario != "drift")
    if not drifted and not clean:
        raise FileNotFoundError(f"{data / 'batches'} has no batch for the scenario {scenario!r}")
    names = {drop.name for drop in (*clean, *drifted)}
    outcomes, _ = _partition(_files(data, "outcomes"), lambda drop: drop.name in names)
    return [*founding, *clean, *(later if drifted else ()), *drifted, *outcomes]


def _partition(drops: Sequence[Drop], belongs: Callable[[Drop], bool]) -> tuple[list[Drop], list[Drop]]:
    """Return the drops for which ``belongs`` is true, and the others."""
    return [drop for drop in drops if belongs(drop)], [drop for drop in drops if not belongs(drop)]


def unmet_expectations(
    dropped: Sequence[Drop], rows: Sequence[BatchRow], promotions: int, retrainings: int
) -> list[str]:
    """Return the differences from the expected result of a scenario; empty if there are none.

    Args:
        retrainings: trainings after the first one.
    """
    current = {row.batch: row for row in rows if row.current}
    first = {row.batch: row for row in reversed(rows)}
    batches, others = _partition(dropped, lambda drop: drop.kind == "batches")
    faults = [_fault_of_batch(drop, current.get(drop.name), first) for drop in batches]
    drifted = next((drop.name for drop in batches if drop.is_drifted), "")
    later = len(_partition(others, lambda drop: drop.is_later_study)[0])
    if drifted in first and first[drifted].verdict not in EXPECTED_DRIFTED:
        faults.append(f"{drifted} should be drifted or untrusted, but is {first[drifted].verdict}")
    if drifted and later:
        faults += _faults_of_retrainings(later, retrainings, promotions)
        again = current.get(drifted)
        if again and again.version == first[drifted].version:
            faults.append(f"{drifted} was not scored again by the new model")
    return list(filter(None, faults))


def _faults_of_retrainings(later_studies: int, retrainings: int, promotions: int) -> list[str]:
    faults = []
    if retrainings != later_studies:
        faults.append(f"{retrainings} retrainings, {later_studies} expected")
    if promotions < 1 + later_studies:
        faults.append("no better model was promoted after the drift")
    return faults


def _fault_of_batch(drop: Drop, row: BatchRow | None, first: Mapping[str, BatchRow]) -> str:
    if row is None:
        return f"{drop.name} has no report"
    if row.listed != row.flagged:
        return f"{drop.name}: {row.flagged} people are flagged, {row.listed} are on the list"
    if not drop.is_drifted and first[drop.name].verdict not in EXPECTED_CLEAN:
        return f"{drop.name} should be clear, but is {first[drop.name].verdict}"
    return ""


def _files(data: Path, kind: Kind) -> list[Drop]:
    folder = data / kind
    if not folder.is_dir():
        return []
    return [Drop(kind, path) for path in sorted(folder.iterdir()) if has_known_suffix(path.name)]
