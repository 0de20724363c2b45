"""Events of assets, read from Dagster's history: the newest, or all of a time.

Sensors, the server and messages ask this and never the warehouse: what an asset did stands in the history as
soon as it is done, and reading the newest event takes some milliseconds, however many there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dagster as dg

from poleng_assets.core.data.asset_events import AssetEvent, Champion, DriftReport, Overview, event_of

AT_ONCE = 200
E = TypeVar("E", bound=AssetEvent)


@dataclass(frozen=True)
class Recorded(Generic[E]):
    """An event as the history has it.

    Attributes:
        asset: its name.
        partition: a batch or a file, empty when the asset has no partitions.
        event: what it tells.
        run_id: of the run that made it.
        at: seconds since 1970, UTC.
        storage_id: rises with each event; 0 from :func:`newest`, whose question does not return it.
    """

    asset: str
    partition: str
    event: E
    run_id: str
    at: float
    storage_id: int

    @property
    def key(self) -> str:
        """The same event has the same key in a restored event log, where storage ids may differ."""
        return f"{self.asset}/{self.partition}/{self.run_id}/{self.at:.3f}"


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
    report: Recorded[DriftReport] | None
    overview: Recorded[Overview] | None
    read_at: float


def plain_values(materialization: dg.AssetMaterialization | None) -> dict[str, Any]:
    """Return the metadata of a materialization as plain values."""
    return {name: value.value for name, value in materialization.metadata.items()} if materialization else {}


def newest(instance: dg.DagsterInstance, kind: type[E], asset: str = "") -> Recorded[E] | None:
    """Return the newest event of an asset, None when it has none.

    Args:
        asset: its name, where several assets tell this kind of event.
    """
    name = asset or str(kind.asset)  # type: ignore[attr-defined]
    entry = instance.get_latest_materialization_event(dg.AssetKey(name))
    if entry is None or entry.asset_materialization is None:
        return None
    event = kind.from_metadata(plain_values(entry.asset_materialization))
    partition = entry.asset_materialization.partition or ""
    return Recorded(name, partition, event, entry.run_id, entry.timestamp, 0)


def newest_of(
    instance: dg.DagsterInstance, kind: type[E], asset: str, *, partition: str = "", until: int | None = None
) -> E | None:
    """Return what the newest event of a partition tells, or the newest one up to a storage id."""
    recorded = next(newest_first(instance, kind, asset, partition=partition, until=until, limit=1), None)
    return recorded.event if recorded else None


def newest_first(
    instance: dg.DagsterInstance,
    kind: type[E],
    asset: str,
    *,
    partition: str = "",
    until: int | None = None,
    limit: int = AT_ONCE,
) -> Iterator[Recorded[E]]:
    """Yield some events of an asset, the newest first.

    Args:
        partition: only events of this one; empty: of any.
    """
    within = dg.AssetRecordsFilter(
        dg.AssetKey(asset),
        asset_partitions=[partition] if partition else None,
        before_storage_id=None if until is None else until + 1,
    )
    for record in instance.fetch_materializations(within, limit=limit).records:
        yield _recorded(asset, kind.from_metadata(plain_values(record.asset_materialization)), record)


def events(instance: dg.DagsterInstance, asset: str, **within: Any) -> Iterator[Recorded[AssetEvent]]:
    """Yield the events of an asset, oldest first and page by page: years of them would not fit into memory.

    Args:
        within: limits that ``dagster.AssetRecordsFilter`` takes, such as ``after_storage_id``.
    """
    for record in records(instance, asset, **within):
        yield recorded(asset, record)


def recorded(asset: str, record: dg.EventLogRecord) -> Recorded[AssetEvent]:
    """Read one event.

    Raises:
        KeyError: its metadata lacks what the asset always tells.
    """
    return _recorded(asset, event_of(asset, plain_values(record.asset_materialization)), record)


def records(instance: dg.DagsterInstance, asset: str, **within: Any) -> Iterator[dg.EventLogRecord]:
    """Yield the events of an asset as Dagster has them, oldest first; see :func:`events`."""
    cursor = None
    while True:
        page = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), **within),
            AT_ONCE,
            cursor=cursor,
            ascending=True,
        )
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def serving_version(instance: dg.DagsterInstance) -> int | None:
    """Return the version that serves, from the newest event of the champion asset."""
    champion = newest(instance, Champion)
    return champion.event.serving if champion else None


def _recorded(asset: str, event: E, record: dg.EventLogRecord) -> Recorded[E]:
    return Recorded(
        asset, record.partition_key or "", event, record.run_id, record.timestamp, record.storage_id
    )
