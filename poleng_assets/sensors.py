"""The sensors: thin shells that look at folders and events, ask a pure function, and launch runs.

No sensor opens the warehouse: it has one writing process at a time, and a tick must never wait for it.
What was done already is read from Dagster's own history, so that the daemon and the command line, or
a daemon that starts afresh, come to the same answer.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from poleng_assets import jobs
from poleng_assets.core.ingestion import content_hash
from poleng_assets.core.overseer import OpenBatch, Plan, Situation, plan
from poleng_assets.core.reading import file_id
from poleng_assets.core.training_set import training_data_hash
from poleng_assets.core.versions import name_and_number, newest, place
from poleng_assets.home import Kind
from poleng_assets.partitions import PARTITIONS, batch_partitions, outcomes_partitions
from poleng_assets.release import MEASURE_JOB, measure_outcomes
from poleng_assets.resources.landing import Dropped, Landing
from poleng_assets.runs import (
    FAILURES_BEFORE_A_PAUSE,
    PARTITION_TAG,
    REQUEST_TAG,
    attempts,
    bury_dead_runs,
    busy_partitions,
    runs_in_progress,
)
from poleng_assets.study import load_study

TICK_SECONDS = 5
EVENTS_AT_ONCE = 1000

CHAMPION_ASSET = dg.AssetKey("champion")


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
        instance = context.instance
        busy = {name_and_number(id_)[0] for id_ in busy_partitions(runs_in_progress(instance))}
        dropped = list(landing.dropped(kind))
        partitions = instance.get_dynamic_partitions(PARTITIONS[kind].name or "") if dropped else []
        if kind == "batches" and dropped and serving_version(instance) is None:
            names = ", ".join(one.path.name for one in dropped)
            return dg.SkipReason(f"Waiting for the first model: {names}")
        requests: list[dg.RunRequest] = []
        messages: list[str] = []
        for one in dropped:
            if one.problem:
                rejected = landing.reject(kind, one.path, one.problem)
                messages.append(f"Refused {one.path.name}: {one.problem}; it is now {rejected}")
            elif one.name not in busy:
                # One version of a name at a time: which is the next is known when the last is taken in.
                busy.add(one.name)
                request, message = _ingest_request(instance, one, partitions, job)
                requests += [request] if request else []
                messages += [message] if message else []
        for message in messages:
            context.log.warning(message)
        if not requests:
            return dg.SkipReason("; ".join(messages) or f"Nothing new in {landing.home.landing(kind)}")
        partitions = [str(request.partition_key) for request in requests]
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[PARTITIONS[kind].build_add_request(partitions)],
        )

    return arrivals


def _partition_of(instance: dg.DagsterInstance, dropped: Dropped, partitions: Sequence[str]) -> str:
    """Return the partition that a file belongs to: the next version of its name when its content is new."""
    versions = [id_ for id_ in partitions if name_and_number(id_)[0] == dropped.name]
    hashes = {id_: _content_hash(instance, dropped.kind, id_) for id_ in versions}
    known = {id_: digest for id_, digest in hashes.items() if digest is not None}
    # Only a name that is taken needs the hash: it reads the whole file.
    return place(dropped.name, content_hash(dropped.path), known) if known else dropped.name


def _content_hash(instance: dg.DagsterInstance, kind: Kind, partition: str) -> str | None:
    """Return the hash of the file that a partition was made of, None when none was taken in."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(kind), asset_partitions=[partition]), limit=1
    )
    return _metadata(found.records[0].event_log_entry)["content_hash"] if found.records else None


def _ingest_request(
    instance: dg.DagsterInstance, dropped: Dropped, partitions: Sequence[str], job: str
) -> tuple[dg.RunRequest | None, str]:
    """Ask for the run that takes a file in, or say why it is not tried again."""
    request = _ingest_tag(dropped)
    past = attempts(instance, request)
    if past.resting:
        return None, (
            f"{dropped.path.name} could not be taken in, {past.failed} runs failed: look at the newest run "
            f"of {job} and mend the cause. It is tried again in {past.resting:.0f} s, "
            "or when you say poleng retry"
        )
    return dg.RunRequest(
        run_key=f"{request}/{past.number}",
        partition_key=_partition_of(instance, dropped, partitions),
        run_config=dg.RunConfig(ops={dropped.kind: {"config": {"file": dropped.path.name}}}),
        tags={REQUEST_TAG: request},
    ), ""


