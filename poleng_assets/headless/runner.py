"""The headless runner: drives the project's own sensors and jobs inside one process, without a daemon.

It uses the same definitions and the same Dagster instance as ``dagster dev``, so that the UI shows
each of its runs, assets and reports afterwards.
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
# So many times as long as a file must be left alone; one that ends early takes ten of them.
PATIENCE_FACTOR = 15


@dataclass(frozen=True)
class RunReport:
    """How one run went, for the person who watches."""

    job: str
    partition: str
    seconds: float
    success: bool
    message: str
    metadata: dict[str, Any]


@dataclass
class HeadlessRunner:
    """Ticks every sensor and runs what they ask for, until nobody asks for anything.

    Attributes:
        show: called with each finished run.
        skips: what each sensor last said when it asked for nothing.
    """

    defs: dg.Definitions
    instance: dg.DagsterInstance
    show: Callable[[RunReport], None]
    skips: dict[str, str] = field(default_factory=dict)
    _cursors: dict[str, str | None] = field(default_factory=dict)

    def run_until_idle(self) -> list[RunReport]:
        """Tick until a whole round asks for nothing; return the runs.

        Files that others have just dropped, or still write to, are waited for as the daemon waits, but not
        for ever: after a while without anything to do they are left to the next time.

        Raises:
            RuntimeError: it still asks after ``MAX_ROUNDS`` rounds, which would be a loop.
        """
        fail_orphaned_runs(self.instance)
        reports: list[RunReport] = []
        with history_kept_open(self.instance):
            rounds, idle_since = 0, time.monotonic()
            while rounds < MAX_ROUNDS:
                done = [report for sensor in self.defs.sensors or [] for report in self._tick(sensor)]
                if done:
                    reports += done
                    rounds, idle_since = rounds + 1, time.monotonic()
                elif not self._wait_for_files(idle_since):
                    return reports
        raise RuntimeError(f"the sensors still ask for runs after {MAX_ROUNDS} rounds: {self.skips}")

    def _wait_for_files(self, since: float) -> bool:
        """Wait until a file in landing may have settled; say whether there is one and patience for it.

        Args:
            since: when there was something to do for the last time, as ``time.monotonic`` counts.
        """
        with dg.build_resources({"landing": (self.defs.resources or {})["landing"]}, self.instance) as made:
            landing: Landing = made.landing
        rests = [rest for kind in KINDS if (rest := landing.look(kind).seconds)]
        if not rests or time.monotonic() - since + min(rests) > PATIENCE_FACTOR * landing.settle_seconds:
            return False
        time.sleep(min(rests) + 0.01)
        return True

    def _tick(self, sensor: dg.SensorDefinition) -> list[RunReport]:
        """Evaluate one sensor and run each of its requests to the end."""
        resources = {name: (self.defs.resources or {})[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self._cursors.get(sensor.name),
            definitions=self.defs,
            resources=resources,
        ) as context:
            context.log.setLevel(logging.CRITICAL)  # what matters is shown run by run
            asked = cast("dg.SensorResult | dg.SkipReason", sensor(context))
            if context.cursor_updated:
                self._cursors[sensor.name] = context.cursor
        if isinstance(asked, dg.SkipReason):
            self.skips[sensor.name] = asked.skip_message or ""
            return []
        self.skips[sensor.name] = (asked.skip_reason.skip_message or "") if asked.skip_reason else ""
        self._cursors[sensor.name] = asked.cursor or self._cursors.get(sensor.name)
        for added in asked.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(added.partitions_def_name, list(added.partition_keys))
        return [self._run(sensor, request) for request in asked.run_requests or []]

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
        """Run one job to its end in this process, and show how it went; ``log``: and what it logs."""
        started = time.monotonic()
        result = self.defs.resolve_job_def(job_name).execute_in_process(
            run_config={**(run_config or {}), "loggers": _console("INFO" if log else "CRITICAL")},
            partition_key=partition_key,
            instance=self.instance,
            raise_on_error=False,
            # From its first moment: a run that is killed before it names itself would look alive for ever.
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
    """Return the words of the first failed step, not its stack trace."""
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
