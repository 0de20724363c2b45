"""Shadow scoring: what would change for a batch if the challenger served instead of the champion.

Batches have no labels, so this comparison does not show which model is better and is not a gate: it is
evidence for the people responsible for a promotion. Shadow scores are compared and not stored.

Sources:
    C. Spearman, American Journal of Psychology 15, 1904 (rank correlation). P. Jaccard, New Phytologist
    11, 1912 (overlap of two sets).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.statistics.groups import group_masks
from poleng_assets.text import markdown


@dataclass(frozen=True)
class Scored:
    """Scores and decisions of one model for n people of a batch.

    Attributes:
        score: probability of the positive answer, shape (n,).
        contact: whom it would contact, bool, shape (n,).
    """

    score: np.ndarray
    contact: np.ndarray


@dataclass(frozen=True)
class GroupShares:
    """Share of a protected group that each model would contact."""

    rows: int
    champion: float
    challenger: float

    @property
    def change(self) -> float:
        """How much larger the share is under the challenger, in [-1, 1]."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class Shadow:
    """Champion and challenger on the same people of one batch.

    Attributes:
        batch: its name.
        rows: people compared.
        batch_rows: people in the batch, more than were compared when it is large.
        champion_contacts: of those compared, on the champion's list.
        challenger_contacts: on the challenger's list.
        both: on both lists.
        rank_correlation: Spearman's, in [-1, 1]; None where it is undefined (a constant score).
        mean_score_change: mean absolute change of a score, in [0, 1]; None where a score is no number.
        groups: shares of each protected group that is large enough, by property and answer in words.
    """

    batch: str
    rows: int
    batch_rows: int
    champion_contacts: int
    challenger_contacts: int
    both: int
    rank_correlation: float | None
    mean_score_change: float | None
    groups: Mapping[str, GroupShares] = field(default_factory=dict)

    @property
    def newcomers(self) -> int:
        """People whom only the challenger would contact."""
        return self.challenger_contacts - self.both

    @property
    def dropped(self) -> int:
        """People whom only the champion would contact."""
        return self.champion_contacts - self.both

    @property
    def jaccard(self) -> float | None:
        """Share of the people on either list who stand on both; None when both lists are empty."""
        return _ratio(self.both, self.both + self.newcomers + self.dropped)

    @property
    def kept_share(self) -> float | None:
        """Share of the champion's list that the challenger keeps; None when that list is empty."""
        return _ratio(self.both, self.champion_contacts)

    @property
    def volume_change(self) -> int:
        """How many people more the challenger's list has."""
        return self.challenger_contacts - self.champion_contacts

    @property
    def relative_volume_change(self) -> float | None:
        """The same as a share of the champion's list; None when that list is empty."""
        return _ratio(self.volume_change, self.champion_contacts)

    @property
    def most_changed_group(self) -> str | None:
        """The protected group whose share changes most; None when no group is large enough."""
        return max(self.groups, key=lambda name: abs(self.groups[name].change), default=None)

    def summary(self) -> str:
        """Return one line for a log."""
        line = (
            f"Shadow scoring of {self.batch}: of {self._people()} people, the champion contacts "
            f"{self.champion_contacts:,}, the challenger {self.challenger_contacts:,} "
            f"({_share(self.relative_volume_change, signed=True)}); {self.both:,} are on both lists "
            f"({_share(self.kept_share)} of the champion's list, Jaccard index {_number(self.jaccard)}), "
            f"{self.newcomers:,} added, {self.dropped:,} dropped; rank correlation "
            f"{_number(self.rank_correlation)}, mean absolute score change {_number(self.mean_score_change)}"
        )
        return f"{line}; {self._most_changed()}" if self.groups else line

    def evidence(self) -> dict[str, Any]:
        """Return all metrics for the ledger: valid JSON without ids; undefined values are left out."""
        figures = {
            "batch": self.batch,
            "rows": self.rows,
            "batch_rows": self.batch_rows,
            "champion_contacts": self.champion_contacts,
            "challenger_contacts": self.challenger_contacts,
            "both": self.both,
            "newcomers": self.newcomers,
            "dropped": self.dropped,
            "jaccard": self.jaccard,
            "kept_share": self.kept_share,
            "volume_change": self.volume_change,
            "relative_volume_change": self.relative_volume_change,
            "rank_correlation": self.rank_correlation,
            "mean_score_change": self.mean_score_change,
            "groups": {
                name: {**vars(shares), "change": shares.change} for name, shares in self.groups.items()
            },
        }
        return {name: value for name, value in figures.items() if value is not None}

    def _people(self) -> str:
        return f"{self.rows:,}" if self.rows == self.batch_rows else f"{self.rows:,} of {self.batch_rows:,}"

    def _most_changed(self) -> str:
        name = self.most_changed_group
        if name is None:
            return "no group is large enough"
        group = self.groups[name]
        return f"{name} {group.champion:.1%} → {group.challenger:.1%}"


