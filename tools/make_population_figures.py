"""Make ``population.json``, the figures of the synthetic population, from a folder of facts.

    python tools/make_population_figures.py FACTS [--out population.json]

FACTS holds aggregate figures of the survey: ``country_conditional_shares.json``,
``pair_conditionals.json``, ``marginals.json`` and ``target_logit.json``; nobody's answers. The
``structure`` section of the file is written by hand: it is read from the file that is there, and
kept. Everything else is made anew, and the same facts and structure give the same file.

Cells of fewer than 10 people are removed before anything else is done with the facts.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poleng_assets.simulation.population import (
    FIGURES,
    Checks,
    Codes,
    Column,
    Helper,
    Population,
    Structure,
    TargetFigures,
    answer_effects,
    draw_column,
)
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study

SMALLEST_CELL = 10
REFERENCE_ROWS = 400_000
REFERENCE_SEED = 1
ROUNDS = 60
# Scores stay within a range: beyond it they are rounding errors of the fit, not answers.
LOWEST_SCORE, HIGHEST_SCORE = -12.0, 12.0

ABOUT = (
    "Figures of the synthetic population, made by tools/make_population_figures.py from aggregates "
    "of the World Values Survey wave 7 (doi 10.14281/18241.20) as recoded in the public "
    "repositories celupa/political-engagement-analysis and celupa/political-engagement-mlops. "
    "Cells of fewer than 10 people were removed. structure is written by hand; structure.realism "
    "and target.deviations are made up (see population.py)."
)

Floats = NDArray[np.float64]
Shares = dict[int, float]
Margin = tuple[NDArray[np.int64], Floats]


@dataclass(frozen=True)
class Facts:
    """The folder of facts, with small cells removed and each set of shares summing to 1."""

    groups: dict[int, float]
    by_group: dict[str, dict[int, Shares]]
    pairs: dict[tuple[str, str], dict[int, Shares]]
    all_zero: dict[str, Shares]
    marginals: dict[str, dict[str, Shares]]
    effects: dict[str, Shares]
    target_by_group: dict[int, float]


def main() -> None:
    """Read the arguments, make the file, say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("facts", type=Path, help="the folder of aggregate figures")
    parser.add_argument("--out", type=Path, default=FIGURES, help="the file to make anew")
    arguments = parser.parse_args()
    written = json.loads(arguments.out.read_text(encoding="utf-8"))
    structure = Structure.model_validate(written["structure"])
    study = load_study()
    population = make_population(study, structure, read_facts(arguments.facts, study, structure))
    arguments.out.write_text(as_text(population, written["structure"]), encoding="utf-8")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1000:.0f} kB")


def read_facts(folder: Path, study: Study, structure: Structure) -> Facts:
    """Read the facts and drop the small cells."""
    shares = _read(folder / "country_conditional_shares.json")
    pairs = _read(folder / "pair_conditionals.json")
    marginals = _read(folder / "marginals.json")
    effects = _read(folder / "target_logit.json")["with_country"]["effects_centred"]
    sizes = {int(group): int(facts["n"]) for group, facts in shares.items()}
    total = sum(sizes.values())
    drawn = [f.name for f in study.features if f.name != structure.group]
    parts = {"all": total} | {
        fact: sum(n for g, n in sizes.items() if structure.parts[part].holds(g))
        for part, fact in structure.facts_parts.items()
    }
    kept = {
        name: {part: without_small_cells(_coded(marginals[name][part]), n) for part, n in parts.items()}
        for name in [*drawn, structure.group, study.target.name]
    }
    return Facts(
        groups={group: float(round(n, -1)) for group, n in sizes.items()},
        by_group={
            name: {
                group: without_small_cells(_coded(shares[str(group)][name]), n) for group, n in sizes.items()
            }
            for name in drawn
        },
        pairs={
            (child, parent): {
                int(code): without_small_cells(_coded(table), total * kept[parent]["all"][int(code)])
                for code, table in pairs[f"{child}|{parent}"].items()
            }
            for child, parent in (key.split("|") for key in pairs if " " not in key)
        },
        all_zero={name: _coded(pairs[h.figure]) for name, h in structure.helpers.items()},
        marginals=kept,
        effects={
            name: {c: e for c, e in _coded(table).items() if c in kept[name]["all"]}
            for name, table in effects.items()
            if name != structure.group
        },
        target_by_group={
            group: without_small_cells(_coded(shares[str(group)][study.target.name]), n)[
                study.target.positive
            ]
            for group, n in sizes.items()
        },
    )


def without_small_cells(shares: Shares, people: float) -> Shares:
    """Drop the codes that fewer than 10 of the people gave; the rest sums to 1 again."""
    kept = {code: s for code, s in shares.items() if round(s * people) >= SMALLEST_CELL}
    total = sum(kept.values())
    return {code: share / total for code, share in kept.items()}


