"""The rival of the whole simulation: a lean script that does the same job with equal models.

Pandas reads the files. The two trainings are the project's own search and fit on the same rows, NannyML's
calculators run as they come, and the same lists are written, reasons and workbooks included. Nothing is
checked, kept, explained or drawn beside that: there is no landing folder, contract, warehouse, ledger,
MLflow, Dagster, gate, report or model card. What the project takes more is the price of those.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import nannyml
import pandas as pd
import pyarrow as pa
from sklearn.metrics import log_loss

from poleng_assets.core.contacts.contact_list import as_csv, contact_list
from poleng_assets.core.contacts.workbook import AboutList, write_workbook
from poleng_assets.core.modeling.explanations import strongest_reasons
from poleng_assets.core.modeling.model import Model, train
from poleng_assets.core.modeling.tuning import tune
from poleng_assets.simulation.scenarios import Drop
from poleng_assets.study.schema import Study
from tools.bench.seeds_way import read

# NannyML's distance of the scores from those of the reference, from which a batch counts as drifted.
DRIFTED = 0.1


@dataclass
class LeanScript:
    """One model, the field studies that it may learn from, and the scores that it gave.

    Attributes:
        study: features, target and policies.
        parts: which rows train and which are held out: id, ``field_study`` and ``part``.
        out: folder of the lists.
        field_studies: that were dropped, by name.
        scores: of each batch: id, ``score`` and ``contact``.
        aucs: realised on each batch whose outcomes were dropped.
        trainings: so far.
    """

    study: Study
    parts: pd.DataFrame
    out: Path
    field_studies: dict[str, pd.DataFrame] = field(default_factory=dict)
    scores: dict[str, pd.DataFrame] = field(default_factory=dict)
    aucs: dict[str, float] = field(default_factory=dict)
    trainings: int = 0
    pending: bool = False
    model: Model | None = None
    reference: pd.DataFrame | None = None

    def play(self, story: Sequence[Drop]) -> None:
        """Deal with the files of a scenario, one after the other."""
        for drop in story:
            rows = read(drop.path)
            if drop.kind == "field_studies":
                self.field_studies[drop.name], self.pending = rows, True
                if self.model is None:
                    self._train()
            elif drop.kind == "batches":
                self._process(drop.name, rows)
            else:
                self.aucs[drop.name] = self._realised_auc(
                    rows.merge(self.scores[drop.name], on=self.study.id)
                )

    def _train(self) -> None:
        """Search, fit, score the holdout; the better of the old and the new model serves."""
        study, policy, names = self.study, self.study.policies.training, sorted(self.field_studies)
        rows = pd.concat([self.field_studies[name].assign(field_study=name) for name in names])
        rows = rows.merge(self.parts, on=["field_study", study.id])
        training = pa.Table.from_pandas(rows[rows["part"] == "train"], preserve_index=False)
        holdout = rows[rows["part"] == "holdout"]
        new = train(training, study, tune(training, study, policy.budget(policy.mode)).configuration)
        target = holdout[study.target.name]
        if self.model is None or log_loss(target, new.score(holdout)) < log_loss(
            target, self.model.score(holdout)
        ):
            self.model, self.reference = new, _scored(new, holdout)
        self.trainings += 1
        self.pending = False

    def _process(self, batch: str, rows: pd.DataFrame) -> None:
        """Score a batch, look for drift, train on drift while a study waits, and write the list."""
        if self.model is None or self.reference is None:
            raise ValueError(f"{batch} comes before the first field study")
        scored = _scored(self.model, rows)
        drifted = bare_calculators(self.study, self.reference, scored) > DRIFTED
        if drifted and self.pending:
            self._train()
            self._process(batch, rows)
            return
        self.scores[batch] = scored[[self.study.id, "score", "contact"]]
        contacts = scored["contact"] == 1
        scored["reasons"] = ""
        scored.loc[contacts, "reasons"] = strongest_reasons(self.model, scored[contacts], self.study)
        listed = contact_list(scored.assign(contact=contacts), self.study)
        about = AboutList(batch, datetime.now(UTC), self.trainings, len(scored))
        write_workbook(self.out / f"{batch}.xlsx", listed, self.study, about)
        (self.out / f"{batch}.csv").write_text(as_csv(listed), encoding="utf-8")

    def _realised_auc(self, met: pd.DataFrame) -> float:
        """Measure the scores of a batch by its outcomes, with NannyML's calculator as it comes."""
        calculator = nannyml.PerformanceCalculator(
            y_true=self.study.target.name,
            y_pred="contact",
            y_pred_proba="score",
            problem_type="classification_binary",
            metrics=["roc_auc", "average_precision", "precision", "recall", "accuracy"],
            chunk_number=1,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            realised = calculator.fit(self.reference).calculate(met)
        return float(realised.to_df()["roc_auc", "value"].iloc[-1])


def bare_calculators(study: Study, reference: pd.DataFrame, scored: pd.DataFrame) -> float:
    """Run NannyML's calculators as a user without this project would: as they come, one chunk.

    Args:
        study: which columns there are.
        reference: features, target, ``score`` and ``contact``.
        scored: features, ``score`` and ``contact``.

    Returns:
        The Jensen-Shannon distance of the scores.
    """
    features, target = study.feature_names, study.target.name
    ordinal = [one.name for one in study.features if one.is_ordinal]
    nominal = [name for name in features if name not in ordinal]
    there, here = (_plain(frame, ordinal, nominal) for frame in (reference, scored))
    one_chunk = {"chunk_number": 1}
    watched = [*features, "score", "contact"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drift = (
            nannyml.UnivariateDriftCalculator(
                column_names=watched,
                treat_as_categorical=[*features, "contact"],
                categorical_methods=["jensen_shannon", "l_infinity"],
                continuous_methods=["jensen_shannon"],
                **one_chunk,
            )
            .fit(there[watched])
            .calculate(here[watched])
        )
        nannyml.MissingValuesCalculator(column_names=features, normalize=True, **one_chunk).fit(
            there[features]
        ).calculate(here[features])
        if ordinal:
            nannyml.NumericalRangeCalculator(column_names=ordinal, normalize=True, **one_chunk).fit(
                there[ordinal]
            ).calculate(here[ordinal])
        nannyml.DataReconstructionDriftCalculator(column_names=features, **one_chunk).fit(
            there[features]
        ).calculate(here[features])
        nannyml.CBPE(
            y_true=target,
            y_pred="contact",
            y_pred_proba="score",
            problem_type="classification_binary",
            metrics=["roc_auc", "precision", "recall", "accuracy"],
            **one_chunk,
        ).fit(
            there[["score", "contact"]].assign(**{target: pd.Series(reference[target]).to_numpy()})
        ).estimate(here[["score", "contact"]])
    return float(drift.to_df()["score", "jensen_shannon", "value"].iloc[-1])


def _scored(model: Model, rows: pd.DataFrame) -> pd.DataFrame:
    score = model.score(rows)
    return rows.reset_index(drop=True).assign(score=score, contact=model.rule.decide(score).astype(int))


def _plain(frame: pd.DataFrame, ordinal: list[str], nominal: list[str]) -> pd.DataFrame:
    """Return a frame as NannyML takes it: nominal answers as text, plain numbers, a plain index."""
    numbers = {
        name: frame[name].to_numpy(dtype="float64", na_value=float("nan"))
        for name in (*ordinal, "score", "contact")
    }
    names = {name: frame[name].astype("Int64").astype(str).to_numpy() for name in nominal}
    return pd.DataFrame(numbers | names)
