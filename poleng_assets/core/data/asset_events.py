"""What assets tell by the metadata of their events: a dataclass for each, which writes and reads it.

Nobody else spells a key. A field that is None is not written; one whose key an event lacks has its default.
What only people read (tables, pictures, links) is added by the asset itself. ``defs/events.py`` reads such
events from Dagster's history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

ROW_COUNT = "dagster/row_count"  # https://docs.dagster.io/guides/build/assets/metadata-and-tags


@dataclass(frozen=True)
class AssetEvent:
    """The metadata of one materialization."""

    @classmethod
    def from_metadata(cls, values: Mapping[str, Any]) -> Self:
        """Read the metadata of an event, as plain values.

        Raises:
            KeyError: a key is missing without which the event says nothing.
        """
        keys = {field.name: _key(field) for field in fields(cls)}
        given = {name: values[key] for name, key in keys.items() if key in values}
        try:
            return cls(**given)
        except TypeError as error:
            missing = set(keys.values()) - values.keys()
            raise KeyError(f"an event of {cls.__name__} lacks some of {sorted(missing)}") from error

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the event, as plain values."""
        given = {_key(field): getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in given.items() if value is not None}


def _key(field: Any) -> str:
    return str(field.metadata.get("key", field.name))


@dataclass(frozen=True)
class FileTakenIn(AssetEvent):
    """``batches``, ``field_studies``, ``outcomes``: a file, or what became of its rows later.

    Attributes:
        rows: kept.
        rows_quarantined: in quarantine.
        data_hash: of its rows; another one since rows were released or erased.
        list_stands: of a batch that was taken in before, and has its list.
        what_came_before: what it shares with earlier files, in words.
        what_they_met: of outcomes: whom of the batches they are about, in words.
        remark: on its target, in words.
        released: whether rows came back from quarantine.
        rows_released: how many did.
        in_words: what was released.
        withdrawn: whether a field study is learned from no more; None when the event does not speak of it.
    """

    rows: int | None = field(default=None, metadata={"key": ROW_COUNT})
    rows_read: int | None = None
    rows_quarantined: int | None = None
    content_hash: str | None = None
    data_hash: str | None = None
    list_stands: bool | None = None
    what_came_before: str | None = None
    what_they_met: str | None = None
    remark: str | None = None
    released: bool | None = None
    rows_released: int | None = None
    in_words: str | None = None
    withdrawn: bool | None = None


@dataclass(frozen=True)
class TrainingData(AssetEvent):
    """``training_data``: why a challenger is trained, and from which field studies that are new."""

    asset: ClassVar[str] = "training_data"
    reason: str = "unknown"
    pending: str = "none"
    training_data_hash: str | None = None


@dataclass(frozen=True)
class Challenger(AssetEvent):
    """``challenger``: the version that was registered; ``taken_over``: why an earlier one is used instead."""

    asset: ClassVar[str] = "challenger"
    version: int
    taken_over: str | None = None


@dataclass(frozen=True)
class Champion(AssetEvent):
    """``champion``: which version serves, and why.

    Attributes:
        serving_version: 0 when none does.
        challenger_version: that was judged; after a rollback, the one that was taken back.
        promoted: whether it serves since.
        figures: of each gate; empty when the verdict was written down before.
        judged_field_studies: the hash of each field study that it learned from.
        score_again: after a rollback: batches to be scored again.
    """

    asset: ClassVar[str] = "champion"
    serving_version: int
    challenger_version: int | None = None
    promoted: bool | None = None
    reason: str = "unknown"
    figures: Mapping[str, Any] | None = None
    judged_field_studies: Mapping[str, str] | None = None
    score_again: list[str] | None = None

    @property
    def serving(self) -> int | None:
        """The version that serves, None when none does."""
        return self.serving_version or None

    @property
    def rejection(self) -> str:
        """Why the challenger was not promoted, empty when it was."""
        return self.reason if self.promoted is False else ""

    @property
    def is_rollback(self) -> bool:
        """Whether this is a rollback."""
        return self.score_again is not None


