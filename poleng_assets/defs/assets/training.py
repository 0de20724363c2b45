"""The training assets: the training data and the challenger."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import dagster as dg
from duckdb import DuckDBPyConnection as Connection
from pydantic import Field

from poleng_assets.core.data.asset_events import ROW_COUNT, Challenger, TrainingData
from poleng_assets.core.data.versions import newest
from poleng_assets.core.ingestion.withdrawal import field_study_records
from poleng_assets.defs.assets.arrivals import field_studies
from poleng_assets.defs.resources.registry import mlflow_pages
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import failed_runs_of_request, live_run_ids
from poleng_assets.defs.withdrawal import untold_withdrawals
from poleng_assets.models.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from poleng_assets.storage.files import write_atomically
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import frame_as_table
from poleng_assets.warehouse import training_sets
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision, recorded_by_runs
from poleng_assets.warehouse.holdout import on_both_sides
from poleng_assets.warehouse.writes import now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from poleng_assets.core.modeling.model import Model
    from poleng_assets.core.modeling.tuning import Trial, TuningResult
    from poleng_assets.core.promotion.holdout_evaluation import HoldoutEvaluation
    from poleng_assets.core.reports.model_card import ModelCard

JUDGED_BY_OTHERS = "models_are_judged_by_others"


class RetrainConfig(dg.Config):
    """Why to train a challenger."""

    reason: str = Field(
        default="requested manually", description="Reason for the retraining, recorded in the ledger."
    )


@dg.asset(
    deps=[field_studies],
    group_name="model",
    kinds={"duckdb"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
    check_specs=[
        dg.AssetCheckSpec(
            JUDGED_BY_OTHERS,
            asset="training_data",
            description="No id and no set of answers is in both the training rows and the holdout.",
        )
    ],
)
def training_data(
    context: dg.AssetExecutionContext,
    config: RetrainConfig,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> dg.MaterializeResult:
    """The training set: all field studies that are not withdrawn."""
    study, champion = warehouse.study, registry.alias(CHAMPION)

    def read(con: Connection) -> _TrainingData:
        registry.require_serving_version(con)
        for event in untold_withdrawals(field_study_records(con), context.instance):
            context.log_event(event)
        return _training_data(con, study)

    def write(con: Connection, data: _TrainingData) -> None:
        training_sets.record_training_set(con, training_sets.TrainingSet(data.hash, data.studies))
        # The rerun of a run that died after this is the same retraining.
        if not recorded_by_runs(con, "retrain", failed_runs_of_request(context.instance, context.run)):
            record_decision(
                con,
                "retrain",
                config.reason,
                evidence={"field_studies": sorted(data.studies), "pending": data.pending(champion)},
                champion_version=champion.version if champion else None,
                training_data_hash=data.hash,
                dagster_run_id=context.run.run_id,
            )

    data = warehouse.read_compute_write(field_study_records, read, lambda data: data, write)
    return _described(data, config.reason, data.pending(champion))


class _TrainingData(NamedTuple):
    """The training data.

    Attributes:
        hash: of all field studies.
        studies: data hash of each field study, by its id.
        counts: rows of each (``warehouse/training_sets.py``).
        shared_ids: ids in both training rows and holdout.
        shared_answers: sets of answers in both.
    """

    hash: str
    studies: dict[str, str]
    counts: "pd.DataFrame"
    shared_ids: int
    shared_answers: int

    def pending(self, champion: ModelVersion | None) -> list[str]:
        """Return the field studies that the champion was not trained on."""
        return sorted(set(self.studies) - set(champion.field_studies if champion else []))


def _training_data(con: Connection, study: Study) -> _TrainingData:
    """Read the training data: all field studies that are not withdrawn.

    Raises:
        dagster.Failure: there is none.
    """
    taken_in = field_study_records(con)
    studies = {file.name: file.data_hash for file in taken_in if file.withdrawn_at is None}
    if not studies:
        withdrawn = ", ".join(file.name for file in taken_in)
        raise dg.Failure(
            f"There is no field study to train on{f' (withdrawn: {withdrawn})' if withdrawn else ''}: "
            "drop one into landing/field_studies.",
            allow_retries=False,
        )
    # A corrected field study replaces the one that it corrects.
    studies = {name: studies[name] for name in newest(studies)}
    counts = training_sets.rows_of_each_study(con, study, studies)
    return _TrainingData(
        training_sets.training_data_hash(studies), studies, counts, *on_both_sides(con, study)
    )


def _described(data: _TrainingData, reason: str, pending: list[str]) -> dg.MaterializeResult:
    """Return the materialisation of the training data."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(data.hash),
        metadata={
            **TrainingData(reason, ", ".join(pending) or "none", data.hash).metadata(),
            ROW_COUNT: int(data.counts["training_rows"].sum()),
            "holdout_rows": int(data.counts["holdout_rows"].sum()),
            "field_studies": dg.MetadataValue.md(frame_as_table(data.counts.round(4))),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not data.shared_ids and not data.shared_answers,
                check_name=JUDGED_BY_OTHERS,
                metadata={"ids_on_both_sides": data.shared_ids, "answers_on_both_sides": data.shared_answers},
            )
        ],
    )


