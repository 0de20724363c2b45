"""Measure the overseer's whole loop against its bars, on replayed batches, and print the table.

    python tools/bench_overseer.py [--data DIR] [--home HOME] [--only clean,detection,...]
        [--repeats 50] [--workers 2] [--keep FILE]

DIR is laid out as ``poleng simulate --data`` wants it, with outcomes; without it the synthetic
population is drawn. Batches are seeded resamples of its people, judged by the project's own functions
under its own champions: version 1 of the founding study, version 2 of all. HOME is a finished home
with both (it is copied); by default one is made.

``clean``      fresh people of the founding countries
``detection``  six kinds of change that must be seen, batches of 1,000 and (no bar) of 300
``harmless``   two kinds that may be named and must not start a retraining
``estimate``   new countries under the version that knows them, and single ones under the one that does not
``delay``      streams of 300-row batches with a weak change that lasts (no bar)
``stream``     40 batches through the real sensors and jobs, a lasting change at the 20th
``report``     time and memory of the asset ``drift_report``

Beside it, on the same batches: NannyML's default methods and thresholds (any column alerts), a
chi-squared test of each column at 5 % (any fires), and the seed's rule (more than 5 % of the columns, or
the score, farther than .1 by Jensen-Shannon distance). The exit code is 1 when a bar is missed. All of
it takes about 35 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import dagster as dg
import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, rankdata

from poleng_assets.core.ingestion.ingest import ingest
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.monitoring.drift import measure_batch
from poleng_assets.core.monitoring.measurements import DISTANCES, MISSING, SCORE, UNSEEN, BatchMeasurements
from poleng_assets.core.monitoring.verdict import Judgement, judge
from poleng_assets.definitions import build_defs
from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.jobs import RETRAIN_JOB, process_batch
from poleng_assets.defs.partitions import batch_partitions
from poleng_assets.headless.runner import HeadlessRunner, RunReport
from poleng_assets.models.registry import Registry
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.simulation.scenarios import FOUNDING_STUDY
from poleng_assets.storage.home import Home, Kind
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.drift_reports import EarlierReport
from tools.copies import copy_home
from tools.scored import score_batch

# This bench is of this survey: the columns and codes that it changes.
COUNTRY = "country"
PROFESSION, SWAPPED = "profession", ("2", "9")
EDUCATION = "education"
MODE = "mode"
SEX, MORE_OF = "sex", "2"
MORE_SHARE = 0.6

PARTS = ("clean", "detection", "harmless", "estimate", "delay", "stream", "report")
SEED = 23
VERSIONS = (1, 2)
ROWS, FEW_ROWS, MANY_ROWS = 1000, 300, 3700
CLEAN_ROWS = (FEW_ROWS, ROWS, MANY_ROWS)
MIN_COUNTRY_ROWS = 300
OFF = 0.03
STREAM_BATCHES, STREAM_CHANGE = 40, 20
# Of the streams of small batches: before the change, and at most after it.
QUIET_BATCHES, CHANGED_BATCHES = 4, 8
SMALL, LARGE = 4391, 1_000_000

CLEAN = "clean"
NEW = "new countries, after the follow-up study"
WHOLE = "single unseen country, all its people"


@dataclass(frozen=True)
class Ground:
    """What every worker needs; read once in each.

    Attributes:
        study: whose policies judge.
        clean: people of the founding countries, in no field study, with the target.
        drift: people of other countries, likewise.
        models: by version.
        references: by version.
        importances: by version.
        chunked: NannyML's univariate calculator as it comes, by version.
    """

    study: Study
    clean: pd.DataFrame
    drift: pd.DataFrame
    models: dict[int, Model]
    references: dict[int, pd.DataFrame]
    importances: dict[int, dict[str, float]]
    chunked: dict[int, Any]


@dataclass(frozen=True)
class Task:
    """One batch to replay: the same task gives the same batch."""

    kind: str
    rows: int
    number: int
    version: int = 1


@dataclass(frozen=True)
class Outcome:
    """What was found in one batch.

    Attributes:
        task: what was replayed.
        verdict: of the overseer.
        held: whether it would look for a better model.
        named: what it names first, "" when it is clear.
        words: its first reason that is not a remark, likewise.
        effect: how far the farthest figure of a column is, in multiples of its limit.
        estimated: AUC, NaN when nothing was estimated.
        trusted: whether that is said to be believable.
        realised: AUC.
        error: standard error of it.
        nannyml: whether NannyML's defaults alert.
        chi2: whether any chi-squared test fires.
        seed: whether the seed's rule does.
        seconds: of measuring and judging.
        score: of the people, float32, shape (rows,).
        target: of the people, int8, shape (rows,).
    """

    task: Task
    verdict: str
    held: bool
    named: str
    words: str
    effect: float
    estimated: float
    trusted: bool
    realised: float
    error: float
    nannyml: bool
    chi2: bool
    seed: bool
    seconds: float
    score: np.ndarray
    target: np.ndarray

    @property
    def loud(self) -> bool:
        """Whether the verdict is other than clear, or insufficient."""
        return self.verdict not in ("clear", "insufficient")


@dataclass(frozen=True)
class Row:
    """One line of the table; without a bar it is only told."""

    what: str
    measured: str
    bar: str = ""
    met: bool = True
    beside: tuple[str, str, str] = ("", "", "")


# The batches


def _clean(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return _drawn(ground.clean, rng, rows)


def _unseen_country(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    country = rng.choice(countries(ground.drift))
    return _drawn(ground.drift[ground.drift[COUNTRY] == country], rng, rows)


def _new_countries(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return _drawn(ground.drift, rng, rows)


def _professions_swapped(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    people = _clean(ground, rng, rows)
    one, other = SWAPPED
    return people.assign(**{PROFESSION: people[PROFESSION].replace({one: other, other: one})})


def _gone_missing(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    people = _clean(ground, rng, rows)
    feature = ground.study.feature(str(rng.choice(ground.study.feature_names)))
    answers = people[feature.name].astype("Int64") if feature.is_ordinal else people[feature.name]
    return people.assign(**{feature.name: answers.mask(rng.permutation(rows) < 0.3 * rows)})


def _education_shifted(
    ground: Ground, rng: np.random.Generator, rows: int, ways: Sequence[int] = (-1, 1)
) -> pd.DataFrame:
    people = _clean(ground, rng, rows)
    codes = ground.study.feature(EDUCATION).codes
    moved = (rng.permutation(rows) < 0.25 * rows) * rng.choice(ways)
    return people.assign(**{EDUCATION: (people[EDUCATION] + moved).clip(min(codes), max(codes))})


def _education_lowered(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return _education_shifted(ground, rng, rows, ways=(-1,))


def _mode_changed(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    people = _clean(ground, rng, rows)
    modes = sorted(ground.clean[MODE].unique())
    changed = people[MODE].to_numpy(dtype=object, copy=True)
    for place in rng.permutation(rows)[: rows // 2]:
        changed[place] = rng.choice([mode for mode in modes if mode != changed[place]])
    return people.assign(**{MODE: changed})


def _more_of_one_sex(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return _with_share(ground.clean, ground.clean[SEX] == MORE_OF, MORE_SHARE, rng, rows)


def _one_country_twice(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    one = ground.clean[COUNTRY] == rng.choice(sorted(ground.clean[COUNTRY].unique()))
    return _with_share(ground.clean, one, 2 * one.mean(), rng, rows)


def _careless(ground: Ground, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """A fifth of the people answer at random: each answer is somebody else's of their country."""
    people = _clean(ground, rng, rows)
    careless = rng.permutation(rows) < 0.2 * rows
    for name in ground.study.feature_names:
        if name != COUNTRY:
            mixed = people.groupby(COUNTRY)[name].transform(rng.permutation)
            people[name] = people[name].where(~careless, mixed)
    return people