@dataclass(frozen=True)
class Predictions(AssetEvent):
    """``predictions``: a batch was scored by a version."""

    asset: ClassVar[str] = "predictions"
    model_version: int | None = None


@dataclass(frozen=True)
class DriftReport(AssetEvent):
    """``drift_report``: how a batch was judged under a version.

    Attributes:
        reasons: a Markdown list, those that decided first.
        report: path of the page.
        list_stands: the batch has its list, and nothing is to be done about it.
        drifted_columns: how many features drifted.
        share_outside_support, share_flagged: of the batch.
        estimated_auc, estimated_auc_lower, estimated_auc_upper, reference_auc, estimated_auc_loss: without
            labels; None where nothing could be estimated.
        realised_auc: with the outcomes that are known by now.
        estimate_trusted: whether the estimates can be believed.
    """

    asset: ClassVar[str] = "drift_report"
    model_version: int | None = None
    verdict: str = "unknown"
    held: bool = False
    alarm: bool = False
    reasons: Any = ""
    report: Any = "none"
    list_stands: bool | None = None
    rows: int | None = field(default=None, metadata={"key": ROW_COUNT})
    drifted_columns: int | None = None
    share_outside_support: float | None = None
    share_flagged: float | None = None
    estimated_auc: float | None = None
    estimated_auc_lower: float | None = None
    estimated_auc_upper: float | None = None
    reference_auc: float | None = None
    estimated_auc_loss: float | None = None
    realised_auc: float | None = None
    estimate_trusted: bool | None = None


@dataclass(frozen=True)
class ContactList(AssetEvent):
    """``contact_list``: a list was made, or was not and why.

    Attributes:
        contacts: people on it; None when there is none.
        share_flagged: of the batch; None when no list was made now.
        list_number: from 1; more than one when another was asked for.
        remark: what the list says of itself, ``none`` when nothing.
        what_happened: in words, when no list was made now.
    """

    asset: ClassVar[str] = "contact_list"
    contacts: int | None = None
    share_flagged: float | None = None
    list_number: int = 1
    remark: str = "none"
    what_happened: str | None = None


@dataclass(frozen=True)
class RealisedPerformance(AssetEvent):
    """``realised_performance``: outcomes were compared with scores.

    Attributes:
        batches: how many batches have any.
        losses: by model version, the batches on which it does worse than is tolerated.
    """

    asset: ClassVar[str] = "realised_performance"
    batches: int = 0
    losses: Mapping[str, list[str]] | None = None


@dataclass(frozen=True)
class LabelRequest(AssetEvent):
    """``field_study_request``: whom to interview, because there is nothing to learn from."""

    asset: ClassVar[str] = "field_study_request"
    interviews: int = 0
    request: Any = ""
    model_version: int | None = None
    batches: str | None = None
    drifted: str | None = None
    list: Any = None


@dataclass(frozen=True)
class Overview(AssetEvent):
    """``overview``: how all batches stand, by the verdict on their current scores."""

    asset: ClassVar[str] = "overview"
    alarms: int | None = None
    batches_clear: int | None = None
    batches_drifted: int | None = None
    batches_untrusted: int | None = None
    batches_insufficient: int | None = None

    def batches_by_verdict(self) -> dict[str, int]:
        """Return how many batches have each verdict."""
        return {
            name.removeprefix("batches_"): value for name, value in vars(self).items() if name != "alarms"
        }


EVENTS: Mapping[str, type[AssetEvent]] = {
    **dict.fromkeys(("batches", "field_studies", "outcomes"), FileTakenIn),
    **{
        kind.asset: kind
        for kind in (
            TrainingData,
            Challenger,
            Champion,
            Predictions,
            DriftReport,
            ContactList,
            RealisedPerformance,
            LabelRequest,
            Overview,
        )
    },
}


def event_of(asset: str, metadata: Mapping[str, Any]) -> AssetEvent:
    """Read what an asset tells.

    Raises:
        KeyError: nothing is known of the asset, or its metadata lacks what it always tells.
    """
    return EVENTS[asset].from_metadata(metadata)
