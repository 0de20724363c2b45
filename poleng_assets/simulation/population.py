"""The synthetic population: respondents sampled from aggregates of the survey.

This module samples respondents and writes them to a data folder, so that the project can be tried
without a survey. The study has the columns; ``population.json``, which
``tools/make_population_figures.py`` writes, has their joint distribution.

Survey aggregates and assumptions
---------------------------------
From the survey (aggregates; cells of fewer than 10 people were removed): the number of people in
each group, each group's answers to each question, the dependence of an answer on its parents
(``structure.order``), how often several columns are zero together, each group's target rate, and
the effect of each answer on the target. How often a *group* has them zero together is derived from
its shares of zero.

Assumed, to make the data as hard to predict as the real data: ``structure.realism``. The answers'
effects are multiplied by ``effect_scale``, and those of ``deviating_columns`` differ from group to
group by normal deviations (log-odds, standard deviation ``deviation_sd``, a fixed seed; they ship
as ``target.deviations``). Both numbers were chosen so that a model is as accurate as on the real
data; they were not estimated. Each group's intercept is then set so that its target rate is
the survey's. Beyond the stated pairs, answers are independent within a group; the survey's are not.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from poleng_assets.storage.synthetic import synthetic_metadata
from poleng_assets.study.schema import Study

FIGURES = Path(__file__).with_name("population.json")

Codes = dict[str, NDArray[np.int64]]
Weights = NDArray[np.float64]


class PopulationError(ValueError):
    """The population file cannot be read, or does not fit the study or the request."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Strict):
    """A part of the population: the groups whose code is in ``[start, below)``."""

    start: int | None = None
    below: int | None = None

    def holds(self, group: int) -> bool:
        """Return whether a group belongs to the part."""
        after_start = self.start is None or group >= self.start
        return after_start and (self.below is None or group < self.below)


class Step(_Strict):
    """One column to sample, given its parents, which are earlier in the order."""

    column: str
    parents: tuple[str, ...] = ()


class Helper(_Strict):
    """A latent binary column; if it is 1, all of ``columns`` have the code ``code``."""

    columns: tuple[str, ...]
    code: int
    parent: str
    figure: str = Field(description="where the folder of facts holds P(all have the code | parent)")


class ScenarioFile(_Strict):
    """One file of a data folder, without its suffix; ``outcomes`` is the file of its target.

    Without ``outcomes`` the target is in the file itself.
    """

    path: str
    part: str
    rows: int = Field(gt=0)
    outcomes: str | None = None


class Realism(_Strict):
    """The assumed settings: see the module's docstring."""

    seed: int
    effect_scale: float = Field(gt=0)
    deviation_sd: float = Field(ge=0)
    deviating_columns: tuple[str, ...]


class Structure(_Strict):
    """The settings written by hand, which are kept when the statistics are computed again."""

    group: str
    parts: dict[str, Part]
    facts_parts: dict[str, str]
    order: tuple[Step, ...]
    helpers: dict[str, Helper]
    wide_integers: tuple[str, ...]
    realism: Realism
    files: tuple[ScenarioFile, ...]

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        drawn = {self.group}
        for step in self.order:
            late = [p for p in step.parents if p not in drawn]
            if late:
                raise ValueError(f"{step.column} depends on {late}, which come later in the order")
            drawn.add(step.column)
        without_part = [file.path for file in self.files if file.part not in self.parts]
        if without_part:
            raise ValueError(f"the files {without_part} are of a part that is not defined")
        return self


class Column(_Strict):
    """The conditional distribution of one column.

    The probability of a code is proportional to the exponential of the sum of its scores: one row of
    scores for the person's group, and one for each parent's answer. None: probability 0.
    """

    codes: tuple[int, ...]
    by_group: dict[int, tuple[float | None, ...]]
    by_parent: dict[str, dict[int, tuple[float | None, ...]]]


class TargetFigures(_Strict):
    """The log-odds of the positive code: an intercept for each group, plus each answer's effect."""

    intercepts: dict[int, float]
    effects: dict[str, dict[int, float]]
    deviations: dict[str, dict[int, dict[int, float]]]


class Checks(_Strict):
    """Expected shares of each part of the population; used by the tests."""

    marginals: dict[str, dict[str, dict[int, float]]]
    target_rates: dict[str, float]


