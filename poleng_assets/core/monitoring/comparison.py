"""Who is compared with whom: a batch with the people of the reference who are like them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from poleng_assets.core.statistics.poststratification import WeightedReference, poststratify
from poleng_assets.study.schema import Study


@dataclass(frozen=True)
class Comparison:
    """A batch beside a reference, all people and those who are comparable.

    Attributes:
        study: says within which question people are compared.
        reference: all held-out rows.
        batch: all measured rows.
        weighted: the reference, weighed to the batch's mix of people.
    """

    study: Study
    reference: pd.DataFrame
    batch: pd.DataFrame
    weighted: WeightedReference

    @classmethod
    def of(cls, study: Study, reference: pd.DataFrame, batch: pd.DataFrame) -> Comparison:
        """Weigh the reference to a batch under the study's policy.

        Args:
            reference: held-out rows, with the question that people are compared within.
            batch: rows of the batch, likewise.
        """
        policy, rows = study.policies.overseer, (len(reference), len(batch))
        pair: tuple[pd.Series | None, pd.Series | None] = (None, None)
        if policy.compare_within is not None and all(rows):
            pair = (reference[policy.compare_within], batch[policy.compare_within])
        weighted = poststratify(*pair, rows, policy.min_stratum, policy.min_comparable)
        return cls(study, reference, batch, weighted)

    @property
    def within(self) -> str | None:
        """The question whose answers make the strata; None when everybody is compared with everybody."""
        return self.study.policies.overseer.compare_within if self.weighted.within else None

    @cached_property
    def like(self) -> pd.DataFrame:
        """The reference's rows, repeated so that plain shares are the weighted ones."""
        weighted = self.weighted
        return self.reference.iloc[weighted.expand_rows()] if weighted.within else self.reference

    @cached_property
    def comparable(self) -> pd.DataFrame:
        """The batch's rows that have people like them in the reference."""
        return self.batch[self.weighted.comparable] if self.weighted.within else self.batch
