"""Performance without labels: NannyML's CBPE, the loss, and whether the estimate can be trusted.

Confidence-based performance estimation takes scores for probabilities and asks how good decisions
would be if they were true. They are calibrated on the people of the reference whom the batch is compared
with, by two parameters (J. Platt, 1999): NannyML's isotonic regression learns a reference of a few
thousand by heart, and its estimates were too high by .011 on unchanged batches of the real survey.
https://nannyml.readthedocs.io/en/v0.13.1/how_it_works/performance_estimation.html
"""

import math
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poleng_assets.core.monitoring.measurements import CONTACT, SCORE, Estimate, Loss, Trust
from poleng_assets.core.statistics.calibration import fit
from poleng_assets.core.statistics.intervals import Z_95, hanley_mcneil_error
from poleng_assets.core.statistics.metrics import banded_auc
from poleng_assets.core.statistics.poststratification import WeightedReference
from poleng_assets.study.schema import Study

# NannyML's names of the metrics, and ours.
METRICS = {"roc_auc": "auc", "precision": "precision", "recall": "recall", "accuracy": "accuracy"}
BANDS = 200


@dataclass(frozen=True)
class Estimation:
    """The estimates of one batch.

    Attributes:
        estimates: with intervals that hold the sampling error of the batch and of the reference.
        loss: of AUC against the people of the reference whom the batch is compared with.
        half_width: of the interval of the AUC.
    """

    estimates: tuple[Estimate, ...]
    loss: Loss | None
    half_width: float


def estimate(
    reference: pd.DataFrame,
    batch: pd.DataFrame,
    weighted: WeightedReference,
    resampled: Future[tuple[np.ndarray, np.ndarray]],
    study: Study,
    beside: Executor,
) -> Estimation:
    """Estimate the performance on a batch from its scores.

    Args:
        reference: held-out rows with the target, ``score`` and ``contact`` (0/1), in their own order.
        batch: ``score`` and ``contact`` of the rows to measure, at least one.
        weighted: the reference, weighed to the batch.
        resampled: its weights in resamples, once they are drawn, see
            :meth:`poleng_assets.core.statistics.poststratification.WeightedReference.bootstrap_weights`.
        beside: does the linear algebra meanwhile, once it has ended what was given to it before.

    Returns:
        No estimates and no loss where the reference has only one class.
    """
    target = reference[study.target.name].to_numpy()
    if len(np.unique(target[weighted.weights > 0])) < 2:
        return Estimation((), None, math.inf)
    calibration = fit(_log_odds(reference[SCORE]), target, weighted.weights * len(target))
    known, new = (
        pd.DataFrame(
            {SCORE: calibration.probability(_log_odds(rows[SCORE])), CONTACT: rows[CONTACT].to_numpy()}
        )
        for rows in (reference, batch)
    )
    known[study.target.name] = target
    probability = known[SCORE].to_numpy()
    loss_error = beside.submit(lambda: _loss_error(probability, resampled.result()))
    expanded = known.iloc[weighted.expand_rows()].reset_index(drop=True)
    of_reference, of_batch = _cbpe(expanded, new, study.target.name)
    # NannyML knows the sampling error of the batch only; the reference is a sample too.
    widening = math.sqrt(1 + len(batch) / weighted.effective_rows)
    estimates = (
        *_with_intervals(of_reference, of_batch, new[SCORE], widening),
        *expected_row_losses(new[SCORE], batch[SCORE], target, reference[SCORE], weighted, widening),
    )
    auc = next((estimate for estimate in estimates if estimate.metric == "auc"), None)
    if auc is None:
        return Estimation(estimates, None, math.inf)
    lost = float(of_reference[("roc_auc", "value")]) - auc.value
    return Estimation(estimates, Loss(lost, loss_error.result()), (auc.upper - auc.lower) / 2)


def _cbpe(reference: pd.DataFrame, batch: pd.DataFrame, target: str) -> tuple[pd.Series, pd.Series]:
    """Return what NannyML estimates of the reference and of the batch, by metric and kind of value."""
    import nannyml
    from nannyml.calibration import NoopCalibrator

    estimator = nannyml.CBPE(
        y_true=target,
        y_pred=CONTACT,
        y_pred_proba=SCORE,
        problem_type="classification_binary",
        metrics=list(METRICS),
        chunk_number=1,
        calibrator=NoopCalibrator(),
    )
    rows = estimator.fit(reference).estimate(batch).to_df()
    return rows.iloc[0], rows.iloc[-1]


