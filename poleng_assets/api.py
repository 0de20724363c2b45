"""For notebooks and scripts: load the champion, score people, say why, read the warehouse's tables.

What belongs here reads a home and changes nothing in it: the graph decides who serves, and this follows.
Rows become numbers by the encoder, and decisions by the rule, that batches are scored by. What may be used
from outside is what ``poleng_assets/__init__.py`` names; the rest of the package may change.
"""

from __future__ import annotations

import html
import logging
import math
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from poleng_assets.core.features.codes import to_codes
from poleng_assets.core.features.encoder import Encoder, EncodingError
from poleng_assets.core.modeling.explanations import shown_questions, strongest_reasons
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.models.registry import (
    CHAMPION,
    ModelUnusable,  # noqa: F401 - here to be caught
    ModelVersion,
    Registry,
    RegistryUnusable,  # noqa: F401
)
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study import loading
from poleng_assets.study.schema import Feature, Study, StudyError  # noqa: F401
from poleng_assets.warehouse.connection import (
    PATIENCE_SECONDS,
    Warehouse,
    WarehouseBusy,  # noqa: F401
    WarehouseUnusable,  # noqa: F401
)
from poleng_assets.warehouse.decisions import serving_decision
from poleng_assets.warehouse.erasures import erasures_of, summary

log = logging.getLogger("poleng")

# A frame, an Arrow table (or what gives one: a DuckDB relation, a polars frame), one person or many as
# mappings from question to code.
Rows: TypeAlias = Any
Place: TypeAlias = str | os.PathLike[str] | Home | None

ANSWERS_SHOWN = 8
NULLABLE = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


