"""The scenarios as jobs in Dagster's UI. They submit files and wait for the sensors of the daemon."""

import time
from pathlib import Path

import dagster as dg
from pydantic import Field

from poleng_assets.core.monitoring.loop_state import LoopState
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.defs.sensors.overseer import survey
from poleng_assets.operations.reset import ResetRefused, check_confirmation, reset_data, reset_events
from poleng_assets.simulation.player import Ending, play_scenario, scenario_data
from poleng_assets.simulation.scenarios import SCENARIOS, Drop, Scenario
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.storage.synthetic import REAL, OtherPeople, sort_of_home
from poleng_assets.text.markdown import table
from poleng_assets.warehouse.connection import Warehouse

LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 900.0


NAME_OF_HOME = "Type the name of the home's folder as a confirmation."


class ScenarioConfig(dg.Config):
    """The home and the data of a scenario."""

    home: str = Field(default="", description=NAME_OF_HOME)
    data: str = Field(
        default="",
        description="Folder with field_studies, batches and optionally outcomes; empty for the synthetic "
        "population.",
    )


def _scenario_job(scenario: Scenario, description: str) -> dg.JobDefinition:
    @dg.op(name=f"play_{scenario}", description=description)
    def play(
        context: dg.OpExecutionContext,
        config: ScenarioConfig,
        landing: dg.ResourceParam[Landing],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> None:
        _check_confirmation(landing, config.home, "The scenario was not started")

        def run_pending(drop: Drop) -> None:
            context.log.info(f"{drop.path.name} submitted to landing/{drop.kind}")
            _wait_until_settled(context, landing, drop)

        try:
            data = scenario_data(landing.home, warehouse.study, Path(config.data) if config.data else None)
            ending = play_scenario(scenario, data, landing, warehouse, run_pending)
        except OtherPeople as refusal:
            raise dg.Failure(str(refusal), allow_retries=False) from refusal
        context.add_output_metadata({"dropped": ending.dropped, "batches": _table(ending)})
        if ending.faults:
            raise dg.Failure(f"The scenario did not end as expected: {'; '.join(ending.faults)}")
        context.log.info(
            "The scenario ended as expected" if ending.dropped else "No new files, nothing changed"
        )

    @dg.job(name=f"simulate_{scenario}", description=description)
    def simulate() -> None:
        play()

    return simulate


def _check_confirmation(landing: Landing, typed: str, nothing_happened: str) -> None:
    name = landing.home.root.name
    if typed.strip() not in (name, str(landing.home.root)):
        raise dg.Failure(
            f"{nothing_happened}: type the name of this home, {name!r}, as `home` in the configuration.",
            allow_retries=False,
        )


def _wait_until_settled(context: dg.OpExecutionContext, landing: Landing, drop: Drop) -> None:
    """Wait until the daemon has ingested the file and finished all work that follows."""
    pending = landing.home.landing(drop.kind) / drop.path.name
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        others = [run for run in runs_in_progress(context.instance) if run.run_id != context.run_id]
        if not pending.exists() and not others and survey(context.instance, landing, LoopState())[2].idle:
            return
    raise dg.Failure(
        f"{drop.path.name} was not processed within {PATIENCE_SECONDS / 60:.0f} minutes. Check that the "
        "sensors are on (Automation) and that no run hangs (Runs)."
    )


def _table(ending: Ending) -> dg.MarkdownMetadataValue:
    rows = [
        (
            row.batch,
            row.version,
            row.rows,
            row.verdict,
            row.drifted_columns,
            _cell(row.estimated_auc),
            _cell(row.realised_auc),
            row.listed,
        )
        for row in ending.rows
    ]
    head = [
        "batch",
        "model",
        "rows",
        "verdict",
        "drifted columns",
        "estimated AUC",
        "realised AUC",
        "contacts",
    ]
    return dg.MetadataValue.md(table(head, rows))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


class ResetConfig(dg.Config):
    """The home to empty."""

    home: str = Field(default="", description=NAME_OF_HOME)


@dg.op(description="Deletes all data, models, lists and reports, and their Dagster events.")
def forget_everything(
    context: dg.OpExecutionContext, config: ResetConfig, landing: dg.ResourceParam[Landing]
) -> None:
    """Empty the home while its daemon runs; refused while another run is in progress."""
    others = [run.job_name for run in runs_in_progress(context.instance) if run.run_id != context.run_id]
    if others:
        raise dg.Failure(f"These runs are in progress: {', '.join(others)}. Try again when they have ended.")
    if sort_of_home(landing.home) == REAL:
        # The UI was started before; after a restart it does not have this job.
        raise dg.Failure(
            "Nothing was deleted: this home contains real people. To empty it anyway, stop the UI and run "
            "`poleng reset`.",
            allow_retries=False,
        )
    try:
        check_confirmation(landing.home, config.home)
    except ResetRefused as refusal:
        raise dg.Failure(str(refusal), allow_retries=False) from refusal
    reset_data(landing.home)
    reset_events(context.instance, list(context.instance.all_asset_keys()))


@dg.job(description="Empty the home folder. The list of runs is kept.")
def reset() -> None:
    """Delete everything but the list of runs."""
    forget_everything()


_DESCRIPTIONS: dict[Scenario, str] = {
    "clean": "A founding study, then batches like its training data: all should be clear.",
    "drift": "A founding study, then batches from unseen countries and a field study with these countries.",
    "full": "The clean batches first, then the drifted ones, with one retraining in between.",
}
SCENARIO_JOBS = [*(_scenario_job(name, _DESCRIPTIONS[name]) for name in SCENARIOS), reset]


def scenario_jobs(home: Home) -> list[dg.JobDefinition]:
    """Return the jobs that simulate in a home or empty it; none if it has real people."""
    return [] if sort_of_home(home) == REAL else SCENARIO_JOBS
