"""The scoring assets: predictions of each batch, and the contact lists."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
from duckdb import DuckDBPyConnection as Connection
from pydantic import Field

from poleng_assets.core.data.asset_events import ROW_COUNT, ContactList, Predictions
from poleng_assets.defs.assets.arrivals import batches
from poleng_assets.defs.assets.promotion import champion
from poleng_assets.defs.partitions import batch_partitions
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.rollback import unreported_rollback
from poleng_assets.models.registry import ModelVersion, Registry
from poleng_assets.storage.files import in_place_of, write_atomically
from poleng_assets.storage.landing import Landing
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import frame_as_table
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.contact_lists import (
    Difference,
    IssuedList,
    difference,
    file_stem,
    is_the_same,
    issue,
    moment_of_issue,
    newest_list,
    people_of_list,
    why_another,
)
from poleng_assets.warehouse.decisions import already_recorded, record_decision, serving_decision
from poleng_assets.warehouse.drift_reports import NewestReport, newest_report
from poleng_assets.warehouse.files import file_record
from poleng_assets.warehouse.predictions import (
    count_scored,
    count_unscored,
    last_row,
    people_state,
    replace_predictions,
    score_histogram,
    scored_people,
    scores_state,
    scoring_version,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

EVERYONE_SCORED = "every_respondent_has_a_score"
NO_ROW_LOST = "no_row_is_lost"


@dg.asset(
    deps=[batches, champion],
    partitions_def=batch_partitions,
    group_name="scoring",
    kinds={"xgboost", "duckdb"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
    check_specs=[
        dg.AssetCheckSpec(
            EVERYONE_SCORED, asset="predictions", description="Every respondent of the batch has a score."
        ),
        dg.AssetCheckSpec(
            NO_ROW_LOST,
            asset="predictions",
            description="Rows in the file = rows scored + rows quarantined + rows erased on request. The "
            "same holds over all batches and rejected files.",
        ),
    ],
)
def predictions(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    landing: dg.ResourceParam[Landing],
) -> dg.MaterializeResult:
    """The champion's scores of a batch. Scores of earlier versions are kept."""
    from poleng_assets.core.ingestion.row_accounting import rows_in

    batch = context.partition_key
    scores = _score(context, warehouse, registry)
    in_file = rows_in(landing.archived("batches", batch), warehouse.study, "batches")
    with warehouse.read() as con:
        respondents, contacts = count_scored(con, batch, scores.version)
        histogram = score_histogram(con, batch)
        checks = _check_rows(con, warehouse.study, batch, in_file)
    return dg.MaterializeResult(
        # By default each run has a new data version, which would mark reports of the same scores as unsynced.
        data_version=dg.DataVersion(f"version {scores.version} of {scores.data_hash}"),
        metadata={
            **Predictions(scores.version).metadata(),
            ROW_COUNT: respondents,
            "contacts": contacts,
            "share_flagged": round(contacts / respondents, 4) if respondents else 0.0,
            "scores": dg.MetadataValue.md(frame_as_table(histogram)),
        },
        check_results=checks,
    )


class _Scores(NamedTuple):
    """The scores of a batch by one version (``core/modeling/batch_scoring.py``)."""

    version: int
    data_hash: str
    blocks: list["pa.Table"]
    capacity: int | None


def _score(context: dg.AssetExecutionContext, warehouse: Warehouse, registry: Registry) -> _Scores:
    """Score a batch with the champion, with the warehouse closed, and write the scores."""
    from poleng_assets.core.modeling.batch_scoring import score_blocks, stored_blocks

    study, batch = warehouse.study, context.partition_key

    def state(con: Connection) -> object:
        return serving_decision(con), people_state(con, batch)

    def read(con: Connection) -> tuple[ModelVersion, str, int]:
        version = registry.serving(con, context.log.warning) or registry.champion()
        if event := unreported_rollback(con, context.instance, study.name):
            context.log_event(event)
        return version, file_record(con, "batches", batch).data_hash, last_row(con, batch)

    def compute(inputs: tuple[ModelVersion, str, int]) -> _Scores:
        version, data, last = inputs
        model = registry.model(version)
        blocks = score_blocks(stored_blocks(warehouse, batch, last), model, study)
        return _Scores(version.version, data, blocks, model.rule.capacity)

    def write(con: Connection, scores: _Scores) -> None:
        replace_predictions(con, study, batch, scores.version, scores.blocks, scores.capacity)

    return warehouse.read_compute_write(state, read, compute, write)


def _check_rows(con: Connection, study: Study, batch: str, in_file: int | None) -> list[dg.AssetCheckResult]:
    """Check that everybody has a score and no row is lost, in this batch and over all batches."""
    from poleng_assets.core.ingestion.row_accounting import account, balance

    unscored = count_unscored(con, study, batch)
    this_batch, all_batches = account(con, study, "batches", batch, in_file), balance(con)
    return [
        dg.AssetCheckResult(
            passed=unscored == 0, check_name=EVERYONE_SCORED, metadata={"unscored": unscored}
        ),
        dg.AssetCheckResult(
            passed=this_batch.balanced and all_batches.lost == 0,
            check_name=NO_ROW_LOST,
            metadata={
                "this_batch": this_batch.in_words(),
                "all_batches": all_batches.in_words(),
                "lost": all_batches.lost,
            },
        ),
    ]


