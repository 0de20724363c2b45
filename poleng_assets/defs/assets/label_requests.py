"""The label request asset: whom to interview next when labels are needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.asset_events import LabelRequest
from poleng_assets.core.monitoring.measurements import DISTANCES, UNSEEN
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import failed_runs_of_request
from poleng_assets.models.registry import Registry
from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.landing import Landing
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import frame_as_table
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision, recorded_by_runs, serving_decision
from poleng_assets.warehouse.drift_reports import batches_in_doubt, drifted_columns
from poleng_assets.warehouse.label_requests import insert_request, people_to_request
from poleng_assets.warehouse.performance import lowest_auc
from poleng_assets.warehouse.predictions import outcomes_state

if TYPE_CHECKING:
    import pandas as pd

    from poleng_assets.core.monitoring.label_request import FieldStudyRequest

FILE = "field_study_request.csv"


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
    """Whom to interview next: a stratified sample from the newest batches that may not fit the champion."""
    study, path = warehouse.study, landing.home.requests / FILE

    def state(con: Connection) -> object:
        decision = serving_decision(con)
        batches = _batches(con, study, decision.version if decision else 0)
        return decision, {batch: outcomes_state(con, study, batch) for batch in batches}

    def read(con: Connection) -> _Candidates:
        version = registry.serving(con, context.log.warning) or registry.champion()
        return _candidates(con, study, version.version)

    def compute(candidates: _Candidates) -> tuple[_Candidates, "FieldStudyRequest"]:
        from poleng_assets.core.monitoring.label_request import plan_request

        return candidates, plan_request(candidates.scored, candidates.drifted, study, candidates.auc)

    def write(con: Connection, planned: tuple[_Candidates, "FieldStudyRequest"]) -> None:
        _write_request(path, _as_csv(planned[1], study))
        # The rerun of a run that died after this requests the same people.
        if planned[1].size and not recorded_by_runs(
            con, "request", failed_runs_of_request(context.instance, context.run)
        ):
            _record(con, *planned, context.run.run_id)

    candidates, request = warehouse.read_compute_write(state, read, compute, write)
    context.log.info(request.words)
    return dg.MaterializeResult(metadata=_metadata(study, candidates, request, str(path)))


class _Candidates(NamedTuple):
    """The people to draw interviews from.

    Attributes:
        version: that serves.
        batches: the newest ones that it may not fit, newest first.
        drifted: features that shifted in any of them.
        scored: everybody whom it scored there (``warehouse/label_requests.py``).
        auc: the lowest known of these batches; None when none is known.
    """

    version: int
    batches: list[str]
    drifted: list[str]
    scored: "pd.DataFrame"
    auc: float | None


def _candidates(con: Connection, study: Study, version: int) -> _Candidates:
    batches = _batches(con, study, version)
    # Unseen codes first, then the columns that moved farthest.
    drifted = drifted_columns(con, version, batches, study.feature_names, [UNSEEN, *DISTANCES])
    scored = people_to_request(con, study, version, batches, drifted)
    return _Candidates(version, batches, drifted, scored, lowest_auc(con, version, batches))


def _batches(con: Connection, study: Study, version: int) -> list[str]:
    policies = study.policies
    return batches_in_doubt(con, version, policies.overseer.max_auc_drop, policies.outcomes.newest_batches)


def _record(con: Connection, candidates: _Candidates, request: "FieldStudyRequest", run_id: str) -> None:
    """Record who is requested, and why; called in a transaction."""
    insert_request(con, request.people)
    record_decision(
        con,
        "request",
        request.words,
        evidence={
            "batches": candidates.batches,
            "drifted": candidates.drifted,
            "interviews": request.size,
            "within": round(request.within, 4),
        },
        champion_version=candidates.version,
        dagster_run_id=run_id,
    )


def _write_request(path: Path, text: str) -> Path:
    """Write a request and return its path; an earlier one is kept beside it, under a number."""
    before = path.read_text(encoding="utf-8") if path.exists() else text
    if before == text or not before.partition("\n")[2].strip():  # the same, or it asked for nobody
        return write_atomically(path, text)
    number = 1
    while (earlier := path.with_name(f"{path.stem} (request {number}){path.suffix}")).exists():
        if earlier.read_text(encoding="utf-8") == before:
            break  # a run was killed in between
        number += 1
    write_atomically(earlier, before)
    return write_atomically(path, text)


def _as_csv(request: "FieldStudyRequest", study: Study) -> str:
    from poleng_assets.core.contacts.contact_list import as_csv
    from poleng_assets.core.data.spreadsheet_safety import escape_formula

    def harmless_text(cell: Any) -> Any:
        return escape_formula(cell) if isinstance(cell, str) else cell

    return as_csv(request.people.astype({study.id: str}).map(harmless_text))


def _metadata(
    study: Study, candidates: _Candidates, request: "FieldStudyRequest", path: str
) -> dict[str, Any]:
    event = LabelRequest(
        interviews=request.size,
        request=request.words,
        model_version=candidates.version,
        batches=", ".join(candidates.batches) or "none",
        drifted=", ".join(study.feature(name).title for name in candidates.drifted) or "none",
        list=dg.MetadataValue.path(path),
    )
    return {
        **event.metadata(),
        "strata": dg.MetadataValue.md(frame_as_table(request.strata)),
        **({"auc_within": round(request.within, 4)} if request.size else {}),
    }
