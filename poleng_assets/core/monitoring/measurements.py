"""The figures of one batch under one model version: what the overseer knows when it judges.

What belongs here is their shape. How they are measured is in ``core/monitoring/drift.py`` and
``core/monitoring/estimated_performance.py``, what they mean for the batch in ``core/monitoring/verdict.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Annotated, NamedTuple

from pydantic import Field

# Pseudo-columns: what the model said, and what was decided from it.
SCORE = "score"
CONTACT = "contact"
ALL_COLUMNS = "all_features"

JENSEN_SHANNON = "jensen_shannon"
L_INFINITY = "l_infinity"
COMPOSITION = "composition"
MISSING = "missing_values"
UNSEEN = "unseen_values"
OUT_OF_RANGE = "out_of_range"
QUARANTINED = "quarantined_rows"
RECONSTRUCTION = "reconstruction_error"
DOMAIN_CLASSIFIER = "domain_classifier_auc"
DISTANCES = (JENSEN_SHANNON, L_INFINITY)


@dataclass(frozen=True)
class DriftMetric:
    """One measured figure of one column; ``value`` is None when it could not be computed.

    Attributes:
        column_name: a feature, or one of the pseudo-columns.
        method: how it was measured.
        value: an effect size: a distance of 0 to 1, a share, or an error.
        lower_threshold: below it the figure alerts, None when there is no such limit.
        upper_threshold: above it the figure alerts, likewise.
        alert: whether it is beyond a threshold, or unknown.
    """

    column_name: str
    method: str
    value: float | None
    lower_threshold: float | None
    upper_threshold: float | None
    alert: bool

    @classmethod
    def compared(
        cls, column: str, method: str, value: float | None, upper: float | None, lower: float | None = None
    ) -> DriftMetric:
        """Compare a value with its thresholds; an undefined value is an alert."""
        if value is None or not math.isfinite(value):
            return cls(column, method, None, lower, upper, alert=True)
        beyond = (upper is not None and value > upper) or (lower is not None and value < lower)
        return cls(column, method, float(value), lower, upper, alert=bool(beyond))


@dataclass(frozen=True)
class Estimate:
    """One figure of performance, estimated without labels or realised with them.

    Attributes:
        metric: auc, precision, recall, accuracy ...
        value: on the batch.
        lower: end of the 95 % interval.
        upper: end of the 95 % interval.
        reference: realised on the people of the reference whom the batch is compared with; None when
            it has no such figure.
    """

    metric: str
    value: float
    lower: float
    upper: float
    reference: float | None = None

    @property
    def row(self) -> tuple[str, float, float, float]:
        """Metric, value and interval, as the warehouse keeps them."""
        return self.metric, self.value, self.lower, self.upper


@dataclass(frozen=True)
class Loss:
    """How much lower the AUC of the batch is than that of the reference.

    Attributes:
        value: AUC on those people of the reference less AUC on the batch, both measured alike.
        error: standard error of ``value``: of the batch and of the reference.
    """

    value: float
    error: float

    def is_above(self, tolerance: float, confidence: float) -> bool:
        """Whether the loss exceeds the tolerance and is significantly above zero."""
        return self.value > tolerance and self.value > NormalDist().inv_cdf(confidence) * self.error

    def description(self, what: str, tolerated: float) -> str:
        """Describe the loss, as in ``the AUC is lower by 0.050 (tolerated ...)``."""
        return f"{what} by {self.value:.3f} ± {2 * self.error:.3f} (tolerated {tolerated:.3f})"


class MetricLoss(NamedTuple):
    """The loss of one metric.

    Attributes:
        what: a clause, as in ``the AUC is lower``.
        loss: its size.
        tolerated: the tolerated loss.
    """

    what: str
    loss: Loss
    tolerated: float

    def description(self) -> str:
        """Describe the loss, as in ``the AUC is lower by 0.050 (tolerated ...)``."""
        return self.loss.description(self.what, self.tolerated)


@dataclass(frozen=True)
class Trust:
    """Whether the estimated AUC can be trusted, and why not."""

    trusted: bool
    why_not: str = ""


@dataclass(frozen=True)
class BatchMeasurements:
    """All measurements of one batch under one model version.

    Attributes:
        rows_measured: of the batch, after sampling.
        outside_support: share of rows with a code that the model never saw.
        flagged_share: share of rows that the rule contacts.
        flagged_interval: its 95 % interval.
        metrics: of columns, empty when the batch is too small to measure.
        estimates: of performance without labels (CBPE), likewise.
        loss: of ranking, estimated; None when it could not be.
        trust: in the estimates.
        importance: feature importance, summing to 1; empty when unknown.
    """

    rows: int
    rows_measured: int
    outside_support: float
    flagged_share: float
    flagged_interval: tuple[float, float] = (0.0, 1.0)
    metrics: Annotated[tuple[DriftMetric, ...], Field(alias="figures")] = ()
    estimates: tuple[Estimate, ...] = ()
    loss: Loss | None = None
    trust: Trust = Trust(False, "there is no estimate")
    importance: dict[str, float] = field(default_factory=dict)

    def estimate(self, metric: str) -> Estimate | None:
        """Return the estimate of one metric, or None."""
        return next((e for e in self.estimates if e.metric == metric), None)

    def metric(self, column: str, method: str) -> DriftMetric | None:
        """Return the metric of one column by one method, or None."""
        return next((m for m in self.metrics if (m.column_name, m.method) == (column, method)), None)

    def alerts(self, *methods: str) -> list[DriftMetric]:
        """Return the alerts of these methods, the farthest beyond the threshold first."""
        alerts = [metric for metric in self.metrics if metric.alert and metric.method in methods]
        return sorted(alerts, key=_excess, reverse=True)


def _excess(metric: DriftMetric) -> float:
    if metric.value is None:
        return math.inf
    return metric.value / metric.upper_threshold if metric.upper_threshold else metric.value