def make_population(study: Study, structure: Structure, facts: Facts) -> Population:
    """Fit every column in turn on a large reference sample, then the target's intercepts.

    Each column is fitted on a sample of the columns before it as they will be drawn, so that
    the errors of one column are made good by the next.
    """
    rng = np.random.default_rng(REFERENCE_SEED)
    groups = np.array(sorted(facts.groups), dtype=np.int64)
    sizes = np.array([facts.groups[g] for g in sorted(facts.groups)])
    answers: Codes = {structure.group: rng.choice(groups, REFERENCE_ROWS, p=sizes / sizes.sum())}
    # Not validated yet: the tables are filled in one by one.
    population = Population.model_construct(
        about=ABOUT,
        structure=structure,
        groups=facts.groups,
        columns={},
        target=TargetFigures(intercepts={}, effects={}, deviations={}),
        checks=_checks(study, structure, facts),
    )
    for step in structure.order:
        column = fit_column(structure, facts, step.column, step.parents, answers)
        columns = population.columns | {step.column: column}
        population = population.model_copy(update={"columns": columns})
        answers[step.column] = draw_column(population, step.column, answers, rng)
    population = population.model_copy(update={"target": _effects(structure, facts)})
    intercepts = _intercepts(facts, answers[structure.group], answer_effects(population, answers))
    target = population.target.model_copy(update={"intercepts": intercepts})
    whole = population.model_copy(update={"target": target})
    return Population.model_validate(whole.model_dump())


def fit_column(
    structure: Structure, facts: Facts, name: str, parents: tuple[str, ...], answers: Codes
) -> Column:
    """Find scores such that the group's shares and each parent's conditional shares come out.

    The scores are those of a log-linear model, found by iterative proportional fitting over the
    distinct combinations of group and parents' answers. The group's shares are fitted last: they
    hold exactly, the conditional shares as closely as those allow.
    """
    group_shares = _group_shares(structure, facts, name)
    codes = sorted({code for shares in group_shares.values() for code in shares})
    keys = np.column_stack([answers[structure.group], *(answers[p] for p in parents)])
    combinations, people = np.unique(keys, axis=0, return_counts=True)
    groups = sorted(group_shares)
    tables = [group_shares] + [_conditional(structure, facts, name, p, codes) for p in parents]
    known = [groups] + [sorted(table) for table in tables[1:]]
    targets = [
        np.array([[table[key].get(code, 0.0) for code in codes] for key in keys_])
        for table, keys_ in zip(tables, known, strict=True)
    ]
    positions = [np.searchsorted(keys_, combinations[:, i]).astype(np.int64) for i, keys_ in enumerate(known)]
    margins = list(zip(positions, targets, strict=True))
    scores = _rake(margins, people.astype(np.float64))
    scores = [_centred(s) for s in scores]
    return Column(
        codes=tuple(codes),
        by_group=_score_rows(groups, scores[0]),
        by_parent={parent: _score_rows(known[i + 1], scores[i + 1]) for i, parent in enumerate(parents)},
    )


def _rake(margins: list[Margin], people: Floats) -> list[Floats]:
    """Return one table of scores for each margin; see ``fit_column``."""
    with np.errstate(divide="ignore"):
        # A group never gives a code that it has no share of; a parent's answer only seldom does,
        # unless it has one code alone: then that is a rule.
        scores = [np.log(margins[0][1])]
        for _, target in margins[1:]:
            is_rule = (target == 1).any(axis=1)[:, None] & (target == 0)
            scores.append(np.where(is_rule, -np.inf, 0.0))
    for _ in range(ROUNDS):
        for i in [*range(1, len(margins)), 0]:
            position, target = margins[i]
            if (target < 0).all():
                continue
            expected = people[:, None] * _chances(margins, scores)
            achieved = np.zeros_like(target)
            np.add.at(achieved, position, expected)
            with np.errstate(divide="ignore", invalid="ignore"):
                wanted = target * achieved.sum(axis=1, keepdims=True)
                change = np.log(wanted) - np.log(achieved)
            change[~np.isfinite(change) & (target > 0)] = 0.0
            lowest = -np.inf if i == 0 else LOWEST_SCORE
            free = np.isfinite(scores[i]) & (target >= 0)
            new = np.clip(scores[i] + change, lowest, HIGHEST_SCORE)
            scores[i] = np.where(free, new, scores[i])
    return scores


def _chances(margins: list[Margin], scores: list[Floats]) -> Floats:
    total = sum(score[position] for (position, _), score in zip(margins, scores, strict=True))
    weights = np.exp(np.asarray(total))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _centred(scores: Floats) -> Floats:
    """Shift each row so that its largest score is 0, which changes no chance and reads better."""
    return np.asarray(scores - scores.max(axis=1, keepdims=True))


def _score_rows(keys: list[int], scores: Floats) -> dict[int, tuple[float | None, ...]]:
    return {
        key: tuple(round(float(s), 2) if np.isfinite(s) else None for s in row)
        for key, row in zip(keys, scores, strict=True)
    }