class ListConfig(dg.Config):
    """Whether to release a held batch, or to issue another list of a batch."""

    release: str = Field(
        default="",
        description="Reason to release a held batch now, with the present champion. Leave it empty to keep "
        "the batch on hold until a retraining has been tried.",
    )
    replace_issued_list: bool = Field(
        default=False,
        description="Issue another list of a batch, from the current scores, in new files beside the earlier "
        "ones and with a ledger entry. Otherwise an issued list is kept.",
    )
    reason: str = Field(
        default="requested manually", description="Reason for another list, recorded in the ledger."
    )


@dg.asset(
    deps=["drift_report"],
    partitions_def=batch_partitions,
    group_name="scoring",
    kinds={"csv", "excel"},
    owners=["team:contact-centre"],
    pool=WAREHOUSE_POOL,
    output_required=False,
)
def contact_list(
    context: dg.AssetExecutionContext,
    config: ListConfig,
    warehouse: dg.ResourceParam[Warehouse],
    landing: dg.ResourceParam[Landing],
    registry: dg.ResourceParam[Registry],
) -> Iterator[dg.MaterializeResult]:
    """The people of a batch to contact, highest score first. Not issued while the batch is on hold.

    An issued list is never changed or replaced; another list is issued beside it.
    """
    batch, study, folder = context.partition_key, warehouse.study, landing.home.contact_lists

    def state(con: Connection) -> object:
        return newest_report(con, batch), newest_list(con, batch), scores_state(con, batch)

    def read(con: Connection) -> _Plan:
        return _plan(con, study, folder, batch, config)

    def compute(plan: _Plan) -> _Listed:
        return _make_list(registry, study, folder, batch, plan)

    def write(con: Connection, made: _Listed) -> None:
        if made.new:
            _issue(con, study, made, made.new, config.release, context.run.run_id)

    made = warehouse.read_compute_write(state, read, compute, write)
    verdict, issued = made.plan.report.verdict, made.plan.issued
    if made.new and made.scored is not None:
        happened = f"issued beside {issued.in_words()}" if issued else "issued"
        yield _result(folder, made.new, verdict, happened, asked=len(made.scored))
    elif issued and made.plan.stands:
        happened = _describe_issued(issued, made.plan.changed)
        context.log.info(happened)
        yield _result(folder, issued, verdict, happened)
    else:
        context.log.info(f"{batch} is {verdict}: its list is on hold until a retraining has been tried")


class _Plan(NamedTuple):
    """What to do about the list of a batch.

    Attributes:
        report: the newest one.
        issued: the list that stands, None before the first.
        stands: whether it goes on to stand.
        why: why another list is wanted beside it; empty without one, or when nobody wants another.
        changed: how the current scores differ from it.
        remark: of a new list.
        people: who is to be written into files: of a new list everybody scored, of one that stands those of
            its day when a file of it is gone; None when no file is to be written.
        issued_at: when a new list counts as issued.
    """

    report: NewestReport
    issued: IssuedList | None
    stands: bool
    why: str
    changed: Difference
    remark: str
    people: "pd.DataFrame | None"
    issued_at: datetime


def _plan(con: Connection, study: Study, folder: Path, batch: str, config: ListConfig) -> _Plan:
    """Read what to do about the list of a batch.

    Raises:
        dagster.Failure: the batch has no report, or no list can be made of it.
    """
    report, issued = newest_report(con, batch), newest_list(con, batch)
    if report is None:
        raise dg.Failure(f"{batch} has no drift report yet: materialise it first.", allow_retries=False)
    remark, why, stands, people = _remark(report.verdict, report.held), "", False, None
    if issued:
        why = config.reason if config.replace_issued_list else why_another(con, issued)
        stands = not why or is_the_same(con, study, issued, report.model_version, remark)
    if issued and stands:
        if not all((folder / f"{issued.stem}{suffix}").exists() for suffix in (".csv", ".xlsx")):
            people = people_of_list(con, study, issued)
    elif config.release or not report.held:
        people = scored_people(con, study, batch)
        _require_people_as_judged(con, batch, report.model_version, issued, len(people))
    changed = difference(con, study, issued) if issued else Difference(0, 0)
    return _Plan(report, issued, stands, why, changed, remark, people, moment_of_issue(con))


class _Listed(NamedTuple):
    """What became of a plan: ``new`` is None when no list was made; ``scored`` are the people of files."""

    plan: _Plan
    new: IssuedList | None
    scored: "pd.DataFrame | None"


