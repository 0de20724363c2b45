"""``poleng forget``: erase a person from a home, and prove it."""

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
    """Erase SUBJECT from every table, list, archive and report, and look through everything for traces.

    The exit code is 1 when a trace is left, or a file cannot be looked into. Killed in between, run it again:
    it ends the same. Other people's rows stay as they are. Refused while a daemon or another command works on
    the home.
    """
    from duckdb import IOException

    from poleng_assets.defs.changed_studies import report_changed_studies
    from poleng_assets.models.registry import Registry
    from poleng_assets.operations.erase_person import (
        NotNow,
        erase_person,
        locate_person,
        near_spellings_of,
    )
    from poleng_assets.warehouse.connection import WarehouseBusy

    if not subject.strip():
        raise click.ClickException("An id is needed: blanks are nobody's.")
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
                f"The warehouse could not be written anew: {error}. Nothing was lost; say this again."
            ) from error
    _tell(done, home)
    if not done.any and (near := near_spellings_of(warehouse, subject)):
        console.print(
            styled("yellow", "Is it somebody else?"), f"{near}. Ids are erased as they are written."
        )
    sys.exit(1 if done.proof.traces or done.proof.closed else 0)


def _ask(found: dict[str, int], near: str) -> None:
    for place, rows in found.items():
        console.print(f"  {place}: {_count(rows, 'row')}")
    if not found:
        console.print("This id stands in no table and in no file that can be read.", near)
    click.confirm("Erase this person for good, and look through everything for traces?", abort=True)


def _tell(done: ErasureReport, home: Home) -> None:
    from poleng_assets.operations.erase_person import described

    if not done.any:
        console.print("Nobody with this id is known here: nothing was changed.")
    for table, rows in done.warehouse.rows.items():
        console.print(f"  table {table}: {_count(rows, 'row')}")
    for table, cells in done.warehouse.mentions.items():
        console.print(f"  table {table}: {_count(cells, 'mention')}")
    for line in described(done.files, home):
        console.print(f"  {line}")
    for version in done.references:
        console.print(f"  reference rows of version {version}")
    if done.searches:
        console.print("  searches for a model, which keep a score for each row")
    _tell_what_is_not_reached(done)
    _tell_proof(done)


def _tell_what_is_not_reached(done: ErasureReport) -> None:
    if done.learned:
        versions = ", ".join(f"version {version}" for version in done.learned)
        console.print(
            f"What cannot be undone: {versions} learned from this person among others. A model's files hold "
            "no rows; the next retraining learns without this person (`poleng retrain`)."
        )
    if done.any:
        console.print(
            "Not reached: copies outside of this home, such as backups, lists handed out and exports of "
            "quarantined rows. A file that holds this person and was not taken in before brings them back."
        )
    if done.any and done.backups:
        console.print(
            "These backups were made of this home and may hold this person: delete them, or make them anew."
        )
        for backup in done.backups:
            console.print(f"  {backup}")
    for note in done.notes:
        console.print(styled("yellow", "Not told:"), note)


def _tell_proof(done: ErasureReport) -> None:
    proof = done.proof
    console.print(
        f"Looked through {proof.tables} tables ({proof.columns} columns) and {proof.files} files "
        f"({proof.bytes:,} bytes): {_count(len(proof.traces), 'trace')}."
    )
    for trace in proof.traces:
        console.print(styled("red", f"  {trace}"))
    if proof.closed:
        console.print(
            f"{_count(len(proof.closed), 'file')} could not be looked into. Look yourself, remove what holds "
            "this person, or make it readable, and say this again:"
        )
    for closed in proof.closed:
        console.print(styled("red", f"  {closed}"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
