"""The clock of a home: when it was last found right, whether it is in doubt, and who confirmed it.

Up to when stands in a small file, because sensors never open the warehouse. While the clock is in doubt no
file is taken in, nothing is scored and nothing is erased. Doubt ends by itself when the clock is put right
before anything was written; otherwise a person ends it (`poleng clock --trust`), and the ledger tells of it.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import study_of
from poleng_assets.warehouse.clock import date_to_now, doubt_about_clock, signs_of_life, trusted_until
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.writes import now, transaction

# How often it is written down that the clock still goes right.
EVERY = timedelta(minutes=10)
RUNS_LOOKED_AT = 20
WHAT_TO_DO = (
    "Nothing is ingested, scored or erased until somebody checks: correct the clock if it is wrong, then run "
    "`poleng clock --trust`"
)


@dataclass(frozen=True)
class Mark:
    """What a home remembers of its clock.

    Attributes:
        trusted_until: when it was last found right, None when nobody ever looked.
        runs_until: storage id of the newest run when a person last said that it is right: earlier runs are
            no signs of life any more, they may be dated by a wrong clock.
    """

    trusted_until: datetime | None = None
    runs_until: int = 0


def read_mark(home: Home) -> Mark:
    """Return what a home remembers; nothing when the file is missing or no longer readable."""
    try:
        content = json.loads(home.clock.read_text(encoding="utf-8"))
        return Mark(datetime.fromisoformat(content["trusted_until"]), int(content["runs_until"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # Without it every sign of life counts: doubt is the safe side.
        return Mark()


def clock_in_doubt(
    instance: dg.DagsterInstance, home: Home, con: Connection | None = None, *, remember: bool = False
) -> str:
    """Return why the clock may be wrong and what to do, or nothing.

    Args:
        instance: whose newest runs are signs of life.
        home: whose mark is read.
        con: of the warehouse, whose rows are looked at as well; None for sensors, which may not open it.
        remember: write down that the clock is right, for the one process that drives the home.
    """
    mark, moment = read_mark(home), now()
    max_gap = study_of(home).policies.retention.max_gap
    doubt = look_at_clock(mark, moment, max_gap, _runs(instance, mark), con)
    if doubt:
        return f"{doubt}. {WHAT_TO_DO}"
    if remember and (mark.trusted_until is None or moment - mark.trusted_until > EVERY):
        _write_mark(home, Mark(moment, mark.runs_until))
    return ""


def look_at_clock(
    mark: Mark,
    moment: datetime,
    max_gap: int,
    signs: Iterable[datetime] = (),
    con: Connection | None = None,
    last_success: datetime | None = None,
) -> str:
    """Return why the clock may be wrong, or nothing.

    Args:
        max_gap: days without a sign of life that are too many.
        con: of the warehouse, None to leave it closed.
        last_success: when retention last found the clock right.
    """
    believed = [mark.trusted_until, last_success, trusted_until(con) if con else None]
    trusted = max((moment for moment in believed if moment is not None), default=None)
    rows = signs_of_life(con, trusted) if con else []
    return doubt_about_clock(moment, [*signs, *rows], max_gap, trusted)


def trust_clock(
    home: Home,
    warehouse: Warehouse,
    moment: datetime,
    doubt: str,
    newest_run: int,
    dagster_run_id: str | None = None,
) -> Counter[str]:
    """Write down that a person says that the clock is right; date to now what lies ahead of it.

    Args:
        home: whose mark is written, and whose files are dated to now.
        warehouse: of the home; the ledger gets a row when it is there.
        newest_run: storage id of the newest run.

    Returns:
        Rows that got another date, by table.
    """
    changed: Counter[str] = Counter()
    if home.warehouse.exists():
        with warehouse.connect() as con, transaction(con):
            changed = date_to_now(con, moment)
            dated = ", ".join(f"{rows:,} rows of {table}" for table, rows in changed.items())
            record_decision(
                con,
                "clock",
                f"a person says that the clock is right ({doubt or 'it was not in doubt'})"
                + (f"; dated to now, in their order: {dated}" if dated else ""),
                evidence={"clock": moment.isoformat(), "doubt": doubt, "dated_to_now": dict(changed)},
                dagster_run_id=dagster_run_id,
            )
    _date_files_to_now(home, moment)
    _write_mark(home, Mark(moment, newest_run))
    return changed


def newest_run(instance: dg.DagsterInstance) -> int:
    """Return the storage id of the newest run, 0 when there is none."""
    newest = instance.get_run_records(limit=1)
    return newest[0].storage_id if newest else 0


def _runs(instance: dg.DagsterInstance, mark: Mark) -> list[datetime]:
    """Return when the newest runs were made; Dagster stores it without its zone."""
    return [
        record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC)
        for record in instance.get_run_records(limit=RUNS_LOOKED_AT)
        if record.storage_id > mark.runs_until
    ]


def _write_mark(home: Home, mark: Mark) -> None:
    until = mark.trusted_until.isoformat() if mark.trusted_until else None
    write_atomically(home.clock, json.dumps({"trusted_until": until, "runs_until": mark.runs_until}))


def _date_files_to_now(home: Home, moment: datetime) -> None:
    """Let files that were put into their folder ahead of time count from now: the kernel dates a change."""
    for folder in (home.root / "archive", home.root / "rejected", home.contact_lists, home.reports):
        for path in folder.rglob("*"):
            status = path.lstat()
            if path.is_file() and not path.is_symlink() and status.st_ctime > moment.timestamp():
                path.chmod(status.st_mode & 0o777)
