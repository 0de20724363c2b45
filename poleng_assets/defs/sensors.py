"""The sensors: thin shells that look at folders and events, ask a pure function, and launch runs.

No sensor opens the warehouse: it has one writing process at a time, and a tick must never wait for it.
What was done already is read from Dagster's own history, so that the daemon and the command line, or
a daemon that starts afresh, come to the same answer.
"""

import errno
import hashlib
import heapq
import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from poleng_assets.core.data.versions import name_and_number, newest, place
from poleng_assets.core.monitoring.overseer import OpenBatch, Plan, Situation, plan
from poleng_assets.defs import jobs
from poleng_assets.defs.clock import clock_in_doubt
from poleng_assets.defs.partitions import (
    PARTITIONS,
    batch_partitions,
    field_study_partitions,
    outcomes_partitions,
)
from poleng_assets.defs.quarantine_release import MEASURE_JOB, measure_outcomes
from poleng_assets.defs.resources.landing import Dropped, FileChanged, Landing
from poleng_assets.defs.run_history import (
    FAILURES_BEFORE_A_PAUSE,
    PARTITION_TAG,
    REQUEST_TAG,
    Attempts,
    attempts_of,
    bury_dead_runs,
    busy_partitions,
    forgiven_up_to,
    runs_in_progress,
)
from poleng_assets.storage.dropped_files import content_hash, file_id
from poleng_assets.storage.file_names import clash_problem
from poleng_assets.storage.home import Kind
from poleng_assets.storage.home_study import study_of
from poleng_assets.warehouse.training_sets import training_data_hash

TICK_SECONDS = 5
EVENTS_AT_ONCE = 200
FEW = 10

CHAMPION_ASSET = dg.AssetKey("champion")
# Faults of a disk that may be mended without anybody touching the file: it is tried again at every look.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


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
        if doubt := clock_in_doubt(instance, landing.home):
            return dg.SkipReason(f"The clock is in doubt: {doubt}")
        if trouble := landing.try_out(kind):
            return dg.SkipReason(trouble)
        landing.clear_leftovers(kind)
        busy = {name_and_number(id_)[0] for id_ in busy_partitions(runs_in_progress(instance))}
        seen = landing.look(kind)
        waiting = [f"Waiting for {name}: {why}" for name, why in seen.waits.items()]
        if kind == "batches" and seen.dropped and serving_version(instance) is None:
            names = ", ".join(one.path.name for one in seen.dropped)
            return dg.SkipReason("; ".join([f"Waiting for the first model: {names}", *waiting]))
        versions = _versions(instance, kind) if seen.dropped else {}
        settled, refused = _sorted_out(seen.dropped, versions, busy)
        stuck = _Stuck.read(context.cursor, forgiven_up_to(instance))
        messages = [words for one, why in refused if (words := stuck.refuse(landing, one, why))]
        tried = attempts_of(instance, [_ingest_tag(one) for one in settled])
        requests: list[dg.RunRequest] = []
        for one in settled:
            past = tried[_ingest_tag(one)]
            if past.done:
                stuck.add(one, "it was taken in, and cannot be removed from landing: remove it by hand")
            elif past.resting:
                messages.append(_resting_words(one, past, job))
            else:
                try:
                    requests.append(_ingest_request(instance, one, versions.get(one.name, ()), past))
                except OSError as error:  # it went away, or its disk fails: the others are taken in
                    messages.append(f"{one.path.name} cannot be read now: {error.strerror}")
        left = {**seen.left, **stuck.words}
        for message in (*messages, *(f"Left alone: {name}: {left[name]}" for name in stuck.news(left))):
            context.log.warning(message)
        context.update_cursor(stuck.cursor(left))
        if not requests:
            told = [*messages, *waiting, *(f"Left alone: {name}: {why}" for name, why in left.items())]
            return dg.SkipReason("; ".join(told) or f"Nothing new in {landing.home.landing(kind)}")
        partitions = [str(request.partition_key) for request in requests]
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[PARTITIONS[kind].build_add_request(partitions)],
        )

    return arrivals


