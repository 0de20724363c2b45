"""The monitoring assets: the drift report of each batch, and the overview of all batches."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.asset_events import DriftReport, Overview
from poleng_assets.defs.assets.scoring import predictions
from poleng_assets.defs.partitions import batch_partitions
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.models.registry import Registry
from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import escaped
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.contact_lists import list_stands
from poleng_assets.warehouse.drift_reports import earlier_reports
from poleng_assets.warehouse.erasures import newest_erasures
from poleng_assets.warehouse.predictions import outcomes_state, scoring_version
from poleng_assets.warehouse.writes import now

if TYPE_CHECKING:
    from poleng_assets.core.monitoring.batch_report import BatchInputs, BatchReport, ModelContext
    from poleng_assets.core.monitoring.verdict import Reason

NOT_HELD = "batch_is_not_held"
NOTHING_SHIFTED = "answers_have_not_shifted"
PERFORMANCE_HOLDS = "expected_performance_holds"
ESTIMATE_TRUSTED = "estimate_can_be_trusted"
VERDICTS = ("clear", "drifted", "untrusted", "insufficient")
CHECKS = {
    NOT_HELD: "The batch is not on hold.",
    NOTHING_SHIFTED: "No question drifted from the reference, compared within strata.",
    PERFORMANCE_HOLDS: "Neither estimated nor realised performance dropped by more than the tolerance.",
    ESTIMATE_TRUSTED: "The performance estimate can be trusted.",
}


@dg.asset(
    deps=[predictions],
    partitions_def=batch_partitions,
    group_name="scoring",
    kinds={"python", "duckdb"},
    owners=["team:ml"],
    check_specs=[
        dg.AssetCheckSpec(name, asset="drift_report", description=description)
        for name, description in CHECKS.items()
    ],
)
def drift_report(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    landing: dg.ResourceParam[Landing],
) -> dg.MaterializeResult:
    """The overseer's verdict on a scored batch, with drift metrics (NannyML) and an HTML page."""
    study, batch = warehouse.study, context.partition_key

    def state(con: Connection) -> object:
        version = scoring_version(con, batch)
        earlier = version and earlier_reports(con, batch, version)
        return outcomes_state(con, study, batch), earlier, list_stands(con, batch)

    def read(con: Connection) -> tuple["BatchInputs", bool]:
        return _inputs(con, study, batch), list_stands(con, batch)

    def compute(inputs: tuple["BatchInputs", bool]) -> _Measured:
        return _measured(registry, study, *inputs)

    def write(con: Connection, measured: _Measured) -> None:
        _save(con, landing.home, measured, context.run.run_id)

    seen, _, stands = warehouse.read_compute_write(state, read, compute, write)
    for reason in seen.judgement.words:
        context.log.info(f"{batch}: {reason}")
    return dg.MaterializeResult(
        metadata=_metadata(landing.home, study, seen, stands), check_results=_checks(seen)
    )


