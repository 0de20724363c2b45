"""Retention: the daily job that erases expired data (``policies.retention`` of the study).

The age of a file starts when it was moved to its folder. Pending data is kept: nothing of a batch is erased
before its contact list was made.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from poleng_assets.defs.changed_studies import report_changed_studies
from poleng_assets.defs.clock import WHAT_TO_DO, look_at_clock, newest_run, read_mark
from poleng_assets.defs.clock import trust_clock as trust
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.storage.dropped_files import file_id
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.policies import RetentionPolicy
from poleng_assets.warehouse.compaction import compact, free_share
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.retention import erase_expired
from poleng_assets.warehouse.writes import now, transaction

RETENTION_JOB = "apply_retention"
# Free share of the file from which it is rewritten even if nothing was erased now.
MUCH_FREE = 0.25


class ClockInDoubt(RuntimeError):
    """The clock may be wrong: nothing was erased."""


@dataclass
class Expired:
    """Expired data: rows by table, files by folder."""

    rows: Counter[str] = field(default_factory=Counter)
    files: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.rows or self.files)

    def counted(self) -> dict[str, dict[str, int]]:
        """Return the counts, for the ledger."""
        return {"rows": dict(self.rows), "files": {name: len(paths) for name, paths in self.files.items()}}

    def in_words(self) -> str:
        """Return a description of the data."""
        parts = [f"{rows:,} rows of {table}" for table, rows in self.rows.items()]
        parts += [f"{len(paths):,} files of {name}" for name, paths in self.files.items()]
        return ", ".join(parts) or "nothing"


def apply(
    home: Home,
    warehouse: Warehouse,
    moment: datetime,
    waiting: Collection[str],
    *,
    last_success: datetime | None = None,
    dry_run: bool = False,
    trust_clock: bool = False,
    run_number: int = 0,
    dagster_run_id: str | None = None,
) -> Expired:
    """Erase expired data from the warehouse and from the folders of a home.

    The rows are deleted and recorded in one transaction; then the files are deleted, and after an
    interruption the rest at the next run. The DuckDB file is rewritten, because deleted rows stay in its
    bytes.

    Args:
        warehouse: of the home; nothing happens when it is not there yet.
        waiting: batches without a contact list yet.
        trust_clock: a person has checked the clock; recorded in the ledger if it was in doubt.
        run_number: storage id of the newest run of the home's history.

    Raises:
        ClockInDoubt: the current time or a recorded time cannot be right; nothing was erased.
    """
    if not home.warehouse.exists():
        return Expired()
    policy = warehouse.study.policies.retention
    expired = Expired(files=_expired_files(home, policy, moment, waiting))
    mark = read_mark(home)
    with warehouse.connect() as con:
        doubt = look_at_clock(mark, moment, policy.max_gap, con=con, last_success=last_success)
    if doubt and not trust_clock:
        raise ClockInDoubt(f"{doubt}. {WHAT_TO_DO}")
    if doubt and not dry_run:
        trust(home, warehouse, moment, doubt, run_number, dagster_run_id)
    with warehouse.connect() as con:
        with transaction(con, dry_run=dry_run):
            expired.rows = erase_expired(con, policy, moment, waiting)
            if expired.any:
                why = f"expired by policies.retention and erased: {expired.in_words()}"
                evidence = expired.counted()
                record_decision(con, "retention", why, evidence=evidence, dagster_run_id=dagster_run_id)
        much_free = free_share(con) > MUCH_FREE
    if dry_run:
        return expired
    for path in (path for paths in expired.files.values() for path in paths):
        path.unlink(missing_ok=True)
    _remove_empty(home)
    if expired.rows or much_free:
        compact(home.warehouse, warehouse.patience_seconds)
    return expired


def _expired_files(
    home: Home, policy: RetentionPolicy, moment: datetime, waiting: Collection[str]
) -> dict[str, list[Path]]:
    """Return the expired files, by the name of their policy."""
    folders = {
        "archive": home.root / "archive",
        "rejected": home.root / "rejected",
        "contact_list_files": home.contact_lists,
        "requests": home.requests,
        "reports": home.reports,
    }
    expired = {}
    for name, folder in folders.items():
        days = getattr(policy, name)
        if days is None:
            continue
        before = (moment - timedelta(days=days)).timestamp()
        # The kernel sets the change time when a file is moved here; copying tools set the modification time.
        paths = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.lstat().st_ctime < before and not _stays(home, path, waiting)
        ]
        if paths:
            expired[name] = paths
    return expired


def _stays(home: Home, path: Path, waiting: Collection[str]) -> bool:
    """Whether a file belongs to a pending batch, to a model, or to all batches."""
    folder, *below = path.relative_to(home.root).parts
    if folder == "reports":
        return below[0] != "batches" or below[1] in waiting
    if folder == "archive" and below[0] == "batches":
        # The name may be followed by a part of the hash, see ``core/ingestion/archive_check.py``.
        return any(file_id(path.name) == name or path.name.startswith(f"{name}.") for name in waiting)
    return False


def _remove_empty(home: Home) -> None:
    for folder in home.batch_reports.iterdir():
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class RetentionConfig(dg.Config):
    """The settings of a run."""

    dry_run: bool = Field(default=False, description="Only show what would be erased.")
    trust_clock: bool = Field(
        default=False, description="Confirm that the clock is right although it is in doubt. Check it first."
    )


@dg.op(pool=WAREHOUSE_POOL, description="Erases expired data (policies.retention of the study).")
def erase_what_expired(
    context: dg.OpExecutionContext,
    config: RetentionConfig,
    warehouse: dg.ResourceParam[Warehouse],
    landing: dg.ResourceParam[Landing],
) -> None:
    """Apply the study's ``policies.retention``."""
    try:
        expired = apply(
            landing.home,
            warehouse,
            now(),
            _waiting(context.instance),
            last_success=_last_success(context.instance, read_mark(landing.home).runs_until),
            dry_run=config.dry_run,
            trust_clock=config.trust_clock,
            run_number=newest_run(context.instance),
            dagster_run_id=context.run_id,
        )
    except ClockInDoubt as doubt:
        raise dg.Failure(f"Retention: {doubt}.", allow_retries=False) from doubt
    if not config.dry_run and landing.home.warehouse.exists():
        report_changed_studies(context.instance, warehouse)
    would = "would be erased" if config.dry_run else "erased"
    context.log.info(f"Expired data {would}: {expired.in_words()}")
    context.add_output_metadata({would: expired.in_words(), **expired.counted()})


def _waiting(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions("batch")) - set(
        instance.get_materialized_partitions(dg.AssetKey("contact_list"))
    )


def _last_success(instance: dg.DagsterInstance, runs_until: int) -> datetime | None:
    """Return the time of the last success of this job, which requires a right clock.

    Runs before a confirmation of the clock may have wrong times.
    """
    records = instance.get_run_records(
        dg.RunsFilter(job_name=RETENTION_JOB, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1
    )
    ended = records[0].end_time if records and records[0].storage_id > runs_until else None
    return datetime.fromtimestamp(ended, UTC) if ended else None


@dg.job(name=RETENTION_JOB, description="Erase expired data (policies.retention of the study).")
def apply_retention() -> None:
    """Apply the study's ``policies.retention``."""
    erase_what_expired()


retention_schedule = dg.ScheduleDefinition(
    name="daily_retention",
    job=apply_retention,
    cron_schedule="17 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Erases expired data every night (policies.retention of the study).",
)
