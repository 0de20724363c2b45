"""What the days of the week bring: a retraining when there is something to learn, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from poleng_assets.definitions import build_defs
from poleng_assets.defs.asset_tags import WINDOWS
from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.jobs import RETRAIN_JOB
from poleng_assets.defs.run_history import REQUEST_TAG
from poleng_assets_tests.graph.test_ticks import Office
from poleng_assets_tests.homes import new_home
from poleng_assets_tests.long_history import STUDY, STUDY_HASH, write_history


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Office]:
    home = new_home(tmp_path / "home")
    with open_instance(home) as instance:
        yield Office(home, instance, build_defs(home=home, settle_seconds=0.0))


@pytest.fixture
def office(empty: Office) -> Office:
    """A champion that has learned from the founding study, and a few batches."""
    write_history(empty.instance, 3, pictures=False)
    return empty


def monday(office: Office) -> Any:
    """Let the weekly schedule look at the home."""
    schedule: Any = next(one for one in office.defs.schedules or [] if one.name == "weekly_retraining")
    resources = {"landing": (office.defs.resources or {})["landing"]}
    with dg.build_schedule_context(office.instance, resources=resources) as context:
        return schedule(context)


def wanted(office: Office) -> dg.RunRequest:
    (request,) = monday(office)
    return request


def declined(office: Office) -> str:
    """Return why nothing is asked for."""
    answer = monday(office)
    assert isinstance(answer, dg.SkipReason)
    return answer.skip_message or ""


def bring_study(office: Office, name: str) -> None:
    office.instance.add_dynamic_partitions("field_study", [name])
    office.tell("field_studies", name, content_hash=f"hash of {name}")


def pretend_runs(office: Office, request: dg.RunRequest, *statuses: dg.DagsterRunStatus) -> None:
    job = office.defs.resolve_job_def(RETRAIN_JOB)
    for status in statuses:
        office.instance.create_run_for_job(job, tags=dict(request.tags), status=status)


def test_without_a_model_the_first_one_is_left_to_the_overseer(empty: Office):
    bring_study(empty, "spring")
    assert "No model serves yet" in declined(empty)


def test_without_new_field_data_nothing_is_trained(office: Office):
    assert declined(office) == "No new field data"


def test_new_field_data_are_learned_from_though_no_batch_drifted(office: Office):
    bring_study(office, "spring")
    assert office.tick("overseer")[0] == []
    request = wanted(office)
    assert request.run_config == {
        "ops": {"training_data": {"config": {"reason": "weekly retraining; new field data: spring"}}}
    }


def test_it_is_the_overseers_own_request_and_attempts_are_counted_together(office: Office):
    bring_study(office, "spring")
    office.hold(["held"])
    (of_overseer,), _ = office.tick("overseer")
    of_schedule = wanted(office)
    assert of_overseer.job_name == RETRAIN_JOB
    assert of_schedule.tags[REQUEST_TAG] == of_overseer.tags[REQUEST_TAG]
    assert (of_schedule.run_key or "").endswith("/1")
    pretend_runs(office, of_overseer, dg.DagsterRunStatus.FAILURE)
    assert (wanted(office).run_key or "").endswith("/2")


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_while_a_model_is_trained_no_other_is_asked_for(office: Office, status: dg.DagsterRunStatus):
    bring_study(office, "spring")
    request = wanted(office)
    pretend_runs(office, request, status)
    assert declined(office) == "A retraining is queued or running"


def test_data_that_were_learned_from_or_judged_not_better_are_not_trained_on_again(office: Office):
    bring_study(office, "spring")
    judged = {STUDY: STUDY_HASH, "spring": "hash of spring"}
    office.tell(
        "champion",
        None,
        promoted=False,
        serving_version=1,
        reason="no better",
        judged_field_studies=dg.MetadataValue.json(judged),
    )
    assert declined(office) == "No new field data"
    bring_study(office, "spring@2")
    assert "spring@2" in str(wanted(office).run_config)


def test_a_retraining_that_fails_again_and_again_is_named_and_left_alone(office: Office):
    bring_study(office, "spring")
    request = wanted(office)
    pretend_runs(office, request, *[dg.DagsterRunStatus.FAILURE] * 3)
    assert "The retraining on spring failed 3 times: look at its newest run" in declined(office)


def test_the_schedules_run_by_themselves_in_the_night(office: Office):
    schedules: list[Any] = list(office.defs.schedules or [])
    assert {one.name: (one.job_name, one.cron_schedule) for one in schedules} == {
        "daily_archive_check": ("check_archive", "29 4 * * *"),
        "daily_retention": ("apply_retention", "17 3 * * *"),
        "weekly_retraining": (RETRAIN_JOB, "43 1 * * 1"),
    }
    assert {one.default_status for one in schedules} == {dg.DefaultScheduleStatus.RUNNING}


def test_a_long_silence_of_what_others_wait_for_is_shown(office: Office):
    graph = office.defs.resolve_asset_graph()
    policies = {
        key.to_user_string(): graph.get(key).freshness_policy
        for key in graph.get_all_asset_keys()
        if graph.get(key).freshness_policy
    }
    assert policies.keys() == WINDOWS.keys()
    for name, (warn, fail) in WINDOWS.items():
        policy: Any = policies[name]
        assert (policy.warn_window.to_timedelta().days, policy.fail_window.to_timedelta().days) == (
            warn,
            fail,
        )