@dg.asset(
    deps=[
        dg.AssetDep("drift_report", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("contact_list", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("realised_performance", partition_mapping=dg.AllPartitionMapping()),
        "champion",
    ],
    group_name="performance",
    kinds={"python"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
)
def overview(
    warehouse: dg.ResourceParam[Warehouse], landing: dg.ResourceParam[Landing]
) -> dg.MaterializeResult:
    """Summary page of all batches: verdicts, performance, champions and alarms over time."""
    from poleng_assets.core.reports.overview import load_overview, render_overview

    with warehouse.read() as con:
        batches = load_overview(con, warehouse.study)
    page = render_overview(warehouse.study, batches, made_at=now())
    path = write_atomically(landing.home.overview, page)
    reports = batches.reports
    current = reports[reports["current"]]
    verdicts = current["verdict"].value_counts()
    event = Overview(
        alarms=int(reports["alarm"].sum()),
        **{f"batches_{verdict}": int(verdicts.get(verdict, 0)) for verdict in VERDICTS},
    )
    return dg.MaterializeResult(
        metadata={
            **event.metadata(),
            "page": dg.MetadataValue.path(str(path)),
            "batches": int(reports["batch"].nunique()),
        }
    )


def model_context(registry: Registry, number: int) -> "ModelContext":
    """Return a version's model, reference and importance; raises ``LookupError`` when it is unknown."""
    from poleng_assets.core.monitoring.batch_report import ModelContext

    version = registry.version(number)
    return ModelContext(
        number, registry.model(version), registry.reference(version), registry.importance(version)
    )


def _inputs(con: Connection, study: Study, batch: str) -> "BatchInputs":
    """Read a batch by the version of its scores: the champion may have changed since.

    Raises:
        dagster.Failure: it has no scores.
    """
    from poleng_assets.core.monitoring.batch_report import load_inputs

    version = scoring_version(con, batch)
    if version is None:
        erased = newest_erasures(con, "predictions").get(batch)
        why = f"the scores were {erased.in_words()}" if erased else "materialise its predictions first"
        raise dg.Failure(f"{batch} is not scored: {why}.", allow_retries=False)
    return load_inputs(con, study, batch, version)


class _Measured(NamedTuple):
    """The report of a batch, its page, and whether the batch has an issued list."""

    report: "BatchReport"
    page: str
    list_stands: bool


def _measured(registry: Registry, study: Study, inputs: "BatchInputs", list_stands: bool) -> _Measured:
    """Measure and judge a batch, and render its page."""
    from poleng_assets.core.monitoring.batch_report import measure_and_judge
    from poleng_assets.core.reports.drift_report import render_report

    report = measure_and_judge(study, model_context(registry, inputs.version), inputs)
    return _Measured(report, render_report(study, report), list_stands)


def _save(con: Connection, home: Home, measured: _Measured, run_id: str) -> None:
    """Save a report and its page; called in a transaction."""
    from poleng_assets.core.monitoring.batch_report import save_report

    report = measured.report
    # While the warehouse is locked: another run may write the same page.
    write_atomically(home.report(report.batch, report.version), measured.page)
    save_report(con, report, run_id)


def _checks(seen: "BatchReport") -> list[dg.AssetCheckResult]:
    """Return the check results: warnings, because the overseer handles them automatically."""
    measured, judgement = seen.measurements, seen.judgement
    losses = [reason.words for reason in judgement.reasons if reason.cause.endswith("_loss")]
    shifts = [reason.words for reason in judgement.reasons if reason.cause.startswith("shift:")]
    small = judgement.verdict == "insufficient"
    messages = {
        NOT_HELD: [reason.words for reason in judgement.reasons if reason.acts],
        NOTHING_SHIFTED: shifts,
        PERFORMANCE_HOLDS: losses,
        ESTIMATE_TRUSTED: [] if measured.trust.trusted or small else [measured.trust.why_not],
    }
    return [
        dg.AssetCheckResult(
            passed=not reasons,
            check_name=name,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "verdict": judgement.verdict,
                "found": reasons[0] if reasons else "nothing",
                **_plotted(seen, name),
            },
        )
        for name, reasons in messages.items()
    ]


def _plotted(seen: "BatchReport", check: str) -> dict[str, float]:
    """Return the metrics of a check that the UI plots over batches; small batches have few."""
    measured, judgement = seen.measurements, seen.judgement
    auc = measured.estimate("auc")
    known: dict[str, dict[str, float | None]] = {
        NOT_HELD: {
            "reasons_to_act": sum(reason.acts for reason in judgement.reasons),
            "share_outside_support": measured.outside_support,
        },
        NOTHING_SHIFTED: {"drifted_columns": len(judgement.drifted_columns)},
        PERFORMANCE_HOLDS: {"estimated_auc_loss": measured.loss.value if measured.loss else None},
        ESTIMATE_TRUSTED: {"estimated_auc_within": (auc.upper - auc.lower) / 2 if auc else None},
    }
    return {name: round(value, 4) for name, value in known[check].items() if value is not None}


def _metadata(home: Home, study: Study, seen: "BatchReport", list_stands: bool) -> dict[str, Any]:
    from poleng_assets.core.reports.drift_charts import distance_picture
    from poleng_assets.core.statistics.selection_rates import passed_over

    measured = seen.measurements
    groups = passed_over(seen.contacts, study.policies.promotion)
    metadata: dict[str, Any] = {
        **_event(home, seen, list_stands).metadata(),
        "rows_measured": measured.rows_measured,
        "passed_over": "; ".join(group.in_words() for group in groups) or "nobody",
    }
    for estimate in measured.estimates:
        metadata[f"estimated_{estimate.metric}"] = round(estimate.value, 4)
    for estimate in seen.realised.estimates if seen.realised else ():
        metadata[f"realised_{estimate.metric}"] = round(estimate.value, 4)
    if measured.estimates:
        metadata["distances"] = dg.MetadataValue.md(distance_picture(study, measured))
    return metadata


def _event(home: Home, seen: "BatchReport", list_stands: bool) -> DriftReport:
    measured, judgement = seen.measurements, seen.judgement
    auc, loss = measured.estimate("auc"), measured.loss
    event = DriftReport(
        model_version=seen.version,
        verdict=judgement.verdict,
        held=judgement.held,
        alarm=judgement.alarm,
        reasons=dg.MetadataValue.md("\n".join(map(_line, judgement.reasons))),
        report=dg.MetadataValue.path(str(home.report(seen.batch, seen.version))),
        list_stands=list_stands,
        rows=measured.rows,
        drifted_columns=len(judgement.drifted_columns),
        share_outside_support=round(measured.outside_support, 4),
        share_flagged=round(measured.flagged_share, 4),
        estimated_auc_loss=round(loss.value, 4) if loss else None,
        estimate_trusted=measured.trust.trusted,
    )
    if auc is None or auc.reference is None:
        return event
    return replace(
        event,
        estimated_auc_lower=round(auc.lower, 4),
        estimated_auc_upper=round(auc.upper, 4),
        reference_auc=round(auc.reference, 4),
    )


def _line(reason: "Reason") -> str:
    return f"- {'**on hold:** ' if reason.acts else ''}{escaped(reason.words)}"