def _sorted_out(
    dropped: Sequence[Dropped], taken: Collection[str], busy: set[str]
) -> tuple[list[Dropped], list[tuple[Dropped, str]]]:
    """Return the files that may be taken in now, and those that are refused by their names, each with why.

    Args:
        dropped: files that have settled, oldest first.
        taken: names that were given before.
        busy: names that a run works on.
    """
    settled: list[Dropped] = []
    refused: list[tuple[Dropped, str]] = []
    names = set(taken)
    working = set(busy)
    for one in dropped:
        problem = one.problem or clash_problem(one.name, names)
        if problem:
            refused.append((one, problem))
            continue
        names.add(one.name)
        if one.name not in working:
            # One version of a name at a time: which is the next is known when the last is taken in.
            working.add(one.name)
            settled.append(one)
    return settled, refused


@dataclass
class _Stuck:
    """The entries of a landing folder that nothing can be done with, kept in the sensor's cursor.

    Each is tried once, until it is touched or somebody says ``poleng retry``.

    Attributes:
        forgiven: up to which run failures do not count any more.
        before: the stamp of each that could not be refused before, and why, by its name.
        named: the names that were told of before.
        words: why each is stuck now.
    """

    forgiven: int
    before: dict[str, tuple[str, str]]
    named: set[str]
    words: dict[str, str] = field(default_factory=dict)
    now: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None, forgiven: int) -> "_Stuck":
        kept = json.loads(cursor) if cursor else {}
        before = kept.get("stuck", {}) if kept.get("forgiven") == forgiven else {}
        known = {name: (stamp, why) for name, (stamp, why) in before.items()}
        return cls(forgiven, known, set(kept.get("named", ())))

    def add(self, dropped: Dropped, why: str) -> None:
        self.words[dropped.path.name] = why
        self.now[dropped.path.name] = (dropped.stamp, why)

    def refuse(self, landing: Landing, dropped: Dropped, why: str) -> str:
        """Refuse a file or another entry, unless it is known that this fails; return what is to be told."""
        name = dropped.path.name
        stamp, known = self.before.get(name, ("", ""))
        if stamp == dropped.stamp:
            self.add(dropped, known)
            return ""
        try:
            place = landing.reject(dropped.kind, dropped.path, why)
        except FileChanged as change:
            return str(change)
        except FileNotFoundError:
            return ""  # somebody took it away
        except OSError as error:
            told = f"it is to be refused ({why}), and cannot be moved ({error.strerror}): remove it by hand"
            if error.errno in _PASSING:
                return f"{name}: {told}"
            self.add(dropped, told)
            return ""
        if os.path.lexists(dropped.path):
            self.add(dropped, f"it was refused ({why}), and cannot be removed: remove it by hand")
        return f"Refused {name}: {why}; it is now {place}"

    def news(self, left: Mapping[str, str]) -> list[str]:
        """Return the names that were not told of before."""
        return [name for name in left if name not in self.named]

    def cursor(self, left: Mapping[str, str]) -> str:
        return json.dumps({"forgiven": self.forgiven, "stuck": self.now, "named": sorted(left)})


def _versions(instance: dg.DagsterInstance, kind: Kind) -> Mapping[str, list[str]]:
    """Return the partitions of each name that was ever dropped."""
    versions: dict[str, list[str]] = defaultdict(list)
    for id_ in instance.get_dynamic_partitions(PARTITIONS[kind].name or ""):
        versions[name_and_number(id_)[0]].append(id_)
    return versions


def _partition_of(instance: dg.DagsterInstance, dropped: Dropped, versions: Sequence[str]) -> str:
    """Return the partition that a file belongs to: the next version of its name when its content is new."""
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


