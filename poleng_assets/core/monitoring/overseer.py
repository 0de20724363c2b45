"""The overseer's plan: what to launch now, from the verdicts on all open batches.

:func:`plan` is pure: measuring, storing and launching runs are done elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from poleng_assets.study.policies import OverseerPolicy


@dataclass(frozen=True)
class OpenBatch:
    """A batch without its contact list yet.

    Attributes:
        version: of the model in its newest report; None when it has no report.
        held: whether that report holds the list back.
    """

    batch: str
    version: int | None = None
    held: bool = False


@dataclass(frozen=True)
class Situation:
    """The input of the overseer's decision.

    Attributes:
        champion: version that serves, None before the first.
        open_batches: batches without a list.
        pending: field studies that no finished retraining has used.
        arriving: field studies that were dropped and are not taken in yet.
        together: batches that have no score yet and were there when a retraining was first wanted.
        retrain_failures: how often a retraining on exactly these data died.
        retraining: a retraining is queued or running.
        busy: batches with a run queued or running.
        failures: for each batch that is not busy, how often its scoring or its release under this champion
            died.
        last_rejection: why the newest challenger was not promoted, empty when it was.
        lost: batches whose outcomes show that this champion does worse than it should.
        batches_since_retraining: batches taken in since a challenger was last judged against a champion;
            None when there was no such contest.
        unanswered: batches with an alarm under this champion, of which no request for labels knows.
        requesting: a request for labels is queued or running.
        request_failures: how often the request for exactly these died.
        withdrawn: field studies that were withdrawn since a challenger was last judged by them, while others
            are left to learn from.
    """

    champion: int | None
    open_batches: tuple[OpenBatch, ...] = ()
    pending: tuple[str, ...] = ()
    arriving: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    retrain_failures: int = 0
    retraining: bool = False
    busy: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    last_rejection: str = ""
    lost: tuple[str, ...] = ()
    batches_since_retraining: int | None = None
    unanswered: tuple[str, ...] = ()
    requesting: bool = False
    request_failures: int = 0
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to launch now, and the messages of the sensor.

    Attributes:
        retrain: why to train a challenger, None when not to.
        score: batches to score with the present champion.
        release: held batches whose list is to be made with the present champion, and why.
        request: batches for which labels are wanted, because there is nothing to learn from.
        messages: in words, one for each thing that is waiting or was decided.
    """

    retrain: str | None = None
    score: tuple[str, ...] = ()
    release: tuple[tuple[str, str], ...] = ()
    request: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to launch."""
        return self.retrain is None and not self.score and not self.release and not self.request


class Action(StrEnum):
    """What to do about one open batch."""

    WAIT = auto()
    SCORE = auto()
    RELEASE = auto()
    GIVE_UP = auto()
    LEAVE = auto()


def plan(situation: Situation, policy: OverseerPolicy) -> Plan:
    """Decide what to launch: at most one retraining, and never the same one twice.

    A held batch waits while new field data are available or arriving, or a retraining runs. Without new data,
    or right after a retraining, it is released: no list waits forever.
    """
    if situation.champion is None:
        return _first_model(situation, policy.max_retrain_attempts)
    batches: dict[Action, list[str]] = {action: [] for action in Action}
    for batch in situation.open_batches:
        batches[action_for(batch, situation, policy)].append(batch.batch)
    waiting = batches[Action.WAIT]
    messages = [_given_up(batch, situation, policy) for batch in batches[Action.GIVE_UP]]
    retrain = _retraining(waiting, situation, policy, messages) or _retrain_without(
        situation, policy, messages
    )
    request: tuple[str, ...] = ()
    if situation.unanswered and not (
        _has_data(situation, policy) or situation.arriving or situation.retraining
    ):
        request = _request(situation, policy, messages)
    release = tuple((batch, _why_released(situation, policy)) for batch in batches[Action.RELEASE])
    messages += [f"Releasing {batch} with the present champion: {why}" for batch, why in release]
    return Plan(retrain, tuple(batches[Action.SCORE]), release, request, tuple(messages))


def action_for(batch: OpenBatch, situation: Situation, policy: OverseerPolicy) -> Action:
    """Return what to do about an open batch while a champion serves."""
    if batch.batch in situation.busy:
        return Action.LEAVE
    held = batch.held and batch.version == situation.champion
    if held and (situation.retraining or situation.arriving or _may_learn(situation, policy)):
        return Action.WAIT
    if situation.failures.get(batch.batch, 0) >= policy.max_retrain_attempts:
        return Action.GIVE_UP
    return Action.RELEASE if held else Action.SCORE


def _has_data(situation: Situation, policy: OverseerPolicy) -> bool:
    return bool(situation.pending) and situation.retrain_failures < policy.max_retrain_attempts


def _may_learn(situation: Situation, policy: OverseerPolicy) -> bool:
    return _has_data(situation, policy) and not _cooling(situation, policy)


def _given_up(batch: str, situation: Situation, policy: OverseerPolicy) -> str:
    return (
        f"Batch {batch} failed {policy.max_retrain_attempts} times with model version "
        f"{situation.champion}: see its newest run and fix the cause. It is retried after a while, "
        "or after poleng retry"
    )


def _retraining(
    waiting: list[str], situation: Situation, policy: OverseerPolicy, messages: list[str]
) -> str | None:
    """Return why to train a challenger for batches that wait or show a loss; None when not to, or not now."""
    # Sorted, so that the order of scoring does not matter.
    causes = [
        *(f"drift in {batch}" for batch in sorted(waiting)),
        *(f"loss in {batch}" for batch in situation.lost),
    ]
    if waiting and (situation.retraining or situation.arriving):
        until = "the retraining ends"
        if not situation.retraining:
            until = f"{', '.join(situation.arriving)} is ingested"
        messages.append(f"Held until {until}: {', '.join(waiting)}")
        return None
    if situation.retraining or not causes or not _may_learn(situation, policy):
        return None
    if situation.together:
        messages.append(f"The retraining waits until {', '.join(situation.together)} is scored")
        return None
    if situation.arriving:
        return None
    retrain = f"{', '.join(causes)}; new field data: {', '.join(situation.pending)}"
    messages.append(f"Retraining: {retrain}")
    return retrain


def _retrain_without(situation: Situation, policy: OverseerPolicy, messages: list[str]) -> str | None:
    """Return why to retrain without withdrawn studies; None when none were withdrawn, or not now."""
    failed = situation.retrain_failures >= policy.max_retrain_attempts
    busy = situation.retraining or situation.arriving or situation.together
    if not situation.withdrawn or busy or failed:
        return None
    why = f"without {', '.join(situation.withdrawn)}, withdrawn since the last training"
    messages.append(f"Retraining {why}")
    return why


def _cooling(situation: Situation, policy: OverseerPolicy) -> bool:
    since = situation.batches_since_retraining
    return since is not None and since < policy.cooldown_batches


def _request(situation: Situation, policy: OverseerPolicy, messages: list[str]) -> tuple[str, ...]:
    """Return the batches with unanswered alarms, for one request."""
    batches = ", ".join(situation.unanswered)
    if situation.requesting:
        return ()
    if situation.request_failures >= policy.max_retrain_attempts:
        messages.append(f"The label request for {batches} failed: see its newest run")
        return ()
    messages.append(f"No new field data: requesting labels for {batches}")
    return situation.unanswered


def _first_model(situation: Situation, max_attempts: int) -> Plan:
    if situation.retraining:
        return Plan(messages=("The first model is being trained",))
    if situation.arriving:
        return Plan(messages=(f"The first model waits until {', '.join(situation.arriving)} is ingested",))
    if not situation.pending:
        why = (
            f"the first challenger was rejected: {situation.last_rejection}. "
            if situation.last_rejection
            else ""
        )
        return Plan(messages=(f"No model yet: {why}Drop a field study into landing/field_studies",))
    if situation.retrain_failures >= max_attempts:
        why = f"training failed {max_attempts} times, see its newest run"
        return Plan(messages=(f"No model from {', '.join(situation.pending)}: {why}",))
    reason = f"first model, from {', '.join(situation.pending)}"
    return Plan(retrain=reason, messages=(f"Training the {reason}",))


def _why_released(situation: Situation, policy: OverseerPolicy) -> str:
    if situation.pending and situation.retrain_failures >= policy.max_retrain_attempts:
        studies = ", ".join(situation.pending)
        return f"the retraining on {studies} failed {policy.max_retrain_attempts} times"
    rejected = situation.last_rejection
    newest = f"; the newest challenger was not promoted: {rejected}" if rejected else ""
    if situation.pending:
        since = situation.batches_since_retraining
        return (
            f"{since} new batch{'' if since == 1 else 'es'} since the last retraining, "
            f"{policy.cooldown_batches} are required before the next one{newest}"
        )
    return f"no new field study to train on{newest}"
