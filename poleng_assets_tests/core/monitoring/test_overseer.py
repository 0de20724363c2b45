"""The overseer's plan: from the verdicts on all open batches to what is launched. Whole truth tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from poleng_assets.core.monitoring import overseer
from poleng_assets.core.monitoring.overseer import OpenBatch, Plan, Situation
from poleng_assets.study.policies import OverseerPolicy
from poleng_assets.study.schema import Study

MAX_ATTEMPTS = 3
COOLDOWN = 2
CHAMPION = 2


@pytest.fixture(scope="module")
def policy(study: Study) -> OverseerPolicy:
    return study.policies.overseer.model_copy(
        update={"max_retrain_attempts": MAX_ATTEMPTS, "cooldown_batches": COOLDOWN}
    )


def words(case: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in case.items() if value) or "nothing"


def combinations(*names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, values, strict=True)) for values in product((False, True), repeat=len(names))]


# One open batch

# The first rule that fits says what becomes of the one open batch.
OUTCOMES: list[tuple[dict[str, Any], str]] = [
    ({"busy": True}, "nothing"),
    ({"held": True, "version": CHAMPION, "retraining": True}, "wait for the retraining"),
    ({"held": True, "version": CHAMPION, "arriving": True}, "wait for the study"),
    ({"held": True, "version": CHAMPION, "pending": True, "failed": False, "cooling": False}, "retrain"),
    ({"score_failed": True}, "give up"),
    ({"held": True, "version": CHAMPION}, "release"),
    ({}, "score"),
]
SITUATIONS = [
    {"version": version, **case}
    for version in (None, CHAMPION - 1, CHAMPION)
    for case in combinations(
        "held", "busy", "retraining", "arriving", "pending", "failed", "cooling", "score_failed"
    )
]


def situation_of(case: dict[str, Any]) -> Situation:
    return Situation(
        champion=CHAMPION,
        open_batches=(OpenBatch("b1", case["version"], case["held"]),),
        pending=("later",) if case["pending"] else (),
        arriving=("newest",) if case["arriving"] else (),
        retrain_failures=MAX_ATTEMPTS if case["failed"] else MAX_ATTEMPTS - 1,
        retraining=case["retraining"],
        busy=frozenset({"b1"} if case["busy"] else ()),
        failures={"b1": MAX_ATTEMPTS if case["score_failed"] else MAX_ATTEMPTS - 1},
        batches_since_retraining=COOLDOWN - 1 if case["cooling"] else COOLDOWN,
    )


def expected_outcome(case: dict[str, Any]) -> str:
    return next(outcome for rule, outcome in OUTCOMES if rule.items() <= case.items())


@pytest.mark.parametrize("version", [None, CHAMPION - 1, CHAMPION])
def test_in_every_situation_an_open_batch_gets_what_it_needs(policy: OverseerPolicy, version: int | None):
    for case in (one for one in SITUATIONS if one["version"] == version):
        expected = expected_outcome(case)
        decided = overseer.plan(situation_of(case), policy)
        happened = {
            "retrain": decided.retrain is not None,
            "score": decided.score == ("b1",),
            "release": [batch for batch, _ in decided.release] == ["b1"],
            "wait for the retraining": decided.messages == ("Held until the retraining ends: b1",),
            "wait for the study": decided.messages == ("Held until newest is ingested: b1",),
            "give up": any(m.startswith("Batch b1 failed 3 times") for m in decided.messages),
        }
        assert [name for name, so in happened.items() if so] == [expected] * (expected != "nothing"), case
        assert len(decided.messages) == (0 if expected in ("nothing", "score") else 1), case
        assert decided.request == (), case


def test_every_outcome_occurs_in_the_table():
    assert {expected_outcome(case) for case in SITUATIONS} == {outcome for _, outcome in OUTCOMES}


# Before the first model

FIRST_MODEL: list[tuple[dict[str, Any], str | None, str]] = [
    ({"retraining": True}, None, "The first model is being trained"),
    ({"arriving": True}, None, "The first model waits until newest is ingested"),
    ({"pending": False, "rejected": False}, None, "No model yet: Drop a field study into"),
    (
        {"pending": False, "rejected": True},
        None,
        "No model yet: the first challenger was rejected: it guesses. Drop",
    ),
    ({"failed": True}, None, "No model from founding: training failed 3 times"),
    ({}, "first model, from founding", "Training the first model, from founding"),
]


@pytest.mark.parametrize(
    "case",
    combinations("retraining", "arriving", "pending", "failed", "rejected", "waiting", "unanswered"),
    ids=words,
)
def test_before_the_first_model_there_is_only_its_training(policy: OverseerPolicy, case: dict[str, Any]):
    retrain, message = next((r, m) for rule, r, m in FIRST_MODEL if rule.items() <= case.items())
    situation = Situation(
        champion=None,
        open_batches=(OpenBatch("b1"), OpenBatch("b2", 1, True)) if case["waiting"] else (),
        pending=("founding",) if case["pending"] else (),
        arriving=("newest",) if case["arriving"] else (),
        retrain_failures=MAX_ATTEMPTS if case["failed"] else 0,
        retraining=case["retraining"],
        last_rejection="it guesses" if case["rejected"] else "",
        unanswered=("b2",) if case["unanswered"] else (),
    )
    decided = overseer.plan(situation, policy)
    assert decided == Plan(retrain, messages=decided.messages)
    assert len(decided.messages) == 1
    assert decided.messages[0].startswith(message)


def test_the_first_model_does_not_wait_for_a_cooldown(policy: OverseerPolicy):
    refused = Situation(None, pending=("founding",), batches_since_retraining=0)
    assert overseer.plan(refused, policy).retrain is not None


# Many batches


def held(*batches: str) -> tuple[OpenBatch, ...]:
    return tuple(OpenBatch(batch, CHAMPION, held=True) for batch in batches)


def test_with_nothing_open_there_is_nothing_to_do(policy: OverseerPolicy):
    assert overseer.plan(Situation(champion=CHAMPION, pending=("later",)), policy) == Plan()


def test_new_field_data_alone_is_no_reason_to_retrain(policy: OverseerPolicy):
    fresh = (OpenBatch("b1"),)
    assert overseer.plan(Situation(CHAMPION, fresh, pending=("later",)), policy).retrain is None


def test_many_held_batches_are_one_retraining(policy: OverseerPolicy):
    decided = overseer.plan(Situation(CHAMPION, held("b1", "b2", "b3"), pending=("later", "more")), policy)
    assert decided.retrain == "drift in b1, drift in b2, drift in b3; new field data: later, more"
    assert (decided.score, decided.release) == ((), ())


def test_a_held_batch_with_a_run_is_no_reason_to_retrain(policy: OverseerPolicy):
    situation = Situation(CHAMPION, held("b1"), pending=("later",), busy=frozenset({"b1"}))
    assert overseer.plan(situation, policy) == Plan()


def test_batches_are_scored_while_others_wait(policy: OverseerPolicy):
    batches = (*held("b1"), OpenBatch("b2"), OpenBatch("b3", CHAMPION - 1, held=True))
    decided = overseer.plan(Situation(CHAMPION, batches, pending=("later",)), policy)
    assert decided.score == ("b2", "b3")
    assert decided.retrain == "drift in b1; new field data: later"


def test_a_held_batch_is_scored_again_by_a_new_champion(policy: OverseerPolicy):
    assert overseer.plan(Situation(CHAMPION + 1, held("b1")), policy) == Plan(score=("b1",))


def test_a_failure_of_one_batch_does_not_stop_another(policy: OverseerPolicy):
    batches = (OpenBatch("b1"), OpenBatch("b2"))
    decided = overseer.plan(Situation(CHAMPION, batches, failures={"b1": MAX_ATTEMPTS}), policy)
    assert decided.score == ("b2",)


@pytest.mark.parametrize(
    ("situation", "why"),
    [
        (Situation(CHAMPION, held("b1")), "no new field study to train on"),
        (
            Situation(CHAMPION, held("b1"), last_rejection="it ranks worse"),
            "no new field study to train on; the newest challenger was not promoted: it ranks worse",
        ),
        (
            Situation(CHAMPION, held("b1"), pending=("later",), retrain_failures=MAX_ATTEMPTS),
            "the retraining on later failed 3 times",
        ),
        (
            Situation(CHAMPION, held("b1"), pending=("later",), batches_since_retraining=1),
            "1 new batch since the last retraining, 2 are required before the next one",
        ),
        (
            Situation(
                CHAMPION,
                held("b1"),
                pending=("later",),
                batches_since_retraining=0,
                last_rejection="it ranks worse",
            ),
            "0 new batches since the last retraining, 2 are required before the next one; "
            "the newest challenger was not promoted: it ranks worse",
        ),
    ],
)
def test_a_released_batch_says_why_it_was_not_waited_for(
    policy: OverseerPolicy, situation: Situation, why: str
):
    decided = overseer.plan(situation, policy)
    assert decided.release == (("b1", why),)
    assert decided.messages == (f"Releasing b1 with the present champion: {why}",)


# Cooldown


@pytest.mark.parametrize(
    ("since", "cooldown", "retrains"),
    [
        (None, 2, True),
        (0, 2, False),
        (1, 2, False),
        (2, 2, True),
        (3, 2, True),
        (0, 0, True),
        (0, 1, False),
        (1, 1, True),
        (None, 50, True),
    ],
)
@pytest.mark.parametrize("lost", [False, True])
def test_after_a_retraining_some_batches_are_waited_for(
    policy: OverseerPolicy, since: int | None, cooldown: int, retrains: bool, lost: bool
):
    under = policy.model_copy(update={"cooldown_batches": cooldown})
    situation = Situation(
        CHAMPION,
        held("b1"),
        pending=("later",),
        batches_since_retraining=since,
        lost=("b0",) if lost else (),
    )
    decided = overseer.plan(situation, under)
    assert (decided.retrain is not None) is retrains
    assert bool(decided.release) is not retrains


def test_a_cooldown_does_not_stop_batches_from_being_scored(policy: OverseerPolicy):
    situation = Situation(CHAMPION, (OpenBatch("b1"),), pending=("later",), batches_since_retraining=0)
    assert overseer.plan(situation, policy) == Plan(score=("b1",))


def test_a_batch_is_not_released_while_a_study_arrives_even_in_the_cooldown(policy: OverseerPolicy):
    situation = Situation(CHAMPION, held("b1"), arriving=("newest",), batches_since_retraining=0)
    assert overseer.plan(situation, policy) == Plan(messages=("Held until newest is ingested: b1",))


# Realised loss

LOST: list[tuple[dict[str, Any], bool]] = [
    ({"retraining": True}, False),
    ({"arriving": True}, False),
    ({"pending": False}, False),
    ({"failed": True}, False),
    ({"cooling": True}, False),
    ({}, True),
]


@pytest.mark.parametrize(
    "case", combinations("retraining", "arriving", "pending", "failed", "cooling"), ids=words
)
def test_a_realised_loss_asks_for_a_retraining_when_there_is_something_to_learn(
    policy: OverseerPolicy, case: dict[str, Any]
):
    expected = next(retrains for rule, retrains in LOST if rule.items() <= case.items())
    situation = replace(
        situation_of({"version": None, "held": False, "busy": True, "score_failed": False, **case}),
        lost=("b0", "b9"),
    )
    decided = overseer.plan(situation, policy)
    reason = "loss in b0, loss in b9; new field data: later"
    assert decided == (Plan(reason, messages=(f"Retraining: {reason}",)) if expected else Plan())


def test_drift_and_loss_are_one_retraining(policy: OverseerPolicy):
    decided = overseer.plan(Situation(CHAMPION, held("b1"), pending=("later",), lost=("b0",)), policy)
    assert decided.retrain == "drift in b1, loss in b0; new field data: later"
    assert decided.messages == (f"Retraining: {decided.retrain}",)


# Requests for labels

REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"unanswered": False}, "nothing"),
    ({"retraining": True}, "nothing"),
    ({"arriving": True}, "nothing"),
    # A cooldown is no lack of data.
    ({"pending": True, "failed": False}, "nothing"),
    ({"requesting": True}, "nothing"),
    ({"request_failed": True}, "give up"),
    ({}, "request"),
]


@pytest.mark.parametrize(
    "case",
    combinations(
        "unanswered",
        "retraining",
        "arriving",
        "pending",
        "failed",
        "cooling",
        "requesting",
        "request_failed",
    ),
    ids=words,
)
def test_labels_are_asked_for_only_when_there_is_nothing_to_learn_from(
    policy: OverseerPolicy, case: dict[str, Any]
):
    expected = next(outcome for rule, outcome in REQUESTS if rule.items() <= case.items())
    situation = replace(
        situation_of({"version": None, "held": False, "busy": True, "score_failed": False, **case}),
        unanswered=("b0", "b9") if case["unanswered"] else (),
        requesting=case["requesting"],
        request_failures=MAX_ATTEMPTS if case["request_failed"] else MAX_ATTEMPTS - 1,
    )
    asked = "No new field data: requesting labels for b0, b9"
    assert (
        overseer.plan(situation, policy)
        == {
            "nothing": Plan(),
            "give up": Plan(
                messages=("The label request for b0, b9 failed: see its newest run",),
            ),
            "request": Plan(request=("b0", "b9"), messages=(asked,)),
        }[expected]
    )


def test_a_held_batch_is_released_while_labels_are_asked_for(policy: OverseerPolicy):
    decided = overseer.plan(Situation(CHAMPION, held("b1"), unanswered=("b1",)), policy)
    assert decided.request == ("b1",)
    assert [batch for batch, _ in decided.release] == ["b1"]
    assert len(decided.messages) == 2


# Idleness


@pytest.mark.parametrize(
    ("decided", "idle"),
    [
        (Plan(messages=("waiting",)), True),
        (Plan(retrain="why"), False),
        (Plan(score=("b1",)), False),
        (Plan(release=(("b1", "why"),)), False),
        (Plan(request=("b1",)), False),
    ],
)
def test_a_plan_that_launches_nothing_is_idle(decided: Plan, idle: bool):
    assert decided.idle is idle


def test_a_champion_that_learned_from_what_was_withdrawn_is_followed_at_once(policy: OverseerPolicy):
    withdrawn = Situation(champion=2, withdrawn=("spring",))
    assert overseer.plan(withdrawn, policy).retrain == "without spring, withdrawn since the last training"
    assert overseer.plan(replace(withdrawn, retraining=True), policy).retrain is None
    assert overseer.plan(replace(withdrawn, arriving=("autumn",)), policy).retrain is None
    failed = replace(withdrawn, retrain_failures=policy.max_retrain_attempts)
    assert overseer.plan(failed, policy).retrain is None


def test_a_retraining_waits_until_the_batches_that_came_together_are_scored(policy: OverseerPolicy):
    held = OpenBatch("b1", CHAMPION, held=True)
    situation = Situation(champion=CHAMPION, open_batches=(held,), pending=("later",), together=("b2", "b3"))
    waiting = overseer.plan(situation, policy)
    assert waiting.retrain is None
    assert not waiting.release
    assert waiting.messages == ("The retraining waits until b2, b3 is scored",)
    assert (
        overseer.plan(replace(situation, together=()), policy).retrain == "drift in b1; new field data: later"
    )