class TuningConfig(dg.Config):
    """How long to tune."""

    mode: Literal["", "quick", "full"] = Field(
        default="",
        description="quick: compare the default candidates (a minute). full: hyperparameter search (the log "
        "shows the remaining time; an interrupted search resumes). Empty: as the study sets it.",
    )
    again: bool = Field(
        default=False,
        description="Train even if a version with the same data, study and mode exists. The result is "
        "identical.",
    )


@dg.asset(
    deps=[training_data], group_name="model", kinds={"xgboost", "scikitlearn", "mlflow"}, owners=["team:ml"]
)
def challenger(
    context: dg.AssetExecutionContext,
    config: TuningConfig,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    mlflow: dg.ResourceParam[Any],
) -> dg.MaterializeResult:
    """The best model from tuning on the training data, registered with its reference."""
    from poleng_assets.core.modeling.tuning import search_name

    study = warehouse.study
    mode = config.mode or study.policies.training.mode
    registry.end_abandoned_runs(lambda: live_run_ids(context.instance))
    with registry.training_run(mlflow):
        with warehouse.read() as con:
            rows = _read_rows(con, study)
        search = search_name(rows.chosen.hash, study)
        made = None if config.again else registry.version_of_search(search, mode)
        fault = registry.validation_error(made) if made else ""
        if fault:
            context.log.warning(f"A model of the same data is trained again: {fault}")
        if made is not None and not fault:
            registry.finish_run(made)
            registry.set_alias(CHALLENGER, made.version)
            registry.delete_searches(but=search)
            context.log.info(
                f"Version {made.version} was trained on the same data with the same study: nothing to train"
            )
            return dg.MaterializeResult(metadata=_taken_over(made) | mlflow_pages(registry, made))
        context.log.info(f"Training on {rows.training.num_rows} rows of {', '.join(rows.chosen.studies)}")
        logger = _trial_logger(context, registry, mlflow)
        trained = _train(rows, study, mode, registry.home.tuning / search, logger)
        for proxy in trained.shown_proxies:
            context.log.warning(f"Contact lists reveal a protected answer: {proxy}")
        version, card = _register(context.run.run_id, registry, mlflow, study, rows, trained, mode, search)
    # A full search resumes where a quick or interrupted one stopped.
    registry.delete_searches(but="" if mode == "full" else search)
    return dg.MaterializeResult(metadata=_metadata(study, registry, rows, trained, version, card))


class _Rows(NamedTuple):
    """The training rows and the holdout of a challenger."""

    chosen: training_sets.TrainingSet
    training: "pa.Table"
    holdout: "pa.Table"


def _read_rows(con: Connection, study: Study) -> _Rows:
    chosen = training_sets.latest_training_set(con)
    return _Rows(
        chosen,
        training_sets.labelled_rows(con, study, chosen.studies, "train"),
        training_sets.labelled_rows(con, study, chosen.studies, "holdout"),
    )


class _Trained(NamedTuple):
    """A model with its tuning result, its evaluation and the proxies that its lists show."""

    tuned: "TuningResult"
    model: "Model"
    evaluation: "HoldoutEvaluation"
    shown_proxies: Sequence[str]


def _train(
    rows: _Rows,
    study: Study,
    mode: Literal["quick", "full"],
    search: Path,
    logger: "Callable[[Trial, str], None]",
) -> _Trained:
    """Search for a training configuration, train by it, and evaluate the model on the holdout."""
    from poleng_assets.core.modeling.model import train
    from poleng_assets.core.modeling.tuning import tune
    from poleng_assets.core.promotion.holdout_evaluation import evaluate_model
    from poleng_assets.core.statistics.proxies import proxies, shown_proxies

    tuned = tune(rows.training, study, study.policies.training.budget(mode), search, logger)
    model = dataclasses.replace(
        train(rows.training, study, tuned.configuration), proxies=proxies(rows.training, study)
    )
    evaluation = evaluate_model(model, study, rows.training, rows.holdout)
    return _Trained(tuned, model, evaluation, shown_proxies(study, model.proxies))