HARM: dict[str, Callable[[Ground, np.random.Generator, int], pd.DataFrame]] = {
    "one unseen country": _unseen_country,
    "a mix of new countries": _new_countries,
    "professions 2 and 9 swapped": _professions_swapped,
    "a column 30 % missing": _gone_missing,
    "education shifted by a level for 25 %": _education_shifted,
    "interview mode changed for half": _mode_changed,
}
HARMLESS = {"60 % of one sex": _more_of_one_sex, "an old country twice as often": _one_country_twice}
LASTING = {"education a level lower for 25 %": _education_lowered, "a fifth answers at random": _careless}
KINDS = {CLEAN: _clean, NEW: _new_countries, **HARM, **HARMLESS, **LASTING}


def made(ground: Ground, task: Task) -> pd.DataFrame:
    """Make the batch of a task: features and target."""
    if task.kind == WHOLE:
        country = countries(ground.drift)[task.number]
        return ground.drift[ground.drift[COUNTRY] == country].reset_index(drop=True)
    rng = np.random.default_rng([SEED, zlib.crc32(task.kind.encode()), task.rows, task.number])
    return KINDS[task.kind](ground, rng, task.rows)


def countries(people: pd.DataFrame) -> list[str]:
    """Return the countries with enough people."""
    counted = people[COUNTRY].value_counts()
    return sorted(counted.index[counted >= MIN_COUNTRY_ROWS])


