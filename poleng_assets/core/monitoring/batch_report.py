"""One batch under one model version: read from the warehouse, measured and judged, and kept.

Three steps, so that nothing is measured while the warehouse is open: :func:`load_inputs`,
:func:`measure_and_judge`, :func:`save_report`. What was found is kept complete: its page can be made again at
any time, with the outcomes that are known by then, of any version that scored the batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from duckdb import DuckDBPyConnection as Connection
from pydantic import TypeAdapter

from poleng_assets.core.modeling.model import Model
from poleng_assets.core.monitoring.drift import measure_batch
from poleng_assets.core.monitoring.measurements import BatchMeasurements
from poleng_assets.core.monitoring.realised_performance import (
    RealisedPerformance,
    measure_realised,
    save_realised,
)
from poleng_assets.core.monitoring.verdict import Judgement, judge
from poleng_assets.core.statistics.selection_rates import GroupContacts, contacts_of_groups, group_questions
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import already_recorded, record_decision
from poleng_assets.warehouse.drift_reports import EarlierReport, earlier_reports, read_report, replace_report
from poleng_assets.warehouse.files import rows_quarantined
from poleng_assets.warehouse.performance import replace_performance
from poleng_assets.warehouse.predictions import (
    GroupCount,
    count_groups,
    count_scored,
    outcomes_of_scored,
    scored_sample,
)


@dataclass(frozen=True)
class ModelContext:
    """What a batch is held against: a model version and what belongs to it.

    Attributes:
        model: itself.
        reference: held-out rows with its out-of-sample scores.
        importance: how much each feature moves its scores.
    """

    version: int
    model: Model
    reference: pd.DataFrame
    importance: Mapping[str, float]


@dataclass(frozen=True)
class BatchInputs:
    """What the warehouse knows of a batch as a version scored it.

    Attributes:
        rows: people scored.
        contacts: of them.
        quarantined: rows of its file that broke the contract.
        scored: the rows to measure, all or a sample: features, ``score`` and ``contact`` (0/1).
        outcomes: of everybody scored, see :func:`~poleng_assets.warehouse.predictions.outcomes_of_scored`.
        groups: people of each answer to the questions that make groups.
        earlier: reports on the batches before, newest first.
    """

    batch: str
    version: int
    rows: int
    contacts: int
    quarantined: int
    scored: pd.DataFrame
    outcomes: pd.DataFrame
    groups: Mapping[str, Sequence[GroupCount]]
    earlier: Sequence[EarlierReport]


@dataclass(frozen=True)
class BatchReport:
    """A batch under a model version: what was found, what it means, and what outcomes say by now.

    Attributes:
        reference: of that version.
        scored: the rows that were measured, with ``score`` and ``contact``.
        measurements: of the batch.
        judgement: of the overseer.
        realised: None as long as no outcome is known.
        contacts: how often people of each group are contacted.
    """

    batch: str
    version: int
    reference: pd.DataFrame
    scored: pd.DataFrame
    measurements: BatchMeasurements
    judgement: Judgement
    realised: RealisedPerformance | None
    contacts: Sequence[GroupContacts] = ()


_MEASUREMENTS = TypeAdapter(BatchMeasurements)
_JUDGEMENT = TypeAdapter(Judgement)


def load_inputs(con: Connection, study: Study, batch: str, version: int) -> BatchInputs:
    """Read what is needed to measure and judge a batch by the scores that a version gave it.

    Raises:
        LookupError: this version did not score the batch.
    """
    rows, contacts = count_scored(con, batch, version)
    if not rows:
        raise LookupError(f"version {version} did not score {batch}: materialise its predictions first")
    return BatchInputs(
        batch=batch,
        version=version,
        rows=rows,
        contacts=contacts,
        quarantined=rows_quarantined(con, "batches", batch),
        scored=_sample(con, study, batch, version),
        outcomes=outcomes_of_scored(con, study, batch, version),
        groups=_groups(con, study, batch, version),
        earlier=earlier_reports(con, batch, version),
    )


def measure_and_judge(study: Study, context: ModelContext, inputs: BatchInputs) -> BatchReport:
    """Measure a batch against its model version and judge it."""
    measured = measure_batch(
        context.reference,
        inputs.scored,
        context.model.encoder.unseen(inputs.scored),
        study,
        rows=inputs.rows,
        contacts=inputs.contacts,
        quarantined=inputs.quarantined,
        importance=context.importance,
    )
    realised = measure_realised(inputs.outcomes, study, context.reference)
    return BatchReport(
        inputs.batch,
        inputs.version,
        context.reference,
        inputs.scored,
        measured,
        judge(measured, study, inputs.earlier, realised.losses if realised else ()),
        realised,
        contacts_of_groups(study, inputs.groups),
    )


def load_report(
    con: Connection,
    study: Study,
    batch: str,
    version: int,
    reference: pd.DataFrame,
    realised: RealisedPerformance | None = None,
) -> BatchReport:
    """Read what was found when the batch was reported, to be shown with what outcomes say by now.

    Args:
        version: of the model, perhaps one that was rolled back since.
        realised: what outcomes say by now.

    Raises:
        LookupError: the batch has no report under this version.
    """
    report = read_report(con, batch, version)
    if report is None:
        raise LookupError(f"{batch} has no report under version {version}: materialise its drift_report")
    measurements, judgement = report
    return BatchReport(
        batch,
        version,
        reference,
        _sample(con, study, batch, version),
        _MEASUREMENTS.validate_json(measurements),
        _JUDGEMENT.validate_json(judgement),
        realised,
        contacts_of_groups(study, _groups(con, study, batch, version)),
    )


def save_report(con: Connection, report: BatchReport, run_id: str) -> None:
    """Keep a report in the warehouse, and a held batch in the ledger; called in a transaction."""
    measured, judgement = report.measurements, report.judgement
    batch, version = report.batch, report.version
    auc = measured.estimate("auc")
    row = {
        "verdict": judgement.verdict,
        "rows": measured.rows,
        "drifted_columns": len(judgement.drifted_columns),
        "outside_support": measured.outside_support,
        "flagged_share": measured.flagged_share,
        "estimated_auc": auc.value if auc else None,
        "reference_auc": auc.reference if auc else None,
        "rows_measured": measured.rows_measured,
        "reasons": "\n".join(judgement.words),
        "held": judgement.held,
        "alarm": judgement.alarm,
        "weak": judgement.weak,
        "trusted": measured.trust.trusted,
        "causes": json.dumps(sorted(judgement.causes)),
        "estimated_loss": measured.loss.value if measured.loss else None,
        "figures": _MEASUREMENTS.dump_json(measured, by_alias=True).decode(),
        "judgement": _JUDGEMENT.dump_json(judgement).decode(),
    }
    replace_report(con, batch, version, row, pd.DataFrame([vars(figure) for figure in measured.metrics]))
    replace_performance(con, batch, version, "estimated", [e.row for e in measured.estimates])
    why = f"{batch} is {judgement.verdict}: {judgement.words[0]}"
    if judgement.held and not already_recorded(con, "hold", batch, version, why):
        record_decision(
            con,
            "hold",
            why,
            evidence={
                "reasons": judgement.words,
                "causes": sorted(judgement.causes),
                "alarm": judgement.alarm,
                "drifted_columns": judgement.drifted_columns,
            },
            champion_version=version,
            batch=batch,
            dagster_run_id=run_id,
        )
    if report.realised is not None:
        save_realised(con, batch, version, report.realised)


def _sample(con: Connection, study: Study, batch: str, version: int) -> pd.DataFrame:
    """Return the scored rows, or a sample of them that is always the same: NannyML holds whole frames."""
    return scored_sample(con, study, batch, version, study.policies.overseer.report_sample)


def _groups(con: Connection, study: Study, batch: str, version: int) -> dict[str, list[GroupCount]]:
    return {name: count_groups(con, study, batch, version, name) for name in group_questions(study)}
