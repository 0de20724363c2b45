"""Run requests of the sensors: what each is for, as one key, and the number of its attempt."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from poleng_assets.core.data.versions import newest
from poleng_assets.core.monitoring.overseer import Plan
from poleng_assets.defs import jobs
from poleng_assets.defs.quarantine_release import MEASURE_JOB
from poleng_assets.defs.run_history import PARTITION_TAG, REQUEST_TAG, Attempts, attempts_of
from poleng_assets.storage.landing import Dropped
from poleng_assets.warehouse.training_sets import training_data_hash

TICK_SECONDS = 5


def ingest_key(dropped: Dropped) -> str:
    """Return what the run is called that takes a file in, as it lies there now."""
    return f"{dropped.kind}/{dropped.path.name}/{dropped.stamp}"


def retrain_key(studies: Mapping[str, str]) -> str:
    """Return what a retraining is called; ``studies``: the hash of each that counts."""
    return f"retrain/{training_data_hash({name: studies[name] for name in newest(studies)})}"


def score_key(batch: str, version: int | None) -> str:
    """Return what the run is called that scores a batch with a version."""
    return f"score/{batch}/{version}"


def release_key(batch: str, version: int | None) -> str:
    """Return what the run is called that makes the list of a held batch with a version."""
    return f"release/{batch}/{version}"


def labels_key(batches: Sequence[str], version: int | None) -> str:
    """Return what a request for labels is called; the name of each batch would make too long a tag."""
    digest = hashlib.sha256("\n".join(batches).encode()).hexdigest()[:16]
    return f"labels/{version}/{digest}"


@dataclass(frozen=True)
class WantedRun:
    """A run that is wanted.

    Attributes:
        job: that is to run.
        key: what the run is for; counts as one, however often it is tried.
        partition: that it works on, empty when it works on all.
        ops: their configuration.
        rests: whether it is left alone for a while when it failed too often; else the plan sees to that.
    """

    job: str
    key: str
    partition: str = ""
    ops: Mapping[str, Any] | None = None
    rests: bool = False


def launch(instance: dg.DagsterInstance, wanted: Sequence[WantedRun]) -> list[dg.RunRequest]:
    """Return the requests of wanted runs, each under the number of its attempt."""
    attempts = attempts_of(instance, {run.key for run in wanted})
    return [
        dg.RunRequest(
            job_name=run.job,
            run_key=f"{run.key}/{attempts[run.key].number}",
            partition_key=run.partition or None,
            run_config={"ops": run.ops} if run.ops else None,
            tags={REQUEST_TAG: run.key, **({PARTITION_TAG: run.partition} if run.partition else {})},
        )
        for run in wanted
        if not (run.rests and attempts[run.key].backoff_seconds)
    ]


def ingest_request(dropped: Dropped, partition: str, attempts: Attempts) -> dg.RunRequest:
    """Return the request of the run that takes a file in."""
    return dg.RunRequest(
        run_key=f"{ingest_key(dropped)}/{attempts.number}",
        partition_key=partition,
        run_config=dg.RunConfig(ops={dropped.kind: {"config": {"file": dropped.path.name}}}),
        tags={REQUEST_TAG: ingest_key(dropped)},
    )


def retraining(studies: Mapping[str, str], reason: str) -> WantedRun:
    """Want a retraining on these field studies."""
    ops = {"training_data": {"config": {"reason": reason}}}
    return WantedRun(jobs.RETRAIN_JOB, retrain_key(studies), ops=ops)


def planned(plan: Plan, champion: int | None, studies: Mapping[str, str]) -> Iterator[WantedRun]:
    """Want what the overseer's plan asks for."""
    if plan.retrain:
        yield retraining(studies, plan.retrain)
    for batch in plan.score:
        yield WantedRun(jobs.score_batch.name, score_key(batch, champion), batch)
    for batch, why in plan.release:
        ops = {"contact_list": {"config": {"release": why}}}
        yield WantedRun(jobs.release_batch.name, release_key(batch, champion), batch, ops)
    if plan.request:
        yield WantedRun(jobs.request_field_study.name, labels_key(plan.request, champion))


def measurements(sources: Sequence[str], busy: Collection[str]) -> Iterator[WantedRun]:
    """Want the runs that measure outcomes: of which rows were released, or whose own run died."""
    for source in sources:
        if source not in busy:
            yield WantedRun(MEASURE_JOB, f"measure/{source}", source, rests=True)


def drawing(undrawn: str) -> WantedRun:
    """Want the page of all batches, when the run that should have drawn it died before."""
    return WantedRun(jobs.draw_overview.name, f"draw/{undrawn}", rests=True)
