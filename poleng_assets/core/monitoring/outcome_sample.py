"""Whose outcomes count, and whom they stand for: people weighed to everybody scored.

Outcomes are known mostly of those who were contacted, and a model looks blind or brilliant when only its
contacts are looked at (verification bias). So contacts and others, and among them people of like scores,
are weighed to their numbers among everybody scored.

Sources:
    C. Begg, R. Greenes, Biometrics 39, 1983 (weighing what is verified to everybody tested).
    B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from poleng_assets.core.statistics.metrics import row_log_loss, weighted_auc, weighted_average_precision
from poleng_assets.core.statistics.poststratification import poststratify, systematic_sample
from poleng_assets.study.policies import OutcomesPolicy
from poleng_assets.study.schema import Study

# Rows that a weighted frame is repeated to, at least: NannyML knows no weights.
REPEATED_ROWS = 20_000


@dataclass(frozen=True)
class OutcomeSample:
    """People whose target is known, weighed to those they stand for. All arrays have shape (n,).

    Attributes:
        target: 0 or 1.
        score: probability of 1.
        contact: bool.
        weights: above 0.
        strata: positions of the rows of each stratum, and how many people it stands for.
        within: the feature that people are compared within, None when there is none.
    """

    target: np.ndarray
    score: np.ndarray
    contact: np.ndarray
    weights: np.ndarray
    strata: tuple[tuple[np.ndarray, float], ...]
    within: pd.Series | None = None

    @property
    def even(self) -> bool:
        """Whether everybody stands for as many people."""
        return bool(np.ptp(self.weights) <= 1e-9 * self.weights.max())

    @cached_property
    def positions(self) -> np.ndarray:
        """Rows repeated so that plain figures are the weighted ones."""
        if self.even:
            return np.arange(len(self.target))
        # In this order those who are alike are repeated evenly.
        order = np.lexsort((self.score, self.target, self.contact))
        return order[systematic_sample(self.weights[order], max(REPEATED_ROWS, 4 * len(order)))]

    @cached_property
    def _row_losses(self) -> dict[str, np.ndarray]:
        return {
            "log_loss": row_log_loss(self.target, self.score),
            "brier": np.square(self.score - self.target),
        }

    @cached_property
    def _places(self) -> np.ndarray:
        """Number of each row's score among the different scores, lowest first."""
        return np.unique(self.score, return_inverse=True)[1]

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """Return every figure that can be said of these people under other weights.

        Fast, because resamples ask for it many times over; the values themselves come from libraries.
        """
        total, hits = weights.sum(), weights[self.contact & (self.target == 1)].sum()
        positives, contacts = weights[self.target == 1].sum(), weights[self.contact].sum()
        result = {name: float(weights @ losses / total) for name, losses in self._row_losses.items()}
        result["accuracy"] = float(weights[self.contact == (self.target == 1)].sum() / total)
        if contacts > 0:
            result["precision"] = float(hits / contacts)
        if positives > 0:
            result["recall"] = float(hits / positives)
        if 0 < positives < total:
            positive = np.bincount(self._places, weights * self.target)
            negative = np.bincount(self._places, weights * (1 - self.target))
            result["auc"] = weighted_auc(positive, negative, positives, total - positives)
            result["average_precision"] = weighted_average_precision(positive, negative, positives)
        return result

    def resampled(self, resamples: int, seed: int) -> dict[str, np.ndarray]:
        """Return each figure over resamples of the people, stratum by stratum.

        How many of everybody stand in which stratum is drawn first: who is scored is chance as well.
        """
        random = np.random.default_rng(seed)
        stands_for = np.array([people for _, people in self.strata])
        everybody = round(stands_for.sum())
        drawn: dict[str, list[float]] = {}
        for _ in range(resamples):
            weights = np.zeros(len(self.target))
            shares = random.multinomial(everybody, stands_for / stands_for.sum()) / stands_for
            for (rows, _), share in zip(self.strata, shares, strict=True):
                times = np.bincount(random.integers(0, len(rows), len(rows)), minlength=len(rows))
                weights[rows] = self.weights[rows] * times * share
            if weights.sum() > 0:
                for name, value in self.figures(weights).items():
                    drawn.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in drawn.items()}


