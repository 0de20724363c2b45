"""The composition of a file: an aggregate table that identifies nobody.

It is shown once, when the file is ingested. Two tables that differ by one person (somebody was erased, or
released from quarantine) would reveal that person.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import frame_as_table
from poleng_assets.warehouse.people import count_answers

LONGEST = 6  # lines of one question; what is left is one more


class Group(NamedTuple):
    """People who gave the same answer to a question."""

    answer: str
    people: int


def composition(con: Connection, study: Study, kind: Kind, name: str) -> str:
    """Return who the people of a file are, as markdown.

    The questions are those by which the study tells people apart: its protected ones, the one that answers
    vary by, and the target where it is known.
    """
    fewest = study.policies.privacy.min_group_size
    lines = []
    for question, groups in _groups(con, study, kind, name).items():
        total = sum(group.people for group in groups)
        for number, group in enumerate(suppress_small_groups(groups, fewest)):
            share = f"{group.people / total:.0%}"
            lines.append((question if number == 0 else "", group.answer, f"{group.people:,}", share))
    if not lines:
        return f"Fewer than {fewest} people: no composition is shown."
    table = pd.DataFrame(lines, columns=["question", "answer", "people", "share"])
    shares = frame_as_table(table, align=("left", "left", "right", "right"))
    return f"{shares}\n\nRare answers are grouped: no row has fewer than {fewest} people."


def suppress_small_groups(groups: Sequence[Group], fewest: int) -> list[Group]:
    """Return the groups that may be shown, in their order; small and surplus ones become one group of others.

    The others are never one small group, and never few people: a single one that is left out follows from the
    total. Nothing is shown when all together are few.
    """
    by_size = sorted(groups, key=lambda group: -group.people)
    alone = [group for group in by_size if group.people >= fewest]
    if len(alone) > LONGEST:
        alone = alone[:LONGEST]
    others = by_size[len(alone) :]
    while others and alone and sum(group.people for group in others) < fewest:
        others.append(alone.pop())
    people = sum(group.people for group in others)
    kept = [group for group in groups if group in alone]
    if not others:
        return kept
    if people < fewest:
        return []
    answer = others[0].answer if len(others) == 1 else f"{len(others)} other answers"
    return [*kept, Group(answer, people)]


def _groups(con: Connection, study: Study, kind: Kind, name: str) -> dict[str, list[Group]]:
    groups = {}
    for column, title, label in _questions(study, kind):
        rows = count_answers(con, kind, name, column)
        if column in study.feature_names and study.feature(column).is_ordinal:
            rows.sort(key=lambda row: (row[0] is None, int(row[0] or 0)))
        groups[title] = [Group(label(code) or NO_ANSWER, people) for code, people in rows]
    return groups


def _questions(study: Study, kind: Kind) -> Iterator[tuple[str, str, Callable[[str | None], str]]]:
    """Yield column, title and wording of each question that is shown for a kind of file."""
    if kind != "batches":
        target = study.target
        yield target.name, target.title, lambda code: target.codes[int(code)] if code is not None else ""
    if kind == "outcomes":
        return
    varies_by = study.policies.training.varies_by
    for name in dict.fromkeys([*study.protected, *([varies_by] if varies_by else [])]):
        feature = study.feature(name)
        yield name, feature.title, feature.label
