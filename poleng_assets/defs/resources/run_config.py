"""What a run may not choose: what stands in the environment.

Dagster fills any text in the configuration of a run from an environment variable. A secret of the environment
(a token, an address with a password) has no business in a ledger that people read. The resources take no
configuration at all: a home is what the process was started with.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg


def refuse_environment(run_config: Mapping[str, Any]) -> None:
    """Refuse a run whose operations are to be configured from the environment.

    Args:
        run_config: as it was given, before anything was filled in.

    Raises:
        dagster.Failure: which field it is stands in the message.
    """
    for setting in _from_environment(run_config.get("ops") or {}, "ops"):
        raise dg.Failure(
            f"{setting} is to be read from an environment variable, which may hold a secret: write the value "
            "itself into the configuration of the run",
            allow_retries=False,
        )


def _from_environment(part: Any, path: str) -> Iterator[str]:
    if isinstance(part, Mapping):
        if set(part) == {"env"}:
            yield path
        for name, value in part.items():
            yield from _from_environment(value, f"{path}.{name}")
    elif isinstance(part, list):
        for value in part:
            yield from _from_environment(value, path)