field_study_arrivals = _arrival_sensor(
    "field_studies",
    jobs.ingest_field_study.name,
    "Takes in the field studies dropped into landing/field_studies.",
)
batch_arrivals = _arrival_sensor(
    "batches",
    jobs.process_batch.name,
    "Takes in, scores and judges the batches dropped into landing/batches.",
)
outcome_arrivals = _arrival_sensor(
    "outcomes", jobs.ingest_outcomes.name, "Takes in the labels dropped into landing/outcomes."
)


@dg.sensor(
    jobs=[
        jobs.retrain_and_promote,
        jobs.score_batch,
        jobs.release_batch,
        jobs.request_field_study,
        measure_outcomes,
        jobs.draw_overview,
    ],
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sees drifted batches, asks for one retraining, has them scored again, and lets no "
    "contact list wait for ever.",
)
def overseer(context: dg.SensorEvaluationContext, landing: dg.ResourceParam[Landing]) -> dg.SensorResult:
    """Walk the new events since the last tick, and act on the plan that follows from them."""
    instance = context.instance
    bury_dead_runs(instance)
    at_work = bool(runs_in_progress(instance))
    memory, situation, decided = survey(
        instance, landing, json.loads(context.cursor) if context.cursor else {}
    )
    for message in decided.messages:
        context.log.info(message)
    requests = [
        *_requests(instance, decided, situation, memory["studies"]),
        *_measurements(instance, memory["unmeasured"], situation),
    ]
    if memory["undrawn"] and not at_work and not requests:
        requests += _drawing(instance, memory["undrawn"])
    return dg.SensorResult(
        run_requests=requests,
        cursor=json.dumps(memory),
        skip_reason=None if requests else dg.SkipReason("; ".join(decided.messages) or "All is well"),
    )


def survey(
    instance: dg.DagsterInstance, landing: Landing, memory: dict[str, Any]
) -> tuple[dict[str, Any], Situation, Plan]:
    """Look at all that happened since ``memory``; return the new memory, the situation and the plan.

    Landing is read first, then runs, events last: what moves on between two looks is seen twice and
    waited for one tick more, where the other order would miss it or start it a second time.
    """
    arriving = _arriving_studies(instance, landing)
    running = runs_in_progress(instance)
    memory = _remember(instance, memory)
    situation = _situation(instance, memory, running, arriving)
    return memory, situation, plan(situation, load_study().policies.overseer)


def serving_version(instance: dg.DagsterInstance) -> int | None:
    """Return the version that serves, from the newest event of the champion asset."""
    event = instance.get_latest_materialization_event(CHAMPION_ASSET)
    return (_metadata(event)["serving_version"] or None) if event else None


def _remember(instance: dg.DagsterInstance, memory: dict[str, Any]) -> dict[str, Any]:
    """Bring the cursor's memory up to date with the events since it was made.

    Each batch goes from taken in (no report) to reported, perhaps held, and leaves when it has its list.
    An alarm stays unanswered until labels were asked for, or another version serves. Batches are counted
    since the last contest for the champion's place.
    """
    if "undrawn" not in memory:
        memory = {}  # of an earlier release, or none: all is read anew
    seen: dict[str, Any] = {
        "open": dict(memory.get("open", {})),
        "studies": dict(memory.get("studies", {})),
        "read": dict(memory.get("read", {})),
        "lost": dict(memory.get("lost", {})),
        "unmeasured": list(memory.get("unmeasured", [])),
        "undrawn": memory.get("undrawn", ""),
        "unanswered": list(memory.get("unanswered", [])),
        "serving": memory.get("serving"),
        "since_retraining": memory.get("since_retraining"),
        "newest": memory.get("newest"),
    }
    events = []
    for asset in _LEARN:
        for record in _new_events(instance, dg.AssetKey(asset), seen["read"].get(asset)):
            events.append((record.storage_id, asset, record))
            seen["read"][asset] = record.storage_id
    for _, asset, record in sorted(events, key=lambda event: event[0]):
        _LEARN[asset](seen, record.partition_key or "", _metadata(record.event_log_entry))
    present = set(instance.get_dynamic_partitions(batch_partitions.name or ""))
    known = set(instance.get_dynamic_partitions(PARTITIONS["field_studies"].name or ""))
    sources = set(instance.get_dynamic_partitions(outcomes_partitions.name or ""))
    return seen | {
        "open": {batch: state for batch, state in seen["open"].items() if batch in present},
        "studies": {study: digest for study, digest in seen["studies"].items() if study in known},
        "unanswered": [batch for batch in seen["unanswered"] if batch in present],
        "unmeasured": [source for source in seen["unmeasured"] if source in sources],
    }


