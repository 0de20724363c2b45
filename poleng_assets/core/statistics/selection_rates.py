"""Groups of people whom a contact rule passes over: nobody of them is contacted, or hardly anybody.

A rule can be good for most and leave out a whole country. Two figures tell: the share of a group that is
contacted, and the share of those sought in it who are (recall). A group is passed over when either surely
lies below what the study asks for; of few people nothing is sure, and a small group is not judged.

Source: E. Wilson, JASA 22, 1927 (interval of a share).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from poleng_assets.core.statistics.groups import NO_ANSWER, OTHERS
from poleng_assets.core.statistics.intervals import wilson_interval
from poleng_assets.study.policies import PromotionPolicy
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.predictions import GroupCount

# So many groups are named in a sentence; the evidence has all.
NAMED = 5


@dataclass(frozen=True)
class GroupContacts:
    """How often people of one group are contacted.

    Attributes:
        property: the question, in words.
        value: the answer, in words.
        sought: people of the positive class among them; None when nobody knows.
        found: of those sought, contacted ones; None when nobody knows.
    """

    property: str
    value: str
    rows: int
    contacted: int
    sought: int | None = None
    found: int | None = None

    def selection_at_most(self, confidence: float) -> float:
        """Return the upper end of the share that is contacted, one-sided."""
        return _at_most(self.contacted, self.rows, confidence)

    def recall_at_most(self, confidence: float) -> float:
        """Return the upper end of the recall, one-sided; 1 when nobody sought is known."""
        return _at_most(self.found or 0, self.sought, confidence) if self.sought else 1.0

    def is_passed_over(self, policy: PromotionPolicy) -> bool:
        """Whether the rule surely contacts fewer of the group, or of those sought in it, than it should."""
        if self.rows < policy.min_group_rows:
            return False
        return (
            self.selection_at_most(policy.confidence) < policy.min_group_selection_rate
            or self.recall_at_most(policy.confidence) < policy.min_group_recall
        )

    def in_words(self) -> str:
        """Say how many are contacted, and how many of those sought."""
        who = f"“{self.value}” ({self.property})"
        summary = f"{who}: {self.contacted:,} of {self.rows:,} people are contacted"
        if self.sought is not None:
            summary += f", {self.found:,} of the {self.sought:,} sought"
        return summary


def contacts_by_group(
    groups: Mapping[str, np.ndarray], contact: np.ndarray, target: np.ndarray | None = None
) -> list[GroupContacts]:
    """Count contacts in each group.

    Args:
        groups: for each property its values in words, each of shape (n,).
        contact: whom the rule contacts, bool, shape (n,).
        target: 0 or 1, shape (n,); None when it is not known.
    """
    counted = []
    for title, values in groups.items():
        names, which = np.unique(values.astype(str), return_inverse=True)
        rows = np.bincount(which, minlength=len(names))
        contacted = np.bincount(which, contact.astype(float), len(names)).astype(int)
        if target is None:
            sought = found = None
        else:
            sought = np.bincount(which, (target == 1).astype(float), len(names)).astype(int)
            found = np.bincount(which, ((target == 1) & contact).astype(float), len(names)).astype(int)
        for position, name in enumerate(names):
            counted.append(
                GroupContacts(
                    title,
                    str(name),
                    int(rows[position]),
                    int(contacted[position]),
                    int(sought[position]) if sought is not None else None,
                    int(found[position]) if found is not None else None,
                )
            )
    return counted


def contacts_in_table(groups: pd.DataFrame) -> list[GroupContacts]:
    """Return the same from a table of ``core/statistics/metrics.py``'s ``evaluate_groups``."""
    counted = []
    measured = (groups["value"] != OTHERS) & groups["target_rate"].notna() & groups["flagged_share"].notna()
    for _, row in groups[measured].iterrows():
        rows = int(row["rows"])
        sought = round(float(row["target_rate"]) * rows)
        found = 0 if pd.isna(row["recall"]) else round(float(row["recall"]) * sought)
        contacted = round(float(row["flagged_share"]) * rows)
        counted.append(GroupContacts(str(row["property"]), str(row["value"]), rows, contacted, sought, found))
    return counted


def contacts_of_groups(study: Study, counts: Mapping[str, Sequence[GroupCount]]) -> list[GroupContacts]:
    """Return the contacts in each group of a batch, with the outcomes known by now.

    Groups are the answers to protected questions and to the one within which batches are compared. Of those
    sought nothing is said while the outcomes of many people of a group are not known.

    Args:
        counts: of each question in :func:`group_questions`, see
            :func:`poleng_assets.warehouse.predictions.count_groups`.
    """
    groups = []
    for name, answers in counts.items():
        feature = study.feature(name)
        for group in answers:
            # Of fewer, the outcomes are mostly those of contacts: no recall can be made of them.
            nearly_all = group.known >= study.policies.promotion.min_known_share * group.rows
            groups.append(
                GroupContacts(
                    feature.title,
                    feature.label(group.code) or NO_ANSWER,
                    group.rows,
                    group.contacted,
                    group.positive if nearly_all else None,
                    group.positive_contacted if nearly_all else None,
                )
            )
    return groups


def group_questions(study: Study) -> list[str]:
    """Return the questions whose answers make the groups that a rule must not pass over."""
    within = study.policies.overseer.compare_within
    return list(dict.fromkeys([*([within] if within else []), *study.protected]))


def passed_over(counted: Iterable[GroupContacts], policy: PromotionPolicy) -> list[GroupContacts]:
    """Return the groups that are passed over, those with most people first."""
    neglected = [group for group in counted if group.is_passed_over(policy)]
    return sorted(neglected, key=lambda group: -group.rows)


def describe_passed_over(groups: Sequence[GroupContacts], policy: PromotionPolicy) -> str:
    """Say in one sentence which groups are passed over, and by what measure; empty when none is."""
    if not groups:
        return ""
    listed = "; ".join(group.in_words() for group in groups[:NAMED])
    more = f"; and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return (
        f"passes over {len(groups)} {'group' if len(groups) == 1 else 'groups'} (surely fewer than "
        f"{policy.min_group_selection_rate:.0%} of the people, or {policy.min_group_recall:.0%} of those "
        f"sought, are contacted): {listed}{more}"
    )


def _at_most(hits: int, rows: int | None, confidence: float) -> float:
    return wilson_interval(hits, rows or 0, NormalDist().inv_cdf(confidence))[1] if rows else 1.0
