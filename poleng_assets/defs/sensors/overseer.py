"""The overseer sensor: it folds new events into its state and launches the runs of its plan."""

import heapq
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain

import dagster as dg

from poleng_assets.core.data.asset_events import Champion
from poleng_assets.core.data.versions import name_and_number, newest
from poleng_assets.core.monitoring.loop_state import (
    FOLDED_ASSETS,
    LoopState,
    fold,
    state_is_current,
    without_wiped,
)
from poleng_assets.core.monitoring.overseer import OpenBatch, Plan, Situation, plan
from poleng_assets.defs import jobs, run_history, run_requests
from poleng_assets.defs.clock import clock_in_doubt
from poleng_assets.defs.events import events, newest_of
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.defs.quarantine_release import measure_outcomes
from poleng_assets.storage.dropped_files import file_id
from poleng_assets.storage.home_study import study_of
from poleng_assets.storage.landing import Landing

FEW = 10


@dg.sensor(
    jobs=[
        jobs.retrain_and_promote,
        jobs.score_batch,
        jobs.release_batch,
        jobs.request_field_study,
        measure_outcomes,
        jobs.draw_overview,
    ],
    minimum_interval_seconds=run_requests.TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches drift: launches one retraining for drifted batches, rescores them with a new "
    "champion, and releases held contact lists.",
)
def overseer(context: dg.SensorEvaluationContext, landing: dg.ResourceParam[Landing]) -> dg.SensorResult:
    """Fold the events since the last tick and launch the runs of the plan."""
    instance = context.instance
    run_history.fail_orphaned_runs(instance)
    if doubt := clock_in_doubt(instance, landing.home, remember=True):
        message = f"The clock is in doubt: {doubt}"
        context.log.warning(message)
        return dg.SensorResult(cursor=context.cursor, skip_reason=dg.SkipReason(message))
    at_work = bool(run_history.runs_in_progress(instance))
    state, situation, decided = survey(instance, landing, LoopState.from_json(context.cursor))
    requests = run_requests.launch(
        instance,
        [
            *run_requests.planned(decided, situation.champion, state.studies),
            *run_requests.measurements(state.unmeasured, situation.busy),
        ],
    )
    if state.undrawn and not at_work and not requests:
        requests = run_requests.launch(instance, [run_requests.drawing(state.undrawn)])
    if requests:
        for message in decided.messages:
            context.log.info(message)
    return dg.SensorResult(
        run_requests=requests,
        cursor=state.to_json(),
        skip_reason=None if requests else dg.SkipReason("; ".join(decided.messages) or "No action needed"),
    )


def survey(
    instance: dg.DagsterInstance, landing: Landing, state: LoopState
) -> tuple[LoopState, Situation, Plan]:
    """Look at all that happened since ``state``; return the new state, the situation and the plan.

    Landing is read first, then runs, events last: what moves on between two looks is seen twice and
    waited for one tick more, where the other order would miss it or start it a second time.
    """
    arriving = _arriving_studies(instance, landing)
    unscored = _arriving_batches(instance, landing)
    running = run_history.runs_in_progress(instance)
    # What happens from here on belongs to the next tick: of two events, none is seen without the one before.
    until = instance.event_log_storage.get_maximum_record_id() or 0
    champion = newest_of(instance, Champion, "champion", until=until)
    state = _updated(instance, state if state_is_current(state, until, champion) else LoopState(), until)
    together = _dropped_together(instance, state, running, unscored)
    state = replace(state, dropped_together=together)
    situation = _situation(instance, state, champion, running, arriving)
    return state, situation, plan(situation, study_of(landing.home).policies.overseer)


def retraining_requests(instance: dg.DagsterInstance, state: LoopState, reason: str) -> list[dg.RunRequest]:
    """Ask for a retraining on the field studies that count."""
    return run_requests.launch(instance, [run_requests.retraining(state.studies, reason)])


def _updated(instance: dg.DagsterInstance, state: LoopState, until: int) -> LoopState:
    """Fold the events since a state was made, up to a storage id, in the order in which they happened."""
    if state.read < until:
        streams = [
            events(instance, asset, after_storage_id=state.read, before_storage_id=until + 1)
            for asset in FOLDED_ASSETS
        ]
        for recorded in heapq.merge(*streams, key=lambda recorded: recorded.storage_id):
            state = fold(state, recorded.asset, recorded.partition, recorded.event)
    return without_wiped(replace(state, read=until), lambda asset, ids: _present(instance, asset, ids))


def _present(instance: dg.DagsterInstance, asset: str, ids: Collection[str]) -> set[str]:
    """Return those ids that are partitions still; of a few, each is asked for: years have many partitions."""
    name = PARTITIONS[asset].name or ""
    if len(ids) <= FEW:
        return {id_ for id_ in ids if instance.has_dynamic_partition(name, id_)}
    return set(ids).intersection(instance.get_dynamic_partitions(name))


