"""What the measured processes do: ``python -m tools.bench.tasks NAME ARGUMENTS RESULT``.

A task times what its row is about, without the start of Python and without what it prepares, and returns
plain values. Slow libraries are imported where they are used: their time and memory belong to those who
use them. The project itself is used through its public functions only.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

# What the project sets for every process, such as the threads of OpenMP, holds for its rivals too.
import poleng_assets  # noqa: F401
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study

if TYPE_CHECKING:
    import dagster as dg

    from poleng_assets.headless.runner import HeadlessRunner, RunReport

BLOCK = 100_000
# As many contacts as a batch of the usual size has.
EXPLAINED = 1_000
WARM_UP = "warm_up"
TICKS = 20
# Of one batch: those that the overseer follows, and what made them.
STAGES = ("batches", "predictions", "drift_report", "contact_list")


# What is measured on


def make_population(folder: str) -> dict[str, Any]:
    """Write the synthetic survey, laid out as ``poleng simulate --data`` wants it."""
    from poleng_assets.simulation.population import write_scenario_data

    return {"files": len(write_scenario_data(load_study(), Path(folder)))}


def write_people(data: str, rows: int, file: str, seed: int = 1) -> dict[str, Any]:
    """Write a batch of so many rows: the people of the clean batches again and again, under new ids.

    Block by block, each in an order of its own, so that ten million rows need little memory.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    study = load_study()
    people = _clean_people(Path(data))
    random_numbers = np.random.default_rng(seed)
    part = Path(f"{file}.part")
    with pq.ParquetWriter(part, people.schema) as writer:
        for start in range(0, rows, BLOCK):
            size = min(BLOCK, rows - start)
            repeats = -(-size // people.num_rows)
            order = np.concatenate([random_numbers.permutation(people.num_rows) for _ in range(repeats)])
            block = people.take(pa.array(order[:size]))
            ids = [str(uuid.UUID(bytes=random_numbers.bytes(16), version=4)) for _ in range(size)]
            position = people.schema.get_field_index(study.id)
            writer.write_table(block.set_column(position, people.schema.field(study.id), pa.array(ids)))
    part.replace(file)
    return {"rows": rows, "bytes": Path(file).stat().st_size}


def export_champion(home: str, folder: str) -> dict[str, Any]:
    """Write the champion of a home into a folder, where it can be read without MLflow; describe it."""
    from poleng_assets.core.modeling.candidates.boosting import Boosting
    from poleng_assets.models.registry import Registry
    from tools.bench.seeds_way import trees_of

    study = load_study()
    registry = Registry(Home(Path(home)), study)
    version = registry.champion()
    model = registry.model(version)
    model.save(Path(folder))
    # Not asked of the booster: a file of XGBoost's does not say how deep its trees were to be.
    recipe = json.loads(version.tags["recipe"])["ingredients"]
    boosters = [trees_of(one["parameters"]) for one in recipe if one["kind"] == Boosting.kind]
    policy = study.policies.training.xgboost
    untuned = {"rounds": policy.rounds, "max_depth": policy.max_depth, "eta": policy.learning_rate}
    return {
        "members": [one.kind for one in model.blend.members],
        "trees": max(boosters, key=lambda one: one["rounds"], default=untuned),
    }


def learn_seeds_way(data: str, folder: str, trees: dict[str, Any]) -> dict[str, Any]:
    """Train the seed's way on the founding study, with so many trees."""
    from tools.bench.seeds_way import learn, read

    study = load_study()
    settings = dict(trees)
    rounds = settings.pop("rounds")
    Path(folder).mkdir(parents=True)
    learn(read(_founding_study(Path(data))), study.feature_names, study.target.name, rounds, settings).save(
        Path(folder)
    )
    return {"rounds": rounds}


# Scoring


def score_people(model: str, people: str) -> dict[str, Any]:
    """Take a file into an empty warehouse and score it, to the end of the last commit."""
    from poleng_assets.core.ingestion.ingest import ingest
    from poleng_assets.core.modeling.model import Model
    from poleng_assets.warehouse.connection import Warehouse
    from tools.scored import score_batch

    study, path = load_study(), Path(people)
    champion = Model.load(Path(model))
    with tempfile.TemporaryDirectory(prefix="bench_", dir=path.parent) as folder:
        warehouse = Warehouse(Path(folder) / "warehouse.duckdb", study)
        started = time.perf_counter()
        with warehouse.connect() as con:
            taken = ingest(con, study, "batches", path)
        taken_in = time.perf_counter()
        respondents, contacts = score_batch(warehouse, champion, taken.name, 1)
        scored = time.perf_counter()
        ended = time.perf_counter()
        with warehouse.read() as con:
            kept = con.execute("SELECT count(*) FROM predictions").fetchall()[0][0]
    if not kept == respondents == taken.rows_kept:
        raise RuntimeError(f"{kept} scores are kept of {taken.rows_kept} people")
    return {
        "seconds": ended - started,
        "ingest": taken_in - started,
        "score": scored - taken_in,
        "close": ended - scored,
        "rows": respondents,
        "contacts": contacts,
    }


def predict_raw(model: str, people: str) -> dict[str, Any]:
    """Predict with each member of the champion on matrices that are ready; only predicting is timed."""
    from poleng_assets.core.modeling.model import Model
    from tools.bench.raw import ready

    champion = Model.load(Path(model))
    seconds = dict.fromkeys((one.kind for one in champion.blend.members), 0.0)
    rows = 0
    for block in _blocks(Path(people)):
        matrix = champion.encoder.encode(block)
        for member in champion.blend.members:
            predict = ready(member, matrix)
            if not rows:
                predict()  # threads start, pages are touched
            started = time.perf_counter()
            predict()
            seconds[member.kind] += time.perf_counter() - started
        rows += len(matrix)
    return {"seconds": sum(seconds.values()), "members": seconds, "rows": rows}


def explain(model: str, people: str) -> dict[str, Any]:
    """Explain some people, all members on all cores; and the boosters alone, as XGBoost itself does it."""
    from poleng_assets.core.modeling.candidates.boosting import Boosting
    from poleng_assets.core.modeling.model import Model

    champion = Model.load(Path(model))
    rows = next(_blocks(Path(people))).slice(0, EXPLAINED).select(list(champion.encoder.features))
    seconds = _seconds(lambda: champion.contributions(rows))
    matrix = champion.encoder.encode(rows)
    by_xgboost = 0.0
    for member in champion.blend.members:
        if isinstance(member, Boosting):
            data = member._data(matrix)
            member.booster.set_param({"nthread": 0})
            by_xgboost += _seconds(partial(member.booster.predict, data, pred_contribs=True))
    return {"seconds": seconds, "xgboost": by_xgboost, "rows": rows.num_rows}


def read_raw(people: str) -> dict[str, Any]:
    """Let DuckDB read a whole file, and do nothing with it."""
    import duckdb

    rows = 0
    started = time.perf_counter()
    with duckdb.connect() as con:
        for block in con.sql("SELECT * FROM read_parquet($file)", params={"file": people}).to_arrow_reader(
            BLOCK
        ):
            rows += block.num_rows
    return {"seconds": time.perf_counter() - started, "rows": rows}


def encode(model: str, people: str) -> dict[str, Any]:
    """Make the model's matrices of all people, from the answers as the file has them, and score them."""
    from poleng_assets.core.modeling.model import Model

    champion = Model.load(Path(model))
    features = list(champion.encoder.features)
    blocks = [block.select(features) for block in _blocks(Path(people))]
    champion.score(blocks[0])  # libraries load, threads start
    started = time.perf_counter()
    for block in blocks:
        champion.encoder.encode(block)
    encoded = time.perf_counter()
    for block in blocks:
        champion.score(block)
    scored = time.perf_counter()
    rows = sum(block.num_rows for block in blocks)
    return {"seconds": encoded - started, "score": scored - encoded, "rows": rows}


def vectorise_seeds_way(seed: str, people: str) -> dict[str, Any]:
    """Make the seed's matrix of all people: rows to dicts, DictVectorizer."""
    from tools.bench.seeds_way import SeedModel, read, vectorise

    vectoriser = SeedModel.load(Path(seed)).vectoriser
    rows = read(Path(people))[load_study().feature_names]
    started = time.perf_counter()
    vectorise(vectoriser, rows)
    return {"seconds": time.perf_counter() - started, "rows": len(rows)}


def score_seeds_way(seed: str, people: str) -> dict[str, Any]:
    """Score a file the seed's way, into a file."""
    from tools.bench.seeds_way import SeedModel, score_file

    model = SeedModel.load(Path(seed))
    with tempfile.TemporaryDirectory(prefix="bench_", dir=Path(people).parent) as folder:
        started = time.perf_counter()
        rows = score_file(model, Path(people), Path(folder) / "scored.parquet", load_study().feature_names)
        return {"seconds": time.perf_counter() - started, "rows": rows}


# The report


@dataclass
class Clock:
    """Adds up the seconds that are spent in a library's methods, however deep they call each other."""

    seconds: float = 0.0
    depth: int = 0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self.depth += 1
            started = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.perf_counter() - started

        return timed


def report(home: str, people: str, times: int) -> dict[str, Any]:
    """Make the drift report of one batch again and again, in turns with its rivals on the same frames.

    Whatever else the machine does meanwhile slows all of them; the ratio is the median of the turns.
    """
    from poleng_assets.core.monitoring.batch_report import load_report
    from poleng_assets.defs.jobs import process_batch
    from poleng_assets.models.registry import Registry
    from poleng_assets.warehouse.connection import Warehouse
    from poleng_assets.warehouse.predictions import scoring_version
    from tools.bench.lean import bare_calculators
    from tools.bench.seeds_way import drift

    study, batch = load_study(), Path(people).stem
    columns = [*study.feature_names, "score"]
    turns: list[tuple[float, float, float, float]] = []
    with _copy_of(home) as copy, _loop(copy) as (runner, submit):
        submit(Path(people))
        job = runner.defs.resolve_job_def(process_batch.name)
        with Warehouse(copy.warehouse, study).connect() as con:
            version = scoring_version(con, batch) or 0
            registry = Registry(copy, study)
            reference = registry.reference(registry.version(version))
            seen = load_report(con, study, batch, version, reference)
        for _ in range(times):
            with nannyml_clock() as clock:
                done = job.execute_in_process(
                    asset_selection=[_asset("drift_report")],
                    partition_key=batch,
                    instance=runner.instance,
                    run_config=_SILENT,
                )
            (step,) = runner.instance.get_run_step_stats(done.run_id, ["drift_report"])
            turns.append(
                (
                    float(step.end_time or 0) - float(step.start_time or 0),
                    clock.seconds,
                    _seconds(lambda: bare_calculators(study, reference, seen.scored)),
                    _seconds(lambda: drift(reference, seen.scored, columns)),
                )
            )
    whole, inside, bare, seed = map(median, zip(*turns, strict=True))
    return {
        "seconds": whole,
        "inside": inside,
        "bare": bare,
        "seed": seed,
        "ratio": median(turn[0] / turn[2] for turn in turns),
        "rows": len(seen.scored),
        "reference": len(reference),
        "verdict": seen.judgement.verdict,
    }


@contextmanager
def nannyml_clock() -> Iterator[Clock]:
    """Time all that is done inside NannyML's calculators and estimators meanwhile."""
    from nannyml.base import AbstractCalculator, AbstractEstimator

    clock = Clock()
    methods: list[tuple[type, str]] = [
        (AbstractCalculator, "fit"),
        (AbstractCalculator, "calculate"),
        (AbstractEstimator, "fit"),
        (AbstractEstimator, "estimate"),
    ]
    own = [getattr(kind, name) for kind, name in methods]
    for (kind, name), method in zip(methods, own, strict=True):
        setattr(kind, name, clock.around(method))
    try:
        yield clock
    finally:
        for (kind, name), method in zip(methods, own, strict=True):
            setattr(kind, name, method)


# Sensors, daemon, simulation


def know_batches(home: str, people: str, folder: str, batches: int) -> dict[str, Any]:
    """Make a home that has dealt with so many batches: one for real, the others told as it was.

    Events, partitions and runs are written by Dagster's own calls, with the metadata of the real ones.
    """
    import dagster as dg

    from poleng_assets.defs.jobs import process_batch
    from poleng_assets.defs.partitions import batch_partitions
    from poleng_assets.defs.run_history import PARTITION_TAG, REQUEST_TAG
    from tools.copies import copy_home

    copy = copy_home(Home(Path(home)), Path(folder))
    names = [f"known_{number:06d}" for number in range(batches)]
    with _loop(copy) as (runner, submit):
        submit(Path(people))
        instance = runner.instance
        real = {asset: _newest(instance, asset) for asset in STAGES}
        instance.add_dynamic_partitions(batch_partitions.name or "", names)
        for name in names:
            tags = {PARTITION_TAG: name, REQUEST_TAG: f"batches/{name}.parquet/1"}
            run_id = str(uuid.uuid4())
            status = dg.DagsterRunStatus.SUCCESS
            instance.add_run(dg.DagsterRun(process_batch.name, run_id, tags=tags, status=status))
            for asset, metadata in real.items():
                if metadata is not None:
                    instance.report_runless_asset_event(
                        dg.AssetMaterialization(asset, metadata=metadata, partition=name)
                    )
    return {"batches": batches, "held": real["contact_list"] is None}


def tick(home: str, people: str, last: str) -> dict[str, Any]:
    """Evaluate every sensor of a home as the daemon does: with an empty cursor, with nothing new, with news.

    Args:
        home: of :func:`know_batches`; only a copy of it is written to.
        people: a file that is dropped.
        last: batch that is known, under whose name another file is dropped.

    Returns:
        By sensor: seconds of the first tick, the median of ticks with nothing new, and of ticks with two
        files in landing, one of them under a name that is taken.
    """
    from poleng_assets.storage.landing import Landing
    from poleng_assets_tests.sinks import web_sink

    found: dict[str, dict[str, float]] = {}
    with _copy_of(home) as copy, _loop(copy) as (runner, _), web_sink() as sink:
        # Somebody is told of news, or the sensor that tells them would have nothing to do.
        os.environ["POLENG_NOTIFY"] = sink.url()
        cursors: dict[str, str | None] = {}

        def evaluated(sensor: dg.SensorDefinition) -> float:
            seconds, cursors[sensor.name] = _tick(runner, sensor, cursors.get(sensor.name))
            return seconds

        sensors = list(runner.defs.sensors or [])
        for sensor in sensors:
            found[sensor.name] = {"first": evaluated(sensor)}
            quiet = [evaluated(sensor) for _ in range(TICKS)]
            found[sensor.name] |= {"quiet": median(quiet), "slowest": max(quiet)}
        landing = Landing(copy, settle_seconds=0.0)
        for name in ("new_batch", last):
            dropped = copy.root / f"{name}.parquet"
            shutil.copyfile(people, dropped)
            landing.submit("batches", dropped)
        for sensor in sensors:
            found[sensor.name]["news"] = median(evaluated(sensor) for _ in range(TICKS))
    return {"sensors": found}


def wait_for_lists(home: str, people: str, batches: int) -> dict[str, Any]:
    """Drop files under a real ``poleng dev``, and wait for the list of each.

    The first is not counted: the daemon gets warm. Each one comes at another moment of the sensors' round.
    """
    import pyarrow.parquet as pq

    from poleng_assets.defs.run_requests import TICK_SECONDS
    from poleng_assets.warehouse.connection import Warehouse
    from poleng_assets.warehouse.predictions import scoring_version
    from poleng_assets_tests.end_to_end.conftest import serve, wait_until

    dice = random.Random(1)
    study, waited = load_study(), []
    table = pq.read_table(people)
    with (
        _copy_of(home) as copy,
        tempfile.TemporaryDirectory(prefix="bench_") as folder,
        serve(copy) as served,
    ):
        for name in [WARM_UP, *(f"dropped_{number}" for number in range(batches))]:
            file = Path(folder) / f"{name}.parquet"
            position = table.schema.get_field_index(study.id)
            ids = table.column(study.id).to_pylist()
            pq.write_table(table.set_column(position, study.id, [[f"{name}-{id_}" for id_ in ids]]), file)
            time.sleep(dice.uniform(0, TICK_SECONDS))
            started = time.perf_counter()
            served.landing.submit("batches", file)
            # Finer than the tests wait: half a second would be seen in the figure.
            while not served.has_list(name):
                if time.perf_counter() - started > 300:
                    raise TimeoutError(f"{name} has no list after 300 s, see {served.log}")
                time.sleep(0.02)
            waited.append(time.perf_counter() - started)
            wait_until(f"the run of {name} ends", lambda: not served.running("process_batch"), 300)
        served.press_ctrl_c()
        with Warehouse(copy.warehouse, study).read() as con:
            version = scoring_version(con, WARM_UP)
    return {"seconds": median(waited[1:]), "all": waited[1:], "warm_up": waited[0], "version": version}


def export_parts(home: str, file: str) -> dict[str, Any]:
    """Write which rows of the field studies of a home train and which are held out: id, study and part."""
    import duckdb

    study = load_study()
    with duckdb.connect(str(Home(Path(home)).warehouse), read_only=True) as con:
        rows = con.sql("FROM field_study_rows").df()
    parts = rows[["field_study", study.id, "part"]]
    parts.to_parquet(file)
    return {"rows": len(parts)}


def simulate_lean(data: str, parts: str, lists: str) -> dict[str, Any]:
    """Play the full scenario as a lean script does.

    Args:
        data: laid out as ``poleng simulate`` wants it.
        parts: file of :func:`export_parts`.
        lists: folder of the project's contact lists, to compare with.
    """
    import filecmp

    import pandas as pd

    from poleng_assets.simulation.scenarios import drops
    from tools.bench.lean import LeanScript

    with tempfile.TemporaryDirectory(prefix="bench_") as out:
        script = LeanScript(load_study(), pd.read_parquet(parts), Path(out))
        script.play(drops(Path(data), "full"))
        names = {path.name for folder in (out, lists) for path in Path(folder).glob("*.csv")}
        equal, _, _ = filecmp.cmpfiles(out, lists, names, shallow=False)
    return {
        "trainings": script.trainings,
        "equal_lists": len(equal),
        "other_lists": sorted(names.difference(equal)),
    }


# Common

_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@contextmanager
def _copy_of(home: str) -> Iterator[Home]:
    """Copy a home into a temporary folder beside it, so that the one on the ground stays as it is."""
    from tools.copies import copy_home

    with tempfile.TemporaryDirectory(prefix="bench_", dir=Path(home).parent) as folder:
        yield copy_home(Home(Path(home)), Path(folder) / "home")


@contextmanager
def _loop(home: Home) -> Iterator[tuple[HeadlessRunner, Callable[[Path], None]]]:
    """Drive a home in this process; yield the runner, and how a batch is dropped and dealt with."""
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import open_instance
    from poleng_assets.headless.runner import HeadlessRunner
    from poleng_assets.storage.landing import Landing

    def show(ended: RunReport) -> None:
        if not ended.success:
            raise RuntimeError(f"{ended.job} {ended.partition}: {ended.message}")

    with open_instance(home) as instance:
        runner = HeadlessRunner(build_defs(home=home, settle_seconds=0.0), instance, show)

        def submit(file: Path) -> None:
            Landing(home, settle_seconds=0.0).submit("batches", file)
            runner.run_until_idle()

        yield runner, submit


def _tick(
    runner: HeadlessRunner, sensor: dg.SensorDefinition, cursor: str | None
) -> tuple[float, str | None]:
    """Evaluate a sensor once, launching nothing; return the seconds, and the cursor that it leaves."""
    import dagster as dg

    resources = {name: (runner.defs.resources or {})[name] for name in sensor.required_resource_keys}
    repository = runner.defs.get_repository_def()
    # From its beginning: the code server opens the instance anew for every tick, too.
    started = time.perf_counter()
    with dg.SensorEvaluationContext(
        instance_ref=runner.instance.get_ref(),
        last_tick_completion_time=None,
        last_run_key=None,
        cursor=cursor,
        repository_name=repository.name,
        repository_def=repository,
        sensor_name=sensor.name,
        resources=resources,
    ) as context:
        context.log.setLevel(logging.CRITICAL)
        answer = sensor.evaluate_tick(context)
    return time.perf_counter() - started, answer.cursor or cursor


def _newest(instance: dg.DagsterInstance, asset: str) -> dict[str, Any] | None:
    """Return the metadata of the newest materialisation of an asset, None when it was never made."""
    event = instance.get_latest_materialization_event(_asset(asset))
    made = event.asset_materialization if event else None
    return dict(made.metadata) if made else None


def _asset(name: str) -> dg.AssetKey:
    import dagster as dg

    return dg.AssetKey(name)


def _blocks(people: Path) -> Iterator[Any]:
    """Yield the rows of a file as Arrow tables of :data:`BLOCK` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(people).iter_batches(BLOCK):
        yield pa.Table.from_batches([batch])


def _clean_people(data: Path) -> Any:
    """Return the people of the clean batches, without a pandas index, as one Arrow table."""
    import pyarrow as pa

    from poleng_assets.simulation.scenarios import drops
    from tools.bench.seeds_way import read

    study = load_study()
    files = [one.path for one in drops(data, "clean") if one.kind == "batches"]
    columns = [study.id, *study.feature_names]
    return pa.concat_tables(
        [pa.Table.from_pandas(read(file)[columns], preserve_index=False) for file in files],
        promote_options="permissive",
    ).replace_schema_metadata()


def _founding_study(data: Path) -> Path:
    from poleng_assets.simulation.scenarios import FOUNDING_STUDY, drops

    return next(one.path for one in drops(data, "full") if one.name == FOUNDING_STUDY)


def _seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    task.__name__: task
    for task in (
        make_population,
        write_people,
        export_champion,
        learn_seeds_way,
        score_people,
        predict_raw,
        explain,
        read_raw,
        encode,
        vectorise_seeds_way,
        score_seeds_way,
        report,
        know_batches,
        tick,
        wait_for_lists,
        export_parts,
        simulate_lean,
    )
}


def main() -> None:
    """Do one task, and write what it found."""
    name, arguments, result = sys.argv[1:]
    warnings.simplefilter("ignore")
    os.umask(0o077)
    found = TASKS[name](**json.loads(arguments))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
