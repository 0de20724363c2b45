"""The verdict on one batch and its reasons, from its measurements and the study's policy.

:func:`judge` is pure: measuring, storing and launching runs are done elsewhere.

A shift of the answers within a stratum makes a batch ``drifted``. Under the policy ``harm``, a batch is held
only for what makes the model perform worse. A composition shift is not drift: people are compared within
their stratum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from poleng_assets.core.monitoring import measurements
from poleng_assets.study.policies import OverseerPolicy
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.drift_reports import EarlierReport

Verdict = Literal["clear", "drifted", "untrusted", "insufficient"]

QUIET = "quiet"
TOO_FEW = "too_few"
ESTIMATED_LOSS = "estimated_loss"
REALISED_LOSS = "realised_loss"


@dataclass(frozen=True)
class Reason:
    """One reason for a verdict.

    Attributes:
        cause: its identifier, the same for every batch: ``shift:education``.
        words: a sentence without its full stop.
        acts: whether the policy holds the batch for it and asks for a retraining.
        worth: impact of a shift: its distance times the column's share of the feature importance.
    """

    cause: str
    words: str
    acts: bool = False
    worth: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reasons: those that hold the batch first, then by their impact on the model.

    Attributes:
        verdict: of the batch under this version.
        reasons: at least one.
        drifted_columns: features whose answers shifted.
        weak: whether there is a weak sign of loss, which counts only when it is repeated.
        alarm: whether the batch is held for a reason that no earlier batch was held for.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    drifted_columns: tuple[str, ...] = ()
    weak: bool = False
    alarm: bool = False

    @property
    def held(self) -> bool:
        """Whether the batch waits for a better model before its list is made."""
        return any(reason.acts for reason in self.reasons)

    @property
    def causes(self) -> frozenset[str]:
        """The causes that hold the batch."""
        return frozenset(reason.cause for reason in self.reasons if reason.acts)

    @property
    def words(self) -> tuple[str, ...]:
        """The reasons as sentences."""
        return tuple(reason.words for reason in self.reasons)


def judge(
    measured: measurements.BatchMeasurements,
    study: Study,
    earlier: Sequence[EarlierReport] = (),
    realised: Sequence[measurements.MetricLoss] = (),
) -> Judgement:
    """Judge the measurements of one batch under the study's policy.

    Args:
        earlier: reports on the batches before under the same version, newest first.
        realised: realised losses, when outcomes are known.
    """
    policy = study.policies.overseer
    if measured.rows < policy.min_rows:
        few = f"{measured.rows} respondents are too few to judge: at least {policy.min_rows} are needed"
        return Judgement("insufficient", (Reason(TOO_FEW, few),))
    titles = {f.name: f.title for f in study.features}
    support = _support(measured, policy, titles)
    weak = _weak(measured, policy)
    harm = [
        *_realised_loss(realised, policy),
        *_estimated_loss(measured, policy, weak, earlier),
        *_missing(measured, titles),
    ]
    shifts, columns = _shifts(measured, policy, titles)
    reasons = [*support, *harm, *shifts, *_remarks(measured, titles)]
    verdict: Verdict = "untrusted" if support else "drifted" if harm or shifts else "clear"
    if verdict == "clear":
        reasons.insert(0, Reason(QUIET, "no sign that the model performs worse"))
    held_for = {reason.cause for reason in reasons if reason.acts}
    known = frozenset[str]().union(*(report.causes for report in earlier))
    return Judgement(verdict, tuple(reasons), columns, weak, alarm=bool(held_for - known))


def _support(
    measured: measurements.BatchMeasurements, policy: OverseerPolicy, titles: Mapping[str, str]
) -> list[Reason]:
    """Return why the batch is out of distribution: unseen codes, or no overlap with the reference."""
    reasons = []
    if measured.outside_support > policy.max_outside_support:
        columns = measured.alerts(measurements.UNSEEN) or [
            f for f in measured.metrics if f.method == measurements.UNSEEN and f.value
        ]
        names = ", ".join(f"{titles[f.column_name]} ({f.value:.0%})" for f in columns)
        reasons.append(
            Reason(
                f"support:{columns[0].column_name}" if columns else "support",
                f"{measured.outside_support:.0%} of the respondents are out of distribution, with answers "
                f"not seen in training: {names}. Estimates about them are unreliable",
                acts=True,
            )
        )
    reasons += [
        Reason(
            f"support:{f.column_name}",
            f"{titles[f.column_name]}: out of distribution, the answers have no overlap with the reference. "
            "Estimates are unreliable",
            acts=True,
        )
        for f in measured.metrics
        if f.method in (measurements.JENSEN_SHANNON, measurements.COMPOSITION)
        and f.column_name in titles
        and f.value is not None
        and f.value > policy.disjoint_distance
        and not any(reason.cause == f"support:{f.column_name}" for reason in reasons)
    ]
    return reasons


def _realised_loss(realised: Sequence[measurements.MetricLoss], policy: OverseerPolicy) -> list[Reason]:
    return [
        Reason(REALISED_LOSS, f"outcomes show that the model performs worse: {lost.description()}", acts=True)
        for lost in realised
        if lost.loss.is_above(lost.tolerated, policy.confidence)
    ]


def _weak(measured: measurements.BatchMeasurements, policy: OverseerPolicy) -> bool:
    return measured.loss is not None and measured.loss.is_above(
        policy.max_auc_drop / 2, policy.weak_confidence
    )


def _estimated_loss(
    measured: measurements.BatchMeasurements,
    policy: OverseerPolicy,
    weak: bool,
    earlier: Sequence[EarlierReport],
) -> list[Reason]:
    if measured.loss is None:
        return []
    auc = measured.estimate("auc")
    estimated = f"estimated AUC {auc.value:.3f}" if auc else "AUC"
    lost = f"{measured.loss.value:.3f} lower than in the same strata of the reference"
    if measured.loss.is_above(policy.max_auc_drop, policy.confidence):
        sentence = f"the model is expected to perform worse: {estimated}, {lost}"
        return [Reason(ESTIMATED_LOSS, sentence, acts=True)]
    some, last = policy.weak_batches
    signs = sum([weak, *(report.weak for report in earlier[: last - 1])])
    if weak and signs >= some:
        sentence = (
            f"the model seems to perform worse in {signs} of the last "
            f"{min(last, len(earlier) + 1)} batches: in this one {estimated}, {lost}"
        )
        return [Reason(ESTIMATED_LOSS, sentence, acts=True)]
    return []


def _missing(measured: measurements.BatchMeasurements, titles: Mapping[str, str]) -> list[Reason]:
    return [
        Reason(
            f"missing:{f.column_name}",
            f"{titles[f.column_name]}: {f.value:.0%} missing answers"
            if f.value is not None
            else f"{titles[f.column_name]}: no answers at all",
            acts=True,
        )
        for f in measured.alerts(measurements.MISSING)
    ]


def _shifts(
    measured: measurements.BatchMeasurements, policy: OverseerPolicy, titles: Mapping[str, str]
) -> tuple[list[Reason], tuple[str, ...]]:
    """Return every shift within strata, by impact on the model, and the drifted features."""
    by_column: dict[str, measurements.DriftMetric] = {}
    for metric in measured.alerts(*measurements.DISTANCES):
        by_column.setdefault(metric.column_name, metric)
    columns = tuple(name for name in by_column if name in titles)
    predictions = {measurements.SCORE: "the scores", measurements.CONTACT: "the share to contact"}
    many = len(columns) > policy.max_drifted_columns * len(titles)
    acts = policy.policy == "any_drift" and (many or not by_column.keys().isdisjoint(predictions))
    reasons = [
        Reason(f"shift:{name}", _describe_shift(by_column[name], what), acts, by_column[name].value or 1.0)
        for name, what in predictions.items()
        if name in by_column
    ]
    answers = [
        _answer_shift(by_column[name], titles[name], measured.importance.get(name), acts) for name in columns
    ]
    answers.sort(key=lambda reason: -reason.worth)
    structure = [
        Reason(
            "structure",
            f"multivariate drift: PCA reconstruction error {_number(f.value)} "
            f"(thresholds {_number(f.lower_threshold)} to {_number(f.upper_threshold)})",
        )
        for f in measured.alerts(measurements.RECONSTRUCTION)
        if f.column_name == measurements.ALL_COLUMNS
    ]
    return [*reasons, *answers, *structure], columns


def _answer_shift(metric: measurements.DriftMetric, title: str, share: float | None, acts: bool) -> Reason:
    sentence = _describe_shift(metric, f"the answers to {title}")
    if share is not None:
        sentence += f"; {share:.0%} of the feature importance"
    worth = (1.0 if metric.value is None else metric.value) * (share or 0.0)
    return Reason(f"shift:{metric.column_name}", sentence, acts, worth)


def _describe_shift(metric: measurements.DriftMetric, what: str) -> str:
    if metric.value is None:
        return f"{what} cannot be compared: all are missing"
    name = (
        "Jensen-Shannon distance" if metric.method == measurements.JENSEN_SHANNON else "L-infinity distance"
    )
    return f"{what} shifted: {name} {metric.value:.3f} (threshold {_number(metric.upper_threshold)})"


def _remarks(measured: measurements.BatchMeasurements, titles: Mapping[str, str]) -> list[Reason]:
    """Return what is detected without action: composition shift, range, untrusted estimate."""
    mix = [
        Reason(
            f"mix:{f.column_name}",
            f"composition shift: {titles[f.column_name]}, distance {_number(f.value)} to the reference "
            f"(threshold {_number(f.upper_threshold)}); other questions are compared within its strata",
        )
        for f in measured.alerts(measurements.COMPOSITION)
    ]
    odd = [
        Reason(
            f"range:{f.column_name}",
            f"{titles[f.column_name]}: {_share(f.value)} of the answers are outside the reference range",
        )
        for f in measured.alerts(measurements.OUT_OF_RANGE)
    ]
    doubt = (
        []
        if measured.trust.trusted
        else [Reason("estimate", f"the estimate is not trusted: {measured.trust.why_not}")]
    )
    return [*mix, *odd, *doubt]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"
