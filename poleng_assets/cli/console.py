"""The console, the home option and the openers that all commands of ``poleng`` share."""

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
    from duckdb import DuckDBPyConnection as Connection

    from poleng_assets.defs.instance import Instance
    from poleng_assets.headless.runner import HeadlessRunner
    from poleng_assets.warehouse.connection import Warehouse

T = TypeVar("T")


class PlainConsole(Console):
    """Print text literally: no text is markup, and no text controls the terminal.

    File names, reasons and cells are untrusted input. Use :func:`styled` for colours.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """Return the rich text of a line or a cell of a table."""
        return super().render_str(visible(text), **{**how, "markup": False, "emoji": False})


def styled(style: str, text: str) -> Text:
    """Return text that is printed in a style of rich, such as ``red``; its content stays plain text."""
    return Text(visible(text), style=style)


# A pipe has no width: rich would wrap its tables at 80 columns.
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
    help="Study file for a home that has none yet; by default $POLENG_STUDY, or the built-in study.",
)


def named_home(folder: Path | None) -> Home:
    """Return the home that ``--home`` names, or the default one; nothing is created."""
    return Home(folder.expanduser().resolve()) if folder else Home.default()


def open_home(folder: Path | None, study: Path | None = None) -> Home:
    """Return the home that ``--home`` names, or the default one, with all its folders and its study.

    Raises:
        StudyError: the study file is missing or wrong, or the home has another study.
    """
    home = named_home(folder)
    home_study.open_home(home, study)
    if study is not None:
        os.environ.pop(VARIABLE, None)  # the option overrides it, in child processes as well
    return home


@contextmanager
def open_runner(home: Home, *, check_continuity: bool = True) -> Iterator[HeadlessRunner]:
    """Yield a runner for the home; refused while another process runs it.

    Args:
        home: to run.
        check_continuity: whether to verify first that the warehouse has what Dagster's history records.
    """
    from poleng_assets.cli.run_lines import show_run
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.continuity import refuse_at_start
    from poleng_assets.headless.runner import HeadlessRunner

    with instance_without_daemon(home) as instance:
        if check_continuity:
            refuse_at_start(instance, open_warehouse(home), home)
        yield HeadlessRunner(build_defs(home=home), instance, show_run)


@contextmanager
def instance_without_daemon(home: Home) -> Iterator[Instance]:
    """Open the Dagster instance of a home and lock the home against every other process."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.headless.dagster_processes import daemons
    from poleng_assets.headless.home_lock import HomeTaken, hold_home

    try:
        with hold_home(home), open_instance(home) as instance:
            processes = daemons(home)
            if processes or daemon_is_running(instance):
                raise click.ClickException(_daemon_message(home, processes))
            yield instance
    except HomeTaken as error:
        if error.holder is not None and error.holder.is_daemon:
            raise click.ClickException(_daemon_message(home, [error.holder.pid])) from error
        raise click.ClickException(f"{error} Wait until it ends, or choose another --home.") from error


@contextmanager
def instance_beside_daemon(home: Home) -> Iterator[Instance]:
    """Open the Dagster instance of a home that a daemon may use, but no other command."""
    from poleng_assets.defs.instance import open_instance
    from poleng_assets.headless.home_lock import HomeTaken, hold_home

    with ExitStack() as stack:
        try:
            stack.enter_context(hold_home(home))
        except HomeTaken as error:
            if error.holder is None or not error.holder.is_daemon:
                raise click.ClickException(f"{error} Wait until it ends.") from error
        yield stack.enter_context(open_instance(home))


def _daemon_message(home: Home, processes: list[int]) -> str:
    process = f" (process {', '.join(map(str, processes))})" if processes else ""
    stop = "Stop it" if processes else "Stop it (and wait a minute)"
    return (
        f"A Dagster daemon runs on {home.root}{process}, and both would do the same work. {stop}, use the "
        "simulate jobs in its UI, or choose another --home."
    )


def open_warehouse(home: Home) -> Warehouse:
    """Return the warehouse of a home, with the current study of the home."""
    from poleng_assets.warehouse.connection import Warehouse

    return Warehouse(home.warehouse, study_of(home), say=_say_on_stderr)


def read_warehouse(home: Home, reader: Callable[[Connection], T]) -> T | None:
    """Return what a reader returns for the warehouse, None if there is none yet."""
    if not home.warehouse.exists():
        return None
    with reading(home) as con:
        return reader(con)


def open_landing(home: Home) -> Any:
    """Return the landing folders, without a waiting time for new files."""
    from poleng_assets.storage.landing import Landing

    return Landing(home, settle_seconds=0.0)


def dev_hint(home: Home) -> str:
    """Return the command that starts the UI and the daemon of a home."""
    return "make dev" if home == Home.default() else f"poleng dev --home {shlex.quote(str(home.root))}"


def _say_on_stderr(message: str) -> None:
    click.echo(visible(message), err=True)


@contextmanager
def reading(home: Home) -> Iterator[Connection]:
    """Open the warehouse for reading; the error says which process has it locked."""
    from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable

    try:
        with open_warehouse(home).read() as con:
            yield con
    except (WarehouseBusy, WarehouseUnusable) as error:
        raise click.ClickException(str(error)) from error


def explain_fault(error: Exception) -> str:
    """Return what a fault of the machine means and what to do; empty for any other error.

    Full disks, missing permissions and locks raise different errors in DuckDB, SQLite and the file system,
    and errors of Dagster's history are caught nowhere else.
    """
    from poleng_assets.models.artifacts import ModelUnusable
    from poleng_assets.models.store import RegistryUnusable
    from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable

    if isinstance(error, WarehouseBusy | WarehouseUnusable | RegistryUnusable | ModelUnusable):
        return str(error)
    message = str(error).splitlines()[0] if str(error) else ""
    advice = next((advice for pattern, advice in _FAULTS if re.search(pattern, message)), "")
    return f"{advice} No finished work is lost. The error was: {message}" if advice else ""


_FAULTS = (
    (
        r"No space left on device|database or disk is full|Disk quota exceeded",
        "The disk is full. Free some space and run the command again.",
    ),
    (
        r"Read-only file system|readonly database|Permission denied|Operation not permitted",
        "The home folder is not writable. Check its owner, its permissions and its disk.",
    ),
    (
        r"database is locked",
        "A database of the home folder is locked. Close the program that uses it and run the command again.",
    ),
    (
        r"database disk image is malformed|file is not a database|disk I/O error",
        "A database of the home folder is damaged. Restore the newest backup (`poleng restore`).",
    ),
)