def _resting_words(dropped: Dropped, past: Attempts, job: str) -> str:
    """Say why a file is not tried now."""
    return (
        f"{dropped.path.name} could not be taken in, {past.failed} runs failed: look at the newest run "
        f"of {job} and mend the cause. It is tried again in {past.resting:.0f} s, "
        "or when you say poleng retry"
    )


def _ingest_request(
    instance: dg.DagsterInstance, dropped: Dropped, versions: Sequence[str], past: Attempts
) -> dg.RunRequest:
    """Ask for the run that takes a file in."""
    request = _ingest_tag(dropped)
    return dg.RunRequest(
        run_key=f"{request}/{past.number}",
        partition_key=_partition_of(instance, dropped, versions),
        run_config=dg.RunConfig(ops={dropped.kind: {"config": {"file": dropped.path.name}}}),
        tags={REQUEST_TAG: request},
    )


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
    if doubt := clock_in_doubt(instance, landing.home, remember=True):
        context.log.warning(f"The clock is in doubt: {doubt}")
        return dg.SensorResult(
            cursor=context.cursor, skip_reason=dg.SkipReason(f"The clock is in doubt: {doubt}")
        )
    at_work = bool(runs_in_progress(instance))
    memory, situation, decided = survey(
        instance, landing, json.loads(context.cursor) if context.cursor else {}
    )
    for message in decided.messages:
        context.log.info(message)
    wanted = [
        *_planned(decided, situation, memory["studies"]),
        *_measurements(memory["unmeasured"], situation.busy),
    ]
    requests = _launch(instance, wanted)
    if memory["undrawn"] and not at_work and not requests:
        requests = _launch(instance, [_drawing(memory["undrawn"])])
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
    unscored = _arriving_batches(instance, landing)
    running = runs_in_progress(instance)
    # What happens from here on belongs to the next tick: of two events, none is seen without the one before.
    until = instance.event_log_storage.get_maximum_record_id() or 0
    champion = _newest_champion(instance, until)
    memory = _remember(instance, memory if _goes_on(memory, until, champion) else {}, until)
    memory["together"] = _dropped_together(
        instance, memory, champion.get("serving_version"), running, unscored
    )
    situation = _situation(instance, memory, champion, running, arriving)
    return memory, situation, plan(situation, study_of(landing.home).policies.overseer)


def serving_version(instance: dg.DagsterInstance) -> int | None:
    """Return the version that serves, from the newest event of the champion asset."""
    event = instance.get_latest_materialization_event(CHAMPION_ASSET)
    return (_metadata(event)["serving_version"] or None) if event else None


def _newest_champion(instance: dg.DagsterInstance, until: int) -> dict[str, Any]:
    """Return what the newest event of the champion tells, up to a storage id; nothing when there is none."""
    within = dg.AssetRecordsFilter(CHAMPION_ASSET, before_storage_id=until + 1)
    found = instance.fetch_materializations(within, limit=1).records
    return _metadata(found[0].event_log_entry) if found else {}


def _goes_on(memory: Mapping[str, Any], until: int, champion: Mapping[str, Any]) -> bool:
    """Whether a memory is of this very history; if not, all is read anew.

    It may be of an earlier release, or of a history that was put back from a backup or wiped since.
    """
    read = memory.get("read")
    return isinstance(read, int) and read <= until and bool(champion or memory["serving"] is None)


