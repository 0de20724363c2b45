"""What the project asks of Dagster's run history: which runs live, and how often one was tried."""

import socket
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile

import dagster as dg
import psutil
from dagster._utils.error import SerializableErrorInfo

REQUEST_TAG = "poleng/request"
PROCESS_TAG = "poleng/process"
PARTITION_TAG = "dagster/partition"
NAMED_WITHIN_SECONDS = 180
REQUESTS_AT_ONCE = 500  # databases limit how many values one question may hold
# After so many failures in a row a request is left alone for a while: each further one doubles the pause.
FAILURES_BEFORE_A_PAUSE = 3
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
FAILURES_RESET_AT = "poleng/forgiven_up_to"
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
DEAD = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True)
class Attempts:
    """What the history says about one request.

    Attributes:
        total: how many runs there were.
        failed: how many died since the last success, or since it was said that the cause is fixed.
        in_progress: whether one is queued or running.
        backoff_seconds: it is to be tried again, seconds; 0 when it may be tried now.
        done: whether the newest run was good, and nobody has said since that all is to be tried again.
    """

    total: int
    failed: int
    in_progress: bool
    backoff_seconds: float = 0.0
    done: bool = False

    @property
    def number(self) -> int:
        """The number of the next attempt, from 1: it keeps run keys apart."""
        return self.total + 1


def attempts_of(instance: dg.DagsterInstance, requests: Collection[str]) -> dict[str, Attempts]:
    """Count the runs of many requests at once: hundreds of batches may wait for one retraining."""
    runs: dict[str, list[dg.RunRecord]] = {request: [] for request in requests}
    reset_at = failures_reset_at(instance) if runs else 0
    for begin in range(0, len(runs), REQUESTS_AT_ONCE):
        asked = list(runs)[begin : begin + REQUESTS_AT_ONCE]
        for record in instance.get_run_records(dg.RunsFilter(tags={REQUEST_TAG: asked})):
            runs[record.dagster_run.tags[REQUEST_TAG]].append(record)
    return {request: _counted(records, reset_at) for request, records in runs.items()}


def _counted(records: Sequence[dg.RunRecord], reset_at: int) -> Attempts:
    """Count the runs of one request, newest first; failures up to a certain run do not count."""
    statuses = [record.dagster_run.status for record in records]
    since_success = takewhile(lambda r: r.dagster_run.status is not dg.DagsterRunStatus.SUCCESS, records)
    dead = [r for r in since_success if r.dagster_run.status in DEAD and r.storage_id > reset_at]
    return Attempts(
        total=len(statuses),
        failed=len(dead),
        in_progress=any(status in IN_PROGRESS for status in statuses),
        backoff_seconds=_backoff(dead),
        done=statuses[:1] == [dg.DagsterRunStatus.SUCCESS] and records[0].storage_id > reset_at,
    )


def reset_failures(instance: dg.DagsterInstance) -> None:
    """Let no failure up to now count any more: somebody says that the cause is fixed."""
    newest = instance.get_run_records(limit=1)
    if newest:
        instance.daemon_cursor_storage.set_cursor_values({FAILURES_RESET_AT: str(newest[0].storage_id)})


def failures_reset_at(instance: dg.DagsterInstance) -> int:
    """Return the run up to which failures do not count any more, 0 when nobody has said so."""
    kept = instance.daemon_cursor_storage.get_cursor_values({FAILURES_RESET_AT})
    return int(kept.get(FAILURES_RESET_AT, 0))


def _backoff(dead: Sequence[dg.RunRecord]) -> float:
    """Return how long to wait before a request is tried again after these failures, newest first."""
    beyond = len(dead) - FAILURES_BEFORE_A_PAUSE
    if beyond < 0:
        return 0.0
    pause = min(FIRST_PAUSE_SECONDS * 2**beyond, LONGEST_PAUSE_SECONDS)
    # A failure that lies in the future was one before the clock was put back.
    return max(0.0, pause - abs(time.time() - _changed(dead[0]).timestamp()))


def failed_runs_of_request(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """Return the runs of the same request that died since its last success: this run goes on with their work.

    A run that nobody requested (by hand) has none.
    """
    request = run.tags.get(REQUEST_TAG)
    if request is None:
        return []
    died = []
    for record in instance.get_run_records(dg.RunsFilter(tags={REQUEST_TAG: request}), limit=100):
        other = record.dagster_run
        if other.status == dg.DagsterRunStatus.SUCCESS:
            break
        if other.status in DEAD:
            died.append(other.run_id)
    return died


def words_of(error: SerializableErrorInfo) -> str:
    """Return what an asset said when it failed: Dagster wraps it, and it may have causes of its own."""
    while error.cause is not None and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    return error.message.strip()


def runs_in_progress(instance: dg.DagsterInstance, job: str | None = None) -> list[dg.DagsterRun]:
    """Return the runs that are queued or running, of one job or of all."""
    return list(instance.get_runs(dg.RunsFilter(job_name=job, statuses=IN_PROGRESS)))


def live_run_ids(instance: dg.DagsterInstance) -> set[str]:
    """Return the ids of the runs that are queued or running."""
    return {run.run_id for run in runs_in_progress(instance)}


def busy_partitions(runs: Iterable[dg.DagsterRun]) -> frozenset[str]:
    """Return the partitions that these runs work on."""
    return frozenset(run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags)


def mark_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write down which process executes a run, so that others can see when it is gone."""
    instance.add_run_tags(run_id, this_process())


def this_process() -> dict[str, str]:
    """Return the tag of a run that this process executes."""
    return {PROCESS_TAG: process_name(psutil.Process())}


def process_name(process: psutil.Process) -> str:
    """Return a name that no later process can have: host, number and time of its start."""
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.2f}"


def fail_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs whose process is gone, and free their pool slots; return their ids.

    Dagster's own monitoring cannot tell for runs of an earlier daemon, nor for those of the command
    line. Left alone they look alive for ever, keep the warehouse's pool slot, and block the next ones.
    """
    failed_runs = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS)):
        run = record.dagster_run
        process = run.tags.get(PROCESS_TAG)
        if _process_is_gone(process) if process else _never_named_itself(record):
            instance.report_run_failed(
                run, "The process that executed this run was ended before it finished."
            )
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            failed_runs.append(run.run_id)
    return failed_runs


def _never_named_itself(record: dg.RunRecord) -> bool:
    """Whether a run began long ago and has not said which process executes it, which it does at once."""
    if record.dagster_run.status not in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
        return False
    return (datetime.now(UTC) - _changed(record)).total_seconds() > NAMED_WITHIN_SECONDS


def _changed(record: dg.RunRecord) -> datetime:
    """Return when the state of a run changed last; Dagster stores it without its zone."""
    return record.update_timestamp.replace(tzinfo=record.update_timestamp.tzinfo or UTC)


def _process_is_gone(name: str) -> bool:
    """Whether a process has ended; one of another host is taken to live, it cannot be seen from here."""
    host, number, _ = name.rsplit("/", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(number))
        return process.status() == psutil.STATUS_ZOMBIE or process_name(process) != name
    except psutil.NoSuchProcess:
        return True
