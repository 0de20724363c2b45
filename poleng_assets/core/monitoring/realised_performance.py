"""Realised performance: scores of the warehouse against the outcomes that arrived for them.

Outcomes meet scores by id alone, so they may come late, in parts, twice, before the batch, or for people
whom several batches and versions scored. What belongs here is what is measured, how partial outcomes are
weighed, and what was lost; what is done about a loss stands in ``core/monitoring/verdict.py``.

Outcomes are known mostly of those who were contacted, and a model looks blind or brilliant when only its
contacts are looked at (verification bias). So contacts and others, and among them people of like scores,
are weighed to their numbers among everybody scored.

Sources:
    C. Begg, R. Greenes, Biometrics 39, 1983 (weighing what is verified to everybody tested).
    B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval).
    NannyML, PerformanceCalculator: https://nannyml.readthedocs.io/en/v0.13.1/
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import duckdb
import numpy as np
import pandas as pd

from poleng_assets.core.monitoring.measurements import Estimate, Loss
from poleng_assets.core.monitoring.verdict import SURE
from poleng_assets.core.statistics.intervals import central, hanley_mcneil_error, wilson_interval
from poleng_assets.core.statistics.metrics import row_log_loss
from poleng_assets.core.statistics.poststratification import effective_rows, match, systematic
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import replace, transaction

# Our name of each metric, and NannyML's when it has it.
REALISED_METRICS = {
    "auc": "roc_auc",
    "average_precision": "average_precision",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "log_loss": None,
    "brier": None,
}
# From this share of a stratum on, those who are not known cannot make it look another way.
NEARLY_ALL = 0.9
# Parts by score into which contacts and others are split when many of them are not known.
SCORE_PARTS = 5
MIN_IN_PART = 10
REPEATS = 200
SEED = 23
# Rows that a weighted frame is repeated to, at least: NannyML knows no weights.
REPEATED_ROWS = 20_000


@dataclass(frozen=True)
class Realised:
    """How good the scores of one batch under one version turned out to be.

    Attributes:
        estimates: value and interval of each metric that can be said, and the reference's value.
        respondents: people scored whose outcome is known.
        scored: people scored.
        contradictory: of the respondents, those about whom different files disagree.
        losses: for AUC and log-loss: what was lost in words (``the AUC is lower``), how much, and how
            much of it is tolerated; empty without a reference or with too few outcomes to judge.
        missing_because: why metrics are missing, a sentence without its full stop; may be empty.
    """

    estimates: tuple[Estimate, ...]
    respondents: int
    scored: int
    contradictory: int = 0
    losses: tuple[tuple[str, Loss, float], ...] = ()
    missing_because: str = ""

    @property
    def coverage(self) -> float:
        """Share of the people scored whose outcome is known."""
        return self.respondents / self.scored

    @property
    def surely_lost(self) -> tuple[tuple[str, Loss, float], ...]:
        """The losses that are beyond what is tolerated, and no accident of who was asked."""
        return tuple(one for one in self.losses if one[1].surely_above(one[2], SURE))

    def estimate(self, metric: str) -> Estimate | None:
        """Return the figure of one metric, or None."""
        return next((one for one in self.estimates if one.metric == metric), None)


def touched(con: duckdb.DuckDBPyConnection, study: Study, source: str) -> list[tuple[str, int]]:
    """Return each batch and model version whose scores a file of outcomes speaks about."""
    found = con.execute(
        f"""SELECT DISTINCT p.batch, p.model_version FROM predictions p
        JOIN outcomes o ON o."{study.id}" = p."{study.id}" WHERE o.source = ? ORDER BY ALL""",  # noqa: S608
        [source],
    ).fetchall()
    return [(batch, version) for batch, version in found]


def unknown_respondents(con: duckdb.DuckDBPyConnection, study: Study, source: str) -> int:
    """Return how many people of a file of outcomes stand in no batch, or in none so far."""
    found = con.execute(
        f"""SELECT count(*) FROM outcomes WHERE source = ?
        AND "{study.id}" NOT IN (SELECT "{study.id}" FROM batch_rows)""",  # noqa: S608
        [source],
    ).fetchall()
    return int(found[0][0])


def contradictory_respondents(con: duckdb.DuckDBPyConnection, study: Study, source: str) -> int:
    """Return about how many people of a file of outcomes another file says otherwise."""
    found = con.execute(
        f"""SELECT count(*) FROM outcomes told WHERE told.source = $source AND EXISTS (
            SELECT 1 FROM outcomes other WHERE other."{study.id}" = told."{study.id}"
            AND other."{study.target.name}" <> told."{study.target.name}")""",  # noqa: S608
        {"source": source},
    ).fetchall()
    return int(found[0][0])


def realised(
    con: duckdb.DuckDBPyConnection, study: Study, batch: str, version: int, reference: pd.DataFrame | None
) -> Realised | None:
    """Hold the scores of a batch under one version against all outcomes known by now.

    Of a respondent with several outcomes the newest counts. Contacts are those that the rule of their
    day decided on.

    Args:
        con: of the warehouse.
        study: names of columns, and the policies ``outcomes`` and ``overseer``.
        batch: its id.
        version: of the model.
        reference: of that version: features, target, ``score`` and ``contact`` (0/1); None when there is
            none to compare with.

    Returns:
        The figures, or None when no outcome of these people is known.
    """
    people = _scored(con, study, batch, version)
    known = people["target"].notna()
    if not known.any():
        return None
    sample, missing = _sample(people, study)
    estimates: tuple[Estimate, ...] = ()
    losses: tuple[tuple[str, Loss, float], ...] = ()
    if sample is not None and not missing:
        estimates, losses = _measure(sample, study, reference)
    elif sample is not None:
        estimates = _precision(sample)
    return Realised(
        estimates=estimates,
        respondents=int(known.sum()),
        scored=len(people),
        contradictory=int(people["disagree"].sum()),
        losses=losses,
        missing_because=missing or _unsaid(estimates),
    )


def record_realised_performance(
    con: duckdb.DuckDBPyConnection, batch: str, version: int, measured: Realised
) -> None:
    """Keep the figures of one batch and version in the place of earlier ones, in one transaction."""
    rows = pd.DataFrame(
        [
            {"metric": e.metric, "value": e.value, "lower": e.lower, "upper": e.upper}
            for e in measured.estimates
        ]
    )
    with transaction(con):
        replace(con, "performance", {"batch": batch, "model_version": version, "kind": "realised"}, rows)


@dataclass(frozen=True)
class _Sample:
    """People whose target is known, weighed to those they stand for. All arrays have shape (n,).

    Attributes:
        target: 0 or 1.
        score: probability of 1.
        contact: bool.
        weights: above 0.
        strata: positions of the rows of each stratum, and how many people it stands for.
        within: the feature that people are compared within, None when there is none.
    """

    target: np.ndarray
    score: np.ndarray
    contact: np.ndarray
    weights: np.ndarray
    strata: tuple[tuple[np.ndarray, float], ...]
    within: pd.Series | None = None

    @property
    def even(self) -> bool:
        return bool(np.ptp(self.weights) <= 1e-9 * self.weights.max())

    @cached_property
    def positions(self) -> np.ndarray:
        """Rows repeated so that plain figures are the weighted ones."""
        if self.even:
            return np.arange(len(self.target))
        # In this order those who are alike are repeated evenly.
        order = np.lexsort((self.score, self.target, self.contact))
        return order[systematic(self.weights[order], max(REPEATED_ROWS, 4 * len(order)))]

    @cached_property
    def _row_losses(self) -> dict[str, np.ndarray]:
        return {
            "log_loss": row_log_loss(self.target, self.score),
            "brier": np.square(self.score - self.target),
        }

    @cached_property
    def _places(self) -> np.ndarray:
        """Number of each row's score among the different scores, lowest first."""
        return np.unique(self.score, return_inverse=True)[1]

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """Return every figure that can be said of these people under other weights.

        Fast, because resamples ask for it many times over; the values themselves come from libraries.
        """
        total, hits = weights.sum(), weights[self.contact & (self.target == 1)].sum()
        positives, contacts = weights[self.target == 1].sum(), weights[self.contact].sum()
        result = {name: float(weights @ losses / total) for name, losses in self._row_losses.items()}
        result["accuracy"] = float(weights[self.contact == (self.target == 1)].sum() / total)
        if contacts > 0:
            result["precision"] = float(hits / contacts)
        if positives > 0:
            result["recall"] = float(hits / positives)
        if 0 < positives < total:
            positive = np.bincount(self._places, weights * self.target)
            negative = np.bincount(self._places, weights * (1 - self.target))
            below = np.cumsum(negative) - negative / 2
            result["auc"] = float(positive @ below / (positives * (total - positives)))
            found = np.cumsum(positive[::-1])
            shown = np.maximum(found + np.cumsum(negative[::-1]), np.finfo(float).tiny)
            result["average_precision"] = float(positive[::-1] @ (found / shown) / positives)
        return result

    def resampled(self) -> dict[str, np.ndarray]:
        """Return each figure over resamples of the people, stratum by stratum.

        How many of everybody stand in which stratum is drawn first: who is scored is chance as well.
        """
        random = np.random.default_rng(SEED)
        stands_for = np.array([people for _, people in self.strata])
        everybody = round(stands_for.sum())
        drawn: dict[str, list[float]] = {}
        for _ in range(REPEATS):
            weights = np.zeros(len(self.target))
            shares = random.multinomial(everybody, stands_for / stands_for.sum()) / stands_for
            for (rows, _), share in zip(self.strata, shares, strict=True):
                times = np.bincount(random.integers(0, len(rows), len(rows)), minlength=len(rows))
                weights[rows] = self.weights[rows] * times * share
            if weights.sum() > 0:
                for name, value in self.figures(weights).items():
                    drawn.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in drawn.items()}