def _remember(instance: dg.DagsterInstance, memory: dict[str, Any], until: int) -> dict[str, Any]:
    """Bring the cursor's memory up to date with the events since it was made, up to a storage id.

    Each batch goes from taken in (no report) to reported, perhaps held, and leaves when it has its list.
    An alarm stays unanswered until labels were asked for, or another version serves. Batches are counted
    since the last contest for the champion's place.
    """
    seen: dict[str, Any] = {
        "open": dict(memory.get("open", {})),
        "studies": dict(memory.get("studies", {})),
        "withdrawn": list(memory.get("withdrawn", [])),
        "read": until,
        "lost": dict(memory.get("lost", {})),
        "unmeasured": list(memory.get("unmeasured", [])),
        "undrawn": memory.get("undrawn", ""),
        "unanswered": list(memory.get("unanswered", [])),
        "serving": memory.get("serving"),
        "since_retraining": memory.get("since_retraining"),
        "newest": memory.get("newest"),
        "together": memory.get("together"),
    }
    for asset, record in _new_events(instance, memory.get("read", 0), until):
        _LEARN[asset](seen, record.partition_key or "", _metadata(record.event_log_entry))
    present = _present(instance, batch_partitions, {*seen["open"], *seen["unanswered"]})
    known = _present(instance, field_study_partitions, seen["studies"])
    sources = _present(instance, outcomes_partitions, seen["unmeasured"])
    return seen | {
        "open": {batch: state for batch, state in seen["open"].items() if batch in present},
        "studies": {study: digest for study, digest in seen["studies"].items() if study in known},
        "unanswered": [batch for batch in seen["unanswered"] if batch in present],
        "unmeasured": [source for source in seen["unmeasured"] if source in sources],
    }


def _present(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, ids: Collection[str]
) -> set[str]:
    """Return those ids that are partitions still; of a few, each is asked for: years have many partitions."""
    name = partitions.name or ""
    if len(ids) <= FEW:
        return {id_ for id_ in ids if instance.has_dynamic_partition(name, id_)}
    return set(ids).intersection(instance.get_dynamic_partitions(name))


def _learn_of_batch(seen: dict[str, Any], batch: str, metadata: dict[str, Any]) -> None:
    if metadata.get("released"):
        # It has rows without a score, whatever was found of the others; it is no new batch.
        seen["open"][batch] = {"version": None, "held": False}
        return
    if metadata.get("list_stands"):
        return  # it was materialised again by hand: nothing is to be done about it
    seen["open"].setdefault(batch, {"version": None, "held": False})
    # A run that died behind this event is run again, and tells of the same batch once more.
    if seen["since_retraining"] is not None and batch != seen["newest"]:
        seen["since_retraining"] += 1
    seen["newest"] = batch


def _learn_of_report(seen: dict[str, Any], batch: str, metadata: dict[str, Any]) -> None:
    version = metadata["model_version"]
    if not metadata.get("list_stands"):
        seen["open"][batch] = {"version": version, "held": bool(metadata["held"])}
    seen["undrawn"] = f"{batch}/{version}"
    # Reports of earlier releases knew no alarms, and their outcomes no losses.
    if metadata.get("alarm") and version == seen["serving"]:
        _want_labels(seen, [batch])


def _learn_of_list(seen: dict[str, Any], batch: str, metadata: dict[str, Any]) -> None:
    seen["open"].pop(batch, None)


def _learn_of_field_study(seen: dict[str, Any], study: str, metadata: dict[str, Any]) -> None:
    if "withdrawn" in metadata:
        withdrawn = [one for one in seen["withdrawn"] if one != study]
        seen["withdrawn"] = [*withdrawn, study] if metadata["withdrawn"] else withdrawn
    if study in seen["withdrawn"]:
        seen["studies"].pop(study, None)
        return
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
    instance: dg.DagsterInstance, after: int, until: int
) -> Iterator[tuple[str, dg.EventLogRecord]]:
    """Yield what happened to the assets that tell something, after one storage id and up to another.

    In the order in which it happened, and page by page: reports carry pictures, and those of years would
    not fit into memory.
    """
    if after < until:
        streams = [_events_of(instance, asset, after, until) for asset in _LEARN]
        yield from heapq.merge(*streams, key=lambda found: found[1].storage_id)


def _events_of(
    instance: dg.DagsterInstance, asset: str, after: int, until: int
) -> Iterator[tuple[str, dg.EventLogRecord]]:
    while True:
        within = dg.AssetRecordsFilter(
            dg.AssetKey(asset), after_storage_id=after, before_storage_id=until + 1
        )
        page = instance.fetch_materializations(within, EVENTS_AT_ONCE, ascending=True)
        yield from ((asset, record) for record in page.records)
        if not page.has_more:
            return
        after = page.records[-1].storage_id


