"""``poleng``: the same definitions, sensors and instance as the UI, from a shell."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.table import Table

from poleng_assets.cli.backup import backup, restore
from poleng_assets.cli.check_archive import check_archive
from poleng_assets.cli.clock import clock
from poleng_assets.cli.console import (
    console,
    fault_in_words,
    home_option,
    instance_beside_daemon,
    instance_without_daemon,
    open_conductor,
    open_home,
    open_warehouse,
    reading,
    show_run,
    styled,
)
from poleng_assets.cli.dev import dev
from poleng_assets.cli.forget import forget
from poleng_assets.cli.mlflow import mlflow
from poleng_assets.cli.notify import notify
from poleng_assets.cli.quarantine import quarantine
from poleng_assets.cli.recover import recover
from poleng_assets.cli.retention import retention
from poleng_assets.cli.serve import serve
from poleng_assets.storage.home import Home, HomeRefused, Kind
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import StudyError
from poleng_assets.text.plain_text import in_one_line, visible

if TYPE_CHECKING:
    from poleng_assets.simulation.player import Ending
    from poleng_assets.simulation.scenarios import BatchRow

MADE_UP_WORDS = ", which holds the made-up people of `poleng simulate`"
KINDS: dict[str, Kind] = {"batch": "batches", "study": "field_studies", "outcomes": "outcomes"}


class _Boundary(click.Group):
    """Says what is wrong with a study file or the machine, not where in the code it was noticed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (StudyError, HomeRefused) as error:
            raise click.ClickException(visible(str(error))) from error
        except click.ClickException as error:
            vars(error)["message"] = visible(error.message)
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            words = fault_in_words(error)
            if not words:
                raise
            raise click.ClickException(visible(words)) from error


