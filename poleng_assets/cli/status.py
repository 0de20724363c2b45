"""``poleng status``: the champion, what waits, and how each batch fared."""

import json
from pathlib import Path
from typing import Any, get_args

import click

from poleng_assets.cli.batch_table import batch_facts, batch_table
from poleng_assets.cli.console import (
    console,
    home_option,
    open_home,
    open_landing,
    read_warehouse,
    reading,
    styled,
)
from poleng_assets.storage.home import Home, Kind
from poleng_assets.storage.home_study import study_of
from poleng_assets.text.plain_text import in_one_line

SYNTHETIC_NOTE = ", with the synthetic people of `poleng simulate`"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@home_option
def status(as_json: bool, home_folder: Path | None) -> None:
    """Show the champion, pending files and the result of each batch."""
    home = open_home(home_folder)
    facts = _status(home)
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    console.print(f"Home {home.root}{SYNTHETIC_NOTE if facts['people'] == 'made-up' else ''}")
    champion = facts["champion_version"]
    console.print(f"Champion: {f'version {champion}' if champion else 'none yet'}")
    if facts["champion_in_doubt"]:
        console.print(styled("red", "Problem:"), facts["champion_in_doubt"])
    elif champion is None:
        console.print(_next_step(home, facts["landing"]))
    if facts["clock_in_doubt"]:
        console.print(styled("red", "The clock is in doubt:"), f"{facts['clock_in_doubt']}.")
    _show_folders(facts)
    if facts["quarantined_rows"]:
        console.print(f"Rows in quarantine: {facts['quarantined_rows']}")
    if facts["batches"]:
        console.print(batch_table(facts["batches"]))
    for erasure in sorted({row["list_erased"] for row in facts["batches"] if row["list_erased"]}):
        batches = {row["batch"]: None for row in facts["batches"] if row["list_erased"] == erasure}
        console.print(f"Contact lists of {', '.join(batches)}: {erasure}.")


def _show_folders(facts: dict[str, Any]) -> None:
    for kind, names in facts["landing"].items():
        if names:
            console.print(f"Pending in landing/{kind}: {', '.join(map(in_one_line, names))}")
    for kind, skipped in facts["landing_left_alone"].items():
        for name, why in skipped.items():
            console.print(f"Skipped in landing/{kind}: {in_one_line(name)}: {in_one_line(why)}")
    for kind, names in facts["rejected"].items():
        if names:
            console.print(f"Rejected, see rejected/{kind}: {', '.join(map(in_one_line, names))}")
    for name, when in facts["withdrawn"].items():
        console.print(f"Withdrawn: {name}, on {when:%Y-%m-%d %H:%M} UTC")
    if facts["champion_learned_from_withdrawn"]:
        console.print(f"{facts['champion_learned_from_withdrawn']}: `poleng retrain` trains without it")


def _next_step(home: Home, landing: dict[str, list[str]]) -> str:
    if landing["field_studies"]:
        return "`poleng run-pending` ingests the pending files and trains the first one, or `poleng dev`."
    return (
        f"Put a field study into {home.landing('field_studies')}: `poleng run-pending` or a running "
        "`poleng dev` trains the first champion on it. `poleng simulate full` plays a scenario with "
        "synthetic people."
    )


def _status(home: Home) -> dict[str, Any]:
    from poleng_assets.models.registry import CHAMPION, Registry
    from poleng_assets.warehouse.batch_overview import batch_overview
    from poleng_assets.warehouse.quarantine import count_quarantined

    champion = Registry(home, study_of(home)).alias(CHAMPION) if (home.root / "mlflow.db").exists() else None
    landing = {kind: _landing_files(home, kind) for kind in get_args(Kind)}
    return {
        "home": str(home.root),
        "champion_version": champion.version if champion else None,
        "champion_in_doubt": _champion_in_doubt(home, champion.version if champion else None),
        "landing": {kind: [path.name for path in landing[kind][0]] for kind in get_args(Kind)},
        "landing_left_alone": {kind: landing[kind][1] for kind in get_args(Kind)},
        "rejected": {kind: _names(home.rejected(kind), hide=".reason.txt") for kind in get_args(Kind)},
        "quarantined_rows": read_warehouse(home, count_quarantined) or 0,
        "clock_in_doubt": _clock_in_doubt(home),
        **people_and_studies(home),
        "batches": [batch_facts(row) for row in read_warehouse(home, batch_overview) or []],
    }


def _landing_files(home: Home, kind: Kind) -> tuple[list[Path], dict[str, str]]:
    """Return the pending files in landing, and the reason for each skipped one."""
    landing = open_landing(home)
    skipped = landing.look(kind).left
    if trouble := landing.test_access(kind):
        skipped = {f"landing/{kind}": trouble}
    return [path for path in landing.waiting(kind) if path.name not in skipped], skipped


def people_and_studies(home: Home) -> dict[str, Any]:
    """Return whether people are real or synthetic, the withdrawn studies, and if the champion used them."""
    from poleng_assets.core.ingestion.withdrawal import in_doubt, withdrawn
    from poleng_assets.models.registry import CHAMPION, Registry
    from poleng_assets.storage.synthetic import sort_of_home

    facts: dict[str, Any] = {
        "people": sort_of_home(home),
        "withdrawn": {},
        "champion_learned_from_withdrawn": "",
    }
    if not home.warehouse.exists():
        return facts
    with reading(home) as con:
        facts["withdrawn"] = withdrawn(con)
        if facts["withdrawn"] and (home.root / "mlflow.db").exists():
            champion = Registry(home, study_of(home)).alias(CHAMPION)
            if champion:
                facts["champion_learned_from_withdrawn"] = in_doubt(
                    con, champion.version, champion.field_studies
                )
    return facts


def _champion_in_doubt(home: Home, alias: int | None) -> str:
    """Return how the registry contradicts the ledger; empty if it does not."""
    from poleng_assets.core.promotion.serving_decision import registry_conflict
    from poleng_assets.warehouse.decisions import serving_decision

    if not home.warehouse.exists():
        return ""
    decision = read_warehouse(home, serving_decision)
    if decision is not None and not (home.root / "mlflow.db").exists():
        return (
            f"the ledger says that version {decision.version} serves, but the model registry "
            f"{home.root / 'mlflow.db'} is missing. Restore a backup (`poleng restore`)"
        )
    return registry_conflict(decision, alias)


def _clock_in_doubt(home: Home) -> str:
    from poleng_assets.defs.clock import clock_in_doubt
    from poleng_assets.defs.instance import open_instance

    with open_instance(home) as instance:
        if not home.warehouse.exists():
            return clock_in_doubt(instance, home)
        with reading(home) as con:
            return clock_in_doubt(instance, home, con)


def _names(folder: Path, hide: str = ".part") -> list[str]:
    return sorted(
        p.name for p in folder.iterdir() if not p.name.startswith(".") and not p.name.endswith(hide)
    )
