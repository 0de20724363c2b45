"""Promotion: the asset that decides which version serves. It records why, and moves the alias only then."""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from poleng_assets.core.data.versions import newest
from poleng_assets.core.ingestion.withdrawal import in_doubt, withdrawn
from poleng_assets.defs.assets.training import challenger
from poleng_assets.defs.resources.registry import mlflow_pages
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.models.registry import CHALLENGER, ModelVersion, Registry
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import escaped, table
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision

if TYPE_CHECKING:
    import pyarrow as pa

    from poleng_assets.core.modeling.model import Model
    from poleng_assets.core.promotion.gates import Gate
    from poleng_assets.core.promotion.shadow_scoring import Scored, Shadow
    from poleng_assets.core.statistics.selection_rates import GroupContacts

CAN_SERVE = "champion_can_serve"
# Always the same: scores and lists of earlier batches stand when another version serves, and the UI must not
# call them unsynced, which invites to make them again.
WHOEVER_SERVES = "whoever serves"
# Of a larger batch a sample is scored in the shadow: always the same people.
SHADOW_ROWS = 50_000


@dg.asset(
    deps=[challenger],
    group_name="model",
    kinds={"mlflow"},
    owners=["team:ml"],
    pool=WAREHOUSE_POOL,
    check_specs=[
        dg.AssetCheckSpec(
            CAN_SERVE,
            asset="champion",
            description="A version serves, and its model and reference are the files that were registered.",
        )
    ],
)
def champion(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    registry: dg.ResourceParam[Registry],
) -> dg.MaterializeResult:
    """The version that serves: the challenger when it is truly better, else the one that served before."""
    from poleng_assets.core.promotion.gates import promoted, reason
    from poleng_assets.core.statistics.selection_rates import in_words

    study = warehouse.study
    contender = registry.alias(CHALLENGER)
    if contender is None:
        raise dg.Failure("There is no challenger to judge: materialise it first.", allow_retries=False)
    with warehouse.connect() as con:
        serving = registry.serving(con, context.log.warning)
        # Who cannot score cannot be compared with: the challenger is judged like a first champion, and
        # anew if it was taken back before.
        # Who learned from what was withdrawn is not to be beaten either, but to be followed.
        fault = registry.validation_error(serving) if serving else ""
        if serving and not fault:
            fault = in_doubt(con, serving.version, serving.field_studies)
        if doubt := in_doubt(con, contender.version, contender.field_studies):
            raise dg.Failure(
                f"{doubt}, so it is not judged: retrain first (`poleng retrain`).", allow_retries=False
            )
        verdict: list[Gate] = []
        neglected: list[GroupContacts] = []
        earlier = None if fault else _earlier_decision(con, contender, serving)
        if earlier is not None:
            # A run that died after its decision runs again; a version that was taken back stays so.
            (won, why) = earlier
            shadow_words = "Nothing was scored: this version is not judged again."
        else:
            rival = None if fault else serving
            mine, theirs = registry.model(contender), registry.model(rival) if rival else None
            shadows = _shadows(con, study, mine, theirs) if theirs else []
            shadow_words = _shadow_words(study, shadows, rival)
            for words in [one.in_words() for one in shadows] or [shadow_words]:
                context.log.info(words)
            contestants = [contender, rival] if rival else [contender]
            verdict, neglected = _gates(con, study, contestants, mine, theirs)
            won, why = promoted(verdict), reason(verdict)
            if words := in_words(neglected, study.policies.promotion):
                context.log.warning(f"Version {contender.version} {words}")
                why = f"{why}; flagged: it {words}"
            if fault:
                why = f"{why}; judged like a first champion, because {fault}"
            record_decision(
                con,
                "promote" if won else "reject",
                why,
                evidence={
                    "gates": [vars(gate) for gate in verdict],
                    "passed_over": [vars(one) for one in neglected],
                    "shadow": [one.evidence() for one in shadows],
                    "field_studies": contender.field_studies,
                    "challenger": contender.version,
                    "champion_before": serving.version if serving else None,
                },
                champion_version=contender.version if won else (serving.version if serving else None),
                challenger_version=contender.version,
                training_data_hash=contender.training_data_hash,
                dagster_run_id=context.run.run_id,
                mlflow_run_id=contender.run_id,
            )
        # After the ledger: a version that serves has its reason there, at every moment.
        if won and (lost := registry.appoint(contender.version)):
            context.log.warning(f"Version {contender.version} serves, as the ledger says. {lost}")
    serves = contender if won else serving
    context.log.info(f"Version {contender.version} is {'promoted' if won else 'not promoted'}: {why}")
    told = _metadata(contender, serves, verdict, won, why, shadow_words)
    told["passed_over"] = "; ".join(one.in_words() for one in neglected) or "nobody"
    # What is wrong with the one that served before is known by now.
    broken = registry.validation_error(contender) if won else fault
    if serves is None:
        broken = "no version serves: the first challenger was rejected"
    return dg.MaterializeResult(
        data_version=dg.DataVersion(WHOEVER_SERVES),
        metadata=told | (mlflow_pages(registry, serves) if serves else {}),
        check_results=[
            dg.AssetCheckResult(
                passed=not broken,
                check_name=CAN_SERVE,
                metadata={
                    "what_is_wrong": broken or "nothing",
                    "serving_version": serves.version if serves else 0,
                },
            )
        ],
    )


