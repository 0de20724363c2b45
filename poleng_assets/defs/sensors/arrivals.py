"""The arrival sensors: each complete file in landing is ingested by a run."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from poleng_assets.core.data.asset_events import FileTakenIn
from poleng_assets.core.data.versions import assign_id, name_and_number
from poleng_assets.defs import jobs, run_history
from poleng_assets.defs.clock import clock_in_doubt
from poleng_assets.defs.events import newest_of, serving_version
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.defs.run_requests import TICK_SECONDS, ingest_key, ingest_request
from poleng_assets.defs.sensors.stuck_files import StuckFiles
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.file_names import clash_problem
from poleng_assets.storage.home import Kind
from poleng_assets.storage.landing import Dropped, Landing


def _arrival_sensor(kind: Kind, job: str, description: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{kind}_arrivals",
        job_name=job,
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def arrivals(
        context: dg.SensorEvaluationContext, landing: dg.ResourceParam[Landing]
    ) -> dg.SensorResult | dg.SkipReason:
        if doubt := clock_in_doubt(context.instance, landing.home):
            return dg.SkipReason(f"The clock is in doubt: {doubt}")
        if trouble := landing.test_access(kind):
            return dg.SkipReason(trouble)
        landing.clear_leftovers(kind)
        requests, idle = _take_in(context, landing, kind, job)
        if not requests:
            return dg.SkipReason("; ".join(idle) or f"No new files in {landing.home.landing(kind)}")
        partitions = [str(request.partition_key) for request in requests]
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[PARTITIONS[kind].build_add_request(partitions)],
        )

    return arrivals


def _take_in(
    context: dg.SensorEvaluationContext, landing: Landing, kind: Kind, job: str
) -> tuple[list[dg.RunRequest], list[str]]:
    """Return the runs that ingest complete files, and why other files wait or are skipped."""
    instance = context.instance
    busy = {
        name_and_number(id_)[0] for id_ in run_history.busy_partitions(run_history.runs_in_progress(instance))
    }
    seen = landing.look(kind)
    waiting = [f"Waiting for {name}: {why}" for name, why in seen.waits.items()]
    if kind == "batches" and seen.dropped and serving_version(instance) is None:
        names = ", ".join(dropped.path.name for dropped in seen.dropped)
        return [], [f"Waiting for the first model: {names}", *waiting]
    versions = _versions(instance, kind) if seen.dropped else {}
    settled, refused = _sorted_out(seen.dropped, versions, busy)
    stuck = StuckFiles.read(context.cursor, run_history.failures_reset_at(instance))
    messages = list(filter(None, (stuck.refuse(landing, dropped, why) for dropped, why in refused)))
    requests = _requests(instance, settled, versions, job, stuck, messages)
    left = {name: f"Skipped {name}: {why}" for name, why in {**seen.left, **stuck.reasons}.items()}
    for message in (*messages, *(left[name] for name in stuck.news(left))):
        context.log.warning(message)
    context.update_cursor(stuck.cursor(left))
    return requests, [*messages, *waiting, *left.values()]


def _requests(
    instance: dg.DagsterInstance,
    settled: Sequence[Dropped],
    versions: Mapping[str, Sequence[str]],
    job: str,
    stuck: StuckFiles,
    messages: list[str],
) -> list[dg.RunRequest]:
    """Return the runs that take settled files in; add to ``stuck`` and ``messages`` why others are not."""
    attempts = run_history.attempts_of(instance, [ingest_key(dropped) for dropped in settled])
    requests: list[dg.RunRequest] = []
    for dropped in settled:
        earlier = attempts[ingest_key(dropped)]
        if earlier.done:
            stuck.add(dropped, "it was ingested, but cannot be removed from landing: remove it by hand")
        elif earlier.backoff_seconds:
            messages.append(_resting(dropped, earlier, job))
        else:
            try:
                partition = _partition_of(instance, dropped, versions.get(dropped.name, ()))
                requests.append(ingest_request(dropped, partition, earlier))
            except OSError as error:  # removed meanwhile, or a disk error: the others are ingested
                messages.append(f"{dropped.path.name} cannot be read now: {error.strerror}")
    return requests


def _sorted_out(
    dropped: Sequence[Dropped], taken: Collection[str], busy: set[str]
) -> tuple[list[Dropped], list[tuple[Dropped, str]]]:
    """Return the files to ingest now, and those refused by their name, each with the reason.

    Args:
        dropped: files that have settled, oldest first.
        taken: names that were given before.
        busy: names that a run works on.
    """
    settled: list[Dropped] = []
    refused: list[tuple[Dropped, str]] = []
    names = set(taken)
    working = set(busy)
    for file in dropped:
        problem = file.problem or clash_problem(file.name, names)
        if problem:
            refused.append((file, problem))
            continue
        names.add(file.name)
        if file.name not in working:
            # One version of a name at a time: the next number is known once the last is ingested.
            working.add(file.name)
            settled.append(file)
    return settled, refused


def _versions(instance: dg.DagsterInstance, kind: Kind) -> Mapping[str, list[str]]:
    """Return the partitions of each name that was ever dropped."""
    versions: dict[str, list[str]] = defaultdict(list)
    for id_ in instance.get_dynamic_partitions(PARTITIONS[kind].name or ""):
        versions[name_and_number(id_)[0]].append(id_)
    return versions


def _partition_of(instance: dg.DagsterInstance, dropped: Dropped, versions: Sequence[str]) -> str:
    """Return the partition that a file belongs to: the next version of its name when its content is new."""
    events = {id_: newest_of(instance, FileTakenIn, dropped.kind, partition=id_) for id_ in versions}
    known = {id_: event.content_hash for id_, event in events.items() if event and event.content_hash}
    # Only a name that is taken needs the hash: it reads the whole file.
    return assign_id(dropped.name, content_hash(dropped.path), known) if known else dropped.name


def _resting(dropped: Dropped, attempts: run_history.Attempts, job: str) -> str:
    return (
        f"{dropped.path.name} could not be ingested, {attempts.failed} runs failed: see the newest run "
        f"of {job} and fix the cause. It is retried in {attempts.backoff_seconds:.0f} s, "
        "or after poleng retry"
    )


field_study_arrivals = _arrival_sensor(
    "field_studies",
    jobs.ingest_field_study.name,
    "Ingests field studies dropped into landing/field_studies.",
)
batch_arrivals = _arrival_sensor(
    "batches",
    jobs.process_batch.name,
    "Ingests, scores and judges batches dropped into landing/batches.",
)
outcome_arrivals = _arrival_sensor(
    "outcomes", jobs.ingest_outcomes.name, "Ingests outcomes dropped into landing/outcomes."
)
