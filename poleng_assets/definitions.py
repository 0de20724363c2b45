"""The whole composition on one page: assets, jobs, sensors and resources of one home folder."""

import dagster as dg

from poleng_assets.defs import checks
from poleng_assets.defs.asset_tags import with_audience, with_freshness
from poleng_assets.defs.assets import (
    arrivals,
    label_requests,
    monitoring,
    outcomes,
    promotion,
    scoring,
    training,
)
from poleng_assets.defs.jobs import ASSET_JOBS
from poleng_assets.defs.quarantine_release import release_rows
from poleng_assets.defs.resources.landing import landing_resource
from poleng_assets.defs.resources.mlflow import mlflow_run
from poleng_assets.defs.resources.registry import registry_resource
from poleng_assets.defs.resources.warehouse import warehouse_resource
from poleng_assets.defs.rollback import rollback
from poleng_assets.defs.schedules import SCHEDULES
from poleng_assets.defs.sensors import SENSORS
from poleng_assets.defs.withdrawal import withdraw_field_study
from poleng_assets.notifications.sensor import NOTIFICATIONS
from poleng_assets.operations.retention import apply_retention, retention_schedule
from poleng_assets.simulation.scenario_jobs import scenario_jobs
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import StudySource, open_home
from poleng_assets.storage.landing import SETTLE_SECONDS


def build_defs(
    *, home: Home | None = None, study: StudySource = None, settle_seconds: float = SETTLE_SECONDS
) -> dg.Definitions:
    """Build the definitions of one home folder. Nothing is made or read: that is done when work begins.

    Args:
        home: where all state lives; by default what ``POLENG_HOME`` names, or ``data/``.
        study: or its file; by default that of the home. A home that has none takes it; on one that has
            another, runs and sensors are refused.
        settle_seconds: how long a dropped file must be left alone before it is taken in.
    """
    home = home or Home.default()
    return dg.Definitions(
        assets=dg.map_asset_specs(lambda spec: with_audience(with_freshness(spec)), _assets()),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=[
            *ASSET_JOBS,
            rollback,
            release_rows,
            apply_retention,
            withdraw_field_study,
            *scenario_jobs(home),
        ],
        # Last: what the others have just had done is told in the same round.
        sensors=[*SENSORS, *NOTIFICATIONS],
        schedules=[retention_schedule, *SCHEDULES],
        # One process for a run: NannyML alone costs seconds to import, in each process anew.
        executor=dg.in_process_executor,
        resources={
            "warehouse": warehouse_resource(home, study),
            "landing": landing_resource(home, study, settle_seconds),
            "registry": registry_resource(home, study),
            "mlflow": mlflow_run.configured(
                # A function: what stands here as it is would be a default, which a run may overwrite.
                lambda _: {
                    "experiment_name": open_home(home, study).name,
                    "mlflow_tracking_uri": home.mlflow_uri,
                    "artifact_location": home.artifacts.as_uri(),
                },
                config_schema={},
            ),
        },
    )


def _assets() -> list[dg.AssetsDefinition]:
    modules = [arrivals, training, promotion, scoring, monitoring, outcomes, label_requests]
    return [asset for asset in dg.load_assets_from_modules(modules) if isinstance(asset, dg.AssetsDefinition)]


defs = build_defs()