class Population(_Strict):
    """The content of ``population.json``."""

    about: str
    structure: Structure
    groups: dict[int, float]
    columns: dict[str, Column]
    target: TargetFigures
    checks: Checks

    @model_validator(mode="after")
    def _tables_are_complete(self) -> Self:
        # Sampling looks rows up by position: a missing row would give the values of another one.
        known = {self.structure.group: set(self.groups)}
        for step in self.structure.order:
            if step.column not in self.columns:
                raise ValueError(f"{step.column} has no table")
            column = self.columns[step.column]
            tables = {self.structure.group: column.by_group, **column.by_parent}
            if set(column.by_parent) != set(step.parents):
                raise ValueError(f"the tables of {step.column} have other parents")
            for parent, table in tables.items():
                if known[parent] - set(table):
                    raise ValueError(f"{step.column} given {parent} lacks some answers")
                if any(len(row) != len(column.codes) for row in table.values()):
                    raise ValueError(f"{step.column} given {parent} has rows of a wrong length")
            known[step.column] = set(column.codes)
        target = self.target
        if known[self.structure.group] - set(target.intercepts):
            raise ValueError("some groups have no intercept")
        for name, effects in target.effects.items():
            if known[name] - set(effects):
                raise ValueError(f"some codes of {name} have no effect on the target")
        for name, deviations in target.deviations.items():
            if set(deviations) != set(self.groups):
                raise ValueError(f"some groups have no deviations of {name}")
            if any(set(d) != known[name] for d in deviations.values()):
                raise ValueError(f"some codes of {name} have no deviation")
        return self

    def part(self, name: str) -> list[int]:
        """Return the codes of the groups of a part, in order.

        Raises:
            PopulationError: there is no such part.
        """
        if name not in self.structure.parts:
            known = ", ".join(self.structure.parts)
            raise PopulationError(f"there is no part {name!r}; there are {known}")
        return [g for g in sorted(self.groups) if self.structure.parts[name].holds(g)]


@cache
def load_population(path: Path = FIGURES) -> Population:
    """Read the population file.

    Raises:
        PopulationError: the file is missing or invalid.
    """
    try:
        return Population.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PopulationError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise PopulationError(f"{path}: {error}") from error


def synthesise(
    study: Study,
    *,
    rows: int,
    seed: int,
    part: str | None = None,
    groups: Sequence[int] | None = None,
    population: Population | None = None,
) -> pd.DataFrame:
    """Sample respondents.

    Args:
        study: has the names, the order and the kinds of the columns.
        rows: how many respondents; 0 gives an empty frame with the same types.
        seed: the same seed, groups and number of rows give the same frame, byte for byte.
        part: sample only from the groups of this part (see ``structure.parts``).
        groups: sample only from these groups; not together with ``part``.
        population: another one than the built-in population.

    Returns:
        ``rows`` rows; the id (a random UUID), the features in the study's order (nominal and
        binary codes as strings, ordinal codes as integers), the target (0 or 1). No value is
        missing. Groups are sampled in proportion to their number in the survey.

    Raises:
        PopulationError: unknown part or group, a negative number of rows, or a population
            that does not fit the study.
    """
    population = population or load_population()
    _check_fit(study, population)
    if rows < 0:
        raise PopulationError(f"the number of rows must not be negative, not {rows}")
    chosen = _chosen_groups(population, part, groups)
    # The groups are part of the seed: two parts with the same seed have no person in common.
    streams = np.random.SeedSequence([seed, *chosen]).spawn(3)
    for_ids, for_answers, for_target = (np.random.default_rng(stream) for stream in streams)
    answers = draw_answers(population, rows, chosen, for_answers)
    chance = target_chances(population, answers)
    return _as_frame(
        study,
        population.structure,
        _identifiers(rows, for_ids),
        answers,
        (for_target.random(rows) < chance).astype(np.int64),
    )


def write_scenario_data(
    study: Study,
    folder: Path,
    *,
    seed: int = 23,
    scale: float = 1.0,
    population: Population | None = None,
    marked: bool = False,
) -> list[Path]:
    """Write a data folder with synthetic respondents for a simulation.

    The files, their parts and their sizes are ``structure.files``: a founding and a follow-up
    field study with the target, batches without it, and the outcomes of each batch. No respondent
    is in two field studies or batches.

    Args:
        folder: created if it is missing; files of the same name are overwritten.
        seed: the same seed gives the same rows.
        scale: a factor for every file's number of rows (at least 1 row).
        population: another one than the built-in population.
        marked: whether the files are marked as synthetic (``storage/synthetic.py``).

    Returns:
        The paths of the files written.

    Raises:
        PopulationError: ``scale`` is not above zero, or the population does not fit the study.
    """
    if scale <= 0:
        raise PopulationError(f"the scale must be above zero, not {scale}")
    population = population or load_population()
    written: list[Path] = []
    for part in population.structure.parts:
        files = [file for file in population.structure.files if file.part == part]
        sizes = [max(1, round(file.rows * scale)) for file in files]
        people = synthesise(study, rows=sum(sizes), seed=seed, part=part, population=population)
        start = 0
        for file, size in zip(files, sizes, strict=True):
            share = people.iloc[start : start + size].reset_index(drop=True)
            written += _write_file(study, folder, file, share, marked=marked)
            start += size
    return written


def draw_answers(population: Population, rows: int, groups: Sequence[int], rng: np.random.Generator) -> Codes:
    """Sample each column in turn, given the group and the parents' answers.

    Returns:
        An array of ``rows`` codes for the group column, each column of the order and each helper.
    """
    codes = np.array(sorted(groups), dtype=np.int64)
    sizes = np.array([population.groups[g] for g in codes])
    answers: Codes = {population.structure.group: rng.choice(codes, rows, p=sizes / sizes.sum())}
    for step in population.structure.order:
        answers[step.column] = draw_column(population, step.column, answers, rng)
    return answers