def _gates(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    contestants: list[ModelVersion],
    mine: "Model",
    theirs: "Model | None",
) -> "tuple[list[Gate], list[GroupContacts]]":
    """Score both contestants afresh on the same frozen holdout, and put the scores to the gates.

    Also return the groups that the challenger's rule passes over.
    """
    from poleng_assets.core.promotion.gates import Holdout, contest, groups_passed_over
    from poleng_assets.core.statistics.groups import groups_in_words
    from poleng_assets.core.statistics.selection_rates import group_questions

    rows = _holdout_rows(con, study, contestants)
    holdout = Holdout(
        target=rows[study.target.name].to_numpy(),
        population=rows["field_study"].to_numpy(zero_copy_only=False),
        groups=groups_in_words(study, rows, study.protected),
        contacted=groups_in_words(study, rows, group_questions(study)),
    )
    score, policy = mine.score(rows), study.policies.promotion
    flagged = mine.rule.decide(score)
    gates = contest(holdout, score, theirs.score(rows) if theirs else None, flagged, policy)
    return gates, groups_passed_over(holdout, flagged, policy) if rows.num_rows else []


def _shadows(con: duckdb.DuckDBPyConnection, study: Study, mine: "Model", theirs: "Model") -> "list[Shadow]":
    """Score the newest batches with both models, newest first; nothing of it is written down."""
    newest = con.execute(
        "SELECT name FROM ingested_files WHERE kind = 'batches' ORDER BY ingested_at DESC, name LIMIT ?",
        [study.policies.promotion.shadow_batches],
    ).fetchall()
    return [_shadow(con, study, batch, mine, theirs) for (batch,) in newest]


def _shadow(
    con: duckdb.DuckDBPyConnection, study: Study, batch: str, mine: "Model", theirs: "Model"
) -> "Shadow":
    from poleng_assets.core.promotion.shadow_scoring import Scored, compare, contacts
    from poleng_assets.core.statistics.groups import groups_in_words

    columns = ", ".join(f'"{name}"' for name in (study.id, *study.feature_names))
    rows = con.sql(
        f"""SELECT {columns} FROM batch_rows WHERE batch = ?
        ORDER BY md5("{study.id}") LIMIT {SHADOW_ROWS}""",  # noqa: S608
        params=[batch],
    ).to_arrow_table()
    ((batch_rows,),) = con.execute("SELECT count(*) FROM batch_rows WHERE batch = ?", [batch]).fetchall()

    ids = rows[study.id].to_numpy()

    def scored_by(model: "Model") -> "Scored":
        score = model.score(rows)
        return Scored(score, contacts(model.rule, score, ids, batch_rows))

    return compare(
        batch,
        champion=scored_by(theirs),
        challenger=scored_by(mine),
        groups=groups_in_words(study, rows, study.protected),
        batch_rows=batch_rows,
        min_group_rows=study.policies.promotion.min_group_rows,
    )


def _shadow_words(study: Study, shadows: "list[Shadow]", serving: ModelVersion | None) -> str:
    """Return the table of the shadow scorings, or why there is none."""
    from poleng_assets.core.promotion.shadow_scoring import table

    if shadows:
        return table(shadows)
    if serving is None:
        return "Nothing was scored in the shadow: no champion serves yet."
    if study.policies.promotion.shadow_batches == 0:
        return "Nothing was scored in the shadow: the study asks for no batches."
    return "Nothing was scored in the shadow: no batch was taken in yet."


def _holdout_rows(
    con: duckdb.DuckDBPyConnection, study: Study, contestants: list[ModelVersion]
) -> "pa.Table":
    """Return the holdout rows of every field study that a contestant knows: nobody trained on them."""
    columns = ", ".join(f'"{name}"' for name in [*study.feature_names, study.target.name])
    # Who stands in a study and in its correction is judged by the corrected answers, once.
    known = newest({name for one in contestants for name in one.field_studies}.difference(withdrawn(con)))
    return con.sql(
        f"""SELECT field_study, {columns} FROM field_study_rows
        WHERE part = 'holdout' AND field_study IN (SELECT unnest(?)) ORDER BY field_study, row_number""",  # noqa: S608
        params=[known],
    ).to_arrow_table()


def _earlier_decision(
    con: duckdb.DuckDBPyConnection, contender: ModelVersion, serving: ModelVersion | None
) -> tuple[bool, str] | None:
    """Return whether a version is to serve, and why, when the ledger knows already; else None.

    A rejection holds against the champion that it was pronounced for. A promotion holds until another
    one or a rollback: its run may have died before the alias moved.
    """
    found = con.execute(
        """SELECT kind, reason, champion_version, decided_at = (
            SELECT max(decided_at) FROM decisions WHERE kind IN ('promote', 'rollback'))
        FROM decisions WHERE kind IN ('promote', 'reject', 'rollback') AND challenger_version = ?
        ORDER BY decided_at DESC LIMIT 1""",
        [contender.version],
    ).fetchall()
    if not found:
        return None
    kind, why, champion_then, newest = found[0]
    if kind == "reject" and champion_then != (serving.version if serving else None):
        return None
    return kind == "promote" and newest, why


def _metadata(
    contender: ModelVersion,
    serves: ModelVersion | None,
    verdict: "list[Gate]",
    won: bool,
    why: str,
    shadow_words: str,
) -> dict[str, Any]:
    rows = [(gate.name, "passed" if gate.passed else "failed", gate.words) for gate in verdict]
    return {
        "promoted": won,
        "serving_version": serves.version if serves else 0,
        "challenger_version": contender.version,
        "reason": why,
        "gates": dg.MetadataValue.md(
            table(["gate", "", "what was found"], rows) if verdict else escaped(why)
        ),
        "shadow": dg.MetadataValue.md(shadow_words),
        "figures": dg.MetadataValue.json({gate.name: dict(gate.figures) for gate in verdict}),
        "judged_field_studies": dg.MetadataValue.json(json.loads(contender.tags["field_study_hashes"])),
        "training_data_hash": contender.training_data_hash,
        "mlflow_run_id": contender.run_id,
    }