def _scored(con: duckdb.DuckDBPyConnection, study: Study, batch: str, version: int) -> pd.DataFrame:
    """Return everybody scored, with the newest outcome (NaN when unknown) and whether outcomes disagree."""
    within, target = study.policies.overseer.compare_within, study.target.name
    column = f'b."{within}"' if within else "NULL"
    return con.execute(
        f"""WITH told AS (
            SELECT o."{study.id}" AS _person, o."{target}"::DOUBLE AS _target,
                min(o."{target}") OVER same <> max(o."{target}") OVER same AS _disagree
            FROM outcomes o JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = o.source
            WINDOW same AS (PARTITION BY o."{study.id}")
            QUALIFY row_number() OVER (
                PARTITION BY o."{study.id}" ORDER BY f.ingested_at DESC, o.source DESC) = 1
        )
        SELECT p.score, p.contact, {column} AS within, coalesce(p.audit, false)
                OR p."{study.id}" IN (SELECT "{study.id}" FROM field_study_requests) AS by_lot,
            told._target AS target, coalesce(told._disagree, false) AS disagree
        FROM predictions p LEFT JOIN told ON told._person = p."{study.id}"
        LEFT JOIN batch_rows b ON b.batch = p.batch AND b."{study.id}" = p."{study.id}"
        WHERE p.batch = $batch AND p.model_version = $version ORDER BY p."{study.id}" """,  # noqa: S608
        {"batch": batch, "version": version},
    ).df()