def choose_sample(people: pd.DataFrame, study: Study) -> tuple[OutcomeSample | None, str]:
    """Choose whose outcomes count, and weigh them to everybody.

    Outcomes of people who were not contacted are those of whoever happened to be known, unless they were
    drawn at random, for the audit sample or for a request, or are nearly complete.

    Returns:
        The sample, None when there are too few contacts; and why something is missing.
        With a sample and a reason, the sample has the contacts only.
    """
    policy = study.policies.outcomes
    least = policy.min_interviews
    chosen: list[tuple[pd.DataFrame, float]] = []
    missing = ""
    for contact, who in ((True, "contacts"), (False, "people who were not contacted")):
        group = people[people["contact"] == contact]
        if group.empty:
            continue
        known = group[group["target"].notna()]
        if len(known) >= policy.complete_share * len(group):
            chosen.append((known, float(len(group))))
            continue
        drawn = known[known["at_random"]]
        if not contact and len(drawn) >= least:
            known = drawn
        if len(known) < least:
            missing = (
                f"the outcomes of {len(known)} of {len(group)} {who} are known, at least {least} are required"
            )
            if contact:
                return None, missing
            if chosen:
                missing += ": only precision is measured"
            continue
        chosen += _by_score(group, known, policy)
    if not chosen:
        return None, missing
    ends = np.cumsum([len(known) for known, _ in chosen])
    strata = tuple(
        (np.arange(end - len(known), end), size) for end, (known, size) in zip(ends, chosen, strict=True)
    )
    rows = pd.concat([known for known, _ in chosen], ignore_index=True)
    weights = np.concatenate([np.full(len(positions), size / len(positions)) for positions, size in strata])
    within = rows["within"] if study.policies.overseer.compare_within else None
    return _as_sample(rows, "target", weights, strata, within), missing


def _by_score(
    group: pd.DataFrame, known: pd.DataFrame, policy: OutcomesPolicy
) -> list[tuple[pd.DataFrame, float]]:
    """Split the known of a group into parts of equal numbers of the group, by score.

    Lists are worked off from the top, and interviews asked for where scores are uncertain: who is known
    depends on the score. As many parts as leave each enough known people, and no more than some.

    Returns:
        For each part its known people, and how many of the group they stand for.
    """
    for parts in range(policy.score_parts, 1, -1):
        ends = np.quantile(group["score"], np.arange(1, parts) / parts)
        part_of_known = np.digitize(known["score"], ends)
        if np.bincount(part_of_known, minlength=parts).min() >= policy.min_in_part:
            sizes = np.bincount(np.digitize(group["score"], ends), minlength=parts)
            return [(known[part_of_known == part], float(sizes[part])) for part in range(parts)]
    return [(known, float(len(group)))]


def weigh_reference(reference: pd.DataFrame, sample: OutcomeSample, study: Study) -> OutcomeSample:
    """Weigh the reference to the mix of the people whose outcomes are known."""
    policy, rows = study.policies.overseer, len(reference)
    of_reference = of_sample = None
    if sample.within is not None:
        of_sample = sample.within.iloc[sample.positions].reset_index(drop=True)
        of_reference = reference[str(policy.compare_within)]
    weights = poststratify(
        of_reference, of_sample, (rows, len(sample.positions)), policy.min_stratum, policy.min_comparable
    ).weights
    # Those whom nobody in the batch is like have no say.
    kept = np.flatnonzero(weights > 0)
    strata = ((np.arange(len(kept)), float(len(kept))),)
    return _as_sample(reference.iloc[kept], study.target.name, weights[kept], strata)


def _as_sample(
    rows: pd.DataFrame,
    target: str,
    weights: np.ndarray,
    strata: tuple[tuple[np.ndarray, float], ...],
    within: pd.Series | None = None,
) -> OutcomeSample:
    return OutcomeSample(
        rows[target].to_numpy(dtype=float).astype(int),
        rows["score"].to_numpy(dtype=float),
        rows["contact"].to_numpy().astype(bool),
        weights,
        strata,
        within,
    )