def _drawn(people: pd.DataFrame, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Draw people without replacement, or with it when there are too few."""
    places = rng.choice(len(people), rows, replace=rows > len(people))
    return people.iloc[places].reset_index(drop=True)


def _with_share(
    people: pd.DataFrame, those: pd.Series, share: float, rng: np.random.Generator, rows: int
) -> pd.DataFrame:
    of_those = round(rows * share)
    parts = [_drawn(people[those], rng, of_those), _drawn(people[~those], rng, rows - of_those)]
    return pd.concat(parts, ignore_index=True)


# What is measured of them


def replay(folder: str, task: Task) -> Outcome:
    """Judge one batch, by the overseer and by what runs beside it."""
    ground = read_ground(folder)
    batch = made(ground, task)
    started = time.perf_counter()
    measured, judgement, scored = overseen(ground, batch, task.version)
    seconds = time.perf_counter() - started
    target, score = batch[ground.study.target.name].to_numpy(), scored[SCORE].to_numpy()
    auc, error = realised_auc(target, score, batch.index if task.kind == WHOLE else batch[ground.study.id])
    estimate = measured.estimate("auc")
    named = _named(judgement)
    nannyml, seed = _univariate(ground, scored, task.version)
    return Outcome(
        task,
        judgement.verdict,
        judgement.held,
        named,
        judgement.words[0] if judgement.verdict != "clear" else "",
        _effect(measured),
        estimate.value if estimate else math.nan,
        measured.trust.trusted,
        auc,
        error,
        nannyml,
        _any_chi2(ground, scored, task.version),
        seed,
        seconds,
        score.astype(np.float32),
        target.astype(np.int8),
    )


def overseen(
    ground: Ground, batch: pd.DataFrame, version: int, past: Sequence[EarlierReport] = ()
) -> tuple[BatchMeasurements, Judgement, pd.DataFrame]:
    """Score, measure and judge a batch as the project does; return its scored rows too."""
    model, study = ground.models[version], ground.study
    score = model.score(batch)
    scored = batch[study.feature_names].assign(score=score, contact=model.rule.decide(score).astype(int))
    measured = measure_batch(
        ground.references[version],
        scored,
        model.encoder.unseen(scored),
        study,
        rows=len(scored),
        contacts=int(scored["contact"].sum()),
        importance=ground.importances[version],
    )
    return measured, judge(measured, study, past), scored


def realised_auc(target: np.ndarray, score: np.ndarray, people: Iterable[Any]) -> tuple[float, float]:
    """Return the AUC and its standard error (E. DeLong et al., Biometrics 44, 1988).

    Args:
        target: 0 or 1, both present, shape (n,).
        score: shape (n,).
        people: who they are; who was drawn several times tells no more than once, shape (n,).
    """

    def parts(target: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positive, negative = score[target == 1], score[target == 0]
        ranks = rankdata(np.concatenate([positive, negative]))
        count = len(positive)
        return (
            (ranks[:count] - rankdata(positive)) / len(negative),
            1 - (ranks[count:] - rankdata(negative)) / count,
        )

    of_positive, _ = parts(target, score)
    once = ~pd.Series(list(people)).duplicated().to_numpy()
    above, below = parts(target[once], score[once])
    return float(of_positive.mean()), math.sqrt(above.var() / len(above) + below.var() / len(below))


def _named(judgement: Judgement) -> str:
    if judgement.verdict == "clear":
        return ""
    return judgement.reasons[0].cause.partition(":")[2] or judgement.reasons[0].cause


def _effect(measured: BatchMeasurements) -> float:
    found = [
        f.value / f.upper_threshold
        for f in measured.metrics
        if f.method in (*DISTANCES, MISSING, UNSEEN) and f.value is not None and f.upper_threshold
    ]
    return max(found, default=math.nan)


def _univariate(ground: Ground, scored: pd.DataFrame, version: int) -> tuple[bool, bool]:
    """Whether NannyML's own limits alert for any column, and whether the seed's rule does."""
    names = [*ground.study.feature_names, SCORE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ground.chunked[version].calculate(_plain(scored[names])).filter(period="analysis").to_df()
    alerts = [bool(found[(name, "jensen_shannon", "alert")].iloc[0]) for name in names]
    far = {name: float(found[(name, "jensen_shannon", "value")].iloc[0]) > 0.1 for name in names}
    many = sum(far[name] for name in names[:-1]) > 0.05 * len(names)
    return any(alerts), far[SCORE] or many


def _any_chi2(ground: Ground, scored: pd.DataFrame, version: int) -> bool:
    reference = ground.references[version]
    for name in ground.study.feature_names:
        there, here = (rows[name].astype("string").value_counts() for rows in (reference, scored))
        counts = pd.concat([there, here], axis=1).fillna(0).to_numpy(dtype=float)
        if len(counts) > 1 and chi2_contingency(counts).pvalue < 0.05:
            return True
    return False


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Nullable integers vanish from NannyML's results."""
    nullable = [name for name in rows if isinstance(rows[name].dtype, pd.Int64Dtype)]
    return rows.astype(dict.fromkeys(nullable, "float64"))


# Streams


def delay(folder: str, kind: str, number: int) -> tuple[str, int | None, int | None]:
    """Return in which batch after a lasting change it is seen, and held for; None when never."""
    ground = read_ground(folder)
    past: list[EarlierReport] = []
    seen = held = None
    for place in range(1 - QUIET_BATCHES, CHANGED_BATCHES + 1):
        rng = np.random.default_rng([SEED, 7, number, place + QUIET_BATCHES])
        batch = LASTING[kind](ground, rng, FEW_ROWS) if place > 0 else _clean(ground, rng, FEW_ROWS)
        _, judgement, _ = overseen(ground, batch, 1, past)
        past.insert(0, EarlierReport(str(place), judgement.causes, judgement.weak))
        if place > 0:
            seen = seen or (place if judgement.verdict != "clear" else None)
            held = held or (place if judgement.held else None)
        if held:
            break
    return kind, seen, held


@dataclass(frozen=True)
class Stream:
    """How the real loop fared.

    Attributes:
        retrained_at: after how many changed batches, one entry for each retraining after the founding.
        held_before: batches held before the change.
        held_after: batches held after it.
        versions: promoted.
        seconds: of it all.
    """

    retrained_at: tuple[int, ...]
    held_before: int
    held_after: int
    versions: int
    seconds: float


def stream(folder: str, home: str) -> Stream:
    """Play 40 batches through the sensors and jobs of an empty home."""
    study, started = load_study(), time.monotonic()
    before_it, after_it = (pd.read_parquet(Path(folder) / f"{kind}.parquet") for kind in ("clean", "drift"))
    retrained_at: list[int] = []
    held = {}
    with Loop(Home(Path(home))) as loop:
        loop.drop_study(Path(folder) / "data", founding=True)
        before = loop.decided("retrain")
        for number in range(STREAM_BATCHES):
            changed = number - STREAM_CHANGE + 1
            if changed == 1:
                loop.drop_study(Path(folder) / "data", founding=False)
            people = after_it if changed > 0 else before_it
            batch = _drawn(people, np.random.default_rng([SEED, 11, number]), ROWS)
            # Who is drawn for two batches is somebody else in each.
            batch[study.id] += f"-{number}"
            loop.drop_batch(f"batch_{number:02d}", batch[[study.id, *study.feature_names]])
            retrained_at += [changed] * (loop.decided("retrain") - before - len(retrained_at))
            held[changed > 0] = loop.decided("hold")
        quiet = held.get(False, 0)
        return Stream(
            tuple(retrained_at),
            quiet,
            held.get(True, 0) - quiet,
            loop.decided("promote"),
            time.monotonic() - started,
        )


class Loop:
    """A real home, driven by its own sensors and jobs in this process."""

    def __init__(self, home: Home) -> None:
        """Open a home; it is made when it is missing."""

        def loud(report: RunReport) -> None:
            if not report.success:
                raise RuntimeError(f"{report.job} {report.partition}: {report.message}")

        self.home = home.create()
        self.instance = open_instance(home).__enter__()
        self.runner = HeadlessRunner(build_defs(home=home, settle_seconds=0.0), self.instance, show=loud)
        self.landing = Landing(home, settle_seconds=0.0)
        self.warehouse = Warehouse(home.warehouse, load_study())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.instance.__exit__(None, None, None)

    def drop_study(self, data: Path, *, founding: bool) -> None:
        """Drop the founding study, or all later ones, and let the project react."""
        for path in sorted((data / "field_studies").iterdir()):
            if (path.stem == FOUNDING_STUDY) == founding:
                self._drop("field_studies", path)

    def drop_batch(self, name: str, rows: pd.DataFrame) -> None:
        """Drop a batch, and let the project react."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.parquet"
            rows.to_parquet(path, index=False)
            self._drop("batches", path)

    def decided(self, kind: str) -> int:
        """Return how often the ledger has a kind of decision."""
        with self.warehouse.connect() as con:
            found = con.execute("SELECT count(*) FROM decisions WHERE kind = ?", [kind]).fetchone()
        return int(found[0]) if found else 0

    def _drop(self, kind: Kind, path: Path) -> None:
        self.landing.submit(kind, path)
        self.runner.run_until_idle()


# The report


def prepare_reports(folder: str, home: str, rows: Sequence[int]) -> None:
    """Take batches of these many rows in, and score them by version 2, without a report."""
    ground = read_ground(folder)
    study, people = ground.study, pd.concat([ground.clean, ground.drift], ignore_index=True)
    warehouse = Warehouse(Home(Path(home)).warehouse, study)
    with tempfile.TemporaryDirectory() as drawn:
        for size in rows:
            path = Path(drawn) / f"{_report_name(size)}.parquet"
            batch = _drawn(people, np.random.default_rng([SEED, 13, size]), size)
            batch[study.id] = [f"{size}-{number}" for number in range(size)]
            batch[[study.id, *study.feature_names]].to_parquet(path, index=False)
            with warehouse.connect() as con:
                ingest(con, study, "batches", path)
            score_batch(warehouse, ground.models[2], path.stem, 2)


def report_seconds(home: str, rows: int) -> tuple[float, float, float]:
    """Materialise ``drift_report`` of a small batch, which loads the libraries, then of one of ``rows``.

    Returns:
        Of the latter: seconds of its step, seconds of computing in its run, and the peak of memory in GB.
    """
    with Loop(Home(Path(home))) as loop:
        names = [_report_name(SMALL), _report_name(rows)]
        loop.instance.add_dynamic_partitions(batch_partitions.name or "", sorted(set(names)))
        job = loop.runner.defs.resolve_job_def(process_batch.name)
        for name in names:
            computed = time.process_time()
            done = job.execute_in_process(
                asset_selection=[dg.AssetKey("drift_report")],
                partition_key=name,
                instance=loop.instance,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            computed = time.process_time() - computed
        (step,) = loop.instance.get_run_step_stats(done.run_id, ["drift_report"])
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return (step.end_time or math.nan) - (step.start_time or math.nan), computed, peak


def _report_name(rows: int) -> str:
    return f"report_{rows}"


# The ground


def prepare(folder: Path, data: Path | None) -> None:
    """Lay out people where every worker finds them; without data they are drawn."""
    if data is None:
        write_scenario_data(load_study(), folder / "data")
    else:
        (folder / "data").symlink_to(data.resolve(), target_is_directory=True)
    for kind in ("clean", "drift"):
        labelled(folder / "data", kind).to_parquet(folder / f"{kind}.parquet", index=False)


def found(folder: str, home: str) -> None:
    """Train both champions in a home, if it has none, and keep them where every worker finds them."""
    registry = Registry(Home(Path(home)), load_study())
    if not registry.versions():
        with Loop(registry.home) as loop:
            loop.drop_study(Path(folder) / "data", founding=True)
            loop.drop_study(Path(folder) / "data", founding=False)
            ops = {"training_data": {"config": {"reason": "bench"}}}
            loop.runner.run(RETRAIN_JOB, run_config={"ops": ops})
    for number in VERSIONS:
        version = registry.version(number)
        registry.model(version).save(Path(folder) / f"model_{number}")
        registry.reference(version).to_parquet(Path(folder) / f"reference_{number}.parquet", index=False)


@cache
def read_ground(folder: str) -> Ground:
    """Read what :func:`prepare` and :func:`found` laid out."""
    import nannyml  # noqa: PLC0415 -- seconds, in each process
    from nannyml.chunk import CountBasedChunker, SizeBasedChunker  # noqa: PLC0415

    study, there = load_study(), Path(folder)
    models = {number: Model.load(there / f"model_{number}") for number in VERSIONS}
    references = {
        number: _as_in_files(pd.read_parquet(there / f"reference_{number}.parquet"), study)
        for number in VERSIONS
    }
    chunked, names = {}, [*study.feature_names, SCORE]
    for number, reference in references.items():
        # Limits as they come, from ten chunks of the reference; then a batch is one chunk. It lies ordered
        # by target and country, and a left-over chunk of a few rows would make limits that nothing reaches.
        mixed = reference[names].sample(frac=1, random_state=SEED, ignore_index=True)
        tenths = SizeBasedChunker(len(mixed) // 10, incomplete="append")
        chunked[number] = nannyml.UnivariateDriftCalculator(column_names=names, chunker=tenths).fit(mixed)
        chunked[number].chunker = CountBasedChunker(1)
    return Ground(
        study,
        pd.read_parquet(there / "clean.parquet"),
        pd.read_parquet(there / "drift.parquet"),
        models,
        references,
        {
            number: models[number].importance(references[number].sample(500, random_state=1))
            for number in VERSIONS
        },
        chunked,
    )


def _as_in_files(reference: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return codes that are names as text, as the survey's files have them and NannyML tells them by."""
    names = [feature.name for feature in study.features if not feature.is_ordinal]
    return reference.assign(
        **{name: reference[name].astype("Int64").astype("string").astype(object) for name in names}
    )


def labelled(data: Path, kind: str) -> pd.DataFrame:
    """Return the people of all batches of a kind, with their outcomes."""
    study = load_study()
    joined = [
        _read(path).merge(_read(next((data / "outcomes").glob(f"{path.stem}.*"))), on=study.id)
        for path in sorted((data / "batches").glob(f"{kind}_*"))
    ]
    return pd.concat(joined, ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


# The table


def tasks(wanted: Sequence[str], repeats: int, unseen: int) -> list[Task]:
    """Return the batches to replay."""
    listed: list[Task] = []
    if "clean" in wanted:
        listed += [Task(CLEAN, rows, n) for rows in CLEAN_ROWS for n in range(2 * repeats)]
    if "detection" in wanted:
        listed += [Task(kind, ROWS, n) for kind in HARM for n in range(repeats)]
        listed += [Task(kind, FEW_ROWS, n) for kind in HARM for n in range(repeats // 2)]
    if "harmless" in wanted:
        listed += [Task(kind, ROWS, n) for kind in HARMLESS for n in range(repeats)]
    if "estimate" in wanted:
        listed += [Task(NEW, ROWS, n, version=2) for n in range(repeats)]
        listed += [Task(NEW, MANY_ROWS, n, version=2) for n in range(repeats // 2)]
        listed += [Task(WHOLE, 0, n) for n in range(unseen)]
    return listed


def rows_of_batches(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return the lines about false alarms, detection and harmless change."""
    rows: list[Row] = []
    of = _grouped(outcomes)
    clean = [one for (kind, _), found in of.items() if kind == CLEAN for one in found]
    if clean:
        rows += [
            _alarms(f"false alarms, {size:,} rows", of[CLEAN, size])
            for size in CLEAN_ROWS
            if (CLEAN, size) in of
        ]
        rows.append(_alarms("false alarms, all clean batches", clean, "<= 2 %", lambda share: share <= 0.02))
    for size, bar in ((ROWS, ">= 95 %"), (FEW_ROWS, "")):
        for kind in HARM:
            if found := of.get((kind, size)):
                rows.append(_alarms(f"seen, {size:,} rows: {kind}", found, bar, lambda s: s >= 0.95))
    for kind in HARMLESS:
        if found := of.get((kind, ROWS)):
            held = sum(one.held for one in found)
            named = _alarms(f"  named: {kind}", found)
            met = held <= 0.05 * len(found)
            rows.append(Row(f"retrains for: {kind}", f"{held} of {len(found)}", "<= 5 %", met, named.beside))
            rows.append(named)
    for kind in (NEW, WHOLE):
        if found := [one for (k, _), ones in of.items() if k == kind for one in ones]:
            rows.append(_alarms(f"not clear: {kind}", found))
    return rows


def _alarms(
    what: str, found: Sequence[Outcome], bar: str = "", fits: Callable[[float], bool] | None = None
) -> Row:
    count = sum(one.loud for one in found)
    met = fits is None or not bar or fits(count / len(found))
    names = Counter(one.named for one in found if one.loud).most_common(2)
    effect = float(np.nanmean([one.effect for one in found]))
    named = ", ".join(f"{name} {times}" for name, times in names)
    measured = f"{count} of {len(found)}; {effect:.1f} x limit" + (f"; {named}" if named else "")
    few = sum(one.verdict == "insufficient" for one in found)
    if few:
        measured += f"; {few} insufficient"
    shares = [sum(getattr(one, rule) for one in found) / len(found) for rule in ("nannyml", "chi2", "seed")]
    a, b, c = (f"{share:.0%}" for share in shares)
    return Row(what, measured, bar, met, (a, b, c))


def rows_of_estimates(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return the lines about the estimated AUC."""
    rows: list[Row] = []
    for kind, bar in ((CLEAN, 0.010), (NEW, 0.020)):
        replayed = [one for one in outcomes if one.task.kind == kind]
        trusted = [one for one in replayed if one.trusted]
        if replayed:
            averaged, pooled = _errors(trusted)
            measured = (
                f"averaged {averaged:+.4f}, pooled {pooled:+.4f}; {len(trusted)} of {len(replayed)} trusted"
            )
            met = max(abs(averaged), abs(pooled)) <= bar
            rows.append(Row(f"error of the estimated AUC, {kind}", measured, f"<= {bar:.3f}", met))
    if known := [one for one in outcomes if math.isfinite(one.estimated)]:
        rows.append(_distrusted("estimate off by more than .03: not trusted", known, 0, ">= 90 %"))
        rows.append(_distrusted("  the same, net of two standard errors", known, 2, ""))
    return rows


def _errors(trusted: Sequence[Outcome]) -> tuple[float, float]:
    """Return mean estimated less mean realised AUC, and less that of all their people together."""
    if not trusted:
        return math.nan, math.nan
    estimated = np.array([one.estimated for one in trusted])
    target = np.concatenate([one.target for one in trusted])
    pooled, _ = realised_auc(target, np.concatenate([one.score for one in trusted]), range(len(target)))
    weighted = np.average(estimated, weights=[len(one.score) for one in trusted])
    return float(estimated.mean() - np.mean([one.realised for one in trusted])), float(weighted - pooled)


def _distrusted(what: str, known: Sequence[Outcome], errors: float, bar: str) -> Row:
    off = [one for one in known if abs(one.estimated - one.realised) - errors * one.error > OFF]
    doubted = sum(not one.trusted for one in off)
    doubtful = sum(not one.trusted for one in known)
    share = f" = {doubted / len(off):.0%}" if off else ""
    measured = f"{doubted} of {len(off)}{share}; of all {doubtful} of {len(known)}"
    return Row(what, measured, bar, not bar or not off or doubted >= 0.9 * len(off))


def rows_of_delays(found: Sequence[tuple[str, int | None, int | None]]) -> list[Row]:
    """Return the lines about streams of small batches."""
    rows = []
    for kind in LASTING:
        seen = [one for name, one, _ in found if name == kind]
        held = [one for name, _, one in found if name == kind]
        if seen:
            rows.append(Row(f"batches of 300 until seen: {kind}", _delays(seen)))
            rows.append(Row(f"batches of 300 until held: {kind}", _delays(held)))
    return rows


def _delays(found: Sequence[int | None]) -> str:
    ends = [one for one in found if one is not None]
    mean = f"mean {np.mean(ends):.1f}, most {max(ends)}; " if ends else ""
    return f"{mean}{len(ends)} of {len(found)} streams within {CHANGED_BATCHES}"


def row_of_stream(found: Stream) -> Row:
    """Return the line about the real loop."""
    retrained = found.retrained_at
    measured = (
        f"{len(retrained)}, after {', '.join(map(str, retrained)) or 'no'} changed batches; "
        f"held {found.held_before} before, {found.held_after} after; {found.versions} promoted; "
        f"{found.seconds:.0f} s"
    )
    met = len(retrained) == 1 and 1 <= retrained[0] <= 2
    return Row(f"retrainings in a stream of {STREAM_BATCHES}", measured, "1, within 2", met)


def rows_of_reports(folder: str, home: str) -> list[Row]:
    """Measure reports with nothing else on the machine."""
    _alone(prepare_reports, folder, home, [SMALL, LARGE])
    rows = []
    for size, bar in ((SMALL, 6), (LARGE, 60)):
        seconds, computed, memory = _alone(report_seconds, home, size)
        measured = f"{seconds:.1f} s, {computed:.1f} of them computing"
        rows.append(Row(f"report of {size:,} rows", measured, f"<= {bar} s", seconds <= bar))
    return [*rows, Row(f"report of {LARGE:,} rows: memory", f"{memory:.2f} GB", "<= 4 GB", memory <= 4)]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    titles = ("what", "measured", "bar", "", "NannyML", "chi2 5 %", "seed's")
    lines = [titles, *((r.what, r.measured, r.bar, "" if r.met else "MISSED", *r.beside) for r in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def keep(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write what was found in each batch as CSV."""
    listed = [
        {
            **vars(one.task),
            **{name: value for name, value in vars(one).items() if name not in ("task", "score", "target")},
        }
        for one in outcomes
    ]
    pd.DataFrame(listed).to_csv(path, index=False)


def main() -> None:
    """Print the table; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="by default the synthetic population")
    parser.add_argument("--home", type=Path, help="a finished home with versions 1 and 2; it is copied")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--repeats", type=int, default=50, help="batches of each kind")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--keep", type=Path, help="CSV file for what was found in each batch")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        rows = _measured(Path(root), arguments, wanted)
    show(rows)
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(row.met for row in rows) else 1)


def _measured(root: Path, arguments: argparse.Namespace, wanted: Sequence[str]) -> list[Row]:
    # Of the processes to come: one thread for each, and no word about what Dagster deprecates.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    folder, home = str(root), str(root / "home")
    prepare(root, arguments.data)
    unseen = len(countries(pd.read_parquet(root / "drift.parquet")))
    if arguments.home:
        copy_home(Home(arguments.home.resolve()), Path(home))
    outcomes: list[Outcome] = []
    pool = ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn"))
    try:
        streamed = pool.submit(stream, folder, str(root / "stream")) if "stream" in wanted else None
        pool.submit(found, folder, home).result()
        streams = [
            pool.submit(delay, folder, kind, number)
            for kind in LASTING
            for number in range(max(arguments.repeats // 10, 1))
            if "delay" in wanted
        ]
        replays = [pool.submit(replay, folder, task) for task in tasks(wanted, arguments.repeats, unseen)]
        for count, done in enumerate(as_completed(replays), 1):
            outcomes.append(done.result())
            if sys.stderr.isatty():
                print(f"\r{count} of {len(replays)} batches ", end="", file=sys.stderr)
        delays = [one.result() for one in streams]
        looped = [row_of_stream(streamed.result())] if streamed else []
    finally:
        pool.shutdown(cancel_futures=True)
    outcomes.sort(key=lambda one: (one.task.kind, one.task.rows, one.task.number))
    if arguments.keep:
        keep(outcomes, arguments.keep)
    rows = [*rows_of_batches(outcomes), *rows_of_estimates(outcomes), *rows_of_delays(delays), *looped]
    return rows + (rows_of_reports(folder, home) if "report" in wanted else [])


def _grouped(outcomes: Iterable[Outcome]) -> dict[tuple[str, int], list[Outcome]]:
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.task.kind, one.task.rows), []).append(one)
    return groups


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


if __name__ == "__main__":
    main()
