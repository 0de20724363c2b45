"""The verdict on one batch: from its figures and the study's policy to one word, and why.

:func:`judge` is pure: who measures, who remembers and who launches runs stands elsewhere.

A shift is named; harm is acted upon. A shift of answers among people whom the reference knows makes a
batch ``drifted``, but under the policy ``harm`` only what makes the model worse has it held and a
better model looked for. Another mix of known people is no shift: they are compared with their like.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from poleng_assets.core.monitoring.measurements import (
    ALL_COLUMNS,
    COMPOSITION,
    CONTACT,
    DISTANCES,
    JENSEN_SHANNON,
    MISSING,
    OUT_OF_RANGE,
    RECONSTRUCTION,
    SCORE,
    UNSEEN,
    BatchMeasurements,
    DriftMetric,
    MetricLoss,
)
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
    """One thing that was found.

    Attributes:
        cause: short name of it, the same for every batch in which it is found: ``shift:education``.
        words: a sentence without its full stop.
        acts: whether the policy holds the batch for it and looks for a better model.
        worth: of a shift: its distance times the share of the model's importance that the column has.
    """

    cause: str
    words: str
    acts: bool = False
    worth: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reasons: what is acted upon first, then what is worth most to the model.

    Attributes:
        verdict: of the batch under this version.
        reasons: at least one.
        drifted_columns: features whose answers shifted.
        weak: whether there is a sign of loss that counts only when it is repeated.
        alarm: whether something is acted upon that no earlier batch was held for.
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
        """What the batch is held for."""
        return frozenset(reason.cause for reason in self.reasons if reason.acts)

    @property
    def words(self) -> tuple[str, ...]:
        """The reasons as sentences."""
        return tuple(reason.words for reason in self.reasons)


def judge(
    measured: BatchMeasurements,
    study: Study,
    earlier: Sequence[EarlierReport] = (),
    realised: Sequence[MetricLoss] = (),
) -> Judgement:
    """Turn the figures of one batch into a verdict under the study's policy.

    Args:
        earlier: reports on the batches before under the same version, newest first.
        realised: what outcomes say was lost, when they are known.
    """
    policy = study.policies.overseer
    if measured.rows < policy.min_rows:
        few = f"{measured.rows} respondents are too few to judge: {policy.min_rows} are needed"
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
        reasons.insert(0, Reason(QUIET, "nothing was found that would make the model worse"))
    held_for = {reason.cause for reason in reasons if reason.acts}
    known = frozenset[str]().union(*(report.causes for report in earlier))
    return Judgement(verdict, tuple(reasons), columns, weak, alarm=bool(held_for - known))


def _support(measured: BatchMeasurements, policy: OverseerPolicy, titles: Mapping[str, str]) -> list[Reason]:
    """Codes that the model never saw, and answers that have nothing in common with the reference's."""
    reasons = []
    if measured.outside_support > policy.max_outside_support:
        columns = measured.alerts(UNSEEN) or [f for f in measured.metrics if f.method == UNSEEN and f.value]
        names = ", ".join(f"{titles[f.column_name]} ({f.value:.0%})" for f in columns)
        reasons.append(
            Reason(
                f"support:{columns[0].column_name}" if columns else "support",
                f"{measured.outside_support:.0%} of the respondents gave an answer that the model never saw "
                f"in training: {names}. No estimate about them can be believed",
                acts=True,
            )
        )
    reasons += [
        Reason(
            f"support:{f.column_name}",
            f"{titles[f.column_name]}: the answers have nothing in common with those of the reference. "
            "No estimate about them can be believed",
            acts=True,
        )
        for f in measured.metrics
        if f.method in (JENSEN_SHANNON, COMPOSITION)
        and f.column_name in titles
        and f.value is not None
        and f.value > policy.disjoint_distance
        and not any(reason.cause == f"support:{f.column_name}" for reason in reasons)
    ]
    return reasons


def _realised_loss(realised: Sequence[MetricLoss], policy: OverseerPolicy) -> list[Reason]:
    return [
        Reason(REALISED_LOSS, f"outcomes show that the model does worse: {lost.in_words()}", acts=True)
        for lost in realised
        if lost.loss.surely_above(lost.tolerated, policy.confidence)
    ]


def _weak(measured: BatchMeasurements, policy: OverseerPolicy) -> bool:
    return measured.loss is not None and measured.loss.surely_above(
        policy.max_auc_drop / 2, policy.weak_confidence
    )


