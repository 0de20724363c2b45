"""Training: which data a challenger learns from, and the challenger itself."""

import json
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
from pydantic import Field

from poleng_assets.assets.field_studies import field_studies
from poleng_assets.core.evaluation import evaluate
from poleng_assets.core.model import booster_parameters, train
from poleng_assets.core.tables import now, record_decision, transaction
from poleng_assets.core.training_set import TrainingSet, latest_training_set, training_data_hash
from poleng_assets.resources.registry import CHAMPION, Registry
from poleng_assets.resources.warehouse import WAREHOUSE_POOL, Warehouse
from poleng_assets.runs import live_run_ids
from poleng_assets.study import Study


class RetrainConfig(dg.Config):
    """Why a challenger is wanted."""

    reason: str = Field(
        default="asked for by hand", description="Why to retrain; it goes into the ledger of decisions."
    )


@dg.asset(
    deps=[field_studies],
    group_name="model",
    kinds={"duckdb"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
)
def training_data(
    context: dg.AssetExecutionContext,
    config: RetrainConfig,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> dg.MaterializeResult:
    """All field studies, assimilated and pending, as one named set to learn from."""
    champion = registry.alias(CHAMPION)
    with warehouse.connect() as con:
        studies = dict(
            con.execute(
                "SELECT name, content_hash FROM ingested_files WHERE kind = 'field_studies'"
            ).fetchall()
        )
        if not studies:
            raise dg.Failure(
                "There is no field study to learn from: drop one into landing/field_studies.",
                allow_retries=False,
            )
        digest = training_data_hash(studies)
        pending = sorted(set(studies) - set(champion.field_studies if champion else []))
        with transaction(con):
            for name, content_hash in sorted(studies.items()):
                con.execute(
                    "INSERT INTO training_sets VALUES (?, ?, ?, ?)", [digest, name, content_hash, now()]
                )
            record_decision(
                con,
                "retrain",
                config.reason,
                evidence={"field_studies": sorted(studies), "pending": pending},
                champion_version=champion.version if champion else None,
                training_data_hash=digest,
                dagster_run_id=context.run_id,
            )
        counts = con.execute(
            f"""SELECT field_study, count(*) FILTER (part = 'train') AS training_rows,
            count(*) FILTER (part = 'holdout') AS holdout_rows,
            avg("{warehouse.study.target.name}") AS target_rate
            FROM field_study_rows GROUP BY ALL ORDER BY ALL"""  # noqa: S608
        ).df()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest),
        metadata={
            "dagster/row_count": int(counts["training_rows"].sum()),
            "holdout_rows": int(counts["holdout_rows"].sum()),
            "reason": config.reason,
            "pending": ", ".join(pending) or "none",
            "field_studies": dg.MetadataValue.md(counts.round(4).to_markdown(index=False)),
            "training_data_hash": digest,
        },
    )


@dg.asset(
    deps=[training_data],
    group_name="model",
    kinds={"xgboost", "mlflow"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
)
def challenger(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    mlflow: dg.ResourceParam[Any],
) -> dg.MaterializeResult:
    """A model trained on the training data, registered with its reference as the next candidate."""
    study = warehouse.study
    registry.end_abandoned_runs(live_run_ids(context.instance))
    with registry.training_run(mlflow):
        with warehouse.connect() as con:
            chosen = latest_training_set(con)
            training = _rows(con, study, chosen, "train")
            holdout = _rows(con, study, chosen, "holdout")
        context.log.info(f"Training on {training.num_rows} rows of {', '.join(chosen.studies)}")
        model = train(training, study)
        reference = holdout.to_pandas()
        reference["score"] = model.score(holdout)
        reference["contact"] = (reference["score"] >= model.threshold).astype(int)
        metrics = _train_and_test_metrics(study, training, model.score(training), reference, model.threshold)
        version = registry.log_version(
            mlflow,
            model,
            reference.drop(columns=[study.id]),
            parameters={
                **booster_parameters(study.policies.training),
                **study.policies.training.model_dump(
                    include={"rounds", "masked", "masked_share", "holdout_share"}
                ),
                "threshold": model.threshold,
                "training_rows": training.num_rows,
                "holdout_rows": holdout.num_rows,
            },
            metrics=metrics,
            tags={
                "field_studies": ",".join(chosen.studies),
                "field_study_hashes": json.dumps(chosen.studies),
                "training_data_hash": chosen.hash,
                "dagster_run_id": context.run_id,
            },
        )
    shown = {
        name: round(metrics[f"test_{name}"], 4)
        for name in ("auc", "log_loss", "rmse", "recall", "flagged_share")
    }
    return dg.MaterializeResult(
        metadata={
            "version": version.version,
            **shown,
            "metrics": dg.MetadataValue.md(_metric_table(metrics)),
            "training_rows": training.num_rows,
            "holdout_rows": holdout.num_rows,
            "field_studies": ", ".join(chosen.studies),
            "mlflow_run_id": version.run_id,
            "training_data_hash": chosen.hash,
        }
    )


def _rows(con: duckdb.DuckDBPyConnection, study: Study, chosen: TrainingSet, part: str) -> pa.Table:
    """Return features and target of one part of the training set, always in the same order."""
    columns = ", ".join(f'"{name}"' for name in [study.id, *study.feature_names, study.target.name])
    return con.sql(
        f"""SELECT {columns} FROM field_study_rows WHERE part = ? AND field_study IN (SELECT unnest(?))
        ORDER BY field_study, row_number""",  # noqa: S608
        params=[part, list(chosen.studies)],
    ).to_arrow_table()


def _train_and_test_metrics(
    study: Study, training: pa.Table, training_score: Any, reference: Any, threshold: float
) -> dict[str, float]:
    """Return the figures on the training rows and, beside them, those on the holdout that count."""
    on_training = evaluate(training[study.target.name].to_numpy(), training_score, threshold)
    on_holdout = evaluate(reference[study.target.name].to_numpy(), reference["score"].to_numpy(), threshold)
    seen = {f"train_{name}": on_training[name] for name in ("auc", "log_loss", "rmse")}
    return seen | {f"test_{name}": value for name, value in on_holdout.items()}


def _metric_table(metrics: dict[str, float]) -> str:
    names = sorted({name.split("_", 1)[1] for name in metrics})
    rows = [
        f"| {name} | {_cell(metrics.get(f'train_{name}'))} | {_cell(metrics.get(f'test_{name}'))} |"
        for name in names
    ]
    return "\n".join(["| figure | training rows | holdout |", "|---|---|---|", *rows])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