@click.group(cls=_Boundary, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Find politically disengaged people, and watch over the model that finds them."""
    os.umask(0o077)  # whatever is written from here on is its owner's alone
    warnings.simplefilter("ignore")
    for name in ("alembic", "mlflow", "dagster"):
        logging.getLogger(name).setLevel(logging.ERROR)


@main.command()
@click.argument("scenario", type=click.Choice(["clean", "drift", "full"]), default="full")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with field_studies, batches and outcomes; without it the synthetic population is used.",
)
@home_option
def simulate(scenario: Any, data: Path | None, home_folder: Path | None) -> None:
    """Play a scenario: drop its files one by one, let the sensors react, and show how it ended."""
    from poleng_assets.simulation.player import play, scenario_data
    from poleng_assets.storage.synthetic import OtherPeople

    started = time.monotonic()
    home = open_home(home_folder)
    with open_conductor(home) as conductor:
        try:
            folder = scenario_data(home, load_study(), data)
        except OtherPeople as error:
            raise click.ClickException(str(error)) from error
        landing, warehouse = _landing(home), open_warehouse(home)
        console.print("Scenario", styled("bold", scenario), f"with {folder}, home {home.root}\n")

        def settle(drop: Any) -> None:
            console.print(styled("bold", in_one_line(drop.path.name)), f"dropped into landing/{drop.kind}")
            conductor.settle()

        try:
            ending = play(scenario, folder, landing, warehouse, settle)
        except (FileNotFoundError, FileExistsError, OtherPeople) as error:
            raise click.ClickException(str(error)) from error
        waiting = [f"{name}: {words}" for name, words in conductor.skips.items() if "Waiting" in words]
    _show_ending(ending, waiting)
    console.print(f"\n{time.monotonic() - started:.0f} s. See it all in the UI: {_dev_hint(home)}")
    sys.exit(1 if ending.faults else 0)


@main.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
def submit(kind: str, file: Path, home_folder: Path | None) -> None:
    """Drop a file into landing. The daemon (`make dev`) takes it in; without one it waits there."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.storage.synthetic import OtherPeople, refuse_other_people

    home = open_home(home_folder)
    try:
        refuse_other_people(home, file)
        target = _landing(home).submit(KINDS[kind], file)
    except (FileExistsError, OtherPeople) as error:
        raise click.ClickException(str(error)) from error
    with open_instance(home) as instance:
        watched = daemon_is_running(instance)
    console.print(f"Dropped as {target}.")
    console.print(
        "The daemon will take it in." if watched else f"No daemon runs. Start it: {_dev_hint(home)}"
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@home_option
def status(as_json: bool, home_folder: Path | None) -> None:
    """Show the champion, what waits, and how each batch fared."""
    home = open_home(home_folder)
    facts = _status(home)
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    console.print(f"Home {home.root}{MADE_UP_WORDS if facts['people'] == 'made-up' else ''}")
    champion = facts["champion_version"]
    console.print(f"Champion: {f'version {champion}' if champion else 'none yet'}")
    if facts["champion_in_doubt"]:
        console.print(styled("red", "Not as it should be:"), facts["champion_in_doubt"])
    elif champion is None:
        console.print(_next_step(home, facts["landing"]))
    if facts["clock_in_doubt"]:
        console.print(styled("red", "The clock is in doubt:"), f"{facts['clock_in_doubt']}.")
    _show_folders(facts)
    if facts["quarantined_rows"]:
        console.print(f"Rows in quarantine: {facts['quarantined_rows']}")
    if facts["batches"]:
        console.print(_batch_table(facts["batches"]))
    for words in sorted({row["list_erased"] for row in facts["batches"] if row["list_erased"]}):
        batches = {row["batch"]: None for row in facts["batches"] if row["list_erased"] == words}
        console.print(f"Contact lists of {', '.join(batches)}: {words}.")


def _show_folders(facts: dict[str, Any]) -> None:
    """Tell what waits, what is left alone and what was refused."""
    for kind, names in facts["landing"].items():
        if names:
            console.print(f"Waiting in landing/{kind}: {', '.join(map(in_one_line, names))}")
    for kind, left in facts["landing_left_alone"].items():
        for name, why in left.items():
            console.print(f"Left alone in landing/{kind}: {in_one_line(name)}: {in_one_line(why)}")
    for kind, names in facts["rejected"].items():
        if names:
            console.print(f"Refused, see rejected/{kind}: {', '.join(map(in_one_line, names))}")
    for name, when in facts["withdrawn"].items():
        console.print(f"Withdrawn: {name}, on {when:%Y-%m-%d %H:%M} UTC")
    if facts["champion_learned_from_withdrawn"]:
        console.print(f"{facts['champion_learned_from_withdrawn']}: `poleng retrain` trains without it")


def _next_step(home: Home, landing: dict[str, list[str]]) -> str:
    """Return what lets a home without a champion have one."""
    if landing["field_studies"]:
        return "`poleng settle` takes in what waits and trains the first one; `poleng dev` does so by itself."
    return (
        f"Put a field study into {home.landing('field_studies')}: the first champion is trained on "
        "it by `poleng settle`, or by `poleng dev` while that runs. `poleng simulate full` plays a story "
        "with made-up people."
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all evidence, for machines.")
@home_option
def decisions(as_json: bool, home_folder: Path | None) -> None:
    """Show the ledger: every retraining, promotion, hold, rejection and skip, oldest first."""
    columns = ["decided_at", "kind", "champion_version", "challenger_version", "batch", "reason", "evidence"]
    rows = _query(open_home(home_folder), f"SELECT {', '.join(columns)} FROM decisions ORDER BY decided_at")  # noqa: S608
    if as_json:
        listed = [dict(zip(columns, row, strict=True)) for row in rows]
        for one in listed:
            one["evidence"] = json.loads(one["evidence"])
        click.echo(json.dumps(listed, indent=2, default=str))
        return
    table = Table("when (UTC)", "decision", "champion", "challenger", "batch", "why")
    for when, kind, champion, challenger, batch, why, _ in rows:
        table.add_row(
            f"{when:%Y-%m-%d %H:%M:%S}", kind, _cell(champion), _cell(challenger), _cell(batch), why
        )
    console.print(table)


@main.command()
@home_option
def settle(home_folder: Path | None) -> None:
    """Do all that waits to be done, without a daemon: take files in, score, retrain, make lists."""
    from poleng_assets.defs.run_history import forgive

    with open_conductor(open_home(home_folder)) as conductor:
        # Who asks by hand has mended what was wrong, or wants to see it.
        forgive(conductor.instance)
        reports = conductor.settle()
        for name, words in conductor.skips.items():
            console.print(styled("dim", f"{name}: {words}"))
    if not all(report.success for report in reports):
        sys.exit(1)


@main.command()
@home_option
def retry(home_folder: Path | None) -> None:
    """Say that what was wrong is mended: what failed again and again is tried anew, without the pause."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.defs.run_history import forgive

    home = open_home(home_folder)
    with open_instance(home) as instance:
        forgive(instance)
        watched = daemon_is_running(instance)
    console.print("The daemon tries it again." if watched else f"No daemon runs. Start it: {_dev_hint(home)}")


@main.command()
@click.option("--mode", type=click.Choice(["quick", "full"]), help="How long to search; see the study.")
@click.option("--reason", default="asked for on the command line", show_default=True)
@home_option
def retrain(mode: str | None, reason: str, home_folder: Path | None) -> None:
    """Train a challenger on all field studies, and let it serve if it is truly better.

    A full search tells how long it will take. Interrupt it when you like: it is kept, and the next
    retraining on the same data goes on where it was.
    """
    from poleng_assets.defs.jobs import RETRAIN_JOB
    from poleng_assets.defs.run_history import bury_dead_runs

    with open_conductor(open_home(home_folder)) as conductor:
        bury_dead_runs(conductor.instance)
        ops = {
            "training_data": {"config": {"reason": reason}},
            "challenger": {"config": {"mode": mode or ""}},
        }
        report = conductor.run(RETRAIN_JOB, run_config={"ops": ops}, told=True)
    if not report.success:
        sys.exit(1)


@main.command()
@click.option(
    "--to", "version", type=int, default=0, help="Version that is to serve; by default the one before."
)
@click.option("--reason", default="asked for on the command line", show_default=True)
@click.option("--score-again", is_flag=True, help="Score again what the version taken back had scored.")
@home_option
def rollback(version: int, reason: str, score_again: bool, home_folder: Path | None) -> None:
    """Let an earlier version serve again, with its own reference."""
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import daemon_is_running
    from poleng_assets.defs.rollback import ROLLBACK_JOB
    from poleng_assets.headless.runner import Conductor

    home = open_home(home_folder)
    with instance_beside_daemon(home) as instance:
        conductor = Conductor(build_defs(home=home), instance, show_run)
        settings = {"to": version, "reason": reason, "score_again": score_again}
        report = conductor.run(ROLLBACK_JOB, run_config={"ops": {"put_back": {"config": settings}}})
        if not report.success:
            sys.exit(1)
        if score_again and daemon_is_running(instance):
            console.print("The daemon will score the batches again.")
        elif score_again:
            conductor.settle()


@main.command()
@click.argument("study")
@click.option("--reason", default="asked for on the command line", show_default=True)
@click.option("--undo", is_flag=True, help="Let a withdrawn study count again.")
@home_option
def withdraw(study: str, reason: str, undo: bool, home_folder: Path | None) -> None:
    """Learn from field study STUDY no more, and judge no model by it.

    Its rows and its file are kept. If the champion learned from it, a model is trained without it. The name
    of a study means all its versions, NAME@2 only that one.
    """
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import daemon_is_running
    from poleng_assets.defs.withdrawal import WITHDRAW_JOB
    from poleng_assets.headless.runner import Conductor

    home = open_home(home_folder)
    with instance_beside_daemon(home) as instance:
        conductor = Conductor(build_defs(home=home, settle_seconds=0.0), instance, show_run)
        settings = {"study": study, "reason": reason, "undo": undo}
        report = conductor.run(WITHDRAW_JOB, run_config={"ops": {"mark_as_withdrawn": {"config": settings}}})
        if not report.success:
            sys.exit(1)
        watched = daemon_is_running(instance)
    facts = _people_and_studies(home)
    console.print(f"{study} {'counts again' if undo else 'is withdrawn'}. Its rows and its file are kept.")
    if facts["champion_learned_from_withdrawn"]:
        how = "The daemon trains" if watched else "`poleng settle` (or `poleng retrain`) trains"
        console.print(f"{facts['champion_learned_from_withdrawn']}. {how} without it.")


@main.command()
@click.argument("subject")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@home_option
def why(subject: str, as_json: bool, home_folder: Path | None) -> None:
    """Tell how SUBJECT was scored, on which lists they stood, and how that model came to decide."""
    from poleng_assets.core.contacts.contact_history import history_of
    from poleng_assets.core.data.subject_ids import alike_in_warehouse, plain_id
    from poleng_assets.warehouse.erasures import erasures_of, summary

    home, study = open_home(home_folder), load_study()
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: nobody was scored.")
    with reading(home) as con:
        history = history_of(con, study, subject)
        alike = "" if history else alike_in_warehouse(con, study, [plain_id(subject)]).in_words()
        erased = [] if history else summary(erasures_of(con, "predictions"))
    if not history:
        words = [f"{subject} stands in no batch of {home.root}.", *([f"{alike}."] if alike else [])]
        words += [f"{one}: whether they stood among them can no longer be told." for one in erased]
        raise click.ClickException("\n".join(words))
    if as_json:
        click.echo(json.dumps([vars(one) for one in history], indent=2, default=str))
        return
    for one in history:
        console.print(one.in_words())


@main.command()
@click.argument("batch")
@click.option("--version", type=int, help="Of the model; by default the one whose scores are current.")
@home_option
def report(batch: str, version: int | None, home_folder: Path | None) -> None:
    """Make the report of BATCH again from the warehouse, with the outcomes that are known by now.

    Any version that scored the batch can be asked for, one that was rolled back as well. The verdict is
    the one that was acted upon.
    """
    from poleng_assets.core.monitoring.batch_report import recall, scoring_version
    from poleng_assets.core.monitoring.realised_performance import realised
    from poleng_assets.defs.assets.monitoring import write_report
    from poleng_assets.models.registry import Registry
    from poleng_assets.warehouse.erasures import Erasures

    home, study = open_home(home_folder), load_study()
    if not home.warehouse.exists():
        raise click.ClickException(f"{home.root} has no warehouse yet: no batch was scored.")
    with reading(home) as con:
        number = version or scoring_version(con, batch)
        erased = Erasures(con, "predictions").of(batch)
        if number is None and erased:
            raise click.ClickException(f"The scores of {batch} were {erased.in_words()}.")
        if number is None:
            raise click.ClickException(f"{batch} is not scored in {home.root}.")
        try:
            registry = Registry(home, study)
            reference = registry.reference(registry.version(number))
            outcomes = realised(con, study, batch, number, reference)
            seen = recall(con, study, batch, number, reference, outcomes)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
    path = write_report(home, study, seen)
    console.print(f"{batch}, version {number}: {seen.judgement.verdict}. See {path}")


@main.command()
@click.option("--confirm", metavar="NAME", help="Name of the home's folder; without it you are asked for it.")
@click.option("--yes", is_flag=True, hidden=True)  # of earlier releases; it says too little now
@home_option
def reset(confirm: str | None, yes: bool, home_folder: Path | None) -> None:
    """Empty the home folder: files, warehouse, models, lists, reports and history.

    It wants the name of the home's folder typed, so that nobody empties another one than they mean.
    """
    from poleng_assets.operations.reset import (
        ResetRefused,
        reset_data,
        reset_history,
        see_that_it_is_meant,
    )

    home = open_home(home_folder)
    with instance_without_daemon(home):
        if confirm is None and not yes:
            console.print(f"This removes everything that the project keeps in {home.root}.")
            confirm = click.prompt(f"Type the name of that folder ({home.root.name}) to go on", default="")
        try:
            see_that_it_is_meant(home, confirm or "")
        except ResetRefused as refusal:
            raise click.ClickException(str(refusal)) from refusal
        reset_data(home)
        reset_history(home)
        home.create()
    console.print(f"{home.root} is empty again.")


def _landing(home: Home) -> Any:
    from poleng_assets.defs.resources.landing import Landing

    return Landing(home, settle_seconds=0.0)


def _query(home: Home, sql: str) -> list[tuple[Any, ...]]:
    """Read from the warehouse; nothing when there is none yet."""
    if not home.warehouse.exists():
        return []
    with reading(home) as con:
        return con.execute(sql).fetchall()


def _status(home: Home) -> dict[str, Any]:
    from poleng_assets.models.registry import CHAMPION, Registry

    champion = Registry(home, load_study()).alias(CHAMPION) if (home.root / "mlflow.db").exists() else None
    quarantined = _query(home, "SELECT count(DISTINCT (source, row_number)) FROM quarantine")
    looks = {kind: _look(home, kind) for kind in get_args(Kind)}
    return {
        "home": str(home.root),
        "champion_version": champion.version if champion else None,
        "champion_in_doubt": _champion_in_doubt(home, champion.version if champion else None),
        "landing": {kind: [path.name for path in looks[kind][0]] for kind in get_args(Kind)},
        "landing_left_alone": {kind: looks[kind][1] for kind in get_args(Kind)},
        "rejected": {kind: _names(home.rejected(kind), hide=".reason.txt") for kind in get_args(Kind)},
        "quarantined_rows": quarantined[0][0] if quarantined else 0,
        "clock_in_doubt": _clock_in_doubt(home),
        **_people_and_studies(home),
        "batches": [_batch_facts(row) for row in _all_batch_rows(home)],
    }


def _look(home: Home, kind: Kind) -> tuple[list[Path], dict[str, str]]:
    """Return the files that wait in landing, and what nothing can be done with, each with why."""
    landing = _landing(home)
    left = landing.look(kind).left
    if trouble := landing.try_out(kind):
        left = {f"landing/{kind}": trouble}
    return [path for path in landing.waiting(kind) if path.name not in left], left


def _people_and_studies(home: Home) -> dict[str, Any]:
    """Return whose people a home holds, its withdrawn field studies, and whether the champion knew them."""
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
            champion = Registry(home, load_study()).alias(CHAMPION)
            if champion:
                facts["champion_learned_from_withdrawn"] = in_doubt(
                    con, champion.version, champion.field_studies
                )
    return facts


def _champion_in_doubt(home: Home, alias: int | None) -> str:
    """Return how the registry contradicts the ledger; empty when it does not."""
    from poleng_assets.core.promotion.serving_decision import appointed, disagreement

    if not home.warehouse.exists():
        return ""
    with reading(home) as con:
        told = appointed(con)
    if told is not None and not (home.root / "mlflow.db").exists():
        return (
            f"the ledger says that version {told.version} serves, but the model registry "
            f"{home.root / 'mlflow.db'} is gone. Put it back from a backup (`poleng restore`)"
        )
    return disagreement(told, alias)


def _clock_in_doubt(home: Home) -> str:
    from poleng_assets.defs.clock import clock_in_doubt
    from poleng_assets.defs.instance import open_instance

    with open_instance(home) as instance:
        if not home.warehouse.exists():
            return clock_in_doubt(instance, home)
        with reading(home) as con:
            return clock_in_doubt(instance, home, con)


def _all_batch_rows(home: Home) -> list[BatchRow]:
    from poleng_assets.simulation.scenarios import batch_rows

    if not home.warehouse.exists():
        return []
    with reading(home) as con:
        return batch_rows(con)


def _batch_facts(row: BatchRow) -> dict[str, Any]:
    return {
        "batch": row.batch,
        "model_version": row.version,
        "rows": row.rows,
        "verdict": row.verdict,
        "drifted_columns": row.drifted_columns,
        "estimated_auc": row.estimated_auc,
        "realised_auc": row.realised_auc,
        "contacts": row.listed,
        "current": row.current,
        "flagged": row.flagged,
        "list_from_version": row.issued,
        "list_erased": row.erased,
    }


def _names(folder: Path, hide: str = ".part") -> list[str]:
    return sorted(
        p.name for p in folder.iterdir() if not p.name.startswith(".") and not p.name.endswith(hide)
    )


def _show_ending(ending: Ending, waiting: list[str]) -> None:
    if not ending.dropped:
        console.print("Nothing new: every file of this scenario was taken in before. Nothing was changed.")
    console.print()
    console.print(_batch_table([_batch_facts(row) for row in ending.rows]))
    for words in [*waiting, *ending.faults]:
        console.print(styled("red", "Not as it should be:"), words)
    if not ending.faults:
        console.print("The scenario ended as it should.")


def _batch_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "batch", "model", "rows", "verdict", "drifted\ncolumns", "estimated\nAUC", "realised\nAUC", "contacts"
    )
    for row in rows:
        table.add_row(
            row["batch"],
            f"v{row['model_version']}",
            f"{row['rows']:,}",
            row["verdict"],
            str(row["drifted_columns"]),
            _cell(row["estimated_auc"]),
            _cell(row["realised_auc"]),
            _contacts(row),
        )
    return table


def _contacts(row: dict[str, Any]) -> str:
    """Return how many people the batch's list has; where another version made it, which one did."""
    issued, version = row["list_from_version"], row["model_version"]
    if row["list_erased"] and (row["current"] or issued == version):
        return f"{row['contacts']:,}, erased" if row["contacts"] else "erased"
    if row["current"] and issued is None:
        return "no list yet" if row["flagged"] else "0"
    if issued == version:
        return f"{row['contacts']:,}" if row["current"] else f"{row['contacts']:,} (list stands)"
    return f"list of v{issued} stands" if row["current"] else "superseded"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _dev_hint(home: Home) -> str:
    return "make dev" if home == Home.default() else f"poleng dev --home {shlex.quote(str(home.root))}"


for command in (
    backup,
    check_archive,
    clock,
    dev,
    forget,
    mlflow,
    notify,
    quarantine,
    recover,
    restore,
    retention,
    serve,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