def _with_intervals(
    of_reference: pd.Series, of_batch: pd.Series, probability: pd.Series, widening: float
) -> Iterator[Estimate]:
    """Give each metric that could be estimated its interval, and its value on the reference."""
    for nannyml_name, metric in METRICS.items():
        value = float(of_batch[(nannyml_name, "value")])
        if metric == "auc":
            # NannyML's error of the AUC is too small by a seventh: .0124 on 1,000 people of the real
            # survey, where resampling their outcomes gives .0145.
            yes = float(probability.sum())
            error = hanley_mcneil_error(value, yes, len(probability) - yes)
        else:
            error = float(of_batch[(nannyml_name, "sampling_error")])
        half = Z_95 * widening * error
        realised = float(of_reference[(nannyml_name, "realized")])
        # Where nobody is contacted, there is no precision, and an error of nothing.
        if math.isfinite(value) and math.isfinite(half) and half > 0:
            known = realised if math.isfinite(realised) else None
            yield Estimate(metric, value, max(value - half, 0.0), min(value + half, 1.0), known)


def trust(estimation: Estimation, outside_support: float, shifted: bool, study: Study) -> Trust:
    """Return whether the estimated AUC can be trusted.

    Args:
        outside_support: share of rows with a code that the model never saw.
        shifted: whether answers shifted within strata.
    """
    policy = study.policies.overseer
    if outside_support > policy.max_outside_support:
        return Trust(False, "the batch is out of distribution")
    if not math.isfinite(estimation.half_width):
        return Trust(False, "there is no estimate")
    if estimation.half_width > policy.trusted_within:
        return Trust(
            False,
            f"too few people: the AUC is known to ±{estimation.half_width:.3f} only, "
            f"±{policy.trusted_within:.3f} is required",
        )
    if shifted:
        return Trust(
            False, "the answers shifted, and CBPE assumes no concept drift; only outcomes can confirm it"
        )
    return Trust(True)


def expected_row_losses(
    probability: pd.Series,
    score: pd.Series,
    target: np.ndarray,
    reference_score: pd.Series,
    weighted: WeightedReference,
    widening: float,
) -> Iterator[Estimate]:
    """Estimate the figures that are a mean over people, which NannyML does not: log-loss and Brier score.

    Each is expected over both outcomes of a person, in the proportion that the calibrated probability
    says; its error holds the chance of the outcome and of who was drawn.

    Args:
        probability: calibrated, of the batch's rows.
        score: of the same rows.
        target: of the reference's rows, 0 or 1.
        reference_score: of the same rows.
        weighted: the reference, weighed to the batch.
        widening: factor by which the reference's own chance widens an interval.
    """
    p, s, r = probability.to_numpy(), _inside(score), _inside(reference_score)
    for metric, cost in (("log_loss", lambda s: -np.log(s)), ("brier", lambda s: (1 - s) ** 2)):
        if_yes, if_no = cost(s), cost(1 - s)
        expected = p * if_yes + (1 - p) * if_no
        variance = (p * if_yes**2 + (1 - p) * if_no**2).mean() - expected.mean() ** 2
        half = Z_95 * widening * math.sqrt(max(variance, 0.0) / len(p))
        realised = np.where(target == 1, cost(r), cost(1 - r))
        value = float(expected.mean())
        yield Estimate(
            metric, value, max(value - half, 0.0), value + half, float(realised @ weighted.weights)
        )


def _loss_error(probability: np.ndarray, resampled: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the standard error of the estimated loss, over resamples of reference and batch."""
    order = np.argsort(probability, kind="stable")
    band = np.empty(len(order), dtype=np.int64)
    band[order] = np.arange(len(order)) * BANDS // len(order)
    positive = np.zeros((len(order), BANDS), np.float32)
    positive[np.arange(len(order)), band] = probability
    negative = np.zeros_like(positive)
    negative[np.arange(len(order)), band] = 1 - probability
    of_reference, of_batch = (banded_auc(weights @ positive, weights @ negative) for weights in resampled)
    return float((of_reference - of_batch).std())


def _log_odds(score: pd.Series) -> np.ndarray:
    kept = _inside(score)
    return np.log(kept / (1 - kept))


def _inside(score: pd.Series) -> np.ndarray:
    """Return scores between 0 and 1: those of exactly 0 or 1 have no log-odds."""
    return np.clip(score.to_numpy(dtype=np.float64), 1e-9, 1 - 1e-9)
