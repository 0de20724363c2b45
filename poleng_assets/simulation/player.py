"""Play a scenario: submit its files one by one, and run the pending work after each."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poleng_assets.simulation.scenarios import Drop, Scenario, drops, unmet_expectations
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.files import move, sync_tree
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.storage.landing import Landing
from poleng_assets.storage.synthetic import OtherPeople, claim_for_scenario, refuse_other_people
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.batch_overview import BatchRow, batch_overview
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import count_decisions
from poleng_assets.warehouse.files import content_hashes


@dataclass(frozen=True)
class Ending:
    """The result of a scenario.

    Attributes:
        dropped: number of files submitted now; 0 if all were already ingested.
        rows: the results of its batches.
        faults: differences from the expected result.
    """

    dropped: int
    rows: Sequence[BatchRow]
    faults: Sequence[str]


def scenario_data(home: Home, study: Study, data: Path | None) -> Path:
    """Return the data folder: the given one, or a synthetic one, which is generated once for each home.

    Raises:
        OtherPeople: the home has real people, and synthetic data was requested.
    """
    if data is not None:
        return data
    claim_for_scenario(home)
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
    scenario: Scenario,
    data: Path,
    landing: Landing,
    warehouse: Warehouse,
    run_pending: Callable[[Drop], None],
) -> Ending:
    """Play a scenario to its end.

    Args:
        data: folder with ``field_studies``, ``batches`` and perhaps ``outcomes``.
        warehouse: has the results.

    Raises:
        OtherPeople: the home contains, or has pending, files of other people than the folder.
        FileNotFoundError: the folder lacks a file of the scenario.
        FileExistsError: a file of that name is already in landing.
    """
    files = drops(data, scenario)
    known = _known_files(warehouse)
    _refuse_other_files(data, landing, known)
    for drop in files:
        refuse_other_people(landing.home, drop.path)
    new = [drop for drop in files if (drop.kind, content_hash(drop.path)) not in known]
    for drop in new:
        landing.submit(drop.kind, drop.path)
        run_pending(drop)
    with warehouse.connect() as con:
        rows = batch_overview(con, [drop.name for drop in files if drop.kind == "batches"])
        count = count_decisions(con)
    promotions, retrainings = count.get("promote", 0), count.get("retrain", 0) - 1
    faults = unmet_expectations(files, rows, promotions, retrainings)
    return Ending(len(new), rows, faults)


def _refuse_other_files(data: Path, landing: Landing, known: set[tuple[str, str]]) -> None:
    """Refuse a home with files of other people than those of the folder.

    Raises:
        OtherPeople: it has such files. Nothing was changed.
    """
    home = landing.home
    if data == home.simulation:
        return  # the home was claimed for synthetic people before they were generated
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
            f"{home.root} contains other people than {data}{waiting}: a scenario needs its own home. Choose "
            "another one: `poleng simulate --data FOLDER --home FOLDER`"
        )


def _known_files(warehouse: Warehouse) -> set[tuple[str, str]]:
    with warehouse.connect() as con:
        return content_hashes(con)
