"""The assets that take files in: batches, field studies and outcomes, one partition for each file."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import dagster as dg
from duckdb import DuckDBPyConnection as Connection
from pydantic import Field

from poleng_assets.core.data.asset_events import FileTakenIn
from poleng_assets.core.data.versions import name_and_number
from poleng_assets.defs.clock import clock_in_doubt
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.storage.dropped_files import SUFFIXES, file_id
from poleng_assets.storage.file_names import clash_problem, name_problem
from poleng_assets.storage.home import Home, Kind
from poleng_assets.storage.landing import FileChanged, Landing, TakenCopy
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.files import file_record, names_of_files

if TYPE_CHECKING:
    from poleng_assets.core.ingestion.ingest import Ingested
    from poleng_assets.core.ingestion.row_accounting import Account

ROWS_ACCOUNTED_FOR = "every_row_is_kept_or_in_quarantine"
NOBODY_CAME_BEFORE = "nobody_came_before"
PEOPLE_ARE_KNOWN = "people_stand_in_batches"
_CHECKS = {
    ROWS_ACCOUNTED_FOR: "Rows in the file = rows in the warehouse + rows in quarantine.",
    NOBODY_CAME_BEFORE: "No duplicates of earlier files, and nobody who is on a contact list already.",
    PEOPLE_ARE_KNOWN: "People of the file match a batch, and no unmatched id differs only in spelling.",
}


class ArrivalConfig(dg.Config):
    """Which file to take in."""

    file: str = Field(
        default="",
        description="Name of the file in landing. Empty: the file named like the partition.",
    )


def _arrival_asset(kind: Kind, description: str, second_check: str) -> dg.AssetsDefinition:
    """Define the asset that takes in the files of a kind, one partition for each."""

    @dg.asset(
        name=kind,
        description=description,
        partitions_def=PARTITIONS[kind],
        group_name="arrivals",
        kinds={"duckdb"},
        owners=["team:survey"],
        pool=WAREHOUSE_POOL,
        check_specs=[
            dg.AssetCheckSpec(check, asset=kind, description=_CHECKS[check])
            for check in (ROWS_ACCOUNTED_FOR, second_check)
        ],
    )
    def arrival(
        context: dg.AssetExecutionContext,
        config: ArrivalConfig,
        landing: dg.ResourceParam[Landing],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[dg.MaterializeResult]:
        yield from take_in(context, kind, config, landing, warehouse)

    return arrival


batches = _arrival_asset(
    "batches",
    "Respondents of one batch to score, validated against the data contract.",
    NOBODY_CAME_BEFORE,
)
field_studies = _arrival_asset(
    "field_studies",
    "Labelled respondents of one field study, split into training rows and the frozen holdout.",
    NOBODY_CAME_BEFORE,
)
outcomes = _arrival_asset(
    "outcomes",
    "Outcomes (labels) of respondents of earlier batches, joined by id.",
    PEOPLE_ARE_KNOWN,
)


class _Arrival(NamedTuple):
    """The state of an ingested file in the warehouse.

    Attributes:
        result: what became of its rows.
        account: where they are.
        data_hash: of them.
        people: who they are, as markdown.
        list_stands: whether a batch's contact list was issued already.
        earlier: what the file met there.
        remark: what is odd about a field study's classes; empty when nothing is.
    """

    result: "Ingested"
    account: "Account"
    data_hash: str
    people: str
    list_stands: bool
    earlier: "_Earlier"
    remark: str


def take_in(
    context: dg.AssetExecutionContext,
    kind: Kind,
    config: ArrivalConfig,
    landing: Landing,
    warehouse: Warehouse,
) -> Iterator[dg.MaterializeResult]:
    """Ingest a copy of a landing file, archive it and report it; or reject the file.

    The file leaves landing last: a run that is killed before Dagster has its event is run again.

    Raises:
        dagster.Failure: the file was refused and is in ``rejected`` with its reason; or somebody writes
            to it, and nothing was taken in.
    """
    from poleng_assets.core.ingestion.contract import FileRefused
    from poleng_assets.core.ingestion.row_accounting import rows_in

    study = warehouse.study
    path = _landing_file(landing, kind, config.file, context.partition_key)
    in_archive = path.parent == landing.home.archive(kind)
    with ExitStack() as stack:
        # The file is copied and counted, and what it met is read, while the warehouse is not held.
        copy = None if in_archive else _copied(context, stack, landing, kind, path)
        source = copy.path if copy else path
        try:
            with warehouse.connect() as con:
                if doubt := clock_in_doubt(context.instance, landing.home, con):
                    raise dg.Failure(
                        f"{path.name} was not ingested, the clock is in doubt: {doubt}.", allow_retries=False
                    )
                name = _id_in_landing(con, kind, copy, context.partition_key) if copy else file_id(path.name)
                result = _ingest(con, study, landing.home, kind, source, name, copy)
        except FileRefused as refusal:
            _refuse(context, warehouse, kind, path, copy, str(refusal), landing)
        except FileChanged as change:
            raise _not_now(context, kind, str(change)) from change
        in_file = rows_in(source, study, kind)
        with warehouse.read() as con:
            arrival = _described(con, study, kind, in_file, result)
        archived = landing.keep(kind, copy, name, new=not result.already) if copy else path
        _log(context, arrival)
        yield _event(arrival, archived)
        if copy and (why := landing.remove(copy)):
            context.log.warning(why)


def _ingest(
    con: Connection, study: Study, home: Home, kind: Kind, source: Path, name: str, copy: TakenCopy | None
) -> "Ingested":
    """Check a file against the contract, ingest it, and check it again before the commit.

    Raises:
        FileRefused: with the reason.
        FileChanged: somebody writes to it.
    """
    from poleng_assets.core.ingestion.ingest import ingest
    from poleng_assets.core.ingestion.target_balance import refuse_what_teaches_nothing

    def confirm() -> None:
        if kind == "field_studies":
            refuse_what_teaches_nothing(con, study, name)
        if copy:
            copy.confirm()

    if copy:
        _check_admission(con, home, kind, copy, name)
    return ingest(con, study, kind, source, name, confirm=confirm, digest=copy.digest if copy else None)


def _described(
    con: Connection, study: Study, kind: Kind, in_file: int | None, result: "Ingested"
) -> _Arrival:
    """Read what the warehouse says of a file; ``in_file``: its rows, counted again, None when it is gone."""
    from poleng_assets.core.ingestion.composition import composition
    from poleng_assets.core.ingestion.row_accounting import account
    from poleng_assets.core.ingestion.target_balance import remark_on_balance
    from poleng_assets.warehouse.contact_lists import list_stands

    return _Arrival(
        result=result,
        account=account(con, study, kind, result.name, in_file),
        data_hash=file_record(con, kind, result.name).data_hash,
        people=composition(con, study, kind, result.name),
        list_stands=kind == "batches" and list_stands(con, result.name),
        earlier=_compared(con, study, kind, result.name),
        remark=remark_on_balance(con, study, result.name) if kind == "field_studies" else "",
    )


def _copied(
    context: dg.AssetExecutionContext, stack: ExitStack, landing: Landing, kind: Kind, path: Path
) -> TakenCopy:
    """Copy a file of landing, until the stack ends."""
    try:
        return stack.enter_context(landing.copied(kind, path))
    except FileChanged as change:
        raise _not_now(context, kind, str(change)) from change


def _check_admission(con: Connection, home: Home, kind: Kind, copy: TakenCopy, name: str) -> None:
    """Refuse a file for problems that are known before it is read.

    Raises:
        FileRefused: with the reason.
    """
    from poleng_assets.core.ingestion.contract import FileRefused
    from poleng_assets.core.ingestion.withdrawal import refuse_withdrawn
    from poleng_assets.storage.synthetic import OtherPeople, admit

    dropped_as = name_and_number(name)[0]
    if problem := name_problem(copy.path.name):
        raise FileRefused(problem)
    known = names_of_files(con, kind)
    if problem := clash_problem(dropped_as, (name_and_number(other)[0] for other in known)):
        raise FileRefused(problem)
    try:
        admit(home, copy.path)
    except OtherPeople as others:
        raise FileRefused(str(others)) from others
    refuse_withdrawn(con, copy.path)


class _Earlier(NamedTuple):
    """Overlaps of a file with earlier data: event, counts, warnings and check result."""

    event: FileTakenIn
    counts: dict[str, Any]
    warnings: list[str]
    check: dg.AssetCheckResult


def _compared(con: Connection, study: Study, kind: Kind, name: str) -> _Earlier:
    """Compare a file with earlier files, or outcomes with the people of the batches."""
    return _matches(con, study, name) if kind == "outcomes" else _overlaps(con, study, kind, name)


def _matches(con: Connection, study: Study, name: str) -> _Earlier:
    from poleng_assets.core.ingestion.outcome_matches import outcomes_met

    met = outcomes_met(con, study, name)
    counts: dict[str, Any] = {
        "read": met.read,
        "matched": met.matched,
        "unknown": met.unknown,
        "corrected": met.corrected,
        "conflicting": met.conflicting,
        "repeated": met.repeated,
        "known_before": met.known_before,
        "in_several_batches": met.in_several_batches,
        "in_another_spelling": met.strangers.alike,
        "batches": ", ".join(met.batches) or "none",
    }
    warnings = [met.in_words()] if not met.in_order or met.conflicting else []
    severity = dg.AssetCheckSeverity.WARN if met.matched else dg.AssetCheckSeverity.ERROR
    check = dg.AssetCheckResult(
        passed=met.in_order, check_name=PEOPLE_ARE_KNOWN, severity=severity, metadata=counts
    )
    return _Earlier(FileTakenIn(what_they_met=met.in_words()), counts, warnings, check)


def _overlaps(con: Connection, study: Study, kind: Kind, name: str) -> _Earlier:
    from poleng_assets.core.ingestion.duplicates import shared_with_earlier
    from poleng_assets.core.ingestion.outcome_matches import waiting_in_another_spelling

    shared = shared_with_earlier(con, study, kind, name)
    counts: dict[str, Any] = {
        "came_before": shared.people,
        "came_before_with_the_same_answers": shared.same_answers,
        "same_answers_under_other_ids": shared.under_other_ids,
        "on_a_contact_list_already": shared.listed,
        "set_aside": shared.set_aside,
    }
    warnings = [shared.in_words()] if shared.files else []
    waiting = waiting_in_another_spelling(con, study, name) if kind == "batches" else None
    if waiting is not None and waiting.alike:
        warnings.append(f"of the outcomes without a batch yet, {waiting.in_words()}")
    check = dg.AssetCheckResult(
        passed=not shared.repeats,
        check_name=NOBODY_CAME_BEFORE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=counts,
    )
    event = FileTakenIn(what_came_before="; ".join(warnings) or "nothing")
    return _Earlier(event, counts, warnings, check)


def _landing_file(landing: Landing, kind: Kind, file_name: str, partition: str) -> Path:
    """Return the file in landing that the partition is of, or the archived one when it was moved already."""
    folder, name = landing.home.landing(kind), name_and_number(partition)[0]
    names = [Path(file_name).name] if file_name else [f"{name}{suffix}" for suffix in SUFFIXES]
    dropped = [folder / file for file in names if file_id(file) == name]
    archived = [landing.home.archive(kind) / f"{partition}{file.removeprefix(name)}" for file in names]
    for path in (*dropped, *archived):
        if path.is_file() and not path.is_symlink():
            return path
    raise dg.Failure(
        f"There is no file {' or '.join(names)} in {folder}: nothing to ingest.", allow_retries=False
    )


def _id_in_landing(con: Connection, kind: Kind, copy: TakenCopy, partition: str) -> str:
    """Return the id of a dropped file; no new version is taken in under the id of an earlier one."""
    from poleng_assets.core.ingestion.ingest import id_of

    belongs = id_of(con, kind, copy.path, copy.digest)
    if belongs != partition:
        raise dg.Failure(
            f"{copy.path.name} has different content than {partition}: it belongs to partition {belongs}. "
            "Leave it in landing, where the sensor ingests it, or add that partition and materialise it.",
            allow_retries=False,
        )
    return belongs


def _log(context: dg.AssetExecutionContext, arrival: _Arrival) -> None:
    result = arrival.result
    if result.ignored_columns:
        context.log.warning(
            f"{result.name}: ignored columns that the study does not use: {', '.join(result.ignored_columns)}"
        )
    if result.rows_quarantined:
        context.log.warning(
            f"{result.name}: {result.rows_quarantined} of {result.rows_read} rows violate the contract and "
            f"are in quarantine: poleng quarantine list --source {context.asset_key.path[-1]}/{result.name}"
        )
    if result.already:
        context.log.info(f"{result.name} was ingested before; nothing was written")
    for warning in (*arrival.earlier.warnings, *filter(None, [arrival.remark])):
        context.log.warning(f"{result.name}: {warning}")


def _event(arrival: _Arrival, archived: Path) -> dg.MaterializeResult:
    result, account = arrival.result, arrival.account
    event = replace(
        arrival.earlier.event,
        rows=result.rows_kept,
        rows_read=result.rows_read,
        rows_quarantined=result.rows_quarantined,
        content_hash=result.content_hash,
        data_hash=arrival.data_hash,
        list_stands=arrival.list_stands,
        remark=arrival.remark or None,
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(arrival.data_hash),
        metadata={
            **event.metadata(),
            **arrival.earlier.counts,
            "who_they_are": dg.MetadataValue.md(arrival.people),
            "ignored_columns": ", ".join(result.ignored_columns) or "none",
            "file": dg.MetadataValue.path(str(archived)),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=account.taken_in_whole,
                check_name=ROWS_ACCOUNTED_FOR,
                metadata={
                    "read": account.read,
                    "in_file": account.in_file if account.in_file is not None else "not kept any more",
                    "kept": account.kept,
                    "in_quarantine": account.quarantined,
                    "erased": account.erased,
                },
            ),
            arrival.earlier.check,
        ],
    )


def _refuse(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    kind: Kind,
    path: Path,
    copy: TakenCopy | None,
    reason: str,
    landing: Landing,
) -> NoReturn:
    """Record the reason, move the file to ``rejected``, and delete its partition if it has no data."""
    from poleng_assets.core.ingestion.ingest import record_refusal
    from poleng_assets.core.ingestion.row_accounting import rows_in

    source = copy.path if copy else path
    rows = rows_in(source, warehouse.study, kind)
    with warehouse.connect() as con:
        record_refusal(con, kind, source, rows, reason)
    if copy is None:
        rejected = landing.reject(kind, path, reason)
    else:
        rejected, stays = landing.reject_copy(kind, copy, reason)
        if stays:
            context.log.warning(stays)
    _forget_partition(context, kind)
    raise dg.Failure(
        f"{path.name} was refused: {reason}",
        metadata={"file": dg.MetadataValue.path(str(rejected)), "reason": reason},
        allow_retries=False,
    )


def _not_now(context: dg.AssetExecutionContext, kind: Kind, why: str) -> dg.Failure:
    """Return the failure of a run that ingested nothing, and delete its partition."""
    _forget_partition(context, kind)
    return dg.Failure(f"{why}.", allow_retries=False)


def _forget_partition(context: dg.AssetExecutionContext, kind: Kind) -> None:
    accepted = context.instance.get_materialized_partitions(dg.AssetKey(kind))
    if context.partition_key not in accepted:
        context.instance.delete_dynamic_partition(PARTITIONS[kind].name or "", context.partition_key)