def _learn_of_batch(seen: dict[str, Any], batch: str, metadata: dict[str, Any]) -> None:
    if metadata.get("released"):
        # It has rows without a score, whatever was found of the others; it is no new batch.
        seen["open"][batch] = {"version": None, "held": False}
        return
    seen["open"].setdefault(batch, {"version": None, "held": False})
    # A run that died behind this event is run again, and tells of the same batch once more.
    if seen["since_retraining"] is not None and batch != seen["newest"]:
        seen["since_retraining"] += 1
    seen["newest"] = batch


def _learn_of_report(seen: dict[str, Any], batch: str, metadata: dict[str, Any]) -> None:
    version = metadata["model_version"]
    seen["open"][batch] = {"version": version, "held": bool(metadata["held"])}
    seen["undrawn"] = f"{batch}/{version}"
    # Reports of earlier releases knew no alarms, and their outcomes no losses.
    if metadata.get("alarm") and version == seen["serving"]:
        _want_labels(seen, [batch])


def _learn_of_list(seen: dict[str, Any], batch: str, metadata: dict[str, Any]) -> None:
    seen["open"].pop(batch, None)


def _learn_of_field_study(seen: dict[str, Any], study: str, metadata: dict[str, Any]) -> None:
    # Rows that were put back make other data of the same file.
    seen["studies"][study] = metadata.get("data_hash") or metadata["content_hash"]


def _learn_of_arrived_outcomes(seen: dict[str, Any], source: str, metadata: dict[str, Any]) -> None:
    # Most are measured in the run that takes them in, unless it dies between the two.
    if source not in seen["unmeasured"]:
        seen["unmeasured"].append(source)


def _learn_of_overview(seen: dict[str, Any], _: str, metadata: dict[str, Any]) -> None:
    seen["undrawn"] = ""


def _learn_of_outcomes(seen: dict[str, Any], source: str, metadata: dict[str, Any]) -> None:
    seen["undrawn"] = source
    seen["unmeasured"] = [other for other in seen["unmeasured"] if other != source]
    for version, batches in metadata.get("losses", {}).items():
        known = seen["lost"].setdefault(version, [])
        new = [batch for batch in batches if batch not in known]
        known += new
        if int(version) == seen["serving"]:
            _want_labels(seen, new)


def _learn_of_champion(seen: dict[str, Any], _: str, metadata: dict[str, Any]) -> None:
    # A rollback may ask that its successor's batches be scored again.
    for batch in metadata.get("score_again", []):
        seen["open"][batch] = {"version": None, "held": False}
    contest = "score_again" not in metadata
    if contest and seen["serving"] is not None:
        seen["since_retraining"] = 0
    if metadata["serving_version"] != seen["serving"]:
        seen["unanswered"] = []
    seen["serving"] = metadata["serving_version"] or None


def _learn_of_request(seen: dict[str, Any], _: str, metadata: dict[str, Any]) -> None:
    seen["unanswered"] = []


def _want_labels(seen: dict[str, Any], batches: Sequence[str]) -> None:
    seen["unanswered"] += [batch for batch in batches if batch not in seen["unanswered"]]


_LEARN: dict[str, Callable[[dict[str, Any], str, dict[str, Any]], None]] = {
    "batches": _learn_of_batch,
    "drift_report": _learn_of_report,
    "contact_list": _learn_of_list,
    "field_studies": _learn_of_field_study,
    "outcomes": _learn_of_arrived_outcomes,
    "realised_performance": _learn_of_outcomes,
    "overview": _learn_of_overview,
    "champion": _learn_of_champion,
    "field_study_request": _learn_of_request,
}


def _new_events(
    instance: dg.DagsterInstance, asset: dg.AssetKey, after: int | None
) -> Iterator[dg.EventLogRecord]:
    """Yield all materialisations after a storage id: several may fall between two ticks."""
    while True:
        page = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=asset, after_storage_id=after), EVENTS_AT_ONCE, ascending=True
        )
        yield from page.records
        if not page.has_more:
            return
        after = page.records[-1].storage_id


def _arriving_studies(instance: dg.DagsterInstance, landing: Landing) -> list[str]:
    """Return the field studies in landing that may soon be taken in: those that fail do not count."""
    given_up = {
        one.path
        for one in landing.dropped("field_studies")
        if attempts(instance, _ingest_tag(one)).failed >= FAILURES_BEFORE_A_PAUSE
    }
    return [file_id(path.name) for path in landing.waiting("field_studies") if path not in given_up]


