"""Playing a scenario: drop a file, let the project react, look, drop the next one."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poleng_assets.simulation.scenarios import Drop, Scenario, drops, unmet_expectations
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.files import move, sync_tree
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.storage.landing import Landing
from poleng_assets.storage.synthetic import OtherPeople, claim_for_story, refuse_other_people
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.batch_overview import BatchRow, batch_overview
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import count_decisions
from poleng_assets.warehouse.files import content_hashes


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
    """Return the folder to play from: the one given, or a synthetic one, made once for each home.

    Raises:
        OtherPeople: the home holds real people, and a synthetic one was asked for.
    """
    if data is not None:
        return data
    claim_for_story(home)
    folder = home.simulation
    if not folder.exists():
        from poleng_assets.simulation.population import write_scenario_data

        part = folder.with_name(".simulation.part")
        shutil.rmtree(part, ignore_errors=True)
        write_scenario_data(study, part, marked=True)
        sync_tree(part)
        move(part, folder)
    return folder


def play_scenario(
    scenario: Scenario, data: Path, landing: Landing, warehouse: Warehouse, settle: Callable[[Drop], None]
) -> Ending:
    """Play a scenario to its end.

    Args:
        data: folder with ``field_studies``, ``batches`` and perhaps ``outcomes``.
        warehouse: where the story can be read afterwards.
        settle: called after each drop; returns when the project has reacted.

    Raises:
        OtherPeople: other people than those of the folder are, or wait, in the home.
        FileNotFoundError: the folder lacks what the scenario needs.
        FileExistsError: a file of that name waits in landing.
    """
    story = drops(data, scenario)
    known = _known_files(warehouse)
    _see_that_nobody_else_is_there(data, landing, known)
    for drop in story:
        refuse_other_people(landing.home, drop.path)
    new = [drop for drop in story if (drop.kind, content_hash(drop.path)) not in known]
    for drop in new:
        landing.submit(drop.kind, drop.path)
        settle(drop)
    with warehouse.connect() as con:
        rows = batch_overview(con, [drop.name for drop in story if drop.kind == "batches"])
        count = count_decisions(con)
    promotions, retrainings = count.get("promote", 0), count.get("retrain", 0) - 1
    faults = unmet_expectations(story, rows, promotions, retrainings)
    return Ending(len(new), rows, faults)


def _see_that_nobody_else_is_there(data: Path, landing: Landing, known: set[tuple[str, str]]) -> None:
    """Refuse to play in a home that holds files of anybody but the folder's people.

    Raises:
        OtherPeople: it does. Nothing was changed.
    """
    home = landing.home
    if data == home.simulation:
        return  # it was claimed for them before they were made
    own = {
        (kind, content_hash(file))
        for kind in KINDS
        for file in sorted((data / kind).glob("*"))
        if file.is_file()
    }
    others = sorted(
        str(file.relative_to(home.root))
        for kind in KINDS
        for file in landing.waiting(kind)
        if file.is_file() and (kind, content_hash(file)) not in own
    )
    if others or not known <= own:
        waiting = f" ({', '.join(others)})" if others else ""
        raise OtherPeople(
            f"{home.root} holds other people than those of {data}{waiting}: a scenario is played in a home "
            "of its own. Name another one: `poleng simulate --data FOLDER --home FOLDER`"
        )


def _known_files(warehouse: Warehouse) -> set[tuple[str, str]]:
    with warehouse.connect() as con:
        return content_hashes(con)
