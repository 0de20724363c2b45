"""What is measured, part by part, and the bar of each line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.bench.ground import Ground
from tools.bench.processes import (
    BIN,
    HOURS,
    Finished,
    MeasurementFailed,
    alternated,
    highest_peak,
    middle,
    middle_cpu,
    middle_cpu_ratio,
    middle_ratio,
    middle_whole,
    repeated,
    run_command,
    run_task,
)
from tools.bench.rows import Bar, Row, failed, in_unit

MILLION = 1_000_000
TEN_MILLION = 10_000_000
KNOWN = 10_000
# A batch as it usually comes, and as many rows as the report looks at.
USUAL_BATCH, LARGE_BATCH = 4_391, 50_000

BARS = {
    "limit": Bar("at least", 0.60, "%"),
    "rows_per_second": Bar("at least", 100_000, "rows/s"),
    "encoding": Bar("at least", 20, "x"),
    "seeds_way": Bar("at least", 3, "x"),
    "memory": Bar("at most", 1.2, "GB"),
    "memory_growth": Bar("at most", 1.15, "x"),
    "report": Bar("at most", 1.15, "x"),
    "load": Bar("at most", 1.5, "s"),
    "tick": Bar("at most", 300, "ms"),
    "latency": Bar("at most", 20, "s"),
    "simulation": Bar("at most", 1.6, "x"),
    "tests": Bar("at most", 12, "min"),
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        rows: of the batch that is scored.
        rivals_rows: that the seed's way is given; the project is measured on as many beside it.
        many_rows: of the batch that memory must not grow with, 0 to leave it out.
        report_rows: of the batches that a report is made of.
        known: batches that the sensors know.
        drops: files dropped under the daemon.
        repeats: of each measurement.
        tests: whether ``make test`` is run.
        tests_took: seconds that it took elsewhere, 0 when nobody knows.
    """

    rows: int
    rivals_rows: int
    many_rows: int
    report_rows: tuple[int, ...]
    known: int
    drops: int
    repeats: int
    tests: bool = False
    tests_took: float = 0.0

    @property
    def few(self) -> str:
        """Why the bars about a million rows do not count; empty when they do."""
        return "" if self.rows >= MILLION else f"{self.rows:,} rows only"


QUICK = Sizes(50_000, 10_000, 0, (USUAL_BATCH,), 300, 1, 1)
USUAL = Sizes(MILLION, 200_000, 0, (USUAL_BATCH, LARGE_BATCH), KNOWN, 5, 3)
FULL = Sizes(MILLION, MILLION, TEN_MILLION, (USUAL_BATCH, LARGE_BATCH), KNOWN, 5, 3)