def _situation(
    instance: dg.DagsterInstance,
    memory: Mapping[str, Any],
    running: Sequence[dg.DagsterRun],
    arriving: Sequence[str],
) -> Situation:
    event = instance.get_latest_materialization_event(CHAMPION_ASSET)
    champion = _metadata(event) if event else {}
    judged: Mapping[str, str] = champion.get("judged_field_studies", {})
    studies: Mapping[str, str] = memory["studies"]
    version = champion.get("serving_version") or None
    return Situation(
        champion=version,
        open_batches=tuple(
            OpenBatch(batch, state["version"], state["held"]) for batch, state in memory["open"].items()
        ),
        pending=tuple(name for name in newest(studies) if judged.get(name) != studies[name]),
        arriving=tuple(arriving),
        retrain_failures=_failures(instance, _retrain_request(studies)),
        retraining=any(run.job_name == jobs.RETRAIN_JOB for run in running),
        busy=busy_partitions(running),
        failures={
            batch: _failures(instance, _score_request(batch, version))
            + _failures(instance, _release_request(batch, version))
            for batch in memory["open"]
        },
        last_rejection="" if champion.get("promoted", True) else str(champion["reason"]),
        lost=tuple(memory["lost"].get(str(version), ())),
        batches_since_retraining=memory["since_retraining"],
        unanswered=tuple(memory["unanswered"]),
        requesting=any(run.job_name == jobs.request_field_study.name for run in running),
        request_failures=_failures(instance, _labels_request(memory["unanswered"], version)),
    )


def _failures(instance: dg.DagsterInstance, request: str) -> int:
    """Return how often a request failed in a row; once it has rested long enough, as if it failed less."""
    past = attempts(instance, request)
    return past.failed if past.resting else min(past.failed, FAILURES_BEFORE_A_PAUSE - 1)


def _requests(
    instance: dg.DagsterInstance, decided: Plan, situation: Situation, studies: Mapping[str, str]
) -> Iterator[dg.RunRequest]:
    if decided.retrain:
        yield _request(
            instance,
            jobs.RETRAIN_JOB,
            _retrain_request(studies),
            ops={"training_data": {"config": {"reason": decided.retrain}}},
        )
    for batch in decided.score:
        yield _request(
            instance, jobs.score_batch.name, _score_request(batch, situation.champion), partition=batch
        )
    for batch, why in decided.release:
        yield _request(
            instance,
            jobs.release_batch.name,
            _release_request(batch, situation.champion),
            partition=batch,
            ops={"contact_list": {"config": {"release": why}}},
        )
    if decided.request:
        yield _request(
            instance,
            jobs.request_field_study.name,
            _labels_request(decided.request, situation.champion),
        )


def _measurements(
    instance: dg.DagsterInstance, sources: Sequence[str], situation: Situation
) -> Iterator[dg.RunRequest]:
    """Ask for the runs that measure outcomes: of which rows were put back, or whose own run died."""
    for source in sources:
        request = f"measure/{source}"
        # One that failed too often rests, as all requests do.
        if source not in situation.busy and not attempts(instance, request).resting:
            yield _request(instance, MEASURE_JOB, request, partition=source)


def _drawing(instance: dg.DagsterInstance, undrawn: str) -> Iterator[dg.RunRequest]:
    """Ask for the page of all batches, when the run that should have drawn it died before."""
    request = f"draw/{undrawn}"
    if not attempts(instance, request).resting:
        yield _request(instance, jobs.draw_overview.name, request)


def _request(
    instance: dg.DagsterInstance,
    job: str,
    request: str,
    *,
    partition: str | None = None,
    ops: dict[str, Any] | None = None,
) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=job,
        run_key=f"{request}/{attempts(instance, request).number}",
        partition_key=partition,
        run_config={"ops": ops} if ops else None,
        tags={REQUEST_TAG: request, **({PARTITION_TAG: partition} if partition else {})},
    )


def _retrain_request(studies: Mapping[str, str]) -> str:
    return f"retrain/{training_data_hash({name: studies[name] for name in newest(studies)})}"


def _ingest_tag(dropped: Dropped) -> str:
    return f"{dropped.kind}/{dropped.path.name}/{dropped.stamp}"


def _score_request(batch: str, version: int | None) -> str:
    return f"score/{batch}/{version}"


def _release_request(batch: str, version: int | None) -> str:
    return f"release/{batch}/{version}"


def _labels_request(batches: Sequence[str], version: int | None) -> str:
    # The name of each batch would make a tag too long for Dagster.
    digest = hashlib.sha256("\n".join(batches).encode()).hexdigest()[:16]
    return f"labels/{version}/{digest}"


def _metadata(event: dg.EventLogEntry | None) -> dict[str, Any]:
    materialization = event.asset_materialization if event else None
    if materialization is None:
        return {}
    return {name: value.value for name, value in materialization.metadata.items()}


SENSORS = [field_study_arrivals, batch_arrivals, outcome_arrivals, overseer]