def _sample(people: pd.DataFrame, study: Study) -> tuple[_Sample | None, str]:
    """Choose whose outcomes count, and weigh them to everybody.

    Outcomes of people who were not contacted are those of whoever happened to be known, unless they were
    drawn by lot, for the audit sample or for a request, or are nearly complete.

    Returns:
        The sample, None when there are not enough contacts to say anything; and why something is missing.
        With a sample and a reason, the sample has the contacts only.
    """
    least = study.policies.outcomes.min_interviews
    chosen: list[tuple[pd.DataFrame, float]] = []
    missing = ""
    for contact, who in ((True, "contacts"), (False, "people who were not contacted")):
        group = people[people["contact"] == contact]
        if group.empty:
            continue
        known = group[group["target"].notna()]
        if len(known) >= NEARLY_ALL * len(group):
            chosen.append((known, float(len(group))))
            continue
        by_lot = known[known["by_lot"]]
        if not contact and len(by_lot) >= least:
            known = by_lot
        if len(known) < least:
            missing = f"the outcomes of {len(known)} of {len(group)} {who} are known, {least} are needed"
            if contact:
                return None, missing
            if chosen:
                missing += ": only the precision can be said"
            continue
        chosen += _by_score(group, known)
    if not chosen:
        return None, missing
    ends = np.cumsum([len(known) for known, _ in chosen])
    strata = tuple(
        (np.arange(end - len(known), end), size) for end, (known, size) in zip(ends, chosen, strict=True)
    )
    rows = pd.concat([known for known, _ in chosen], ignore_index=True)
    weights = np.concatenate([np.full(len(places), size / len(places)) for places, size in strata])
    within = rows["within"] if study.policies.overseer.compare_within else None
    return _as_sample(rows, "target", weights, strata, within), missing


