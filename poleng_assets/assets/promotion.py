"""Promotion: the asset that decides which version serves. It records why, and moves the alias only then."""

import json
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa

from poleng_assets.assets.training import challenger
from poleng_assets.core.evaluation import evaluate
from poleng_assets.core.promotion import Gate, contest_gates, promoted, reason, sanity_gates
from poleng_assets.core.tables import record_decision
from poleng_assets.resources.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from poleng_assets.resources.warehouse import WAREHOUSE_POOL, Warehouse
from poleng_assets.study import Study


@dg.asset(
    deps=[challenger],
    group_name="model",
    kinds={"mlflow"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
)
def champion(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> dg.MaterializeResult:
    """The version that serves: the challenger when it is truly better, else the one that served before."""
    study = warehouse.study
    contender = registry.alias(CHALLENGER)
    if contender is None:
        raise dg.Failure("There is no challenger to judge: materialise it first.", allow_retries=False)
    serving = registry.alias(CHAMPION)
    with warehouse.connect() as con:
        if serving is not None and serving.version == contender.version:
            gates, won = [], True
            why = _earlier_reason(con, contender)
        else:
            gates = _gates(con, study, registry, contender, serving)
            won, why = promoted(gates), reason(gates)
        evidence = {
            "gates": [vars(gate) for gate in gates],
            "field_studies": contender.field_studies,
            "challenger": contender.version,
            "champion_before": serving.version if serving else None,
        }
        if won:
            registry.set_alias(CHAMPION, contender.version)
        if not _decided(con, contender):
            record_decision(
                con,
                "promote" if won else "reject",
                why,
                evidence=evidence,
                champion_version=contender.version if won else (serving.version if serving else None),
                challenger_version=contender.version,
                training_data_hash=contender.training_data_hash,
                dagster_run_id=context.run_id,
                mlflow_run_id=contender.run_id,
            )
    serves = contender if won else serving
    context.log.info(f"Version {contender.version} is {'promoted' if won else 'not promoted'}: {why}")
    return dg.MaterializeResult(metadata=_metadata(contender, serves, gates, won, why))


def _gates(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    registry: Registry,
    contender: ModelVersion,
    serving: ModelVersion | None,
) -> list[Gate]:
    """Score both contestants afresh on the same frozen holdout, and put the figures to the gates."""
    policy = study.policies.promotion
    holdout = _holdout(con, study, contender)
    target = holdout[study.target.name].to_numpy()
    threshold = study.policies.contact.threshold
    challenger_score = registry.model(contender).score(holdout)
    gates = sanity_gates(evaluate(target, challenger_score, threshold), policy)
    if serving is None:
        return gates
    champion_score = registry.model(serving).score(holdout)
    known = holdout["field_study"].to_pandas().isin(serving.field_studies).to_numpy()
    contest = contest_gates(
        evaluate(target, challenger_score, threshold),
        evaluate(target, champion_score, threshold),
        evaluate(target[known], challenger_score[known], threshold),
        evaluate(target[known], champion_score[known], threshold),
        policy,
    )
    return [*contest, *gates]


def _holdout(con: duckdb.DuckDBPyConnection, study: Study, contender: ModelVersion) -> pa.Table:
    """Return the holdout rows of the challenger's field studies: neither contestant trained on them."""
    columns = ", ".join(f'"{name}"' for name in [*study.feature_names, study.target.name])
    return con.sql(
        f"""SELECT field_study, {columns} FROM field_study_rows
        WHERE part = 'holdout' AND field_study IN (SELECT unnest(?)) ORDER BY field_study, row_number""",  # noqa: S608
        params=[contender.field_studies],
    ).to_arrow_table()


def _decided(con: duckdb.DuckDBPyConnection, contender: ModelVersion) -> bool:
    """Whether the ledger has this challenger's verdict: a run that died after it may run again."""
    return bool(
        con.execute(
            "SELECT 1 FROM decisions WHERE kind IN ('promote', 'reject') AND challenger_version = ?",
            [contender.version],
        ).fetchall()
    )


def _earlier_reason(con: duckdb.DuckDBPyConnection, contender: ModelVersion) -> str:
    found = con.execute(
        "SELECT reason FROM decisions WHERE kind = 'promote' AND challenger_version = ?",
        [contender.version],
    ).fetchone()
    return found[0] if found else "it serves already"


def _metadata(
    contender: ModelVersion, serves: ModelVersion | None, gates: list[Gate], won: bool, why: str
) -> dict[str, Any]:
    rows = [f"| {gate.name} | {'passed' if gate.passed else '**failed**'} | {gate.words} |" for gate in gates]
    table = "\n".join(["| gate | | figures |", "|---|---|---|", *rows])
    return {
        "promoted": won,
        "serving_version": serves.version if serves else 0,
        "challenger_version": contender.version,
        "reason": why,
        "gates": dg.MetadataValue.md(table if gates else why),
        "judged_field_studies": dg.MetadataValue.json(json.loads(contender.tags["field_study_hashes"])),
        "training_data_hash": contender.training_data_hash,
        "mlflow_run_id": contender.run_id,
    }