def contacts(rule: ContactRule, score: np.ndarray, ids: np.ndarray, batch_rows: int) -> np.ndarray:
    """Return whom a rule would contact among people of one batch: bool, shape (n,).

    A capacity is one for the whole batch, so a sample of it gets its share of the places. Of equal scores
    at the limit the smaller ids are taken, as the list takes them (``core/modeling/batch_scoring.py``).

    Args:
        score: probability of the positive answer, shape (n,).
        ids: of the same people, texts, shape (n,).
        batch_rows: people in the batch, n of whom are given.
    """
    if rule.capacity is None:
        return rule.decide(score)
    places = round(rule.capacity * len(score) / max(batch_rows, 1))
    chosen = np.zeros(len(score), dtype=bool)
    chosen[np.lexsort((np.asarray(ids, dtype=str), -score))[:places]] = True
    return chosen


def compare(
    batch: str,
    champion: Scored,
    challenger: Scored,
    groups: Mapping[str, np.ndarray],
    *,
    batch_rows: int,
    min_group_rows: int,
) -> Shadow:
    """Compare two models on the same n people of a batch; n may be 0.

    Args:
        champion: scores of the model that serves.
        challenger: scores of the other model, for the same people in the same order.
        groups: for each protected property, the value of each person in words, shape (n,).
        batch_rows: people in the batch, n of whom are given.
        min_group_rows: smaller groups are left out.

    Raises:
        ValueError: the columns are not of one length.
    """
    columns = [champion.score, champion.contact, challenger.score, challenger.contact, *groups.values()]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(
            f"the columns of {batch} have {', '.join(str(len(column)) for column in columns)} rows"
        )
    return Shadow(
        batch=batch,
        rows=len(champion.score),
        batch_rows=batch_rows,
        champion_contacts=int(champion.contact.sum()),
        challenger_contacts=int(challenger.contact.sum()),
        both=int((champion.contact & challenger.contact).sum()),
        rank_correlation=_rank_correlation(champion.score, challenger.score),
        mean_score_change=_mean(np.abs(challenger.score - champion.score)),
        groups={
            name: GroupShares(
                int(rows.sum()), float(champion.contact[rows].mean()), float(challenger.contact[rows].mean())
            )
            for name, rows in group_masks(groups, max(min_group_rows, 1)).items()
        },
    )


def table(shadows: Sequence[Shadow]) -> str:
    """Return a Markdown table with one column for each batch: the UI cuts off wide tables."""
    figures: dict[str, Callable[[Shadow], str]] = {
        "": lambda shadow: shadow.batch,
        "people": lambda shadow: shadow._people(),
        "champion's list": lambda shadow: f"{shadow.champion_contacts:,}",
        "challenger's list": lambda shadow: f"{shadow.challenger_contacts:,}",
        "change": lambda shadow: (
            f"{shadow.volume_change:+,} ({_share(shadow.relative_volume_change, signed=True)})"
        ),
        "on both lists": lambda shadow: f"{shadow.both:,} ({_share(shadow.kept_share)})",
        "added": lambda shadow: f"{shadow.newcomers:,}",
        "dropped": lambda shadow: f"{shadow.dropped:,}",
        "Jaccard index": lambda shadow: _number(shadow.jaccard),
        "rank correlation": lambda shadow: _number(shadow.rank_correlation),
        "mean absolute score change": lambda shadow: _number(shadow.mean_score_change),
        "most changed protected group": lambda shadow: shadow._most_changed(),
    }
    head, *rows = (
        [name, *(format_cell(shadow) for shadow in shadows)] for name, format_cell in figures.items()
    )
    return markdown.table(head, rows)


def _rank_correlation(champion: np.ndarray, challenger: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    for score in (champion, challenger):
        if len(np.unique(score)) < 2 or not np.isfinite(score).all():
            return None
    return float(spearmanr(champion, challenger).statistic)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


def _ratio(part: int, total: int) -> float | None:
    return part / total if total else None


def _share(value: float | None, signed: bool = False) -> str:
    return "undefined" if value is None else format(value, "+.1%" if signed else ".1%")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