def _arriving_studies(instance: dg.DagsterInstance, landing: Landing) -> list[str]:
    """Return the field studies in landing that may soon be taken in: those that fail do not count.

    Nor do those that are not whole yet by their names, and those that cannot be removed once they were taken
    in: nobody knows how long they stay.
    """
    seen = landing.look("field_studies")
    tags = {one.path: _ingest_tag(one) for one in seen.dropped}
    tried = attempts_of(instance, set(tags.values()))
    given_up = {
        path for path, tag in tags.items() if tried[tag].done or tried[tag].failed >= FAILURES_BEFORE_A_PAUSE
    }
    return [
        file_id(path.name)
        for path in landing.waiting("field_studies")
        if path not in given_up and path.name not in seen.left
    ]


def _arriving_batches(instance: dg.DagsterInstance, landing: Landing) -> set[str]:
    """Return the batches in landing that are taken in next: those that fail do not count."""
    tags = {_ingest_tag(one): one.name for one in landing.dropped("batches") if not one.problem}
    tried = attempts_of(instance, list(tags))
    return {name for tag, name in tags.items() if not (tried[tag].resting or tried[tag].done)}


def _dropped_together(
    instance: dg.DagsterInstance,
    memory: Mapping[str, Any],
    champion: int | None,
    running: Sequence[dg.DagsterRun],
    arriving: Collection[str],
) -> list[str] | None:
    """Return the batches that were there, and without a score, when a retraining was first wanted.

    It waits for them, and for none that comes later: whichever way a drop is worked through, and wherever
    that is cut short, all of its batches are first scored by the version that served when it came.

    Returns:
        Those that still have no score; None while no retraining is wanted.
    """
    held = any(state["held"] and state["version"] == champion for state in memory["open"].values())
    if champion is None or not (held or memory["lost"].get(str(champion))):
        return None
    busy = busy_partitions(run for run in running if run.job_name == jobs.process_batch.name)
    scored = {batch for batch, state in memory["open"].items() if state["version"] is not None}
    # A run that died behind its first step leaves a batch to the overseer; one that fails is not waited for.
    left = {_score_request(batch, champion): batch for batch in memory["open"] if batch not in scored | busy}
    tried = attempts_of(instance, list(left))
    left = {request: batch for request, batch in left.items() if not tried[request].resting}
    unscored = {*arriving, *(name_and_number(batch)[0] for batch in {*(busy - scored), *left.values()})}
    before = memory["together"]
    return sorted(unscored if before is None else unscored.intersection(before))


def _situation(
    instance: dg.DagsterInstance,
    memory: Mapping[str, Any],
    champion: Mapping[str, Any],
    running: Sequence[dg.DagsterRun],
    arriving: Sequence[str],
) -> Situation:
    judged: Mapping[str, str] = champion.get("judged_field_studies", {})
    studies: Mapping[str, str] = memory["studies"]
    version = champion.get("serving_version") or None
    busy = busy_partitions(running)
    retraining = _retrain_request(studies)
    labels = _labels_request(memory["unanswered"], version)
    of_batch = {
        batch: (_score_request(batch, version), _release_request(batch, version))
        for batch in memory["open"]
        if batch not in busy
    }
    tried = attempts_of(instance, [retraining, labels, *(one for pair in of_batch.values() for one in pair)])
    return Situation(
        champion=version,
        open_batches=tuple(
            OpenBatch(batch, state["version"], state["held"]) for batch, state in memory["open"].items()
        ),
        pending=tuple(name for name in newest(studies) if judged.get(name) != studies[name]),
        arriving=tuple(arriving),
        together=tuple(memory["together"] or ()),
        retrain_failures=_failures(tried[retraining]),
        retraining=any(run.job_name == jobs.RETRAIN_JOB for run in running),
        busy=busy,
        failures={batch: sum(_failures(tried[one]) for one in pair) for batch, pair in of_batch.items()},
        last_rejection="" if champion.get("promoted", True) else str(champion["reason"]),
        lost=tuple(memory["lost"].get(str(version), ())),
        batches_since_retraining=memory["since_retraining"],
        unanswered=tuple(memory["unanswered"]),
        requesting=any(run.job_name == jobs.request_field_study.name for run in running),
        request_failures=_failures(tried[labels]),
        withdrawn=tuple(one for one in memory["withdrawn"] if one in judged) if studies else (),
    )