def scoring(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure scoring from a file to committed predictions, beside the champion's raw predict."""
    made_of, people = ground.champion(), ground.people(sizes.rows)
    runs, raw = alternated(
        sizes.repeats,
        lambda: run_task("score_people", model=ground.model, people=people),
        lambda: run_task("predict_raw", model=ground.model, people=people),
    )
    read = repeated(sizes.repeats, lambda: run_task("read_raw", people=people))
    seconds, limit = middle(runs), middle(raw)
    speed, share = sizes.rows / seconds, middle_ratio(raw, runs)
    ingest, score = middle(runs, "ingest"), middle(runs, "score")
    members = ", ".join(f"{kind} {in_unit(time, 's')}" for kind, time in _members(raw).items())
    return [
        Row(
            "scoring_limit",
            f"scoring {sizes.rows:,} rows, file to committed predictions",
            f"{in_unit(seconds, 's')} (taking in {in_unit(ingest, 's')}, scoring {in_unit(score, 's')}, "
            f"closing {in_unit(middle(runs, 'close'), 's')}; "
            f"whole process {in_unit(middle_whole(runs), 's')})",
            f"raw predict of the champion ({members}; {made_of['trees']['rounds']} boosted trees of depth "
            f"{made_of['trees']['max_depth']})",
            f"{in_unit(share, '%')} of the limit",
            share,
            BARS["limit"],
            sizes.few,
        ),
        Row(
            "scoring_speed",
            "the same, rows per second",
            in_unit(speed, "rows/s"),
            f"raw predict {in_unit(sizes.rows / limit, 'rows/s')}",
            "",
            speed,
            BARS["rows_per_second"],
            sizes.few,
        ),
        Row(
            "scoring_alone",
            "scoring alone, warehouse to committed predictions",
            in_unit(sizes.rows / score, "rows/s"),
            f"raw predict {in_unit(sizes.rows / limit, 'rows/s')}",
            f"{in_unit(limit / score, '%')} of the limit",
            limit / score,
        ),
        Row(
            "taking_in",
            "taking the file in: read, checked, committed",
            in_unit(sizes.rows / ingest, "rows/s"),
            f"DuckDB reads the file in {in_unit(middle(read), 's')}",
            f"{in_unit(ingest / middle(read), 'x')} as long",
            ingest / middle(read),
        ),
    ]


def reasons(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure what the reasons of contacts take, beside XGBoost's own contributions of its trees alone."""
    ground.champion()
    people = ground.people(sizes.report_rows[0])
    runs = repeated(sizes.repeats, lambda: run_task("explain", model=ground.model, people=people))
    each = [1000 * middle(runs, key) / int(runs[0].found["rows"]) for key in ("seconds", "xgboost")]
    return [
        Row(
            "reasons",
            f"reasons of {runs[0].found['rows']:,} contacts, the first that a model explains",
            f"{each[0]:.2f} ms a contact",
            f"`pred_contribs` of XGBoost, its trees alone: {each[1]:.2f} ms",
            f"{in_unit(each[1] / each[0], 'x')} as fast",
            each[1] / each[0],
        )
    ]


def rivals(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure encoding and scoring beside the seed's way, on the same rows and as many trees."""
    ground.champion()
    people, seed, rows = ground.people(sizes.rivals_rows), ground.seed(), sizes.rivals_rows
    encoded = repeated(sizes.repeats, lambda: run_task("encode", model=ground.model, people=people))
    raw = repeated(sizes.repeats, lambda: run_task("predict_raw", model=ground.model, people=people))
    vectorised = repeated(sizes.repeats, lambda: run_task("vectorise_seeds_way", seed=seed, people=people))
    ours = repeated(sizes.repeats, lambda: run_task("score_people", model=ground.model, people=people))
    theirs = repeated(sizes.repeats, lambda: run_task("score_seeds_way", seed=seed, people=people))
    faster = middle(vectorised) / middle(encoded)
    # What scoring costs besides predicting: the encoder, and the layouts of the members.
    besides = max(middle(encoded, "score") - middle(raw), middle(encoded))
    whole = middle_whole(theirs) / middle_whole(ours)
    few = "" if rows >= USUAL.rivals_rows else f"{rows:,} rows only"
    vectorised_speed = f"rows to dicts and DictVectorizer {in_unit(rows / middle(vectorised), 'rows/s')}"
    return [
        Row(
            "encoding",
            f"encoding alone, {rows:,} rows as the file has them",
            in_unit(rows / middle(encoded), "rows/s"),
            vectorised_speed,
            f"{in_unit(faster, 'x')} as fast",
            faster,
            BARS["encoding"],
            few,
        ),
        Row(
            "before_predicting",
            "all that a score takes besides the raw predict",
            in_unit(rows / besides, "rows/s"),
            vectorised_speed,
            f"{in_unit(middle(vectorised) / besides, 'x')} as fast",
            middle(vectorised) / besides,
        ),
        Row(
            "seeds_way",
            f"the whole, {rows:,} rows from file to committed predictions, whole processes",
            f"{in_unit(middle_whole(ours), 's')}, {in_unit(highest_peak(ours), 'GB')}",
            f"the seed's way with {ground.champion()['trees']['rounds']} trees: "
            f"{in_unit(middle_whole(theirs), 's')}, {in_unit(highest_peak(theirs), 'GB')}",
            f"{in_unit(whole, 'x')} as fast",
            whole,
            BARS["seeds_way"],
            few,
        ),
    ]


def memory(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure the peak of memory while a batch is taken in and scored, and whether it grows."""
    ground.champion()

    def peak(rows: int) -> float:
        people = ground.people(rows)
        return highest_peak(
            repeated(
                min(sizes.repeats, 3 if rows <= MILLION else 1),
                lambda: run_task("score_people", model=ground.model, people=people),
            )
        )

    first = peak(sizes.rows)
    rows = [_memory_row("memory", sizes.rows, first, sizes.few)]
    if not sizes.many_rows:
        return rows
    second = peak(sizes.many_rows)
    few = "" if sizes.many_rows >= TEN_MILLION else f"{sizes.many_rows:,} rows only"
    return [
        *rows,
        _memory_row("memory_many", sizes.many_rows, second, few),
        Row(
            "memory_growth",
            f"peak memory at {sizes.many_rows:,} rows against {sizes.rows:,}",
            in_unit(second, "GB"),
            in_unit(first, "GB"),
            in_unit(second / first, "x"),
            second / first,
            BARS["memory_growth"],
            few or sizes.few,
        ),
    ]


def report(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure the drift report beside NannyML's calculators, bare and inside it, and the seed's drift."""
    ground.champion()
    rows = []
    for size in sizes.report_rows:
        people = ground.people(size)
        run = run_task("report", home=ground.home, people=people, times=2 * sizes.repeats + 1).found
        seconds, inside = in_unit(run["seconds"], "s"), in_unit(run["inside"], "s")
        times_inside = run["seconds"] / run["inside"]
        which = "usual" if size == USUAL_BATCH else "large"
        rows += [
            Row(
                f"report_alone_{which}",
                f"drift report of {size:,} rows: measured, judged, page written, kept",
                seconds,
                f"NannyML's five calculators bare {in_unit(run['bare'], 's')}; "
                f"the seed's test of each column {in_unit(run['seed'], 's')}",
                in_unit(run["ratio"], "x"),
                run["ratio"],
                BARS["report"],
                "" if size in (USUAL_BATCH, LARGE_BATCH) else f"{size:,} rows only",
            ),
            Row(
                f"report_{which}",
                "the same beside the time that it spends inside NannyML itself",
                seconds,
                inside,
                in_unit(times_inside, "x"),
                times_inside,
            ),
        ]
    return rows


def load(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure how long Dagster takes to load the code, less what it takes for an empty project."""
    with tempfile.TemporaryDirectory(prefix="bench_") as name:
        folder = Path(name)
        (folder / "empty_project.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
        (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        environment = {"DAGSTER_HOME": name, "POLENG_HOME": str(folder / "home")}

        def validate(module: str) -> Callable[[], Finished]:
            command = [BIN / "dagster", "definitions", "validate", "-m", module]
            return lambda: run_command(command, folder=folder, environment=environment)

        times = sizes.repeats + 2
        ours, empty = (_warm(times, validate(one)) for one in ("poleng_assets.definitions", "empty_project"))
    seconds = middle_whole(ours) - middle_whole(empty)
    return [
        Row(
            "load",
            "code location load: dagster definitions validate",
            in_unit(middle_whole(ours), "s"),
            f"an empty project {in_unit(middle_whole(empty), 's')}",
            f"{in_unit(seconds, 's')} more",
            seconds,
            BARS["load"],
        )
    ]


def sensors(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure the ticks of every sensor of a home that has dealt with many batches."""
    home, people = ground.known(sizes.known), ground.people(1_000)
    found = run_task("tick", home=home, people=people, last=f"known_{sizes.known - 1:06d}").found["sensors"]
    few = "" if sizes.known >= KNOWN else f"{sizes.known:,} batches only"

    def slowest(key: str, what: str, bar: Bar | None) -> Row:
        name, seconds = max(((name, one[key]) for name, one in found.items()), key=lambda pair: pair[1])
        milliseconds = 1000 * seconds
        return Row(
            f"tick_{key}",
            f"slowest sensor with {sizes.known:,} known batches: {what}",
            f"{in_unit(milliseconds, 'ms')} ({name})",
            figure=milliseconds,
            bar=bar,
            not_judged=few if bar else "",
        )

    return [
        slowest("quiet", "nothing new", BARS["tick"]),
        slowest("news", "two files dropped, one under a known name", BARS["tick"]),
        slowest("first", "its very first tick, with an empty cursor", None),
    ]


def latency(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure the wait from a dropped file to its contact list, under a real daemon."""
    ground.champion()
    people = ground.people(USUAL_BATCH)
    found = run_task("wait_for_lists", home=ground.home, people=people, batches=sizes.drops).found
    each = ", ".join(in_unit(seconds, "s") for seconds in found["all"])
    return [
        Row(
            "latency",
            f"a file of {USUAL_BATCH:,} rows dropped under poleng dev, until its list exists",
            f"{in_unit(found['seconds'], 's')} (each: {each}; "
            f"the first, cold, {in_unit(found['warm_up'], 's')})",
            figure=found["seconds"],
            bar=BARS["latency"],
            not_judged="" if sizes.drops >= USUAL.drops else f"{sizes.drops} dropped only",
        )
    ]


def simulation(ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure the full scenario, from an empty home, in turns with a lean script that trains equal models."""
    played = ground.played()
    lists, parts = played / "home" / "contact_lists", played / "parts.parquet"

    def play() -> Finished:
        with tempfile.TemporaryDirectory(prefix="bench_") as folder:
            home = Path(folder) / "home"
            return run_command([BIN / "poleng", "simulate", "full", "--data", ground.data, "--home", home])

    ours, lean = alternated(
        sizes.repeats,
        play,
        lambda: run_task("simulate_lean", data=ground.data, parts=parts, lists=lists),
    )
    found, ratio = lean[0].found, middle_cpu_ratio(ours, lean)
    return [
        Row(
            "simulation",
            f"poleng simulate full, {ground.data.name}, whole process, from an empty home: CPU seconds",
            f"{in_unit(middle_cpu(ours), 's')} in {in_unit(middle_whole(ours), 's')}, "
            f"{in_unit(highest_peak(ours), 'GB')}",
            f"a lean script with the same {found['trainings']} trainings, NannyML bare, "
            f"{found['equal_lists']} equal lists: {in_unit(middle_cpu(lean), 's')} in "
            f"{in_unit(middle_whole(lean), 's')}, {in_unit(highest_peak(lean), 'GB')}",
            in_unit(ratio, "x"),
            ratio,
            BARS["simulation"],
            f"other lists: {', '.join(found['other_lists'])}" if found["other_lists"] else "",
        )
    ]


def tests(ground: Ground, sizes: Sizes) -> list[Row]:
    """Run ``make test``, or tell what it took elsewhere."""
    if not sizes.tests and not sizes.tests_took:
        return [Row("tests", "make test", "not measured: ask with --tests", bar=BARS["tests"])]
    took = run_command(["make", "test"], at_most=2 * HOURS).seconds if sizes.tests else sizes.tests_took
    minutes = took / 60
    cores = os.cpu_count()
    measured = f"{in_unit(minutes, 'min')} on {cores} cores{'' if sizes.tests else ', as told'}"
    return [Row("tests", "make test", measured, figure=minutes, bar=BARS["tests"])]


PARTS: Mapping[str, Callable[[Ground, Sizes], list[Row]]] = {
    part.__name__: part
    for part in (scoring, reasons, rivals, memory, report, load, sensors, latency, simulation, tests)
}


def measure(name: str, ground: Ground, sizes: Sizes) -> list[Row]:
    """Measure one part; what fails is a line that says why, and the others go on."""
    try:
        return PARTS[name](ground, sizes)
    except MeasurementFailed as error:
        return [failed(name, f"the part {name}", str(error))]


def _members(raw: list[Finished]) -> dict[str, float]:
    return dict(raw[0].found["members"])


def _memory_row(key: str, rows: int, peak: float, few: str) -> Row:
    what = f"peak memory taking in and scoring {rows:,} rows, whole process"
    return Row(key, what, in_unit(peak, "GB"), figure=peak, bar=BARS["memory"], not_judged=few)


def _warm(times: int, once: Callable[[], Finished]) -> list[Finished]:
    """Measure after one run that does not count: compiled modules are written, files are in memory."""
    once()
    return repeated(times, once)
