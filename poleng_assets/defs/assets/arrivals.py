"""What the three assets that take files in have in common: from a landing file to its partition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import dagster as dg
import duckdb
from pydantic import Field

from poleng_assets.core.data.versions import name_and_number
from poleng_assets.defs.clock import clock_in_doubt
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.defs.resources.landing import FileChanged, Landing, TakenCopy
from poleng_assets.storage.dropped_files import SUFFIXES, file_id
from poleng_assets.storage.file_names import clash_problem, name_problem
from poleng_assets.storage.home import Home, Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse

if TYPE_CHECKING:
    from poleng_assets.core.ingestion.ingest import Ingested
    from poleng_assets.core.ingestion.row_accounting import Account
    from poleng_assets.study.schema import Study

ROWS_ACCOUNTED_FOR = "every_row_is_kept_or_in_quarantine"
NOBODY_CAME_BEFORE = "nobody_came_before"
PEOPLE_ARE_KNOWN = "people_stand_in_batches"


class ArrivalConfig(dg.Config):
    """Which file to take in."""

    file: str = Field(
        default="",
        description="Name of the file in landing. Leave it empty to take the one named like the partition.",
    )


def rows_check(kind: Kind) -> dg.AssetCheckSpec:
    """Declare the check that no row of a file got lost on the way in."""
    return dg.AssetCheckSpec(
        ROWS_ACCOUNTED_FOR,
        asset=kind,
        description="Rows in the file = rows in the warehouse + rows in quarantine.",
    )


def nobody_before_check(kind: Kind) -> dg.AssetCheckSpec:
    """Declare the check that no answers of a file came with an earlier one, and nobody is listed already."""
    return dg.AssetCheckSpec(
        NOBODY_CAME_BEFORE,
        asset=kind,
        description="Nobody stands in an earlier file with the same answers, or on a contact list already.",
    )


def people_known_check() -> dg.AssetCheckSpec:
    """Declare the check that outcomes are of people who stand in batches, spelled as they are there."""
    return dg.AssetCheckSpec(
        PEOPLE_ARE_KNOWN,
        asset="outcomes",
        description="Some people of the file stand in a batch, and none seems to stand there in another "
        "spelling.",
    )


def take_in(
    context: dg.AssetExecutionContext,
    kind: Kind,
    config: ArrivalConfig,
    landing: Landing,
    warehouse: Warehouse,
) -> Iterator[dg.MaterializeResult]:
    """Ingest a copy of a landing file into the warehouse, archive it, and tell of it; or refuse the file.

    The file leaves landing last: a run that is killed before Dagster has its event is run again.

    Raises:
        dagster.Failure: the file was refused and stands in ``rejected`` with its reason; or somebody writes
            to it, and nothing was taken in.
    """
    from poleng_assets.core.ingestion.composition import composition
    from poleng_assets.core.ingestion.contract import FileRefused
    from poleng_assets.core.ingestion.ingest import ingest, record_refusal
    from poleng_assets.core.ingestion.quarantine import data_hash
    from poleng_assets.core.ingestion.row_accounting import account, rows_in
    from poleng_assets.core.ingestion.target_balance import remark_on_balance
    from poleng_assets.warehouse.contact_lists import list_stands

    study = warehouse.study
    path = _landing_file(landing, kind, config.file, context.partition_key)
    in_archive = path.parent == landing.home.archive(kind)
    with ExitStack() as stack:
        with warehouse.connect() as con:
            if doubt := clock_in_doubt(context.instance, landing.home, con):
                raise dg.Failure(
                    f"{path.name} was not taken in, the clock is in doubt: {doubt}.", allow_retries=False
                )
            copy = None if in_archive else _copied(context, stack, landing, kind, path)
            source = copy.path if copy else path
            name = _id_in_landing(con, kind, copy, context.partition_key) if copy else file_id(path.name)
            try:
                if copy:
                    _check_at_the_door(con, landing.home, kind, copy, name)
                confirm = partial(_confirm, con, study, kind, name, copy)
                result = ingest(con, study, kind, source, name, confirm=confirm)
            except FileRefused as refusal:
                reason = str(refusal)
                record_refusal(con, kind, source, rows_in(source, study, kind), reason)
            except FileChanged as change:
                raise _not_now(context, kind, str(change)) from change
            else:
                reason = ""
                counted = account(con, study, kind, result.name, rows_in(source, study, kind))
                learned_from = data_hash(con, kind, result.name)
                people = composition(con, study, kind, result.name)
                stands = kind == "batches" and list_stands(con, result.name)
                met = _met_before(con, study, kind, result.name)
                odd = remark_on_balance(con, study, result.name) if kind == "field_studies" else ""
        if reason:
            _refuse(context, kind, path, copy, reason, landing)
        kept = landing.keep(kind, copy, result.name, new=not result.already) if copy else path
        told = _taken_in(context, result, counted, kept, learned_from, people)
        for warning in (*met.warnings, *([odd] if odd else [])):
            context.log.warning(f"{result.name}: {warning}")
        remark = {"remark": odd} if odd else {}
        yield told._replace(
            metadata={**(told.metadata or {}), "list_stands": stands, **met.metadata, **remark},
            check_results=[*(told.check_results or []), met.check],
        )
        if copy and (why := landing.remove(copy)):
            context.log.warning(why)


def _confirm(
    con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str, copy: TakenCopy | None
) -> None:
    """Look once more before what was read is committed; raises when it must not be."""
    from poleng_assets.core.ingestion.target_balance import refuse_what_teaches_nothing

    if kind == "field_studies":
        refuse_what_teaches_nothing(con, study, name)
    if copy:
        copy.confirm()


def _copied(
    context: dg.AssetExecutionContext, stack: ExitStack, landing: Landing, kind: Kind, path: Path
) -> TakenCopy:
    """Copy a file of landing, until the stack ends."""
    try:
        return stack.enter_context(landing.copied(kind, path))
    except FileChanged as change:
        raise _not_now(context, kind, str(change)) from change


def _check_at_the_door(
    con: duckdb.DuckDBPyConnection, home: Home, kind: Kind, copy: TakenCopy, name: str
) -> None:
    """Refuse a file for what can be told before it is read.

    Raises:
        FileRefused: with the reason.
    """
    from poleng_assets.core.ingestion.contract import FileRefused
    from poleng_assets.core.ingestion.withdrawal import refuse_withdrawn
    from poleng_assets.storage.synthetic import OtherPeople, admit

    dropped_as = name_and_number(name)[0]
    if problem := name_problem(copy.path.name):
        raise FileRefused(problem)
    known = con.execute("SELECT name FROM ingested_files WHERE kind = ?", [kind]).fetchall()
    if problem := clash_problem(dropped_as, (name_and_number(one)[0] for (one,) in known)):
        raise FileRefused(problem)
    try:
        admit(home, copy.path)
    except OtherPeople as others:
        raise FileRefused(str(others)) from others
    refuse_withdrawn(con, copy.path)


class _Met(NamedTuple):
    """What a file met in the warehouse: to be told, to be warned of, and whether it is as it should be."""

    metadata: dict[str, Any]
    warnings: list[str]
    check: dg.AssetCheckResult


def _met_before(con: duckdb.DuckDBPyConnection, study: Study, kind: Kind, name: str) -> _Met:
    """Look whom a file shares with those before it; of outcomes, whom of the batches they are about."""
    from poleng_assets.core.ingestion.duplicates import shared_with_earlier
    from poleng_assets.core.ingestion.outcome_matches import outcomes_met, waiting_in_another_spelling

    if kind == "outcomes":
        met = outcomes_met(con, study, name)
        figures: dict[str, Any] = {
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
        warned = [met.in_words()] if not met.in_order or met.conflicting else []
        severity = dg.AssetCheckSeverity.WARN if met.matched else dg.AssetCheckSeverity.ERROR
        check = dg.AssetCheckResult(
            passed=met.in_order, check_name=PEOPLE_ARE_KNOWN, severity=severity, metadata=figures
        )
        return _Met({**figures, "what_they_met": met.in_words()}, warned, check)
    shared = shared_with_earlier(con, study, kind, name)
    figures = {
        "came_before": shared.people,
        "came_before_with_the_same_answers": shared.same_answers,
        "same_answers_under_other_ids": shared.under_other_ids,
        "on_a_contact_list_already": shared.listed,
        "set_aside": shared.set_aside,
    }
    warned = [shared.in_words()] if shared.files else []
    waiting = waiting_in_another_spelling(con, study, name) if kind == "batches" else None
    if waiting is not None and waiting.alike:
        warned.append(f"of the outcomes that wait for their batch, {waiting.in_words()}")
    check = dg.AssetCheckResult(
        passed=not shared.repeats,
        check_name=NOBODY_CAME_BEFORE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=figures,
    )
    return _Met({**figures, "what_came_before": "; ".join(warned) or "nothing"}, warned, check)


def _landing_file(landing: Landing, kind: Kind, file: str, partition: str) -> Path:
    """Return the file in landing that the partition is of, or the archived one when it was moved already."""
    folder, name = landing.home.landing(kind), name_and_number(partition)[0]
    names = [Path(file).name] if file else [f"{name}{suffix}" for suffix in SUFFIXES]
    dropped = [folder / one for one in names if file_id(one) == name]
    archived = [landing.home.archive(kind) / f"{partition}{one.removeprefix(name)}" for one in names]
    for path in (*dropped, *archived):
        if path.is_file() and not path.is_symlink():
            return path
    raise dg.Failure(
        f"There is no file {' or '.join(names)} in {folder}: nothing to take in.", allow_retries=False
    )


def _id_in_landing(con: duckdb.DuckDBPyConnection, kind: Kind, copy: TakenCopy, partition: str) -> str:
    """Return the id of a dropped file; no new version is taken in under the id of an earlier one."""
    from poleng_assets.core.ingestion.ingest import id_of

    belongs = id_of(con, kind, copy.path, copy.digest)
    if belongs != partition:
        raise dg.Failure(
            f"{copy.path.name} has other content than {partition}: it belongs to the partition {belongs}. "
            "Leave it in landing, the sensor takes it in there; or add that partition and materialise it.",
            allow_retries=False,
        )
    return belongs


def _taken_in(
    context: dg.AssetExecutionContext,
    result: Ingested,
    counted: Account,
    archived: Path,
    data: str,
    people: str,
) -> dg.MaterializeResult:
    if result.ignored_columns:
        context.log.warning(
            f"{result.name}: columns that the study does not use were left out: "
            f"{', '.join(result.ignored_columns)}"
        )
    if result.rows_quarantined:
        context.log.warning(
            f"{result.name}: {result.rows_quarantined} of {result.rows_read} rows break the contract and "
            f"are in quarantine: poleng quarantine list --source {context.asset_key.path[-1]}/{result.name}"
        )
    if result.already:
        context.log.info(f"{result.name} was taken in before; nothing was written again")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(data),
        metadata={
            "dagster/row_count": result.rows_kept,
            "rows_read": result.rows_read,
            "rows_quarantined": result.rows_quarantined,
            "who_they_are": dg.MetadataValue.md(people),
            "ignored_columns": ", ".join(result.ignored_columns) or "none",
            "content_hash": result.content_hash,
            "data_hash": data,
            "file": dg.MetadataValue.path(str(archived)),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=counted.taken_in_whole,
                check_name=ROWS_ACCOUNTED_FOR,
                metadata={
                    "read": counted.read,
                    "in_file": counted.in_file if counted.in_file is not None else "not kept any more",
                    "kept": counted.kept,
                    "in_quarantine": counted.quarantined,
                    "erased": counted.erased,
                },
            )
        ],
    )


def _refuse(
    context: dg.AssetExecutionContext,
    kind: Kind,
    path: Path,
    copy: TakenCopy | None,
    reason: str,
    landing: Landing,
) -> NoReturn:
    """Set the file aside and forget its partition, unless an accepted file has that name."""
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
    """Return the failure of a run that took nothing in, and forget its partition."""
    _forget_partition(context, kind)
    return dg.Failure(f"{why}.", allow_retries=False)


def _forget_partition(context: dg.AssetExecutionContext, kind: Kind) -> None:
    accepted = context.instance.get_materialized_partitions(dg.AssetKey(kind))
    if context.partition_key not in accepted:
        context.instance.delete_dynamic_partition(PARTITIONS[kind].name or "", context.partition_key)
