"""Promotion: the asset that decides which version serves. It records why, and moves the alias only then."""

import json
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa

from poleng_assets.assets.training import challenger
from poleng_assets.core.promotion import Gate, Holdout, contest, promoted, reason
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
        serves_already = serving is not None and serving.version == contender.version
        earlier = _earlier_reason(con, contender)
        if serves_already or earlier is not None:
            # A run that died after its decision runs again; a version that was taken back stays so.
            verdict, won, why = [], serves_already, earlier or "it serves already"
        else:
            verdict = _gates(con, study, registry, contender, serving)
            won, why = promoted(verdict), reason(verdict)
        evidence = {
            "gates": [vars(gate) for gate in verdict],
            "field_studies": contender.field_studies,
            "challenger": contender.version,
            "champion_before": serving.version if serving else None,
        }
        if won:
            registry.set_alias(CHAMPION, contender.version)
        if earlier is None:
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
    return dg.MaterializeResult(metadata=_metadata(contender, serves, verdict, won, why))


def _gates(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    registry: Registry,
    contender: ModelVersion,
    serving: ModelVersion | None,
) -> list[Gate]:
    """Score both contestants afresh on the same frozen holdout, and put the scores to the gates."""
    contestants = [contender, serving] if serving else [contender]
    rows = _holdout_rows(con, study, contestants)
    holdout = Holdout(
        target=rows[study.target.name].to_numpy(),
        population=rows["field_study"].to_numpy(zero_copy_only=False),
        groups={study.feature(name).title: _in_words(study, rows, name) for name in study.protected},
    )
    return contest(
        holdout,
        registry.model(contender).score(rows),
        registry.model(serving).score(rows) if serving else None,
        study.policies.contact.threshold,
        study.policies.promotion,
    )


def _holdout_rows(con: duckdb.DuckDBPyConnection, study: Study, contestants: list[ModelVersion]) -> pa.Table:
    """Return the holdout rows of every field study that a contestant knows: nobody trained on them."""
    columns = ", ".join(f'"{name}"' for name in [*study.feature_names, study.target.name])
    known = sorted({name for one in contestants for name in one.field_studies})
    return con.sql(
        f"""SELECT field_study, {columns} FROM field_study_rows
        WHERE part = 'holdout' AND field_study IN (SELECT unnest(?)) ORDER BY field_study, row_number""",  # noqa: S608
        params=[known],
    ).to_arrow_table()


def _in_words(study: Study, rows: pa.Table, name: str) -> np.ndarray:
    """Return the answers to a question as the survey words them, shape (rows,)."""
    answers, feature = rows[name].to_pandas(), study.feature(name)
    words = {code: feature.label(code) for code in answers.dropna().unique()}
    return answers.map(words).fillna("no answer").to_numpy()


def _earlier_reason(con: duckdb.DuckDBPyConnection, contender: ModelVersion) -> str | None:
    """Return what the ledger last said about a version, None when it was never judged."""
    found = con.execute(
        """SELECT reason FROM decisions WHERE kind IN ('promote', 'reject', 'rollback')
        AND challenger_version = ? ORDER BY decided_at DESC LIMIT 1""",
        [contender.version],
    ).fetchone()
    return found[0] if found else None


def _metadata(
    contender: ModelVersion, serves: ModelVersion | None, verdict: list[Gate], won: bool, why: str
) -> dict[str, Any]:
    rows = [
        f"| {gate.name} | {'passed' if gate.passed else '**failed**'} | {gate.words} |" for gate in verdict
    ]
    table = "\n".join(["| gate | | what was found |", "|---|---|---|", *rows])
    return {
        "promoted": won,
        "serving_version": serves.version if serves else 0,
        "challenger_version": contender.version,
        "reason": why,
        "gates": dg.MetadataValue.md(table if verdict else why),
        "figures": dg.MetadataValue.json({gate.name: dict(gate.figures) for gate in verdict}),
        "judged_field_studies": dg.MetadataValue.json(json.loads(contender.tags["field_study_hashes"])),
        "training_data_hash": contender.training_data_hash,
        "mlflow_run_id": contender.run_id,
    }
