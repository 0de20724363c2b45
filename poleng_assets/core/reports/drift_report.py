"""The drift report: one self-contained page about one batch, with the verdict and its reasons first.

This module formats what is measured and judged elsewhere. It counts rows of people; the page holds
aggregates only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from poleng_assets.core.monitoring import measurements
from poleng_assets.core.monitoring.batch_report import BatchReport
from poleng_assets.core.monitoring.comparison import Comparison
from poleng_assets.core.monitoring.verdict import QUIET, Judgement
from poleng_assets.core.reports.drift_charts import distributions, performance_chart, score_bars
from poleng_assets.core.reports.pages import template
from poleng_assets.core.statistics.metrics import METRICS
from poleng_assets.core.statistics.selection_rates import GroupContacts, passed_over
from poleng_assets.study.schema import Study

# Explanation of each verdict; a sentence about the contact list follows it.
MEANINGS = {
    "clear": "No sign that the model performs worse on this batch.",
    "drifted": "The distribution of the answers has shifted. There is no sign that the model performs worse; "
    "outcomes would show it.",
    "untrusted": "The batch is out of distribution: it has answers the model never saw, so estimates are "
    "unreliable.",
    "insufficient": "The batch is too small to judge. It is treated like a clear one.",
}
DRIFTED_AND_HELD = "The batch differs from the reference, and the model is likely to perform worse on it."
HELD = "The contact list is on hold until a retraining has been tried."
LISTED = "The contact list is issued immediately."
REASONS_SHOWN = 6
PSEUDO_COLUMNS = {
    measurements.SCORE: "Score of the model",
    measurements.CONTACT: "Whether to contact",
    measurements.ALL_COLUMNS: "All questions together",
}
QUALITY = {
    measurements.MISSING: "missing answers",
    measurements.UNSEEN: "answers not seen in training",
    measurements.OUT_OF_RANGE: "answers outside the range of the reference",
    measurements.QUARANTINED: "rows that violate the data contract (quarantined)",
}


@dataclass(frozen=True)
class Performance:
    """One metric: estimated, realised and on the reference, with intervals.

    Unknown values are empty.
    """

    title: str
    estimated: tuple[str, str]
    realised: tuple[str, str]
    reference: str
    says: str


@dataclass(frozen=True)
class Quality:
    """One data quality issue of a question: its share of the people and the threshold."""

    title: str
    what: str
    share: str
    limit: str
    alert: bool


@dataclass(frozen=True)
class Move:
    """The drift of one column by two distances, and its impact on the model."""

    title: str
    distances: tuple[tuple[str, str, bool], ...]
    importance: str
    worth: str
    alert: bool


def render_report(study: Study, report: BatchReport, made_at: datetime | None = None) -> str:
    """Return the report as self-contained HTML that opens offline.

    Args:
        made_at: now, when None.
    """
    measured, judgement, contacts = report.measurements, report.judgement, report.contacts
    realised = report.realised.estimates if report.realised else ()
    titles = column_titles(study)
    comparison = Comparison.of(study, report.reference, report.scored)
    large_enough = any(f.method in measurements.DISTANCES for f in measured.metrics)
    return template("drift_report.html").render(
        study=study,
        batch=report.batch,
        version=report.version,
        measured=measured,
        judgement=judgement,
        meaning=meaning(judgement),
        acted_upon=[reason.words for reason in judgement.reasons if reason.acts],
        reasons_shown=REASONS_SHOWN,
        named=[reason.words for reason in judgement.reasons if not reason.acts and reason.cause != QUIET],
        auc=measured.estimate("auc"),
        realised_auc=report.realised and report.realised.estimate("auc"),
        realised_respondents=report.realised.respondents if report.realised else 0,
        groups=_groups(contacts, study),
        passed_over=[group.in_words() for group in passed_over(contacts, study.policies.promotion)],
        sought=study.target.codes[study.target.positive],
        performance=_performance(measured.estimates, realised),
        performance_chart=performance_chart(
            measured.estimates,
            realised,
            measured.trust.trusted,
            {name: METRICS[name].title for name in _DRAWN},
        ),
        performance_key=_performance_key(measured, realised),
        large_enough=large_enough,
        qualities=_qualities(measured, titles),
        moves=_moves(measured, judgement, titles),
        structure=_structure(measured),
        composition=_composition(measured, titles),
        within=study.feature(comparison.within).title if comparison.within else "",
        left_out=len(comparison.batch) - len(comparison.comparable),
        distributions=distributions(measured, comparison) if large_enough else [],
        drifted=bool(
            measured.alerts(
                measurements.UNSEEN, measurements.MISSING, measurements.COMPOSITION, *measurements.DISTANCES
            )
        ),
        scores=score_bars(comparison.like, comparison.comparable),
        made_at=(made_at or datetime.now(UTC)).astimezone(UTC),
    )


@dataclass(frozen=True)
class ContactedGroup:
    """The formatted contact rate of a group; an alert when the rule passes it over."""

    title: str
    value: str
    rows: str
    contacted: str
    found: str
    alert: bool


def _groups(contacts: Sequence[GroupContacts], study: Study) -> list[ContactedGroup]:
    """Return the groups that are large enough to publish: small ones could reveal single people."""
    policy = study.policies.promotion
    return [
        ContactedGroup(
            group.property,
            group.value,
            f"{group.rows:,}",
            f"{group.contacted / group.rows:.1%}",
            f"{(group.found or 0) / group.sought:.1%}" if group.sought else "",
            group.is_passed_over(policy),
        )
        for group in contacts
        if group.rows >= policy.min_group_rows
    ]


_DRAWN = ("auc", "accuracy", "precision", "recall")


def meaning(judgement: Judgement) -> str:
    """Explain a verdict and what happens to the contact list."""
    if judgement.verdict == "drifted" and judgement.held:
        return f"{DRIFTED_AND_HELD} {HELD}"
    return f"{MEANINGS[judgement.verdict]} {HELD if judgement.held else LISTED}"


def column_titles(study: Study) -> dict[str, str]:
    """Return the title of every column and pseudo-column."""
    return {feature.name: feature.title for feature in study.features} | PSEUDO_COLUMNS


def _performance(
    estimates: Sequence[measurements.Estimate], realised: Sequence[measurements.Estimate]
) -> list[Performance]:
    lines = []
    for metric in dict.fromkeys(e.metric for e in (*estimates, *realised)):
        pair = [next((e for e in of if e.metric == metric), None) for of in (estimates, realised)]
        references = [e.reference for e in pair if e is not None and e.reference is not None]
        title, says = METRICS[metric].title, METRICS[metric].explanation
        reference = f"{references[0]:.3f}" if references else ""
        estimated, of_outcomes = map(_interval, pair)
        lines.append(Performance(title, estimated, of_outcomes, reference, says))
    return lines


def _performance_key(
    measured: measurements.BatchMeasurements, realised: Sequence[measurements.Estimate]
) -> list[tuple[str, str, str]]:
    """Return the legend of the performance plot: sign, look and label."""
    key = [("diamond", "there", "reference")]
    if measured.estimates:
        trusted = measured.trust.trusted
        key.append(
            ("circle", "here", "estimated")
            if trusted
            else ("circle", "here hollow", "estimated, not trusted")
        )
    return [*key, ("square", "truth", "realised")] if realised else key


def _interval(estimate: measurements.Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "", ""
    return f"{estimate.value:.3f}", f"{estimate.lower:.3f} to {estimate.upper:.3f}"


def _qualities(measured: measurements.BatchMeasurements, titles: dict[str, str]) -> list[Quality]:
    """Return the data quality issues, alerts first."""
    faults = [f for f in measured.metrics if f.method in QUALITY and (f.alert or f.value)]
    faults.sort(key=lambda f: (not f.alert, -(2.0 if f.value is None else f.value)))
    # A column without any answer has no share of missing ones.
    unknown = {measurements.MISSING: "all"}
    return [
        Quality(
            titles[f.column_name],
            QUALITY[f.method],
            unknown.get(f.method, "unknown") if f.value is None else _share(f.value),
            "" if f.upper_threshold is None else _share(f.upper_threshold),
            f.alert,
        )
        for f in faults
    ]


def _moves(
    measured: measurements.BatchMeasurements, judgement: Judgement, titles: dict[str, str]
) -> list[Move]:
    """Return every compared column: shifted ones first by impact, then by distance."""
    worth = {reason.cause: reason.worth for reason in judgement.reasons}
    keyed = []
    for name in dict.fromkeys(f.column_name for f in measured.metrics if f.method in measurements.DISTANCES):
        distances = [measured.metric(name, method) for method in measurements.DISTANCES]
        known = [f for f in distances if f is not None]
        alert, value = any(f.alert for f in known), worth.get(f"shift:{name}", 0.0)
        farthest = max((2.0 if f.value is None else f.value for f in known), default=0.0)
        share = measured.importance.get(name)
        importance, weighed = ("", "") if share is None else (f"{share:.1%}", f"{value:.3f}")
        move = Move(
            titles[name], tuple(map(_distance, distances)), importance, weighed if alert else "", alert
        )
        keyed.append(((not alert, -value, -farthest), move))
    return [move for _, move in sorted(keyed, key=lambda pair: pair[0])]


def _distance(metric: measurements.DriftMetric | None) -> tuple[str, str, bool]:
    if metric is None:
        return "", "", False
    value = "unknown" if metric.value is None else f"{metric.value:.3f}"
    limit = "" if metric.upper_threshold is None else f"{metric.upper_threshold:.3f}"
    return value, limit, metric.alert


def _structure(measured: measurements.BatchMeasurements) -> list[str]:
    sentences = []
    error = measured.metric(measurements.ALL_COLUMNS, measurements.RECONSTRUCTION)
    if error is not None:
        drift = "Multivariate drift" if error.alert else "No multivariate drift"
        value = "unknown" if error.value is None else f"{error.value:.3f}"
        low, high = (
            "unknown" if limit is None else f"{limit:.3f}"
            for limit in (error.lower_threshold, error.upper_threshold)
        )
        sentences.append(f"{drift}: the PCA reconstruction error is {value} (thresholds {low} to {high}).")
    classifier = measured.metric(measurements.ALL_COLUMNS, measurements.DOMAIN_CLASSIFIER)
    if classifier is not None and classifier.value is not None:
        sentences.append(
            f"Domain classifier: a model that separates the batch from the reference has an AUC of "
            f"{classifier.value:.2f}; 0.50 means no difference."
        )
    return sentences


def _composition(measured: measurements.BatchMeasurements, titles: dict[str, str]) -> list[str]:
    sentences = []
    for metric in measured.metrics:
        if metric.method != measurements.COMPOSITION:
            continue
        limit = "" if metric.upper_threshold is None else f" (threshold {metric.upper_threshold:.3f})"
        value = "unknown" if metric.value is None else f"{metric.value:.3f}"
        shift = "Composition shift" if metric.alert else "No composition shift"
        sentences.append(
            f"{shift} by {titles[metric.column_name]}: distance {value}{limit}. Other questions are compared "
            "within its strata, so it does not count as drift."
        )
    return sentences


def _share(value: float) -> str:
    """Return a share in percent; a small share is not rounded to zero."""
    return "under 0.1%" if 0 < value < 0.0005 else f"{value:.1%}"
