"""The overseer's memory: what is open, learned from and lost, folded event by event.

:func:`fold` is pure: it takes a state and what one asset tells, and returns the next state. The sensor keeps
the state as JSON in its cursor, and reads only the events since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from poleng_assets.core.data import asset_events


@dataclass(frozen=True)
class BatchState:
    """An open batch: the version of its newest report, None before the first, and whether it is held."""

    version: int | None = None
    held: bool = False


@dataclass(frozen=True)
class LoopState:
    """All that the overseer remembers of the history.

    Attributes:
        read: storage id of the last event that was folded.
        open_batches: without a contact list, in the order in which they came.
        studies: the hash of the data of each field study that counts.
        withdrawn: field studies that do not.
        losses: by model version, the batches whose outcomes show that it does worse than is tolerated.
        unmeasured: files of outcomes that no run has compared with scores.
        undrawn: what the page of all batches does not show yet; empty when it shows everything.
        unanswered_alarms: batches with an alarm under the version that serves, of which no request for labels
            knows.
        serving: the version that serves.
        batches_since_contest: batches taken in since a challenger was last judged against a champion; None
            when there was no such contest.
        newest_batch: that was taken in last.
        dropped_together: batches without a score that were there when a retraining was first wanted; None
            while none is wanted.
    """

    read: int = 0
    open_batches: Mapping[str, BatchState] = field(default_factory=dict)
    studies: Mapping[str, str] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    losses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()
    undrawn: str = ""
    unanswered_alarms: tuple[str, ...] = ()
    serving: int | None = None
    batches_since_contest: int | None = None
    newest_batch: str | None = None
    dropped_together: tuple[str, ...] | None = None

    @property
    def losing_batches(self) -> tuple[str, ...]:
        """The batches on which the version that serves does worse than is tolerated."""
        return self.losses.get(str(self.serving), ())

    @property
    def wants_retraining(self) -> bool:
        """Whether a batch is held by the version that serves, or shows that it does worse."""
        held = any(batch.held and batch.version == self.serving for batch in self.open_batches.values())
        return self.serving is not None and (held or bool(self.losing_batches))

    def to_json(self) -> str:
        """Return the cursor that keeps this state."""
        return json.dumps({_CURSOR_NAMES.get(name, name): value for name, value in asdict(self).items()})

    @classmethod
    def from_json(cls, cursor: str | None) -> LoopState:
        """Read a cursor; of one that is empty, or of another form, nothing is remembered."""
        kept: dict[str, Any] = json.loads(cursor) if cursor else {}
        if not isinstance(kept.get("read"), int):
            return cls()
        names = {_CURSOR_NAMES.get(field.name, field.name): field.name for field in fields(cls)}
        known = {names[name]: value for name, value in kept.items() if name in names}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = tuple(value)
        known["open_batches"] = {
            batch: BatchState(**values) for batch, values in known.get("open_batches", {}).items()
        }
        known["losses"] = {version: tuple(names) for version, names in known.get("losses", {}).items()}
        return cls(**known)


# What the fields are called in cursors that daemons have kept.
_CURSOR_NAMES = {
    "open_batches": "open",
    "losses": "lost",
    "unanswered_alarms": "unanswered",
    "batches_since_contest": "since_retraining",
    "newest_batch": "newest",
    "dropped_together": "together",
}


def state_is_current(state: LoopState, until: int, champion: asset_events.Champion | None) -> bool:
    """Whether a state is of this very history: one that was put back from a backup, or wiped, is another."""
    return state.read <= until and (champion is not None or state.serving is None)


def fold(state: LoopState, asset: str, partition: str, event: asset_events.AssetEvent) -> LoopState:
    """Return the state after one event.

    Each batch goes from taken in (no report) to reported, perhaps held, and leaves when it has its list.
    An alarm stays unanswered until labels were asked for, or another version serves. Batches are counted
    since the last contest for the champion's place.

    Args:
        partition: the batch, study or file that it is about.
    """
    return _FOLD[asset](state, partition, event)


def without_wiped(state: LoopState, present: Callable[[str, Collection[str]], Collection[str]]) -> LoopState:
    """Return the state without partitions that somebody has wiped.

    Args:
        state: as it was folded.
        present: which of some partitions of an asset are there still.
    """
    batches = present("batches", {*state.open_batches, *state.unanswered_alarms})
    studies = present("field_studies", state.studies)
    sources = present("outcomes", state.unmeasured)
    return replace(
        state,
        open_batches={
            name: batch_state for name, batch_state in state.open_batches.items() if name in batches
        },
        studies={name: digest for name, digest in state.studies.items() if name in studies},
        unanswered_alarms=_among(state.unanswered_alarms, batches),
        unmeasured=_among(state.unmeasured, sources),
    )


def _among(names: Iterable[str], present: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in present)


def _with(names: tuple[str, ...], more: Sequence[str]) -> tuple[str, ...]:
    return (*names, *(name for name in more if name not in names))


def _opened(state: LoopState, batch: str, batch_state: BatchState) -> LoopState:
    return replace(state, open_batches={**state.open_batches, batch: batch_state})


def _fold_batch(state: LoopState, batch: str, event: asset_events.FileTakenIn) -> LoopState:
    if event.released:
        # It has rows without a score, whatever was measured of the others; it is no new batch.
        return _opened(state, batch, BatchState())
    if event.list_stands:
        return state  # it was materialised again by hand: nothing is to be done about it
    count = state.batches_since_contest
    # A run that died behind this event is run again, and tells of the same batch once more.
    if count is not None and batch != state.newest_batch:
        count += 1
    known = state.open_batches.get(batch, BatchState())
    return replace(_opened(state, batch, known), batches_since_contest=count, newest_batch=batch)


def _fold_report(state: LoopState, batch: str, event: asset_events.DriftReport) -> LoopState:
    if not event.list_stands:
        state = _opened(state, batch, BatchState(event.model_version, event.held))
    if event.alarm and event.model_version == state.serving:
        state = replace(state, unanswered_alarms=_with(state.unanswered_alarms, [batch]))
    return replace(state, undrawn=f"{batch}/{event.model_version}")


def _fold_study(state: LoopState, study: str, event: asset_events.FileTakenIn) -> LoopState:
    if event.withdrawn is not None:
        others = tuple(name for name in state.withdrawn if name != study)
        state = replace(state, withdrawn=(*others, study) if event.withdrawn else others)
    if study in state.withdrawn:
        left = {name: digest for name, digest in state.studies.items() if name != study}
        return replace(state, studies=left)
    # Rows that were released make other data of the same file. An event that somebody reported by hand has
    # none.
    digest = event.data_hash or event.content_hash
    return replace(state, studies={**state.studies, study: digest}) if digest else state


def _fold_outcomes(state: LoopState, source: str, event: asset_events.FileTakenIn) -> LoopState:
    # Most are measured in the run that takes them in, unless it dies between the two.
    return replace(state, unmeasured=_with(state.unmeasured, [source]))


def _fold_performance(state: LoopState, source: str, event: asset_events.RealisedPerformance) -> LoopState:
    losses, alarms = dict(state.losses), state.unanswered_alarms
    for version, batches in (event.losses or {}).items():
        known = losses.get(version, ())
        losses[version] = _with(known, batches)
        if int(version) == state.serving:
            alarms = _with(alarms, losses[version][len(known) :])
    unmeasured = tuple(name for name in state.unmeasured if name != source)
    return replace(state, losses=losses, unanswered_alarms=alarms, unmeasured=unmeasured, undrawn=source)


def _fold_champion(state: LoopState, _: str, event: asset_events.Champion) -> LoopState:
    # A rollback may ask that its successor's batches be scored again.
    for batch in event.score_again or ():
        state = _opened(state, batch, BatchState())
    if not event.is_rollback and state.serving is not None:
        state = replace(state, batches_since_contest=0)
    if event.serving_version != state.serving:
        state = replace(state, unanswered_alarms=())
    return replace(state, serving=event.serving)


def _fold_list(state: LoopState, batch: str, event: asset_events.ContactList) -> LoopState:
    left = {name: batch_state for name, batch_state in state.open_batches.items() if name != batch}
    return replace(state, open_batches=left)


def _fold_overview(state: LoopState, _: str, event: asset_events.Overview) -> LoopState:
    return replace(state, undrawn="")


def _fold_request(state: LoopState, _: str, event: asset_events.LabelRequest) -> LoopState:
    return replace(state, unanswered_alarms=())


_FOLD: Mapping[str, Callable[[LoopState, str, Any], LoopState]] = {
    "batches": _fold_batch,
    "drift_report": _fold_report,
    "contact_list": _fold_list,
    "field_studies": _fold_study,
    "outcomes": _fold_outcomes,
    "realised_performance": _fold_performance,
    "overview": _fold_overview,
    "champion": _fold_champion,
    "field_study_request": _fold_request,
}
FOLDED_ASSETS = tuple(_FOLD)
