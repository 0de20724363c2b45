"""What a run may not choose: the places it works on, and what stands in the environment.

Dagster lets the configuration of a run overwrite every setting of a resource, and fill any text in it from an
environment variable. Here a home is what the process was started with, and a secret of its environment (a
token, an address with a password) has no business in a ledger that people read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg


def fixed(resource: dg.ConfigurableResource[Any]) -> dg.ResourceDefinition:
    """Return a resource with the settings it has: a run that wants others is refused before it starts."""

    @dg.resource(config_schema={}, description=type(resource).__doc__)
    def as_it_is(context: dg.InitResourceContext) -> Iterator[Any]:
        with resource.yield_for_execution(context) as made:
            yield made

    return as_it_is


def refuse_environment(run_config: Mapping[str, Any]) -> None:
    """Refuse a run whose operations are to be configured from the environment.

    Args:
        run_config: as it was given, before anything was filled in.

    Raises:
        dagster.Failure: which field it is stands in the message.
    """
    for place in _from_environment(run_config.get("ops") or {}, "ops"):
        raise dg.Failure(
            f"{place} is to be read from an environment variable, which may hold a secret: write the value "
            "itself into the configuration of the run",
            allow_retries=False,
        )


def _from_environment(part: Any, place: str) -> Iterator[str]:
    if isinstance(part, Mapping):
        if set(part) == {"env"}:
            yield place
        for name, value in part.items():
            yield from _from_environment(value, f"{place}.{name}")
    elif isinstance(part, list):
        for value in part:
            yield from _from_environment(value, place)
