"""Like with like: the people of the reference whom a batch is compared with.

A batch of other countries, or of the same in other shares, is no drift: the model knows these people.
So the reference is weighed to the batch's mix over one feature (post-stratification: D. Holt, T. M. F.
Smith, JRSS A 142, 1979). What differs then differs among people of a kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from poleng_assets.core.features.codes import to_codes, to_table

# People of the whole that each stratum borrows when it is resampled: in a stratum of thirty, an answer
# that one person in a hundred gives may be absent, and would else be impossible for ever.
BORROWED = 3.0
# Below this share of comparable people the batch is compared with the whole reference.
MIN_COMPARABLE = 0.5
MAX_REPEATED_ROWS = 10_000
_NO_ANSWER = -(10**9)
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Match:
    """The reference weighed to a batch.

    Attributes:
        strata: for each stratum, the positions of its rows in the reference, and in the batch.
        comparable: mask of the batch's rows that stand in a stratum, bool, shape (batch rows,).
        weights: of the reference's rows, shape (reference rows,), summing to 1.
        within: whether there are strata; else everybody is compared with the whole reference.
    """

    strata: tuple[tuple[np.ndarray, np.ndarray], ...]
    comparable: np.ndarray
    weights: np.ndarray
    within: bool

    @property
    def effective_rows(self) -> float:
        """Rows of an unweighted reference that would tell as much."""
        return effective_rows(self.weights)

    def repeated(self) -> np.ndarray:
        """Return positions in the reference, repeated so that plain shares are the weighted ones.

        NannyML knows no weights. Every row is taken as often as its weight asks, to the nearest place
        of a systematic draw; the length is at most :data:`MAX_REPEATED_ROWS`.
        """
        if not self.within:
            return np.arange(len(self.weights))
        return self._drawn(min(MAX_REPEATED_ROWS, 4 * len(self.weights)))

    def distinct(self) -> np.ndarray:
        """Return positions in the reference, nobody twice, that have the batch's mix: as many as it has."""
        return self._drawn(int(1 / self.weights.max()))

    def _drawn(self, rows: int) -> np.ndarray:
        """Draw stratum by stratum: along the rows as they stand, a stratum may be left out by bad luck."""
        order = np.concatenate([there for there, _ in self.strata])
        return order[systematic(self.weights[order], rows)]

    def resampled(self, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of the reference's rows in resamples of the reference, and of an unchanged batch.

        Both are drawn from the same people, stratum by stratum: the batch as many as it has, the
        reference as many as it has, weighed as it is. What differs between the two is chance, that of
        the batch and that of the reference.

        Returns:
            Two float32 matrices of shape (resamples, reference rows).
        """
        random = np.random.default_rng(seed)
        rows = len(self.weights)
        reference = np.zeros((resamples, rows), np.float32)
        batch = np.zeros((resamples, rows), np.float32)
        compared = sum(len(here) for _, here in self.strata)
        lent_to: list[tuple[np.ndarray, np.ndarray, float]] = []
        for there, here in self.strata:
            # Everybody has nobody to borrow from.
            lent = BORROWED / (len(there) + BORROWED) if self.within else 0.0
            for resamples_of, count, weight in (
                (reference, len(there), len(here) / compared / len(there)),
                (batch, len(here), 1.0),
            ):
                borrowed = random.binomial(count, lent, size=resamples)
                drawn = _tally(random, count - borrowed, len(there)).astype(np.float32)
                resamples_of[:, there] = np.multiply(drawn, weight, out=drawn)
                who = random.integers(0, rows, size=int(borrowed.sum()))
                who += np.repeat(np.arange(resamples) * rows, borrowed)
                lent_to.append((resamples_of, who, weight))
        # People of any stratum are borrowed: all of them are there only now.
        for resamples_of, who, weight in lent_to:
            np.add.at(resamples_of.reshape(-1), who, np.float32(weight))
        return reference, batch


def _tally(random: np.random.Generator, counts: np.ndarray, people: int) -> np.ndarray:
    """Draw people with replacement, ``counts[i]`` times in row i; return how often each was drawn.

    For fewer draws than this many for each person, drawing one by one is faster than the multinomial
    distribution, which asks for each person in turn.

    Returns:
        Shape (len(counts), people).
    """
    most = int(counts.max(initial=0))
    if most > 4 * people:
        return random.multinomial(counts, np.full(people, 1 / people))
    tallies = []
    for some in np.array_split(counts, 1 + len(counts) * most // _DRAWN_AT_ONCE):
        rows = np.repeat(np.arange(len(some)) * people, some)
        rows += random.integers(0, people, size=len(rows))
        tallies.append(np.bincount(rows, minlength=len(some) * people).reshape(len(some), people))
    return np.concatenate(tallies)


def match(
    reference: pd.Series | None, batch: pd.Series | None, rows: tuple[int, int], min_rows: int
) -> Match:
    """Weigh a reference to the mix of a batch.

    Args:
        reference: the feature to compare within, of the reference's rows; None compares with everybody.
        batch: the same of the batch's rows.
        rows: of the reference, and of the batch.
        min_rows: of the reference that a value needs; people with rarer values are not comparable.
    """
    everybody = Match(
        ((np.arange(rows[0]), np.arange(rows[1])),),
        np.ones(rows[1], dtype=bool),
        np.full(rows[0], 1 / max(rows[0], 1)),
        within=False,
    )
    if reference is None or batch is None or not rows[1]:
        return everybody
    there, here = (_positions(values) for values in (reference, batch))
    strata = tuple(
        (there[value], positions)
        for value, positions in here.items()
        if value in there and len(there[value]) >= min_rows
    )
    comparable = np.zeros(rows[1], dtype=bool)
    weights = np.zeros(rows[0])
    for of_reference, of_batch in strata:
        comparable[of_batch] = True
        weights[of_reference] += len(of_batch) / len(of_reference)
    if comparable.mean() < MIN_COMPARABLE:
        return everybody
    return Match(strata, comparable, weights / weights.sum(), within=True)


def effective_rows(weights: np.ndarray) -> float:
    """Return how many unweighted rows tell as much (L. Kish, Survey Sampling, 1965).

    Args:
        weights: not negative, any sum above 0, shape (n,).
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def systematic(weights: np.ndarray, rows: int) -> np.ndarray:
    """Return ``rows`` positions, each as often as its weight asks for: never off by one or more.

    Systematic sampling with a fixed start (W. G. Madow, Ann. Math. Stat. 20, 1949).

    Args:
        weights: not negative, any sum above 0, shape (n,).
        rows: to return.
    """
    ends = np.cumsum(weights / weights.sum())
    places = (np.arange(rows) + 0.5) / rows
    return np.minimum(np.searchsorted(ends, places), len(weights) - 1)


def _positions(values: pd.Series) -> dict[int | None, np.ndarray]:
    """Return where each code stands; a missing answer is a value as well."""
    codes = to_codes(to_table(values.to_frame("value"))["value"])[0].to_pandas()
    # pandas knows no missing key: codes are never this low.
    found = codes.fillna(_NO_ANSWER).astype("int64")
    return {
        None if value == _NO_ANSWER else int(value): np.asarray(places)
        for value, places in found.groupby(found).indices.items()
    }
