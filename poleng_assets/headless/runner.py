"""The headless runner: runs the project's sensors and jobs in one process, without a daemon.

It uses the same definitions and the same Dagster instance as ``dagster dev``: the UI shows all its runs,
assets and reports.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import dagster as dg

from poleng_assets.defs.instance import history_kept_open
from poleng_assets.defs.run_history import fail_orphaned_runs, this_process, words_of
from poleng_assets.storage.home import KINDS
from poleng_assets.storage.landing import Landing

MAX_ROUNDS = 50
# Multiple of the settle time of a file; a file that may be incomplete waits for ten settle times.
PATIENCE_FACTOR = 15


@dataclass(frozen=True)
class RunReport:
    """The result of one run."""

    job: str
    partition: str
    seconds: float
    success: bool
    message: str
    metadata: dict[str, Any]


@dataclass
class HeadlessRunner:
    """Evaluates every sensor and executes the requested runs, until no sensor requests one.

    Attributes:
        show: called with each finished run.
        skips: the last skip message of each sensor.
    """

    defs: dg.Definitions
    instance: dg.DagsterInstance
    show: Callable[[RunReport], None]
    skips: dict[str, str] = field(default_factory=dict)
    _cursors: dict[str, str | None] = field(default_factory=dict)

    def run_until_idle(self) -> list[RunReport]:
        """Evaluate all sensors until a complete round requests nothing; return the runs.

        Files that were just submitted or are still being written are waited for as by the daemon, but with a
        time limit: after some time without any run they are left for the next call.

        Raises:
            RuntimeError: sensors still request runs after ``MAX_ROUNDS`` rounds, probably an endless loop.
        """
        fail_orphaned_runs(self.instance)
        reports: list[RunReport] = []
        with history_kept_open(self.instance):
            rounds, idle_since = 0, time.monotonic()
            while rounds < MAX_ROUNDS:
                finished = [report for sensor in self.defs.sensors or [] for report in self._tick(sensor)]
                if finished:
                    reports += finished
                    rounds, idle_since = rounds + 1, time.monotonic()
                elif not self._wait_for_files(idle_since):
                    return reports
        raise RuntimeError(f"the sensors still request runs after {MAX_ROUNDS} rounds: {self.skips}")

    def _wait_for_files(self, since: float) -> bool:
        """Wait until a file in landing may have settled; return False if there is none or the time is up.

        Args:
            since: time of the last run, as of ``time.monotonic``.
        """
        with dg.build_resources(
            {"landing": (self.defs.resources or {})["landing"]}, self.instance
        ) as resources:
            landing: Landing = resources.landing
        rests = [rest for kind in KINDS if (rest := landing.look(kind).seconds)]
        if not rests or time.monotonic() - since + min(rests) > PATIENCE_FACTOR * landing.settle_seconds:
            return False
        time.sleep(min(rests) + 0.01)
        return True

    def _tick(self, sensor: dg.SensorDefinition) -> list[RunReport]:
        """Evaluate one sensor and execute the runs that it requests."""
        resources = {name: (self.defs.resources or {})[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self._cursors.get(sensor.name),
            definitions=self.defs,
            resources=resources,
        ) as context:
            context.log.setLevel(logging.CRITICAL)  # each run is shown by itself
            result = cast("dg.SensorResult | dg.SkipReason", sensor(context))
            if context.cursor_updated:
                self._cursors[sensor.name] = context.cursor
        if isinstance(result, dg.SkipReason):
            self.skips[sensor.name] = result.skip_message or ""
            return []
        self.skips[sensor.name] = (result.skip_reason.skip_message or "") if result.skip_reason else ""
        self._cursors[sensor.name] = result.cursor or self._cursors.get(sensor.name)
        for added in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(added.partitions_def_name, list(added.partition_keys))
        return [self._run(sensor, request) for request in result.run_requests or []]

    def _run(self, sensor: dg.SensorDefinition, request: dg.RunRequest) -> RunReport:
        return self.run(
            request.job_name or sensor.job_name or "",
            run_config=dict(request.run_config),
            partition_key=request.partition_key,
            tags={
                **request.tags,
                "dagster/sensor_name": sensor.name,
                "dagster/run_key": request.run_key or "",
            },
        )

    def run(
        self,
        job_name: str,
        *,
        run_config: dict[str, Any] | None = None,
        partition_key: str | None = None,
        tags: dict[str, str] | None = None,
        log: bool = False,
    ) -> RunReport:
        """Execute one job in this process, and show its result; ``log``: show its log as well."""
        started = time.monotonic()
        result = self.defs.resolve_job_def(job_name).execute_in_process(
            run_config={**(run_config or {}), "loggers": _console("INFO" if log else "CRITICAL")},
            partition_key=partition_key,
            instance=self.instance,
            raise_on_error=False,
            # From the start: a run that is killed before it has these tags would look alive for ever.
            tags={**(tags or {}), **this_process()},
        )
        report = RunReport(
            job_name,
            partition_key or "",
            time.monotonic() - started,
            result.success,
            _failure(result),
            _metadata(result),
        )
        self.show(report)
        return report


def _console(level: str) -> dict[str, Any]:
    return {"console": {"config": {"log_level": level}}}


def _failure(result: dg.ExecuteInProcessResult) -> str:
    """Return the error message of the first failed step, without its stack trace."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description
            return words_of(data.error) if data.error else "unknown"
    return "" if result.success else "the run failed before its first step"


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Return the metadata of every asset that the run materialised, by asset."""
    return {
        event.step_materialization_data.materialization.asset_key.to_user_string(): {
            name: value.value
            for name, value in event.step_materialization_data.materialization.metadata.items()
        }
        for event in result.all_events
        if event.is_step_materialization
    }
