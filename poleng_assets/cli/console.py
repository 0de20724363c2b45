"""What all commands of ``poleng`` share: the console, the home that was asked for, and how it is opened."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from poleng_assets.storage import home_study
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study.loading import VARIABLE
from poleng_assets.text.plain_text import visible

if TYPE_CHECKING:
    import duckdb

    from poleng_assets.defs.instance import Instance
    from poleng_assets.headless.runner import HeadlessRunner
    from poleng_assets.warehouse.connection import Warehouse

T = TypeVar("T")


class PlainConsole(Console):
    """Prints text as it is: no text is markup, and nothing in it steers the terminal.

    File names, reasons and cells come from strangers. What is to look different says so by :func:`styled`.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """Return what is printed for a text, be it a line or a cell of a table."""
        return super().render_str(visible(text), **{**how, "markup": False, "emoji": False})


def styled(style: str, text: str) -> Text:
    """Return text that is printed in a style of rich, such as ``red``; whatever it holds stays text."""
    return Text(visible(text), style=style)


# A pipe has no width of its own: rich would fold its tables at 80 columns.
console = PlainConsole(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160
)

home_option = click.option(
    "--home",
    "home_folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Home folder; by default $POLENG_HOME, or data/ of the checkout.",
)


study_option = click.option(
    "--study",
    "study_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Study file of a home that has none yet; by default $POLENG_STUDY, or the one that ships.",
)


def named_home(folder: Path | None) -> Home:
    """Return the home that ``--home`` names, or the default one; nothing is made."""
    return Home(folder.expanduser().resolve()) if folder else Home.default()


def open_home(folder: Path | None, study: Path | None = None) -> Home:
    """Return the home that ``--home`` names, or the default one, with all its folders and its study.

    Args:
        folder: what ``--home`` names.
        study: file that ``--study`` names.

    Raises:
        StudyError: the study file is missing or wrong, or the home has another study.
    """
    home = named_home(folder)
    home_study.open_home(home, study)
    if study is not None:
        os.environ.pop(VARIABLE, None)  # the option goes before it, in the processes of this one, too
    return home


@contextmanager
def open_runner(home: Home, *, looked_at: bool = True) -> Iterator[HeadlessRunner]:
    """Drive the home from this process; refused while another process does.

    Args:
        home: to drive.
        looked_at: whether to see first that the warehouse has what Dagster's history tells of.
    """
    from poleng_assets.cli.run_lines import show_run
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.continuity import refuse_at_start
    from poleng_assets.headless.runner import HeadlessRunner

    with instance_without_daemon(home) as instance:
        if looked_at:
            refuse_at_start(instance, open_warehouse(home), home)
        yield HeadlessRunner(build_defs(home=home), instance, show_run)


@contextmanager
def instance_without_daemon(home: Home) -> Iterator[Instance]:
    """Open the Dagster instance of a home that nobody else drives, and be the one that does."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.headless.dagster_processes import daemons
    from poleng_assets.headless.home_lock import HomeTaken, hold_home

    try:
        with hold_home(home), open_instance(home) as instance:
            processes = daemons(home)
            if processes or daemon_is_running(instance):
                raise click.ClickException(_daemon_words(home, processes))
            yield instance
    except HomeTaken as error:
        if error.holder is not None and error.holder.is_daemon:
            raise click.ClickException(_daemon_words(home, [error.holder.pid])) from error
        raise click.ClickException(f"{error} Wait until it ends, or choose another --home.") from error


@contextmanager
def instance_beside_daemon(home: Home) -> Iterator[Instance]:
    """Open the Dagster instance of a home on which a daemon may work, but no other command line."""
    from poleng_assets.defs.instance import open_instance
    from poleng_assets.headless.home_lock import HomeTaken, hold_home

    with ExitStack() as stack:
        try:
            stack.enter_context(hold_home(home))
        except HomeTaken as error:
            if error.holder is None or not error.holder.is_daemon:
                raise click.ClickException(f"{error} Wait until it ends.") from error
        yield stack.enter_context(open_instance(home))


def _daemon_words(home: Home, processes: list[int]) -> str:
    who = f" (process {', '.join(map(str, processes))})" if processes else ""
    stop = "Stop it" if processes else "Stop it (and wait a minute)"
    return (
        f"A Dagster daemon runs on {home.root}{who}: it would do the same work twice. {stop}, use the "
        "simulate jobs in its UI, or choose another --home."
    )


def open_warehouse(home: Home) -> Warehouse:
    """Return the warehouse of a home, with the study that is in force."""
    from poleng_assets.warehouse.connection import Warehouse

    return Warehouse(home.warehouse, study_of(home), say=_say_on_stderr)


def read_warehouse(home: Home, reader: Callable[[duckdb.DuckDBPyConnection], T]) -> T | None:
    """Return what a reader says of the warehouse; None when there is none yet."""
    if not home.warehouse.exists():
        return None
    with reading(home) as con:
        return reader(con)


def open_landing(home: Home) -> Any:
    """Return the landing folders, where a file counts as soon as it is there."""
    from poleng_assets.storage.landing import Landing

    return Landing(home, settle_seconds=0.0)


def dev_hint(home: Home) -> str:
    """Return the command that starts the UI and the daemon of a home."""
    return "make dev" if home == Home.default() else f"poleng dev --home {shlex.quote(str(home.root))}"


def _say_on_stderr(words: str) -> None:
    click.echo(visible(words), err=True)


@contextmanager
def reading(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse for reading; say in words who holds it when it cannot be opened."""
    from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable

    try:
        with open_warehouse(home).read() as con:
            yield con
    except (WarehouseBusy, WarehouseUnusable) as error:
        raise click.ClickException(str(error)) from error


def fault_in_words(error: Exception) -> str:
    """Return what a fault of the machine means and what to do; empty for any other error.

    Disks, permissions and locks fail inside of DuckDB, SQLite and the file system alike: each says it in
    its own words, and Dagster's history has no other boundary than the command line.
    """
    from poleng_assets.models.artifacts import ModelUnusable
    from poleng_assets.models.store import RegistryUnusable
    from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable

    if isinstance(error, WarehouseBusy | WarehouseUnusable | RegistryUnusable | ModelUnusable):
        return str(error)
    told = str(error).splitlines()[0] if str(error) else ""
    way_out = next((words for pattern, words in _FAULTS if re.search(pattern, told)), "")
    return f"{way_out} Nothing that was finished before is lost. The machine says: {told}" if way_out else ""


_FAULTS = (
    (
        r"No space left on device|database or disk is full|Disk quota exceeded",
        "The disk is full. Free some space and run this again.",
    ),
    (
        r"Read-only file system|readonly database|Permission denied|Operation not permitted",
        "The home folder may not be written. See that you own it, and that its disk allows it.",
    ),
    (
        r"database is locked",
        "A database of the home folder is locked. Close what has it open and run this again.",
    ),
    (
        r"database disk image is malformed|file is not a database|disk I/O error",
        "A database of the home folder is damaged. Restore the newest backup (`poleng restore`).",
    ),
)
