"""Monitoring: what a scored batch looks like beside the reference, and what the overseer makes of it."""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from poleng_assets.assets.scoring import predictions
from poleng_assets.core.drift import JENSEN_SHANNON, BatchFigures, measure_batch
from poleng_assets.core.overseer import Judgement, judge
from poleng_assets.core.plots import as_markdown, to_png
from poleng_assets.core.report import render_report
from poleng_assets.core.tables import now, record_decision, replace, transaction
from poleng_assets.files import write_whole
from poleng_assets.partitions import batch_partitions
from poleng_assets.resources.landing import Landing
from poleng_assets.resources.registry import ModelVersion, Registry
from poleng_assets.resources.warehouse import WAREHOUSE_POOL, Warehouse
from poleng_assets.study import Study

NOT_DRIFTED = "batch_is_clear"


@dg.asset(
    deps=[predictions],
    partitions_def=batch_partitions,
    group_name="scoring",
    kinds={"python", "duckdb"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
    check_specs=[
        dg.AssetCheckSpec(
            NOT_DRIFTED, asset="drift_report", description="The overseer found the batch clear."
        )
    ],
)
def drift_report(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    landing: dg.ResourceParam[Landing],
) -> dg.MaterializeResult:
    """The overseer's verdict on a scored batch, with NannyML's figures and a page to open."""
    batch, study = context.partition_key, warehouse.study
    with warehouse.connect() as con:
        version = _scoring_version(con, registry, batch)
        reference = registry.reference(version)
        rows, flagged = _size(con, batch)
        scored = _scored_sample(con, study, batch)
        unseen = registry.model(version).encoder.unseen(scored)
        figures = measure_batch(reference, scored, unseen, study, rows=rows, flagged_share=flagged)
        judgement = judge(figures, study)
        page = render_report(study, batch, version.version, figures, judgement, reference, scored)
        path = write_whole(landing.home.reports / batch / f"version_{version.version}.html", page)
        _keep(con, context.run_id, batch, version.version, figures, judgement)
    for reason in judgement.reasons:
        context.log.info(f"{batch}: {reason}")
    return dg.MaterializeResult(
        metadata=_metadata(study, version.version, figures, judgement, path),
        check_results=[
            dg.AssetCheckResult(
                passed=not judgement.held,
                check_name=NOT_DRIFTED,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"verdict": judgement.verdict, "reason": judgement.reasons[0]},
            )
        ],
    )


def _scoring_version(con: duckdb.DuckDBPyConnection, registry: Registry, batch: str) -> ModelVersion:
    """Return the version of the current scores: the champion may have changed since."""
    found = con.execute(
        "SELECT any_value(model_version) FROM current_predictions WHERE batch = ?", [batch]
    ).fetchone()
    if found is None or found[0] is None:
        raise dg.Failure(f"{batch} is not scored: materialise its predictions first.", allow_retries=False)
    return registry.version(found[0])


def _size(con: duckdb.DuckDBPyConnection, batch: str) -> tuple[int, float]:
    found = con.execute(
        "SELECT count(*), avg(contact::INTEGER) FROM current_predictions WHERE batch = ?", [batch]
    ).fetchone()
    return (int(found[0]), float(found[1] or 0.0)) if found else (0, 0.0)


def _scored_sample(con: duckdb.DuckDBPyConnection, study: Study, batch: str) -> pd.DataFrame:
    """Return the scored rows, or a sample of them that is always the same: NannyML holds whole frames."""
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    return con.execute(
        f"""SELECT {columns}, p.score, p.contact::INTEGER AS contact
        FROM current_predictions p JOIN batch_rows b USING (batch, "{study.id}")
        WHERE p.batch = ? ORDER BY md5("{study.id}") LIMIT ?""",  # noqa: S608
        [batch, study.policies.overseer.report_sample],
    ).df()


def _keep(
    con: duckdb.DuckDBPyConnection,
    run_id: str,
    batch: str,
    version: int,
    figures: BatchFigures,
    judgement: Judgement,
) -> None:
    auc = figures.estimate("auc")
    key = {"batch": batch, "model_version": version}
    report = pd.DataFrame(
        [
            {
                "verdict": judgement.verdict,
                "rows": figures.rows,
                "drifted_columns": len(judgement.drifted_columns),
                "reported_at": now(),
                "outside_support": figures.outside_support,
                "flagged_share": figures.flagged_share,
                "estimated_auc": auc.value if auc else None,
                "reference_auc": auc.reference if auc else None,
                "rows_measured": figures.rows_measured,
                "reasons": "\n".join(judgement.reasons),
            }
        ]
    )
    measured = pd.DataFrame([vars(figure) for figure in figures.figures])
    estimates = pd.DataFrame(
        [
            {"metric": e.metric, "value": e.value, "lower": e.lower, "upper": e.upper}
            for e in figures.estimates
        ]
    )
    with transaction(con):
        replace(con, "drift_reports", key, report)
        replace(con, "drift_metrics", key, measured)
        replace(con, "performance", {**key, "kind": "estimated"}, estimates)
        if judgement.held:
            record_decision(
                con,
                "hold",
                f"{batch} is {judgement.verdict}: {judgement.reasons[0]}",
                evidence={"reasons": judgement.reasons, "drifted_columns": judgement.drifted_columns},
                champion_version=version,
                batch=batch,
                dagster_run_id=run_id,
            )


def _metadata(
    study: Study, version: int, figures: BatchFigures, judgement: Judgement, path: Path
) -> dict[str, Any]:
    auc = figures.estimate("auc")
    metadata: dict[str, Any] = {
        "verdict": judgement.verdict,
        "held": judgement.held,
        "model_version": version,
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in judgement.reasons)),
        "report": dg.MetadataValue.path(str(path)),
        "dagster/row_count": figures.rows,
        "rows_measured": figures.rows_measured,
        "share_outside_support": round(figures.outside_support, 4),
        "share_flagged": round(figures.flagged_share, 4),
        "drifted_columns": len(judgement.drifted_columns),
    }
    if auc:
        metadata |= {"estimated_auc": round(auc.value, 4), "reference_auc": round(auc.reference, 4)}
    if figures.estimates:
        metadata["distances"] = dg.MetadataValue.md(_distance_plot(study, figures))
    return metadata


def _distance_plot(study: Study, figures: BatchFigures) -> str:
    """Draw how far each column moved, as markdown with the picture inside: the UI shows it."""
    from matplotlib.figure import Figure as Canvas

    titles = {f.name: f.title for f in study.features}
    shown = sorted(
        (f for f in figures.figures if f.method == JENSEN_SHANNON and f.value is not None),
        key=lambda f: f.value or 0.0,
    )[-12:]
    canvas = Canvas(figsize=(7, 4), layout="constrained")
    axes = canvas.add_subplot()
    axes.barh(
        [titles.get(f.column_name, "Score of the model") for f in shown],
        [f.value or 0.0 for f in shown],
        color=["#c2410c" if f.alert else "#64748b" for f in shown],
    )
    if shown and shown[0].upper_threshold is not None:
        axes.axvline(shown[0].upper_threshold, color="#334155", linestyle="--", linewidth=1)
    axes.set_xlabel("Jensen-Shannon distance from the reference (dashed: limit)")
    return as_markdown("distances", to_png(canvas))
