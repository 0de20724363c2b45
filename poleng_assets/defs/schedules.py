"""The schedules.

The digest is not a schedule: the command line, or a daemon that was off, must not miss it
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
    description="Every Monday: retrains if there is new field data.",
)
def weekly_retraining(
    context: dg.ScheduleEvaluationContext, landing: dg.ResourceParam[Landing]
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a retraining without waiting for an alarm.

    The request has the overseer's key, so that neither repeats a retraining of the other.
    """
    state, situation, _ = survey(context.instance, landing, LoopState())
    if situation.champion is None:
        return dg.SkipReason("No model serves yet: the overseer trains the first one")
    if situation.retraining:
        return dg.SkipReason("A retraining is queued or running")
    if not situation.pending:
        return dg.SkipReason("No new field data")
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
    description="Every night: compares every archived file with its recorded hash.",
)

SCHEDULES = [weekly_retraining, archive_schedule]