def _by_score(group: pd.DataFrame, known: pd.DataFrame) -> list[tuple[pd.DataFrame, float]]:
    """Split the known of a group into parts of equal numbers of the group, by score.

    Lists are worked off from the top, and interviews asked for where scores are uncertain: who is known
    depends on the score. As many parts as leave each enough known people, and no more than some.

    Returns:
        For each part its known people, and how many of the group they stand for.
    """
    for parts in range(SCORE_PARTS, 1, -1):
        ends = np.quantile(group["score"], np.arange(1, parts) / parts)
        places = np.digitize(known["score"], ends)
        found = np.bincount(places, minlength=parts)
        if found.min() >= MIN_IN_PART:
            sizes = np.bincount(np.digitize(group["score"], ends), minlength=parts)
            return [(known[places == part], float(sizes[part])) for part in range(parts)]
    return [(known, float(len(group)))]


def _as_sample(
    rows: pd.DataFrame,
    target: str,
    weights: np.ndarray,
    strata: tuple[tuple[np.ndarray, float], ...],
    within: pd.Series | None = None,
) -> _Sample:
    return _Sample(
        rows[target].to_numpy(dtype=float).astype(int),
        rows["score"].to_numpy(dtype=float),
        rows["contact"].to_numpy().astype(bool),
        weights,
        strata,
        within,
    )


def _comparable(reference: pd.DataFrame, sample: _Sample, study: Study) -> _Sample:
    """Weigh the reference to the mix of the people whose outcomes are known."""
    policy, rows = study.policies.overseer, len(reference)
    there = here = None
    if sample.within is not None:
        here = sample.within.iloc[sample.positions].reset_index(drop=True)
        there = reference[str(policy.compare_within)]
    weights = match(there, here, (rows, len(sample.positions)), policy.min_stratum).weights
    # Those whom nobody in the batch is like have no say.
    kept = np.flatnonzero(weights > 0)
    strata = ((np.arange(len(kept)), float(len(kept))),)
    return _as_sample(reference.iloc[kept], study.target.name, weights[kept], strata)


def _measure(
    sample: _Sample, study: Study, reference: pd.DataFrame | None
) -> tuple[tuple[Estimate, ...], tuple[tuple[str, Loss, float], ...]]:
    there = None if reference is None or reference.empty else _comparable(reference, sample, study)
    values = _values(sample)
    usual = {} if there is None else there.figures(there.weights)
    drawn = sample.resampled()
    estimates = tuple(
        Estimate(metric, values[metric], *central(drawn[metric]), usual.get(metric))
        for metric in REALISED_METRICS
        if metric in values and metric in drawn
    )
    # As few people as the overseer takes no batch seriously with say nothing about a loss either.
    if there is None or len(sample.target) < study.policies.overseer.min_rows:
        return estimates, ()
    return estimates, tuple(_losses(sample, there, values, usual, drawn, study))