def _register(
    run_id: str,
    registry: Registry,
    mlflow: Any,
    study: Study,
    rows: _Rows,
    trained: _Trained,
    mode: str,
    search: str,
) -> "tuple[ModelVersion, ModelCard]":
    """Log a model, write its card, and register it as the challenger; return the version and the card."""
    from poleng_assets.core.reports.model_card import ModelCard, render_model_card

    tuned, evaluation, chosen = trained.tuned, trained.evaluation, rows.chosen
    logged = registry.log_model(
        mlflow,
        trained.model,
        evaluation.reference,
        evaluation.importance,
        registry.home.tuning / search / "model",
        parameters=_parameters(study, tuned, rows, mode),
        metrics=evaluation.metrics() | {"cv_log_loss": tuned.log_loss, "cv_auc": tuned.auc},
        tags={
            "field_studies": ",".join(chosen.studies),
            "field_study_hashes": json.dumps(chosen.studies),
            "training_data_hash": chosen.hash,
            "recipe": json.dumps(tuned.configuration.to_dict()),
            "dagster_run_id": run_id,
        },
    )
    number = registry.next_version()
    card = ModelCard(
        study,
        number,
        now(),
        chosen.hash,
        evaluation,
        tuned.table(),
        tuned.configuration,
        run_id,
        logged.run_id,
    )
    path = write_atomically(registry.home.model_card(number), render_model_card(card))
    registry.log_page(mlflow, path, "model_card")
    # Last, so that a registered version is complete and a killed training registers none.
    version = registry.register(logged, search, mode)
    if version.version != number:
        # The newest version was deleted by hand: its number is not reused.
        path.unlink()
        card = dataclasses.replace(card, version=version.version)
        write_atomically(registry.home.model_card(version.version), render_model_card(card))
    registry.set_alias(CHALLENGER, version.version)
    return version, card


def _metadata(
    study: Study, registry: Registry, rows: _Rows, trained: _Trained, version: ModelVersion, card: "ModelCard"
) -> dict[str, Any]:
    from poleng_assets.core.modeling.explanations import shown_questions
    from poleng_assets.core.reports.charts import as_markdown
    from poleng_assets.core.reports.holdout_charts import importance_chart

    tuned, evaluation = trained.tuned, trained.evaluation
    charts = "\n\n".join(as_markdown(title, chart) for title, chart in card.plots.items())
    return {
        **Challenger(version.version).metadata(),
        **{name: round(evaluation.figures[name], 4) for name in SHOWN if name in evaluation.figures},
        "cv_log_loss": round(tuned.log_loss, 4),
        "comparison": dg.MetadataValue.md(_comparison(tuned)),
        "metrics": dg.MetadataValue.md(evaluation.metric_table()),
        "protected_groups": dg.MetadataValue.md(frame_as_table(evaluation.groups.round(3))),
        "populations": dg.MetadataValue.md(frame_as_table(evaluation.populations.round(3))),
        "plots": dg.MetadataValue.md(charts),
        "importance": dg.MetadataValue.md(as_markdown("Importance", importance_chart(card.importance))),
        "model_card": dg.MetadataValue.path(str(registry.home.model_card(version.version))),
        **mlflow_pages(registry, version),
        "shown_reasons": ", ".join(shown_questions(study, trained.model.proxies)) or "none",
        "given_away": "; ".join(trained.shown_proxies) or "nothing",
        "training_rows": rows.training.num_rows,
        "holdout_rows": rows.holdout.num_rows,
        "field_studies": ", ".join(rows.chosen.studies),
        "mlflow_run_id": version.run_id,
        "training_data_hash": rows.chosen.hash,
    }


SHOWN = ("auc", "log_loss", "brier", "calibration_error", "recall", "flagged_share")


def _trial_logger(
    context: dg.AssetExecutionContext, registry: Registry, mlflow: Any
) -> "Callable[[Trial, str], None]":
    """Return a function that logs each trial, also as a nested MLflow run."""

    def log(trial: "Trial", message: str) -> None:
        context.log.info(message)
        registry.log_trial(
            mlflow,
            f"trial {trial.number}: {trial.member.kind}",
            parameters={"candidate": trial.member.kind, **trial.member.parameters},
            metrics={"cv_log_loss": trial.log_loss, "seconds": trial.seconds},
            tags={"dagster_run_id": context.run.run_id, "pruned": str(trial.pruned).lower()},
        )

    return log


def _taken_over(made: ModelVersion) -> dict[str, Any]:
    taken_over = "trained before on the same data: the model would be identical"
    return {
        **Challenger(made.version, taken_over).metadata(),
        "field_studies": ", ".join(made.field_studies),
        "mlflow_run_id": made.run_id,
        "training_data_hash": made.training_data_hash,
    }


def _parameters(study: Study, tuned: "TuningResult", rows: _Rows, mode: str) -> dict[str, Any]:
    return {
        "mode": mode,
        **study.policies.training.model_dump(
            include={"seed", "folds", "masked", "masked_share", "holdout_share", "varies_by"}
        ),
        "recipe": " + ".join(member.in_words() for member in tuned.configuration.members),
        "calibration": tuned.configuration.calibration.in_words(),
        "contact_rule": tuned.configuration.rule.in_words(),
        "trials": len(tuned.trials),
        "training_rows": rows.training.num_rows,
        "holdout_rows": rows.holdout.num_rows,
    }


def _comparison(tuned: "TuningResult") -> str:
    table: pd.DataFrame = tuned.table().round({"log_loss": 4, "seconds": 1})
    return frame_as_table(table)