def _make_list(registry: Registry, study: Study, folder: Path, batch: str, plan: _Plan) -> _Listed:
    """Explain the scores of those to contact, and write the files that are wanted."""
    from poleng_assets.core.modeling.explanations import strongest_reasons

    scored, issued, version = plan.people, plan.issued, plan.report.model_version
    if scored is None:
        return _Listed(plan, None, None)
    if issued and plan.stands:
        _write_files(folder, study, issued, scored)
        return _Listed(plan, None, scored)
    model = registry.model(registry.version(version))
    flagged = scored["contact"]
    scored["reasons"] = ""
    scored.loc[flagged, "reasons"] = strongest_reasons(model, scored[flagged], study)
    number = issued.number + 1 if issued else 1
    new = IssuedList(
        batch, number, version, plan.issued_at, int(flagged.sum()), plan.remark, file_stem(batch, number)
    )
    _write_files(folder, study, new, scored)
    return _Listed(plan, new, scored)


def _issue(con: Connection, study: Study, made: _Listed, new: IssuedList, release: str, run_id: str) -> None:
    """Record a list and why it was made; called in a transaction."""
    plan, scored = made.plan, made.scored
    assert scored is not None
    issue(con, new, scored.loc[scored["contact"], [study.id, "score", "reasons"]], run_id)
    issued, changed = plan.issued, plan.changed
    if issued:
        record_decision(
            con,
            "reissue",
            f"{new.in_words()} is made beside {issued.in_words()}, with {changed.in_words()}: {plan.why}",
            evidence={
                "batch": new.batch,
                "list": new.number,
                "file": new.stem,
                "contacts": new.contacts,
                "added": changed.added,
                "dropped": changed.dropped,
                "before": {
                    "list": issued.number,
                    "file": issued.stem,
                    "contacts": issued.contacts,
                    "model_version": issued.model_version,
                },
            },
            champion_version=new.model_version,
            batch=new.batch,
            dagster_run_id=run_id,
        )
    released = f"the list of {new.batch} is made with the present champion: {release}"
    if release and not already_recorded(con, "skip", new.batch, new.model_version, released):
        record_decision(
            con,
            "skip",
            released,
            evidence={"batch": new.batch, "verdict": plan.report.verdict, "contacts": new.contacts},
            champion_version=new.model_version,
            batch=new.batch,
            dagster_run_id=run_id,
        )


def _require_people_as_judged(
    con: Connection, batch: str, judged: int, issued: IssuedList | None, people: int
) -> None:
    """Raise when the newest scores are not those of the newest report, or when no rows are left."""
    current = scoring_version(con, batch)
    if current not in (None, judged):
        raise dg.Failure(
            f"The newest scores of {batch} come from version {current}, and its newest report is about "
            f"version {judged}: materialise drift_report first.",
            allow_retries=False,
        )
    if issued and not people:
        raise dg.Failure(
            f"The rows of {batch} have been erased: no other list can be made. {issued.in_words()} is kept.",
            allow_retries=False,
        )


def _describe_issued(issued: IssuedList, changed: Difference) -> str:
    """Say that an issued list is kept, how the current scores differ, and how to issue another one."""
    kept = f"{issued.in_words()} was issued and is kept"
    if not changed.added and not changed.dropped:
        return f"{kept}: the current scores flag the same people"
    return (
        f"{kept}. A list of the current scores would have {changed.in_words()}: to issue it in new files, "
        "materialise contact_list with `replace_issued_list: true` and a `reason`"
    )


def _write_files(folder: Path, study: Study, about: IssuedList, scored: "pd.DataFrame") -> None:
    """Write CSV and workbook of a list.

    Args:
        scored: everybody who was scored: id, features, ``score``, ``contact``, ``reasons``.
    """
    from poleng_assets.core.contacts.contact_list import as_csv
    from poleng_assets.core.contacts.contact_list import contact_list as make_list
    from poleng_assets.core.contacts.workbook import AboutList, write_workbook

    listed = make_list(scored, study, about.remark)
    sheet = AboutList(about.batch, about.issued_at, about.model_version, asked=len(scored))
    # Both files are complete before either is published.
    with in_place_of(folder / f"{about.stem}.xlsx") as part:
        write_workbook(part, listed, study, sheet)
        write_atomically(folder / f"{about.stem}.csv", as_csv(listed))


def _result(
    folder: Path, about: IssuedList, verdict: str, happened: str, asked: int | None = None
) -> dg.MaterializeResult:
    """Return the materialisation of the valid list; ``asked``: people scored, when it is new."""
    share = None if asked is None else round(about.contacts / asked, 4) if asked else 0.0
    event = ContactList(about.contacts, share, about.number, about.remark or "none", happened)
    metadata = {
        **event.metadata(),
        ROW_COUNT: about.contacts,
        "model_version": about.model_version,
        "verdict": verdict,
        "workbook": dg.MetadataValue.path(str(folder / f"{about.stem}.xlsx")),
        "list": dg.MetadataValue.path(str(folder / f"{about.stem}.csv")),
    }
    return dg.MaterializeResult(metadata=metadata)


def _remark(verdict: str, held: bool) -> str:
    if held:
        return f"Made with a model that may not fit these people ({verdict}): take the order with caution"
    return "Too few people to check the model on this batch" if verdict == "insufficient" else ""