def _failures(past: Attempts) -> int:
    """Return how often a request failed in a row; once it has rested long enough, as if it failed less."""
    return past.failed if past.resting else min(past.failed, FAILURES_BEFORE_A_PAUSE - 1)


@dataclass(frozen=True)
class _Wanted:
    """A run that is wanted.

    Attributes:
        job: that is to run.
        request: what the run is for; counts as one, however often it is tried.
        partition: that it works on, empty when it works on all.
        ops: their configuration.
        rests: whether it is left alone for a while when it failed too often; else the plan sees to that.
    """

    job: str
    request: str
    partition: str = ""
    ops: Mapping[str, Any] | None = None
    rests: bool = False


def _launch(instance: dg.DagsterInstance, wanted: Sequence[_Wanted]) -> list[dg.RunRequest]:
    """Ask Dagster for the runs that are wanted, each under the number of its attempt."""
    tried = attempts_of(instance, {one.request for one in wanted})
    return [
        dg.RunRequest(
            job_name=one.job,
            run_key=f"{one.request}/{tried[one.request].number}",
            partition_key=one.partition or None,
            run_config={"ops": one.ops} if one.ops else None,
            tags={REQUEST_TAG: one.request, **({PARTITION_TAG: one.partition} if one.partition else {})},
        )
        for one in wanted
        if not (one.rests and tried[one.request].resting)
    ]


def _planned(decided: Plan, situation: Situation, studies: Mapping[str, str]) -> Iterator[_Wanted]:
    if decided.retrain:
        yield _retraining(studies, decided.retrain)
    for batch in decided.score:
        yield _Wanted(jobs.score_batch.name, _score_request(batch, situation.champion), batch)
    for batch, why in decided.release:
        yield _Wanted(
            jobs.release_batch.name,
            _release_request(batch, situation.champion),
            batch,
            {"contact_list": {"config": {"release": why}}},
        )
    if decided.request:
        request = _labels_request(decided.request, situation.champion)
        yield _Wanted(jobs.request_field_study.name, request)


def retraining_requests(
    instance: dg.DagsterInstance, studies: Mapping[str, str], reason: str
) -> list[dg.RunRequest]:
    """Ask for a retraining on these field studies; ``studies``: the hash of each that was taken in."""
    return _launch(instance, [_retraining(studies, reason)])


def _retraining(studies: Mapping[str, str], reason: str) -> _Wanted:
    ops = {"training_data": {"config": {"reason": reason}}}
    return _Wanted(jobs.RETRAIN_JOB, _retrain_request(studies), ops=ops)


def _measurements(sources: Sequence[str], busy: Collection[str]) -> Iterator[_Wanted]:
    """Want the runs that measure outcomes: of which rows were put back, or whose own run died."""
    for source in sources:
        if source not in busy:
            yield _Wanted(MEASURE_JOB, f"measure/{source}", source, rests=True)


def _drawing(undrawn: str) -> _Wanted:
    """Want the page of all batches, when the run that should have drawn it died before."""
    return _Wanted(jobs.draw_overview.name, f"draw/{undrawn}", rests=True)


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


# The command line ticks them in this order: what a killed run left undone comes before what is new, so that
# batches are judged in the order in which they came.
SENSORS = [overseer, field_study_arrivals, batch_arrivals, outcome_arrivals]
