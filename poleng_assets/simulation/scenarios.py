"""The scenarios: which files are dropped in which order, and how each story must end.

``clean`` scores batches like the data the model knows, ``drift`` sends batches from unseen countries,
``full`` plays both. Who reacts to a dropped file (the daemon or the command line) stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def drops(data: Path, scenario: Scenario) -> list[Drop]:
    """Return the files of a scenario in the order in which they are dropped.

    The founding study comes first, clean batches before drifted ones, later field studies between
    the two, and outcomes, of the batches that were dropped, at the end.

    Raises:
        FileNotFoundError: the folder has no founding study, or no batch for the scenario.
    """
    studies = _files(data / "field_studies")
    founding = [path for path in studies if file_id(path.name) == FOUNDING_STUDY]
    if not founding:
        raise FileNotFoundError(f"{data / 'field_studies'} has no {FOUNDING_STUDY}.parquet or .csv")
    batches = _files(data / "batches")
    drifted = [path for path in batches if file_id(path.name).startswith("drift_")]
    clean = [path for path in batches if path not in drifted]
    quiet = [] if scenario == "drift" else clean
    loud = [] if scenario == "clean" else drifted
    if not quiet and not loud:
        raise FileNotFoundError(f"{data / 'batches'} has no batch for the scenario {scenario!r}")
    later = [path for path in studies if path not in founding] if loud else []
    wanted = {file_id(path.name) for path in [*quiet, *loud]}
    outcomes = [path for path in _files(data / "outcomes") if file_id(path.name) in wanted]
    return [
        *(Drop("field_studies", path) for path in founding),
        *(Drop("batches", path) for path in quiet),
        *(Drop("field_studies", path) for path in later),
        *(Drop("batches", path) for path in loud),
        *(Drop("outcomes", path) for path in outcomes),
    ]


def shortfalls(
    scenario: Scenario,
    dropped: Sequence[Drop],
    rows: Sequence[BatchRow],
    promotions: int,
    retrainings: int,
) -> list[str]:
    """Return in what the scenario did not end as it should; empty when all is well.

    Args:
        scenario: that was played.
        dropped: its files.
        rows: how the batches fared.
        promotions: versions promoted in this home.
        retrainings: trainings after the first one.
    """
    faults = []
    current = {row.batch: row for row in rows if row.current}
    first = {row.batch: row for row in reversed(rows)}
    for drop in (one for one in dropped if one.kind == "batches"):
        row = current.get(drop.name)
        if row is None:
            faults.append(f"{drop.name} has no report")
        elif row.listed != row.flagged:
            faults.append(f"{drop.name}: {row.flagged} people are flagged, {row.listed} stand in the list")
        elif not drop.name.startswith("drift_") and first[drop.name].verdict not in QUIET:
            faults.append(f"{drop.name} should be clear, and is {first[drop.name].verdict}")
    loud = [one.name for one in dropped if one.kind == "batches" and one.name.startswith("drift_")]
    later = [one for one in dropped if one.kind == "field_studies" and one.name != FOUNDING_STUDY]
    if loud and loud[0] in first and first[loud[0]].verdict not in LOUD:
        faults.append(f"{loud[0]} should be drifted or untrusted, and is {first[loud[0]].verdict}")
    if loud and later:
        if retrainings != len(later):
            faults.append(f"{retrainings} retrainings, {len(later)} expected")
        if promotions < 1 + len(later):
            faults.append("no better model was promoted after the drift")
        if loud[0] in current and current[loud[0]].version == first[loud[0]].version:
            faults.append(f"{loud[0]} was not scored again by the new model")
    return faults


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if has_known_suffix(path.name))
