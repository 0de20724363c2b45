"""What all commands of ``poleng`` share: the console, the home that was asked for, and how it is opened."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets.text.plain_text import in_one_line, visible

if TYPE_CHECKING:
    import dagster as dg
    import duckdb

    from poleng_assets.headless.runner import Conductor, RunReport
    from poleng_assets.warehouse.connection import Warehouse


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


def open_home(folder: Path | None) -> Home:
    """Return the home that ``--home`` names, or the default one, with all its folders."""
    return (Home(folder.expanduser().resolve()) if folder else Home.default()).create()


@contextmanager
def open_conductor(home: Home, *, looked_at: bool = True) -> Iterator[Conductor]:
    """Drive the home from this process; refused while another process does.

    Args:
        home: to drive.
        looked_at: whether to see first that the warehouse has what Dagster's history tells of.
    """
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.continuity import refuse_at_start
    from poleng_assets.headless.runner import Conductor

    with instance_without_daemon(home) as instance:
        if looked_at:
            refuse_at_start(instance, open_warehouse(home), home)
        yield Conductor(build_defs(home=home), instance, show_run)


@contextmanager
def instance_without_daemon(home: Home) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance of a home that nobody else drives, and be the one that does."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.headless.home_lock import HomeTaken, daemons, driving

    try:
        with driving(home), open_instance(home) as instance:
            processes = daemons(home)
            if processes or daemon_is_running(instance):
                raise click.ClickException(_daemon_words(home, processes))
            yield instance
    except HomeTaken as error:
        if error.driver is not None and error.driver.is_daemon:
            raise click.ClickException(_daemon_words(home, [error.driver.pid])) from error
        raise click.ClickException(f"{error} Wait until it ends, or choose another --home.") from error


@contextmanager
def instance_beside_daemon(home: Home) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance of a home on which a daemon may work, but no other command line."""
    from poleng_assets.defs.instance import open_instance
    from poleng_assets.headless.home_lock import HomeTaken, driving

    with ExitStack() as stack:
        try:
            stack.enter_context(driving(home))
        except HomeTaken as error:
            if error.driver is None or not error.driver.is_daemon:
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

    return Warehouse(home.warehouse, load_study(), say=_say_on_stderr)


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
    from poleng_assets.models.registry import ModelUnusable, RegistryUnusable
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


def show_run(report: RunReport) -> None:
    """Tell in one line how a run went."""
    told = f"  {report.job} {in_one_line(report.partition)}".rstrip()
    if not report.success:
        console.print(styled("red", f"{told} failed"), f": {report.message}", sep="")
        return
    words = [say(report.metadata[asset]) for asset, say in _SAYINGS.items() if asset in report.metadata]
    console.print(f"{told}: {'; '.join(words)}", styled("dim", f"({report.seconds:.1f} s)"))


def _about_champion(metadata: dict[str, Any]) -> str:
    if "score_again" in metadata:
        return str(metadata["reason"])
    outcome = "promoted" if metadata["promoted"] else "not promoted"
    if not metadata["figures"]:
        outcome = f"was {outcome} before"
    return f"version {metadata['challenger_version']} {outcome}: {metadata['reason']}"


def _about_challenger(metadata: dict[str, Any]) -> str:
    if "taken_over" in metadata:
        return f"version {metadata['version']} was {metadata['taken_over']}"
    return f"version {metadata['version']} trained"


def _about_list(metadata: dict[str, Any]) -> str:
    if "share_flagged" not in metadata:
        return str(metadata["what_happened"])
    number = metadata["list_number"]
    beside = f", in list {number}" if number > 1 else ""
    return f"{metadata['contacts']:,} contacts{'' if metadata['remark'] == 'none' else ', marked'}{beside}"


def _about_study(metadata: dict[str, Any]) -> str:
    if "withdrawn" in metadata:
        return "withdrawn" if metadata["withdrawn"] else "counts again"
    remark = f", {metadata['remark']}" if "remark" in metadata else ""
    return f"{_rows_kept(metadata, 'labelled rows')} taken in{_before(metadata)}{remark}"


def _rows_kept(metadata: dict[str, Any], whom: str) -> str:
    apart = metadata["rows_quarantined"]
    kept = f"{metadata['dagster/row_count']:,} {whom}"
    return f"{kept} ({apart:,} more in quarantine)" if apart else kept


def _before(metadata: dict[str, Any]) -> str:
    """Return what came before, to stand behind what came; events of earlier releases do not tell it."""
    before = metadata.get("what_came_before", "nothing")
    return "" if before == "nothing" else f"; {before}"


def _about_outcomes(metadata: dict[str, Any]) -> str:
    return str(metadata.get("what_they_met", f"{metadata['dagster/row_count']:,} outcomes"))


def _about_performance(metadata: dict[str, Any]) -> str:
    batches = metadata["batches"]
    if not batches:
        return "no score to compare them with yet"
    return f"compared with the scores of {batches:,} batch{'' if batches == 1 else 'es'}"


_SAYINGS: dict[str, Any] = {
    "field_studies": _about_study,
    "training_data": lambda m: m["reason"],
    "challenger": _about_challenger,
    "champion": _about_champion,
    "batches": lambda m: f"{_rows_kept(m, 'respondents')}{_before(m)}",
    "predictions": lambda m: f"scored by version {m['model_version']}",
    "drift_report": lambda m: f"{m['verdict']}{', held' if m['held'] else ''}",
    "field_study_request": lambda m: f"{m['interviews']:,} interviews asked for",
    "contact_list": _about_list,
    "outcomes": _about_outcomes,
    "realised_performance": _about_performance,
}