def _group_shares(structure: Structure, facts: Facts, name: str) -> dict[int, Shares]:
    """Return each group's shares of a column; those of a helper are derived.

    No fact says how often a group's helper is 1. It cannot be more often than any of its columns
    has the code, so it is taken as a fixed part of the smallest of these shares; the part is the
    one that gives the share of the whole population.
    """
    if name not in structure.helpers:
        return facts.by_group[name]
    helper = structure.helpers[name]
    smallest = {
        group: min(facts.by_group[c][group].get(helper.code, 0.0) for c in helper.columns)
        for group in facts.groups
    }
    people = sum(facts.groups.values())
    possible = sum(facts.groups[g] * share for g, share in smallest.items()) / people
    parent = facts.marginals[helper.parent]["all"]
    actual = sum(share * facts.all_zero[name][code] for code, share in parent.items())
    part = min(1.0, actual / possible)
    return {group: {0: 1 - part * s, 1: part * s} for group, s in smallest.items()}


def _conditional(
    structure: Structure, facts: Facts, name: str, parent: str, codes: list[int]
) -> dict[int, Shares]:
    """Return P(name | parent): as stated, by Bayes' rule from P(parent | name), or from a helper.

    Under a helper's 0 nothing is stated: a share of -1 tells the fit to leave it alone.
    """
    if name in structure.helpers:
        ones = _helper_shares(structure.helpers[name], facts, facts.all_zero[name], parent)
        return {code: {0: 1 - share, 1: share} for code, share in ones.items()}
    if parent in structure.helpers:
        code = structure.helpers[parent].code
        return {0: dict.fromkeys(codes, -1.0), 1: {code: 1.0}}
    if (name, parent) in facts.pairs:
        return facts.pairs[name, parent]
    turned = facts.pairs[parent, name]
    own = facts.marginals[name]["all"]
    tables: dict[int, Shares] = {}
    for key in facts.marginals[parent]["all"]:
        joint = {code: own[code] * turned[code].get(key, 0.0) for code in turned}
        tables[key] = {code: j / sum(joint.values()) for code, j in joint.items() if j > 0}
    return tables


def _helper_shares(helper: Helper, facts: Facts, stated: Shares, parent: str) -> Shares:
    """Return P(helper is 1 | parent), as stated, or derived when it is stated for another parent.

    It is derived from one of the helper's columns, the first that hangs on the parent: a fixed
    part of the share that has the helper's code there, the part being that of everybody.
    """
    if parent == helper.parent:
        return stated
    column = next(c for c in helper.columns if (c, parent) in facts.pairs)
    own = facts.marginals[helper.parent]["all"]
    everybody = sum(share * stated[code] for code, share in own.items())
    part = min(1.0, everybody / facts.marginals[column]["all"][helper.code])
    pair = facts.pairs[column, parent]
    return {code: part * shares.get(helper.code, 0.0) for code, shares in pair.items()}


def _effects(structure: Structure, facts: Facts) -> TargetFigures:
    """Return the facts' effects, scaled, and made-up deviations of each group from them."""
    realism = structure.realism
    rng = np.random.default_rng(realism.seed)
    deviations = {
        name: {
            group: {
                code: round(float(rng.normal(0, realism.deviation_sd)), 2)
                for code in sorted(facts.effects[name])
            }
            for group in sorted(facts.groups)
        }
        for name in realism.deviating_columns
    }
    effects = {
        name: {code: round(realism.effect_scale * effect, 3) for code, effect in table.items()}
        for name, table in facts.effects.items()
    }
    return TargetFigures(intercepts={}, effects=effects, deviations=deviations)


def _intercepts(facts: Facts, group: NDArray[np.int64], effects: Floats) -> dict[int, float]:
    """Find each group's intercept by bisection, so that its chances average to its target rate."""
    groups = np.array(sorted(facts.groups))
    position = np.searchsorted(groups, group)
    rates = np.array([facts.target_by_group[g] for g in sorted(facts.groups)])
    people = np.bincount(position)
    low, high = np.full(len(groups), -15.0), np.full(len(groups), 15.0)
    for _ in range(40):
        middle = (low + high) / 2
        chances = 1 / (1 + np.exp(-(middle[position] + effects)))
        too_high = np.bincount(position, chances) / people > rates
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    return {int(g): round(float(value), 3) for g, value in zip(groups, (low + high) / 2, strict=True)}


def _checks(study: Study, structure: Structure, facts: Facts) -> Checks:
    names = study.feature_names
    return Checks(
        marginals={
            part: {name: {c: round(s, 4) for c, s in facts.marginals[name][fact].items()} for name in names}
            for part, fact in structure.facts_parts.items()
        },
        target_rates={
            part: round(facts.marginals[study.target.name][fact][study.target.positive], 4)
            for part, fact in structure.facts_parts.items()
        },
    )


def as_text(population: Population, structure: dict[str, Any]) -> str:
    """Return the file's text: indented, but with a list or a small mapping on one line each."""
    content = population.model_dump(mode="json") | {"structure": structure}
    text = json.dumps(content, indent=1)
    innermost = re.compile(r"[\[{][^\[\]{}]*[\]}]")
    return innermost.sub(lambda found: " ".join(found.group().split()), text) + "\n"


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _coded(table: dict[str, float]) -> Shares:
    return {int(code): float(value) for code, value in table.items()}


if __name__ == "__main__":
    main()
