"""Scoring: every respondent of a batch gets a score, and the lists that contact centres open."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
from pydantic import Field

from poleng_assets.defs.assets.batches import batches
from poleng_assets.defs.assets.promotion import champion
from poleng_assets.defs.partitions import batch_partitions
from poleng_assets.defs.resources.landing import Landing
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.rollback import untold_rollback
from poleng_assets.models.registry import Registry
from poleng_assets.storage.files import in_place_of, write_whole
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
    why_another,
)
from poleng_assets.warehouse.decisions import already_recorded
from poleng_assets.warehouse.schema import record_decision, transaction

if TYPE_CHECKING:
    import pandas as pd

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
            EVERYONE_SCORED, asset="predictions", description="No respondent of the batch is left unscored."
        ),
        dg.AssetCheckSpec(
            NO_ROW_LOST,
            asset="predictions",
            description="Rows in the file, counted anew = rows scored + rows in quarantine + rows erased "
            "on request; and over all batches, refused files included, none is missing.",
        ),
    ],
)
def predictions(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
    landing: dg.ResourceParam[Landing],
) -> dg.MaterializeResult:
    """The champion's score of every respondent of a batch; earlier versions' scores are kept."""
    from poleng_assets.core.ingestion.quarantine import data_hash
    from poleng_assets.core.ingestion.row_accounting import account, balance, rows_in
    from poleng_assets.core.modeling.batch_scoring import score_batch

    batch = context.partition_key
    with warehouse.connect() as con:
        version = registry.serving(con, context.log.warning) or registry.champion()
        if untold := untold_rollback(con, context.instance, registry.model_name):
            context.log_event(untold)
        model = registry.model(version)
        respondents, contacts = score_batch(con, model, warehouse.study, batch, version.version)
        unscored = _unscored(con, warehouse.study, batch)
        in_file = rows_in(landing.archived("batches", batch), warehouse.study, "batches")
        counted = account(con, warehouse.study, "batches", batch, in_file)
        everything = balance(con)
        data = data_hash(con, "batches", batch)
        histogram = con.execute(
            """SELECT floor(score * 10) / 10 AS "score from", count(*) AS respondents
            FROM current_predictions WHERE batch = ? GROUP BY 1 ORDER BY 1""",
            [batch],
        ).df()
    return dg.MaterializeResult(
        # By its own, each run would give other data: a report of the same scores would be called unsynced.
        data_version=dg.DataVersion(f"version {version.version} of {data}"),
        metadata={
            "dagster/row_count": respondents,
            "contacts": contacts,
            "share_flagged": round(contacts / respondents, 4) if respondents else 0.0,
            "model_version": version.version,
            "scores": dg.MetadataValue.md(frame_as_table(histogram)),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=unscored == 0, check_name=EVERYONE_SCORED, metadata={"unscored": unscored}
            ),
            dg.AssetCheckResult(
                passed=counted.balanced and everything.lost == 0,
                check_name=NO_ROW_LOST,
                metadata={
                    "this_batch": counted.in_words(),
                    "all_batches": everything.in_words(),
                    "lost": everything.lost,
                },
            ),
        ],
    )


class ListConfig(dg.Config):
    """Whether to make the list of a held batch, or another list of a batch that has one."""

    release: str = Field(
        default="",
        description="Why to make the list of a held batch now, with the present champion. "
        "Leave it empty to keep a drifted or untrusted batch waiting for a better model.",
    )
    replace_issued_list: bool = Field(
        default=False,
        description="Make another list of a batch that has one, by the current scores: it gets files "
        "of its own beside the earlier ones, and a row in the ledger. Without it an issued list stands.",
    )
    reason: str = Field(
        default="asked for by hand", description="Why another list is wanted; it goes into the ledger."
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
    """The people of a batch worth an intervention, in words, strongest first; not made while it is held.

    A list that was issued stands: it is neither changed nor replaced, and another one stands beside it.
    """
    from poleng_assets.core.modeling.explanations import strongest_reasons

    batch, study, folder = context.partition_key, warehouse.study, landing.home.contact_lists
    with warehouse.connect() as con:
        verdict, held, judged = _newest_report(con, batch)
        issued = newest_list(con, batch)
        why = _why_another(con, issued, config)
        remark = _remark(verdict, held)
        if issued and (not why or is_the_same(con, study, issued, judged, remark)):
            _put_back_missing_files(con, study, folder, issued)
            words = _stands_in_words(issued, difference(con, study, issued))
            context.log.info(words)
            yield _told(folder, issued, verdict, words)
            return
        if held and not config.release:
            context.log.info(
                f"{batch} is {verdict}: its list is held back until the overseer has "
                "tried to get a better model"
            )
            return
        scored = _scored(con, study, batch)
        _see_that_it_can_be_made(con, batch, judged, issued, len(scored))
        model = registry.model(registry.version(judged))
        flagged = scored["contact"]
        scored["reasons"] = ""
        scored.loc[flagged, "reasons"] = strongest_reasons(model, scored[flagged], study)
        number = issued.number + 1 if issued else 1
        new = IssuedList(
            batch,
            number,
            judged,
            moment_of_issue(con),
            int(flagged.sum()),
            remark,
            file_stem(batch, number),
        )
        changed = difference(con, study, issued) if issued else None
        listed = _write_files(folder, study, new, scored)
        with transaction(con):
            issue(con, new, scored.loc[flagged, [study.id, "score", "reasons"]], context.run.run_id)
            if issued and changed:
                record_decision(
                    con,
                    "reissue",
                    f"{new.in_words()} is made beside {issued.in_words()}, with {changed.in_words()}: {why}",
                    evidence={
                        "batch": batch,
                        "list": number,
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
                    champion_version=judged,
                    batch=batch,
                    dagster_run_id=context.run.run_id,
                )
            released = f"the list of {batch} is made with the present champion: {config.release}"
            if config.release and not already_recorded(con, "skip", batch, judged, released):
                record_decision(
                    con,
                    "skip",
                    released,
                    evidence={"batch": batch, "verdict": verdict, "contacts": len(listed)},
                    champion_version=judged,
                    batch=batch,
                    dagster_run_id=context.run.run_id,
                )
    words = f"issued beside {issued.in_words()}" if issued else "issued"
    yield _told(folder, new, verdict, words, asked=len(scored))


def _why_another(con: duckdb.DuckDBPyConnection, issued: IssuedList | None, config: ListConfig) -> str:
    """Return why another list is wanted beside the issued one; empty when it is to stand."""
    if issued is None:
        return ""
    return config.reason if config.replace_issued_list else why_another(con, issued)


def _see_that_it_can_be_made(
    con: duckdb.DuckDBPyConnection, batch: str, judged: int, issued: IssuedList | None, people: int
) -> None:
    """Raise when the newest scores are others than those that were judged, or nobody is left to list."""
    from poleng_assets.warehouse.predictions import scoring_version

    current = scoring_version(con, batch)
    if current not in (None, judged):
        raise dg.Failure(
            f"The newest scores of {batch} come from version {current}, and its newest report is about "
            f"version {judged}: materialise drift_report first.",
            allow_retries=False,
        )
    if issued and not people:
        raise dg.Failure(
            f"No rows of {batch} are kept any more: no other list can be made. {issued.in_words()} stands.",
            allow_retries=False,
        )


def _stands_in_words(issued: IssuedList, changed: Difference) -> str:
    """Say that an issued list stands, how the current scores differ from it, and how to get another one."""
    words = f"{issued.in_words()} was issued and stands"
    if not changed.added and not changed.dropped:
        return f"{words}: the current scores flag the same people"
    return (
        f"{words}; by the current scores a list would have {changed.in_words()}. To have that one made, in "
        "files of its own, materialise contact_list with `replace_issued_list: true` and a `reason`"
    )


def _write_files(folder: Path, study: Study, about: IssuedList, scored: "pd.DataFrame") -> "pd.DataFrame":
    """Write CSV and workbook of a list; return what stands in them.

    Args:
        folder: of the lists.
        study: words and columns.
        about: the list.
        scored: everybody who was scored: id, features, ``score``, ``contact``, ``reasons``.
    """
    from poleng_assets.core.contacts.contact_list import as_csv
    from poleng_assets.core.contacts.contact_list import contact_list as make_list
    from poleng_assets.core.contacts.workbook import AboutList, write_workbook

    listed = make_list(scored, study, about.remark)
    words = AboutList(about.batch, about.issued_at, about.model_version, asked=len(scored))
    # Both are whole before either is in its place: people and machines get the same list.
    with in_place_of(folder / f"{about.stem}.xlsx") as part:
        write_workbook(part, listed, study, words)
        write_whole(folder / f"{about.stem}.csv", as_csv(listed))
    return listed


def _put_back_missing_files(
    con: duckdb.DuckDBPyConnection, study: Study, folder: Path, issued: IssuedList
) -> None:
    """Write the files of the issued list again when one is gone and the rows of its people are still kept."""
    if all((folder / f"{issued.stem}{suffix}").exists() for suffix in (".csv", ".xlsx")):
        return
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    people = con.execute(
        f"""SELECT p."{study.id}", p.score, l."{study.id}" IS NOT NULL AS contact,
            coalesce(l.reasons, '') AS reasons, {columns}
        FROM predictions p JOIN batch_rows b USING (batch, "{study.id}")
        LEFT JOIN contact_lists l ON l.batch = p.batch AND l."{study.id}" = p."{study.id}"
            AND l.list_number = $number
        WHERE p.batch = $batch AND p.model_version = $version ORDER BY b.row_number""",  # noqa: S608
        {"batch": issued.batch, "number": issued.number, "version": issued.model_version},
    ).df()
    ((kept,),) = con.execute(
        "SELECT count(*) FROM contact_lists WHERE batch = ? AND list_number = ?",
        [issued.batch, issued.number],
    ).fetchall()
    if len(people) and int(people["contact"].sum()) == kept:
        _write_files(folder, study, issued, people)


def _told(
    folder: Path, about: IssuedList, verdict: str, words: str, asked: int | None = None
) -> dg.MaterializeResult:
    """Tell the graph of the list that stands now; ``asked``: of how many people, when it was made now."""
    metadata: dict[str, Any] = {
        "dagster/row_count": about.contacts,
        "contacts": about.contacts,
        "model_version": about.model_version,
        "list_number": about.number,
        "what_happened": words,
        "verdict": verdict,
        "remark": about.remark or "none",
        "workbook": dg.MetadataValue.path(str(folder / f"{about.stem}.xlsx")),
        "list": dg.MetadataValue.path(str(folder / f"{about.stem}.csv")),
    }
    if asked is not None:
        metadata["share_flagged"] = round(about.contacts / asked, 4) if asked else 0.0
    return dg.MaterializeResult(metadata=metadata)


def _unscored(con: duckdb.DuckDBPyConnection, study: Study, batch: str) -> int:
    found = con.execute(
        f"""SELECT count(*) FROM batch_rows b WHERE b.batch = $batch AND NOT EXISTS (
            SELECT 1 FROM current_predictions p
            WHERE p.batch = $batch AND p."{study.id}" = b."{study.id}")""",  # noqa: S608
        {"batch": batch},
    ).fetchone()
    return int(found[0]) if found else 0


def _newest_report(con: duckdb.DuckDBPyConnection, batch: str) -> tuple[str, bool, int]:
    """Return verdict and hold of the newest report, and the model version it speaks about."""
    found = con.execute(
        """SELECT verdict, coalesce(held, verdict IN ('drifted', 'untrusted')), model_version
        FROM drift_reports WHERE batch = ? ORDER BY reported_at DESC LIMIT 1""",
        [batch],
    ).fetchall()
    if not found:
        raise dg.Failure(f"{batch} has no drift report yet: materialise it first.", allow_retries=False)
    return found[0]


def _scored(con: duckdb.DuckDBPyConnection, study: Study, batch: str) -> "pd.DataFrame":
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    return con.execute(
        f"""SELECT p."{study.id}", p.score, p.contact, {columns}
        FROM current_predictions p JOIN batch_rows b USING (batch, "{study.id}")
        WHERE p.batch = ? ORDER BY b.row_number""",  # noqa: S608
        [batch],
    ).df()


def _remark(verdict: str, held: bool) -> str:
    if held:
        return f"Made with a model that may not fit these people ({verdict}): take the order with caution"
    return "Too few people to check the model on this batch" if verdict == "insufficient" else ""
