"""The schedules: what happens because of the day, and not because of a file or an event.

The digest is no schedule: the command line and a daemon that was off must not miss it
(``notifications/sensor.py``).
"""

import dagster as dg

from poleng_assets.core.monitoring.loop_state import LoopState
from poleng_assets.defs import jobs
from poleng_assets.defs.sensors.overseer import retraining_requests, survey
from poleng_assets.storage.home_study import study_of
from poleng_assets.storage.landing import Landing


@dg.schedule(
    name="weekly_retraining",
    job_name=jobs.RETRAIN_JOB,
    cron_schedule="43 1 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday: trains a challenger, if field data came that no retraining has learned from.",
)
def weekly_retraining(
    context: dg.ScheduleEvaluationContext, landing: dg.ResourceParam[Landing]
) -> list[dg.RunRequest] | dg.SkipReason:
    """Ask for the retraining that the overseer would ask for, without waiting for an alarm.

    It is the same request, so that neither trains on data that the other has tried.
    """
    state, situation, _ = survey(context.instance, landing, LoopState())
    if situation.champion is None:
        return dg.SkipReason("No model serves yet: the overseer trains the first one")
    if situation.retraining:
        return dg.SkipReason("A retraining is queued or running")
    if not situation.pending:
        return dg.SkipReason("No new field data: every field study was learned from")
    studies = ", ".join(situation.pending)
    if situation.retrain_failures >= study_of(landing.home).policies.overseer.max_retrain_attempts:
        return dg.SkipReason(
            f"The retraining on {studies} failed {situation.retrain_failures} times: look at its newest run"
        )
    return retraining_requests(context.instance, state, f"weekly retraining; new field data: {studies}")


archive_schedule = dg.ScheduleDefinition(
    name="daily_archive_check",
    job=jobs.check_archive,
    cron_schedule="29 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares every night each archived file with the hash that it had when it was taken in.",
)

SCHEDULES = [weekly_retraining, archive_schedule]
