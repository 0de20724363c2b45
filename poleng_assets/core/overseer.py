"""The overseer: from figures to a verdict, and from verdicts to what is to be done.

:func:`judge` speaks about one batch, :func:`plan` about all open batches at once. Both are pure: who
measures, who remembers and who launches runs stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poleng_assets.core.drift import JENSEN_SHANNON, MISSING, SCORE, UNSEEN, BatchFigures
from poleng_assets.study import OverseerPolicy, Study

Verdict = Literal["clear", "drifted", "untrusted", "insufficient"]
HELD_VERDICTS: tuple[Verdict, ...] = ("drifted", "untrusted")


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reasons in words, the weightiest first."""

    verdict: Verdict
    reasons: tuple[str, ...]
    drifted_columns: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether the batch waits for a better model before its list is made."""
        return self.verdict in HELD_VERDICTS


def judge(figures: BatchFigures, study: Study) -> Judgement:
    """Turn the figures of one batch into a verdict under the study's policy.

    Codes outside the model's support always make a batch untrusted. Beside that, ``harm`` acts on what
    makes the model worse: a lower estimated AUC, answers gone missing; ``any_drift`` acts on any shift,
    of the score or of enough columns. Shifts that do no harm are named, and not acted upon.
    """
    policy = study.policies.overseer
    titles = {f.name: f.title for f in study.features}
    shifted = figures.alerts(JENSEN_SHANNON)
    drifted = tuple(f.column_name for f in shifted if f.column_name != SCORE)
    if figures.rows < policy.min_rows:
        reason = f"{figures.rows} respondents are too few to judge: {policy.min_rows} are needed"
        return Judgement("insufficient", (reason,), drifted)
    support = _support_reasons(figures, policy, titles)
    harm = [*_performance_reasons(figures, policy), *_missing_reasons(figures, titles)]
    moved_scores = _score_reasons(figures)
    shifts = [*moved_scores, *_column_reasons(figures, titles)]
    if support:
        return Judgement("untrusted", (*support, *harm, *shifts), drifted)
    many = len(drifted) > policy.max_drifted_columns * len(study.features)
    if harm or (policy.policy == "any_drift" and (moved_scores or many)):
        return Judgement("drifted", (*harm, *shifts), drifted)
    quiet = "nothing was found that would make the model worse"
    return Judgement("clear", (quiet, *shifts), drifted)


def _support_reasons(figures: BatchFigures, policy: OverseerPolicy, titles: Mapping[str, str]) -> list[str]:
    if figures.outside_support <= policy.max_outside_support:
        return []
    columns = figures.alerts(UNSEEN) or [f for f in figures.figures if f.method == UNSEEN and f.value]
    names = ", ".join(f"{titles[f.column_name]} ({f.value:.0%})" for f in columns)
    return [
        f"{figures.outside_support:.0%} of the respondents gave an answer that the model never saw "
        f"in training: {names}. No estimate about them can be believed"
    ]


def _performance_reasons(figures: BatchFigures, policy: OverseerPolicy) -> list[str]:
    auc = figures.estimate("auc")
    if auc is None or auc.value >= auc.reference - policy.max_auc_drop:
        return []
    return [
        f"the model is expected to rank people worse: estimated AUC {auc.value:.3f}, "
        f"against {auc.reference:.3f} on the reference"
    ]


def _missing_reasons(figures: BatchFigures, titles: Mapping[str, str]) -> list[str]:
    return [
        f"{titles[f.column_name]}: {f.value:.0%} of the answers are missing"
        if f.value is not None
        else f"{titles[f.column_name]}: no answers at all"
        for f in figures.alerts(MISSING)
    ]


def _score_reasons(figures: BatchFigures) -> list[str]:
    return [
        f"the scores moved: Jensen-Shannon distance {_number(f.value)} (limit {_number(f.upper_threshold)})"
        for f in figures.alerts(JENSEN_SHANNON)
        if f.column_name == SCORE
    ]


def _column_reasons(figures: BatchFigures, titles: Mapping[str, str]) -> list[str]:
    return [
        f"{titles[f.column_name]} shifted: distance {_number(f.value)} (limit {_number(f.upper_threshold)})"
        for f in figures.alerts(JENSEN_SHANNON)
        if f.column_name != SCORE
    ]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


@dataclass(frozen=True)
class OpenBatch:
    """A batch without its contact list yet.

    Attributes:
        batch: its id.
        version: of the model in its newest report; None when it has no report.
        held: whether that report holds the list back.
    """

    batch: str
    version: int | None = None
    held: bool = False


@dataclass(frozen=True)
class Situation:
    """All that the overseer needs to know to decide.

    Attributes:
        champion: version that serves, None before the first.
        open_batches: batches without a list.
        pending: field studies that no finished retraining has used.
        arriving: field studies that were dropped and are not taken in yet.
        retrain_failures: how often a retraining on exactly these data died.
        retraining: a retraining is queued or running.
        busy: batches with a run queued or running.
        failures: for each batch, how often its scoring or its release under this champion died.
        last_rejection: why the newest challenger was not promoted, empty when it was.
    """

    champion: int | None
    open_batches: tuple[OpenBatch, ...] = ()
    pending: tuple[str, ...] = ()
    arriving: tuple[str, ...] = ()
    retrain_failures: int = 0
    retraining: bool = False
    busy: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    last_rejection: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be launched now, and what to tell the person who looks at the sensor.

    Attributes:
        retrain: why to train a challenger, None when not to.
        score: batches to score with the present champion.
        release: held batches whose list is to be made with the present champion, and why.
        messages: in words, one for each thing that is waiting or was decided.
    """

    retrain: str | None = None
    score: tuple[str, ...] = ()
    release: tuple[tuple[str, str], ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to launch."""
        return self.retrain is None and not self.score and not self.release


def plan(situation: Situation, max_attempts: int) -> Plan:
    """Decide what to launch: at most one retraining, and never the same one twice.

    A held batch waits while there is something to learn from, or on its way, or a retraining runs. When
    nothing can be learned it is released: contact centres never wait for ever.
    """
    if situation.champion is None:
        return _first_model(situation, max_attempts)
    score: list[str] = []
    release: list[tuple[str, str]] = []
    waiting: list[str] = []
    messages: list[str] = []
    learnable = bool(situation.pending) and situation.retrain_failures < max_attempts
    for one in situation.open_batches:
        if one.batch in situation.busy:
            continue
        held = one.held and one.version == situation.champion
        if held and (situation.retraining or situation.arriving or learnable):
            waiting.append(one.batch)
        elif situation.failures.get(one.batch, 0) >= max_attempts:
            messages.append(
                f"Batch {one.batch} failed {max_attempts} times with model version {situation.champion}: "
                "look at its newest run, then materialise its predictions and what follows again"
            )
        elif held:
            release.append((one.batch, _why_released(situation, max_attempts)))
        else:
            score.append(one.batch)
    retrain = None
    if waiting and situation.retraining:
        messages.append(f"Held until the retraining ends: {', '.join(waiting)}")
    elif waiting and situation.arriving:
        studies = ", ".join(situation.arriving)
        messages.append(f"Held until {studies} is taken in: {', '.join(waiting)}")
    elif waiting:
        retrain = f"drift in {', '.join(waiting)}; new field data: {', '.join(situation.pending)}"
        messages.append(f"Retraining: {retrain}")
    messages += [f"List of {batch} is made with the present champion: {why}" for batch, why in release]
    return Plan(retrain, tuple(score), tuple(release), tuple(messages))


def _first_model(situation: Situation, max_attempts: int) -> Plan:
    if situation.retraining:
        return Plan(messages=("The first model is being trained",))
    if situation.arriving:
        return Plan(messages=(f"The first model waits until {', '.join(situation.arriving)} is taken in",))
    if not situation.pending:
        why = f"the first one was refused: {situation.last_rejection}. " if situation.last_rejection else ""
        return Plan(messages=(f"No model yet: {why}Drop a field study into landing/field_studies",))
    if situation.retrain_failures >= max_attempts:
        why = f"training failed {max_attempts} times, look at its newest run"
        return Plan(messages=(f"No model from {', '.join(situation.pending)}: {why}",))
    reason = f"first model, from {', '.join(situation.pending)}"
    return Plan(retrain=reason, messages=(f"Training the {reason}",))


def _why_released(situation: Situation, max_attempts: int) -> str:
    if situation.pending:
        return f"the retraining on {', '.join(situation.pending)} failed {max_attempts} times"
    rejected = situation.last_rejection
    newest = f"; the newest challenger was not promoted: {rejected}" if rejected else ""
    return f"no pending field study to learn from{newest}"
