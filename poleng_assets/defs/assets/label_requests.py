"""Requests: whom to interview next, when labels are wanted and nobody has brought them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from poleng_assets.core.monitoring.measurements import DISTANCES, UNSEEN
from poleng_assets.defs.resources.landing import Landing
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import earlier_attempts
from poleng_assets.models.registry import Registry
from poleng_assets.storage.files import write_whole
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import frame_as_table
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision, recorded_by_runs
from poleng_assets.warehouse.writes import insert, monotonic_timestamp, transaction

if TYPE_CHECKING:
    import pandas as pd

    from poleng_assets.core.monitoring.label_request import FieldStudyRequest

FILE = "field_study_request.csv"
# People of batches long gone are hard to find, and are not what the model will meet next.
NEWEST_BATCHES = 5


@dg.asset(
    deps=[
        dg.AssetDep("drift_report", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("realised_performance", partition_mapping=dg.AllPartitionMapping()),
    ],
    group_name="performance",
    kinds={"csv"},
    owners=["team:survey"],
    pool=WAREHOUSE_POOL,
)
def field_study_request(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    landing: dg.ResourceParam[Landing],
) -> dg.MaterializeResult:
    """Whom to interview next: people of the newest batches that the champion may not know, by kind."""
    from poleng_assets.core.monitoring.label_request import plan_request

    study = warehouse.study
    with warehouse.connect() as con:
        version = (registry.serving(con, context.log.warning) or registry.champion()).version
        batches = _batches(con, study, version)
        drifted = _drifted(con, study, version, batches)
        scored = _scored(con, study, version, batches, drifted)
        request = plan_request(scored, drifted, study, _auc(con, version, batches))
        path = _write_request(landing.home.requests / FILE, _as_csv(request, study))
        # A run that died after this runs again, and asks the same people.
        earlier = earlier_attempts(context.instance, context.run)
        if request.size and not recorded_by_runs(con, "request", earlier):
            with transaction(con):
                # Who was drawn by lot tells of more people than oneself
                # (core/monitoring/realised_performance.py).
                asked_at = monotonic_timestamp(con, "field_study_requests", "requested_at")
                insert(con, "field_study_requests", request.people.assign(requested_at=asked_at))
                record_decision(
                    con,
                    "request",
                    request.words,
                    evidence={
                        "batches": batches,
                        "drifted": drifted,
                        "interviews": request.size,
                        "within": round(request.within, 4),
                    },
                    champion_version=version,
                    dagster_run_id=context.run.run_id,
                )
    context.log.info(request.words)
    return dg.MaterializeResult(metadata=_metadata(study, version, batches, drifted, request, str(path)))


def _write_request(path: Path, text: str) -> Path:
    """Write a request; one that was issued before stands beside it, under a number. Return its place."""
    before = path.read_text(encoding="utf-8") if path.exists() else text
    if before == text or not before.partition("\n")[2].strip():  # the same, or it asked for nobody
        return write_whole(path, text)
    number = 1
    while (earlier := path.with_name(f"{path.stem} (request {number}){path.suffix}")).exists():
        if earlier.read_text(encoding="utf-8") == before:
            break  # a run was killed in between
        number += 1
    write_whole(earlier, before)
    return write_whole(path, text)


def _batches(con: duckdb.DuckDBPyConnection, study: Study, version: int) -> list[str]:
    """Return the newest batches about which the champion is in doubt, or was found to do worse."""
    found = con.execute(
        """SELECT r.batch FROM drift_reports r LEFT JOIN performance p ON p.batch = r.batch
            AND p.model_version = r.model_version AND p.kind = 'realised' AND p.metric = 'auc'
        WHERE r.model_version = $version AND (r.verdict IN ('drifted', 'untrusted')
            OR p.upper < r.reference_auc - $tolerated)
        ORDER BY r.reported_at DESC, r.batch LIMIT $newest""",
        {
            "version": version,
            "tolerated": study.policies.overseer.max_auc_drop,
            "newest": NEWEST_BATCHES,
        },
    ).fetchall()
    return [batch for (batch,) in found]


def _drifted(con: duckdb.DuckDBPyConnection, study: Study, version: int, batches: list[str]) -> list[str]:
    """Return the features that shifted in any of the batches: unseen codes first, then the farthest."""
    found = con.execute(
        """SELECT column_name FROM drift_metrics WHERE model_version = $version AND alert
            AND list_contains($batches::VARCHAR[], batch) AND list_contains($methods, method)
            AND list_contains($features, column_name)
        GROUP BY column_name
        ORDER BY bool_or(method = $unseen) DESC,
            max(coalesce(value / nullif(upper_threshold, 0), 'inf'::DOUBLE)) DESC, column_name""",
        {
            "version": version,
            "batches": batches,
            "methods": [UNSEEN, *DISTANCES],
            "features": study.feature_names,
            "unseen": UNSEEN,
        },
    ).fetchall()
    return [name for (name,) in found]


def _scored(
    con: duckdb.DuckDBPyConnection, study: Study, version: int, batches: list[str], drifted: list[str]
) -> "pd.DataFrame":
    """Return everybody whom the champion scored in these batches, the newest batch first."""
    answers = "".join(f', b."{name}"' for name in drifted)
    return con.execute(
        f"""SELECT p."{study.id}", p.batch, p.score, coalesce(p.audit, false) AS audit,
            p."{study.id}" IN (SELECT "{study.id}" FROM outcomes) AS known{answers}
        FROM predictions p JOIN batch_rows b USING (batch, "{study.id}")
        WHERE p.model_version = $version AND list_contains($batches::VARCHAR[], p.batch)
        ORDER BY list_position($batches::VARCHAR[], p.batch), p."{study.id}" """,  # noqa: S608
        {"version": version, "batches": batches},
    ).df()


def _auc(con: duckdb.DuckDBPyConnection, version: int, batches: list[str]) -> float | None:
    """Return the lowest AUC known of these batches, realised rather than estimated: it needs most people."""
    found = con.execute(
        """SELECT min(value) FROM (
            SELECT coalesce(max(value) FILTER (kind = 'realised'), max(value)) AS value FROM performance
            WHERE model_version = $version AND metric = 'auc' AND list_contains($batches::VARCHAR[], batch)
            GROUP BY batch)""",
        {"version": version, "batches": batches},
    ).fetchall()
    return found[0][0] if found else None


def _as_csv(request: "FieldStudyRequest", study: Study) -> str:
    from poleng_assets.core.contacts.contact_list import as_csv, harmless

    def harmless_text(cell: Any) -> Any:
        return harmless(cell) if isinstance(cell, str) else cell

    return as_csv(request.people.astype({study.id: str}).map(harmless_text))


def _metadata(
    study: Study,
    version: int,
    batches: list[str],
    drifted: list[str],
    request: "FieldStudyRequest",
    path: str,
) -> dict[str, Any]:
    return {
        "request": request.words,
        "interviews": request.size,
        "strata": dg.MetadataValue.md(frame_as_table(request.strata)),
        "batches": ", ".join(batches) or "none",
        "drifted": ", ".join(study.feature(name).title for name in drifted) or "none",
        "model_version": version,
        "list": dg.MetadataValue.path(path),
        **({"auc_within": round(request.within, 4)} if request.size else {}),
    }
