"""Groups that a contact rule passes over: nobody, or hardly anybody, of them is contacted.

A rule can perform well overall and leave out a whole country. A group is passed over when its contact rate or
its recall is significantly below what the study requires; small groups are not judged.

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

# Most groups in a sentence; the evidence has all.
NAMED = 5


@dataclass(frozen=True)
class GroupContacts:
    """How often people of one group are contacted.

    Attributes:
        property: title of the question.
        value: label of the answer.
        sought: people of the positive class among them; None when unknown.
        found: contacted people of the positive class; None when unknown.
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
        """Return the upper end of the recall, one-sided; 1 when no positive outcome is known."""
        return _at_most(self.found or 0, self.sought, confidence) if self.sought else 1.0

    def is_passed_over(self, policy: PromotionPolicy) -> bool:
        """Whether the contact rate or the recall of the group is significantly below the required minimum."""
        if self.rows < policy.min_group_rows:
            return False
        return (
            self.selection_at_most(policy.confidence) < policy.min_group_selection_rate
            or self.recall_at_most(policy.confidence) < policy.min_group_recall
        )

    def in_words(self) -> str:
        """Describe the contact rate and the recall of the group."""
        who = f"“{self.value}” ({self.property})"
        summary = f"{who}: {self.contacted:,} of {self.rows:,} people are contacted"
        if self.sought is not None:
            summary += f", {self.found:,} of {self.sought:,} in the target group"
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

    Groups are the answers to protected questions and to the question that defines the strata. Recall is
    unknown while the outcomes of many people of a group are unknown.

    Args:
        counts: of each question in :func:`group_questions`, see
            :func:`poleng_assets.warehouse.predictions.count_groups`.
    """
    groups = []
    for name, answers in counts.items():
        feature = study.feature(name)
        for group in answers:
            # With fewer, known outcomes are mostly those of contacts, which bias the recall.
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
    """Return the questions that define the groups a rule must not pass over."""
    within = study.policies.overseer.compare_within
    return list(dict.fromkeys([*([within] if within else []), *study.protected]))


def passed_over(counted: Iterable[GroupContacts], policy: PromotionPolicy) -> list[GroupContacts]:
    """Return the groups that are passed over, the largest first."""
    neglected = [group for group in counted if group.is_passed_over(policy)]
    return sorted(neglected, key=lambda group: -group.rows)


def describe_passed_over(groups: Sequence[GroupContacts], policy: PromotionPolicy) -> str:
    """Describe in one sentence which groups are passed over; empty when none is."""
    if not groups:
        return ""
    listed = "; ".join(group.in_words() for group in groups[:NAMED])
    more = f"; and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return (
        f"passes over {len(groups)} {'group' if len(groups) == 1 else 'groups'} (contact rate significantly "
        f"below {policy.min_group_selection_rate:.0%}, or recall significantly below "
        f"{policy.min_group_recall:.0%}): {listed}{more}"
    )


def _at_most(hits: int, rows: int | None, confidence: float) -> float:
    return wilson_interval(hits, rows or 0, NormalDist().inv_cdf(confidence))[1] if rows else 1.0
