"""The holdout of a field study: how it gets its share again of each class and group of people."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.holdout import count_held_out, free_groups, move_groups

# A stratum of so few people may have nobody in a part.
_HALF = 0.5
# How far a part may be from its share of a stratum, in people: a systematic draw promises as much.
_TOLERANCE = 1.0
# Share and target rate of the whole study come before those of its strata, and before all that nobody is
# missing altogether: without a person of each class there is nothing to learn from, or to judge by.
_WHOLE, _NOBODY = 10.0, 1e9
# Pairs are looked for among so many moves that do least harm alone.
_FIRST_OF_A_PAIR = 60
_MOST_MOVES = 20_000
# How often, and from how many kinds of groups elsewhere, the search begins again.
_RESTARTS, _SHAKEN, _SEED = 60, 6, 23


def balance_holdout(con: Connection, study: Study, name: str) -> int:
    """Give the holdout of a field study its share and its target rate again, moving people with their likes.

    People with the same answers stand on one side together. In a survey of few questions they are many, and
    what ``draw_holdout`` (``warehouse/holdout.py``) had drawn evenly is uneven behind
    ``keep_duplicates_together``. So whole groups change sides, one or two at a time and always those that
    help most, until the study, each class of the target, and each value of the features that effects vary by
    and people are compared within, have their share to within one person, or until no such move helps any
    more. A study whose people all answer otherwise is left as it was drawn.

    Who follows a frozen row, and who is set aside, stays where they are; the others make up for them. The
    outcome depends on parts, ids and answers, not on the order of rows. To be called inside the transaction
    that inserted the rows, behind ``keep_duplicates_together``.

    Args:
        name: of the field study that was inserted last.

    Returns:
        How many rows changed sides.
    """
    kinds = _free_kinds(con, study, name) if _unevenness(con, study, name) else []
    if not kinds:
        return 0
    cells, off = _cells(con, study, name)
    moved = _moves(kinds, cells, off)
    return move_groups(con, study, name, moved) if any(moved.values()) else 0


# A stratum: for each of its levels, the columns and the values that its people have.
_Stratum = tuple[Any, ...]


@dataclass(frozen=True)
class _Kind:
    """Groups that are alike for the draw: of the same strata, with as many people of each class.

    Attributes:
        people: of one group, by stratum.
        groups: number of the first row of each, by the part where they are, in the order in which they move.
    """

    people: tuple[tuple[_Stratum, int], ...]
    groups: dict[str, list[int]]


def _levels(study: Study) -> list[tuple[str, ...]]:
    """Return the columns of each level at which the holdout has its share, the whole study first."""
    target = study.target.name
    by = dict.fromkeys([study.policies.training.varies_by, study.policies.overseer.compare_within])
    return [(), (target,), *((target, column) for column in by if column)]


def _strata(study: Study) -> list[str]:
    return list(dict.fromkeys(column for level in _levels(study) for column in level))


def _cells(
    con: Connection, study: Study, name: str
) -> tuple[dict[_Stratum, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the place of each stratum, and people in the holdout, wanted there, and in all, by place."""
    columns, share = _strata(study), study.policies.training.holdout_share
    positions: dict[_Stratum, int] = {}
    sums: dict[_Stratum, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for *values, held, everybody in count_held_out(con, name, columns):
        for stratum in _strata_of(study, dict(zip(columns, values, strict=True))):
            positions.setdefault(stratum, len(positions))
            sums[stratum] += (held, everybody)
    held, everybody = np.array([sums[stratum] for stratum in positions]).reshape(-1, 2).T
    return positions, (held, everybody * share, everybody)


def _strata_of(study: Study, values: dict[str, Any]) -> list[_Stratum]:
    return [tuple((column, values[column]) for column in level) for level in _levels(study)]


def _unevenness(con: Connection, study: Study, name: str) -> float:
    positions, (held, wanted, everybody) = _cells(con, study, name)
    return float(_harm(held[None], wanted, everybody, _weights(positions))[0]) if positions else 0.0


def _weights(positions: dict[_Stratum, int]) -> np.ndarray:
    return np.array([_WHOLE if len(stratum) < 2 else 1.0 for stratum in positions])


def _harm(held: np.ndarray, wanted: np.ndarray, everybody: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far draws are from what they should be; 0 when each stratum has its share.

    Args:
        held: people in the holdout, shape (draws, strata).
        wanted: likewise, shape (strata,).
    """
    beyond = np.maximum(np.abs(held - wanted) - _TOLERANCE, 0)
    whole = weights > 1
    nobody = whole & (wanted >= _HALF) & (everybody - wanted >= _HALF) & ((held <= 0) | (held >= everybody))
    # Rounded, so that machines that sum in another order choose the same.
    return np.round(np.square(beyond) @ weights + nobody.sum(axis=1) * _NOBODY, 6)


def _free_kinds(con: Connection, study: Study, name: str) -> list[_Kind]:
    """Return the groups that may change sides, those that are alike together, in a settled order."""
    columns = _strata(study)
    people: dict[tuple[str, int, str], dict[_Stratum, int]] = defaultdict(lambda: defaultdict(int))
    for draw, group, part, *values, count in free_groups(con, study, name, columns):
        for stratum in _strata_of(study, dict(zip(columns, values, strict=True))):
            people[draw, group, part][stratum] += count
    kinds: dict[tuple[tuple[_Stratum, int], ...], _Kind] = {}
    for (_, group, part), counts in people.items():
        alike = tuple(counts.items())
        kinds.setdefault(alike, _Kind(alike, {"train": [], "holdout": []})).groups[part].append(group)
    return list(kinds.values())


def _moves(
    kinds: list[_Kind], positions: dict[_Stratum, int], cells: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> dict[str, list[int]]:
    """Choose the groups that change sides; return them by the part that they get.

    Steepest descent over moves of one and of two groups; where that ends with strata uneven, it begins again
    beside the best draw so far (iterated local search: H. R. Lourenço, O. C. Martin, T. Stützle, Handbook of
    Metaheuristics, 2003). Nothing of it is left to chance: the same study ends in the same draw.
    """
    held, wanted, everybody = cells
    weights = _weights(positions)
    people = np.zeros((len(kinds), len(positions)))
    for row, kind in enumerate(kinds):
        for stratum, count in kind.people:
            people[row, positions[stratum]] = count
    start = np.array([len(kind.groups["holdout"]) for kind in kinds])
    most = start + [len(kind.groups["train"]) for kind in kinds]
    step = np.concatenate([people, -people])

    def harm(draws: np.ndarray) -> np.ndarray:
        return _harm(draws, wanted, everybody, weights)

    def descend(inside: np.ndarray) -> tuple[float, np.ndarray]:
        inside, now = inside.copy(), np.inf
        for _ in range(_MOST_MOVES):
            moved_held = held + (inside - start) @ people
            now = harm(moved_held[None])[0]
            chosen = _best_move(moved_held, now, step, np.concatenate([most - inside, inside]), harm)
            if not chosen:
                break
            for move in chosen:
                inside[move % len(kinds)] += 1 if move < len(kinds) else -1
        return now, inside

    best, inside = descend(start)
    random = np.random.default_rng(_SEED)
    for _ in range(_RESTARTS):
        if best == 0:
            break
        shaken = inside.copy()
        for kind_number in random.integers(0, len(kinds), _SHAKEN):
            shaken[kind_number] = random.integers(0, most[kind_number] + 1)
        harm_there, other = descend(shaken)
        if harm_there < best:
            best, inside = harm_there, other
    moved: dict[str, list[int]] = {"train": [], "holdout": []}
    for kind, more in zip(kinds, inside - start, strict=True):
        moved["holdout"] += kind.groups["train"][: max(more, 0)]
        moved["train"] += kind.groups["holdout"][: max(-more, 0)]
    return moved


def _best_move(
    held: np.ndarray, now: float, step: np.ndarray, left: np.ndarray, harm: Callable[[np.ndarray], np.ndarray]
) -> list[int]:
    """Return the one or two moves that help most, none when no such move helps.

    Args:
        held: people in the holdout, shape (strata,).
        step: by how many people each move changes it, shape (moves, strata).
        left: how often each can be made.
    """
    if now == 0:
        return []
    alone = np.where(left > 0, harm(held + step), np.inf)
    if alone.min() < now:
        return [int(alone.argmin())]
    best, chosen = now, list[int]()
    for first in np.argsort(alone, kind="stable")[:_FIRST_OF_A_PAIR]:
        if left[first] < 1:
            break
        free = left - (np.arange(len(left)) == first) > 0
        both = np.where(free, harm(held + step[first] + step), np.inf)
        if both.min() < best:
            best, chosen = both.min(), [int(first), int(both.argmin())]
    return chosen
