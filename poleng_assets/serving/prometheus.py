"""Metrics for Prometheus: the server, the serving version, and the newest batch of the graph.

Numbers only, no batch names and nothing about a person. A metric without a value (no batch was evaluated, or
too few people for an estimate) is left out, and never reported as zero. Names and units follow
https://prometheus.io/docs/practices/naming/.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from poleng_assets.core.data.asset_events import DriftReport, Overview
from poleng_assets.defs.events import Recorded
from poleng_assets.serving.champion_watcher import Seen
from poleng_assets.serving.connections import REASONS, Reason

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Of the newest drift report: the gauge, the field of its event, and the help text.
_OF_THE_BATCH = (
    ("poleng_batch_rows", "rows", "Respondents in the newest evaluated batch."),
    ("poleng_batch_flagged_ratio", "share_flagged", "Share of that batch flagged for contact."),
    (
        "poleng_batch_outside_support_ratio",
        "share_outside_support",
        "Share of that batch with an answer unknown to the model.",
    ),
    ("poleng_estimated_auc", "estimated_auc", "Estimated AUC of that batch, without labels."),
    ("poleng_estimated_auc_lower", "estimated_auc_lower", "Lower bound of its 95 % confidence interval."),
    ("poleng_estimated_auc_upper", "estimated_auc_upper", "Upper bound of its 95 % confidence interval."),
    ("poleng_reference_auc", "reference_auc", "Reference AUC for the composition of that batch."),
    (
        "poleng_estimate_trusted",
        "estimate_trusted",
        "1 if the estimate is reliable, 0 if not.",
    ),
    ("poleng_batch_model_version", "model_version", "Model version that scored that batch."),
)


class Metrics:
    """Counts requests, and exports the counts with the state of the champion watcher."""

    def __init__(
        self, seen: Callable[[], Seen], questions: int, clock: Callable[[], float] = time.time
    ) -> None:
        disable_created_metrics()  # an extra series for each counter, not used
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "poleng_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "poleng_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.predictions = Counter(
            "poleng_predictions",
            "People scored, by contact decision.",
            ["label"],
            registry=self._registry,
        )
        self.refused = Counter(
            "poleng_refused_answers", "Answers that broke the contract.", registry=self._registry
        )
        self.refused_connections = Counter(
            "poleng_refused_connections",
            "Connections closed before a request: slow, crowded, malformed or too large.",
            ["reason"],
            registry=self._registry,
        )
        for reason in REASONS:
            self.refused_connections.labels(reason)
        for label in ("contact", "no_contact"):
            self.predictions.labels(label)  # zero before the first prediction
        ProcessCollector(registry=self._registry)
        self._registry.register(_OfTheGraph(seen, questions, clock))

    def scored(self, contacts: int, people: int) -> None:
        """Count scored people."""
        self.predictions.labels("contact").inc(contacts)
        self.predictions.labels("no_contact").inc(people - contacts)

    def refuse_connection(self, reason: Reason) -> None:
        """Count a connection that was closed before a request."""
        self.refused_connections.labels(reason).inc()

    def as_text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _OfTheGraph(Collector):
    """Converts the watcher's state into gauges, at each scrape."""

    def __init__(self, seen: Callable[[], Seen], questions: int, clock: Callable[[], float]) -> None:
        self._seen, self._questions, self._clock = seen, questions, clock

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        seen, now = self._seen(), self._clock()
        yield _gauge("poleng_ready", "1 if people can be scored.", seen.champion is not None)
        yield _gauge(
            "poleng_champion_in_doubt",
            "1 if there is a problem with the serving version; see /health.",
            seen.champion is not None and bool(seen.doubt),
        )
        yield _gauge("poleng_watch_failing", "1 if the serving version cannot be checked.", bool(seen.failed))
        reloads = CounterMetricFamily("poleng_champion_loads", "Versions loaded.")
        reloads.add_metric([], seen.reloads)
        yield reloads
        if seen.looked_at:
            yield _gauge(
                "poleng_watch_age_seconds",
                "Seconds since the last successful check of the serving version.",
                now - seen.looked_at,
            )
        if champion := seen.champion:
            yield _gauge("poleng_champion_version", "Model version that serves.", champion.version)
            yield _gauge(
                "poleng_champion_loaded_timestamp_seconds",
                "When the model was loaded.",
                _when(champion.loaded_at),
            )
            if champion.trained_at:
                yield _gauge(
                    "poleng_champion_trained_timestamp_seconds",
                    "When the model was trained.",
                    _when(champion.trained_at),
                )
        if history := seen.history:
            yield _gauge(
                "poleng_history_age_seconds",
                "Seconds since the graph's events were read, the source of the batch metrics.",
                now - history.read_at,
            )
            if history.report:
                yield from self._of_the_batch(history.report)
            if history.overview:
                yield from _of_all_batches(history.overview)

    def _of_the_batch(self, report: Recorded[DriftReport]) -> Iterator[Metric]:
        yield _gauge("poleng_batch_judged_timestamp_seconds", "When a batch was last evaluated.", report.at)
        drifted = report.event.drifted_columns
        if drifted is not None:
            yield _gauge(
                "poleng_batch_drift_score",
                "Share of the columns of that batch that drifted from the reference: 0 none, 1 all.",
                drifted / self._questions,
            )
        for name, attribute, help_text in _OF_THE_BATCH:
            value = getattr(report.event, attribute)
            if value is not None:
                yield _gauge(name, help_text, value)
        verdict = GaugeMetricFamily(
            "poleng_batch_verdict", "1 for the verdict on that batch, 0 for the others.", labels=["verdict"]
        )
        for name in Overview().batches_by_verdict():
            verdict.add_metric([name], float(report.event.verdict == name))
        yield verdict


def _of_all_batches(overview: Recorded[Overview]) -> Iterator[Metric]:
    yield _gauge("poleng_overview_timestamp_seconds", "When the batches were last counted.", overview.at)
    batches = GaugeMetricFamily(
        "poleng_batches", "Batches by the verdict on their current scores.", labels=["verdict"]
    )
    for verdict, number in overview.event.batches_by_verdict().items():
        batches.add_metric([verdict], number)
    yield batches
    yield _gauge("poleng_alarms", "Alarms raised by the overseer.", overview.event.alarms)


def _gauge(name: str, help_text: str, value: Any) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=float(value))


def _when(moment: datetime) -> float:
    return moment.timestamp()
