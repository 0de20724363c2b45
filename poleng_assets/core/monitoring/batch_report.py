"""One batch observed under one model version: read from the warehouse, measured, judged, and kept.

What was found is kept whole, so that its report can be made again at any time, with the outcomes that
are known by then, of any version that scored the batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pandas as pd
from pydantic import TypeAdapter

from poleng_assets.core.modeling.model import Model
from poleng_assets.core.monitoring.drift import measure_batch
from poleng_assets.core.monitoring.measurements import BatchFigures
from poleng_assets.core.monitoring.realised_performance import (
    Realised,
    realised,
    record_realised_performance,
)
from poleng_assets.core.monitoring.verdict import Judgement, Past, judge
from poleng_assets.core.reports.drift_report import render_report
from poleng_assets.core.statistics.selection_rates import GroupContacts, contacts_of_batch
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.decisions import already_recorded
from poleng_assets.warehouse.schema import record_decision, replace, stamp, transaction


@dataclass(frozen=True)
class Witness:
    """What a batch is held against: a model version and what belongs to it.

    Attributes:
        version: of the model.
        model: itself.
        reference: held-out rows with its out-of-sample scores.
        importance: how much each feature moves its scores.
    """

    version: int
    model: Model
    reference: pd.DataFrame
    importance: Mapping[str, float]


@dataclass(frozen=True)
class Observation:
    """A batch under a model version: what was found, what it means, and what outcomes say by now.

    Attributes:
        batch: its id.
        version: of the model.
        reference: of that version.
        scored: the rows that were measured, with ``score`` and ``contact``.
        figures: of the batch.
        judgement: of the overseer.
        realised: None as long as no outcome is known.
        contacts: how often people of each group are contacted.
    """

    batch: str
    version: int
    reference: pd.DataFrame
    scored: pd.DataFrame
    figures: BatchFigures
    judgement: Judgement
    realised: Realised | None
    contacts: Sequence[GroupContacts] = ()

    def page(self, study: Study) -> str:
        """Return the report as one self-contained HTML page."""
        known = self.realised
        return render_report(
            study,
            self.batch,
            self.version,
            self.figures,
            self.judgement,
            self.reference,
            self.scored,
            realised=known.estimates if known else (),
            realised_respondents=known.respondents if known else 0,
            contacts=self.contacts,
        )


_FIGURES = TypeAdapter(BatchFigures)
_JUDGEMENT = TypeAdapter(Judgement)


def observe(con: duckdb.DuckDBPyConnection, study: Study, batch: str, witness: Witness) -> Observation:
    """Measure and judge a batch by the scores that a version gave it; nothing is written.

    Raises:
        LookupError: this version did not score the batch.
    """
    version = witness.version
    rows, contacts = _size(con, batch, version)
    scored = _scored_sample(con, study, batch, version)
    figures = measure_batch(
        witness.reference,
        scored,
        witness.model.encoder.unseen(scored),
        study,
        rows=rows,
        contacts=contacts,
        quarantined=_quarantined(con, batch),
        importance=witness.importance,
    )
    outcomes = realised(con, study, batch, version, witness.reference)
    judgement = judge(figures, study, _past(con, batch, version), outcomes.losses if outcomes else ())
    by_group = contacts_of_batch(con, study, batch, version)
    return Observation(batch, version, witness.reference, scored, figures, judgement, outcomes, by_group)


def was_kept(con: duckdb.DuckDBPyConnection, batch: str, version: int) -> bool:
    """Return whether :func:`recall` can tell of this batch under this version."""
    return _kept(con, batch, version) is not None


def recall(
    con: duckdb.DuckDBPyConnection,
    study: Study,
    batch: str,
    version: int,
    reference: pd.DataFrame,
    outcomes: Realised | None = None,
) -> Observation:
    """Return what was found when the batch was observed, with what outcomes say by now.

    Args:
        con: of the warehouse.
        study: names of columns and policies.
        batch: its id.
        version: of the model, perhaps one that was rolled back since.
        reference: of that version.
        outcomes: what they say by now, see
            :func:`poleng_assets.core.monitoring.realised_performance.realised`.

    Raises:
        LookupError: the batch was not observed under this version.
    """
    found = _kept(con, batch, version)
    if found is None:
        raise LookupError(f"{batch} has no report under version {version}: materialise its drift_report")
    figures, judgement = found
    return Observation(
        batch,
        version,
        reference,
        _scored_sample(con, study, batch, version),
        _FIGURES.validate_json(figures),
        _JUDGEMENT.validate_json(judgement),
        outcomes,
        contacts_of_batch(con, study, batch, version),
    )


def keep(con: duckdb.DuckDBPyConnection, study: Study, seen: Observation, run_id: str) -> None:
    """Keep an observation in the warehouse, in one transaction, and a held batch in the ledger."""
    figures, judgement = seen.figures, seen.judgement
    auc = figures.estimate("auc")
    key = {"batch": seen.batch, "model_version": seen.version}
    report = {
        "verdict": judgement.verdict,
        "rows": figures.rows,
        "drifted_columns": len(judgement.drifted_columns),
        "reported_at": stamp(con, "drift_reports", "reported_at"),
        "first_reported_at": _first_time(con, seen.batch, seen.version),
        "outside_support": figures.outside_support,
        "flagged_share": figures.flagged_share,
        "estimated_auc": auc.value if auc else None,
        "reference_auc": auc.reference if auc else None,
        "rows_measured": figures.rows_measured,
        "reasons": "\n".join(judgement.words),
        "held": judgement.held,
        "alarm": judgement.alarm,
        "weak": judgement.weak,
        "trusted": figures.trust.trusted,
        "causes": json.dumps(sorted(judgement.causes)),
        "estimated_loss": figures.loss.value if figures.loss else None,
        "figures": _FIGURES.dump_json(figures).decode(),
        "judgement": _JUDGEMENT.dump_json(judgement).decode(),
    }
    columns = ["metric", "value", "lower", "upper"]
    estimates = pd.DataFrame([vars(one) for one in figures.estimates]).reindex(columns=columns)
    with transaction(con):
        replace(con, "drift_reports", key, pd.DataFrame([report]))
        replace(con, "drift_metrics", key, pd.DataFrame([vars(figure) for figure in figures.figures]))
        replace(con, "performance", {**key, "kind": "estimated"}, estimates)
        why = f"{seen.batch} is {judgement.verdict}: {judgement.words[0]}"
        if judgement.held and not already_recorded(con, "hold", seen.batch, seen.version, why):
            record_decision(
                con,
                "hold",
                why,
                evidence={
                    "reasons": judgement.words,
                    "causes": sorted(judgement.causes),
                    "alarm": judgement.alarm,
                    "drifted_columns": judgement.drifted_columns,
                },
                champion_version=seen.version,
                batch=seen.batch,
                dagster_run_id=run_id,
            )
    if seen.realised is not None:
        record_realised_performance(con, seen.batch, seen.version, seen.realised)


def scoring_version(con: duckdb.DuckDBPyConnection, batch: str) -> int | None:
    """Return the version of the batch's current scores, None when it has none."""
    found = con.execute(
        "SELECT any_value(model_version) FROM current_predictions WHERE batch = ?", [batch]
    ).fetchall()
    return found[0][0] if found else None


