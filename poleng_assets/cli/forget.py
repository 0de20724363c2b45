"""``poleng forget``: erase a person from a home and verify the erasure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poleng_assets.cli.console import (
    console,
    home_option,
    instance_without_daemon,
    open_home,
    open_warehouse,
    styled,
)
from poleng_assets.storage.home_study import study_of

if TYPE_CHECKING:
    from poleng_assets.operations.erase_person import ErasureReport
    from poleng_assets.storage.home import Home


@click.command()
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def forget(subject: str, yes: bool, home_folder: Path | None) -> None:
    """Erase SUBJECT from every table, list, archive and report, and search everything for traces.

    The exit code is 1 if a trace is left, or if a file cannot be searched. After an interruption, run it
    again. Other people's rows do not change. Refused while a daemon or another command uses the home.
    """
    from duckdb import IOException

    from poleng_assets.defs.changed_studies import report_changed_studies
    from poleng_assets.models.registry import Registry
    from poleng_assets.operations.erase_person import NotNow, erase_person, locate_person, near_spellings_of
    from poleng_assets.warehouse.connection import WarehouseBusy

    if not subject.strip():
        raise click.ClickException("The id is blank: give the id of the person.")
    home = open_home(home_folder)
    study = study_of(home)
    with instance_without_daemon(home) as instance:
        warehouse = open_warehouse(home)
        try:
            if not yes:
                _ask(locate_person(home, study, warehouse, subject), near_spellings_of(warehouse, subject))
            done = erase_person(home, study, warehouse, Registry(home, study), subject)
            if home.warehouse.exists():
                report_changed_studies(instance, warehouse)
        except (NotNow, WarehouseBusy) as error:
            raise click.ClickException(str(error)) from error
        except IOException as error:
            raise click.ClickException(
                f"The warehouse could not be rewritten: {error}. Nothing was lost; run the command again."
            ) from error
    _show(done, home)
    if not done.any and (near := near_spellings_of(warehouse, subject)):
        console.print(styled("yellow", "Did you mean another id?"), f"{near}. Only exact ids are erased.")
    sys.exit(1 if done.proof.traces or done.proof.closed else 0)


def _ask(rows_by_location: dict[str, int], near: str) -> None:
    for location, rows in rows_by_location.items():
        console.print(f"  {location}: {_count(rows, 'row')}")
    if not rows_by_location:
        console.print("This id is in no table and in no readable file.", near)
    click.confirm("Erase this person permanently, and search everything for traces?", abort=True)


def _show(done: ErasureReport, home: Home) -> None:
    from poleng_assets.operations.erase_person import described

    if not done.any:
        console.print("This id is unknown in this home: nothing was changed.")
    for table, rows in done.warehouse.rows.items():
        console.print(f"  table {table}: {_count(rows, 'row')}")
    for table, cells in done.warehouse.mentions.items():
        console.print(f"  table {table}: {_count(cells, 'mention')}")
    for line in described(done.files, home):
        console.print(f"  {line}")
    for version in done.references:
        console.print(f"  reference rows of version {version}")
    if done.searches:
        console.print("  hyperparameter searches, which store a score for each row")
    _show_limits(done)
    _show_proof(done)


def _show_limits(done: ErasureReport) -> None:
    if done.learned:
        versions = ", ".join(f"version {version}" for version in done.learned)
        console.print(
            f"Not undone: {versions} was trained on data that included this person. A model's files contain "
            "no rows; the next retraining leaves this person out (`poleng retrain`)."
        )
    if done.any:
        console.print(
            "Not erased: copies outside this home, such as backups, distributed lists and exports of "
            "quarantined rows. If a new file contains this person, ingesting it brings them back."
        )
    if done.any and done.backups:
        console.print(
            "These backups of this home may contain this person: delete them, or replace them by new ones."
        )
        for backup in done.backups:
            console.print(f"  {backup}")
    for note in done.notes:
        console.print(styled("yellow", "Not reported:"), note)


def _show_proof(done: ErasureReport) -> None:
    proof = done.proof
    console.print(
        f"Searched {proof.tables} tables ({proof.columns} columns) and {proof.files} files "
        f"({proof.bytes:,} bytes): {_count(len(proof.traces), 'trace')}."
    )
    for trace in proof.traces:
        console.print(styled("red", f"  {trace}"))
    if proof.closed:
        console.print(
            f"{_count(len(proof.closed), 'file')} could not be searched. Check by hand, delete what contains "
            "this person, or make it readable, and run the command again:"
        )
    for closed in proof.closed:
        console.print(styled("red", f"  {closed}"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