class NoChampion(LookupError):
    """It cannot be said which version serves; the message says why, and what to do."""


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """One version of the registered model, read into this process.

    Attributes:
        version: its number.
        field_studies: that it was trained on.
        study: titles, labels and policies.
        model: encoder, candidates, calibration and contact rule.
    """

    version: int
    field_studies: tuple[str, ...]
    study: Study
    model: Model

    @property
    def contact_rule(self) -> str:
        """The rule by which a batch's contacts are chosen, in words."""
        return self.model.rule.in_words()

    def predict(self, rows: Rows, *, reasons: bool = False) -> pd.DataFrame:
        """Score people as a batch scores them, to the last digit.

        A code may be a number or text, and None, NaN or an empty text where there is no answer. Columns that
        the study does not ask for are left out. A nominal code that the model never learned (a new country)
        counts as no answer, and is named.

        Args:
            rows: n people: a frame, an Arrow table, one mapping from question to code, or a list of them.
            reasons: whether to name the answers that raise each score most, as contact lists do; takes a
                thousand times as long as the score.

        Returns:
            n rows, with the index of a frame that was given: the id, if ``rows`` have it; ``score`` (float64,
            probability of the study's positive code); ``contact`` (bool); ``unknown_answers`` (the
            questions whose answer the model never learned, separated by commas); and ``reasons`` (words), if
            asked for. Where the rule is a capacity, ``contact`` goes by the threshold that stands for the
            same share of people: who is among the first of a batch, only the batch can tell.

        Raises:
            EncodingError: a question is missing, or an answer is no code of it; the message names each
                question with the first such row and value.
            TypeError: ``rows`` are of another kind.

        >>> champion = load_champion()
        >>> people = read_table("batch_rows", where={"batch": "march"})
        >>> scored = champion.predict(people)
        >>> scored.columns.tolist() == [champion.study.id, "score", "contact", "unknown_answers"]
        True
        >>> len(scored) == len(people)
        True

        One person, who answered nothing:

        >>> somebody = {question: None for question in champion.study.feature_names}
        >>> champion.predict(somebody).columns.tolist()
        ['score', 'contact', 'unknown_answers']
        """
        table, index = _as_table(rows, self.study)
        codes = _codes(table, self.study)
        score = self.model.score(codes) if codes.num_rows else np.empty(0)
        columns: dict[str, Any] = {}
        if there := table.column_names.count(self.study.id):
            if there > 1:
                raise EncodingError(f"column {self.study.id!r} stands twice")
            columns[self.study.id] = table[self.study.id].to_pandas().array
        columns |= {
            "score": score,
            "contact": self.model.rule.decide(score),
            "unknown_answers": _unknown_answers(self.model.encoder, codes),
        }
        if reasons:
            columns["reasons"] = strongest_reasons(self.model, _as_frame(codes), self.study)
        return pd.DataFrame(columns, index=index)

    def explain(self, row: Rows) -> Explanation:
        """Say why one person has their score.

        Args:
            row: one person: a mapping, a frame with one row, or a row of a frame (``frame.iloc[0]``).

        Raises:
            EncodingError: as :meth:`predict`.
            TypeError: as :meth:`predict`.
            ValueError: there is not exactly one row.

        >>> people = read_table("batch_rows", where={"batch": "march"})
        >>> why = load_champion().explain(people.iloc[0])
        >>> why  # doctest: +ELLIPSIS
        Version 1: ... % likely to be of 'Low political engagement', ...
        >>> why.contributions.columns.tolist()
        ['question', 'answer', 'effect', 'never_learned', 'withheld']
        """
        table, _ = _as_table(row, self.study)
        codes = _codes(table, self.study)
        if codes.num_rows != 1:
            raise ValueError(
                f"one person is explained at a time, these are {codes.num_rows}: take one of them "
                "(frame.iloc[0]), or ask for the reasons of all: predict(rows, reasons=True)"
            )
        score = self.model.score(codes)
        return Explanation(
            version=self.version,
            score=float(score[0]),
            contact=bool(self.model.rule.decide(score)[0]),
            outcome=self.study.target.codes[self.study.target.positive],
            reasons=strongest_reasons(self.model, _as_frame(codes), self.study)[0],
            contributions=_contributions(self.model, codes, self.study),
        )

    def __repr__(self) -> str:
        trained = ", ".join(self.field_studies) or "field studies that the registry does not name"
        return f"{self.study.title}, version {self.version}, trained on {trained}: {self.contact_rule}"


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Why one person has their score; a notebook shows it as a table in words.

    Attributes:
        version: of the model.
        score: probability of ``outcome``.
        contact: whether the person would be contacted, alone.
        outcome: what is predicted, in words.
        reasons: the answers that raise the score most, strongest first, as a contact list tells them: without
            those that the study withholds. Empty when no answer raises it.
        contributions: one row for each question, by its name, the strongest first: ``question`` and
            ``answer`` in words, ``effect`` (how much the answer moves the score, in log-odds),
            ``never_learned`` (the model does not know the answer, and takes it as none), ``withheld`` (not
            among the study's ``policies.contact.shown_reasons``: not for a contact centre). With a constant
            the effects add up to the log-odds of the score, unless a forest is in the blend.
    """

    version: int
    score: float
    contact: bool
    outcome: str
    reasons: str
    contributions: pd.DataFrame

    def __repr__(self) -> str:
        raised = f"Raised most by {self.reasons}" if self.reasons else "No answer raises it"
        return f"{self._verdict()}\n{raised}"

    def _verdict(self) -> str:
        return (
            f"Version {self.version}: {self.score:.1%} likely to be of {self.outcome!r}, "
            f"{'a contact' if self.contact else 'no contact'}"
        ).replace("%", " %")

    def _repr_html_(self) -> str:
        """Return the strongest answers as a table; those that the study withholds are only counted."""
        told = self.contributions[~self.contributions["withheld"]]
        shown = told.head(ANSWERS_SHOWN)
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{html.escape(question)}</th>"
            f"<td style='text-align:left'>{html.escape(answer)}"
            f"{' (never learned: taken as no answer)' if never_learned else ''}</td>"
            f"<td style='text-align:left'>{_effect_in_words(effect)}</td></tr>"
            for question, answer, effect, never_learned in zip(
                shown["question"], shown["answer"], shown["effect"], shown["never_learned"], strict=True
            )
        )
        left_out = len(told.iloc[ANSWERS_SHOWN:])
        withheld = len(self.contributions) - len(told)
        words = [f"{left_out} more matter less"] * (left_out > 0)
        words += [f"{withheld} withheld by the study"] * (withheld > 0)
        rest = f"<p>Answers not shown: {', '.join(words)}; see .contributions</p>" if words else ""
        head = "".join(f"<th scope='col' style='text-align:left'>{one}</th>" for one in _HEADER)
        return (
            f"<p>{html.escape(self._verdict())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{rest}"
        )


_HEADER = ("Question", "Answer", "What it does")


def load_study(path: Path | None = None, *, home: Place = None) -> Study:
    """Read a study file, or the study of a home.

    Args:
        path: of a study file; by default the one of the home.
        home: folder; by default the one that ``POLENG_HOME`` names, or ``data/`` of the checkout. Before it
            has a study, the one that ``POLENG_STUDY`` names, or the one that ships.

    Raises:
        StudyError: the file is missing or wrong; the message names the line and the field.
    """
    return study_of(_home(home)) if path is None else loading.load_study(path)


def load_champion(
    home: Place = None, *, version: int | None = None, study: Study | None = None
) -> LoadedModel:
    """Load the version that serves, or another one.

    Who serves is what the ledger says, as for batches. An alias ``champion`` that somebody moved by hand is
    not followed. Nothing is put right either: that is left to the graph. A process that runs for long asks
    again when it wants the champion of then.

    Args:
        home: folder; by default the one that ``POLENG_HOME`` names, or ``data/`` of the checkout.
        version: a version to load whether it serves or not.
        study: by default the home's own; another one is refused.

    Raises:
        NoChampion: none serves yet, or ledger and registry disagree.
        LookupError: the version that was asked for is not registered.
        ModelUnusable: its files are missing, changed or broken, or are of another study.
        RegistryUnusable: another process keeps the registry locked.
        WarehouseBusy: another process holds the warehouse, and with it the ledger.
        WarehouseUnusable: the warehouse is damaged, or may not be read.

    >>> champion = load_champion()
    >>> champion
    Political engagement, version 1, trained on founding_study: contact from a probability of 0.500 on
    >>> load_champion(version=1).version == champion.version
    True
    """
    place = _home(home)
    study = study_of(place, study)
    registry = Registry(place, study)
    if not Path(place.mlflow_uri.removeprefix("sqlite:///")).exists():
        # Asked for a version, the registry would make its store first; and nothing is made here.
        raise NoChampion(
            f"no model is registered in {place.root}. {_FIRST_MODEL}. If one served here before, its "
            "mlflow.db was removed: put it back from a backup (`poleng restore`)"
        )
    with _mlflow_as_it_was():
        found = registry.version(version) if version is not None else _serving(registry)
        model = registry.model(found)
    return LoadedModel(found.version, tuple(found.field_studies), study, model)


def read_table(
    name: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, object] | None = None,
    home: Place = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> pd.DataFrame:
    """Read a table of the warehouse, for reading only.

    While it is read nobody can write, so the file is open no longer than it takes to copy the rows; a run
    that comes meanwhile waits. Ask for some rows of a large table, not for all.

    Args:
        name: of a table or view; :func:`tables` lists them.
        columns: to read; by default all.
        where: values that columns must have, such as ``{"batch": "march"}``; None: where it is empty.
        home: as for :func:`load_champion`.
        patience_seconds: how long to wait for a process that holds the file.

    Returns:
        A frame in no stated order. Numbers and truth values are of pandas' nullable types, so that a code
        stays whole where another is missing; times are in UTC. ``frame.attrs["erased"]`` tells in words what
        retention has erased from the table, when and by which rule.

    Raises:
        FileNotFoundError: the home has no warehouse yet.
        LookupError: there is no such table or column.
        WarehouseBusy: a process held the file for all that time; the message names it.
        WarehouseUnusable: the file is damaged, or may not be read.

    >>> scored = read_table("current_predictions", where={"batch": "march"})
    >>> scored["model_version"].unique().tolist()
    [1]
    >>> read_table("decisions", columns=["kind", "challenger_version"], where={"kind": "promote"})
          kind  challenger_version
    0  promote                   1
    """
    conditions = dict(where or {})
    with _reading(home, patience_seconds) as con:
        there = _tables(con)
        if name not in there:
            raise LookupError(f"the warehouse has no table {name!r}; it has: {', '.join(there)}")
        chosen = list(there[name]) if columns is None else list(columns)
        if strangers := [one for one in (*chosen, *conditions) if one not in there[name]]:
            raise LookupError(
                f"the table {name} has no column {', '.join(map(repr, strangers))}; it has: "
                f"{', '.join(there[name])}"
            )
        listed = ", ".join(f'"{one}"' for one in chosen)
        matching = " AND ".join(f'"{one}" IS NOT DISTINCT FROM ?' for one in conditions) or "true"
        rows: pa.Table = con.sql(
            f'SELECT {listed} FROM "{name}" WHERE {matching}',  # noqa: S608 - names that the warehouse has
            params=list(conditions.values()),
        ).to_arrow_table()
        erased = summary(erasures_of(con, name)) if "erasures" in there else []
    frame: pd.DataFrame = rows.to_pandas(types_mapper=NULLABLE.get)
    for column in frame.columns[[isinstance(one, pd.DatetimeTZDtype) for one in frame.dtypes]]:
        frame[column] = frame[column].dt.tz_convert("UTC")
    frame.attrs["erased"] = erased
    return frame


def tables(home: Place = None, *, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, list[str]]:
    """Return the tables and views of the warehouse with their columns; raises as :func:`read_table`.

    >>> tables()["performance"]
    ['batch', 'model_version', 'kind', 'metric', 'value', 'lower', 'upper']
    """
    with _reading(home, patience_seconds) as con:
        return _tables(con)


def in_words(frame: pd.DataFrame, study: Study | None = None) -> pd.DataFrame:
    """Return a copy with the survey's words instead of its codes.

    Args:
        frame: any; columns that are neither feature nor target of the study stay as they are.
        study: by default as for :func:`load_champion`.

    Returns:
        The same rows and columns. No answer becomes ``no answer``; a code that the study does not know
        becomes ``unknown (code)``.

    >>> study = load_study()
    >>> question = study.features[0]
    >>> codes = pd.DataFrame({question.name: [min(question.codes), None]})
    >>> in_words(codes)[question.name].tolist() == [question.codes[min(question.codes)], "no answer"]
    True
    """
    study = study or load_study()
    target = study.target
    asked = {feature.name: feature for feature in study.features}
    asked[target.name] = Feature(
        name=target.name, question=target.question, title=target.title, kind="binary", codes=target.codes
    )
    told = frame.copy()
    for place, name in enumerate(frame.columns):
        if name in asked:
            seen, codes = pd.factorize(frame.iloc[:, place], use_na_sentinel=False)
            words = [asked[name].label(None if pd.isna(code) else code) or NO_ANSWER for code in codes]
            told.isetitem(place, np.array(words, dtype=object)[seen])
    return told


def _home(home: Place) -> Home:
    """Return the home that is meant; its folders are not made."""
    if home is None:
        return Home.default()
    return home if isinstance(home, Home) else Home(Path(home).expanduser().resolve())


_FIRST_MODEL = (
    "Is it the home folder (POLENG_HOME)? If it is, drop a field study into landing/field_studies; a model "
    "serves when it has been trained from it and has passed its gates"
)


def _serving(registry: Registry) -> ModelVersion:
    """Return the version that the ledger appointed, or what is as good as that.

    The alias is read first: a promotion in between is then like one that died before it moved the alias.

    Raises:
        NoChampion: the ledger appointed none, or the alias says what nobody decided.
    """
    home = registry.home
    alias = registry.alias(CHAMPION)
    try:
        with Warehouse(home.warehouse, registry.study, say=log.warning).read() as con:
            told = serving_decision(con)
    except FileNotFoundError:
        told = None
    explicit = "load_champion(version=...) loads a version whether it serves or not"
    if told is None and alias is None:
        raise NoChampion(f"no model serves yet in {home.root}. {_FIRST_MODEL}")
    if told is None:
        raise NoChampion(
            f"the registry's alias 'champion' points to version {alias.version if alias else None}, but the "
            f"ledger of {home.root} appointed none. Was {home.warehouse.name} removed? Put it back from a "
            f"backup (`poleng restore`); {explicit}"
        )
    if alias is not None and alias.version not in (told.version, told.before):
        raise NoChampion(f"{registry_conflict(told, alias.version)}; {explicit}")
    try:
        return registry.version(told.version)
    except LookupError as error:
        raise NoChampion(
            f"the ledger says that version {told.version} serves, but {error}. Was mlflow.db removed? Put it "
            "back from a backup (`poleng restore`)"
        ) from error


@contextmanager
def _mlflow_as_it_was() -> Iterator[None]:
    """Give back the addresses that MLflow had: a notebook may log its own work somewhere else."""
    import mlflow

    tracking = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    registry = os.environ.get("MLFLOW_REGISTRY_URI")  # MLflow keeps it there whenever it is set
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)  # type: ignore[arg-type]  # None: as if it had never been set
        mlflow.set_registry_uri(registry)  # type: ignore[arg-type]
        if registry is None:
            os.environ.pop("MLFLOW_REGISTRY_URI", None)


@contextmanager
def _reading(home: Place, patience_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    place = _home(home)
    try:
        with Warehouse(place.warehouse, study_of(place), patience_seconds, log.warning).read() as con:
            yield con
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no warehouse in {place.root}. Is it the home folder (POLENG_HOME)? The first file "
            "that is taken in makes it"
        ) from error


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found = con.execute(
        """SELECT table_name, column_name FROM duckdb_columns()
        WHERE NOT internal AND schema_name = 'main' ORDER BY table_name, column_index"""
    ).fetchall()
    there: dict[str, list[str]] = {}
    for table, column in found:
        there.setdefault(table, []).append(column)
    return there


def _as_table(rows: Rows, study: Study) -> tuple[pa.Table, pd.Index]:
    """Return the study's columns of rows as they were given, and the index that their scores get."""
    if isinstance(rows, pd.Series):
        rows = rows.to_frame().T
    elif isinstance(rows, Mapping):
        rows = _people([rows], study)
    elif isinstance(rows, list | tuple):
        rows = _people(rows, study)
    wanted = {study.id, *study.feature_names}
    if isinstance(rows, pd.DataFrame):
        # Others may hold what no table does, and are left out at the door too.
        return Encoder.table(rows.loc[:, [name in wanted for name in rows.columns]]), rows.index
    if not hasattr(rows, "__arrow_c_stream__") and not hasattr(rows, "__arrow_c_array__"):
        raise TypeError(
            f"people come as a frame, an Arrow table, or mappings from question to code, not as "
            f"{type(rows).__name__}"
        )
    table = rows if isinstance(rows, pa.Table) else pa.table(rows)
    places = [place for place, name in enumerate(table.column_names) if name in wanted]
    return table.select(places), pd.RangeIndex(table.num_rows)


def _people(people: Sequence[Any], study: Study) -> pd.DataFrame:
    """Return mappings as a frame; a question that one of them lacks is not taken for a missing answer."""
    for row, person in enumerate(people, 1):
        if not isinstance(person, Mapping):
            raise TypeError(f"row {row} is no mapping from question to code, but {type(person).__name__}")
        if lacking := [name for name in study.feature_names if name not in person]:
            raise EncodingError(
                f"column {lacking[0]!r} is missing in row {row}: say None where there is no answer"
            )
    there = [study.id] * any(study.id in person for person in people) + study.feature_names
    return pd.DataFrame({name: [person.get(name) for person in people] for name in there})


def _codes(table: pa.Table, study: Study) -> pa.Table:
    """Return the answers as int64 codes, in the order of the study, by the rules of the door.

    A nominal code that the study does not list is news, and taken; of the other kinds it is broken
    (``core/ingestion/contract.py``).

    Raises:
        EncodingError: with one line for each question that is missing or has an answer that is no code.
    """
    columns, faults = {}, []
    for feature in study.features:
        there = table.column_names.count(feature.name)
        if there != 1:
            faults.append(f"column {feature.name!r} {'stands twice' if there else 'is missing'}")
            continue
        given = table[feature.name]
        try:
            codes, broken = to_codes(given, feature.is_yes_or_no)
        except pa.ArrowException as error:
            faults.append(f"column {feature.name!r} holds {given.type}, which are no survey codes: {error}")
            continue
        why = "which is no survey code"
        if not pc.any(broken).as_py() and feature.closed_codes is not None:
            known = pc.is_in(codes, value_set=pa.array(feature.closed_codes, pa.int64()))
            broken = pc.and_(codes.is_valid(), pc.invert(known))
            why = f"which is not among the codes of the study: {', '.join(map(str, feature.closed_codes))}"
        if pc.any(broken).as_py():
            row = pc.index(broken, True).as_py()
            value = reprlib.repr(given[row].as_py())
            faults.append(f"column {feature.name!r} holds {value} in row {row + 1}, {why}")
        columns[feature.name] = codes
    if faults:
        raise EncodingError("\n".join(faults))
    return pa.table(columns)


def _as_frame(codes: pa.Table) -> pd.DataFrame:
    """Return codes as a frame in which they stay whole numbers where another is missing."""
    return codes.to_pandas(types_mapper=NULLABLE.get)


def _unknown_answers(encoder: Encoder, codes: pa.Table) -> np.ndarray:
    """Return, for each row, the questions whose answer training never saw: text, separated by commas."""
    lacking = np.full(codes.num_rows, "", dtype=object)
    for name, unseen in encoder.unseen(codes).items():
        lacking[unseen] = [f"{before}, {name}" if before else name for before in lacking[unseen]]
    return lacking


def _contributions(model: Model, codes: pa.Table, study: Study) -> pd.DataFrame:
    """Return what each answer of one person does to the score, the strongest first."""
    unseen, shown = model.encoder.unseen(codes), set(shown_questions(study, model.proxies))
    effects = dict(zip(model.encoder.features, model.contributions(codes)[0], strict=True))
    found = pd.DataFrame(
        {
            "question": [feature.title for feature in study.features],
            "answer": [
                feature.label(codes[feature.name][0].as_py()) or NO_ANSWER for feature in study.features
            ],
            "effect": [effects[feature.name] for feature in study.features],
            "never_learned": [bool(unseen.get(feature.name, [False])[0]) for feature in study.features],
            "withheld": [feature.name not in shown for feature in study.features],
        },
        index=pd.Index(study.feature_names),
    )
    return found.sort_values("effect", key=abs, ascending=False, kind="stable")


def _effect_in_words(effect: float) -> str:
    """Return what an effect in log-odds does to the odds."""
    change = math.exp(effect) - 1
    if abs(change) < 0.005:
        return "hardly matters"
    return f"{'raises' if change > 0 else 'lowers'} the odds by {abs(change):.0%}".replace("%", " %")
