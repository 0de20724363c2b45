"""The scenarios: which files are dropped in which order, and how each story must end.

``clean`` scores batches like the data the model knows, ``drift`` sends batches from unseen countries,
``full`` plays both. Who reacts to a dropped file (the daemon or the command line) stands elsewhere.
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
QUIET = ("clear", "insufficient")
LOUD = ("drifted", "untrusted")


@dataclass(frozen=True)
class Drop:
    """A file to drop into landing."""

    kind: Kind
    path: Path

    @property
    def name(self) -> str:
        """The id that the file name gives."""
        return file_id(self.path.name)

    @property
    def is_drifted(self) -> bool:
        """Whether it is a batch of people whom the founding study does not know."""
        return self.kind == "batches" and self.name.startswith("drift_")

    @property
    def is_later_study(self) -> bool:
        """Whether it is a field study to learn from after the founding one."""
        return self.kind == "field_studies" and self.name != FOUNDING_STUDY


def drops(data: Path, scenario: Scenario) -> list[Drop]:
    """Return the files of a scenario in the order in which they are dropped.

    The founding study comes first, clean batches before drifted ones, later field studies between
    the two, and outcomes, of the batches that were dropped, at the end.

    Raises:
        FileNotFoundError: the folder has no founding study, or no batch for the scenario.
    """
    later, founding = _parted(_files(data, "field_studies"), lambda drop: drop.is_later_study)
    if not founding:
        raise FileNotFoundError(f"{data / 'field_studies'} has no {FOUNDING_STUDY}.parquet or .csv")
    drifted, clean = _parted(_files(data, "batches"), lambda drop: drop.is_drifted)
    drifted, clean = drifted * (scenario != "clean"), clean * (scenario != "drift")
    if not drifted and not clean:
        raise FileNotFoundError(f"{data / 'batches'} has no batch for the scenario {scenario!r}")
    names = {drop.name for drop in (*clean, *drifted)}
    outcomes, _ = _parted(_files(data, "outcomes"), lambda drop: drop.name in names)
    return [*founding, *clean, *(later if drifted else ()), *drifted, *outcomes]


def _parted(drops: Sequence[Drop], belongs: Callable[[Drop], bool]) -> tuple[list[Drop], list[Drop]]:
    return [drop for drop in drops if belongs(drop)], [drop for drop in drops if not belongs(drop)]


def unmet_expectations(
    dropped: Sequence[Drop], rows: Sequence[BatchRow], promotions: int, retrainings: int
) -> list[str]:
    """Return in what a scenario did not end as it should; empty when it did."""
    current = {row.batch: row for row in rows if row.current}
    first = {row.batch: row for row in reversed(rows)}
    batches, others = _parted(dropped, lambda drop: drop.kind == "batches")
    faults = [_fault_of_batch(drop, current.get(drop.name), first) for drop in batches]
    drifted = next((drop.name for drop in batches if drop.is_drifted), "")
    later = len(_parted(others, lambda drop: drop.is_later_study)[0])
    if drifted in first and first[drifted].verdict not in LOUD:
        faults.append(f"{drifted} should be drifted or untrusted, and is {first[drifted].verdict}")
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
        return f"{drop.name}: {row.flagged} people are flagged, {row.listed} stand in the list"
    if not drop.is_drifted and first[drop.name].verdict not in QUIET:
        return f"{drop.name} should be clear, and is {first[drop.name].verdict}"
    return ""


def _files(data: Path, kind: Kind) -> list[Drop]:
    folder = data / kind
    if not folder.is_dir():
        return []
    return [Drop(kind, path) for path in sorted(folder.iterdir()) if has_known_suffix(path.name)]
