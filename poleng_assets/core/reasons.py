"""Why a person's score is high, in the words of their own answers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poleng_assets.core.model import Model
from poleng_assets.study import Study


def strongest_reasons(model: Model, rows: pd.DataFrame, study: Study) -> list[str]:
    """Return for each person the answers that raise the score most, strongest first.

    What an answer contributes is the weighted sum of what it contributes to each model of the blend, in
    log-odds: the booster's own contributions (Lundberg et al. 2018, arXiv:1802.03888), the effects of
    the regression. Only answers that raise the score are reasons for a contact, so there may be
    fewer than asked.

    Args:
        model: that gave the scores.
        rows: the study's features as codes, n rows.
        study: titles, labels, how many reasons are given, and which answers are never told.

    Returns:
        n texts such as ``Employment: Housewife; Household income: Low``; empty when nothing raises it.
    """
    policy = study.policies.contact
    contributions = model.contributions(rows)
    withheld = [position for position, f in enumerate(study.features) if f.name in policy.withheld_reasons]
    contributions[:, withheld] = -np.inf
    strongest = np.argsort(-contributions, axis=1, kind="stable")[:, : policy.reasons]
    answers = [rows[name].tolist() for name in study.feature_names]
    return [
        "; ".join(
            f"{study.features[position].title}: "
            f"{study.features[position].label(answers[position][row]) or 'no answer'}"
            for position in chosen
            if contributions[row, position] > 0
        )
        for row, chosen in enumerate(strongest)
    ]
