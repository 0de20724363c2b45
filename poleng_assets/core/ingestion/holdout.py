"""Which respondents are held out: settled when a field study is taken in, and never changed after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import duckdb
import numpy as np

from poleng_assets.study.schema import Study

# Set aside: neither learned from nor judged by, because either would let the other side look over.
Part = Literal["train", "holdout", "set_aside"]

# Where the draw starts within its first step. Half a step in, the share of a study is rounded to the
# nearest whole person, not always down.
_START = 0.5
# How far a part may be from its share of a stratum, in people: a systematic draw promises as much.
_TOLERANCE = 1.0
# Share and target rate of the whole study come before those of its strata, and before all that nobody is
# missing altogether: without a person of each class there is nothing to learn from, or to judge by.
_WHOLE, _NOBODY = 10.0, 1e9
# Pairs are looked for among so many moves that do least harm alone.
_FIRST_OF_A_PAIR = 60
_MOST_MOVES = 20_000
# How often, and from how many kinds of groups elsewhere, the search begins anew.
_RESTARTS, _SHAKEN, _SEED = 60, 6, 23


def draw_holdout(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> None:
    """Draw the holdout of a field study: a systematic sample of its rows, stratified.

    The rows are put in order: by the target, then by the feature that effects vary by (when the study
    names one), then by a hash of the id. In that order every so-many-th row is held out. So each class
    of the target, and each value of the feature within a class, gives its share to within one person;
    who is taken within such a stratum is left to the hash. Were each person drawn independently, the
    two parts would differ by chance, and a model be judged by people unlike those it learned from.

    The outcome depends on the rows of this study, not on their order and not on other studies. Because
    it depends on all of them, the same id may be drawn otherwise in another study: for ids and answers
    that stand in an earlier one, :func:`keep_duplicates_together` has the last word. To be called inside
    the transaction that inserted the rows, as training rows (or set aside already, see
    ``core/ingestion/duplicates.py``), once those that are not kept are gone.

    Args:
        con: of the warehouse.
        study: names the columns and the share that is held out.
        name: of the field study that was inserted last.
    """
    training = study.policies.training
    strata = [study.target.name, *([training.varies_by] if training.varies_by else [])]
    # As text, as which releases before kept some of them: the same file gives the same draw for ever.
    listed = ", ".join(f'"{column}"::VARCHAR NULLS LAST' for column in strata)
    con.execute(
        f"""UPDATE field_study_rows SET part = 'holdout' WHERE field_study = $name AND row_number IN (
            SELECT _row FROM (
                SELECT row_number AS _row,
                    row_number() OVER (ORDER BY {listed}, sha256('holdout:' || "{study.id}")) AS _place
                FROM field_study_rows WHERE field_study = $name AND part <> 'set_aside'
            )
            WHERE floor(_place * $share + $start) > floor((_place - 1) * $share + $start)
        )""",  # noqa: S608
        {"name": name, "share": training.holdout_share, "start": _START},
    )


def on_both_sides(con: duckdb.DuckDBPyConnection, study: Study) -> tuple[int, int]:
    """Count who is learned from and held out as well: ids, and different sets of answers."""
    found = []
    for columns in ([study.id], study.feature_names):
        listed = ", ".join(f'"{name}"' for name in columns)
        ((number,),) = con.execute(
            f"""SELECT count(*) FROM (
                SELECT {listed} FROM field_study_rows WHERE part = 'train'
                INTERSECT SELECT {listed} FROM field_study_rows WHERE part = 'holdout')"""  # noqa: S608
        ).fetchall()
        found.append(number)
    return found[0], found[1]


def keep_duplicates_together(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> None:
    """Settle the parts of a field study so that no id and no set of answers is on both sides.

    The study's rows stand in the warehouse with the parts of :func:`draw_holdout`; rows of other field
    studies are frozen and stay as they are. Answers are the same when all features are, whatever the
    target; two missing answers are the same. Then

    - rows with the answers of a frozen row follow it;
    - other rows with the same answers follow the one among them whose id is frozen (there it has the
      part that it was given, whatever was drawn for it now), or else the part drawn for the one whose
      id sorts first (were they held out as soon as one of them is drawn, nearly every set of answers
      that many people share would be);
    - a row whose id is frozen on another side than the one its answers ask for is set aside, and so is
      one whose frozen likes are on both sides already.

    The outcome depends on the parts drawn, on ids and on answers, not on the order of rows. Rows that
    were set aside earlier ask for nothing. To be called inside the transaction that inserted the rows.

    Args:
        con: of the warehouse.
        study: names the id and the features.
        name: of the field study that was inserted last.
    """
    answers = ", ".join(f'"{column}"' for column in study.feature_names)
    # Names with a leading underscore cannot be those of a survey column.
    con.execute(
        f"""UPDATE field_study_rows SET part = settled._part FROM (
            WITH _rows AS (
                SELECT *, field_study <> $name AND part <> 'set_aside' AS _frozen FROM field_study_rows
                WHERE field_study <> $name OR part <> 'set_aside'
            ), _asked AS (
                SELECT *,
                    min(part) FILTER (_frozen) OVER _same_id AS _by_id,
                    max(part) FILTER (_frozen) OVER _same_id AS _by_id_too,
                    min(part) FILTER (_frozen) OVER _same_answers AS _by_answers,
                    max(part) FILTER (_frozen) OVER _same_answers AS _by_answers_too
                FROM _rows
                WINDOW _same_id AS (PARTITION BY "{study.id}"), _same_answers AS (PARTITION BY {answers})
            ), _together AS (
                SELECT *, coalesce(_by_answers, first_value(coalesce(_by_id, part)) OVER (
                    PARTITION BY {answers} ORDER BY _by_id IS NULL, "{study.id}")) AS _common
                FROM _asked WHERE field_study = $name
            )
            SELECT row_number AS _row, CASE
                WHEN _by_id <> _common OR _by_id <> _by_id_too OR _by_answers <> _by_answers_too
                THEN 'set_aside' ELSE _common END AS _part
            FROM _together
        ) settled
        WHERE field_study = $name AND row_number = settled._row AND part <> settled._part""",  # noqa: S608
        {"name": name},
    )


def balance_holdout(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> int:
    """Give the holdout of a field study its share and its target rate again, moving people with their likes.

    People with the same answers stand on one side together. In a survey of few questions they are many, and
    what :func:`draw_holdout` had drawn evenly is uneven behind :func:`keep_duplicates_together`. So whole
    groups change sides, one or two at a time and always those that help most, until the study, each class
    of the target, and each value of the features that effects vary by and people are compared within, have
    their share to within one person, or until no such move helps any more. A study whose people all answer
    otherwise is left as it was drawn.

    Who follows a frozen row, and who is set aside, stays where they are; the others make up for them. The
    outcome depends on parts, ids and answers, not on the order of rows. To be called inside the transaction
    that inserted the rows, behind :func:`keep_duplicates_together`.

    Args:
        con: of the warehouse.
        study: names the id, the features and the share.
        name: of the field study that was inserted last.

    Returns:
        How many rows changed sides.
    """
    kinds = _free_kinds(con, study, name) if _unevenness(con, study, name) else []
    if not kinds:
        return 0
    cells, off = _cells(con, study, name)
    moved = _moves(kinds, cells, off)
    groups = [group for part in moved.values() for group in part]
    if not groups:
        return 0
    answers = _listed(study.feature_names)
    ((rows,),) = con.execute(
        f"""UPDATE field_study_rows SET part = moved._part FROM (
            WITH _rows AS (
                SELECT row_number AS _row, part AS _now,
                    min(row_number) OVER (PARTITION BY {answers}) AS _first
                FROM field_study_rows WHERE field_study = $name
            ), _moved AS (SELECT unnest($groups::BIGINT[]) AS _first, unnest($parts::VARCHAR[]) AS _part)
            SELECT _row, _part FROM _rows JOIN _moved USING (_first) WHERE _now <> 'set_aside'
        ) moved WHERE field_study = $name AND row_number = moved._row""",  # noqa: S608
        {"name": name, "groups": groups, "parts": [part for part, some in moved.items() for _ in some]},
    ).fetchall()
    return int(rows)


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


def _listed(columns: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _strata(study: Study) -> list[str]:
    return list(dict.fromkeys(column for level in _levels(study) for column in level))


def _cells(
    con: duckdb.DuckDBPyConnection, study: Study, name: str
) -> tuple[dict[_Stratum, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the place of each stratum, and people in the holdout, wanted there, and in all, by place."""
    columns, share = _strata(study), study.policies.training.holdout_share
    counted = con.execute(
        f"""SELECT {_listed(columns)}, count(*) FILTER (part = 'holdout'), count(*) FROM field_study_rows
        WHERE field_study = ? AND part <> 'set_aside' GROUP BY {_listed(columns)} ORDER BY ALL""",  # noqa: S608
        [name],
    ).fetchall()
    places: dict[_Stratum, int] = {}
    sums: dict[_Stratum, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for *values, held, everybody in counted:
        for stratum in _strata_of(study, dict(zip(columns, values, strict=True))):
            places.setdefault(stratum, len(places))
            sums[stratum] += (held, everybody)
    held, everybody = np.array([sums[stratum] for stratum in places]).reshape(-1, 2).T
    return places, (held, everybody * share, everybody)


def _strata_of(study: Study, values: dict[str, Any]) -> list[_Stratum]:
    return [tuple((column, values[column]) for column in level) for level in _levels(study)]


def _unevenness(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> float:
    places, (held, wanted, everybody) = _cells(con, study, name)
    return float(_harm(held[None], wanted, everybody, _weights(places))[0]) if places else 0.0


def _weights(places: dict[_Stratum, int]) -> np.ndarray:
    return np.array([_WHOLE if len(stratum) < 2 else 1.0 for stratum in places])


def _harm(held: np.ndarray, wanted: np.ndarray, everybody: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far draws are from what they should be; 0 when each stratum has its share.

    Args:
        held: people in the holdout, shape (draws, strata).
        wanted: likewise, shape (strata,).
        everybody: people of the stratum.
        weights: of the strata.
    """
    beyond = np.maximum(np.abs(held - wanted) - _TOLERANCE, 0)
    whole = weights > 1
    nobody = whole & (wanted >= _START) & (everybody - wanted >= _START) & ((held <= 0) | (held >= everybody))
    # Rounded, so that machines that sum in another order choose the same.
    return np.round(np.square(beyond) @ weights + nobody.sum(axis=1) * _NOBODY, 6)


def _free_kinds(con: duckdb.DuckDBPyConnection, study: Study, name: str) -> list[_Kind]:
    """Return the groups that may change sides, those that are alike together, in a settled order."""
    answers, columns = _listed(study.feature_names), _strata(study)
    found = con.execute(
        f"""WITH _rows AS (
            SELECT *, field_study <> $name AND part <> 'set_aside' AS _frozen FROM field_study_rows
        ), _asked AS (
            SELECT *, coalesce(bool_or(_frozen) OVER (PARTITION BY "{study.id}"), false) AS _known
            FROM _rows
        ), _grouped AS (
            SELECT *, bool_or(_known OR _frozen) OVER _alike AS _bound,
                min(row_number) FILTER (field_study = $name) OVER _alike AS _group,
                min(sha256('holdout:' || "{study.id}")) FILTER (field_study = $name) OVER _alike AS _draw
            FROM _asked WINDOW _alike AS (PARTITION BY {answers})
        )
        SELECT _draw, _group, part, {_listed(columns)}, count(*) FROM _grouped
        WHERE field_study = $name AND NOT _bound AND part <> 'set_aside'
        GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        {"name": name},
    ).fetchall()
    people: dict[tuple[str, int, str], dict[_Stratum, int]] = defaultdict(lambda: defaultdict(int))
    for draw, group, part, *values, count in found:
        for stratum in _strata_of(study, dict(zip(columns, values, strict=True))):
            people[draw, group, part][stratum] += count
    kinds: dict[tuple[tuple[_Stratum, int], ...], _Kind] = {}
    for (_, group, part), counts in people.items():
        alike = tuple(counts.items())
        kinds.setdefault(alike, _Kind(alike, {"train": [], "holdout": []})).groups[part].append(group)
    return list(kinds.values())


def _moves(
    kinds: list[_Kind], places: dict[_Stratum, int], cells: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> dict[str, list[int]]:
    """Choose the groups that change sides; return them by the part that they get.

    Steepest descent over moves of one and of two groups; where that ends with strata uneven, it begins again
    beside the best draw so far (iterated local search: H. R. Lourenço, O. C. Martin, T. Stützle, Handbook of
    Metaheuristics, 2003). Nothing of it is left to chance: the same study ends in the same draw.
    """
    held, wanted, everybody = cells
    weights = _weights(places)
    people = np.zeros((len(kinds), len(places)))
    for row, kind in enumerate(kinds):
        for stratum, count in kind.people:
            people[row, places[stratum]] = count
    start = np.array([len(kind.groups["holdout"]) for kind in kinds])
    most = start + [len(kind.groups["train"]) for kind in kinds]
    step = np.concatenate([people, -people])

    def harm(draws: np.ndarray) -> np.ndarray:
        return _harm(draws, wanted, everybody, weights)

    def descend(inside: np.ndarray) -> tuple[float, np.ndarray]:
        inside, now = inside.copy(), np.inf
        for _ in range(_MOST_MOVES):
            there = held + (inside - start) @ people
            now = harm(there[None])[0]
            chosen = _best_move(there, now, step, np.concatenate([most - inside, inside]), harm)
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
        for one in random.integers(0, len(kinds), _SHAKEN):
            shaken[one] = random.integers(0, most[one] + 1)
        found, other = descend(shaken)
        if found < best:
            best, inside = found, other
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
        now: what that harms.
        step: by how many people each move changes it, shape (moves, strata).
        left: how often each can be made.
        harm: of several draws.
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
