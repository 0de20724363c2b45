"""Playing a scenario: drop a file, let the project react, look, drop the next one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poleng_assets.core.dropped_files import content_hash
from poleng_assets.core.warehouse import Warehouse
from poleng_assets.files import move, sync_tree
from poleng_assets.home import Home
from poleng_assets.resources.landing import Landing
from poleng_assets.simulation.scenarios import BatchRow, Drop, Scenario, batch_rows, drops, shortfalls
from poleng_assets.study import Study


@dataclass(frozen=True)
class Ending:
    """How a scenario ended.

    Attributes:
        dropped: how many files were dropped now; 0 when all were taken in before.
        rows: how its batches fared.
        faults: in what it did not end as it should.
    """

    dropped: int
    rows: Sequence[BatchRow]
    faults: Sequence[str]


def scenario_data(home: Home, study: Study, data: Path | None) -> Path:
    """Return the folder to play from: the one given, or a synthetic one, made once for each home."""
    if data is not None:
        return data
    folder = home.root / "simulation"
    if not folder.exists():
        from poleng_assets.simulation.population import write_scenario_data

        part = folder.with_name(".simulation.part")
        shutil.rmtree(part, ignore_errors=True)
        write_scenario_data(study, part)
        sync_tree(part)
        move(part, folder)
    return folder


def play(
    scenario: Scenario,
    data: Path,
    landing: Landing,
    warehouse: Warehouse,
    settle: Callable[[Drop], None],
) -> Ending:
    """Play a scenario to its end.

    Args:
        scenario: which one.
        data: folder with ``field_studies``, ``batches`` and perhaps ``outcomes``.
        landing: where files are dropped.
        warehouse: where the story can be read afterwards.
        settle: called after each drop; returns when the project has reacted.
    """
    story = drops(data, scenario)
    known = _known_files(warehouse)
    new = [one for one in story if (one.kind, content_hash(one.path)) not in known]
    for one in new:
        landing.submit(one.kind, one.path)
        settle(one)
    with warehouse.connect() as con:
        rows = batch_rows(con, [one.name for one in story if one.kind == "batches"])
        counted = con.execute(
            "SELECT count(*) FILTER (kind = 'promote'), count(*) FILTER (kind = 'retrain') FROM decisions"
        ).fetchall()[0]
    faults = shortfalls(scenario, story, rows, promotions=counted[0], retrainings=counted[1] - 1)
    return Ending(len(new), rows, faults)


def _known_files(warehouse: Warehouse) -> set[tuple[str, str]]:
    with warehouse.connect() as con:
        return set(con.execute("SELECT kind, content_hash FROM ingested_files").fetchall())
