"""Like with like: the people of the reference whom a batch is compared with.

A batch of other countries, or of the same in other shares, is no drift: the model knows these people.
So the reference is weighed to the batch's mix over one feature (post-stratification: D. Holt, T. M. F.
Smith, JRSS A 142, 1979). What differs then differs within strata.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from poleng_assets.core.features.codes import to_codes, to_table

MAX_EXPANDED_ROWS = 10_000
_NO_ANSWER = -(10**9)
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class WeightedReference:
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

    def expand_rows(self) -> np.ndarray:
        """Return positions in the reference, repeated so that plain shares are the weighted ones.

        NannyML knows no weights. Every row is taken as often as its weight asks, to the nearest place
        of a systematic draw; the length is at most :data:`MAX_EXPANDED_ROWS`.
        """
        if not self.within:
            return np.arange(len(self.weights))
        return self._sampled(min(MAX_EXPANDED_ROWS, 4 * len(self.weights)))

    def distinct(self) -> np.ndarray:
        """Return positions in the reference, nobody twice, that have the batch's mix: as many as it has."""
        return self._sampled(int(1 / self.weights.max()))

    def _sampled(self, rows: int) -> np.ndarray:
        """Draw stratum by stratum: along the rows as they stand, a stratum may be left out by bad luck."""
        order = np.concatenate([of_reference for of_reference, _ in self.strata])
        return order[systematic_sample(self.weights[order], rows)]

    def bootstrap_weights(
        self, resamples: int, seed: int, smoothing_rows: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of the reference's rows in resamples of the reference, and of an unchanged batch.

        Both are drawn from the same people, stratum by stratum: the batch as many as it has, the
        reference as many as it has, weighed as it is. What differs between the two is chance, that of
        the batch and that of the reference.

        Args:
            smoothing_rows: of the whole reference, which each stratum borrows: in a stratum of thirty, an
                answer that one person in a hundred gives may be absent, and would be impossible for ever.

        Returns:
            Two float32 matrices of shape (resamples, reference rows).
        """
        random = np.random.default_rng(seed)
        rows = len(self.weights)
        reference = np.zeros((resamples, rows), np.float32)
        batch = np.zeros((resamples, rows), np.float32)
        compared = sum(len(of_batch) for _, of_batch in self.strata)
        lent: list[tuple[np.ndarray, np.ndarray, float]] = []
        for stratum, of_batch in self.strata:
            # Everybody has nobody to borrow from.
            share = smoothing_rows / (len(stratum) + smoothing_rows) if self.within else 0.0
            for resampled, count, weight in (
                (reference, len(stratum), len(of_batch) / compared / len(stratum)),
                (batch, len(of_batch), 1.0),
            ):
                borrowed = random.binomial(count, share, size=resamples)
                drawn = _tally(random, count - borrowed, len(stratum)).astype(np.float32)
                resampled[:, stratum] = np.multiply(drawn, weight, out=drawn)
                who = random.integers(0, rows, size=int(borrowed.sum()))
                who += np.repeat(np.arange(resamples) * rows, borrowed)
                lent.append((resampled, who, weight))
        # People of any stratum are borrowed: the matrices are complete only now.
        for resampled, who, weight in lent:
            np.add.at(resampled.reshape(-1), who, np.float32(weight))
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
    for part in np.array_split(counts, 1 + len(counts) * most // _DRAWN_AT_ONCE):
        rows = np.repeat(np.arange(len(part)) * people, part)
        rows += random.integers(0, people, size=len(rows))
        tallies.append(np.bincount(rows, minlength=len(part) * people).reshape(len(part), people))
    return np.concatenate(tallies)


def poststratify(
    reference: pd.Series | None,
    batch: pd.Series | None,
    rows: tuple[int, int],
    min_rows: int,
    min_comparable: float,
) -> WeightedReference:
    """Weigh a reference to the mix of a batch.

    Args:
        reference: the feature to compare within, of the reference's rows; None compares with everybody.
        batch: the same of the batch's rows.
        rows: of the reference, and of the batch.
        min_rows: of the reference that a value needs; people with rarer values are not comparable.
        min_comparable: share of the batch; with fewer comparable people, it is compared with everybody.
    """
    everybody = WeightedReference(
        ((np.arange(rows[0]), np.arange(rows[1])),),
        np.ones(rows[1], dtype=bool),
        np.full(rows[0], 1 / max(rows[0], 1)),
        within=False,
    )
    if reference is None or batch is None or not rows[1]:
        return everybody
    known = _positions(reference)
    strata = tuple(
        (known[value], positions)
        for value, positions in _positions(batch).items()
        if value in known and len(known[value]) >= min_rows
    )
    comparable = np.zeros(rows[1], dtype=bool)
    weights = np.zeros(rows[0])
    for of_reference, of_batch in strata:
        comparable[of_batch] = True
        weights[of_reference] += len(of_batch) / len(of_reference)
    if comparable.mean() < min_comparable:
        return everybody
    return WeightedReference(strata, comparable, weights / weights.sum(), within=True)


def effective_rows(weights: np.ndarray) -> float:
    """Return how many unweighted rows tell as much (L. Kish, Survey Sampling, 1965).

    Args:
        weights: not negative, any sum above 0, shape (n,).
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def systematic_sample(weights: np.ndarray, rows: int) -> np.ndarray:
    """Return ``rows`` positions, each as often as its weight asks for: never off by one or more.

    Systematic sampling with a fixed start (W. G. Madow, Ann. Math. Stat. 20, 1949).

    Args:
        weights: not negative, any sum above 0, shape (n,).
        rows: to return.
    """
    ends = np.cumsum(weights / weights.sum())
    middles = (np.arange(rows) + 0.5) / rows
    return np.minimum(np.searchsorted(ends, middles), len(weights) - 1)


def _positions(values: pd.Series) -> dict[int | None, np.ndarray]:
    """Return the positions of each code; a missing answer is a value as well."""
    codes = to_codes(to_table(values.to_frame("value"))["value"])[0].to_pandas()
    # pandas knows no missing key: codes are never this low.
    filled = codes.fillna(_NO_ANSWER).astype("int64")
    return {
        None if value == _NO_ANSWER else int(value): np.asarray(positions)
        for value, positions in filled.groupby(filled).indices.items()
    }
