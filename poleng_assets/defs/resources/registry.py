"""The model registry as a resource of Dagster; what it does stands in ``models/registry.py``."""

import dagster as dg

from poleng_assets.models.registry import Registry
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import StudySource, open_home


def registry_resource(home: Home, study: StudySource) -> dg.ResourceDefinition:
    """Return the resource that gives the plain registry, which the command line uses as well."""

    @dg.resource(config_schema={}, description="The model registry of the home folder.")
    def registry(_: dg.InitResourceContext) -> Registry:
        return Registry(home, open_home(home, study))

    return registry