def _estimated_loss(
    measured: BatchMeasurements, policy: OverseerPolicy, weak: bool, earlier: Sequence[EarlierReport]
) -> list[Reason]:
    if measured.loss is None:
        return []
    auc = measured.estimate("auc")
    estimated = f"estimated AUC {auc.value:.3f}" if auc else "AUC"
    lost = f"{measured.loss.value:.3f} less than on people of their kind in the reference"
    if measured.loss.surely_above(policy.max_auc_drop, policy.confidence):
        words = f"the model is expected to rank people worse: {estimated}, {lost}"
        return [Reason(ESTIMATED_LOSS, words, acts=True)]
    some, last = policy.weak_batches
    signs = sum([weak, *(report.weak for report in earlier[: last - 1])])
    if weak and signs >= some:
        words = (
            f"the model seems to rank people worse in {signs} of the last "
            f"{min(last, len(earlier) + 1)} batches: here {estimated}, {lost}"
        )
        return [Reason(ESTIMATED_LOSS, words, acts=True)]
    return []


def _missing(measured: BatchMeasurements, titles: Mapping[str, str]) -> list[Reason]:
    return [
        Reason(
            f"missing:{f.column_name}",
            f"{titles[f.column_name]}: {f.value:.0%} of the answers are missing"
            if f.value is not None
            else f"{titles[f.column_name]}: no answers at all",
            acts=True,
        )
        for f in measured.alerts(MISSING)
    ]


def _shifts(
    measured: BatchMeasurements, policy: OverseerPolicy, titles: Mapping[str, str]
) -> tuple[list[Reason], tuple[str, ...]]:
    """Name every shift among people of a kind, what is worth most to the model first."""
    by_column: dict[str, DriftMetric] = {}
    for metric in measured.alerts(*DISTANCES):
        by_column.setdefault(metric.column_name, metric)
    columns = tuple(name for name in by_column if name in titles)
    predictions = {SCORE: "the scores", CONTACT: "the share to contact"}
    many = len(columns) > policy.max_drifted_columns * len(titles)
    acts = policy.policy == "any_drift" and (many or not by_column.keys().isdisjoint(predictions))
    reasons = [
        Reason(f"shift:{name}", _shift_words(by_column[name], what), acts, by_column[name].value or 1.0)
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
            f"the answers do not go together as they used to: reconstruction error {_number(f.value)} "
            f"(limits {_number(f.lower_threshold)} to {_number(f.upper_threshold)})",
        )
        for f in measured.alerts(RECONSTRUCTION)
        if f.column_name == ALL_COLUMNS
    ]
    return [*reasons, *answers, *structure], columns


def _answer_shift(metric: DriftMetric, title: str, share: float | None, acts: bool) -> Reason:
    words = _shift_words(metric, f"the answers to {title}")
    if share is not None:
        words += f"; {share:.0%} of what moves the model's scores"
    worth = (1.0 if metric.value is None else metric.value) * (share or 0.0)
    return Reason(f"shift:{metric.column_name}", words, acts, worth)


def _shift_words(metric: DriftMetric, what: str) -> str:
    if metric.value is None:
        return f"{what} cannot be compared: there are none"
    name = "Jensen-Shannon distance" if metric.method == JENSEN_SHANNON else "largest difference of a share"
    return f"{what} shifted: {name} {metric.value:.3f} (limit {_number(metric.upper_threshold)})"


def _remarks(measured: BatchMeasurements, titles: Mapping[str, str]) -> list[Reason]:
    """What is worth telling and changes nothing: another mix of people, odd answers, doubt."""
    mix = [
        Reason(
            f"mix:{f.column_name}",
            f"another mix of people: {titles[f.column_name]} is {_number(f.value)} from the reference "
            f"(limit {_number(f.upper_threshold)}); they are compared with people of their kind",
        )
        for f in measured.alerts(COMPOSITION)
    ]
    odd = [
        Reason(
            f"range:{f.column_name}",
            f"{titles[f.column_name]}: {_share(f.value)} of the answers lie outside those of the reference",
        )
        for f in measured.alerts(OUT_OF_RANGE)
    ]
    doubt = [] if measured.trust.trusted else [Reason("estimate", f"the estimate: {measured.trust.why_not}")]
    return [*mix, *odd, *doubt]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"
