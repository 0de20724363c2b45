"""The champion asset, which decides which version serves, records why, and then moves the alias."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.asset_events import Champion
from poleng_assets.core.data.versions import newest
from poleng_assets.core.ingestion.withdrawal import in_doubt, withdrawn
from poleng_assets.defs.assets.training import challenger
from poleng_assets.defs.resources.registry import mlflow_pages
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.models.registry import CHALLENGER, ModelVersion, Registry
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import escaped, table
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import (
    ChallengerDecision,
    decision_about,
    record_decision,
    serving_decision,
)

if TYPE_CHECKING:
    from poleng_assets.core.promotion.challenger_evaluation import ChallengerEvaluation
    from poleng_assets.core.promotion.shadow_scoring import Shadow

CAN_SERVE = "champion_can_serve"
# A constant data version: a new champion must not mark scores and lists of earlier batches as unsynced.
WHOEVER_SERVES = "whoever serves"


@dg.asset(
    deps=[challenger],
    group_name="model",
    kinds={"mlflow"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
    check_specs=[
        dg.AssetCheckSpec(
            CAN_SERVE,
            asset="champion",
            description="A version serves, and its model and reference files are intact.",
        )
    ],
)
def champion(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> dg.MaterializeResult:
    """The version that serves: the challenger if it is significantly better, else the previous champion."""
    contender = registry.alias(CHALLENGER)
    if contender is None:
        raise dg.Failure("There is no challenger to evaluate: materialise it first.", allow_retries=False)

    def state(con: Connection) -> object:
        return serving_decision(con), decision_about(con, contender.version), withdrawn(con)

    def read(con: Connection) -> _Contest:
        return _contest(con, registry, contender, context.log.warning)

    def compute(contest: _Contest) -> _Verdict:
        return _judge(context, warehouse, registry, contest)

    def write(con: Connection, verdict: _Verdict) -> None:
        if verdict.evaluation:
            _record(con, verdict, verdict.evaluation, context.run.run_id)

    verdict = warehouse.read_compute_write(state, read, compute, write)
    # After the ledger, so that a version that serves always has a recorded reason.
    if verdict.won and (lost := registry.appoint(contender.version)):
        context.log.warning(f"Version {contender.version} serves, according to the ledger. {lost}")
    serves = contender if verdict.won else verdict.contest.serving
    context.log.info(
        f"Version {contender.version} is {'promoted' if verdict.won else 'not promoted'}: {verdict.reason}"
    )
    # The earlier champion has been validated already.
    fault = registry.validation_error(contender) if verdict.won else verdict.champion_fault
    return _result(registry, verdict, serves, fault)


class _Contest(NamedTuple):
    """What is known before a challenger is judged.

    Attributes:
        challenger: the version to judge.
        serving: the version that serves; None before the first.
        withdrawn: says that the version that serves learned from what was withdrawn; may be empty.
        earlier: the newest decision about the challenger, None when it was never judged.
        field_studies_withdrawn: that nobody is judged by.
    """

    challenger: ModelVersion
    serving: ModelVersion | None
    withdrawn: str
    earlier: ChallengerDecision | None
    field_studies_withdrawn: Collection[str]


def _contest(
    con: Connection, registry: Registry, challenger: ModelVersion, warn: Callable[[str], None]
) -> _Contest:
    """Read what is known before a challenger is judged.

    Raises:
        dagster.Failure: it learned from what was withdrawn since.
    """
    serving = registry.serving(con, warn)
    if doubt := in_doubt(con, challenger.version, challenger.field_studies):
        raise dg.Failure(
            f"{doubt}, so it cannot be promoted: retrain first (`poleng retrain`).", allow_retries=False
        )
    return _Contest(
        challenger,
        serving,
        in_doubt(con, serving.version, serving.field_studies) if serving else "",
        decision_about(con, challenger.version),
        set(withdrawn(con)),
    )


class _Verdict(NamedTuple):
    """What is decided about a challenger.

    Attributes:
        contest: what was known before.
        champion_fault: why it was not compared with the version that serves; may be empty.
        won: whether it is to serve.
        shadow: the table of the shadow scorings, or why there is none.
        evaluation: None when the ledger knew already.
    """

    contest: _Contest
    champion_fault: str
    won: bool
    reason: str
    shadow: str
    evaluation: "ChallengerEvaluation | None"


def _judge(
    context: dg.AssetExecutionContext, warehouse: Warehouse, registry: Registry, contest: _Contest
) -> _Verdict:
    """Judge a challenger, unless the ledger knows already."""
    from poleng_assets.core.promotion.challenger_evaluation import evaluate_challenger
    from poleng_assets.core.statistics.selection_rates import describe_passed_over

    study, challenger, serving = warehouse.study, contest.challenger, contest.serving
    # Without a valid champion (it cannot score, or learned from withdrawn data) a challenger is judged like
    # a first champion, even after a rollback.
    fault = (registry.validation_error(serving) or contest.withdrawn) if serving else ""
    earlier = None if fault else _earlier_decision(contest)
    if earlier is not None:
        # The rerun of a run that died after its decision keeps it; a rolled-back version stays so.
        return _Verdict(
            contest, fault, *earlier, "No shadow scoring: this version has been evaluated before.", None
        )
    rival = None if fault else serving
    # People of a corrected study are evaluated once, with the corrected answers.
    learned = {name for version in (challenger, rival) if version for name in version.field_studies}
    evaluation = evaluate_challenger(
        warehouse,
        registry.model(challenger),
        registry.model(rival) if rival else None,
        newest(learned.difference(contest.field_studies_withdrawn)),
    )
    shadow = _describe_shadow(study, evaluation.shadows, rival)
    for line in [shadow.summary() for shadow in evaluation.shadows] or [shadow]:
        context.log.info(line)
    if warning := describe_passed_over(evaluation.passed_over, study.policies.promotion):
        context.log.warning(f"Version {challenger.version} {warning}")
    why = evaluation.reason(study.policies.promotion, fault)
    return _Verdict(contest, fault, evaluation.promoted, why, shadow, evaluation)


def _record(con: Connection, verdict: _Verdict, evaluation: "ChallengerEvaluation", run_id: str) -> None:
    challenger, serving = verdict.contest.challenger, verdict.contest.serving
    before = serving.version if serving else None
    record_decision(
        con,
        "promote" if verdict.won else "reject",
        verdict.reason,
        evidence={
            "gates": [vars(gate) for gate in evaluation.gates],
            "passed_over": [vars(group) for group in evaluation.passed_over],
            "shadow": [shadow.evidence() for shadow in evaluation.shadows],
            "field_studies": challenger.field_studies,
            "challenger": challenger.version,
            "champion_before": before,
        },
        champion_version=challenger.version if verdict.won else before,
        challenger_version=challenger.version,
        training_data_hash=challenger.training_data_hash,
        dagster_run_id=run_id,
        mlflow_run_id=challenger.run_id,
    )


def _earlier_decision(contest: _Contest) -> tuple[bool, str] | None:
    """Return whether a version is to serve, and why, when the ledger knows already; else None.

    A rejection holds against the champion that it was pronounced for. A promotion holds until another
    one or a rollback: its run may have died before the alias moved.
    """
    decision, serving = contest.earlier, contest.serving
    if decision is None:
        return None
    if decision.kind == "reject" and decision.champion_version != (serving.version if serving else None):
        return None
    return decision.kind == "promote" and decision.changed_champion_last, decision.reason


def _describe_shadow(study: Study, shadows: "Sequence[Shadow]", serving: ModelVersion | None) -> str:
    """Return the table of the shadow scorings, or why there is none."""
    from poleng_assets.core.promotion.shadow_scoring import table

    if shadows:
        return table(shadows)
    if serving is None:
        return "No shadow scoring: no champion serves yet."
    if study.policies.promotion.shadow_batches == 0:
        return "No shadow scoring: the study sets shadow_batches to 0."
    return "No shadow scoring: there are no batches yet."


def _result(
    registry: Registry, verdict: _Verdict, serves: ModelVersion | None, fault: str
) -> dg.MaterializeResult:
    """Report the decision to the graph; ``fault``: of the version that serves."""
    challenger, evaluation = verdict.contest.challenger, verdict.evaluation
    gates, passed_over = (evaluation.gates, evaluation.passed_over) if evaluation else ([], [])
    rows = [(gate.title, "passed" if gate.passed else "failed", gate.words) for gate in gates]
    if serves is None:
        fault = "no version serves: the first challenger was rejected"
    event = Champion(
        serves.version if serves else 0,
        challenger.version,
        verdict.won,
        verdict.reason,
        {gate.name: dict(gate.figures) for gate in gates},
        json.loads(challenger.tags["field_study_hashes"]),
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(WHOEVER_SERVES),
        metadata={
            **event.metadata(),
            "gates": dg.MetadataValue.md(
                table(["gate", "result", "details"], rows) if gates else escaped(verdict.reason)
            ),
            "shadow": dg.MetadataValue.md(verdict.shadow),
            "training_data_hash": challenger.training_data_hash,
            "mlflow_run_id": challenger.run_id,
            "passed_over": "; ".join(group.in_words() for group in passed_over) or "nobody",
            **(mlflow_pages(registry, serves) if serves else {}),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not fault,
                check_name=CAN_SERVE,
                metadata={"what_is_wrong": fault or "nothing", "serving_version": event.serving_version},
            )
        ],
    )