def _kept(con: duckdb.DuckDBPyConnection, batch: str, version: int) -> tuple[str, str] | None:
    found = con.execute(
        "SELECT figures, judgement FROM drift_reports WHERE batch = ? AND model_version = ?",
        [batch, version],
    ).fetchall()
    return found[0] if found and found[0][0] is not None else None


def _size(con: duckdb.DuckDBPyConnection, batch: str, version: int) -> tuple[int, int]:
    """Return respondents and contacts of a batch as a version scored it."""
    found = con.execute(
        "SELECT count(*), count(*) FILTER (contact) FROM predictions WHERE batch = ? AND model_version = ?",
        [batch, version],
    ).fetchall()
    rows, contacts = found[0]
    if not rows:
        raise LookupError(f"version {version} did not score {batch}: materialise its predictions first")
    return rows, contacts


def _scored_sample(con: duckdb.DuckDBPyConnection, study: Study, batch: str, version: int) -> pd.DataFrame:
    """Return the scored rows, or a sample of them that is always the same: NannyML holds whole frames."""
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    # Drawn by their ids: the answers of those who are not chosen need not be held beside each other.
    return con.execute(
        f"""WITH chosen AS (
            SELECT "{study.id}", score, contact::INTEGER AS contact, md5("{study.id}") AS draw
            FROM predictions WHERE batch = $batch AND model_version = $version ORDER BY draw LIMIT $rows)
        SELECT {columns}, c.score, c.contact
        FROM chosen c JOIN batch_rows b ON b.batch = $batch AND b."{study.id}" = c."{study.id}"
        ORDER BY c.draw""",  # noqa: S608
        {"batch": batch, "version": version, "rows": study.policies.overseer.report_sample},
    ).df()


def _quarantined(con: duckdb.DuckDBPyConnection, batch: str) -> int:
    found = con.execute(
        "SELECT rows_quarantined FROM ingested_files WHERE kind = 'batches' AND name = ?", [batch]
    ).fetchall()
    return int(found[0][0]) if found else 0


def _first_time(con: duckdb.DuckDBPyConnection, batch: str, version: int) -> datetime:
    """Return when the batch was first reported under this version: a report made again keeps its place."""
    found = con.execute(
        "SELECT first_reported_at FROM drift_reports WHERE batch = ? AND model_version = ?", [batch, version]
    ).fetchall()
    return (found[0][0] if found else None) or stamp(con, "drift_reports", "first_reported_at")


def _past(con: duckdb.DuckDBPyConnection, batch: str, version: int) -> list[Past]:
    """Return what was found in the batches before, under the same version, newest first."""
    found = con.execute(
        """SELECT batch, causes, coalesce(weak, false) FROM drift_reports
        WHERE model_version = $version AND batch <> $batch AND verdict <> 'insufficient'
        AND first_reported_at < coalesce((SELECT first_reported_at FROM drift_reports
            WHERE batch = $batch AND model_version = $version), 'infinity'::TIMESTAMPTZ)
        ORDER BY first_reported_at DESC""",
        {"batch": batch, "version": version},
    ).fetchall()
    return [Past(name, frozenset(json.loads(causes or "[]")), weak) for name, causes, weak in found]
