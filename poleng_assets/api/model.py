"""A version of the registered model in this process: load it, score people with it, say why.

Rows become numbers by the encoder, and decisions by the rule, that batches are scored by.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.api.explanation import Explanation, contributions
from poleng_assets.api.rows import Rows, answers_of, as_frame, codes_of
from poleng_assets.api.warehouse import HomeFolder, home_of, log
from poleng_assets.core.features.encoder import Encoder, EncodingError
from poleng_assets.core.modeling.explanations import strongest_reasons
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.models.registry import CHAMPION, ModelVersion, Registry
from poleng_assets.storage.home_study import study_of
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import serving_decision

_FIRST_MODEL = (
    "Is it the home folder (POLENG_HOME)? If it is, drop a field study into landing/field_studies; a model "
    "serves when it has been trained from it and has passed its gates"
)


class NoChampion(LookupError):
    """It cannot be said which version serves; the message says why, and what to do."""


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """One version of the registered model, read into this process.

    Attributes:
        field_studies: that it was trained on.
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
        table, index = answers_of(rows, self.study)
        codes = codes_of(table, self.study)
        score = self.model.score(codes) if codes.num_rows else np.empty(0)
        columns: dict[str, Any] = {}
        if count := table.column_names.count(self.study.id):
            if count > 1:
                raise EncodingError(f"column {self.study.id!r} stands twice")
            columns[self.study.id] = table[self.study.id].to_pandas().array
        columns |= {
            "score": score,
            "contact": self.model.rule.decide(score),
            "unknown_answers": _unknown_answers(self.model.encoder, codes),
        }
        if reasons:
            columns["reasons"] = strongest_reasons(self.model, as_frame(codes), self.study)
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
        table, _ = answers_of(row, self.study)
        codes = codes_of(table, self.study)
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
            reasons=strongest_reasons(self.model, as_frame(codes), self.study)[0],
            contributions=contributions(self.model, codes, self.study),
        )

    def __repr__(self) -> str:
        trained = ", ".join(self.field_studies) or "field studies that the registry does not name"
        return f"{self.study.title}, version {self.version}, trained on {trained}: {self.contact_rule}"


def load_champion(
    home: HomeFolder = None, *, version: int | None = None, study: Study | None = None
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
    Political engagement, version 1, trained on founding_study: contact if the probability is at least 0.500
    >>> load_champion(version=1).version == champion.version
    True
    """
    folder = home_of(home)
    study = study_of(folder, study)
    registry = Registry(folder, study)
    if not Path(folder.mlflow_uri.removeprefix("sqlite:///")).exists():
        # Asked for a version, the registry would make its store first; and nothing is made here.
        raise NoChampion(
            f"no model is registered in {folder.root}. {_FIRST_MODEL}. If one served here before, its "
            "mlflow.db was removed: put it back from a backup (`poleng restore`)"
        )
    with _mlflow_as_it_was():
        chosen = registry.version(version) if version is not None else _serving(registry)
        model = registry.model(chosen)
    return LoadedModel(chosen.version, tuple(chosen.field_studies), study, model)


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
            decision = serving_decision(con)
    except FileNotFoundError:
        decision = None
    explicit = "load_champion(version=...) loads a version whether it serves or not"
    if decision is None and alias is None:
        raise NoChampion(f"no model serves yet in {home.root}. {_FIRST_MODEL}")
    if decision is None:
        raise NoChampion(
            f"the registry's alias 'champion' points to version {alias.version if alias else None}, but the "
            f"ledger of {home.root} appointed none. Was {home.warehouse.name} removed? Put it back from a "
            f"backup (`poleng restore`); {explicit}"
        )
    if alias is not None and alias.version not in (decision.version, decision.before):
        raise NoChampion(f"{registry_conflict(decision, alias.version)}; {explicit}")
    try:
        return registry.version(decision.version)
    except LookupError as error:
        raise NoChampion(
            f"the ledger says that version {decision.version} serves, but {error}. Was mlflow.db removed? "
            "Put it back from a backup (`poleng restore`)"
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


def _unknown_answers(encoder: Encoder, codes: pa.Table) -> np.ndarray:
    """Return, for each row, the questions whose answer training never saw: text, separated by commas."""
    lacking = np.full(codes.num_rows, "", dtype=object)
    for name, unseen in encoder.unseen(codes).items():
        lacking[unseen] = [f"{before}, {name}" if before else name for before in lacking[unseen]]
    return lacking
