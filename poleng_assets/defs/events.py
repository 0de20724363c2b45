"""What the graph has told last: who serves, how the newest batch fared, how all batches stand.

Read from Dagster's event history, as the sensors do it, and never from the warehouse: a batch that is being
scored holds that file for minutes, and a look into it would keep the next run waiting. The events hold all
of it already, and reading the newest of an asset takes some milliseconds, however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

VERDICTS = ("clear", "drifted", "untrusted", "insufficient")


@dataclass(frozen=True)
class Told:
    """What one event said, and when: seconds since 1970."""

    facts: Mapping[str, Any]
    at: float


@dataclass(frozen=True)
class History:
    """The newest events.

    Attributes:
        serving: the version that the champion's newest event names, None when there is none.
        report: of the batch that was judged last, None when none was.
        overview: of all batches, None when none was drawn.
        read_at: seconds since 1970.
    """

    serving: int | None
    report: Told | None
    overview: Told | None
    read_at: float


def newest(instance: dg.DagsterInstance, asset: str) -> Told | None:
    """Return what the newest event of an asset said, None when it has none."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    made = event.asset_materialization if event else None
    if event is None or made is None:
        return None
    return Told({name: found.value for name, found in made.metadata.items()}, event.timestamp)


def serving_version(champion: Told | None) -> int | None:
    """Return the version that the champion's event names: 0 stands for nobody."""
    return (champion.facts["serving_version"] or None) if champion else None
