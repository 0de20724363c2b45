"""The landing folders as a resource of Dagster; what they do is in ``storage/landing.py``."""

import dagster as dg

from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import StudySource, open_home
from poleng_assets.storage.landing import Landing


def landing_resource(home: Home, study: StudySource, settle_seconds: float) -> dg.ResourceDefinition:
    """Return the resource that gives the plain landing, which the command line uses as well."""

    @dg.resource(config_schema={}, description="The folders in which files are dropped, kept and refused.")
    def landing(_: dg.InitResourceContext) -> Landing:
        open_home(home, study)
        return Landing(home, settle_seconds)

    return landing