def _arriving_studies(instance: dg.DagsterInstance, landing: Landing) -> list[str]:
    """Return the field studies in landing that may soon be taken in: those that fail do not count.

    Nor do those that are not whole yet by their names, and those that cannot be removed once they were taken
    in: nobody knows how long they stay.
    """
    seen = landing.look("field_studies")
    keys = {dropped.path: run_requests.ingest_key(dropped) for dropped in seen.dropped}
    attempts = run_history.attempts_of(instance, set(keys.values()))
    given_up = {
        path
        for path, key in keys.items()
        if attempts[key].done or attempts[key].failed >= run_history.FAILURES_BEFORE_A_PAUSE
    }
    return [
        file_id(path.name)
        for path in landing.waiting("field_studies")
        if path not in given_up and path.name not in seen.left
    ]


def _arriving_batches(instance: dg.DagsterInstance, landing: Landing) -> set[str]:
    """Return the batches in landing that are taken in next: those that fail do not count."""
    dropped = [file for file in landing.dropped("batches") if not file.problem]
    keys = {run_requests.ingest_key(file): file.name for file in dropped}
    attempts = run_history.attempts_of(instance, list(keys))
    return {name for key, name in keys.items() if not (attempts[key].backoff_seconds or attempts[key].done)}


def _dropped_together(
    instance: dg.DagsterInstance,
    state: LoopState,
    running: Sequence[dg.DagsterRun],
    arriving: Collection[str],
) -> tuple[str, ...] | None:
    """Return the batches that were there, and without a score, when a retraining was first wanted.

    It waits for them, and for none that comes later: whichever way a drop is worked through, and wherever
    that is cut short, all of its batches are first scored by the version that served when it came.

    Returns:
        Those that still have no score; None while no retraining is wanted.
    """
    if not state.wants_retraining:
        return None
    busy = run_history.busy_partitions(run for run in running if run.job_name == jobs.process_batch.name)
    scored = {batch for batch, batch_state in state.open_batches.items() if batch_state.version is not None}
    # A run that died behind its first step leaves a batch to the overseer; one that fails is not waited for.
    keys = {
        run_requests.score_key(batch, state.serving): batch
        for batch in state.open_batches
        if batch not in scored | busy
    }
    attempts = run_history.attempts_of(instance, list(keys))
    left = {batch for key, batch in keys.items() if not attempts[key].backoff_seconds}
    unscored = {*arriving, *(name_and_number(batch)[0] for batch in (busy - scored) | left)}
    before = state.dropped_together
    return tuple(sorted(unscored if before is None else unscored.intersection(before)))


def _situation(
    instance: dg.DagsterInstance,
    state: LoopState,
    champion: Champion | None,
    running: Sequence[dg.DagsterRun],
    arriving: Sequence[str],
) -> Situation:
    judged = (champion.judged_field_studies if champion else None) or {}
    version = champion.serving if champion else None
    busy = run_history.busy_partitions(running)
    retrain, labels = (
        run_requests.retrain_key(state.studies),
        run_requests.labels_key(state.unanswered_alarms, version),
    )
    keys = {
        batch: (run_requests.score_key(batch, version), run_requests.release_key(batch, version))
        for batch in state.open_batches.keys() - busy
    }
    attempts = run_history.attempts_of(instance, [retrain, labels, *chain.from_iterable(keys.values())])
    running_jobs = {run.job_name for run in running}
    return Situation(
        champion=version,
        open_batches=tuple(
            OpenBatch(batch, newest.version, newest.held) for batch, newest in state.open_batches.items()
        ),
        pending=tuple(name for name in newest(state.studies) if judged.get(name) != state.studies[name]),
        arriving=tuple(arriving),
        together=state.dropped_together or (),
        retrain_failures=_failures(attempts[retrain]),
        retraining=jobs.RETRAIN_JOB in running_jobs,
        busy=busy,
        failures={
            batch: _failures(attempts[score]) + _failures(attempts[release])
            for batch, (score, release) in keys.items()
        },
        last_rejection=champion.rejection if champion else "",
        lost=state.losing_batches,
        batches_since_retraining=state.batches_since_contest,
        unanswered=state.unanswered_alarms,
        requesting=jobs.request_field_study.name in running_jobs,
        request_failures=_failures(attempts[labels]),
        withdrawn=tuple(name for name in state.withdrawn if name in judged) if state.studies else (),
    )


def _failures(attempts: run_history.Attempts) -> int:
    """Return how often a request failed in a row; once it has rested long enough, as if it failed less."""
    return (
        attempts.failed
        if attempts.backoff_seconds
        else min(attempts.failed, run_history.FAILURES_BEFORE_A_PAUSE - 1)
    )