def draw_column(
    population: Population, name: str, answers: Codes, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sample one column, given the columns before it; returns an array of codes."""
    column = population.columns[name]
    group = answers[population.structure.group]
    weights = _rows_of(column.by_group, group)
    for parent, table in column.by_parent.items():
        weights *= _rows_of(table, answers[parent])
    cumulated = np.cumsum(weights, axis=1)
    threshold = rng.random(len(group)) * cumulated[:, -1]
    position = (cumulated <= threshold[:, None]).sum(axis=1)
    return np.array(column.codes, dtype=np.int64)[position]


def target_chances(population: Population, answers: Codes) -> Weights:
    """Return each respondent's probability of the target's positive code."""
    figures = population.target
    group = answers[population.structure.group]
    log_odds = _values_of(figures.intercepts, group) + answer_effects(population, answers)
    return 1 / (1 + np.exp(-log_odds))


def answer_effects(population: Population, answers: Codes) -> Weights:
    """Return the sum of the effects on the log-odds of the target, without the intercept."""
    figures = population.target
    group = answers[population.structure.group]
    total = np.zeros(len(group))
    for name, effects in figures.effects.items():
        total += _values_of(effects, answers[name])
    for name, deviations in figures.deviations.items():
        codes = sorted(next(iter(deviations.values())))
        table = np.array([[deviations[g][code] for code in codes] for g in sorted(deviations)])
        total += table[np.searchsorted(sorted(deviations), group), np.searchsorted(codes, answers[name])]
    return total


def _rows_of(table: dict[int, tuple[float | None, ...]], keys: NDArray[np.int64]) -> Weights:
    """Return the weights (exponentials of the scores) of each key."""
    known = sorted(table)
    scores = np.array([[-np.inf if s is None else s for s in table[key]] for key in known])
    return np.exp(scores)[np.searchsorted(known, keys)]


def _values_of(table: dict[int, float], keys: NDArray[np.int64]) -> Weights:
    known = sorted(table)
    return np.array([table[key] for key in known])[np.searchsorted(known, keys)]


def _chosen_groups(population: Population, part: str | None, groups: Sequence[int] | None) -> list[int]:
    if part is not None and groups is not None:
        raise PopulationError("give a part or groups, not both")
    if groups is None:
        return sorted(population.groups) if part is None else population.part(part)
    if not groups:
        raise PopulationError("give at least one group")
    unknown = sorted(set(groups) - set(population.groups))
    if unknown:
        raise PopulationError(f"the population has no groups {unknown}")
    return sorted(set(groups))


def _check_fit(study: Study, population: Population) -> None:
    """Refuse a population that lacks a feature of the study or has unknown codes."""
    group = population.structure.group
    held = {group: set(population.groups)}
    held |= {name: set(column.codes) for name, column in population.columns.items()}
    for feature in study.features:
        if feature.name not in held:
            raise PopulationError(f"the population lacks the feature {feature.name}")
        strange = sorted(held[feature.name] - set(feature.codes))
        if strange:
            raise PopulationError(f"the study does not know the codes {strange} of {feature.name}")


def _identifiers(rows: int, rng: np.random.Generator) -> list[str]:
    """Return ``rows`` UUIDs of version 4; the standard library's cannot be seeded."""
    raw = np.frombuffer(rng.bytes(16 * rows), dtype=np.uint8).reshape(rows, 16).copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = raw.tobytes().hex()
    each = (digits[i : i + 32] for i in range(0, len(digits), 32))
    return [f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}" for h in each]


def _as_frame(
    study: Study, structure: Structure, identifiers: list[str], answers: Codes, target: NDArray[np.int64]
) -> pd.DataFrame:
    """Order the columns as in the study, with the types of the survey's files."""
    columns: dict[str, object] = {study.id: np.array(identifiers, dtype=object)}
    for feature in study.features:
        codes = answers[feature.name]
        columns[feature.name] = (
            codes.astype(_integer_type(structure, feature.name)) if feature.is_ordinal else _as_strings(codes)
        )
    columns[study.target.name] = target.astype(_integer_type(structure, study.target.name))
    return pd.DataFrame(columns)


def _integer_type(structure: Structure, name: str) -> str:
    return "int64" if name in structure.wide_integers else "int32"


def _as_strings(codes: NDArray[np.int64]) -> NDArray[np.object_]:
    distinct, position = np.unique(codes, return_inverse=True)
    return np.array([str(code) for code in distinct], dtype=object)[position]


def _write_file(
    study: Study, folder: Path, file: ScenarioFile, people: pd.DataFrame, *, marked: bool
) -> list[Path]:
    """Write people to their file, and their outcomes to a second one."""
    path = folder / f"{file.path}.parquet"
    frames = {path: people}
    if file.outcomes is not None:
        later = folder / f"{file.outcomes}.parquet"
        frames = {path: people.drop(columns=study.target.name), later: people[[study.id, study.target.name]]}
    for file_path, frame in frames.items():
        file_path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if marked:
            table = table.replace_schema_metadata({**table.schema.metadata, **synthetic_metadata()})
        pq.write_table(table, file_path)
    return list(frames)