def _losses(
    sample: _Sample,
    there: _Sample,
    values: dict[str, float],
    usual: dict[str, float],
    drawn: dict[str, np.ndarray],
    study: Study,
) -> list[tuple[str, Loss, float]]:
    drawn_there, losses = there.resampled(), []
    policies = study.policies
    for metric, sign, words, tolerated in (
        ("auc", -1, "the AUC is lower", policies.overseer.max_auc_drop),
        ("log_loss", 1, "the log-loss is higher", policies.outcomes.max_log_loss_rise),
    ):
        if metric in values and metric in usual:
            error = float(drawn[metric].std())
            if metric == "auc":
                # Resamples of a handful of positives are all alike, and would be sure of anything.
                least = hanley_mcneil_error(max(usual[metric], 0.5), *_effective(sample))
                error = max(error, least)
            loss = Loss(sign * (values[metric] - usual[metric]), math.hypot(error, drawn_there[metric].std()))
            losses.append((words, loss, tolerated))
    return losses


def _effective(sample: _Sample) -> tuple[float, float]:
    """Return how many unweighted positives and negatives tell as much."""
    positive = sample.target == 1
    return effective_rows(sample.weights[positive]), effective_rows(sample.weights[~positive])


def _values(sample: _Sample) -> dict[str, float]:
    """Return the figures of the sample from NannyML and scikit-learn."""
    from sklearn.metrics import brier_score_loss, log_loss

    values = _by_nannyml(sample)
    values["log_loss"] = float(
        log_loss(sample.target, sample.score, sample_weight=sample.weights, labels=[0, 1])
    )
    values["brier"] = float(brier_score_loss(sample.target, sample.score, sample_weight=sample.weights))
    # NannyML has nothing to say of one class, nor of decisions when everybody is contacted or nobody.
    return sample.figures(sample.weights) | values


def _by_nannyml(sample: _Sample) -> dict[str, float]:
    """Return what NannyML's performance calculator says of the sample as one chunk."""
    if sample.target.min() == sample.target.max():
        return {}
    decided = sample.contact.any() and not sample.contact.all()
    metrics = [name for name in REALISED_METRICS.values() if name]
    import nannyml

    rows = pd.DataFrame(
        {"target": sample.target, "contact": sample.contact.astype(int), "score": sample.score}
    )
    rows = rows.iloc[sample.positions].reset_index(drop=True)
    calculator = nannyml.PerformanceCalculator(
        metrics=metrics if decided else metrics[:2],
        y_true="target",
        y_pred="contact",
        y_pred_proba="score",
        problem_type="classification_binary",
        chunk_number=1,
    )
    with warnings.catch_warnings():
        # It warns of too few chunks, and of resamples of few people: it makes thresholds and errors of
        # them that are not used here. For these it measures the very rows that it is fitted on.
        warnings.filterwarnings("ignore", message="The resulting number of chunks is too low")
        warnings.filterwarnings("ignore", message="No positive class found")
        calculator.fit(rows)
    assert calculator.result is not None
    measured = calculator.result.to_df().iloc[0]
    return {
        ours: float(measured[(theirs, "value")])
        for ours, theirs in REALISED_METRICS.items()
        if theirs and (theirs, "value") in measured.index and math.isfinite(measured[(theirs, "value")])
    }


def _precision(contacts: _Sample) -> tuple[Estimate, ...]:
    if not contacts.contact.any():
        return ()
    precision = contacts.figures(contacts.weights)["precision"]
    rows = round(effective_rows(contacts.weights))
    return (Estimate("precision", precision, *wilson_interval(precision * rows, rows)),)


def _unsaid(estimates: Sequence[Estimate]) -> str:
    said = {estimate.metric for estimate in estimates}
    if "auc" in said:
        return ""
    return "the known outcomes are all alike: there is no ranking to speak of"
