"""Scoring: every respondent of a batch gets a score, and the lists that contact centres open."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
from pydantic import Field

from poleng_assets.assets.batches import batches
from poleng_assets.assets.promotion import champion
from poleng_assets.core.ledger import is_decided
from poleng_assets.core.markdown import frame_as_table
from poleng_assets.core.tables import now, record_decision, replace, transaction
from poleng_assets.core.warehouse import Warehouse
from poleng_assets.files import in_place_of, write_whole
from poleng_assets.partitions import batch_partitions
from poleng_assets.resources.landing import Landing
from poleng_assets.resources.registry import Registry
from poleng_assets.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.rollback import untold_rollback
from poleng_assets.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from poleng_assets.core.contact_workbook import AboutList

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
    from poleng_assets.core.accounting import account, balance, rows_in
    from poleng_assets.core.scoring import score_batch

    batch = context.partition_key
    with warehouse.connect() as con:
        version = registry.serving(con, context.log.warning) or registry.champion()
        if untold := untold_rollback(con, context.instance):
            context.log_event(untold)
        model = registry.model(version)
        respondents, contacts = score_batch(con, model, warehouse.study, batch, version.version)
        unscored = _unscored(con, warehouse.study, batch)
        in_file = rows_in(landing.archived("batches", batch), warehouse.study, "batches")
        counted = account(con, warehouse.study, "batches", batch, in_file)
        everything = balance(con)
        histogram = con.execute(
            """SELECT floor(score * 10) / 10 AS "score from", count(*) AS respondents
            FROM current_predictions WHERE batch = ? GROUP BY 1 ORDER BY 1""",
            [batch],
        ).df()
    return dg.MaterializeResult(
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
    """Whether to make the list of a held batch."""

    release: str = Field(
        default="",
        description="Why to make the list of a held batch now, with the present champion. "
        "Leave it empty to keep a drifted or untrusted batch waiting for a better model.",
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
    """The people of a batch worth an intervention, in words, strongest first; not made while it is held."""
    from poleng_assets.core.contact_list import as_csv
    from poleng_assets.core.contact_list import contact_list as make_list
    from poleng_assets.core.contact_workbook import AboutList, write_workbook
    from poleng_assets.core.reasons import strongest_reasons

    batch = context.partition_key
    with warehouse.connect() as con:
        verdict, held, version = _newest_report(con, batch)
        if held and not config.release:
            context.log.info(
                f"{batch} is {verdict}: its list is held back until the overseer has "
                "tried to get a better model"
            )
            return
        remark = _remark(verdict, held)
        scored = _scored(con, warehouse.study, batch)
        model = registry.model(registry.version(version))
        flagged = scored["contact"]
        scored["reasons"] = ""
        scored.loc[flagged, "reasons"] = strongest_reasons(model, scored[flagged], warehouse.study)
        listed = make_list(scored, warehouse.study, remark)
        about = AboutList(batch, now(), version, asked=len(scored))
        workbook = landing.home.contact_lists / f"{batch}.xlsx"
        # Both are whole before either is in its place: people and machines get the same list.
        with in_place_of(workbook) as part:
            write_workbook(part, listed, warehouse.study, about)
            path = write_whole(landing.home.contact_lists / f"{batch}.csv", as_csv(listed))
        with transaction(con):
            _keep(con, warehouse.study, about, scored, remark)
            why = f"the list of {batch} is made with the present champion: {config.release}"
            if config.release and not is_decided(con, "skip", batch, version, why):
                record_decision(
                    con,
                    "skip",
                    why,
                    evidence={"batch": batch, "verdict": verdict, "contacts": len(listed)},
                    champion_version=version,
                    batch=batch,
                    dagster_run_id=context.run.run_id,
                )
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(listed),
            "contacts": len(listed),
            "share_flagged": round(len(listed) / len(scored), 4) if len(scored) else 0.0,
            "model_version": version,
            "verdict": verdict,
            "remark": remark or "none",
            "workbook": dg.MetadataValue.path(str(workbook)),
            "list": dg.MetadataValue.path(str(path)),
        }
    )


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


def _keep(
    con: duckdb.DuckDBPyConnection, study: Study, about: "AboutList", scored: "pd.DataFrame", remark: str
) -> None:
    """Keep who was listed; what earlier versions listed stays, because those people were contacted."""
    chosen = scored.loc[scored["contact"], [study.id, "score", "reasons"]]
    rows = chosen.assign(created_at=about.made_at, remark=remark)
    replace(con, "contact_lists", {"batch": about.batch, "model_version": about.model_version}, rows)
