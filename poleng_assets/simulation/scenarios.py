"""The scenarios: which files are dropped in which order, and how each story must end.

``clean`` scores batches like the data the model knows, ``drift`` sends batches from unseen countries,
``full`` plays both. Who reacts to a dropped file (the daemon or the command line) stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    studies, batches = _files(data, "field_studies"), _files(data, "batches")
    founding = [drop for drop in studies if not drop.is_later_study]
    if not founding:
        raise FileNotFoundError(f"{data / 'field_studies'} has no {FOUNDING_STUDY}.parquet or .csv")
    quiet = [drop for drop in batches if not drop.is_drifted and scenario != "drift"]
    loud = [drop for drop in batches if drop.is_drifted and scenario != "clean"]
    if not quiet and not loud:
        raise FileNotFoundError(f"{data / 'batches'} has no batch for the scenario {scenario!r}")
    later = [drop for drop in studies if drop.is_later_study and loud]
    wanted = {drop.name for drop in (*quiet, *loud)}
    outcomes = [drop for drop in _files(data, "outcomes") if drop.name in wanted]
    return [*founding, *quiet, *later, *loud, *outcomes]


def unmet_expectations(
    dropped: Sequence[Drop], rows: Sequence[BatchRow], promotions: int, retrainings: int
) -> list[str]:
    """Return in what a scenario did not end as it should; empty when it did.

    Args:
        dropped: its files.
        rows: how the batches fared.
        promotions: versions promoted in this home.
        retrainings: trainings after the first one.
    """
    current = {row.batch: row for row in rows if row.current}
    first = {row.batch: row for row in reversed(rows)}
    faults = [
        fault
        for drop in dropped
        if drop.kind == "batches" and (fault := _fault_of_batch(drop, current.get(drop.name), first))
    ]
    loud = next((drop.name for drop in dropped if drop.is_drifted), None)
    later = sum(drop.is_later_study for drop in dropped)
    if loud in first and first[loud].verdict not in LOUD:
        faults.append(f"{loud} should be drifted or untrusted, and is {first[loud].verdict}")
    if loud and later:
        if retrainings != later:
            faults.append(f"{retrainings} retrainings, {later} expected")
        if promotions < 1 + later:
            faults.append("no better model was promoted after the drift")
        if loud in current and current[loud].version == first[loud].version:
            faults.append(f"{loud} was not scored again by the new model")
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
