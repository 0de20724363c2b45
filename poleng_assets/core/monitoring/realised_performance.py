"""Realised performance: the scores of a batch against the outcomes that arrived for them.

Outcomes meet scores by id alone, so they may come late, in parts, twice, before the batch, or for people
whom several batches and versions scored. What belongs here is what is measured and what was lost. Whose
outcomes count is in ``core/monitoring/outcome_sample.py``, what is done about a loss in
``core/monitoring/verdict.py``.

Sources:
    NannyML, PerformanceCalculator: https://nannyml.readthedocs.io/en/v0.13.1/
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.monitoring.measurements import Estimate, Loss, MetricLoss
from poleng_assets.core.monitoring.outcome_sample import OutcomeSample, choose_sample, weigh_reference
from poleng_assets.core.statistics.intervals import central, hanley_mcneil_error, wilson_interval
from poleng_assets.core.statistics.metrics import METRICS
from poleng_assets.core.statistics.poststratification import effective_rows
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.performance import replace_performance

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


@dataclass(frozen=True)
class RealisedPerformance:
    """How good the scores of one batch under one version turned out to be.

    Attributes:
        estimates: value and interval of each metric that can be said, and the reference's value.
        respondents: people scored whose outcome is known.
        scored: people scored.
        contradictory: of the respondents, those about whom different files disagree.
        losses: of AUC and log-loss; empty without a reference or with too few outcomes to judge.
        missing_because: why metrics are missing, a sentence without its full stop; may be empty.
    """

    estimates: tuple[Estimate, ...]
    respondents: int
    scored: int
    contradictory: int = 0
    losses: tuple[MetricLoss, ...] = ()
    missing_because: str = ""

    @property
    def coverage(self) -> float:
        """Share of the people scored whose outcome is known."""
        return self.respondents / self.scored

    def significant_losses(self, confidence: float) -> tuple[MetricLoss, ...]:
        """Return the losses that are beyond what is tolerated, and no accident of who was asked."""
        return tuple(lost for lost in self.losses if lost.loss.is_above(lost.tolerated, confidence))

    def estimate(self, metric: str) -> Estimate | None:
        """Return the figure of one metric, or None."""
        return next((estimate for estimate in self.estimates if estimate.metric == metric), None)


def measure_realised(
    people: pd.DataFrame, study: Study, reference: pd.DataFrame | None
) -> RealisedPerformance | None:
    """Hold the scores of a batch under one version against all outcomes known by now.

    Of a respondent with several outcomes the newest counts. Contacts are those that the rule of their
    day decided on.

    Args:
        people: everybody scored, see :func:`poleng_assets.warehouse.predictions.outcomes_of_scored`.
        study: names of columns, and the policies ``outcomes`` and ``overseer``.
        reference: of that version: features, target, ``score`` and ``contact`` (0/1); None when there is
            none to compare with.

    Returns:
        The figures, or None when no outcome of these people is known.
    """
    known = people["target"].notna()
    if not known.any():
        return None
    sample, missing = choose_sample(people, study)
    estimates: tuple[Estimate, ...] = ()
    losses: tuple[MetricLoss, ...] = ()
    if sample is not None and not missing:
        estimates, losses = _measure(sample, study, reference)
    elif sample is not None:
        estimates = _precision(sample)
    return RealisedPerformance(
        estimates=estimates,
        respondents=int(known.sum()),
        scored=len(people),
        contradictory=int(people["disagree"].sum()),
        losses=losses,
        missing_because=missing or _why_no_ranking(estimates),
    )


def save_realised(con: Connection, batch: str, version: int, realised: RealisedPerformance) -> None:
    """Keep the figures of one batch and version in the place of earlier ones; called in a transaction."""
    replace_performance(con, batch, version, "realised", [e.row for e in realised.estimates])


def _measure(
    sample: OutcomeSample, study: Study, reference: pd.DataFrame | None
) -> tuple[tuple[Estimate, ...], tuple[MetricLoss, ...]]:
    weighed = None if reference is None or reference.empty else weigh_reference(reference, sample, study)
    values = _values(sample)
    usual = {} if weighed is None else weighed.figures(weighed.weights)
    policy = study.policies.outcomes
    drawn = sample.resampled(policy.resamples, policy.seed)
    estimates = tuple(
        Estimate(metric, values[metric], *central(drawn[metric]), usual.get(metric))
        for metric in REALISED_METRICS
        if metric in values and metric in drawn
    )
    # Fewer people than a batch needs to be judged are too few to judge a loss.
    if weighed is None or len(sample.target) < study.policies.overseer.min_rows:
        return estimates, ()
    return estimates, tuple(_losses(sample, weighed, values, usual, drawn, study))


def _losses(
    sample: OutcomeSample,
    reference: OutcomeSample,
    values: dict[str, float],
    usual: dict[str, float],
    drawn: dict[str, np.ndarray],
    study: Study,
) -> list[MetricLoss]:
    policies, losses = study.policies, []
    of_reference = reference.resampled(policies.outcomes.resamples, policies.outcomes.seed)
    for metric, what, tolerated in (
        ("auc", "the AUC is lower", policies.overseer.max_auc_drop),
        ("log_loss", "the log-loss is higher", policies.outcomes.max_log_loss_rise),
    ):
        sign = -1 if METRICS[metric].higher_is_better else 1
        if metric in values and metric in usual:
            error = float(drawn[metric].std())
            if metric == "auc":
                # Resamples of very few positives are alike and underestimate the error.
                least = hanley_mcneil_error(max(usual[metric], 0.5), *_effective(sample))
                error = max(error, least)
            loss = Loss(
                sign * (values[metric] - usual[metric]), math.hypot(error, of_reference[metric].std())
            )
            losses.append(MetricLoss(what, loss, tolerated))
    return losses


def _effective(sample: OutcomeSample) -> tuple[float, float]:
    """Return the effective numbers of positives and negatives."""
    positive = sample.target == 1
    return effective_rows(sample.weights[positive]), effective_rows(sample.weights[~positive])


def _values(sample: OutcomeSample) -> dict[str, float]:
    """Return the figures of the sample from NannyML and scikit-learn."""
    from sklearn.metrics import brier_score_loss, log_loss

    values = _by_nannyml(sample)
    values["log_loss"] = float(
        log_loss(sample.target, sample.score, sample_weight=sample.weights, labels=[0, 1])
    )
    values["brier"] = float(brier_score_loss(sample.target, sample.score, sample_weight=sample.weights))
    # NannyML has nothing to say of one class, nor of decisions when everybody is contacted or nobody.
    return sample.figures(sample.weights) | values


def _by_nannyml(sample: OutcomeSample) -> dict[str, float]:
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
        metric: float(measured[(nannyml_name, "value")])
        for metric, nannyml_name in REALISED_METRICS.items()
        if nannyml_name
        and (nannyml_name, "value") in measured.index
        and math.isfinite(measured[(nannyml_name, "value")])
    }


def _precision(contacts: OutcomeSample) -> tuple[Estimate, ...]:
    if not contacts.contact.any():
        return ()
    precision = contacts.figures(contacts.weights)["precision"]
    rows = round(effective_rows(contacts.weights))
    return (Estimate("precision", precision, *wilson_interval(precision * rows, rows)),)


def _why_no_ranking(estimates: Sequence[Estimate]) -> str:
    metrics = {estimate.metric for estimate in estimates}
    if "auc" in metrics:
        return ""
    return "the known outcomes have one class only, so ranking metrics are undefined"
